"""`x[...]`: basic indices become views, tensors and lists become lookups."""

from __future__ import annotations

from typing import Any

import numpy as np

from flambeau.core import dtypes
from flambeau.core.device import CPU, META
from flambeau.core.shapes import broadcast_shapes, normalize_dim
from flambeau.core.symbolic import index_of
from flambeau.tensor import interop
from flambeau.tensor.compress import nonzero_columns
from flambeau.tensor.devices import moved_to
from flambeau.tensor.functions import ops
from flambeau.tensor.meta import TensorBase

__all__ = ["get", "put", "checked_dim", "index_put", "index_put_"]


def checked_dim(dim: Any, rank: int) -> int:
    """A dimension given by a user, counted from the front."""
    return normalize_dim(dim, rank)


def get(tensor: Any, index: Any) -> Any:
    """tensor[index]"""
    if index.__class__ is int:
        if tensor._meta.ndim == 0:
            raise IndexError("invalid index of a 0-dim tensor. Use `tensor.item()` in Python or "
                             "`tensor.item<T>()` in C++ to convert a 0-dim tensor to a number")
        return ops.select(tensor, 0, index)
    if index.__class__ is slice and tensor._meta.ndim:
        start, stop, step = index.start, index.stop, index.step
        if (start is None or start.__class__ is int) and (stop is None or stop.__class__ is int) \
                and step is None and not (start is None and stop is None):
            return ops.slice(tensor, 0, start, stop, 1)
    elif isinstance(index, TensorBase) and index._meta.dtype is dtypes.int64 \
            and index._meta.ndim and tensor._meta.ndim \
            and index._meta.device is tensor._meta.device:
        return ops._index(tensor, (index,), (0,))
    view, advanced = _apply_basic(tensor, index)
    if advanced:
        where, indices = _expanded(view, advanced)
        return ops._index(view, indices, where)
    return ops.alias(view) if view is tensor else view


def put(tensor: Any, index: Any, value: Any) -> None:
    """tensor[index] = value"""
    target, advanced = _apply_basic(tensor, index)
    if not isinstance(value, TensorBase):
        if isinstance(value, (bool, int, float, complex, np.generic)) and not advanced:
            if target._meta.dtype is dtypes.float16 and not isinstance(value, complex):
                with np.errstate(over="ignore"):  # what `fill_` refuses is infinite here
                    value = float(np.float16(value))
            ops.fill_(target, value)
            return
        if value is None or isinstance(value, (str, bytes)):
            raise TypeError(f"can't assign a {type(value).__name__} to a "
                            f"torch.{target.dtype.legacy}")
        value = interop.from_data(value, None if isinstance(value, np.ndarray) else target.dtype)
        value = moved_to(value, target.device)
    if not advanced:
        if value.ndim > target.ndim:
            value = _without_leading_ones(value, target.ndim)
        added = target.ndim - value.ndim
        if value._ptr == target._ptr and added > 0 and (
                target.shape == (1,) * added + tuple(value.shape)) and value._meta.contiguous:
            value = ops.view(value, tuple(target.shape))  # x[None] = x: the same elements
        target.copy_(value)
        return
    if value.dtype is not target.dtype:
        if value.ndim:
            raise RuntimeError("Index put requires the source and destination dtypes match, got "
                               f"{target.dtype.scalar_name} for the destination and "
                               f"{value.dtype.scalar_name} for the source.")
        value = value.to(target.dtype)
    if len(advanced) == 1 and value.numel() == 1:
        (_, mask), = advanced.items()
        if mask.dtype is dtypes.bool_ and tuple(mask.shape) == tuple(target.shape):
            ops.masked_fill_(target, mask, value.reshape(()))
            return
    where, indices = _expanded(target, advanced)
    ops._index_put_(target, indices, value, where, False)


def _without_leading_ones(value: Any, rank: int) -> Any:
    while value.ndim > rank and value.shape[0] == 1:
        value = value.squeeze(0)
    return value


