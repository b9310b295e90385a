"""Reductions: sums, products, extrema, moments, logic, norms."""

from __future__ import annotations

import builtins

import numpy as np

from flambeau.core import dtypes
from flambeau.core.dtypes import DType, promote_types
from flambeau.core.shapes import normalize_dim, normalize_dims
from flambeau.core.symbolic import float_of
from flambeau.ir.graph import Value, constant
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.comparison import isfinite
from flambeau.ops.primitives import convert
from flambeau.ops.record import Tensor, op
from flambeau.ops.samples import Arr, sample


def over(low: float = -2.0, high: float = 2.0, several: bool = True, empty: bool = True):
    """Samples of a reduction: all, one dimension, several, kept, 0-d, empty, long."""

    def samples():
        for shape in ((), (5,), (3, 4), (2, 3, 17), (300,)):
            yield sample(Arr(shape, None, low, high))
        yield sample(Arr((3, 4), None, low, high), 1)
        yield sample(Arr((3, 4), None, low, high), 0, keepdim=True)
        yield sample(Arr((2, 3, 17), None, low, high), -1)
        if several:
            yield sample(Arr((2, 3, 17), None, low, high), (0, 2))
        if empty:
            yield sample(Arr((3, 0), None, low, high), 1)

    return samples


def kept(y: Value, x: Value, dims, keepdim: bool) -> Value:
    """The result of a reduction of `x` over dims, with or without dimensions of size 1."""
    if not keepdim:
        return y
    return p.reshape(y, [1 if d in dims else size for d, size in enumerate(x.shape)])


def count_of(x: Value, dims) -> int:
    """How many elements each result is made of."""
    count = 1
    for d in dims:
        count *= x.shape[d]
    return count


def size_constant(count: float, like: Value) -> Value:
    """A number that comes from a size: a parameter of the kernel, not part of it."""
    return p.filled(float_of(count), like)


def accumulable(x: Value, dtype) -> Value:
    """`x` as the dtype in which it adds up and multiplies: as asked for, or int64 for integers."""
    if dtype is not None:
        return convert(x, dtype)
    return convert(x, dtypes.int64) if x.dtype.is_integral else x


@op(samples=over(), grad=lambda call: "SumBackward0" if call._static("dim") is None else
    "SumBackward1", oracle=np.sum)
def sum(input: Tensor, dim: int | tuple | None = None, keepdim: bool = False, *,
        dtype: object = None):
    """The sum over dim (all by default); integers add up in int64.

    >>> torch.sum(torch.tensor([[1, 2], [3, 4]]))
    tensor(10)
    >>> torch.sum(torch.tensor([[1, 2], [3, 4]]), dim=0, keepdim=True)
    tensor([[4, 6]])
    """
    dims = normalize_dims(dim, input.ndim)
    x = accumulable(input, dtype)
    return kept(p.reduce_sum(x, dims), input, dims, keepdim)


@op(samples=over(several=False), grad=lambda call: "ProdBackward0" if call._static("dim") is None
    else "ProdBackward1", oracle=np.prod)
def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: object = None):
    """The product over dim (all by default).

    >>> torch.prod(torch.tensor([[1, 2], [3, 4]]), dim=1)
    tensor([ 2, 12])
    """
    dims = normalize_dims(dim, input.ndim)
    return kept(p.reduce_prod(accumulable(input, dtype), dims), input, dims, keepdim)


@op(samples=over(empty=False), grad=lambda call: "MeanBackward0" if call._static("dim") is None
    else "MeanBackward1", oracle=np.mean)
