"""What users make nested tensors with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from flambeau.core import dtypes
from flambeau.core.arguments import kind_of, need_tensor
from flambeau.core.device import as_device
from flambeau.core.dtypes import DType
from flambeau.core.shapes import normalize_dim
from flambeau.tensor import interop
from flambeau.tensor.creation import arange, checked, empty
from flambeau.tensor.creation import tensor as dense
from flambeau.tensor.formats import jagged, strided
from flambeau.tensor.functions import ops
from flambeau.tensor.meta import TensorBase
from flambeau.tensor.nested.structure import Structure, ragged_dims
from flambeau.tensor.nested.tensor import NestedTensor, wrap

__all__ = ["as_nested_tensor", "masked_select", "narrow", "nested_tensor",
           "nested_tensor_from_jagged"]


def _layout(layout: Any) -> Any:
    if layout not in (None, strided, jagged):
        raise RuntimeError(f"Specified layout is unsupported for nested tensors: {layout!r}")
    return layout or strided


def _joined(parts: Sequence, layout: Any) -> NestedTensor:
    """Tensors of one rank as a nested tensor; their history goes on."""
    for place, part in enumerate(parts):
        if part.ndim != parts[0].ndim:
            raise RuntimeError("All Tensors given to nested_tensor must have the same dimension. "
                               f"Found dimension {part.ndim} for Tensor at index {place} and "
                               f"dimension {parts[0].ndim} for Tensor at index 0.")
        if part.dtype is not parts[0].dtype:
            raise RuntimeError("All Tensors given to nested_tensor must have the same dtype, found "
                               f"{part.dtype!r} at index {place} and {parts[0].dtype!r} at index "
                               "0.")
    shapes = [tuple(part.shape) for part in parts]
    if layout is strided:
        structure = Structure(strided, shapes)
        return wrap(structure, structure.join(parts) if parts else empty(0))
    if not parts:
        raise RuntimeError("Cannot construct a nested tensor of layout torch.jagged from no "
                           "tensors")
    ragged = ragged_dims(shapes)
    if not shapes[0] or len(ragged) > 1:
        raise RuntimeError("Cannot represent given tensor list as a nested tensor with the jagged "
                           "layout. Note that the jagged layout only represents shapes of the form "
                           "(B, *_0, D_0, D_1, ..., D_N), with only *_0 allowed to be ragged.")
    structure = Structure(jagged, shapes, ragged[0] if ragged else 1)
    return wrap(structure, structure.join(parts))


def _moved(tensor: Any, dtype: DType | None, device: Any) -> Any:
    """The tensor with another dtype and on another device; None: its own."""
    return tensor.to(tensor.device if device is None else as_device(device), dtype or tensor.dtype)


def nested_tensor(tensor_list: Any, *, dtype: DType | None = None, layout: Any = None,
                  device: Any = None, requires_grad: bool = False, pin_memory: bool = False
                  ) -> NestedTensor:
    """A new leaf with copies of tensors (or of what `torch.tensor` takes).

    Args:
        layout: torch.strided (default), or torch.jagged: only the first dimension of the parts
            may differ, and many more operations work.

    >>> x = torch.nested.nested_tensor([torch.ones(2), torch.zeros(1)], layout=torch.jagged)
    >>> x.values(), x.offsets()
    (tensor([1., 1., 0.]), tensor([0, 2, 3]))
    """
    dtype = checked(dtype, device)
    if not isinstance(tensor_list, (list, tuple)):
        raise TypeError("nested_tensor(): Expected first argument to be a list or tuple of "
                        f"tensors, got {kind_of(tensor_list)}")
    parts = [item.detach() if isinstance(item, TensorBase) else interop.from_data(item)
             for item in tensor_list]
    if dtype is None and len({part.dtype for part in parts}) > 1:
        dtype = parts[0].dtype
        for part in parts[1:]:
            dtype = dtypes.promote_types(dtype, part.dtype)
    made = _joined([_moved(part, dtype, device) for part in parts], _layout(layout))
    return made.requires_grad_() if requires_grad else made


def as_nested_tensor(ts: Any, dtype: DType | None = None, device: Any = None, layout: Any = None
                     ) -> NestedTensor:
    """Tensors as a nested tensor; gradients go back to them.

    Args:
        ts: a list of tensors, a tensor whose first dimension is the batch, or a nested tensor.

    >>> torch.nested.as_nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged).offsets()
    tensor([0, 2, 5])
    """
    dtype = checked(dtype, device)
    layout = _layout(layout)
    if isinstance(ts, NestedTensor):
        made = _moved(ts, dtype, device)
        same = layout is ts.layout
        return made if same else _joined(list(made.unbind()), layout)
    if isinstance(ts, TensorBase):
        if ts.ndim < 2:
            raise RuntimeError("as_nested_tensor(): Expected tensor argument to have dim() > 1")
        ts = list(ops.unbind(ts, 0))
    if not isinstance(ts, (list, tuple)) or not all(isinstance(t, TensorBase) for t in ts):
        raise TypeError("as_nested_tensor(): Expected first argument to be a tensor or a list / "
                        f"tuple of tensors, got {kind_of(ts)}")
    return _joined([_moved(t, dtype, device) for t in ts], layout)


def nested_tensor_from_jagged(values: Any, offsets: Any = None, lengths: Any = None,
                              jagged_dim: int | None = None, min_seqlen: int | None = None,
                              max_seqlen: int | None = None) -> NestedTensor:
    """A nested tensor over joined parts; gradients go back to `values`.

    Args:
        values: the parts, one after the other along `jagged_dim` - 1.
        offsets: where they begin, and the end of the last (parts + 1,).
        lengths: how long they are, instead of or beside `offsets`; with both, what lies between a
            part's end and the next one's start is left out.
        jagged_dim: the ragged dimension of the result, 1 by default.

    >>> offsets = torch.tensor([0, 2, 5])
    >>> x = torch.nested.nested_tensor_from_jagged(torch.arange(5.), offsets)
    >>> [part.tolist() for part in x.unbind()]
    [[0.0, 1.0], [2.0, 3.0, 4.0]]
    """
    need_tensor("nested_tensor_from_jagged", "values", values)
    if offsets is None and lengths is None:
        raise RuntimeError("nested_tensor_from_jagged(): At least one of offsets or lengths is "
                           "required.")
    at = 1 if jagged_dim is None else normalize_dim(jagged_dim, values.ndim + 1)
    if at == 0:
        raise RuntimeError("nested_tensor_from_jagged(): the batch dimension cannot be ragged")
    if offsets is None:
        sizes = lengths.tolist()
        offsets = ops.cat((arange(1), ops.cumsum(lengths.to(dtypes.int64), 0)))
    else:
        edges = offsets.tolist()
        sizes = [b - a for a, b in itertools.pairwise(edges)]
        _check_edges(edges, values.shape[at - 1])
        if lengths is not None:
            made = _without_gaps(values, edges, lengths.tolist(), at)
            return _with_holes(made, values, offsets, lengths)
    if sum(sizes) != values.shape[at - 1] or min(sizes, default=0) < 0:
        raise RuntimeError(f"nested_tensor_from_jagged(): lengths {sizes} do not add up to the "
                           f"size {values.shape[at - 1]} of values along dim {at - 1}")
    rest = tuple(values.shape)
    shapes = [(*rest[:at - 1], size, *rest[at:]) for size in sizes]
    return wrap(Structure(jagged, shapes, at, offsets), values)


def _check_edges(edges: list, size: int) -> None:
    if not edges or edges[0] != 0 or edges[-1] > size or any(
            a > b for a, b in itertools.pairwise(edges)):
        raise RuntimeError(f"nested_tensor_from_jagged(): offsets {edges} must rise from 0 to at "
                           f"most the size {size} of values")


def _without_gaps(values: Any, edges: list, sizes: list, at: int) -> NestedTensor:
    if len(sizes) != len(edges) - 1 or any(
            not 0 <= n <= b - a for n, (a, b) in zip(sizes, itertools.pairwise(edges),
                                                    strict=True)):
        raise RuntimeError(f"nested_tensor_from_jagged(): lengths {sizes} do not fit offsets "
                           f"{edges}")
    parts = [ops.narrow(values, at - 1, a, n) for a, n in zip(edges, sizes, strict=False)]
    structure = Structure(jagged, [tuple(p.shape) for p in parts], at)
    return wrap(structure, structure.join(parts))


def _with_holes(made: NestedTensor, values: Any, offsets: Any, lengths: Any) -> NestedTensor:
    """Say over which memory the parts lie that are not all of it."""
    made._holes = (values, offsets, lengths)
    return made


def narrow(tensor: Any, dim: int, start: Any, length: Any, layout: Any = strided) -> NestedTensor:
    """Of each part of a dense tensor (batch, n, ...) `length[i]` rows from `start[i]` on.

    Args:
        dim: 1.
        start, length: tensors (batch,), or a number for all.
        layout: of the result: torch.jagged or torch.strided.

    >>> x, starts, lengths = torch.arange(6).view(2, 3), torch.tensor([0, 1]), torch.tensor([2, 1])
    >>> y = torch.nested.narrow(x, 1, starts, lengths, layout=torch.jagged)
    >>> [part.tolist() for part in y.unbind()]
    [[0, 1], [4]]
    """
    need_tensor("narrow", "tensor", tensor)
    if dim != 1:
        raise RuntimeError(f"narrow: only dim=1 can become ragged, got {dim}")
    count = tensor.shape[0]
    starts = start.tolist() if isinstance(start, TensorBase) else [start] * count
    lengths = length.tolist() if isinstance(length, TensorBase) else [length] * count
    parts = [ops.narrow(tensor[i], 0, starts[i], lengths[i]) for i in range(count)]
    made = _joined(parts, _layout(layout))
    if layout is not jagged:
        return made
    size = tensor.shape[1]
    edges = [size * i + start for i, start in enumerate(starts)]
    offsets = dense([*edges, edges[-1] + lengths[-1] if edges else 0])
    values = tensor.reshape(-1, *tensor.shape[2:])
    return _with_holes(made, values, offsets, dense(lengths, dtype=dtypes.int64))


def masked_select(tensor: Any, mask: Any) -> NestedTensor:
    """The elements of a matrix where `mask` is True, row by row: a jagged tensor of vectors.

    >>> x = torch.tensor([[1, 2], [3, 4]])
    >>> torch.nested.masked_select(x, x > 1).offsets()
    tensor([0, 1, 3])
    """
    need_tensor("masked_select", "tensor", tensor)
    if mask.dtype is not dtypes.bool_ or tuple(mask.shape) != tuple(tensor.shape) or (
            tensor.ndim != 2):
        raise RuntimeError("masked_select expects a matrix and a mask of its shape, of bools, got "
                           f"{list(tensor.shape)}, {list(mask.shape)} of {mask.dtype!r}")
    lengths = ops.sum(mask, 1)
    return nested_tensor_from_jagged(tensor[mask], lengths=lengths)
