"""`autocast` regions, and their settings as functions."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from flambeau.core.dtypes import DType, bfloat16, float16, float32
from flambeau.tensor import autocast as _state
from flambeau.tensor import dispatch
from flambeau.tensor.meta import TensorBase

__all__ = ["autocast", "custom_fwd", "custom_bwd", "is_autocast_available", "is_autocast_enabled",
           "set_autocast_enabled", "get_autocast_dtype", "set_autocast_dtype",
           "is_autocast_cache_enabled", "set_autocast_cache_enabled", "clear_autocast_cache",
           "autocast_increment_nesting", "autocast_decrement_nesting", "is_autocast_cpu_enabled",
           "set_autocast_cpu_enabled", "get_autocast_cpu_dtype", "set_autocast_cpu_dtype",
           "get_autocast_gpu_dtype", "set_autocast_gpu_dtype"]

_SUPPORTED = {"cpu": (bfloat16, float16), "cuda": (bfloat16, float16, float32)}


def _device(device_type: Any) -> str:
    if not isinstance(device_type, str):
        raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
    if device_type not in _SUPPORTED:
        raise RuntimeError(f"unsupported autocast device_type {device_type!r}: expected one of "
                           f"{', '.join(map(repr, _SUPPORTED))}")
    return device_type


def _expect(function: str, position: int, name: str, given: Any, kind: type, called: str) -> None:
    if not isinstance(given, kind):
        raise TypeError(f"{function}(): argument '{name}' (position {position}) must be {called}, "
                        f"not {type(given).__name__}")


class autocast:
    """A region (`with`) or function (decorator) whose products are computed in 16 bits.

    Operands of products and convolutions are cast to `dtype`; losses and long sums compute in
    float32; other operations take what they are given. Weights are cast once per region. Only the
    forward belongs into a region: a gradient is computed in the dtypes of its operation.

    Args:
        device_type: "cpu" or "cuda".
        dtype: bfloat16 or float16; by default bfloat16 on the CPU and float16 on GPUs.
        enabled: False makes a region, inside of another one, that casts nothing.
        cache_enabled: keep casts of weights until the region ends; by default as it is set.

    >>> a = torch.eye(2)
    >>> with torch.autocast("cpu"):
    ...     print((a @ a).dtype)
    torch.bfloat16
    """

    def __init__(self, device_type: str, dtype: DType | None = None, enabled: bool = True,
                 cache_enabled: bool | None = None):
        self.device = _device(device_type)
        self.fast_dtype = get_autocast_dtype(device_type) if dtype is None else dtype
        if enabled and device_type == "cuda":
            warnings.warn("User provided device_type of 'cuda', but CUDA is not available. "
                          "Disabling", stacklevel=2)
            enabled = False
        if enabled and self.fast_dtype not in _SUPPORTED[device_type]:
            names = ", ".join(repr(d) for d in _SUPPORTED[device_type])
            warnings.warn(f"In {device_type.upper()} autocast, but the target dtype "
                          f"{self.fast_dtype!r} is not supported. Disabling autocast. "
                          f"{device_type.upper()} autocast supports: {names}.", stacklevel=2)
            enabled = False
        self._enabled = enabled
        self._cache_enabled = cache_enabled
        self._before: list[_state.State] = []

    def __enter__(self) -> autocast:
        state = _with_device(_state.current(), self.device, self._enabled, self.fast_dtype)
        if self._cache_enabled is not None:
            state = state._replace(caching=self._cache_enabled)
        self._before.append(_state.enter(state, dispatch.ACTIVE))
        return self

    def __exit__(self, *error: Any) -> None:
        _state.leave(self._before.pop(), dispatch.ACTIVE)

    def __call__(self, function: Callable) -> Callable:
        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return inside


def _with_device(state: _state.State, device: str, enabled: bool, dtype: DType) -> _state.State:
    others = tuple(name for name in state.enabled if name != device)
    lower = tuple(dtype if name == device else kept
                  for name, kept in zip(_state.DEVICES, state.lower, strict=True))
    return state._replace(enabled=(*others, device) if enabled else others, lower=lower)


# ---------------------------------------------------------------------- the settings
def is_autocast_available(device_type: str) -> bool:
    """Is there autocast for such a device?"""
    return device_type in _SUPPORTED


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Are operations on this device cast now, in this thread?

    >>> with torch.autocast("cpu"):
    ...     print(torch.is_autocast_enabled("cpu"))
    True
    >>> torch.is_autocast_enabled("cpu")
    False
    """
    return _device(device_type) in _state.current().enabled


def set_autocast_enabled(device_type: Any, enabled: bool | None = None) -> None:
    """Switch casting on or off for this thread; `autocast` is the better way.

    >>> torch.set_autocast_enabled("cpu", False)
    >>> torch.is_autocast_enabled("cpu")
    False
    """
    if enabled is None:
        device_type, enabled = "cuda", device_type
    _expect("set_autocast_enabled", 1, "device_type", device_type, str, "str")
    _expect("set_autocast_enabled", 2, "enabled", enabled, bool, "bool")
    state = _state.current()
    lower = get_autocast_dtype(device_type)
    _state.replace(_with_device(state, device_type, enabled, lower), dispatch.ACTIVE)


def get_autocast_dtype(device_type: str) -> DType:
    """The lower precision that is used on this device.

    >>> torch.get_autocast_dtype("cpu")
    torch.bfloat16
    """
    return _state.current().lower[_state.DEVICES.index(_device(device_type))]


