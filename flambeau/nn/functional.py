"""The functional interface: re-exports of the op table, and argument handling in plain Python.

Lives here: names, legacy arguments, `inplace=`, checks that need no numerics, dropout masks. May
not live here: maths; every value is computed by an op.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import flambeau
from flambeau.core.arguments import need_tensor
from flambeau.nn import _attention, _dropout, _resize, _scaled, _windows
from flambeau.nn._attention import *  # noqa: F403 - their __all__ says what is public
from flambeau.nn._ctc import ctc_loss as ctc_loss
from flambeau.nn._dropout import *  # noqa: F403
from flambeau.nn._linear_loss import linear_cross_entropy as linear_cross_entropy
from flambeau.nn._resize import *  # noqa: F403
from flambeau.nn._scaled import *  # noqa: F403
from flambeau.nn._windows import *  # noqa: F403
from flambeau.tensor import Tensor, functions, public
from flambeau.tensor.functions import ops
from flambeau.tensor.overriding import fit_doors
from flambeau.tensor.random import dropout as dropout
from flambeau.tensor.random import room

# Names that are exactly an op: those that the ops' records make public here, and these. They are
# resolved at first use, then plain attributes of this module.
_OPS = (
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool2d", "adaptive_max_pool3d", "affine_grid", "avg_pool1d", "avg_pool2d",
    "avg_pool3d", "bilinear", "celu_", "channel_shuffle", "conv1d", "conv2d", "conv3d",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "cosine_similarity",
    "elu_", "gaussian_nll_loss", "gelu", "glu", "grid_sample", "group_norm",
    "hardshrink", "hardtanh_", "layer_norm", "leaky_relu_", "linear", "local_response_norm",
    "logsigmoid", "lp_pool1d", "lp_pool2d", "lp_pool3d", "max_pool1d", "max_pool2d",
    "max_pool3d", "normalize", "pad", "pairwise_distance", "pdist", "pixel_shuffle",
    "pixel_unshuffle", "prelu", "relu_", "rms_norm", "selu_", "sigmoid", "softplus",
    "softshrink", "softsign", "tanh", "tanhshrink", "threshold_",
)
_DEFINED = (
    "batch_norm", "binary_cross_entropy", "binary_cross_entropy_with_logits",
    "celu", "conv_tbc", "cosine_embedding_loss", "cross_entropy",
    "ctc_loss", "dropout", "elu", "embedding", "embedding_bag",
    "gumbel_softmax", "hardsigmoid", "hardswish", "hardtanh", "hinge_embedding_loss",
    "huber_loss", "instance_norm", "kl_div", "l1_loss", "leaky_relu", "linear_cross_entropy",
    "log_softmax",
    "margin_ranking_loss", "mish", "mse_loss", "multi_margin_loss", "multilabel_margin_loss",
    "multilabel_soft_margin_loss", "nll_loss", "one_hot", "poisson_nll_loss", "relu", "relu6",
    "rrelu", "rrelu_", "selu", "silu", "smooth_l1_loss", "soft_margin_loss", "softmax",
    "softmin", "threshold", "triplet_margin_loss", "triplet_margin_with_distance_loss",
)
__all__ = sorted({*_DEFINED, *_attention.__all__, *_dropout.__all__, *_resize.__all__,
                  *_scaled.__all__, *_windows.__all__,
                  *public.names("nn.functional"), *(name for name in _OPS if hasattr(ops, name))})


class _NotYetError(AttributeError, NotImplementedError):
    """A function of PyTorch that is missing: `hasattr` is False, a call is not implemented."""


def __getattr__(name: str) -> Any:
    found = public.lookup("nn.functional", name)
    if found is None and name in _OPS:
        found = getattr(ops, name, None)
    if found is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        if name in _OPS:
            raise _NotYetError(f"{message}: it is not implemented yet")
        raise AttributeError(message)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return list(__all__)


# -- activations ---------------------------------------------------------------------------------
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(0, x), elementwise."""
    return functions.relu_(input) if inplace else functions.relu(input)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(0, x), 6), elementwise.

    >>> F.relu6(torch.tensor([-1., 3., 8.]))
    tensor([0., 3., 6.])
    """
    return functions.relu6_(input) if inplace else functions.relu6(input)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x), elementwise.

    >>> F.silu(torch.tensor([-1., 0., 1.]))
    tensor([-0.2689,  0.0000,  0.7311])
    """
    return functions.silu_(input) if inplace else functions.silu(input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x)), elementwise.

    >>> F.mish(torch.tensor([-1., 0., 1.]))
    tensor([-0.3034,  0.0000,  0.8651])
    """
    return functions.mish_(input) if inplace else functions.mish(input)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """The self-normalizing activation, elementwise."""
    return functions.selu_(input) if inplace else functions.selu(input)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * min(max(x + 3, 0), 6) / 6, elementwise.

    >>> F.hardswish(torch.tensor([-4., -1., 0., 4.]))
    tensor([-0.0000, -0.3333,  0.0000,  4.0000])
    """
    return functions.hardswish_(input) if inplace else functions.hardswish(input)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6, elementwise.

    >>> F.hardsigmoid(torch.tensor([-4., 0., 1.5, 4.]))
    tensor([0.0000, 0.5000, 0.7500, 1.0000])
    """
    return functions.hardsigmoid_(input) if inplace else functions.hardsigmoid(input)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha * (exp(x) - 1), elementwise.

    >>> F.elu(torch.tensor([-2., 0., 3.]))
    tensor([-0.8647,  0.0000,  3.0000])
    """
    return functions.elu_(input, alpha) if inplace else functions.elu(input, alpha)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1)), elementwise."""
    return functions.celu_(input, alpha) if inplace else functions.celu(input, alpha)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, else negative_slope * x, elementwise.

    >>> F.leaky_relu(torch.tensor([-2., 3.]), negative_slope=0.1)
    tensor([-0.2000,  3.0000])
    """
    if inplace:
        return functions.leaky_relu_(input, negative_slope)
    return functions.leaky_relu(input, negative_slope)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0,
             inplace: bool = False) -> Tensor:
    """x limited to [min_val, max_val], elementwise.

    >>> F.hardtanh(torch.tensor([-4., 0.5, 4.]))
    tensor([-1.0000,  0.5000,  1.0000])
    """
    if min_val > max_val:
        raise ValueError("min_val cannot be greater than max_val")
    if inplace:
        return functions.hardtanh_(input, min_val, max_val)
    return functions.hardtanh(input, min_val, max_val)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, else value, elementwise."""
    if inplace:
        return functions.threshold_(input, threshold, value)
    return functions.threshold(input, threshold, value)


def rrelu(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False,
          inplace: bool = False) -> Tensor:
    """Leaky ReLU with slopes drawn from [lower, upper) in training."""
    if lower > upper:
        raise RuntimeError(f"Lower bound should be less than or equal to the upper bound, got "
                           f"{lower} and {upper}")
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    if input.is_meta:  # how many slopes are drawn depends on the elements
        return leaky_relu(input, lower, inplace)
    negative = input.detach() <= 0
    count = int(negative.sum())
    slopes = flambeau.empty(count, dtype=flambeau.float64, device=input.device)
    slopes.uniform_(lower, upper)
    factors = flambeau.ones_like(input).masked_scatter_(negative, slopes.to(input.dtype))
    return input.mul_(factors) if inplace else input * factors


def rrelu_(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3,
           training: bool = False) -> Tensor:
    """`rrelu` in place."""
    return rrelu(input, lower, upper, training, True)


def _implicit_dim(name: str, ndim: int, stacklevel: int) -> int:
    warnings.warn(f"Implicit dimension choice for {name} has been deprecated. Change the call to "
                  "include dim=X as an argument.", stacklevel=stacklevel + 1)
    return 0 if ndim in (0, 1, 3) else 1


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3,
            dtype: Any = None) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`; `dtype` converts the input first."""
    if dim is None:
        dim = _implicit_dim("softmax", input.dim(), _stacklevel)
    return functions.softmax(input, dim, dtype=dtype)


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3,
            dtype: Any = None) -> Tensor:
    """exp(-x) / sum(exp(-x)) along `dim`; `dtype` converts the input first.

    >>> F.softmin(torch.tensor([1., 2., 3.]), dim=0)
    tensor([0.6652, 0.2447, 0.0900])
    """
    need_tensor("softmin", "input", input)
    if dim is None:
        dim = _implicit_dim("softmin", input.dim(), _stacklevel)
    return functions.softmax(-input, dim, dtype=dtype)


