"""Built on sorting: functions with overloaded arguments, or results of data-dependent shape."""

from __future__ import annotations

import math
from typing import Any

from flambeau.core import dtypes
from flambeau.core.arguments import need_tensor
from flambeau.core.device import META
from flambeau.tensor import tape
from flambeau.tensor.functions import ops
from flambeau.tensor.meta import TensorBase

__all__ = ["median", "nanmedian", "quantile", "nanquantile", "unique", "unique_consecutive"]


def median(input: Any, dim: Any = None, keepdim: bool = False, *, out: Any = None) -> Any:
    """The lower of the middle elements; with `dim` the (values, indices) along it. NaN if there is
    one.

    >>> torch.median(torch.tensor([3., 1., 2., 4.]))
    tensor(2.)
    >>> torch.median(torch.tensor([[3., 1., 2.]]), dim=1)
    torch.return_types.median(
    values=tensor([2.]),
    indices=tensor([2]))
    """
    if dim is None:
        return ops.median_all(input)
    found = ops.median_dim(input, dim, keepdim)
    return found if out is None else _into(found, out)


def nanmedian(input: Any, dim: Any = None, keepdim: bool = False, *, out: Any = None) -> Any:
    """The median of what is not NaN.

    >>> torch.nanmedian(torch.tensor([3., float("nan"), 1.]))
    tensor(1.)
    """
    if dim is None:
        return ops.nanmedian_all(input)
    found = ops.nanmedian_dim(input, dim, keepdim)
    return found if out is None else _into(found, out)


def _into(found: Any, out: Any) -> Any:
    for target, result in zip(out, found, strict=True):
        target.resize_(result.shape).copy_(result)
    return out


def _quantile(name: str, input: Any, q: Any, dim: Any, keepdim: bool, interpolation: str, out: Any,
              ignore_nan: bool) -> Any:
    need_tensor(name, "input", input)
    from flambeau.tensor.creation import tensor

    if input.dtype not in (dtypes.float32, dtypes.float64):
        raise RuntimeError(f"{name}() input tensor must be either float or double dtype")
    if interpolation not in ("linear", "lower", "higher", "midpoint", "nearest"):
        raise RuntimeError(f"{name}() interpolation must be one of linear, lower, higher, midpoint "
                           f"or nearest, but got {interpolation}")
    if not isinstance(q, TensorBase):
        if not 0 <= q <= 1:
            raise RuntimeError(f"{name}() q must be in the range [0, 1] but got {q}")
        q = tensor(q, dtype=dtypes.float64, device=input.device)
    else:
        if q.ndim > 1:
            raise RuntimeError(f"{name}() q must be a scalar or 1D tensor")
        if q.dtype is not input.dtype:
            raise RuntimeError(f"{name}() q tensor must be same dtype as the input tensor")
        if q.device is not META and not bool(((q >= 0) & (q <= 1)).all()):
            raise RuntimeError(f"{name}() q values must be in the range [0, 1]")
    if input.numel() == 0:
        raise RuntimeError(f"{name}() input tensor must be non-empty")
    found = ops._quantile(input, q, dim, keepdim, interpolation, ignore_nan)
    return found if out is None else out.resize_(found.shape).copy_(found)


