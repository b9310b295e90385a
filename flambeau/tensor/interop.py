"""Memory shared with NumPy and others: arrays, DLPack, Python data, single elements."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flambeau.core import dtypes
from flambeau.core.device import CPU, META, as_device
from flambeau.core.dtypes import DType
from flambeau.core.shapes import required_span
from flambeau.ops.record import dtypes_default
from flambeau.runtime import memory
from flambeau.tensor import launches
from flambeau.tensor.dlpack import Adopted
from flambeau.tensor.launches import fresh
from flambeau.tensor.meta import Meta, TensorBase, contiguous_meta, meta_of
from flambeau.tensor.overriding import DisableTorchFunctionSubclass

__all__ = ["array_of", "from_numpy", "from_data", "from_storage", "scalar_of", "from_dlpack",
           "new_view", "read_bytes", "twin"]


class _Memory:
    """Lets NumPy build an array on a tensor's memory; the array keeps the storage alive."""

    __slots__ = ("__array_interface__", "__weakref__", "owner")

    def __init__(self, storage: Any, ptr: int, nbytes: int):
        self.owner = storage
        self.__array_interface__ = {"data": (ptr, False), "shape": (nbytes,), "typestr": "|u1",
                                    "version": 3}


def array_of(tensor: Any, new: bool = False) -> np.ndarray:
    """The tensor's elements as an array on the same memory (bfloat16 as ml_dtypes.bfloat16).
    `new`: nothing has been computed with it yet."""
    if tensor._level is not None:
        tensor._refuse("Cannot access data pointer of Tensor that doesn't have storage: inside of "
                       "vmap a tensor stands for many examples")
    if not new:
        launches.look(tensor, "an array on the memory of a tensor")
    meta: Meta = tensor._meta
    itemsize = meta.dtype.itemsize
    if meta.numel == 0:
        return np.empty(meta.shape, meta.dtype.numpy)
    nbytes = required_span(meta.shape, meta.strides) * itemsize
    raw = np.asarray(_Memory(tensor._storage, tensor._ptr, nbytes))
    return np.ndarray(meta.shape, meta.dtype.numpy, raw, 0, [s * itemsize for s in meta.strides])


def new_view(storage: Any, ptr: int, meta: Meta) -> Any:
    """A tensor without history on existing memory."""
    tensor = launches.late.tensor.__new__(launches.late.tensor)
    tensor._storage = storage
    tensor._ptr = ptr
    tensor._meta = meta
    tensor._rg = False
    tensor._grad_fn = None
    tensor._base = None
    return tensor


def from_storage(storage: Any, dtype: DType, shape: Sequence[int], strides: Sequence[int],
                 offset: int = 0) -> Any:
    """A tensor on a storage; `offset` and strides in elements.

    Raises:
        RuntimeError: the tensor would reach outside the storage.
    """
    span = (offset + required_span(shape, strides)) * dtype.itemsize
    if 0 not in tuple(shape) and (span > storage.nbytes or offset < 0):
        raise RuntimeError(f"a tensor of shape {list(shape)}, strides {list(strides)} and offset "
                           f"{offset} needs {span} bytes, but its storage has {storage.nbytes}")
    device = META if memory.is_imagined(storage) else CPU
    return new_view(storage, storage.ptr + offset * dtype.itemsize,
                    meta_of(dtype, shape, strides, device))