def mean(input: Tensor, dim: int | tuple | None = None, keepdim: bool = False, *,
         dtype: object = None):
    """The arithmetic mean over dim (all by default).

    >>> torch.mean(torch.tensor([[1., 2.], [3., 4.]]), dim=0)
    tensor([2., 3.])
    """
    x = input if dtype is None else convert(input, dtype)
    if x.dtype.is_integral:
        word = "Input" if dtype is None else "Optional"
        raise RuntimeError(f"mean(): could not infer output dtype. {word} dtype must be either a "
                           f"floating point or complex dtype. Got: {x.dtype.scalar_name}")
    dims = normalize_dims(dim, input.ndim)
    total = p.reduce_sum(x, dims)
    return kept(p.div(total, size_constant(count_of(x, dims), total)), input, dims, keepdim)


def _no_empty(name: str, x: Value, dims, whole: bool = False) -> None:
    if count_of(x, dims) == 0 and x.numel == 0:
        if whole:
            wrong = IndexError if name.startswith("arg") else RuntimeError
            raise wrong(f"{name}(): Expected reduction dim to be specified for input.numel() == 0. "
                        "Specify the reduction dim with the 'dim' argument. (shape "
                        f"{list(x.shape)})")
        dim = next(d for d in dims if x.shape[d] == 0)
        raise IndexError(f"{name}(): Expected reduction dim {dim} to have non-zero size. (shape "
                         f"{list(x.shape)})")


@op(samples=over(empty=False), oracle=np.max)
def amax(input: Tensor, dim: int | tuple | None = (), keepdim: bool = False):
    """The largest value over dim; equal maxima share the gradient.

    >>> torch.amax(torch.tensor([[1., 5.], [3., 2.]]), dim=1)
    tensor([5., 3.])
    """
    dims = normalize_dims(dim, input.ndim)
    _no_empty("amax", input, dims, dim is None or dim == ())
    return kept(p.reduce_max(input, dims), input, dims, keepdim)


@op(samples=over(empty=False), oracle=np.min)
def amin(input: Tensor, dim: int | tuple | None = (), keepdim: bool = False):
    """The smallest value over dim; equal minima share the gradient.

    >>> torch.amin(torch.tensor([[1., 5.], [3., 2.]]), dim=1)
    tensor([1., 2.])
    """
    dims = normalize_dims(dim, input.ndim)
    _no_empty("amin", input, dims, dim is None or dim == ())
    return kept(p.reduce_min(input, dims), input, dims, keepdim)


def _arg(name: str, x: Value, dim, keepdim: bool, largest: bool) -> Value:
    if x.dtype.kind == "b" or x.dtype.is_complex:
        raise RuntimeError(f'"{name}_cpu" not implemented for \'{x.dtype.scalar_name}\'')
    if dim is None:
        _no_empty(name, x, tuple(range(x.ndim)), True)
        flat = p.reduce_arg(x, tuple(range(x.ndim)), largest)
        return kept(flat, x, range(x.ndim), keepdim)
    dims = (normalize_dim(dim, x.ndim),) if x.ndim else ()
    _no_empty(name, x, dims)
    return kept(p.reduce_arg(x, dims, largest), x, dims, keepdim)


@op(samples=over(several=False, empty=False), differentiable=False, oracle=np.argmax)
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False):
    """The index of the first maximum; over all elements, counted row-major, if dim is None.

    >>> torch.argmax(torch.tensor([[1., 5.], [3., 2.]]), dim=1)
    tensor([1, 0])
    """
    return _arg("argmax", input, dim, keepdim, True)


@op(samples=over(several=False, empty=False), differentiable=False, oracle=np.argmin)
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False):
    """The index of the first minimum; over all elements, counted row-major, if dim is None.

    >>> torch.argmin(torch.tensor([[1., 5.], [3., 2.]]), dim=1)
    tensor([0, 1])
    """
    return _arg("argmin", input, dim, keepdim, False)


def _along():
    yield sample(Arr((3, 4)), 1)
    yield sample(Arr((2, 3, 17)), -1, keepdim=True)
    yield sample(Arr((5,)), 0)