def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3,
                dtype: Any = None) -> Tensor:
    """x - log(sum(exp(x))) along `dim`; `dtype` converts the input first."""
    if dim is None:
        dim = _implicit_dim("log_softmax", input.dim(), _stacklevel)
    return functions.log_softmax(input, dim, dtype=dtype)


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10,
                   dim: int = -1) -> Tensor:
    """A sample of the Gumbel-softmax distribution (Jang et al. 2017) along `dim`.

    `hard` gives one-hot results whose gradient is that of the soft ones; `eps` has no effect.

    >>> _ = torch.manual_seed(0)
    >>> F.gumbel_softmax(torch.tensor([[1., 2., 3.]]), hard=True).sum()
    tensor(1.)
    """
    need_tensor("gumbel_softmax", "logits", logits)
    noise = -room(flambeau.empty_like(logits.detach())).exponential_().log()
    soft = functions.softmax((logits + noise) / tau, dim)
    if not hard:
        return soft
    index = soft.detach().argmax(dim, True)
    return flambeau.zeros_like(soft.detach()).scatter_(dim, index, 1.0) - soft.detach() + soft


# -- look-up and normalization -------------------------------------------------------------------
def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None,
              max_norm: float | None = None, norm_type: float = 2.0,
              scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """Row i of `weight` for every index i of `input`; see `nn.Embedding`."""
    need_tensor("embedding", "input", input)
    need_tensor("embedding", "weight", weight)
    if padding_idx is not None:
        count = weight.size(0)
        if not -count <= padding_idx < count:
            raise AssertionError("Padding_idx must be within num_embeddings")
        padding_idx = padding_idx % count
    if max_norm is not None:
        with flambeau.no_grad():
            functions._embedding_renorm_(weight, input, max_norm, float(norm_type))
    if sparse:
        from flambeau.tensor.sparse.embedding import sparse_embedding

        return sparse_embedding(input, weight, padding_idx, scale_grad_by_freq)
    return functions.embedding(input, weight, padding_idx=padding_idx,
                               scale_grad_by_freq=scale_grad_by_freq)


