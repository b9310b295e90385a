"""A small tensor library over NumPy, so that serialization is tested without the real one."""

from __future__ import annotations

import numpy as np

from flambeau.core.dtypes import DType, by_numpy
from flambeau.core.shapes import Size
from flambeau.serialization.geometry import aligned_buffer
from flambeau.serialization.tensors import TensorRecord


class FakeStorage:
    """Bytes at `ptr`; views of the same memory share one."""

    def __init__(self, ptr: int, nbytes: int, owner: object):
        self.ptr, self.nbytes, self.owner = ptr, nbytes, owner

    def bytes(self) -> np.ndarray:
        interface = {"data": (self.ptr, False), "shape": (self.nbytes,), "typestr": "|u1",
                     "version": 3}
        if not self.nbytes:
            return np.empty(0, np.uint8)
        holder = type("Holder", (), {"__array_interface__": interface, "storage": self})()
        return np.asarray(holder)  # keeps the holder, and so the memory


class FakeTypedStorage:
    """A storage as elements of a dtype."""

    def __init__(self, storage: FakeStorage, dtype: DType):
        self.storage, self.dtype = storage, dtype


class FakeTensor:
    """A strided view of a FakeStorage; strides and offset in elements."""

    def __init__(self, storage: FakeStorage, dtype: DType, shape: tuple, strides: tuple,
                 offset: int, requires_grad: bool = False, conj: bool = False):
        self._set(storage, dtype, shape, strides, offset, requires_grad, conj)

    def _set(self, *parts: object) -> None:
        object.__setattr__(self, "_parts", parts)

    @property
    def storage(self) -> FakeStorage:
        return self._parts[0]

    @property
    def dtype(self) -> DType:
        return self._parts[1]

    @property
    def shape(self) -> tuple:
        return self._parts[2]

    @property
    def strides(self) -> tuple:
        return self._parts[3]

    @property
    def requires_grad(self) -> bool:
        return self._parts[5]

    def numpy(self) -> np.ndarray:
        """A view of the same memory."""
        storage, dtype, shape, strides, offset, _, conj = self._parts
        if 0 in shape:
            return np.empty(shape, dtype.numpy)
        raw = storage.bytes()
        count = len(raw) // dtype.itemsize
        flat = raw[:count * dtype.itemsize].view(dtype.numpy)[offset:]
        array = np.lib.stride_tricks.as_strided(flat, shape, [s * dtype.itemsize for s in strides])
        return array.conj() if conj else array

    def view(self, shape: tuple, strides: tuple, offset: int) -> FakeTensor:
        return FakeTensor(self.storage, self.dtype, shape, strides, offset)

    def to(self, dtype: DType) -> FakeTensor:
        return tensor(self.numpy().astype(dtype.numpy))

    def method(self) -> None:
        """Something that an attribute must not hide."""


class FakeParameter(FakeTensor):
    def __init__(self, data: FakeTensor, requires_grad: bool = True):
        parts = list(data._parts)
        parts[5] = requires_grad
        self._set(*parts)


class FakeDevice:
    __module__ = "flambeau.fake"

    def __init__(self, kind: str, index: int | None = None):
        self.type, self.index = kind, index

    def __eq__(self, other: object) -> bool:
        return (self.type, self.index) == (other.type, other.index)

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    __hash__ = None


FakeDevice.__name__ = "device"


def tensor(array: np.ndarray, requires_grad: bool = False) -> FakeTensor:
    """A tensor of `array`'s values in memory of its own, row-major."""
    array = np.asarray(array)
    dtype = by_numpy(array.dtype)
    shape = array.shape
    array = np.ascontiguousarray(array)
    buffer = aligned_buffer(array.nbytes)
    buffer[:] = array.reshape(-1).view(np.uint8)
    storage = FakeStorage(buffer.__array_interface__["data"][0], array.nbytes, buffer)
    strides, step = [], 1
    for size in reversed(shape):
        strides.insert(0, step)
        step *= max(size, 1)
    return FakeTensor(storage, dtype, shape, tuple(strides), 0, requires_grad)


class FakeAdapter:
    tensor_type = FakeTensor
    parameter_type = FakeParameter

    def is_tensor(self, value: object) -> bool:
        return isinstance(value, FakeTensor)

    def storage_parts(self, value: object) -> tuple | None:
        if isinstance(value, FakeTypedStorage):
            return value.storage, value.storage.nbytes, value.dtype
        return (value, value.nbytes, None) if isinstance(value, FakeStorage) else None

    def storage_handle(self, storage: FakeStorage, dtype: DType | None = None) -> object:
        return storage if dtype is None else FakeTypedStorage(storage, dtype)

    def describe(self, value: FakeTensor) -> TensorRecord:
        storage, dtype, shape, strides, offset, requires_grad, conj = value._parts
        attributes = {name: v for name, v in vars(value).items() if name != "_parts"}
        cls = type(value)
        return TensorRecord(
            storage, storage.ptr, storage.nbytes, dtype, shape, strides, offset, requires_grad,
            is_parameter=cls is FakeParameter, attributes=attributes, conj=conj,
            subclass=None if cls in (FakeTensor, FakeParameter) else cls)

    def foreign_storage(self, ptr: int, nbytes: int, owner: object) -> FakeStorage:
        return FakeStorage(ptr, nbytes, owner)

    def build_tensor(self, storage, dtype, shape, strides, offset, requires_grad):
        return FakeTensor(storage, dtype, shape, strides, offset, requires_grad)

    def build_parameter(self, data, requires_grad):
        return FakeParameter(data, requires_grad)

    def as_subclass(self, value, cls):
        made = cls.__new__(cls)
        made._set(*value._parts)
        return made

    def composed_parts(self, value):
        return None

    def resolve(self, value, conj, neg):
        parts = list(value._parts)
        parts[6] = parts[6] != conj
        return FakeTensor(*parts)

    def make_size(self, values):
        return Size(values)

    def make_device(self, kind, index):
        return FakeDevice(kind, index)

    def constant(self, name):
        return f"torch.{name}"