def quantile(input: Any, q: Any, dim: int | None = None, keepdim: bool = False, *,
             interpolation: str = "linear", out: Any = None) -> Any:
    """The values below which the fractions `q` of the elements along dim lie.

    Args:
        q: a number, or a vector of numbers in [0, 1] (its dimension comes first in the result).
        interpolation: "linear", "lower", "higher", "midpoint" or "nearest" between neighbours.

    >>> torch.quantile(torch.tensor([0., 1., 2., 10.]), torch.tensor([0.25, 0.5]))
    tensor([0.7500, 1.5000])
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation, out, False)


def nanquantile(input: Any, q: Any, dim: int | None = None, keepdim: bool = False, *,
                interpolation: str = "linear", out: Any = None) -> Any:
    """`quantile` of what is not NaN.

    >>> torch.nanquantile(torch.tensor([3., float("nan"), 1.]), 0.5)
    tensor(2.)
    """
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, out, True)


# ---------------------------------------------------------------------- distinct values
def unique(input: Any, sorted: bool = True, return_inverse: bool = False,
           return_counts: bool = False, dim: int | None = None) -> Any:
    """The distinct elements in order; with `dim` the distinct slices along it.

    Returns:
        The distinct elements; then, if asked for, for every element the index of its like among
        them, and how often each occurs.

    >>> torch.unique(torch.tensor([3, 1, 3, 2]), return_counts=True)
    (tensor([1, 2, 3]), tensor([1, 1, 2]))
    """
    need_tensor("unique", "input", input)
    flat = input.detach().reshape(-1) if dim is None else _rows(input.detach(), dim)
    order = _row_order(flat)
    new = _is_new(flat[order])
    what = "_unique2" if dim is None else "unique_dim"
    return _distinct(what, input, flat, order, new, return_inverse, return_counts, dim)


def unique_consecutive(input: Any, return_inverse: bool = False, return_counts: bool = False,
                       dim: int | None = None) -> Any:
    """Each run of equal elements (of equal slices along `dim`) as one. Returns as `unique`.

    >>> torch.unique_consecutive(torch.tensor([1, 1, 2, 1]))
    tensor([1, 2, 1])
    """
    need_tensor("unique_consecutive", "input", input)
    flat = input.detach().reshape(-1) if dim is None else _rows(input.detach(), dim)
    return _distinct("unique_consecutive", input, flat, None, _is_new(flat), return_inverse,
                     return_counts, dim)


def unique_method(self: Any, sorted: bool = True, return_inverse: bool = False,
                  return_counts: bool = False, dim: int | None = None) -> Any:
    """The distinct elements, as `torch.unique`."""
    return unique(self, sorted, return_inverse, return_counts, dim)


def unique_consecutive_method(self: Any, return_inverse: bool = False, return_counts: bool = False,
                              dim: int | None = None) -> Any:
    """Each run of equal elements as one, as `torch.unique_consecutive`."""
    return unique_consecutive(self, return_inverse, return_counts, dim)


def _rows(input: Any, dim: int) -> Any:
    moved = input.movedim(dim, 0)
    return moved.reshape(moved.shape[0], math.prod(moved.shape[1:]))


def _row_order(flat: Any) -> Any:
    """The permutation that sorts a vector, or the rows of a matrix lexicographically."""
    if flat.ndim == 1:
        return ops.argsort(flat)
    from flambeau.tensor.creation import arange

    order = arange(flat.shape[0], device=flat.device)
    for column in range(flat.shape[1] - 1, -1, -1):  # stable: the last column counts least
        order = order[ops.argsort(flat[order, column])]
    return order


def _is_new(flat: Any) -> Any:
    if flat.ndim == 2 and flat.shape[1] and flat.shape[0]:
        return ops._new_rows(flat)
    if flat.ndim == 1:
        return ops._new_in_order(flat)
    if flat.shape[0]:
        raise RuntimeError("There are 0 sized dimensions, and they aren't selected, so unique "
                           f"cannot be applied: the slices have shape {[*flat.shape[1:]]}")
    return ops._new_in_order(flat.reshape(-1))


def _distinct(what: str, input: Any, flat: Any, order: Any, new: Any, return_inverse: bool,
              return_counts: bool, dim: int | None) -> Any:
    from flambeau.tensor.compress import nonzero_positions
    from flambeau.tensor.creation import empty

    size = flat.shape[0]
    first = nonzero_positions(new)
    chosen = flat[first if order is None else order[first]]
    if dim is None:
        values = chosen
    else:
        moved = input.detach().movedim(dim, 0)
        values = chosen.reshape(chosen.shape[0], *moved.shape[1:]).movedim(0, dim)
    results = [tape.underivable(what, values, input)]
    if return_inverse:
        group = ops.cumsum(new, 0) - 1
        if order is None:
            inverse = group
        else:
            inverse = empty(size, dtype=dtypes.int64, device=flat.device)
            inverse[order] = group
        results.append(inverse.reshape(input.shape) if dim is None else inverse)
    if return_counts:
        end = empty(first.shape[0] + 1, dtype=dtypes.int64, device=flat.device)
        end[:-1] = first
        end[-1] = size
        results.append(end[1:] - end[:-1])
    return results[0] if len(results) == 1 else tuple(results)
