"""DLPack with the dtypes that NumPy does not know: its capsules, with another name on the elements.

NumPy makes and reads the capsules of plain integers; the field that says what an element is lies at
a fixed place in them (`DLTensor.dtype` of dlpack.h), and is rewritten.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from flambeau.core import dtypes
from flambeau.core.dtypes import DType

__all__ = ["Adopted", "exported"]

_FIELD = 20  # bytes before the dtype: the address, the device (8), the number of dimensions
_CODES: dict[DType, tuple[int, int, int]] = {
    dtypes.bfloat16: (4, 16, 1), dtypes.complex32: (5, 32, 1),
    dtypes.float8_e4m3fn: (10, 8, 1), dtypes.float8_e4m3fnuz: (11, 8, 1),
    dtypes.float8_e5m2: (12, 8, 1), dtypes.float8_e5m2fnuz: (13, 8, 1),
    dtypes.float8_e8m0fnu: (14, 8, 1), dtypes.float4_e2m1fn_x2: (17, 4, 2),
}
"""(type code, bits, lanes) of dlpack.h."""
_BY_CODE = {code: dtype for dtype, code in _CODES.items()}
_UNSIGNED = 1

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype, _is_valid.argtypes = ctypes.c_int, [ctypes.py_object, ctypes.c_char_p]


class _Element(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


_PLAIN, _VERSIONED = b"dltensor", b"dltensor_versioned"
_BEFORE = {_PLAIN: 0, _VERSIONED: 32}  # version (8), owner (8), deleter (8), flags (8)


def _element(capsule: Any, name: bytes = _PLAIN) -> _Element:
    return _Element.from_address(_pointer(capsule, name) + _BEFORE[name] + _FIELD)


def exported(array: np.ndarray, dtype: DType, versioned: bool = False) -> Any:
    """A capsule of the memory of `array`, which holds elements of `dtype`.

    Args:
        versioned: in the form of DLPack 1.0, which names its version.

    Raises:
        BufferError: DLPack has no such dtype.
    """
    code = _CODES.get(dtype)
    if code is None:
        if dtype.kind in "Vq":
            raise BufferError(f"{dtype.name} is not supported by DLPack; export .view(torch.uint8)")
        return _capsule(array, versioned)
    capsule = _capsule(array.view(f"u{dtype.itemsize}"), versioned)
    element = _element(capsule, _VERSIONED if versioned and _KNOWS_VERSIONS else _PLAIN)
    element.code, element.bits, element.lanes = code
    return capsule


_KNOWS_VERSIONS = np.lib.NumpyVersion(np.__version__) >= "2.1.0"


def _capsule(array: np.ndarray, versioned: bool) -> Any:
    return array.__dlpack__(max_version=(1, 0)) if versioned and _KNOWS_VERSIONS else (
        array.__dlpack__())


class Adopted:
    """What gives NumPy the memory of another library, as integers if NumPy lacks the dtype.

    Attributes:
        dtype: what the elements are, where that differs from what NumPy is told.
    """

    def __init__(self, source: Any):
        capsule = type(source).__name__ == "PyCapsule"
        self.device = (1, 0) if capsule else source.__dlpack_device__()
        self.capsule = source if capsule else source.__dlpack__()
        self.dtype: DType | None = None
        if self.device[0] == 1:
            versioned = bool(_is_valid(self.capsule, _VERSIONED))
            element = _element(self.capsule, _VERSIONED if versioned else _PLAIN)
            found = _BY_CODE.get((element.code, element.bits, element.lanes))
            if found is not None:
                self.dtype = found
                element.code, element.bits, element.lanes = _UNSIGNED, 8 * found.itemsize, 1

    def __dlpack__(self, **_wishes: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device