def _extremum(x: Value, dim: int, keepdim: bool, largest: bool) -> tuple[Value, Value]:
    at = normalize_dim(dim, x.ndim)
    if x.ndim == 0:
        return x, p.expand(constant(0, dtypes.int64, number=False), ())
    _no_empty("max" if largest else "min", x, (at,))
    index = p.reduce_arg(convert(x, dtypes.uint8) if x.dtype.kind == "b" else x, (at,), largest)
    wide = p.reshape(index, x.shape[:at] + (1,) + x.shape[at + 1:])
    coords = [wide if d == at else d for d in range(x.ndim)]
    values = p.lookup(x, coords, wide.shape)
    if keepdim:
        return values, wide
    return p.reshape(values, index.shape), index


@op(name="max_dim", returns=("values", "indices"), samples=_along, method=False, public=(),
    grad="MaxBackward0", opmath=False)
def max_dim(input: Tensor, dim: int, keepdim: bool = False):
    """The maximum along `dim` and where it first occurs."""
    return _extremum(input, dim, keepdim, True)


@op(name="min_dim", returns=("values", "indices"), samples=_along, method=False, public=(),
    grad="MinBackward0", opmath=False)
def min_dim(input: Tensor, dim: int, keepdim: bool = False):
    """The minimum along `dim` and where it first occurs."""
    return _extremum(input, dim, keepdim, False)


@op(name="max_all", samples=lambda: iter([sample(Arr((3, 4))), sample(Arr(()))]), method=False,
    public=(), grad="MaxBackward1")
def max_all(input: Tensor):
    """The largest element."""
    _no_empty("max", input, range(input.ndim), True)
    return p.reduce_max(input, range(input.ndim))


@op(name="min_all", samples=lambda: iter([sample(Arr((3, 4))), sample(Arr(()))]), method=False,
    public=(), grad="MinBackward1")
def min_all(input: Tensor):
    """The smallest element."""
    _no_empty("min", input, range(input.ndim), True)
    return p.reduce_min(input, range(input.ndim))


def _truth(name: str, prim, doc: str, oracle):
    def body(input: Tensor, dim: int | tuple | None = None, keepdim: bool = False):
        dims = normalize_dims(dim, input.ndim, empty_means_all=False) if dim is not None else (
            tuple(range(input.ndim)))
        result = kept(prim(convert(input, dtypes.bool_), dims), input, dims, keepdim)
        return convert(result, dtypes.uint8) if input.dtype is dtypes.uint8 else result

    body.__name__, body.__doc__ = name, doc
    return op(samples=over(), differentiable=False, oracle=oracle)(body)


all = _truth("all", p.reduce_min, "Are all elements non-zero?", np.all)
any = _truth("any", p.reduce_max, "Is any element non-zero?", np.any)


def _count_samples():
    yield sample(Arr((3, 4), None, 0, 2))
    yield sample(Arr((2, 3, 17), None, 0, 2), -1)
    yield sample(Arr((2, 3, 17), None, 0, 2), (0, 2))
    yield sample(Arr(()))
    yield sample(Arr((3, 0)), 1)


@op(samples=_count_samples, differentiable=False, oracle=np.count_nonzero)
def count_nonzero(input: Tensor, dim: int | tuple | None = None):
    """How many elements are not zero.

    >>> torch.count_nonzero(torch.tensor([[0, 1], [2, 3]]), dim=0)
    tensor([1, 2])
    """
    dims = normalize_dims(dim, input.ndim)
    return p.reduce_sum(convert(convert(input, dtypes.bool_), dtypes.int64), dims)


