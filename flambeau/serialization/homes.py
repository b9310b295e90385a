"""Under which names PyTorch's files know the classes and functions of this package.

Most live in the module of the same name (`flambeau.nn.modules.conv`, `torch.nn.modules.conv`); the
table lists those that do not.
"""

from __future__ import annotations

__all__ = ["our_name", "their_name"]

_NN, _SCHEDULER = "torch.nn.modules", "torch.optim.lr_scheduler"
_MODULES = {
    "activation": ("attention", "MultiheadAttention"),
    "batchnorm": ("lazy", "LazyBatchNorm1d", "LazyBatchNorm2d", "LazyBatchNorm3d"),
    "channelshuffle": ("rearrange", "ChannelShuffle"),
    "conv": ("lazy", *(f"LazyConv{kind}{rank}d" for kind in ("", "Transpose")
                       for rank in (1, 2, 3))),
    "fold": ("rearrange", "Fold", "Unfold"),
    "instancenorm": ("lazy", *(f"LazyInstanceNorm{rank}d" for rank in (1, 2, 3))),
    "linear": ("lazy", "LazyLinear"),
    "pixelshuffle": ("rearrange", "PixelShuffle", "PixelUnshuffle"),
    "upsampling": ("rearrange", "Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d"),
}
_OURS = {
    **{f"{_NN}.{theirs}.{name}": f"flambeau.nn.modules.{ours}.{name}"
       for theirs, (ours, *names) in _MODULES.items() for name in names},
    **{f"{_SCHEDULER}.{name}": f"flambeau.optim._cycles.{name}" for name in (
        "CosineAnnealingWarmRestarts", "CyclicLR", "OneCycleLR", "ReduceLROnPlateau")},
    **{f"torch.distributions.transforms.{name}": f"flambeau.distributions._transform.{name}"
       for name in ("ComposeTransform", "IndependentTransform", "ReshapeTransform", "Transform",
                    "_InverseTransform")},
    f"{_NN}.linear_cross_entropy_options.LinearCrossEntropyOptions":
        "flambeau.nn._linear_loss.LinearCrossEntropyOptions",
    f"{_SCHEDULER}.LRScheduler": "flambeau.optim._schedule.LRScheduler",
    f"{_NN}.module._WrappedHook": "flambeau.nn.modules._state._LoadHook",
    "torch.optim.Adafactor": "flambeau.optim.adafactor.Adafactor",
    "torch.optim.Muon": "flambeau.optim.muon.Muon",
    "torch.cuda.amp.grad_scaler.GradScaler": "flambeau.cuda.amp.GradScaler",
    "torch.utils.hooks.RemovableHandle": "flambeau.autograd.handles.RemovableHandle",
    "torch.Size": "flambeau.core.shapes.Size",
    "torch.Tensor": "flambeau.tensor.tensor.Tensor",
    "torch._C.Generator": "flambeau.runtime.generator.Generator",
    "torch.device": "flambeau.core.device.Device",
}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}
# Functions that PyTorch has compiled are pickled by the module of their binding.
_BINDINGS = {"torch._C._nn.": "flambeau.nn.functional.",
             "torch._C._VariableFunctions.": "flambeau."}


def their_name(module: str, name: str) -> tuple[str, str]:
    """PyTorch's module and name of what is called `module`.`name` here."""
    known = _THEIRS.get(f"{module}.{name}")
    if known is not None:
        module, _, name = known.rpartition(".")
        return module, name
    ours = module == "flambeau" or module.startswith("flambeau.")
    return f"torch{module.removeprefix('flambeau')}" if ours else module, name


def our_name(name: str) -> str:
    """The dotted name here of PyTorch's `name`; other names as they are."""
    if name in _OURS:
        return _OURS[name]
    for binding, ours in _BINDINGS.items():
        if name.startswith(binding):
            return ours + name.removeprefix(binding)
    return f"flambeau{name.removeprefix('torch')}" if name.startswith("torch.") else name
