"""Operations that leave masked elements out, as in torch.masked: `mask` says which elements count.

Lives here: functions, each of which puts the value that changes nothing where the mask is false;
`MaskedTensor`, a tensor that carries its mask (tensor.py), and what operations make of it
(operations.py).
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any

from flambeau.core import dtypes
from flambeau.core.shapes import normalize_dims
from flambeau.masked.tensor import (
    MaskedTensor,
    as_masked_tensor,
    is_masked_tensor,
    masked_tensor,
)
from flambeau.tensor import Tensor, creation, sorting
from flambeau.tensor.functions import ops
from flambeau.tensor.method_docs import shown

__all__ = ["amax", "amin", "argmax", "argmin", "cumprod", "cumsum", "log_softmax", "logaddexp",
           "logsumexp", "mean", "median", "norm", "normalize", "prod", "softmax", "softmin", "std",
           "sum", "var", "MaskedTensor", "as_masked_tensor", "is_masked_tensor", "masked_tensor"]


def _lowest(dtype: Any) -> float:
    return -math.inf if dtype.is_floating_point or dtype.is_complex else dtypes.iinfo(dtype).min


def _highest(dtype: Any) -> float:
    return math.inf if dtype.is_floating_point else dtypes.iinfo(dtype).max


def _filled(input: Tensor, mask: Tensor | None, value: float) -> Tensor:
    """The input with `value` where the mask is false."""
    if mask is None:
        return input
    mask = _fitted(mask, input)
    fill = creation.tensor(value, dtype=input.dtype, device=input.device)
    return ops.where(mask, input, fill)


def _fitted(mask: Tensor, input: Tensor) -> Tensor:
    """The mask as bool, in the shape of the input.

    Raises:
        IndexError: the mask has more dimensions.
    """
    if mask.ndim > input.ndim:
        raise IndexError("_input_mask expected broadcastable mask (got mask dimensionality higher "
                         "than of the input)")
    mask = mask if mask.dtype is dtypes.bool_ else mask.to(dtypes.bool_)
    return ops.expand(mask, tuple(input.shape))


def _dims(input: Tensor, dim: Any) -> tuple[int, ...]:
    """The dimensions that are reduced: all, if none is named."""
    if dim is None or dim == ():
        return tuple(range(input.ndim))
    return normalize_dims(tuple(dim) if isinstance(dim, (list, tuple)) else dim, input.ndim)


def _summing_dtype(input: Tensor, dtype: Any) -> Any:
    if dtype is not None:
        return dtype
    return dtypes.int64 if input.dtype.is_integral else input.dtype


# -- reductions ----------------------------------------------------------------------------------
def sum(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None,
        mask: Tensor | None = None) -> Tensor:
    """The sum over `dim` of the elements that count.

    >>> torch.masked.sum(torch.tensor([1., 9., 3.]), mask=torch.tensor([True, False, True]))
    tensor(4.)
    """
    dtype = _summing_dtype(input, dtype)
    if dtype is not input.dtype:
        input = input.to(dtype)
    return ops.sum(_filled(input, mask, 0), _dims(input, dim), keepdim, dtype=dtype)


def prod(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None,
         mask: Tensor | None = None) -> Tensor:
    """The product over `dim` of the elements that count.

    >>> torch.masked.prod(torch.tensor([2., 9., 3.]), mask=torch.tensor([True, False, True]))
    tensor(6.)
    """
    dtype = _summing_dtype(input, dtype)
    result = _filled(input.to(dtype), mask, 1)
    dims = _dims(input, dim) if input.ndim or dim is None or dim == () else (0,)
    for d in sorted(dims, reverse=True):
        result = ops.prod(result, d, True)
    return result if keepdim else result.reshape(_kept(input, dim))


def _kept(input: Tensor, dim: Any) -> tuple[int, ...]:
    """The shape that a reduction over `dim` leaves."""
    gone = _dims(input, dim)
    return tuple(size for d, size in enumerate(input.shape) if d not in gone)


def _extremum(name: str, doc: str, neutral: Callable) -> Callable:
    def extremum(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None,
                 mask: Tensor | None = None) -> Tensor:
        input = input if dtype is None else input.to(dtype)
        filled = _filled(input, mask, neutral(input.dtype))
        return getattr(ops, name)(filled, _dims(input, dim), keepdim)

    extremum.__name__ = extremum.__qualname__ = name
    extremum.__doc__ = shown(f"masked.{name}", doc)
    return extremum


amax = _extremum("amax", "The largest element over `dim` that counts.", _lowest)
amin = _extremum("amin", "The smallest element over `dim` that counts.", _highest)


def argmax(input: Tensor, dim: int | None = None, *, keepdim: bool = False, dtype: Any = None,
           mask: Tensor | None = None) -> Tensor:
    """Where along `dim` the largest element that counts is, as a number of the input's dtype.

    >>> torch.masked.argmax(torch.tensor([1., 9., 3.]), mask=torch.tensor([True, False, True]))
    tensor(2.)
    """
    input = input if dtype is None else input.to(dtype)
    return ops.argmax(_filled(input, mask, _lowest(input.dtype)), dim, keepdim).to(input.dtype)


def argmin(input: Tensor, dim: int | None = None, *, keepdim: bool = False, dtype: Any = None,
           mask: Tensor | None = None) -> Tensor:
    """Where along `dim` the smallest element that counts is, as a number of the input's dtype.

    >>> torch.masked.argmin(torch.tensor([1., -9., 3.]), mask=torch.tensor([True, False, True]))
    tensor(0.)
    """
    input = input if dtype is None else input.to(dtype)
    return ops.argmin(_filled(input, mask, _highest(input.dtype)), dim, keepdim).to(input.dtype)


def _counted(input: Tensor, dim: Any, keepdim: bool, mask: Tensor | None, dtype: Any) -> Tensor:
    """How many elements count."""
    ones = creation.ones(tuple(input.shape), dtype=dtype, device=input.device)
    return ops.sum(_filled(ones, mask, 0), _dims(input, dim), keepdim, dtype=dtype)


def mean(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None,
         mask: Tensor | None = None) -> Tensor:
    """The mean over `dim` of the elements that count; NaN where none does.

    >>> torch.masked.mean(torch.tensor([1., 9., 3.]), mask=torch.tensor([True, False, True]))
    tensor(2.)
    """
    dtype = input.dtype if dtype is None else dtype
    count = _counted(input, dim, keepdim, mask, dtypes.int64)
    return sum(input, dim, keepdim=keepdim, dtype=dtype, mask=mask) / count


def median(input: Tensor, dim: int = -1, *, keepdim: bool = False, dtype: Any = None,
           mask: Tensor | None = None) -> Tensor:
    """The lower median along `dim` of the elements that count; NaN where none does.

    >>> torch.masked.median(torch.tensor([1., 9., 3.]), 0, mask=torch.tensor([True, False, True]))
    tensor(1.)
    """
    input = input if dtype is None else input.to(dtype)
    if not input.dtype.is_floating_point:
        if mask is not None and not bool(ops.all(_fitted(mask, input))):
            raise ValueError("masked median expects no fully masked out rows if dtype is not "
                             "floating point")
        return sorting.median(input, dim, keepdim)[0]
    return sorting.nanmedian(_filled(input, mask, math.nan), dim, keepdim)[0]


def logsumexp(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None,
              mask: Tensor | None = None) -> Tensor:
    """log(sum(exp(x))) over `dim` of the elements that count.

    >>> x, mask = torch.tensor([0., 9., 0.]), torch.tensor([True, False, True])
    >>> torch.masked.logsumexp(x, 0, mask=mask)
    tensor(0.6931)
    """
    dtype = input.dtype if dtype is None else dtype
    return ops.logsumexp(_filled(input, mask, _lowest(input.dtype)), _dims(input, dim),
                         keepdim).to(dtype)


def norm(input: Tensor, ord: float | None = 2.0, dim: Any = None, *, keepdim: bool = False,
         dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The vector norm of order `ord` over `dim` of the elements that count.

    >>> torch.masked.norm(torch.tensor([3., 9., 4.]), 2, mask=torch.tensor([True, False, True]))
    tensor(5.)
    """
    order = 2.0 if ord is None else float(ord)
    fill = math.inf if order == -math.inf else 0
    input = input if dtype is None else input.to(dtype)
    return ops.vector_norm(_filled(input, mask, fill), order, _dims(input, dim), keepdim,
                           dtype=dtype)


