"""`SparseTensor`, and how histories pass between it and its values.

A sparse tensor is an ordinary citizen of the graph. Where a rule needs its values, `values_of`
gives them as a dense tensor whose node turns their gradient into a sparse one; where a rule has
made values, `assemble` makes a sparse tensor of them whose node takes the values out of its
gradient. Everything between is operations of the table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from flambeau.autograd import grad_mode
from flambeau.core.device import Device
from flambeau.core.dtypes import int64
from flambeau.tensor import tape
from flambeau.tensor.composed import Composed, link
from flambeau.tensor.devices import moved_to
from flambeau.tensor.formats import sparse_coo, sparse_csr
from flambeau.tensor.functions import ops
from flambeau.tensor.sparse.patterns import Compressed, Coo, Pattern

__all__ = ["SparseTensor", "assemble", "coalesced", "same_pattern", "values_of"]


class SparseTensor(Composed):
    """A tensor of which only some elements are stored: those that its pattern names."""

    backend = "SparseCPU"
    advice = "Work on .values(), or convert with .to_dense() first."
    _pattern: Pattern
    _elements: Any

    rules: ClassVar[dict[str, dict[str, Callable]]] = {"call": {}, "inplace": {}}
    """The functions that compute ops, by form and name; rules.py fills them in."""

    values_at: ClassVar[Callable]
    """(tensor of any layout, pattern) -> its elements there; convert.py defines it."""

    @classmethod
    def rule(cls, name: str, form: str) -> Callable | None:
        """See `Composed.rule`."""
        return cls.rules.get(form, {}).get(name)

    is_sparse = property(lambda self: self.layout is sparse_coo)
    is_sparse_csr = property(lambda self: self.layout is sparse_csr)

    @property
    def nbytes(self) -> int:
        """Raises: it could be that of the parts, or of the dense tensor."""
        raise RuntimeError("nbytes is not defined for sparse tensors.  If you want the size of the "
                           "constituent tensors, add the nbytes of the indices and values.  If you "
                           "want the size of the  equivalent dense tensor, multiply numel() by "
                           "element_size()")

    def stride(self, dim: int | None = None) -> Any:
        """Zeros for COO, as PyTorch has it; compressed layouts have none."""
        if self.layout is not sparse_coo:
            raise RuntimeError("Sparse CSR tensors do not have strides")
        return (0,) * self.ndim if dim is None else 0

    def type(self, dtype: Any = None, non_blocking: bool = False) -> Any:
        """The legacy type name, or the tensor converted to a dtype."""
        if dtype is not None:
            return super().type(dtype, non_blocking)
        return "torch.sparse." + super().type().removeprefix("torch.")

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError("Cannot assign to a sparse tensor: its elements are those of its indices "
                        "and values; make another one, or convert with .to_dense()")

    # ------------------------------------------------------------------ parts
    def _parts_moved(self, device: Device) -> SparseTensor:
        indices = tuple(moved_to(part, device) for part in self._pattern.indices)
        return assemble(_like(self._pattern, indices), moved_to(values_of(self), device))

    def _parts_alias(self) -> SparseTensor:
        return _bare(self._pattern, self._elements)

    def _take_parts(self, other: SparseTensor) -> None:
        if other._pattern is self._pattern and other._grad_fn is None and (
                other._elements._meta is self._elements._meta):
            self._elements.copy_(other._elements)  # what shares its memory sees the change
            return
        self._pattern, self._elements = other._pattern, other._elements
        self._meta, self._output_nr = other._meta, 0
        self._grad_fn, self._rg = other._grad_fn, other._rg

    # ------------------------------------------------------------------ Python
    def __repr__(self, *, tensor_contents: Any = None) -> str:
        from flambeau.tensor.sparse.display import sparse_repr

        text = sparse_repr(self)
        return f"Parameter containing:\n{text}" if getattr(self, "_is_param", False) else text

    def __reduce_ex__(self, protocol: int) -> Any:
        return _rebuild, (self.layout, self.shape, self._pattern.indices, self._elements,
                          getattr(self._pattern, "coalesced", False),
                          self._rg and self._grad_fn is None)

    def __deepcopy__(self, memo: dict) -> SparseTensor:
        if id(self) in memo:
            return memo[id(self)]
        if not self.is_leaf:
            raise RuntimeError("Only Tensors created explicitly by the user (graph leaves) support "
                               "the deepcopy protocol at the moment; use .detach() first")
        indices = tuple(part.clone() for part in self._pattern.indices)
        made = _bare(_like(self._pattern, indices), self._elements.clone())
        made._rg = self._rg
        if self._grad is not None:
            made._grad = self._grad.__deepcopy__(memo)
        for name, value in self.__dict__.items():
            if not name.startswith("_") or name in ("_is_param", "_is_buffer"):
                made.__dict__[name] = value
        memo[id(self)] = made
        return made


def _like(pattern: Pattern, indices: tuple) -> Pattern:
    """The same pattern with other tensors for its indices."""
    if isinstance(pattern, Coo):
        return Coo(*indices, pattern.shape, pattern.coalesced)
    return Compressed(pattern.layout, *indices, pattern.shape, pattern.block)


def _rebuild(layout: Any, shape: tuple, indices: tuple, values: Any, coalesced: bool,
             requires_grad: bool) -> SparseTensor:
    """What `pickle` makes a sparse tensor of."""
    if layout is sparse_coo:
        pattern: Pattern = Coo(*indices, shape, coalesced)
    else:
        batch = indices[1].ndim - 1
        dense = len(shape) - batch - 2
        block = tuple(values.shape[batch + 1:values.ndim - dense])
        pattern = Compressed(layout, *indices, shape, block)
    made = _bare(pattern, values)
    made._rg = requires_grad
    return made


# ---------------------------------------------------------------------- histories
_OF_VALUES = "ValuesBackward0"
_OF_TENSOR = "SparseCooTensorWithDimsAndTensorsBackward0"
_OF_COMPRESSED = "SparseCompressedTensorBackward0"


def _read(pattern: Pattern, grad: Any) -> Any:
    """The gradient of values: the tensor's, whatever its layout, at the pattern."""
    return SparseTensor.values_at(grad, pattern)