def _apply_basic(tensor: Any, index: Any) -> tuple[Any, dict[int, Any]]:
    """(view after ints, slices, None and ..., advanced indices by the view's dimension)."""
    items = list(index) if isinstance(index, tuple) or _stands_for_tuple(index) else [index]
    items = [_item(item) for item in items]
    taken = sum(_consumed(item) for item in items)
    if taken > tensor._meta.ndim:
        raise IndexError(f"too many indices for tensor of dimension {tensor._meta.ndim}")
    view, dim, advanced = tensor, 0, {}
    for item in items:
        if item is Ellipsis:
            dim += tensor._meta.ndim - taken
        elif item is None:
            view, dim = ops.unsqueeze(view, dim), dim + 1
        elif isinstance(item, slice):
            if item != slice(None):
                view = _sliced(view, dim, item)
            dim += 1
        elif item.__class__ is bool:
            view = ops.unsqueeze(view, dim)
            advanced[dim] = moved_to(interop.from_data([item]), tensor.device)
            dim += 1
        elif isinstance(item, int):
            view = _selected(view, dim, item, tensor)
        else:
            advanced[dim] = item
            dim += _consumed(item)
    return view, advanced


def _stands_for_tuple(index: Any) -> bool:
    """Is a list one index a dimension? Short lists of anything but numbers are, as once in NumPy.
    """
    return isinstance(index, list) and len(index) < 32 and any(
        item is None or item is Ellipsis or isinstance(item, _NO_NUMBERS) for item in index)


_NO_NUMBERS = (TensorBase, list, tuple, range, slice, np.ndarray)


def _selected(view: Any, dim: int, index: int, original: Any) -> Any:
    size = view._meta.shape[dim]
    if not -size <= index < size:
        raise IndexError(f"index {index} is out of bounds for dimension {dim} with size {size}")
    return ops.select(view, dim, index)


def _sliced(view: Any, dim: int, item: slice) -> Any:
    start, end, step = (None if bound is None else index_of(bound)
                        for bound in (item.start, item.stop, item.step))
    if step is not None and step <= 0:
        raise ValueError("step must be greater than zero")
    return ops.slice(view, dim, start, end, 1 if step is None else step)


def _item(item: Any) -> Any:
    """One index in canonical form: int, bool, slice, None, Ellipsis or an index tensor."""
    if item is None or item is Ellipsis or isinstance(item, (bool, slice)):
        return item
    if isinstance(item, TensorBase):
        if item._meta.ndim == 0 and item._meta.dtype.kind != "f":
            masked = item._meta.dtype in (dtypes.bool_, dtypes.uint8)
            if not masked and (item._level is not None or item._meta.device is META):
                # each example has its own; or it is not known
                return _checked_index(item)
            return bool(item.item()) if masked else item.item()
        return _checked_index(item)
    if isinstance(item, np.ndarray):
        if item.ndim == 0 and item.dtype.kind in "biu":
            return item.item()
        return _checked_index(interop.from_numpy(np.ascontiguousarray(item)))
    if isinstance(item, (list, tuple, range)):
        return _checked_index(interop.from_data(list(item), None if len(item) else dtypes.int64))
    if hasattr(item, "__index__"):
        return index_of(item)
    if isinstance(item, (str, bytes)):
        raise TypeError(f"new(): invalid data type '{type(item).__name__}': only integers, slices, "
                        f"`...`, None and tensors are valid indices, not {item!r}")
    raise IndexError("only integers, slices (`:`), ellipsis (`...`), None and long or byte "
                     f"Variables are valid indices (got {type(item).__name__})")


_INDEX_DTYPES = ("int64", "int32", "uint8", "bool")


def _checked_index(index: Any) -> Any:
    if index._meta.dtype.name not in _INDEX_DTYPES:
        raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
    return index