def _moment(input: Tensor, dim: Any, unbiased: bool | None, correction: float | None,
            keepdim: bool, dtype: Any, mask: Tensor | None, root: bool) -> Tensor:
    if unbiased is not None and correction is not None:
        raise RuntimeError("Only one of unbiased and correction may be given.")
    correction = correction if correction is not None else int(unbiased is not False)
    exact = input.dtype.is_floating_point or input.dtype.is_complex
    dtype = dtype or (input.dtype if exact else dtypes.float32)
    x = input if exact else input.to(dtypes.float32)
    real = x.dtype.to_real() if x.dtype.is_complex else x.dtype
    count = _counted(input, dim, True, mask, real)
    gap = x - sum(x, dim, keepdim=True, mask=mask) / count
    total = sum(ops.abs(gap) * ops.abs(gap) if gap.dtype.is_complex else gap * gap, dim,
                keepdim=True, mask=mask)
    variance = total / ops.clamp(count - correction, min=0)
    variance = variance if keepdim else variance.reshape(_kept(input, dim))
    variance = variance.to(dtype)
    return ops.sqrt(variance) if root else variance


def var(input: Tensor, dim: Any = None, unbiased: bool | None = None, *,
        correction: float | None = None, keepdim: bool = False, dtype: Any = None,
        mask: Tensor | None = None) -> Tensor:
    """The variance over `dim` of the elements that count.

    >>> torch.masked.var(torch.tensor([1., 9., 3.]), mask=torch.tensor([True, False, True]))
    tensor(2.)
    """
    return _moment(input, dim, unbiased, correction, keepdim, dtype, mask, False)


