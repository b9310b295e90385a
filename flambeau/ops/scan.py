"""Scans: cumulative sums, products, extrema, log-sum-exp; differences."""

from __future__ import annotations

import numpy as np

from flambeau.core import dtypes
from flambeau.core.shapes import normalize_dim
from flambeau.ir.graph import Value, constant
from flambeau.ops import primitives as p
from flambeau.ops.primitives import convert
from flambeau.ops.record import Tensor, op
from flambeau.ops.reduce import accumulable
from flambeau.ops.samples import Arr, sample
from flambeau.ops.views import cat


def _samples(low: float = -2.0, high: float = 2.0):
    def samples():
        for shape, dim in (((5,), 0), ((3, 4), 1), ((3, 40), 0), ((2, 17, 3), -2), ((), 0),
                           ((3, 0), 1), ((0, 3), 1)):
            yield sample(Arr(shape, None, low, high), dim)

    return samples


def _copy(x: Value) -> Value:
    return p.stop_copy(x)


def _oracle(accumulate):
    def along(x, axis, **options):
        return accumulate(x, axis, **options) if x.ndim else x

    return along


@op(samples=_samples(), inplace=True, oracle=_oracle(np.cumsum))
def cumsum(input: Tensor, dim: int, *, dtype: object = None):
    """The sum of all elements up to and including each, along dim; integers add up in int64.

    >>> torch.cumsum(torch.tensor([1., 2., 3.]), dim=0)
    tensor([1., 3., 6.])
    """
    x = accumulable(input, dtype)
    at = normalize_dim(dim, x.ndim)
    return p.cumsum(x, at) if x.ndim else _copy(x)


@op(samples=_samples(0.5, 1.5), inplace=True, oracle=_oracle(np.cumprod))
def cumprod(input: Tensor, dim: int, *, dtype: object = None):
    """The product of all elements up to and including each, along dim.

    >>> torch.cumprod(torch.tensor([1, 2, 3, 4]), dim=0)
    tensor([ 1,  2,  6, 24])
    """
    x = accumulable(input, dtype)
    at = normalize_dim(dim, x.ndim)
    return p.cumprod(x, at) if x.ndim else _copy(x)


def _extremum(name: str, x: Value, dim: int, largest: bool) -> tuple[Value, Value]:
    if x.dtype.is_complex:
        raise NotImplementedError(f'"{name}_cpu" not implemented for \'{x.dtype.scalar_name}\'')
    at = normalize_dim(dim, x.ndim)
    if x.ndim == 0:
        return _copy(x), p.expand(constant(0, dtypes.int64, number=False), ())
    plain = convert(x, dtypes.uint8) if x.dtype.kind == "b" else x
    index = p.cumarg(plain, at, largest)
    coords = [index if d == at else d for d in range(x.ndim)]
    return p.lookup(x, coords, x.shape), index


@op(samples=_samples(), returns=("values", "indices"), opmath=False)
def cummax(input: Tensor, dim: int):
    """The largest of all elements up to and including each, along dim, and where it last is.

    >>> torch.cummax(torch.tensor([1., 3., 2., 5.]), dim=0)
    torch.return_types.cummax(
    values=tensor([1., 3., 3., 5.]),
    indices=tensor([0, 1, 1, 3]))
    """
    return _extremum("cummax", input, dim, True)


@op(samples=_samples(), returns=("values", "indices"), opmath=False)
def cummin(input: Tensor, dim: int):
    """The smallest of all elements up to and including each, along dim, and where it last is.

    >>> torch.cummin(torch.tensor([4., 1., 2., 0.]), dim=0)
    torch.return_types.cummin(
    values=tensor([4., 1., 1., 0.]),
    indices=tensor([0, 1, 1, 3]))
    """
    return _extremum("cummin", input, dim, False)


@op(samples=_samples())
def logcumsumexp(input: Tensor, dim: int):
    """log(cumsum(exp(input))) along dim, without overflow.

    >>> torch.logcumsumexp(torch.tensor([0., 0., 1000.]), dim=0)
    tensor([0.0000e+00, 6.9315e-01, 1.0000e+03])
    """
    if input.dtype.kind not in "fc":
        raise NotImplementedError('"logcumsumexp_out_cpu" not implemented for '
                                  f"'{input.dtype.scalar_name}'")
    at = normalize_dim(dim, input.ndim)
    if input.dtype.is_complex:
        return _complex_logcumsumexp(input, at)
    return p.cumlogsumexp(input, at) if input.ndim else _copy(input)


def _complex_logcumsumexp(x: Value, dim: int) -> Value:
    """By doubling: what lies up to 1, 2, 4 ... places before each element joins it."""
    shift, size = 1, x.shape[dim] if x.ndim else 0
    while shift < size:
        early = p.slice_dim(x, dim, 0, 1, shift)
        kept = p.slice_dim(x, dim, 0, 1, size - shift)
        late = p.slice_dim(x, dim, shift, 1, size - shift)
        x = p.boundary(p.cat([early, _log_of_sum(kept, late)], dim))
        shift *= 2
    return _copy(x)


def _log_of_sum(a: Value, b: Value) -> Value:
    """log(exp(a) + exp(b)) of complex numbers, from the one with the larger real part."""
    first = p.ge(p.real(a), p.real(b))
    high, low = p.where(first, a, b), p.where(first, b, a)
    empty = p.eq(p.real(low), p.filled(float("-inf"), p.real(low)))
    gap = p.where(empty, p.zero_like(low), p.sub(low, high))
    return p.where(empty, high, p.add(high, p.log1p(p.exp(gap))))


def _diff_samples():
    yield sample(Arr((5,)))
    yield sample(Arr((3, 4)), 2, 0)
    yield sample(Arr((3, 4)), 1, 1, Arr((3, 2)), Arr((3, 1)))


@op(samples=_diff_samples, promote="match", opmath=False, order="first", grad="SubBackward0")
def diff(input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None,
         append: Tensor | None = None):
    """The n-th differences of neighbours along dim, after joining `prepend` and `append`.

    >>> torch.diff(torch.tensor([1, 4, 9, 16]))
    tensor([3, 5, 7])
    """
    if input.ndim == 0:
        raise RuntimeError("diff expects input to be at least one-dimensional")
    if n < 0:
        raise RuntimeError(f"order must be non-negative but got {n}")
    at = normalize_dim(dim, input.ndim)
    if n == 0:
        return _copy(input)
    x = cat([v for v in (prepend, input, append) if v is not None], at)
    for _ in range(min(n, x.shape[at])):
        size = max(x.shape[at] - 1, 0)
        low, high = (p.slice_dim(x, at, start, 1, size) for start in (0, 1))
        x = p.bitwise_xor(high, low) if x.dtype.kind == "b" else p.sub(high, low)
    return x
