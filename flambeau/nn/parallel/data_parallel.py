"""`DataParallel`: a module whose batches are shared out among devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.core.device import as_device
from flambeau.nn.modules.module import Module

__all__ = ["DataParallel", "data_parallel"]


class DataParallel(Module):
    """A module whose batches are shared out among GPUs. Without any, it calls the module: scripts
    and state dicts (with the prefix "module.") are those of PyTorch.

    Args:
        module: the module.
        device_ids: GPUs; none may be asked for.
        output_device: where results go; the CPU.
        dim: the dimension that batches are parted along.

    Raises:
        RuntimeError: a GPU is asked for.
    """

    def __init__(self, module: Module, device_ids: Sequence[Any] | None = None,
                 output_device: Any = None, dim: int = 0) -> None:
        super().__init__()
        _check_devices(device_ids, output_device)
        self.module = module
        self.device_ids: list[int] = []

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)


def data_parallel(module: Module, inputs: Any, device_ids: Sequence[Any] | None = None,
                  output_device: Any = None, dim: int = 0, module_kwargs: Any = None) -> Any:
    """`module(*inputs, **module_kwargs)`, shared out among GPUs where there are some."""
    _check_devices(device_ids, output_device)
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    return module(*args, **(module_kwargs or {}))


def _check_devices(device_ids: Sequence[Any] | None, output_device: Any) -> None:
    for device in [*(device_ids or ()), output_device]:
        if device is not None:
            as_device(f"cuda:{device}" if isinstance(device, int) else device)