def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
               weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
               momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """Normalization per channel; in training it updates the running statistics in place.

    Raises:
        ValueError: training on a single value per channel, which has no variance.
    """
    if training:
        shape = input.shape
        if len(shape) > 1 and shape[0] * math.prod(shape[2:]) == 1:
            raise ValueError("Expected more than 1 value per channel when training, got input "
                             f"size {input.size()}")
    return functions.batch_norm(input, running_mean, running_var, weight, bias, training,
                                momentum, eps)


def instance_norm(input: Tensor, running_mean: Tensor | None = None,
                  running_var: Tensor | None = None, weight: Tensor | None = None,
                  bias: Tensor | None = None, use_input_stats: bool = True,
                  momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """Normalization per sample and channel; updates the running statistics in place.

    Raises:
        ValueError: one place per channel, which has no variance.
    """
    need_tensor("instance_norm", "input", input)
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise RuntimeError("Expected running_mean and running_var to be defined when "
                               "use_input_stats is false")
        return functions.batch_norm_eval(input, running_mean, running_var, weight, bias, eps)
    places = math.prod(input.shape[2:])
    if places == 1:
        raise ValueError("Expected more than 1 spatial element when training, got input size "
                         f"{input.size()}")
    result, mean, var = functions.instance_norm_train(input, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        functions._running_statistics_(running_mean, running_var, mean.detach(), var.detach(),
                                       places, momentum)
    return result


def embedding_bag(input: Tensor, weight: Tensor, offsets: Tensor | None = None,
                  max_norm: float | None = None, norm_type: float = 2,
                  scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
                  per_sample_weights: Tensor | None = None, include_last_offset: bool = False,
                  padding_idx: int | None = None) -> Tensor:
    """Sums, means or maxima of rows of `weight` over bags of indices; see `nn.EmbeddingBag`."""
    _check_bags(input, offsets, mode, per_sample_weights, include_last_offset)
    if padding_idx is not None and not -weight.size(0) <= padding_idx < weight.size(0):
        raise AssertionError("padding_idx must be within the number of embeddings")
    if mode == "max" and (scale_grad_by_freq or sparse):
        raise ValueError("max mode does not support " + (
            "scaling the gradient by the frequency" if scale_grad_by_freq else "sparse weights"))
    if max_norm is not None:
        with flambeau.no_grad():
            functions._embedding_renorm_(weight, input, max_norm, float(norm_type))
    if sparse and weight.requires_grad and flambeau.is_grad_enabled():
        if scale_grad_by_freq:
            raise RuntimeError("embedding_bag: scale_grad_by_freq not supported with sparse "
                               "gradients")
        from flambeau.tensor.sparse.embedding import sparse_embedding_bag

        return sparse_embedding_bag(input, weight, offsets, per_sample_weights, mode,
                                    include_last_offset, padding_idx)
    if mode == "max":
        return functions._embedding_bag_max(weight, input, offsets, include_last_offset,
                                            padding_idx)
    return functions._embedding_bag(weight, input, offsets, per_sample_weights, mode,
                                    include_last_offset, padding_idx, scale_grad_by_freq)


def _check_bags(input: Tensor, offsets: Tensor | None, mode: str, weights: Tensor | None,
                last: bool) -> None:
    """Offsets begin at 0, do not go beyond the input, and belong to 1-D inputs."""
    if input.dim() not in (1, 2):
        raise ValueError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension "
                         f"{input.dim()}")
    if weights is not None and weights.shape != input.shape:
        raise ValueError(f"embedding_bag: If per_sample_weights ({weights.shape}) is not None, "
                         f"then it must have the same shape as the input ({input.shape})")
    if mode not in ("sum", "mean", "max"):
        raise ValueError("mode has to be one of sum, mean or max")
    if weights is not None and mode != "sum":
        raise NotImplementedError("embedding_bag: per_sample_weights was not None. "
                                  "per_sample_weights is only supported for mode='sum' (got "
                                  f"mode='{mode}').")
    if input.dim() == 2:
        if offsets is not None:
            raise ValueError("if input is 2D, then offsets has to be None, as input is treated is "
                             "a mini-batch of fixed length sequences. However, found offsets of "
                             f"type {type(offsets)}")
        return
    if offsets is None:
        raise ValueError("offsets has to be a 1D Tensor but got None")
    if offsets.dim() != 1:
        raise ValueError("offsets has to be a 1D Tensor")
    if last and offsets.numel() == 0:
        raise RuntimeError("include_last_offset: number of offset should be at least 1")
    if offsets.is_meta:
        return
    if offsets.numel() and int(offsets[0]) != 0:
        raise RuntimeError("offsets[0] has to be 0, i.e., the first sequence in the mini-batch has "
                           f"to start from position 0. However, got {int(offsets[0])}")
    if offsets.numel() and int(offsets[-1]) > input.numel():
        raise RuntimeError("offsets[-1] can not be greater than input's length "
                           f"{input.numel()} but got offsets[-1] of {int(offsets[-1])}")


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """1 at the position that each element names: (...) gives (..., num_classes), int64.

    By default there are as many classes as the largest element needs.

    >>> F.one_hot(torch.tensor([0, 2, 1]), num_classes=3)
    tensor([[1, 0, 0],
            [0, 0, 1],
            [0, 1, 0]])
    """
    if num_classes == -1:
        if tensor.numel() == 0:
            raise RuntimeError("Can not infer total number of classes from empty tensor.")
        num_classes = int(tensor.max()) + 1
    return functions.one_hot(tensor, num_classes)


def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """conv1d of signals (length, n, c_in) with weight (k, c_in, c_out)."""
    need_tensor("conv_tbc", "input", input)
    if (input.dim(), weight.dim(), bias.dim()) != (3, 3, 1):
        raise RuntimeError("conv_tbc expects an input with dimensions (time, batch, in_channel), a "
                           "weight with (kernel_width, in_channels, out_channels), and a vector as "
                           "bias")
    result = functions.conv1d(input.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad)
    return result.permute(2, 0, 1)


# -- losses --------------------------------------------------------------------------------------
def _legacy_reduction(size_average: bool | None, reduce: bool | None, stacklevel: int = 3) -> str:
    """The `reduction` that the two deprecated arguments mean."""
    size_average = True if size_average is None else size_average
    reduce = True if reduce is None else reduce
    reduction = "none" if not reduce else "mean" if size_average else "sum"
    warnings.warn("size_average and reduce args will be deprecated, please use reduction="
                  f"'{reduction}' instead.", stacklevel=stacklevel)
    return reduction


def _warn_of_broadcast(input: Tensor, target: Tensor) -> None:
    """An (N, 1) input against an (N,) target would make an (N, N) loss."""
    need_tensor("loss", "target", target)
    need_tensor("loss", "input", input)
    if input.shape != target.shape:
        warnings.warn(f"Using a target size ({target.size()}) that is different to the input size "
                      f"({input.size()}). This will likely lead to incorrect results due to "
                      "broadcasting. Please ensure they have the same size.", stacklevel=3)


def mse_loss(input: Tensor, target: Tensor, size_average: bool | None = None,
             reduce: bool | None = None, reduction: str = "mean",
             weight: Tensor | None = None) -> Tensor:
    """(input - target)^2, weighted and reduced.

    >>> F.mse_loss(torch.tensor([1., 2.]), torch.tensor([3., 2.]))
    tensor(2.)
    """
    _warn_of_broadcast(input, target)
    if size_average is not None or reduce is not None:
        reduction = _legacy_reduction(size_average, reduce)
    if weight is None:
        return functions.mse_loss(input, target, reduction=reduction)
    return functions.mse_loss(input, target, reduction=reduction, weight=weight)


def l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None,
            reduce: bool | None = None, reduction: str = "mean",
            weight: Tensor | None = None) -> Tensor:
    """|input - target|, weighted and reduced.

    >>> F.l1_loss(torch.tensor([1., 2.]), torch.tensor([3., 2.]))
    tensor(1.)
    """
    _warn_of_broadcast(input, target)
    if size_average is not None or reduce is not None:
        reduction = _legacy_reduction(size_average, reduce)
    if weight is None:
        return functions.l1_loss(input, target, reduction=reduction)
    return functions.l1_loss(input, target, reduction=reduction, weight=weight)


