"""Operations whose result's shape depends on the data: nonzero, masked_select."""

from __future__ import annotations

import functools
from typing import Any

from flambeau.compiler.compress import compress_kernel
from flambeau.compiler.target import host
from flambeau.core import dtypes
from flambeau.core.arguments import need_tensor
from flambeau.core.device import META
from flambeau.runtime.launch import INTEGER, Program
from flambeau.runtime.loader import load_kernel
from flambeau.tensor import dispatch, launches
from flambeau.tensor.functions import ops
from flambeau.tensor.meta import contiguous_meta

__all__ = ["nonzero_positions", "nonzero", "masked_select", "argwhere",
           "nonzero_columns"]


@functools.cache
def _program() -> Program:
    address = load_kernel(*compress_kernel(host()))
    return Program.build([(address, 2, 1)], [(2, 0, 0), (3, 1, 0), (4, 2, 0)],
                         [INTEGER] * 3, [0] * 5)


def nonzero_positions(tensor: Any) -> Any:
    """The row-major positions of the non-zero elements, int64."""
    if tensor._level is not None:
        raise RuntimeError("vmap: We do not support batching operators that can output dynamic "
                           "shape. Attempted to vmap over nonzero (or indexing with a mask, "
                           "masked_select, unique): how many elements there are would differ "
                           "between examples. Use torch.where.")
    if tensor.device is META:
        raise NotImplementedError("nonzero (also masked_select, unique, an index that is a mask) "
                                  "cannot run on a meta tensor: the shape of the result depends on "
                                  "the elements, and there are none. Use torch.where, or a tensor "
                                  "with data.")
    if dispatch.observers:
        dispatch.observers[-1].read(tensor)
    mask = tensor if tensor.dtype is dtypes.bool_ else ops.ne(tensor.detach(), 0)
    mask = mask.contiguous()
    count = ops.count_nonzero(mask).item() if mask.numel() else 0
    out = launches.fresh(contiguous_meta(dtypes.int64, (count,)))
    if count:
        launches.settle()
        launches.late.at_once(_program().address, mask._ptr, out._ptr, mask.numel())
    return out


def nonzero_columns(mask: Any) -> list:
    """For each dimension of `mask`, the positions of its true elements (row-major order)."""
    flat = nonzero_positions(mask)
    columns, step = [], 1
    for size in reversed(mask.shape):
        column = flat if step == 1 else ops.floor_divide(flat, step)
        columns.append(ops.remainder(column, size) if size else column)
        step *= size
    return columns[::-1]


def nonzero(input: Any, *, out: Any = None, as_tuple: bool = False) -> Any:
    """Where elements are not zero: an (n, dims) int64 tensor, or one tensor per dimension.

    >>> torch.nonzero(torch.tensor([[0, 1], [2, 0]]))
    tensor([[0, 1],
            [1, 0]])
    """
    need_tensor("nonzero", "input", input)
    if input.ndim == 0:
        columns = nonzero_columns(input.reshape(1))
        return tuple(columns) if as_tuple else columns[0].reshape(-1, 1)[:, :0]
    columns = nonzero_columns(input)
    if as_tuple:
        return tuple(columns)
    result = ops.stack(columns, 1)
    return result if out is None else out.resize_(result.shape).copy_(result)


def argwhere(input: Any) -> Any:
    """The indices of the non-zero elements, one row each.

    >>> torch.argwhere(torch.tensor([[0, 1], [2, 0]]))
    tensor([[0, 1],
            [1, 0]])
    """
    return nonzero(input)


def masked_select(input: Any, mask: Any, *, out: Any = None) -> Any:
    """The elements where `mask` is True, as a vector.

    >>> torch.masked_select(torch.tensor([1, 2, 3]), torch.tensor([True, False, True]))
    tensor([1, 3])
    """
    need_tensor("masked_select", "input", input)
    need_tensor("masked_select", "mask", mask)
    from flambeau.core.shapes import broadcast_shapes

    if mask.dtype is not dtypes.bool_:
        raise RuntimeError("masked_select: expected BoolTensor for mask")
    shape = broadcast_shapes(tuple(input.shape), tuple(mask.shape)) or (1,)
    if out is not None:
        dispatch.check_no_self_overlap(out)
        dispatch.check_no_overlap((input, mask), out)
    result = ops.expand(input, shape)[ops.expand(mask, shape)]
    return result if out is None else out.resize_(result.shape).copy_(result)
