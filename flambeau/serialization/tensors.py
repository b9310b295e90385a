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

    def is_storage(self, value: object) -> bool:
        """Whether `value` is a bare storage."""

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

    def sparse_parts(self, tensor: Any) -> tuple | None:
        """(layout's name, arguments of its rebuilding) of a sparse tensor; None for others."""

    def build_sparse(self, layout: Any, parts: Sequence) -> Any:
        """A sparse tensor of such arguments, all of them checked.

        Raises:
            RuntimeError, TypeError, ValueError: they do not make one.
        """

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

    def is_storage(self, value: object) -> bool:
        return importlib.import_module("flambeau.tensor.typed_storages").is_storage(value)

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
                        if not name.startswith("_")},
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

    def sparse_parts(self, tensor: Any) -> tuple | None:
        if tensor._meta.strided:
            return None
        tensor, name = tensor.detach(), tensor.layout.name
        if not name.startswith("sparse_"):
            raise TypeError(f"tensors of layout {name} are not saved yet: save the tensors that "
                            "they are made of (values and offsets)")
        if name == "sparse_coo":
            return name, (tensor._indices(), tensor._values(), tensor.size(),
                          tensor.is_coalesced())
        rows = name in ("sparse_csr", "sparse_bsr")
        compressed = tensor.crow_indices() if rows else tensor.ccol_indices()
        plain = tensor.col_indices() if rows else tensor.row_indices()
        return name, (compressed, plain, tensor.values(), tensor.size())

    def build_sparse(self, layout: Any, parts: Sequence) -> Any:
        construct = importlib.import_module("flambeau.tensor.sparse.construct")
        if layout.name == "sparse_coo":
            indices, values, size, *coalesced = parts
            return construct.sparse_coo_tensor(indices, values, size, check_invariants=True,
                                               is_coalesced=coalesced[0] if coalesced else None)
        compressed, plain, values, size = parts
        return construct.sparse_compressed_tensor(compressed, plain, values, size, layout=layout,
                                                  check_invariants=True)

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