def smooth_l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None,
                   reduce: bool | None = None, reduction: str = "mean",
                   beta: float = 1.0) -> Tensor:
    """Quadratic below `beta`, linear above; reduced.

    >>> F.smooth_l1_loss(torch.tensor([0., 0.]), torch.tensor([0.5, 3.]), reduction="none")
    tensor([0.1250, 2.5000])
    """
    _warn_of_broadcast(input, target)
    if size_average is not None or reduce is not None:
        reduction = _legacy_reduction(size_average, reduce)
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    if beta == 0.0:
        return functions.l1_loss(input, target, reduction=reduction)
    return functions.smooth_l1_loss(input, target, reduction=reduction, beta=beta)


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0,
               weight: Tensor | None = None) -> Tensor:
    """Quadratic below `delta`, linear above; weighted and reduced.

    >>> F.huber_loss(torch.tensor([0., 0.]), torch.tensor([0.5, 3.]), reduction="none")
    tensor([0.1250, 2.5000])
    """
    _warn_of_broadcast(input, target)
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    if weight is None:
        return functions.huber_loss(input, target, reduction=reduction, delta=delta)
    return functions.huber_loss(input, target, reduction=reduction, delta=delta, weight=weight)


def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None,
                  size_average: bool | None = None, ignore_index: int = -100,
                  reduce: bool | None = None, reduction: str = "mean",
                  label_smoothing: float = 0.0) -> Tensor:
    """-log(softmax(input)[target]); see `nn.CrossEntropyLoss`.

    >>> scores = torch.tensor([[2., 0., 0.], [0., 0., 0.]])
    >>> F.cross_entropy(scores, torch.tensor([0, 2]), reduction="none")
    tensor([0.2395, 1.0986])
    """
    if size_average is not None or reduce is not None:
        reduction = _legacy_reduction(size_average, reduce)
    return functions.cross_entropy(input, target, weight=weight, ignore_index=ignore_index,
                                   reduction=reduction, label_smoothing=label_smoothing)