def _consumed(item: Any) -> int:
    if item is None or item is Ellipsis or item.__class__ is bool:
        return 0
    if isinstance(item, TensorBase) and item._meta.dtype in (dtypes.bool_, dtypes.uint8):
        return item._meta.ndim
    return 1


def _expanded(view: Any, advanced: dict[int, Any]) -> tuple[tuple, tuple]:
    """(dimensions, int64 index tensors of one shape), with masks replaced by their positions."""
    pairs: list[tuple[int, Any]] = []
    for dim, index in sorted(advanced.items()):
        if index._meta.dtype in (dtypes.bool_, dtypes.uint8):
            for k, size in enumerate(index.shape):
                if view.shape[dim + k] != size:
                    raise IndexError(f"The shape of the mask {list(index.shape)} at index {k} does "
                                     "not match the shape of the indexed tensor "
                                     f"{list(view.shape)} at index {dim + k}")
            positions = nonzero_columns(index)
            pairs += [(dim + k, column) for k, column in enumerate(positions)]
        else:
            pairs.append((dim, index.to(dtypes.int64)))
    try:
        shape = broadcast_shapes(*(tuple(i.shape) for _, i in pairs))
    except RuntimeError:
        shapes = ", ".join(str(list(i.shape)) for _, i in pairs)
        raise IndexError("shape mismatch: indexing tensors could not be broadcast together with "
                         f"shapes {shapes}") from None
    device = view._meta.device
    indices = tuple(_beside(ops.expand(i, shape) if tuple(i.shape) != shape else i, device)
                    for _, i in pairs)
    return tuple(dim for dim, _ in pairs), indices


def _beside(index: Any, device: Any) -> Any:
    """An index where the indexed tensor lies: those of the CPU serve tensors of any device."""
    return moved_to(index, device) if index._meta.device is CPU else index


# ---------------------------------------------------------------------- functions
def _put_arguments(input: Any, indices: Any, values: Any) -> tuple[Any, tuple, tuple]:
    """(view of the input that is indexed, dimensions, int64 indices); None stands for a whole
    dimension."""
    if not isinstance(indices, (list, tuple)):
        raise TypeError("index_put_(): argument 'indices' (position 1) must be tuple of Tensors, "
                        f"not {type(indices).__name__}")
    if not isinstance(values, TensorBase):
        raise TypeError("index_put_(): argument 'values' (position 2) must be Tensor, not "
                        f"{type(values).__name__}")
    whole = tuple(slice(None) if index is None else _one_dimensional(index) for index in indices)
    view, advanced = _apply_basic(input, whole)
    if not advanced:
        raise IndexError("index_put_(): at least one index must be a tensor")
    return view, *_expanded(view, advanced)


def _one_dimensional(index: Any) -> Any:
    """0-d indices as vectors, which broadcast like them."""
    if isinstance(index, TensorBase) and index._meta.ndim == 0 and (
            index._meta.dtype not in (dtypes.bool_, dtypes.uint8)):
        return index.reshape(1)
    return index


def index_put(input: Any, indices: Any, values: Any, accumulate: bool = False) -> Any:
    """The input with values written, or added, where one index tensor a dimension points.

    >>> places = torch.tensor([0, 1]), torch.tensor([1, 0])
    >>> torch.index_put(torch.zeros(2, 2), places, torch.tensor([5., 6.]))
    tensor([[0., 5.],
            [6., 0.]])
    """
    view, where, places = _put_arguments(input, indices, values)
    if view is input and input._meta.contiguous:
        return ops._index_put(input, places, values, where, accumulate)
    result = input.clone()
    return index_put_(result, indices, values, accumulate)


def index_put_(input: Any, indices: Any, values: Any, accumulate: bool = False) -> Any:
    """`index_put` in place."""
    view, where, places = _put_arguments(input, indices, values)
    ops._index_put_(view, places, values, where, accumulate)
    return input