# --------------------------------------------------------------------------- moments
def _variance(x: Value, dim, correction: float, keepdim: bool) -> tuple[Value, Value]:
    """(variance, mean), both with the reduced dimensions kept as asked."""
    if x.dtype.is_integral:
        raise RuntimeError("std and var only support floating point and complex dtypes")
    dims = normalize_dims(dim, x.ndim)
    count = count_of(x, dims)
    total = p.reduce_sum(x, dims)
    mean_ = p.div(total, size_constant(count, total))
    centred = p.sub(x, p.unreduce(mean_, x.shape, dims))
    if x.dtype.is_complex:  # of |centred|, a real number
        re, im = p.real(centred), p.imag(centred)
        squares = p.reduce_sum(p.add(p.mul(re, re), p.mul(im, im)), dims)
    else:
        squares = p.reduce_sum(p.mul(centred, centred), dims)
    freedom = builtins.max(0.0, count - correction)
    variance = p.div(squares, size_constant(freedom, squares))
    return kept(variance, x, dims, keepdim), kept(mean_, x, dims, keepdim)


def _moment_samples():
    yield sample(Arr((5,)))
    yield sample(Arr((3, 4)), 1)
    yield sample(Arr((2, 3, 17)), (0, 2), correction=0)
    yield sample(Arr((3, 4)), 0, keepdim=True)


@op(samples=_moment_samples)
def var(input: Tensor, dim: int | tuple | None = None, *, correction: float = 1,
        keepdim: bool = False):
    """The variance over dim; divides by N - correction."""
    return _variance(input, dim, correction, keepdim)[0]


@op(samples=_moment_samples)
def std(input: Tensor, dim: int | tuple | None = None, *, correction: float = 1,
        keepdim: bool = False):
    """The standard deviation over dim; divides by N - correction."""
    return p.sqrt(_variance(input, dim, correction, keepdim)[0])


@op(many=True, name="var_mean", samples=_moment_samples, method=False, out=False)
def var_mean(input: Tensor, dim: int | tuple | None = None, *, correction: float = 1,
             keepdim: bool = False):
    """The variance and the mean."""
    return _variance(input, dim, correction, keepdim)


@op(many=True, name="std_mean", samples=_moment_samples, method=False, out=False)
def std_mean(input: Tensor, dim: int | tuple | None = None, *, correction: float = 1,
             keepdim: bool = False):
    """The standard deviation and the mean."""
    variance, mean_ = _variance(input, dim, correction, keepdim)
    return p.sqrt(variance), mean_


# --------------------------------------------------------------------------- norms, logsumexp
def _norm_samples():
    yield sample(Arr((5,)))
    yield sample(Arr((3, 4)), 1, 1)
    yield sample(Arr((3, 4)), 3, (0, 1), True)
    yield sample(Arr((3, 4)), float("inf"), 0)


@op(name="vector_norm", samples=_norm_samples, method=False, public=("linalg",),
    grad="LinalgVectorNormBackward0")
def vector_norm(x: Tensor, ord: float = 2, dim: int | tuple | None = None, keepdim: bool = False,
                *, dtype: object = None):
    """The vector norm (sum |x|^ord)^(1/ord) over dim."""
    if dtype is not None:
        _need_norm_dtype(x.dtype, dtype)
        x = convert(x, dtype)
    if x.dtype.is_integral:
        raise RuntimeError("linalg.vector_norm: Expected a floating point or complex tensor as "
                           f"input. Got {x.dtype.scalar_name}")
    dims = normalize_dims(dim, x.ndim)
    size = p.abs_(x)
    if (ord < 0 or ord == float("inf")) and not count_of(x, dims):
        raise RuntimeError(f"linalg.vector_norm cannot compute the {ord} norm on an empty tensor "
                           "because the operation does not have an identity")
    if ord == float("inf"):
        result = p.reduce_max(size, dims)
    elif ord == float("-inf"):
        result = p.reduce_min(size, dims)
    elif ord == 0:
        result = how_many(size, dims)
    elif ord == 1:
        result = p.reduce_sum(size, dims)
    elif ord == 2:
        result = p.sqrt(p.reduce_sum(p.mul(size, size), dims))
    else:
        total = p.reduce_sum(p.pow_(size, p.filled(ord, size)), dims)
        result = p.pow_(total, p.filled(1 / ord, total))
    return kept(result, x, dims, keepdim)