def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None,
             size_average: bool | None = None, ignore_index: int = -100,
             reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """-input[n, target[n]]; see `nn.NLLLoss`.

    >>> F.nll_loss(torch.tensor([[-0.5, -1.], [-2., -0.25]]), torch.tensor([0, 1]))
    tensor(0.3750)
    """
    if size_average is not None or reduce is not None:
        reduction = _legacy_reduction(size_average, reduce)
    return functions.nll_loss(input, target, weight=weight, ignore_index=ignore_index,
                              reduction=reduction)


def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None,
                         size_average: bool | None = None, reduce: bool | None = None,
                         reduction: str = "mean") -> Tensor:
    """-(target * log(input) + (1 - target) * log(1 - input)), weighted and reduced.

    Raises:
        ValueError: the sizes differ.

    >>> F.binary_cross_entropy(torch.tensor([0.5, 0.9]), torch.tensor([1., 1.]))
    tensor(0.3993)
    """
    need_tensor("binary_cross_entropy", "input", input)
    need_tensor("binary_cross_entropy", "target", target)
    if size_average is not None or reduce is not None:
        reduction = _legacy_reduction(size_average, reduce)
    if target.size() != input.size():
        raise ValueError(f"Using a target size ({target.size()}) that is different to the input "
                         f"size ({input.size()}) is deprecated. Please ensure they have the same "
                         "size.")
    return functions.binary_cross_entropy(input, target, weight=weight, reduction=reduction)