def from_numpy(ndarray: np.ndarray) -> Any:
    """A tensor on the array's memory: each sees what is written to the other.

    Raises:
        TypeError: not an ndarray, or a dtype that no tensor has.
        ValueError: strides that no tensor can have.

    >>> import numpy
    >>> a = numpy.arange(3)
    >>> torch.from_numpy(a)[0] = 7  # shares the memory
    >>> a
    array([7, 1, 2])
    """
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    dtype = dtypes.by_numpy(ndarray.dtype)
    if not ndarray.dtype.isnative:
        raise ValueError("given numpy array has byte order different from the native byte order. "
                         "Conversion between byte orders is currently not supported.")
    if any(stride < 0 for stride in ndarray.strides):
        raise ValueError("At least one stride in the given numpy array is negative, and tensors "
                         "with negative strides are not currently supported. (You can probably "
                         "work around this by making a copy of your array  with array.copy().) ")
    if any(stride % ndarray.itemsize for stride in ndarray.strides):
        raise ValueError("given numpy array strides not a multiple of the element byte size. Copy "
                         "the numpy array to reallocate the memory.")
    launches.share(ndarray)
    strides = tuple(stride // ndarray.itemsize for stride in ndarray.strides)
    span = required_span(ndarray.shape, strides) * ndarray.itemsize
    storage = memory.foreign(ndarray.ctypes.data, span, ndarray)
    return new_view(storage, storage.ptr, meta_of(dtype, ndarray.shape, strides))


def plain(array: np.ndarray) -> np.ndarray:
    """The array, or a copy in a dtype with which NumPy counts, if its own is none (bfloat16, 8-bit
    floats and complex32)."""
    if array.dtype == dtypes.complex32.numpy:
        made = np.empty(array.shape, np.complex64)
        made.real, made.imag = array["re"], array["im"]
        return made
    return array.astype(np.float64) if array.dtype in _EXTENSIONS else array


_EXTENSIONS = {dtype.numpy for dtype in (dtypes.bfloat16, *dtypes.FLOAT8)}


def from_array_copy(array: np.ndarray, dtype: DType) -> Any:
    """A new tensor with the array's elements converted to `dtype`."""
    if dtype.kind in "Vq":
        raise TypeError(f"{dtype} cannot be made of numbers: make the bytes and .view({dtype})")
    tensor = fresh(contiguous_meta(dtype, array.shape))
    made = array_of(tensor, new=True)
    if array.dtype == dtypes.complex32.numpy:
        array = plain(array)
    with np.errstate(all="ignore"):
        if dtype is dtypes.complex32:
            made["re"], made["im"] = array.real, array.imag
        elif dtype in dtypes.FLOAT8 and array.dtype != dtype.numpy:
            made[...] = dtypes.to_float8(array, dtype)
        else:
            made[...] = array
    if launches.late.observers:
        launches.late.observers[-1].given(tensor)
    return tensor


def twin(tensor: Any) -> Any:
    """A copy that nothing else knows of, made without an operation, of a row-major tensor that
    Python has just filled: no launch knows its memory yet."""
    meta: Meta = tensor._meta
    storage = memory.allocate(meta.nbytes)
    ctypes.memmove(storage.ptr, tensor._ptr, meta.nbytes)
    return new_view(storage, storage.ptr, meta)


def from_data(data: Any, dtype: DType | None = None) -> Any:
    """A new tensor from numbers, nested sequences, arrays or tensors.

    Raises:
        ValueError: sequences of unequal lengths.
        TypeError: elements that are no numbers.
        RuntimeError: a number that does not fit the dtype.
    """
    if isinstance(data, TensorBase):
        if not data._meta.strided or data._meta.device is META:
            return data.detach().to(dtype or data.dtype).clone()
        return from_array_copy(array_of(data), dtype or data._meta.dtype)
    if isinstance(data, (np.ndarray, np.generic)):
        array = np.asarray(data)
        return from_array_copy(array, dtype or dtypes.by_numpy(array.dtype))
    if not isinstance(data, (bool, int, float, complex, str, bytes)) and hasattr(
            data, "__array__"):
        return from_data(np.asarray(data), dtype)
    if dtype is None and not isinstance(data, (bool, int, float, complex, str, bytes)) and (
            not _is_sequence(data) and not hasattr(data, "__float__")):
        raise _unknown(data)
    shape = _shape_of(data)
    seen: set = set()  # the dtypes and Python types of the elements
    flat = [_plain(item, dtype, seen) for item in _flat(data, len(shape))]
    found = dtype or _infer(seen)
    if found.kind != "c" and any(isinstance(x, complex) for x in flat):
        raise TypeError(f"must be real number, not complex (the dtype is {found!r})")
    try:
        array = _array(flat, found).reshape(shape)
    except (OverflowError, ValueError):  # too large; NaN
        kind = _overflow_class(flat, found)
        raise kind(f"value cannot be converted to type {found.name} without overflow") from None
    return from_array_copy(array, found)


def _overflow_class(flat: list, dtype: DType) -> type[Exception]:
    """The class of the error for numbers that do not fit, as PyTorch has it: by what cannot hold
    them, Python's number on its way in (64 bits) or the dtype."""
    if any(isinstance(x, int) and not -1 << 63 <= x < 1 << 64 for x in flat):
        return OverflowError if dtype.kind == "u" and dtype.itemsize == 8 else ValueError
    wide = any(isinstance(x, int) and x >= 1 << 63 for x in flat)
    return ValueError if wide and dtype.kind in "ui" else RuntimeError


def _is_sequence(data: Any) -> bool:
    """Something that nests: indexed by position, with a length."""
    return (hasattr(data, "__len__") and hasattr(data, "__getitem__")
            and not isinstance(data, Mapping))


def _unknown(item: Any) -> Exception:
    """The error for an element that is no number."""
    if isinstance(item, str):
        return ValueError("too many dimensions 'str': a tensor holds numbers, not text")
    if isinstance(item, bytes):
        return TypeError("new(): invalid data type 'bytes'")
    return RuntimeError(f"Could not infer dtype of {type(item).__name__}: a tensor is made of "
                        "numbers, nested sequences of numbers, or arrays")


def _array(flat: list, dtype: DType) -> np.ndarray:
    if dtype.kind == "b":
        return np.array([bool(x) for x in flat], np.bool_)
    if dtype.kind in "ui":
        items = [int(x) for x in flat]
        top = 1 << 8 * dtype.itemsize - (dtype.kind == "i")
        if any(not -top <= x < top for x in items):  # -255 is 1 as uint8, as in PyTorch
            raise OverflowError
        if dtype.kind == "u" and any(x < 0 for x in items):
            return np.array(items, np.int64).astype(dtype.numpy)
        return np.array(items, dtype.numpy if dtype.itemsize == 8 else np.int64).astype(dtype.numpy)
    return np.array(flat, np.complex128 if dtype.is_complex else np.float64)


def _shape_of(data: Any) -> tuple[int, ...]:
    if isinstance(data, TensorBase):
        return tuple(data._meta.shape)
    if isinstance(data, np.ndarray):
        return data.shape
    if isinstance(data, (str, bytes)):
        raise TypeError(f"new(): invalid data type '{type(data).__name__}'")
    if not _is_sequence(data):
        return ()
    if len(data) == 0:
        return (0,)
    if isinstance(data[0], str):
        raise _unknown(data[0])
    # tensors count as numbers
    inner = () if isinstance(data[0], TensorBase) else _shape_of(data[0])
    return (len(data), *inner)


def _flat(data: Any, depth: int, dim: int = 0):
    if isinstance(data, TensorBase) and depth == 0:
        yield data
        return
    if isinstance(data, (TensorBase, np.ndarray)):
        array = array_of(data) if isinstance(data, TensorBase) else data
        if array.ndim != depth:
            raise ValueError("only one element tensors can be converted to Python scalars")
        yield from array.ravel()  # as NumPy's scalars, which know their dtype
        return
    if depth == 0:
        if _is_sequence(data) and not isinstance(data, (np.generic, TensorBase)):
            if isinstance(data, (str, bytes)):
                raise TypeError(f"new(): invalid data type '{type(data).__name__}'")
            raise TypeError(f"new(): expected a number, got {type(data).__name__} at depth {dim}")
        yield data
        return
    if not hasattr(data, "__len__"):
        raise TypeError("not a sequence")
    if depth == 1 and _PYTHON.keys() >= set(map(type, data)):  # the usual case, quickly
        yield from data
        return
    expected = len(data[0]) if depth > 1 and len(data) and hasattr(data[0], "__len__") else None
    for item in data:
        if depth > 1:
            found = len(item) if hasattr(item, "__len__") else -1
            if isinstance(item, TensorBase) and item._meta.ndim == 0:
                found = -1
            if found != expected:
                if found == -1:
                    raise TypeError("not a sequence")
                raise ValueError(f"expected sequence of length {expected} at dim {dim + 1} (got "
                                 f"{found})")
        yield from _flat(item, depth - 1, dim + 1)


def _plain(item: Any, dtype: DType | None, seen: set) -> bool | int | float | complex:
    if item.__class__ in _PYTHON:
        seen.add(item.__class__)
        return item
    if isinstance(item, np.generic):
        seen.add(dtypes.by_numpy(item.dtype))
    elif isinstance(item, TensorBase):
        seen.add(item.dtype)
    else:
        seen.add(next((kind for kind in _PYTHON if isinstance(item, kind)), float))
    if isinstance(item, (bool, int, float, complex)) and not isinstance(item, np.generic):
        return item
    if isinstance(item, TensorBase) and item._meta.numel != 1:
        raise ValueError("only one element tensors can be converted to Python scalars; join "
                         f"tensors such as this one of shape {list(item.shape)} with torch.stack "
                         "or torch.cat")
    if isinstance(item, (np.generic, TensorBase)):
        return item.item()
    if hasattr(item, "__float__"):
        return float(item)
    if hasattr(item, "__index__"):
        return item.__index__()
    if dtype is None:
        raise _unknown(item)
    raise TypeError(f"must be real number, not {type(item).__name__}" if dtype.kind in "fc" else
                    f"'{type(item).__name__}' object cannot be interpreted as an integer")


_PYTHON = {bool: dtypes.bool_, int: dtypes.int64, float: None, complex: None}
"""Python's numbers and their dtypes; None: that of the default dtype."""


def _infer(seen: set) -> DType:
    """The dtype that holds elements of all these dtypes and Python types."""
    found = None
    for kind in seen:
        if not isinstance(kind, DType):
            default = dtypes_default().to_complex() if kind is complex else dtypes_default()
            kind = _PYTHON[kind] or default
        found = kind if found is None else dtypes.promote_types(found, kind)
    return found or dtypes_default()


_CTYPES = {"float32": ctypes.c_float, "float64": ctypes.c_double, "int64": ctypes.c_int64,
           "int32": ctypes.c_int32, "bool": ctypes.c_bool}


def scalar_of(tensor: Any) -> bool | int | float | complex:
    """The only element, as a Python number.

    Raises:
        RuntimeError: there is not exactly one.
    """
    meta = tensor._meta
    if meta.numel != 1:
        raise RuntimeError(f"a Tensor with {meta.numel} elements cannot be converted to Scalar "
                           f"(its shape is {list(meta.shape)}; use .tolist(), or reduce it first)")
    if meta.device is META:
        raise RuntimeError("Tensor.item() cannot be called on meta tensors: they have no values")
    if launches.late.deferred is not None:
        launches.settle("the value of a tensor")
    kind = _CTYPES.get(meta.dtype.name)
    if kind is not None:
        return kind.from_address(tensor._ptr).value
    value = plain(array_of(tensor)).reshape(())[()]
    return float(value) if meta.dtype.kind == "f" else value.item()


def read_bytes(tensor: Any) -> bytes:
    """A contiguous tensor's memory."""
    launches.look(tensor, "the bytes of a tensor")
    return ctypes.string_at(tensor._ptr, tensor._meta.nbytes)


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Any:
    """Take in a tensor of another library: the result lies on the same memory, so that a write to
    one is seen in the other, and keeps it alive.

    Args:
        ext_tensor: anything with `__dlpack__` and `__dlpack_device__` (NumPy arrays, tensors of
            PyTorch, JAX, CuPy ... on the CPU), or a capsule that `__dlpack__()` gave, which can be
            used once.
        device: where the result shall be: the CPU. Not for capsules.
        copy: True for memory of its own. Not for capsules.

    Raises:
        RuntimeError: memory of another device, or such a `device` asked for.
        BufferError: a tensor that requires grad or has no memory.
        AssertionError: `device` or `copy` given with a capsule.

    >>> import numpy
    >>> torch.from_dlpack(numpy.arange(3))
    tensor([0, 1, 2])
    """
    if (copy or device is not None) and type(ext_tensor).__name__ == "PyCapsule":
        raise AssertionError("from_dlpack: device and copy are for objects with __dlpack__; a "
                             "capsule is used up as it is")
    if device is not None and as_device(device) is META:
        raise BufferError("from_dlpack: tensors on meta have no memory to share")
    made = _shared(ext_tensor)
    return made.clone() if copy else made


def _shared(source: Any) -> Any:
    if isinstance(source, TensorBase):
        source.__dlpack_device__()  # raises if it cannot be shared
        if source._rg:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        with DisableTorchFunctionSubclass():  # a class that is asked shows its true layout
            return new_view(source._storage, source._ptr, source._meta)
    array = dtype = None
    try:
        if type(source).__name__ != "PyCapsule":
            try:
                array = np.from_dlpack(source)
            except (BufferError, TypeError, RuntimeError):  # perhaps only of a dtype of ours
                array = None
        if array is None:
            source = Adopted(source)
            array, dtype = np.from_dlpack(source), source.dtype
    except (BufferError, AttributeError, TypeError, ValueError) as error:
        raise RuntimeError(f"from_dlpack: cannot take over {type(source).__name__}: {error}. Only "
                           "CPU memory with NumPy's dtypes can be shared.") from error
    launches.share(array)
    strides = tuple(stride // array.itemsize for stride in array.strides)
    span = required_span(array.shape, strides) * array.itemsize
    storage = memory.foreign(array.__array_interface__["data"][0], span, array)
    dtype = dtype or dtypes.by_numpy(array.dtype)
    return new_view(storage, storage.ptr, meta_of(dtype, array.shape, strides))
