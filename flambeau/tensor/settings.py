"""Settings that change what operations do: default dtype, threads, determinism."""

from __future__ import annotations

from typing import Any

from flambeau.core.device import Device, as_device, default_device, set_default
from flambeau.core.dtypes import DType
from flambeau.ops import record
from flambeau.runtime import pool
from flambeau.tensor import dispatch

__all__ = ["get_default_dtype", "set_default_dtype", "set_num_threads", "get_num_threads",
           "get_num_interop_threads", "set_num_interop_threads",
           "are_deterministic_algorithms_enabled", "use_deterministic_algorithms",
           "get_default_device", "set_default_device", "set_float32_matmul_precision",
           "get_float32_matmul_precision", "is_deterministic_algorithms_warn_only_enabled",
           "set_deterministic_debug_mode", "get_deterministic_debug_mode", "set_warn_always",
           "is_warn_always_enabled", "set_flush_denormal", "init_num_threads",
           "set_default_tensor_type", "get_device_module", "typename"]


def get_default_dtype() -> DType:
    """The dtype of floating tensors made without one.

    >>> torch.get_default_dtype()
    torch.float32
    """
    return record.dtypes_default()


def set_default_dtype(d: DType) -> None:
    """Set the dtype of floating tensors made without one.

    Raises:
        TypeError: not a floating dtype.

    >>> torch.set_default_dtype(torch.float64)
    >>> torch.tensor([1.5]).dtype
    torch.float64
    >>> torch.set_default_dtype(torch.float32)
    """
    if not isinstance(d, DType) or not d.is_floating_point:
        raise TypeError("only floating-point types are supported as the default type")
    if d is not record.dtypes_default():
        record.set_dtypes_default(d)
        dispatch.clear_caches()


def set_num_threads(num: Any) -> None:
    """Use `num` threads inside operations; results do not depend on it.

    >>> threads = torch.get_num_threads()
    >>> torch.set_num_threads(1)
    >>> torch.get_num_threads()
    1
    >>> torch.set_num_threads(threads)
    """
    if not isinstance(num, int) or num <= 0:
        raise RuntimeError("set_num_threads expects a positive integer")
    if num != pool.get_num_threads():
        pool.set_num_threads(num)
        dispatch.clear_caches()


def get_num_threads() -> int:
    """Threads used inside operations.

    >>> torch.get_num_threads() > 0
    True
    """
    return pool.get_num_threads()


def get_num_interop_threads() -> int:
    """Operations never run beside each other: 1.

    >>> torch.get_num_interop_threads() > 0
    True
    """
    return 1


def set_num_interop_threads(num: int) -> None:
    """Accepted for compatibility; operations never run beside each other.

    >>> torch.get_num_interop_threads() > 0  # may be set once, before anything ran
    True
    """


def are_deterministic_algorithms_enabled() -> bool:
    """Always: results are deterministic by construction.

    >>> torch.are_deterministic_algorithms_enabled()
    True
    """
    return True


def use_deterministic_algorithms(mode: Any, *, warn_only: bool = False) -> None:
    """Accepted for compatibility: results are always deterministic.

    >>> torch.use_deterministic_algorithms(True)
    >>> torch.are_deterministic_algorithms_enabled()
    True
    >>> torch.use_deterministic_algorithms(False)
    """


def get_default_device() -> Device:
    """The device of tensors made without one.

    >>> torch.get_default_device()
    device(type='cpu')
    """
    return default_device()


def set_default_device(device: Any) -> None:
    """Let factories of this thread make tensors there that are given no `device`; None: on the
    CPU. `with torch.device(...)` does so for a block.

    >>> torch.set_default_device("cpu")
    >>> torch.zeros(1).device
    device(type='cpu')
    """
    set_default(device)


def set_float32_matmul_precision(precision: str) -> None:
    """Accepted for compatibility: float32 products are always computed in float32.

    Raises:
        RuntimeError: not one of "highest", "high", "medium".

    >>> torch.set_float32_matmul_precision("highest")
    >>> torch.get_float32_matmul_precision()
    'highest'
    """
    if precision not in ("highest", "high", "medium"):
        raise RuntimeError(f"{precision} is not one of 'highest', 'high', or 'medium'")