def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                     size_average: bool | None = None, reduce: bool | None = None,
                                     reduction: str = "mean",
                                     pos_weight: Tensor | None = None) -> Tensor:
    """binary_cross_entropy of sigmoid(input), without overflow.

    Raises:
        ValueError: the sizes differ.
    """
    need_tensor("binary_cross_entropy_with_logits", "input", input)
    need_tensor("binary_cross_entropy_with_logits", "target", target)
    if size_average is not None or reduce is not None:
        reduction = _legacy_reduction(size_average, reduce)
    if target.size() != input.size():
        raise ValueError(f"Target size ({target.size()}) must be the same as input size "
                         f"({input.size()})")
    return functions.binary_cross_entropy_with_logits(input, target, weight=weight,
                                                      pos_weight=pos_weight, reduction=reduction)


def kl_div(input: Tensor, target: Tensor, size_average: bool | None = None,
           reduce: bool | None = None, reduction: str = "mean",
           log_target: bool = False) -> Tensor:
    """target * (log(target) - input), reduced; "batchmean" divides the sum by the batch size."""
    if size_average is not None or reduce is not None:
        reduction = _legacy_reduction(size_average, reduce)
    if reduction == "mean":
        warnings.warn("reduction: 'mean' divides the total loss by both the batch size and the "
                      "support size.'batchmean' divides only by the batch size, and aligns with "
                      "the KL div math definition.'mean' will be changed to behave the same as "
                      "'batchmean' in the next major release.", stacklevel=2)
    if reduction != "batchmean":
        return functions.kl_div(input, target, reduction=reduction, log_target=log_target)
    total = functions.kl_div(input, target, reduction="sum", log_target=log_target)
    return total / input.size(0) if input.dim() else total


def poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool = True, full: bool = False,
                     size_average: bool | None = None, eps: float = 1e-8,
                     reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """exp(input) - target * input, or input - target * log(input + eps); reduced."""
    if size_average is not None or reduce is not None:
        reduction = _legacy_reduction(size_average, reduce)
    return functions.poisson_nll_loss(input, target, log_input=log_input, full=full, eps=eps,
                                      reduction=reduction)


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0,
                         size_average: bool | None = None, reduce: bool | None = None,
                         reduction: str = "mean") -> Tensor:
    """input where target is 1, max(0, margin - input) where it is -1; reduced."""
    if size_average is not None or reduce is not None:
        reduction = _legacy_reduction(size_average, reduce)
    return functions.hinge_embedding_loss(input, target, margin=margin, reduction=reduction)


