"""Data types, the promotion lattice and `finfo`/`iinfo`: facts only, nothing here computes."""

from __future__ import annotations

import ml_dtypes
import numpy as np

__all__ = ["DType", "ALL_DTYPES", "by_name", "by_numpy", "promote_types", "finfo", "iinfo"]


class DType:
    """One element type. Instances are singletons: compare with `is` or `==`.

    Attributes:
        name: PyTorch's name without the prefix, for example "float32".
        itemsize: bytes per element.
        kind: "b" bool, "u" unsigned, "i" signed, "f" float, "c" complex.
        numpy: the equal NumPy dtype (ml_dtypes' bfloat16 for bfloat16; for complex32, which NumPy
            does not have, a record of two halves).
        llvm: LLVM's name of the type as it is stored in memory.
        legacy: PyTorch's legacy tensor type name, for example "FloatTensor".
    """

    __slots__ = ("name", "itemsize", "kind", "numpy", "llvm", "legacy", "is_floating_point",
                 "is_complex", "is_signed", "_index", "__weakref__")

    def __init__(self, name: str, kind: str, numpy_type: object, llvm: str, legacy: str,
                 index: int):
        self.name = name
        self.kind = kind
        self.numpy = np.dtype(numpy_type)
        self.itemsize = self.numpy.itemsize
        self.llvm = llvm
        self.legacy = legacy
        self.is_floating_point = kind == "f"
        self.is_complex = kind == "c"
        self.is_signed = kind in "ifc"
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
(uint8, int8, int16, int32, int64, float16, float32, float64, complex64, complex128, bool_,
 bfloat16, uint16, uint32, uint64, complex32) = ALL_DTYPES

_BY_NAME = {dtype.name: dtype for dtype in ALL_DTYPES}
_BY_NUMPY = {dtype.numpy: dtype for dtype in ALL_DTYPES}
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
    """The smallest dtype to which both dtypes convert (`torch.promote_types`)."""
    try:
        result = _PROMOTE[type1, type2]
    except (KeyError, TypeError):
        position, wrong = next((i, x) for i, x in enumerate((type1, type2), 1)
                               if not isinstance(x, DType))
        raise TypeError(f"promote_types(): argument 'type{position}' (position {position}) must be "
                        f"torch.dtype, not {type(wrong).__name__}") from None
    if result is None:
        raise RuntimeError(f"Promotion for {type1.name} and {type2.name} is not supported; convert "
                           "one of them with .to(dtype) first")
    return result


class finfo:
    """Numeric limits of a floating or complex dtype: bits, eps, max, min, tiny, resolution."""

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

    def __repr__(self) -> str:
        return (f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, "
                f"eps={self.eps:g}, smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, "
                f"dtype={self.dtype})")


class iinfo:
    """Numeric limits of an integer dtype: bits, max, min."""

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