def std(input: Tensor, dim: Any = None, unbiased: bool | None = None, *,
        correction: float | None = None, keepdim: bool = False, dtype: Any = None,
        mask: Tensor | None = None) -> Tensor:
    """The standard deviation over `dim` of the elements that count.

    >>> torch.masked.std(torch.tensor([1., 9., 3.]), mask=torch.tensor([True, False, True]))
    tensor(1.4142)
    """
    return _moment(input, dim, unbiased, correction, keepdim, dtype, mask, True)


# -- along a dimension ---------------------------------------------------------------------------
def cumsum(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """Running sums along `dim` of the elements that count.

    >>> torch.masked.cumsum(torch.tensor([1., 9., 3.]), 0, mask=torch.tensor([True, False, True]))
    tensor([1., 1., 4.])
    """
    dtype = dtype or input.dtype
    return ops.cumsum(_filled(input.to(dtype), mask, 0), dim).to(dtype)


def cumprod(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """Running products along `dim` of the elements that count.

    >>> torch.masked.cumprod(torch.tensor([2., 9., 3.]), 0, mask=torch.tensor([True, False, True]))
    tensor([2., 2., 6.])
    """
    dtype = dtype or input.dtype
    return ops.cumprod(_filled(input.to(dtype), mask, 1), dim).to(dtype)


def softmax(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim` over the elements that count.

    >>> torch.masked.softmax(torch.tensor([0., 9., 0.]), 0, mask=torch.tensor([True, False, True]))
    tensor([0.5000, 0.0000, 0.5000])
    """
    input = input if dtype is None else input.to(dtype)
    return ops.softmax(_filled(input, mask, _lowest(input.dtype)), dim)


def log_softmax(input: Tensor, dim: int, *, dtype: Any = None,
                mask: Tensor | None = None) -> Tensor:
    """x - log(sum(exp(x))) along `dim` over the elements that count.

    >>> x, mask = torch.tensor([0., 9., 0.]), torch.tensor([True, False, True])
    >>> torch.masked.log_softmax(x, 0, mask=mask)
    tensor([-0.6931,    -inf, -0.6931])
    """
    input = input if dtype is None else input.to(dtype)
    return ops.log_softmax(_filled(input, mask, _lowest(input.dtype)), dim)


def softmin(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """exp(-x) / sum(exp(-x)) along `dim` over the elements that count.

    >>> torch.masked.softmin(torch.tensor([0., 9., 0.]), 0, mask=torch.tensor([True, False, True]))
    tensor([0.5000, 0.0000, 0.5000])
    """
    input = input if dtype is None else input.to(dtype)
    return ops.softmin(_filled(input, mask, _highest(input.dtype)), dim)


def normalize(input: Tensor, ord: float, dim: int, *, eps: float = 1e-12, dtype: Any = None,
              mask: Tensor | None = None) -> Tensor:
    """The elements that count over max(their norm along `dim`, eps); 0 elsewhere.

    >>> x, mask = torch.tensor([3., 9., 4.]), torch.tensor([True, False, True])
    >>> torch.masked.normalize(x, 2, 0, mask=mask)
    tensor([0.6000, 0.0000, 0.8000])
    """
    size = norm(input, ord, dim, keepdim=True, dtype=dtype, mask=mask)
    input = input if dtype is None else input.to(dtype)
    return _filled(input, mask, 0) / ops.clamp(size, min=eps)


def logaddexp(input: Tensor, other: Tensor, *, dtype: Any = None,
              input_mask: Tensor | None = None, other_mask: Tensor | None = None) -> Tensor:
    """log(exp(a) + exp(b)); elements that do not count add nothing.

    >>> x, mask = torch.tensor([0., 1.]), torch.tensor([True, False])
    >>> torch.masked.logaddexp(x, x, input_mask=mask, other_mask=mask)
    tensor([0.6931,   -inf])
    """
    dtype = input.dtype if dtype is None else dtype
    low = -math.inf
    return ops.logaddexp(_filled(input, input_mask, low), _filled(other, other_mask, low)).to(dtype)


# -- masked tensors ------------------------------------------------------------------------------
def _taking_masked(function: Callable) -> Callable:
    """The function for masked tensors too: their mask is the default."""

    @functools.wraps(function)
    def take(input: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(input, MaskedTensor):
            if kwargs.get("mask") is None:
                kwargs["mask"] = input.get_mask()
            input = input.get_data()
        return function(input, *args, **kwargs)

    return take


for _function in __all__[:__all__.index("MaskedTensor")]:
    if _function != "logaddexp":  # takes two masks
        globals()[_function] = _taking_masked(globals()[_function])

importlib.import_module("flambeau.masked.operations")
