"""What `DataParallel` is made of: batches in pieces, modules on each, results in one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flambeau
from flambeau.core.device import as_device
from flambeau.tensor import Tensor

__all__ = ["gather", "parallel_apply", "scatter"]


def scatter(inputs: Any, target_gpus: Sequence[Any], dim: int = 0) -> list:
    """For each device a copy of `inputs` (nested in any way) with its part of every tensor, which
    are about equal along `dim`; everything else stands in all of them.

    Raises:
        RuntimeError: a device that does not exist.
    """
    devices = [_device(one) for one in target_gpus]
    if not devices:
        raise ValueError("scatter(): target_gpus names no device")
    return _scattered(inputs, devices, dim)


def _scattered(value: Any, devices: Sequence[Any], dim: int) -> list:
    if isinstance(value, Tensor):
        parts = value.chunk(len(devices), dim)
        return [part.to(device) for part, device in zip(parts, devices, strict=False)]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return [type(value)(*parts) for parts in _side_by_side(value, devices, dim)]
    if isinstance(value, (tuple, list)) and value:
        return [type(value)(parts) for parts in _side_by_side(value, devices, dim)]
    if isinstance(value, Mapping) and value:
        rows = _side_by_side(value.values(), devices, dim)
        return [type(value)(zip(value, row, strict=True)) for row in rows]
    return [value] * len(devices)


def _side_by_side(values: Any, devices: Sequence[Any], dim: int) -> list[tuple]:
    """For each device the parts of all values; batches that are too small leave devices out."""
    return list(zip(*[_scattered(value, devices, dim) for value in values], strict=False))


def gather(outputs: Sequence[Any], target_device: Any, dim: int = 0) -> Any:
    """One object of several: tensors are joined along `dim`, scalars to a vector, in tuples, lists
    and mappings element by element; None stays.

    Raises:
        ValueError: mappings with different keys.
    """
    device = _device(target_device)
    first = outputs[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        parts = [one.to(device) for one in outputs]
        return flambeau.cat([one.reshape(1) for one in parts] if first.ndim == 0 else parts, dim)
    if isinstance(first, Mapping):
        if any(set(one) != set(first) for one in outputs):
            raise ValueError("All dicts must have the same keys")
        return type(first)((key, gather([one[key] for one in outputs], device, dim))
                           for key in first)
    joined = [gather(parts, device, dim) for parts in zip(*outputs, strict=True)]
    return type(first)(*joined) if hasattr(first, "_fields") else type(first)(joined)


def parallel_apply(modules: Sequence[Callable], inputs: Sequence[Any],
                   kwargs_tup: Sequence[dict[str, Any]] | None = None,
                   devices: Sequence[Any] | None = None) -> list:
    """The results of each module on its inputs. One device computes them, one after the other: each
    takes all its threads.

    Args:
        inputs: for each module its positional arguments, or the only one.
        kwargs_tup: for each module its named arguments.
        devices: where the modules are; there is one.
    """
    kwargs_tup = [{}] * len(modules) if kwargs_tup is None else kwargs_tup
    for which, given in (("inputs", inputs), ("kwargs_tup", kwargs_tup), ("devices", devices)):
        assert given is None or len(given) == len(modules), (
            f"parallel_apply(): {len(modules)} modules, but {len(given)} {which}")
    for device in devices or ():
        if device is not None:
            _device(device)
    return [module(*(given if isinstance(given, (list, tuple)) else (given,)), **(named or {}))
            for module, given, named in zip(modules, inputs, kwargs_tup, strict=True)]


def _device(device: Any) -> Any:
    if isinstance(device, int) and not isinstance(device, bool):
        return as_device("cpu" if device == -1 else f"cuda:{device}")
    return as_device(device)
