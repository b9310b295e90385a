"""Distances and similarities of vectors."""

from __future__ import annotations

import math

from flambeau.core import dtypes
from flambeau.core.shapes import normalize_dim
from flambeau.ir.graph import Value, constant
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.activation import BOTH
from flambeau.ops.checks import no_bool, one_dtype
from flambeau.ops.creation import before_row, growing_row
from flambeau.ops.matmul import product
from flambeau.ops.primitives import convert
from flambeau.ops.primitives.joint import joint
from flambeau.ops.record import Tensor, dtypes_default, op
from flambeau.ops.reduce import how_many
from flambeau.ops.samples import Arr, sample


def _floats(a: Value, b: Value, *rest: object) -> None:
    """cosine_similarity is one of few functions that do not take integers."""
    if a.dtype.is_integral and b.dtype.is_integral:
        raise RuntimeError("expected common dtype to be floating point, yet common dtype is "
                           f"{a.dtype.scalar_name}; convert one input with .to(torch.float32)")


def _similarity_samples():
    yield sample(Arr((3, 4)), Arr((3, 4)))
    yield sample(Arr((2, 3, 17)), Arr((1, 3, 17)), dim=-1)
    yield sample(Arr((3, 4)), Arr((3, 4)), dim=0, eps=1e-3)  # below eps the gradient is not exact


@op(promote="match", out=False, method=False, public=BOTH, samples=_similarity_samples,
    grad="SumBackward1", check=_floats)
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8):
    """<x1, x2> / (max(|x1|, eps) max(|x2|, eps)) along `dim`.

    >>> a, b = torch.tensor([[1., 0.], [1., 1.]]), torch.tensor([[0., 1.], [1., 1.]])
    >>> torch.cosine_similarity(a, b)
    tensor([0.0000, 1.0000])
    """
    a, b = e.broadcast(x1, x2)
    at = normalize_dim(dim, a.ndim)

    def unit(x: Value) -> Value:
        square = p.reduce_sum(p.mul(x, x), (at,) if x.ndim else ())
        zero = p.eq(square, p.zero_like(square))  # where the root has no gradient
        root = p.sqrt(p.where(zero, e.like(1, square), square))
        norm = p.where(zero, p.zero_like(root), root)
        lift = p.sub(p.maximum(norm, e.like(eps, norm)), norm)
        norm = p.add(norm, p.stop_gradient(lift))  # the limit does not change the gradient
        return p.div(x, p.unreduce(norm, x.shape, (at,)))

    return p.reduce_sum(p.mul(unit(a), unit(b)), (at,) if a.ndim else ())


def _distance_samples():
    yield sample(Arr((3, 4)), Arr((3, 4)))
    yield sample(Arr((2, 3, 5)), Arr((5,)), 1.0, keepdim=True)
    yield sample(Arr((3, 4)), Arr((3, 4)), 3.0)


def distance(a: Value, b: Value, degree: float, eps: float) -> Value:
    """(sum |a - b + eps|^degree)^(1 / degree) over the last dimension."""
    gap = e.sub(a, b)  # of integers, as PyTorch: those without a sign wrap around
    if gap.dtype.is_integral:
        gap = convert(gap, dtypes_default())
    gap = p.add(gap, e.like(eps, gap))
    last = (gap.ndim - 1,) if gap.ndim else ()
    size = p.abs_(gap)
    if degree == 2:
        part = size if gap.dtype.is_complex else gap
        return p.sqrt(p.reduce_sum(p.mul(part, part), last))
    if degree == 1:
        return p.reduce_sum(size, last)
    if degree == math.inf:
        return p.reduce_max(size, last)
    if degree == 0:
        return how_many(size, last)
    total = p.reduce_sum(p.pow_(size, e.like(degree, size)), last)
    return p.pow_(total, e.like(1 / degree, total))


@op(promote="match", method=False, out=False, public=BOTH, samples=_distance_samples,
    grad="NormBackward1", check=no_bool)
def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6,
                      keepdim: bool = False):
    """The p-norm of x1 - x2 + eps along the last dimension.

    >>> torch.pairwise_distance(torch.tensor([[0., 0.]]), torch.tensor([[3., 4.]]))
    tensor([5.0000])
    """
    result = distance(x1, x2, p, eps)
    return _kept_last(result) if keepdim else result


def _kept_last(x: Value) -> Value:
    return p.reshape(x, (*x.shape, 1))