def how_many(x: Value, dims) -> Value:
    """How many elements over dims are not zero, in their own dtype: the norm of order 0."""
    return p.reduce_sum(convert(p.ne(x, p.zero_like(x)), x.dtype), dims)


def _need_norm_dtype(own: DType, wanted: DType) -> None:
    """Raise unless a norm of tensors of dtype `own` may be computed in `wanted`."""
    if wanted.is_integral:
        raise RuntimeError("linalg.vector_norm: dtype should be floating point or complex, but got "
                           f"{wanted.scalar_name}")
    if own.is_complex != wanted.is_complex and not own.is_integral:
        kind = "complex for complex" if own.is_complex else "floating point for real"
        raise RuntimeError(f"linalg.vector_norm: dtype should be {kind} inputs, but got "
                           f"{wanted.scalar_name}")
    if not own.is_integral and promote_types(own, wanted) is not wanted:
        raise RuntimeError(f"linalg.vector_norm: the dtype of the input ({own.scalar_name}) should "
                           "be convertible without narrowing to the specified dtype "
                           f"({wanted.scalar_name})")


@vector_norm.vjp
def vector_norm_vjp(g, output, x, ord, dim, keepdim, dtype):
    """x |x|^(ord-2) / norm^(ord-1), and 0 at the origin, where the second derivative of orders up
    to 2 is NaN, as in PyTorch: it has no limit."""
    if dtype is not None:
        found = vector_norm_vjp(g, output, convert(x, dtype), ord, dim, keepdim, None)
        return convert(found, x.dtype)
    dims = normalize_dims(dim, x.ndim)

    def wide(y: Value) -> Value:
        flat = p.reshape(y, [s for d, s in enumerate(x.shape) if d not in dims])
        return p.unreduce(flat, x.shape, dims)

    g, norm = wide(g), wide(output)
    size, zero = p.abs_(x), p.zero_like(norm)
    if ord == 0:
        return p.zero_like(x)
    if ord in (float("inf"), float("-inf")):
        hit = convert(p.eq(size, norm), size.dtype)
        hits = p.unreduce(p.reduce_sum(hit, dims), x.shape, dims)
        return p.mul(p.sign(x), convert(p.mul(hit, p.div(g, hits)), x.dtype))
    if ord == 1:
        return p.mul(p.sign(x), convert(g, x.dtype))
    nothing = p.eq(norm, zero)
    safe = norm if ord <= 2 else p.where(nothing, p.filled(1, norm), norm)
    if ord == 2:
        unit = p.where(nothing, p.zero_like(x), p.div(x, convert(norm, x.dtype)))
        return p.mul(unit, convert(g, x.dtype))
    ratio = p.where(nothing, zero, p.div(size, safe))
    flat = p.eq(ratio, zero)
    power = p.pow_(p.where(flat, p.filled(1, ratio), ratio), p.filled(ord - 1, ratio))
    power = p.where(flat, zero, power)
    return p.mul(p.sign(x), convert(p.mul(g, power), x.dtype))


@op(samples=_along)
def logsumexp(input: Tensor, dim: int | tuple, keepdim: bool = False):
    """log(sum(exp(input))) over dim, shifted by the maximum so that exp never overflows.

    >>> torch.logsumexp(torch.tensor([1000., 1000.]), dim=0)
    tensor(1000.6932)
    """
    x = e.default_float(input)
    dims = normalize_dims(dim, x.ndim)
    top = p.stop_gradient(p.reduce_max(p.real(x) if x.dtype.is_complex else x, dims))
    finite = convert(p.where(isfinite(top), top, p.zero_like(top)), x.dtype)
    total = p.reduce_sum(p.exp(p.sub(x, p.unreduce(finite, x.shape, dims))), dims)
    return kept(p.add(p.log(total), finite), x, dims, keepdim)
