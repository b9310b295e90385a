"""The one place where serialization meets the Tensor class.

Readers and writers know storages, dtypes and geometry only; they reach tensors through the adapter
that `adapter()` returns. Tests put a NumPy-backed one in its place with `use_adapter`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from flambeau.core.dtypes import DType
from flambeau.core.shapes import Size
from flambeau.serialization import composed

__all__ = ["FlambeauTensors", "TensorAdapter", "TensorRecord", "adapter", "use_adapter"]


@dataclasses.dataclass(frozen=True)
class TensorRecord:
    """What a checkpoint says about a tensor.

    Attributes:
        storage: the object that all views of the same memory share (compared by identity).
        ptr, nbytes: its memory on the host.
        shape, strides, offset: the view, in elements of `dtype`.
        subclass: the type, unless it is a plain Tensor or Parameter.
        attributes: what user code put on the tensor (`t.note = ...`).
        conj, neg: the view reads its memory conjugated, or negated.
    """

    storage: object
    ptr: int
    nbytes: int
    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    requires_grad: bool = False
    is_parameter: bool = False
    subclass: type | None = None
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    conj: bool = False
    neg: bool = False


class TensorAdapter(Protocol):
    """What serialization asks of a tensor library."""

    tensor_type: type
    parameter_type: type

    def is_tensor(self, value: object) -> bool:
        """Whether `value` is a tensor (or parameter)."""

    def storage_parts(self, value: object) -> tuple[Any, int, DType | None] | None:
        """(storage, bytes, dtype or None for plain bytes) of a bare storage; None for others."""

    def storage_handle(self, storage: Any, dtype: DType | None = None) -> Any:
        """A storage as users hold it: plain bytes, or elements of a dtype."""

    def describe(self, tensor: Any) -> TensorRecord:
        """Take a tensor apart. The record keeps its memory alive."""

    def foreign_storage(self, ptr: int, nbytes: int, owner: object) -> Any:
        """A storage over memory that lives as long as `owner`."""

    def build_tensor(self, storage: Any, dtype: DType, shape: Sequence[int],
                     strides: Sequence[int], offset: int, requires_grad: bool) -> Any:
        """A view of `storage`; the geometry has been checked."""

    def build_parameter(self, data: Any, requires_grad: bool) -> Any:
        """A parameter over the memory of `data`."""

    def as_subclass(self, tensor: Any, cls: type) -> Any:
        """The same tensor as an instance of `cls`."""

    def resolve(self, tensor: Any, conj: bool, neg: bool) -> Any:
        """The tensor read conjugated and/or negated."""

    def composed_parts(self, tensor: Any) -> tuple[str, Any] | None:
        """(layout's name, arguments of its rebuilding) of a sparse or nested tensor, else None."""

    def build_sparse(self, layout: Any, parts: Sequence) -> Any:
        """A sparse tensor of such arguments, all of them checked.

        Raises:
            RuntimeError, TypeError, ValueError: they do not make one.
        """

    def build_nested(self, *parts: Any) -> Any:
        """A nested tensor of numbers and where each part lies; raises as `build_sparse`."""

    def build_jagged(self, parts: dict[str, Any]) -> Any:
        """A nested tensor with the layout torch.jagged; raises as `build_sparse`."""

    def build_quantized(self, plain: Any, shape: tuple, parameters: tuple) -> Any:
        """A quantized tensor of its levels and parameters; raises as `build_sparse`."""

    def build_meta(self, dtype: DType, shape: tuple, strides: tuple, requires_grad: bool) -> Any:
        """A tensor of the meta device."""

    def make_size(self, values: Sequence[int]) -> Any:
        """A torch.Size."""

    def make_device(self, kind: str, index: int | None) -> Any:
        """A torch.device."""

    def constant(self, name: str) -> Any:
        """The value called torch.`name`, for example `strided`."""


class FlambeauTensors:
    """The adapter for flambeau.Tensor.

    Imports happen at the first use: a program that only inspects archives does not need tensors.
    """

    @property
    def tensor_type(self) -> type:
        return importlib.import_module("flambeau.tensor").Tensor

    @property
    def parameter_type(self) -> type:
        return importlib.import_module("flambeau.nn.parameter").Parameter

    def is_tensor(self, value: object) -> bool:
        return isinstance(value, self.tensor_type)

    def storage_parts(self, value: object) -> tuple[Any, int, DType | None] | None:
        storages = importlib.import_module("flambeau.tensor.typed_storages")
        if not storages.is_storage(value):
            return None
        memory = value.untyped()._memory
        return memory, memory.nbytes, getattr(value, "dtype", None)

    def storage_handle(self, storage: Any, dtype: DType | None = None) -> Any:
        made = importlib.import_module("flambeau.tensor.storages").handle_of(storage)
        if dtype is None:
            return made
        return importlib.import_module("flambeau.tensor.typed_storages").typed(made, dtype)

    def describe(self, tensor: Any) -> TensorRecord:
        if tensor.device.type != "cpu":
            tensor = tensor.detach().cpu()
        importlib.import_module("flambeau.tensor.launches").look(tensor, "saving a tensor")
        storage, cls = tensor._storage, type(tensor)
        is_parameter = isinstance(tensor, self.parameter_type)
        plain = cls in (self.tensor_type, self.parameter_type)
        return TensorRecord(
            storage=storage, ptr=storage.ptr, nbytes=storage.nbytes, dtype=tensor.dtype,
            shape=tuple(tensor.shape), strides=tuple(tensor.stride()),
            offset=tensor.storage_offset(), requires_grad=tensor.requires_grad,
            is_parameter=is_parameter and cls is self.parameter_type,
            subclass=None if plain else cls,
            # what starts with an underscore is the tensor's own; the rest the user has set
            attributes={name: value for name, value in tensor.__dict__.items()
                        if not name.startswith("_") or name == "_is_buffer"},
            conj=_flag(tensor, "is_conj"), neg=_flag(tensor, "is_neg"),
        )

    def foreign_storage(self, ptr: int, nbytes: int, owner: object) -> Any:
        return importlib.import_module("flambeau.runtime.memory").foreign(ptr, nbytes, owner)

    def build_tensor(self, storage: Any, dtype: DType, shape: Sequence[int],
                     strides: Sequence[int], offset: int, requires_grad: bool) -> Any:
        made = self.tensor_type._from_storage(storage, dtype, tuple(shape), tuple(strides), offset)
        return made.requires_grad_() if requires_grad else made

    def build_parameter(self, data: Any, requires_grad: bool) -> Any:
        return self.parameter_type(data, requires_grad)

    def as_subclass(self, tensor: Any, cls: type) -> Any:
        return tensor if type(tensor) is cls else tensor.as_subclass(cls)

    def resolve(self, tensor: Any, conj: bool, neg: bool) -> Any:
        tensor = tensor.conj() if conj else tensor
        return -tensor if neg else tensor

    def composed_parts(self, tensor: Any) -> tuple[str, Any] | None:
        return composed.parts_of(tensor)

    def build_sparse(self, layout: Any, parts: Sequence) -> Any:
        return composed.sparse_of(layout, parts)

    def build_nested(self, *parts: Any) -> Any:
        return composed.nested_of(*parts)

    def build_jagged(self, parts: dict[str, Any]) -> Any:
        return composed.jagged_of(parts)

    def build_quantized(self, plain: Any, shape: tuple, parameters: tuple) -> Any:
        return composed.quantized_of(plain, shape, parameters)

    def build_meta(self, dtype: DType, shape: tuple, strides: tuple, requires_grad: bool) -> Any:
        return composed.meta_of(dtype, shape, strides, requires_grad)

    def make_size(self, values: Sequence[int]) -> Size:
        return Size(values)

    def make_device(self, kind: str, index: int | None) -> Any:
        device = importlib.import_module("flambeau").device
        return device(kind) if index is None else device(kind, index)

    def constant(self, name: str) -> Any:
        return getattr(importlib.import_module("flambeau"), name)


def _flag(tensor: Any, name: str) -> bool:
    question = getattr(tensor, name, None)
    return bool(question()) if question is not None else False


_current: TensorAdapter = FlambeauTensors()


def adapter() -> TensorAdapter:
    """The adapter in force."""
    return _current


@contextmanager
def use_adapter(other: TensorAdapter) -> Iterator[None]:
    """Inside the block, tensors are those of another library."""
    global _current
    before, _current = _current, other
    try:
        yield
    finally:
        _current = before