# --------------------------------------------------------------------------- all pairs
def _pdist_samples():
    for degree in (2.0, 1.0, 3.0, math.inf):
        yield sample(Arr((5, 4)), degree)
    yield sample(Arr((1, 4)))


@op(method=False, out=False, public=BOTH, samples=_pdist_samples)
def pdist(input: Tensor, p: float = 2.0):
    """The p-norm distances of all pairs of rows: (n, m) -> (n (n - 1) / 2,), in the order (0, 1),
    (0, 2), ...

    >>> torch.pdist(torch.tensor([[0., 0.], [3., 4.], [0., 1.]]))
    tensor([5.0000, 1.0000, 4.2426])
    """
    return _pairs(input, float(p))


@pdist.vjp
def pdist_vjp(g, output, input, p):
    """See _pairs_gradient."""
    return _pairs_gradient(g, output, input, float(p))


def _pairs(x: Value, degree: float) -> Value:
    if x.ndim != 2:
        raise RuntimeError(f"pdist only supports 2D tensors, got: {x.ndim}D")
    if not x.dtype.is_floating_point:
        raise RuntimeError("pdist only supports floating-point dtypes")
    if degree < 0:
        raise RuntimeError("pdist only supports non-negative p values")
    n, m = x.shape
    shape = (n * (n - 1) // 2, m)
    if 0 in shape:
        return p.expand(constant(0.0, x.dtype, number=False), shape[:1])
    enough = n >= ENOUGH_ROWS or m <= 2 * n
    if degree in NATIVE and enough and x.dtype in (dtypes.float32, dtypes.float64):
        return PAIR_DISTANCES(x, attrs=(degree, 0))
    return _by_numbers((x,), (degree,))[0]


def _by_numbers(inputs, attrs) -> tuple[Value]:
    """The definition: the two rows of each pair, by its number."""
    (x,), (n, m) = inputs, inputs[0].shape
    shape = (n * (n - 1) // 2, m)
    first, second = _pair_numbers(n, shape)
    gap = p.sub(p.lookup(x, [first, 1], shape), p.lookup(x, [second, 1], shape))
    return (norm_along(gap, attrs[0]),)


def _infer_pairs(inputs, attrs):
    n = inputs[0].shape[0]
    return (n * (n - 1) // 2,), inputs[0].dtype


PAIR_DISTANCES = joint("pair_distances", 1, _infer_pairs, _by_numbers, any_order=True)
NATIVE = (1, 2, math.inf)  # degrees that it has a kernel for
ENOUGH_ROWS = 64  # from which on it pays to lay rows out for it, however long they are


def _pair_numbers(n: int, shape) -> tuple[Value, Value]:
    """The two rows of each pair: from the last pair on, those of one first row are 1, 2, ..."""
    k = p.iota(shape, 0)
    k, one = p.sub(e.like(n * (n - 1) // 2 - 1, k), k), e.like(1, k)
    line = growing_row(k, one)
    place = p.sub(k, before_row(line, one))
    return p.sub(e.like(n - 2, k), line), p.sub(e.like(n - 1, k), place)


def _pairs_before(row: Value, n: int) -> Value:
    """How many pairs begin with an earlier row: row (2 n - row - 1) / 2."""
    return p.shift_right(p.mul(row, p.sub(e.like(2 * n - 1, row), row)), e.like(1, row))


def _pairs_gradient(g: Value, y: Value, x: Value, degree: float) -> Value:
    """Row i takes from every pair (i, j), whose distance y says how much: a sum over j instead of
    additions to both rows of each pair. Equal rows give nothing."""
    n, m = x.shape
    if degree == 0 or n < 2 or not m:
        return p.zero_like(x)
    apart = p.ne(y, p.zero_like(y))
    if degree not in (1, math.inf):
        far = p.where(apart, y, e.like(1, y))
        scale = far if degree == 2 else p.pow_(far, e.like(degree - 1, far))
        g = p.where(apart, p.div(g, scale), p.zero_like(g))
    cube = (n, n, m)
    x = p.permute(p.in_memory(p.permute(x, (1, 0))), (1, 0))  # lanes are rows

    def of_pairs(value: Value) -> Value:
        """An element for every pair, (i, j, 1); 0 on the diagonal."""
        return p.unreduce(_square(value, n), cube, (2,))

    gap = p.sub(p.unreduce(x, cube, (1,)), p.unreduce(x, cube, (0,)))
    size, zero = p.abs_(gap), p.zero_like(gap)
    if degree == 2:
        part = gap
    else:
        part = p.sign(gap)
        if degree == math.inf:
            part = p.where(p.eq(size, of_pairs(y)), part, zero)
        elif degree != 1:
            none = p.eq(size, zero)
            power = p.pow_(p.where(none, e.like(1, size), size), e.like(degree - 1, size))
            part = p.where(none, zero, p.mul(part, power))
    return p.reduce_sum(p.mul(of_pairs(g), part), (1,))


def _square(value: Value, n: int) -> Value:
    """A value for every pair, as a symmetric matrix (n, n) with zeros on its diagonal."""
    i, j = (p.iota((n, n), dim) for dim in range(2))
    low, high = p.minimum(i, j), p.maximum(i, j)
    one, same = e.like(1, i), p.eq(i, j)
    number = p.add(_pairs_before(low, n), p.sub(p.sub(high, low), one))
    found = p.lookup(value, [p.where(same, p.zero_like(i), number)], (n, n))
    return p.where(same, p.zero_like(found), found)


def norm_along(gap: Value, degree: float) -> Value:
    """The norm of order `degree` along the last dimension; its gradient at 0 is 0."""
    last, size = (gap.ndim - 1,), p.abs_(gap)
    if degree == 1:
        return p.reduce_sum(size, last)
    if degree == math.inf:
        return p.reduce_max(size, last)
    if degree == 0:
        return how_many(gap, last)
    zero = p.eq(size, p.zero_like(size))
    power = p.mul(gap, gap) if degree == 2 else p.where(
        zero, p.zero_like(size), p.pow_(p.where(zero, e.like(1, size), size), e.like(degree, size)))
    total = p.reduce_sum(power, last)
    nil = p.eq(total, p.zero_like(total))
    safe = p.where(nil, e.like(1, total), total)
    root = p.sqrt(safe) if degree == 2 else p.pow_(safe, e.like(1 / degree, safe))
    return p.where(nil, p.zero_like(root), root)


def _bilinear_samples():
    yield sample(Arr((3, 4)), Arr((3, 5)), Arr((2, 4, 5)), Arr((2,)))
    yield sample(Arr((2, 3, 4)), Arr((2, 3, 5)), Arr((2, 4, 5)))
    yield sample(Arr((4,)), Arr((5,)), Arr((2, 4, 5)))


@op(method=False, out=False, public=BOTH, samples=_bilinear_samples,
    check=one_dtype("All tensors must have the same dtype, got {first} and {other}", 0, 1, 2, 3),
    grad=lambda call: "AddBackward0" if len(call.avals) == 4 else "TrilinearBackward0")
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None):
    """x1^T A_o x2 + b_o for every output o: (..., n), (..., m), weight (o, n, m) -> (..., o).

    >>> torch.bilinear(torch.tensor([[1., 2.]]), torch.tensor([[3., 4.]]), torch.ones(1, 2, 2))
    tensor([[21.]])
    """
    if input1.ndim != input2.ndim:
        raise RuntimeError("bilinear(): input dimensions do not match: got "
                           f"{input1.ndim} and {input2.ndim}")
    if input1.shape[:-1] != input2.shape[:-1]:
        raise RuntimeError(f"bilinear(): input batch dimensions do not match: got "
                           f"{list(input1.shape)} and {list(input2.shape)}")
    if weight.ndim != 3 or (input1.shape[-1], input2.shape[-1]) != weight.shape[1:]:
        raise RuntimeError(f"bilinear(): inputs of size {input1.shape[-1]} and {input2.shape[-1]} "
                           f"do not match weight of size {list(weight.shape)}")
    outputs, n, m = weight.shape
    if bias is not None and bias.shape != (outputs,):
        raise RuntimeError(f"bilinear(): bias size does not match weight size: got "
                           f"{list(bias.shape)} but expected {[outputs]}")
    lead = input1.shape[:-1]
    rows = math.prod(lead)
    table = p.reshape(p.permute(weight, (1, 0, 2)), (n, outputs * m))
    half = p.reshape(product(p.reshape(input1, (rows, n)), table), (rows, outputs, m))
    other = p.reshape(input2, (rows, 1, m))
    result = p.reduce_sum(p.mul(half, p.expand(other, half.shape)), (2,))
    if bias is not None:
        result = p.add(result, p.expand(bias, result.shape))
    return p.reshape(result, (*lead, outputs))