def set_autocast_dtype(device_type: str, dtype: DType) -> None:
    """Set the lower precision that is used on this device.

    >>> torch.set_autocast_dtype("cpu", torch.float16)
    >>> torch.get_autocast_dtype("cpu")
    torch.float16
    >>> torch.set_autocast_dtype("cpu", torch.bfloat16)
    """
    _expect("set_autocast_dtype", 1, "device_type", device_type, str, "str")
    _expect("set_autocast_dtype", 2, "dtype", dtype, DType, "torch.dtype")
    enabled = is_autocast_enabled(device_type)
    _state.replace(_with_device(_state.current(), device_type, enabled, dtype), dispatch.ACTIVE)


def is_autocast_cache_enabled() -> bool:
    """Are casts of weights kept until the region ends?

    >>> torch.is_autocast_cache_enabled()
    True
    """
    return _state.current().caching


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Say whether casts of weights are kept until the region ends.

    >>> torch.set_autocast_cache_enabled(True)
    >>> torch.is_autocast_cache_enabled()
    True
    """
    _state.replace(_state.current()._replace(caching=bool(enabled)), dispatch.ACTIVE)


def clear_autocast_cache() -> None:
    """Forget the casts of weights.

    >>> torch.clear_autocast_cache()
    """
    _state.clear_cache()


def autocast_increment_nesting() -> int:
    """Note one more region; gives their number.

    >>> torch.autocast_increment_nesting()
    1
    >>> torch.autocast_decrement_nesting()
    0
    """
    state = _state.current()
    _state.replace(state._replace(depth=state.depth + 1), dispatch.ACTIVE)
    return state.depth + 1


def autocast_decrement_nesting() -> int:
    """Note one region less; gives their number.

    >>> torch.autocast_increment_nesting()
    1
    >>> torch.autocast_decrement_nesting()
    0
    """
    state = _state.current()
    _state.replace(state._replace(depth=state.depth - 1), dispatch.ACTIVE)
    return state.depth - 1


def is_autocast_cpu_enabled() -> bool:
    """Deprecated spelling of `is_autocast_enabled("cpu")`.

    >>> torch.is_autocast_cpu_enabled()
    False
    """
    return is_autocast_enabled("cpu")


def set_autocast_cpu_enabled(enabled: bool) -> None:
    """Deprecated spelling of `set_autocast_enabled("cpu", enabled)`.

    >>> torch.set_autocast_cpu_enabled(False)
    >>> torch.is_autocast_cpu_enabled()
    False
    """
    set_autocast_enabled("cpu", enabled)


def get_autocast_cpu_dtype() -> DType:
    """Deprecated spelling of `get_autocast_dtype("cpu")`.

    >>> torch.get_autocast_cpu_dtype()
    torch.bfloat16
    """
    return get_autocast_dtype("cpu")


def set_autocast_cpu_dtype(dtype: DType) -> None:
    """Deprecated spelling of `set_autocast_dtype("cpu", dtype)`.

    >>> torch.set_autocast_cpu_dtype(torch.float16)
    >>> torch.get_autocast_dtype("cpu")
    torch.float16
    >>> torch.set_autocast_cpu_dtype(torch.bfloat16)
    """
    set_autocast_dtype("cpu", dtype)


def get_autocast_gpu_dtype() -> DType:
    """Deprecated spelling of `get_autocast_dtype("cuda")`.

    >>> torch.get_autocast_gpu_dtype()
    torch.float16
    """
    return get_autocast_dtype("cuda")


def set_autocast_gpu_dtype(dtype: DType) -> None:
    """Deprecated spelling of `set_autocast_dtype("cuda", dtype)`.

    >>> torch.set_autocast_gpu_dtype(torch.float16)
    >>> torch.get_autocast_gpu_dtype()
    torch.float16
    """
    set_autocast_dtype("cuda", dtype)


# ---------------------------------------------------------------------- custom functions
def custom_fwd(fwd: Callable | None = None, *, device_type: str,
               cast_inputs: DType | None = None) -> Callable:
    """Decorator for `forward` of a custom `autograd.Function`.

    With `cast_inputs`, floating tensor arguments are cast to it and the body runs outside of
    autocast; without, it runs in the state of the caller. `custom_bwd` restores that state for the
    gradient.
    """
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)
    _device(device_type)

    @functools.wraps(fwd)
    def forward(*args: Any, **kwargs: Any) -> Any:
        context = args[0]
        context._dtype = get_autocast_dtype(device_type)
        inside = is_autocast_enabled(device_type)
        context._fwd_used_autocast = inside and cast_inputs is None
        if not inside or cast_inputs is None:
            return fwd(*args, **kwargs)
        with autocast(device_type, enabled=False):
            return fwd(*_cast(args, cast_inputs), **_cast(kwargs, cast_inputs))

    return forward


def custom_bwd(bwd: Callable | None = None, *, device_type: str) -> Callable:
    """Decorator for `backward` of a custom `autograd.Function`: runs in the autocast state that
    its forward ran in."""
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)
    _device(device_type)

    @functools.wraps(bwd)
    def backward(*args: Any, **kwargs: Any) -> Any:
        context = args[0]
        with autocast(device_type, context._dtype, enabled=context._fwd_used_autocast):
            return bwd(*args, **kwargs)

    return backward


def _cast(value: Any, dtype: DType) -> Any:
    """Floating tensors (but float64) in nested containers, as `dtype`."""
    if isinstance(value, TensorBase):
        return value.to(dtype) if _state.eligible(value) else value
    if isinstance(value, dict):
        return {key: _cast(item, dtype) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(_cast(item, dtype) for item in value)
    return value
