"""NumPy's values in a checkpoint: dtypes, scalars, arrays.

A dtype is made anew from what its state says and checked, and only then taken over: a state as such
could name fields that lie outside of an element. (NumPy's constructor checks too, with 32 bits.)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from flambeau.serialization.errors import UnsafeError
from flambeau.serialization.pickle_reader import Rule

__all__ = ["numpy_builders", "numpy_rules"]

_DTYPE = re.compile(r"[<>|=]?([biufcmMO]\d{1,2}|[SUV]\d{1,9}|bool|\?)")
_UNITS = frozenset({"generic", "Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs",
                    "as"})
_ALIGNED = 128  # the flag of a dtype


def _dtype(text: Any, align: bool = False, copy: bool = False) -> np.dtype:
    """A dtype of its own, which may be given a state."""
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        raise UnsafeError(f"NumPy dtype {text!r} is not allowed; only numbers, strings, times and "
                          "objects are")
    try:
        return _snapshot(np.dtype(text))
    except (TypeError, ValueError, OverflowError) as error:
        raise UnsafeError(f"there is no NumPy dtype {text!r}") from error


def _build_dtype(dtype: np.dtype, state: Any) -> None:
    """Byte order, unit of time, fields or the shape of an element."""
    if type(state) is not tuple or len(state) < 8 or state[1] not in ("<", ">", "|", "="):
        raise UnsafeError("the state of a NumPy dtype has the wrong form")
    try:
        made = _described(dtype, state)
    except (TypeError, ValueError, IndexError, KeyError, AttributeError, OverflowError) as error:
        raise UnsafeError(f"the state of a NumPy dtype makes no sense: {error}") from error
    if made.hasobject and made.kind != "O":
        raise UnsafeError("a NumPy dtype with fields that are Python objects is not allowed")
    if made.itemsize != dtype.itemsize:
        raise UnsafeError("the fields of a NumPy dtype do not fill it")
    dtype.__setstate__(made.__reduce__()[2])


def _described(dtype: np.dtype, state: tuple) -> np.dtype:
    order, element, names, fields = state[1:5]
    if element is not None:
        base, shape = _snapshot(element[0]), tuple(map(int, element[1]))
        if min(shape, default=0) < 0 or math.prod(shape) * base.itemsize != dtype.itemsize:
            raise ValueError(f"{shape} times {base} do not fill {dtype.itemsize} bytes")
        return np.dtype((base, shape))
    if names is not None or fields is not None:
        places = [fields[name] for name in names]
        for kind, offset, *_ in places:
            if not 0 <= offset <= dtype.itemsize - kind.itemsize:
                raise ValueError(f"a field at {offset} lies outside of {dtype.itemsize} bytes")
        return np.dtype({"names": [str(name) for name in names],
                         "formats": [_snapshot(place[0]) for place in places],
                         "offsets": [int(place[1]) for place in places],
                         "titles": [place[2] if len(place) > 2 else None for place in places],
                         "itemsize": dtype.itemsize}, align=bool(int(state[7]) & _ALIGNED))
    if dtype.kind in "mM":
        unit, count = state[8][1][:2]
        unit = unit.decode() if isinstance(unit, bytes) else unit
        if unit not in _UNITS:
            raise ValueError(f"there is no unit of time {unit!r}")
        made = np.dtype(f"{dtype.kind}8" + ("" if unit == "generic" else f"[{int(count)}{unit}]"))
        return made.newbyteorder(order)
    return dtype if order in "|=" else dtype.newbyteorder(order)


def _snapshot(dtype: Any) -> np.dtype:
    """A copy: a dtype that got itself for a field later would have no end."""
    if not isinstance(dtype, np.dtype):
        raise TypeError(f"a field is a {type(dtype).__name__}")
    return dtype.newbyteorder("|")  # as it is, but another object; np.dtype(copy=True) is the same


def _scalar(dtype: np.dtype, data: bytes = b"") -> Any:
    if not isinstance(dtype, np.dtype) or dtype.hasobject or type(data) is not bytes or (
            len(data) != dtype.itemsize):
        raise UnsafeError("a NumPy scalar does not fit its dtype")
    return np.frombuffer(data, dtype)[0]


def _array(cls: type, shape: Any, kind: Any) -> np.ndarray:
    """An empty array, to be filled by `_build_array`."""
    if cls is not np.ndarray or shape != (0,):
        raise UnsafeError("a NumPy array is made in an unusual way")
    return np.empty((0,), np.int8)


def _build_array(array: np.ndarray, state: Any) -> None:
    if type(state) is not tuple or len(state) != 5:
        raise UnsafeError("the state of a NumPy array has the wrong form")
    _, shape, dtype, fortran, data = state
    if type(shape) is not tuple or not all(type(size) is int and size >= 0 for size in shape):
        raise UnsafeError("a NumPy array's shape is not made of sizes")
    if not isinstance(dtype, np.dtype) or type(data) is not (list if dtype.hasobject else bytes):
        raise UnsafeError("a NumPy array's content does not fit its dtype")
    if math.prod(shape) * (1 if dtype.hasobject else dtype.itemsize) != len(data):
        raise UnsafeError("a NumPy array's shape does not fit its data")
    try:
        array.__setstate__((1, shape, dtype, bool(fortran), data))
    except (TypeError, ValueError, OverflowError, MemoryError) as error:
        raise UnsafeError(f"the state of a NumPy array makes no sense: {error}") from error


def numpy_rules() -> dict[str, Rule]:
    """What NumPy's names in a file stand for."""
    rules = {
        "numpy.dtype": Rule(np.dtype, call=_dtype),
        "numpy.ndarray": Rule(np.ndarray),
    }
    for folder in ("numpy.core", "numpy._core"):
        rules[f"{folder}.multiarray.scalar"] = Rule(_scalar, call=_scalar)
        rules[f"{folder}.multiarray._reconstruct"] = Rule(_array, call=_array)
    return rules


def numpy_builders() -> dict[type, Callable[[Any, Any], None]]:
    """What gives arrays and dtypes their state."""
    dtype_classes = {type(np.dtype(code)) for code in "?bBhHiIlLqQefdgFDGSUVmMO"}
    return {np.ndarray: _build_array, **dict.fromkeys(dtype_classes, _build_dtype)}