def get_float32_matmul_precision() -> str:
    """Always "highest".

    >>> torch.get_float32_matmul_precision()
    'highest'
    """
    return "highest"


# ---------------------------------------------------------------------- what has one answer here
_debug_mode = [0]
_warns_always = [False]
_DEBUG_MODES = ("default", "warn", "error")


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """Always False: nothing is ever nondeterministic, so nothing warns.

    >>> torch.is_deterministic_algorithms_warn_only_enabled()
    False
    """
    return False


def set_deterministic_debug_mode(debug_mode: int | str) -> None:
    """Remember the mode; results are always deterministic.

    Raises:
        ValueError, RuntimeError: not 0, 1, 2 or "default", "warn", "error".

    >>> torch.set_deterministic_debug_mode("default")
    >>> torch.get_deterministic_debug_mode()
    0
    """
    if not isinstance(debug_mode, (int, str)):
        raise TypeError(f"debug_mode must be str or int, but got {type(debug_mode)}")
    if isinstance(debug_mode, str):
        if debug_mode not in _DEBUG_MODES:
            raise RuntimeError("invalid value of debug_mode, expected one of `default`, `warn`, "
                               f"`error`, but got {debug_mode}")
        debug_mode = _DEBUG_MODES.index(debug_mode)
    if debug_mode not in (0, 1, 2):
        raise RuntimeError("invalid value of debug_mode, expected 0, 1, or 2, but got "
                           f"{debug_mode}")
    _debug_mode[0] = debug_mode


def get_deterministic_debug_mode() -> int:
    """What `set_deterministic_debug_mode` was told: 0, 1 or 2.

    >>> torch.get_deterministic_debug_mode()
    0
    """
    return _debug_mode[0]


def set_warn_always(b: bool, /) -> None:
    """Shall warnings appear each time? Ours are Python's own: `warnings.simplefilter` decides.

    >>> torch.set_warn_always(False)
    >>> torch.is_warn_always_enabled()
    False
    """
    _warns_always[0] = bool(b)


def is_warn_always_enabled() -> bool:
    """What `set_warn_always` was told.

    >>> torch.is_warn_always_enabled()
    False
    """
    return _warns_always[0]


def set_flush_denormal(mode: bool) -> bool:
    """False: denormal numbers are always kept, as results must not depend on such a mode.

    >>> _ = torch.set_flush_denormal(False)
    """
    return False


def init_num_threads() -> None:
    """Nothing to do: the number of threads belongs to the process, not to each thread.

    >>> torch.init_num_threads()
    """


def set_default_tensor_type(t: Any, /) -> None:
    """Set the default dtype by an old type, `torch.DoubleTensor` or its name.

    Raises:
        TypeError: no floating type.

    >>> torch.set_default_tensor_type(torch.FloatTensor)
    >>> torch.get_default_dtype()
    torch.float32
    """
    import importlib

    if isinstance(t, str):
        legacy = importlib.import_module("flambeau.tensor.legacy")
        found = getattr(legacy, t.removeprefix("torch."), None)
        if found is None:
            raise TypeError(f"invalid type object: {t!r} is no tensor type")
        t = found
    dtype = getattr(t, "dtype", None)
    if not isinstance(dtype, DType) or not dtype.is_floating_point:
        raise TypeError("only floating-point types are supported as the default type")
    set_default_dtype(dtype)


def get_device_module(device: Any = None) -> Any:
    """The module of a kind of device: `torch.cpu` for the CPU.

    >>> torch.get_device_module("cpu").__name__.split(".")[-1]
    'cpu'
    """
    import importlib

    kind = "cpu" if device is None else as_device(device).type
    return importlib.import_module(f"flambeau.{kind}")


def typename(obj: Any, /) -> str:
    """The full name of a type, or of an object's type; "torch.FloatTensor" for a tensor.

    >>> torch.typename(torch.tensor([1.]))
    'torch.FloatTensor'
    """
    if hasattr(obj, "_meta") and hasattr(obj, "type"):
        return obj.type()
    cls = obj if isinstance(obj, type) or callable(obj) and hasattr(obj, "__qualname__") else type(
        obj)
    module = getattr(cls, "__module__", None) or ""
    name = getattr(cls, "__qualname__", cls.__name__)
    return name if module in ("", "builtins") else f"{module}.{name}"
