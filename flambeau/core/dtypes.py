"""Data types, the promotion lattice and `finfo`/`iinfo`: facts only, nothing here computes."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

__all__ = ["DType", "ALL_DTYPES", "FLOAT8", "OPAQUE", "QUANTIZED", "EVERY", "by_name", "by_numpy",
           "promote_types", "to_float8", "finfo", "iinfo"]


class DType:
    """One element type. Instances are singletons: compare with `is` or `==`.

    Attributes:
        name: PyTorch's name without the prefix, for example "float32".
        itemsize: bytes per element.
        kind: "b" bool, "u" unsigned, "i" signed, "f" float, "c" complex; "V" opaque, bits that are
            only stored and moved; "q" quantized, integers that stand for numbers by a scale.
        numpy: the equal NumPy dtype (ml_dtypes' for bfloat16 and the 8-bit floats; for complex32,
            which NumPy does not have, a record of two halves; the carrier's for opaque ones).
        llvm: LLVM's name of the type as it is stored in memory.
        legacy: PyTorch's legacy tensor type name, for example "FloatTensor".
        carrier: for dtypes without arithmetic the integers as which programs see their bits; None
            for all others.

    >>> torch.float32.is_floating_point, torch.float32.itemsize
    (True, 4)
    """

    __slots__ = ("name", "itemsize", "kind", "numpy", "llvm", "legacy", "is_floating_point",
                 "is_complex", "carrier", "_index", "__weakref__")

    def __init__(self, name: str, kind: str, numpy_type: object, llvm: str, legacy: str,
                 index: int, carrier: DType | None = None):
        self.name = name
        self.kind = kind
        self.numpy = np.dtype(numpy_type)
        self.itemsize = self.numpy.itemsize
        self.llvm = llvm
        self.legacy = legacy
        self.is_floating_point = kind == "f" or name == "float4_e2m1fn_x2"
        self.is_complex = kind == "c"
        self.carrier = carrier
        self._index = index

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> tuple:
        return by_name, (self.name,)

    def __copy__(self) -> DType:
        return self

    def __deepcopy__(self, memo: dict) -> DType:
        return self

    @property
    def scalar_name(self) -> str:
        """What error messages call it: "Float", "BFloat16", "Long"."""
        return self.legacy.removesuffix("Tensor")

    @property
    def is_signed(self) -> bool:
        """Does it have negative numbers?

        Raises:
            RuntimeError: its elements are no numbers by themselves.
        """
        if self.kind == "q":
            raise RuntimeError("isSignedType not supported for quantized types")
        if self.name.startswith("bits"):
            raise RuntimeError("Bits types are undefined")
        return self.kind in "ifc" and self is not float8_e8m0fnu or (
            self.kind == "V" and not self.name.startswith("uint"))

    @property
    def is_integral(self) -> bool:
        """True for bool and the integers: everything that cannot carry a gradient."""
        return self.kind in "bui"

    @property
    def is_reduced(self) -> bool:
        """True for the 16-bit floats and complex numbers made of them, whose arithmetic is done in
        32 bits (`widened`)."""
        return self.kind == "f" and self.itemsize == 2 or self is complex32

    @property
    def widened(self) -> DType:
        """The dtype in which arithmetic is done."""
        if self.carrier is not None and self.kind == "f":
            return float32
        if not self.is_reduced:
            return self
        return complex64 if self.is_complex else float32

    def to_real(self) -> DType:
        """The dtype of a real or imaginary part; the dtype itself if it is real."""
        return {complex64: float32, complex128: float64, complex32: float16}.get(self, self)

    def to_complex(self) -> DType:
        """The complex dtype whose parts have this precision."""
        if self.is_complex:
            return self
        if self.carrier is not None:
            raise RuntimeError(f"Unknown Complex ScalarType for {self.scalar_name}")
        return {float64: complex128, float16: complex32}.get(self, complex64)


_ROWS = (
    # name, kind, NumPy type, LLVM memory type, legacy name
    ("uint8", "u", np.uint8, "i8", "ByteTensor"),
    ("int8", "i", np.int8, "i8", "CharTensor"),
    ("int16", "i", np.int16, "i16", "ShortTensor"),
    ("int32", "i", np.int32, "i32", "IntTensor"),
    ("int64", "i", np.int64, "i64", "LongTensor"),
    ("float16", "f", np.float16, "half", "HalfTensor"),
    ("float32", "f", np.float32, "float", "FloatTensor"),
    ("float64", "f", np.float64, "double", "DoubleTensor"),
    ("complex64", "c", np.complex64, "float", "ComplexFloatTensor"),
    ("complex128", "c", np.complex128, "double", "ComplexDoubleTensor"),
    ("bool", "b", np.bool_, "i8", "BoolTensor"),
    ("bfloat16", "f", ml_dtypes.bfloat16, "bfloat", "BFloat16Tensor"),
    ("uint16", "u", np.uint16, "i16", "UInt16Tensor"),
    ("uint32", "u", np.uint32, "i32", "UInt32Tensor"),
    ("uint64", "u", np.uint64, "i64", "UInt64Tensor"),
    ("complex32", "c", [("re", np.float16), ("im", np.float16)], "half", "ComplexHalfTensor"),
)

ALL_DTYPES = tuple(DType(*row, index) for index, row in enumerate(_ROWS))
"""The dtypes that operations compute with."""
(uint8, int8, int16, int32, int64, float16, float32, float64, complex64, complex128, bool_,
 bfloat16, uint16, uint32, uint64, complex32) = ALL_DTYPES

_FLOAT8_NAMES = ("float8_e5m2", "float8_e4m3fn", "float8_e5m2fnuz", "float8_e4m3fnuz",
                 "float8_e8m0fnu")
FLOAT8 = tuple(DType(name, "f", getattr(ml_dtypes, name), "i8", f"{name.capitalize()}Tensor",
                     16 + index, uint8) for index, name in enumerate(_FLOAT8_NAMES))
"""The floats of 8 bits: stored, moved, compared and converted; arithmetic is that of products."""
float8_e5m2, float8_e4m3fn, float8_e5m2fnuz, float8_e4m3fnuz, float8_e8m0fnu = FLOAT8

_OPAQUE_ROWS = (*((f"int{n}", f"Int{n}") for n in range(1, 8)),
                *((f"uint{n}", f"UInt{n}") for n in range(1, 8)),
                ("bits8", "Bits8"), ("bits16", "Bits16"), ("bits1x8", "Bits1x8"),
                ("bits2x4", "Bits2x4"), ("bits4x2", "Bits4x2"),
                ("float4_e2m1fn_x2", "Float4_e2m1fn_x2"))
OPAQUE = tuple(
    DType(name, "V", *((np.uint16, "i16") if name == "bits16" else (np.uint8, "i8")),
          f"{title}Tensor", 21 + index, uint16 if name == "bits16" else uint8)
    for index, (name, title) in enumerate(_OPAQUE_ROWS))
"""Names for bits: nothing computes with them, `view` says what they mean. One element takes a byte
(bits16: two), also of those that are named for fewer bits."""
(int1, int2, int3, int4, int5, int6, int7, uint1, uint2, uint3, uint4, uint5, uint6, uint7, bits8,
 bits16, bits1x8, bits2x4, bits4x2, float4_e2m1fn_x2) = OPAQUE

_QUANTIZED_ROWS = (("qint8", "QInt8", int8), ("quint8", "QUInt8", uint8),
                   ("qint32", "QInt32", int32), ("quint4x2", "QUInt4x2", uint8),
                   ("quint2x4", "QUInt2x4", uint8))
QUANTIZED = tuple(
    DType(name, "q", carrier.numpy, carrier.llvm, f"{title}Tensor", 40 + index, carrier)
    for index, (name, title, carrier) in enumerate(_QUANTIZED_ROWS))
"""The dtypes of quantized tensors. In quint4x2 and quint2x4 a byte holds two or four levels."""
qint8, quint8, qint32, quint4x2, quint2x4 = QUANTIZED

EVERY = (*ALL_DTYPES, *FLOAT8, *OPAQUE, *QUANTIZED)

_BY_NAME = {dtype.name: dtype for dtype in EVERY}
_BY_NUMPY = {dtype.numpy: dtype for dtype in (*ALL_DTYPES, *FLOAT8)}
BY_PYTHON = {bool: bool_, int: int64, float: float64, complex: complex128}
"""What Python's types mean as a `dtype` argument."""


def by_name(name: str) -> DType:
    """The dtype called `name` ("float32", without "torch.")."""
    return _BY_NAME[name]


def by_numpy(numpy_type: object) -> DType:
    """The dtype equal to a NumPy dtype.

    Raises:
        TypeError: NumPy has types (object, str, datetime64, float128) that no tensor can hold.
    """
    found = _BY_NUMPY.get(np.dtype(numpy_type).newbyteorder("="))
    if found is None:
        supported = ", ".join(dtype.name for dtype in ALL_DTYPES)
        raise TypeError(
            f"can't convert np.ndarray of type {np.dtype(numpy_type)}. The supported types are: "
            f"{supported}."
        )
    return found


def to_float8(array: np.ndarray, dtype: DType) -> np.ndarray:
    """Numbers rounded to an 8-bit float dtype as PyTorch rounds them: by way of float32; e4m3fn
    saturates, e8m0fnu takes the power of two of the absolute value."""
    single = np.asarray(array, np.float32)
    if dtype is float8_e4m3fn:
        single = np.clip(single, -448, 448)  # NaN stays
    if dtype is not float8_e8m0fnu:
        made = single.astype(dtype.numpy)
        if dtype is float8_e5m2:  # which has several NaN
            made.view(np.uint8)[np.isnan(single)] |= 0x7F
        return made
    size = single.view(np.uint32) & 0x7FFFFFFF
    exponent, fraction = size >> 23, size & 0x7FFFFF
    up = (fraction > 0x400000) | (fraction == 0x400000) & (exponent != 0)
    bits = np.where(size >= 0x7F800000, 0xFF, exponent + up)
    return bits.astype(np.uint8).view(dtype.numpy)


# The lattice in which a promotion is a least upper bound. Each dtype lists the ones directly above;
# the unsigned types wider than 8 bits meet only the floating types (as in PyTorch).
_ABOVE = {
    "bool": ("uint8", "int8"),
    "uint8": ("int16",), "int8": ("int16",), "int16": ("int32",), "int32": ("int64",),
    "int64": ("float16", "bfloat16"),
    "float16": ("float32", "complex32"), "bfloat16": ("float32",),
    "float32": ("float64", "complex64"), "float64": ("complex128",),
    "complex32": ("complex64",), "complex64": ("complex128",), "complex128": (),
}


def _reachable(name: str) -> set[str]:
    seen, stack = set(), [name]
    while stack:
        here = stack.pop()
        if here not in seen:
            seen.add(here)
            stack.extend(_ABOVE[here])
    return seen


def _promote_names(a: str, b: str) -> str | None:
    if a == b:
        return a
    barebones = {"uint16", "uint32", "uint64"}
    for one, other in ((a, b), (b, a)):
        if one in barebones:
            return other if by_name(other).kind == "f" else None
    common = _reachable(a) & _reachable(b)
    return min(common, key=lambda name: len(_reachable(name)) * -1)


_PROMOTE: dict[tuple[DType, DType], DType | None] = {
    (a, b): _BY_NAME.get(_promote_names(a.name, b.name) or "")
    for a in ALL_DTYPES for b in ALL_DTYPES
}


def promote_types(type1: DType, type2: DType) -> DType:
    """The smallest dtype to which both dtypes convert (`torch.promote_types`).

    >>> torch.promote_types(torch.int32, torch.float16)
    torch.float16
    >>> torch.promote_types(torch.uint8, torch.int8)
    torch.int16
    """
    try:
        result = _PROMOTE[type1, type2]
    except (KeyError, TypeError):
        return _promote_others(type1, type2)
    if result is None:
        raise RuntimeError(f"Promotion for {type1.name} and {type2.name} is not supported; convert "
                           "one of them with .to(dtype) first")
    return result


def _promote_others(*types: Any) -> DType:
    """Promotion of what no table has."""
    for position, given in enumerate(types, 1):
        if not isinstance(given, DType):
            raise TypeError(f"promote_types(): argument 'type{position}' (position {position}) "
                            f"must be torch.dtype, not {type(given).__name__}") from None
    return _promote_stored(*types)


def _promote_stored(type1: DType, type2: DType) -> DType:
    """Promotion where one of the dtypes has no arithmetic: only equal ones meet."""
    if type1 is type2:
        return type1
    for one, other in ((type1, type2), (type2, type1)):
        if one.kind == "V" and one.name.startswith("uint") and other.kind in "fc" and (
                other.carrier is None):
            return other
    what = "Float8 Types" if type1 in FLOAT8 or type2 in FLOAT8 else "dtypes without arithmetic"
    raise RuntimeError(f"Promotion for {what} is not supported, attempted to promote "
                       f"{type1.scalar_name} and {type2.scalar_name}; convert one of them with "
                       ".to(dtype) first")


class finfo:
    """Numeric limits of a floating or complex dtype: bits, eps, max, min, tiny, resolution.

    >>> torch.finfo(torch.float32).eps
    1.1920928955078125e-07
    >>> torch.finfo(torch.bfloat16).max
    3.3895313892515355e+38
    """

    def __init__(self, dtype: DType | None = None):
        dtype = float32 if dtype is None else dtype
        if not isinstance(dtype, DType) or dtype.kind not in "fc":
            raise TypeError("torch.finfo() requires a floating point input type. Use torch.iinfo "
                            "to handle 'torch.iinfo'")
        real = dtype.to_real()
        info = ml_dtypes.finfo(real.numpy)
        self.dtype = real.name
        self.bits = real.itemsize * 8
        self.eps = float(info.eps)
        self.max = float(info.max)
        self.min = float(info.min)
        self.tiny = self.smallest_normal = float(info.tiny)
        self.resolution = float(f"1e-{info.precision}")
        if dtype.carrier is not None:  # too few digits for one decimal place
            self.resolution = 1.0
        if dtype is float8_e5m2fnuz:  # PyTorch's figure; 1.25 is the next number after 1
            self.eps = 0.125

    def __repr__(self) -> str:
        return (f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, "
                f"eps={self.eps:g}, smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, "
                f"dtype={self.dtype})")


class iinfo:
    """Numeric limits of an integer dtype: bits, max, min.

    >>> torch.iinfo(torch.int8).min
    -128
    """

    def __init__(self, dtype: DType):
        if not isinstance(dtype, DType) or dtype.kind not in "ui":
            raise TypeError("torch.iinfo() requires an integer input type. Use torch.finfo to "
                            "handle 'torch.finfo'")
        info = np.iinfo(dtype.numpy)
        self.dtype = dtype.name
        self.bits = int(info.bits)
        self.max = int(info.max)
        self.min = int(info.min)

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"