def _bare(pattern: Pattern, values: Any) -> SparseTensor:
    """A sparse tensor without history on these parts."""
    made = object.__new__(SparseTensor)
    made._adopt(pattern.meta(values._meta.dtype))
    made._pattern, made._elements = pattern, values
    return made


def assemble(pattern: Pattern, values: Any) -> SparseTensor:
    """The sparse tensor of a pattern and values; its history is theirs."""
    if not values._rg:
        return _bare(pattern, values)
    made = _bare(pattern, values.detach())
    if not grad_mode.is_recording():
        return made
    name = _OF_TENSOR if pattern.layout is sparse_coo else _OF_COMPRESSED
    return link(made, tape.edge_to(values), name, pattern, _read)


def values_of(tensor: SparseTensor) -> Any:
    """The values of a sparse tensor as a dense tensor that continues its history."""
    values = tensor._elements
    if not (tensor._rg and grad_mode.is_recording()):
        return values
    return link(tape.alias_of(values), tape.edge_of(tensor), _OF_VALUES, tensor._pattern,
                _as_gradient)


def _as_gradient(pattern: Pattern, grad: Any) -> SparseTensor:
    """The gradient of a tensor from that of its values. Entries at the same place have the same
    one, which must not count twice."""
    if isinstance(pattern, Coo) and not pattern.coalesced:
        how = pattern.coalescing()
        if how.offsets is not None:
            first = how.offsets[:-1]
            place = first if how.order is None else ops.index_select(how.order, 0, first)
            return assemble(how.pattern, ops.index_select(grad, 0, place))
    return assemble(pattern, grad)


def same_pattern(a: Pattern, b: Pattern) -> bool:
    """Are the entries of both known to be the same?"""
    return a is b or a.layout is b.layout and a.shape == b.shape and all(
        p is q for p, q in zip(a.indices, b.indices, strict=True))


def coalesced(tensor: SparseTensor) -> SparseTensor:
    """A COO tensor with sorted, unique entries: equal ones are added up. Itself if it is so."""
    pattern = tensor._pattern
    if pattern.coalesced:
        return tensor
    how = pattern.coalescing()
    values = values_of(tensor)
    if how.offsets is None:
        return assemble(how.pattern, values if how.order is None else
                        ops.index_select(values, 0, how.order))
    order = how.order
    if order is None:
        from flambeau.tensor.creation import arange

        order = arange(pattern.nnz)
    flat = values.reshape(values.shape[0], -1)
    if flat.dtype.kind == "b":
        total = ops._segment_sum(how.offsets, order, flat.to(int64)).to(flat.dtype)
    else:
        total = ops._segment_sum(how.offsets, order, flat)
    return assemble(how.pattern, total.reshape(total.shape[0], *values.shape[1:]))