def multilabel_margin_loss(input: Tensor, target: Tensor, size_average: bool | None = None,
                           reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """Hinge loss over pairs of a target class and another class; reduced.

    >>> scores = torch.tensor([[0.1, 0.2, 0.4, 0.8]])
    >>> F.multilabel_margin_loss(scores, torch.tensor([[3, 0, -1, 1]]))  # the classes 3 and 0
    tensor(0.8500)
    """
    if size_average is not None or reduce is not None:
        reduction = _legacy_reduction(size_average, reduce)
    return functions.multilabel_margin_loss(input, target, reduction=reduction)


def soft_margin_loss(input: Tensor, target: Tensor, size_average: bool | None = None,
                     reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """log(1 + exp(-target * input)), reduced.

    >>> F.soft_margin_loss(torch.tensor([1., -1.]), torch.tensor([1., 1.]))
    tensor(0.8133)
    """
    if size_average is not None or reduce is not None:
        reduction = _legacy_reduction(size_average, reduce)
    return functions.soft_margin_loss(input, target, reduction=reduction)


def multilabel_soft_margin_loss(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                size_average: bool | None = None, reduce: bool | None = None,
                                reduction: str = "mean") -> Tensor:
    """binary_cross_entropy_with_logits averaged over the classes; weighted and reduced.

    >>> F.multilabel_soft_margin_loss(torch.tensor([[0., 2.]]), torch.tensor([[1., 0.]]))
    tensor(1.4100)
    """
    if size_average is not None or reduce is not None:
        reduction = _legacy_reduction(size_average, reduce)
    return functions.multilabel_soft_margin_loss(input, target, weight=weight, reduction=reduction)


def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0,
                          size_average: bool | None = None, reduce: bool | None = None,
                          reduction: str = "mean") -> Tensor:
    """1 - cos where target is 1, max(0, cos - margin) where it is -1; reduced."""
    if size_average is not None or reduce is not None:
        reduction = _legacy_reduction(size_average, reduce)
    return functions.cosine_embedding_loss(input1, input2, target, margin=margin,
                                           reduction=reduction)


def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0,
                        size_average: bool | None = None, reduce: bool | None = None,
                        reduction: str = "mean") -> Tensor:
    """max(0, -target * (input1 - input2) + margin), reduced.

    Raises:
        RuntimeError: the tensors have different numbers of dimensions.
    """
    if size_average is not None or reduce is not None:
        reduction = _legacy_reduction(size_average, reduce)
    if not input1.dim() == input2.dim() == target.dim():
        raise RuntimeError("margin_ranking_loss : All input tensors should have same dimension but "
                           f"got sizes: input1: {input1.size()}, input2: {input2.size()}, target: "
                           f"{target.size()} ")
    return functions.margin_ranking_loss(input1, input2, target, margin=margin,
                                         reduction=reduction)


def multi_margin_loss(input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0,
                      weight: Tensor | None = None, size_average: bool | None = None,
                      reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """Hinge loss of the target class against the others; weighted and reduced.

    >>> F.multi_margin_loss(torch.tensor([[0.1, 0.2, 0.9]]), torch.tensor([2]))
    tensor(0.1667)
    """
    if size_average is not None or reduce is not None:
        reduction = _legacy_reduction(size_average, reduce)
    if p not in (1, 2):
        raise ValueError("only p == 1 and p == 2 supported")
    if weight is not None and weight.dim() != 1:
        raise ValueError("weight must be one-dimensional")
    return functions.multi_margin_loss(input, target, p=p, margin=margin, weight=weight,
                                       reduction=reduction)


def _same_rank(anchor: Tensor, positive: Tensor, negative: Tensor) -> None:
    """Raise RuntimeError unless the three have equally many dimensions."""
    ranks = anchor.ndim, positive.ndim, negative.ndim
    if len(set(ranks)) > 1:
        raise RuntimeError("The anchor, positive, and negative tensors are expected to have the "
                           "same number of dimensions, but got: anchor {}D, positive {}D, and "
                           "negative {}D inputs".format(*ranks))


def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0,
                        p: float = 2, eps: float = 1e-6, swap: bool = False,
                        size_average: bool | None = None, reduce: bool | None = None,
                        reduction: str = "mean") -> Tensor:
    """max(0, |anchor - positive| - |anchor - negative| + margin), reduced."""
    if size_average is not None or reduce is not None:
        reduction = _legacy_reduction(size_average, reduce)
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    _same_rank(anchor, positive, negative)
    return functions.triplet_margin_loss(anchor, positive, negative, margin=margin, p=p, eps=eps,
                                         swap=swap, reduction=reduction)


def triplet_margin_with_distance_loss(
        anchor: Tensor, positive: Tensor, negative: Tensor, *,
        distance_function: Callable[[Tensor, Tensor], Tensor] | None = None, margin: float = 1.0,
        swap: bool = False, reduction: str = "mean") -> Tensor:
    """triplet_margin_loss with any distance; `pairwise_distance` if none is given.

    >>> anchor, near, far = torch.zeros(1, 2), torch.tensor([[0., 1.]]), torch.tensor([[3., 4.]])
    >>> F.triplet_margin_with_distance_loss(anchor, near, far, margin=6.0)
    tensor(2.0000)
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    _same_rank(anchor, positive, negative)
    distance = functions.pairwise_distance if distance_function is None else distance_function
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = flambeau.minimum(far, distance(positive, negative))
    loss = flambeau.clamp(margin + near - far, min=0)
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()


fit_doors(globals(), __all__)
