"""Products beyond `matmul`: with an addend, over any dimensions, of Kronecker, chains, einsum."""

from __future__ import annotations

import itertools
import math

import numpy as np

from flambeau.core import dtypes
from flambeau.core.shapes import broadcast_shapes, normalize_dim
from flambeau.ir.graph import Value
from flambeau.ops import elementwise as e
from flambeau.ops import matmul as m
from flambeau.ops import primitives as p
from flambeau.ops.checks import one_dtype
from flambeau.ops.primitives import convert
from flambeau.ops.record import Number, Tensor, Tensors, lift, op
from flambeau.ops.samples import Arr, sample


# --------------------------------------------------------------------------- with an addend
@op(inplace=True, check=m.alike("addmv"), samples=lambda: iter([
    sample(Arr((3,)), Arr((3, 4)), Arr((4,))),
    sample(Arr((3,)), Arr((3, 4)), Arr((4,)), beta=0.5, alpha=2.0)]))
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Number = 1, alpha: Number = 1):
    """beta * input + alpha * (mat @ vec).

    >>> torch.addmv(torch.tensor([1., 1.]), torch.eye(2), torch.tensor([5., 6.]), alpha=2)
    tensor([11., 13.])
    """
    return m._weighted(input, m.mv(mat, vec), beta, alpha)


@op(inplace=True, promote="match", samples=lambda: iter([
    sample(Arr((3, 4)), Arr((3,)), Arr((4,))),
    sample(Arr((4,)), Arr((3,)), Arr((4,)), beta=0.5, alpha=2.0)]))
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Number = 1, alpha: Number = 1):
    """beta * input + alpha * outer(vec1, vec2).

    >>> torch.addr(torch.zeros(2, 2), torch.tensor([1., 2.]), torch.tensor([3., 4.]))
    tensor([[3., 4.],
            [6., 8.]])
    """
    for name, factor in (("beta", beta), ("alpha", alpha)):
        if input.dtype.is_integral and not lift(factor).dtype.is_integral:
            raise RuntimeError(f"For integral input tensors, argument {name} must not be a "
                               "floating point number.")
    for place, vec in (("vec1", vec1), ("vec2", vec2)):
        if vec.ndim != 1:
            raise RuntimeError(f"addr: Expected 1-D argument {place}, but got {vec.ndim}-D")
    product = e.elementwise(p.mul, p.reshape(vec1, (vec1.shape[0], 1)), vec2)
    return m._weighted(input, product, beta, alpha)


@op(inplace=True, float8=True, check=m.alike("addbmm"), samples=lambda: iter([
    sample(Arr((3, 5)), Arr((2, 3, 4)), Arr((2, 4, 5))),
    sample(Arr((5,)), Arr((2, 3, 4)), Arr((2, 4, 5)), beta=0.5, alpha=2.0)]))
def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1):
    """beta * input + alpha * the sum of batch1[i] @ batch2[i].

    >>> torch.addbmm(torch.zeros(1, 1), torch.tensor([[[1., 2.]], [[3., 4.]]]), torch.ones(2, 2, 1))
    tensor([[10.]])
    """
    return m._weighted(input, p.reduce_sum(m.bmm(batch1, batch2), (0,)), beta, alpha)


# --------------------------------------------------------------------------- inner products
def _check_inner(input: Value, other: Value) -> None:
    if input.ndim and other.ndim:  # else it is a plain product
        m.alike("inner")(input, other)


@op(samples=m._pairs(((4,), (4,)), ((3, 4), (4,)), ((3, 4), (2, 5, 4)), ((), (3,))),
    check=_check_inner, oracle=np.inner, promote="match", grad="ViewBackward0", float8=True)
def inner(input: Tensor, other: Tensor):
    """The products of all pairs of vectors in the last dimensions.

    >>> torch.inner(torch.tensor([[1, 2], [3, 4]]), torch.tensor([10, 1]))
    tensor([12, 34])
    """
    if input.ndim == 0 or other.ndim == 0:
        return e.mul(input, other)
    if input.shape[-1] != other.shape[-1]:
        raise RuntimeError("inner() the last dimension must match on both input tensors but got "
                           f"shapes {list(input.shape)} and {list(other.shape)}")
    if input.ndim == other.ndim == 1:
        return m.dot(input, other)
    return _contract(input, other, (input.ndim - 1,), (other.ndim - 1,))


def _contract(a: Value, b: Value, over_a, over_b) -> Value:
    """The product of `a` and `b`, summed over pairs of dimensions; the others of `a` come first."""
    keep_a = [d for d in range(a.ndim) if d not in over_a]
    keep_b = [d for d in range(b.ndim) if d not in over_b]
    rows, columns = [a.shape[d] for d in keep_a], [b.shape[d] for d in keep_b]
    depth = math.prod([a.shape[d] for d in over_a])
    left = p.reshape(p.permute(a, [*keep_a, *over_a]), (math.prod(rows), depth))
    right = p.reshape(p.permute(b, [*over_b, *keep_b]), (depth, math.prod(columns)))
    return p.reshape(m.product(left, right), (*rows, *columns))


@op(method=False, samples=lambda: iter([
    sample(Arr((2, 3, 4)), Arr((3, 4, 5))), sample(Arr((2, 3, 4)), Arr((4, 5)), 1),
    sample(Arr((2, 3, 4)), Arr((4, 5, 2)), ((0, 2), (2, 0)))]), grad="ViewBackward0",
    float8=True, check=m.alike("tensordot"))
def tensordot(a: Tensor, b: Tensor, dims: object = 2):
    """Sums of products over the last `dims` dimensions of a and the first of b, or over pairs
    given as two lists.

    >>> torch.tensordot(torch.ones(2, 3, 4), torch.ones(4, 3, 5), dims=([1, 2], [1, 0]))
    tensor([[12., 12., 12., 12., 12.],
            [12., 12., 12., 12., 12.]])
    """
    if isinstance(dims, int):
        if dims < 0:
            raise RuntimeError(f"tensordot expects dims >= 0, but got dims={dims}")
        if dims > min(a.ndim, b.ndim):
            raise RuntimeError("tensordot expects dims < ndim_a or ndim_b, but got dims="
                               f"{dims}")
        dims = (tuple(range(a.ndim - dims, a.ndim)), tuple(range(dims)))
    over_a, over_b = ((d,) if isinstance(d, int) else tuple(d) for d in dims)
    if len(over_a) != len(over_b):
        raise RuntimeError("both dimension lists should have same length, got "
                           f"{len(over_a)} and {len(over_b)}")
    over_a = tuple(normalize_dim(d, a.ndim) for d in over_a)
    over_b = tuple(normalize_dim(d, b.ndim) for d in over_b)
    for i, j in zip(over_a, over_b, strict=True):
        if a.shape[i] == 1:
            b = _summed(b, j)
        elif b.shape[j] == 1:
            a = _summed(a, i)
        elif a.shape[i] != b.shape[j]:
            raise RuntimeError("contracted dimensions need to match, but first has size "
                               f"{a.shape[i]} in dim {i} and second has size {b.shape[j]} in "
                               f"dim {j}")
    return _contract(a, b, over_a, over_b)


def _summed(x: Value, dim: int) -> Value:
    """The sum over one dimension, which is kept with size 1."""
    return p.reshape(p.reduce_sum(x, (dim,)), x.shape[:dim] + (1,) + x.shape[dim + 1:])


@op(samples=m._pairs(((2, 3), (4, 5)), ((3,), (2, 2))), oracle=np.kron, promote="alike",
    grad="UnsafeViewBackward0", float8=True)
def kron(input: Tensor, other: Tensor):
    """Kronecker's product: every element of input times the whole of other.

    >>> torch.kron(torch.eye(2), torch.tensor([[1., 2.]]))
    tensor([[1., 2., 0., 0.],
            [0., 0., 1., 2.]])
    """
    rank = max(input.ndim, other.ndim)
    a = (1,) * (rank - input.ndim) + input.shape
    b = (1,) * (rank - other.ndim) + other.shape
    left = p.reshape(input, [n for size in a for n in (size, 1)])
    right = p.reshape(other, [n for size in b for n in (1, size)])
    return p.reshape(e.elementwise(p.mul, left, right),
                     [x * y for x, y in zip(a, b, strict=True)])


def _no_integers(x: Value, *rest: object) -> None:
    if x.dtype.is_integral:
        raise RuntimeError("linalg.vecdot: Expected a floating point or complex tensor as input. "
                           f"Got {x.dtype.scalar_name}")


@op(name="vecdot", public=("linalg",), method=False, promote="match", grad="SumBackward1",
    check=_no_integers,
    samples=lambda: iter([sample(Arr((3, 4)), Arr((4,))), sample(Arr((3, 4)), Arr((3, 4)), dim=0)]))
def vecdot(x: Tensor, y: Tensor, *, dim: int = -1):
    """The sum of conj(x) * y along dim.

    >>> torch.linalg.vecdot(torch.tensor([[1., 2.], [3., 4.]]), torch.tensor([[1., 1.], [0., 2.]]))
    tensor([3., 8.])
    """
    a, b = e.broadcast(p.conj(x), y)
    return p.reduce_sum(p.mul(a, b), (normalize_dim(dim, a.ndim),))


def _cross_samples():
    yield sample(Arr((4, 3)), Arr((4, 3)))
    yield sample(Arr((3, 4)), Arr((3, 1)), dim=0)


@op(samples=_cross_samples, grad="LinalgCrossBackward0", refuses="b",
    check=one_dtype("expected scalar type {first} but found {other}", 0, 1))
def cross(input: Tensor, other: Tensor, dim: int | None = None):
    """The cross product of vectors of three elements along dim (by default the first of size 3).

    >>> torch.cross(torch.tensor([1., 0., 0.]), torch.tensor([0., 1., 0.]), dim=0)
    tensor([0., 0., 1.])
    """
    if input.ndim != other.ndim:
        raise RuntimeError("linalg.cross: inputs must have the same number of dimensions.")
    if dim is None:
        fitting = [d for d, size in enumerate(input.shape) if size == 3]
        if not fitting:
            raise RuntimeError("no dimension of size 3 in input")
        dim = fitting[0]
    at = normalize_dim(dim, input.ndim)
    if input.shape[at] != 3 or other.shape[at] != 3:
        raise RuntimeError(f"linalg.cross: inputs dimension {dim} must have length 3. Got "
                           f"{input.shape[at]} and {other.shape[at]}")
    a, b = e.broadcast(input, other)
    return p.sub(p.mul(_turned(a, at, 1), _turned(b, at, 2)),
                 p.mul(_turned(a, at, 2), _turned(b, at, 1)))


def _turned(x: Value, at: int, by: int) -> Value:
    """The three elements along `at`, starting with number `by`."""
    return p.cat((p.slice_dim(x, at, by, 1, 3 - by), p.slice_dim(x, at, 0, 1, by)), at)


# --------------------------------------------------------------------------- chains
def _chain_samples():
    yield sample((Arr((2, 3)), Arr((3, 4)), Arr((4, 5))))
    yield sample((Arr((3,)), Arr((3, 4)), Arr((4,))))


@op(name="multi_dot", public=("linalg",), method=False, samples=_chain_samples,
    grad="ViewBackward0", float8=True)
def multi_dot(tensors: Tensors):
    """The product of several matrices, multiplied in the cheapest order; the first and the last may
    be vectors.

    >>> a, b, c = torch.ones(1, 2), torch.tensor([[3., 4.], [5., 6.]]), torch.ones(2, 1)
    >>> torch.linalg.multi_dot([a, b, c])
    tensor([[18.]])
    """
    if len(tensors) < 2:
        raise RuntimeError("multi_dot(): expected at least 2 tensors but got "
                           f"{len(tensors)}")
    first, last = tensors[0], tensors[-1]
    for place, matrix in enumerate(tensors):
        end = place in (0, len(tensors) - 1)
        if matrix.ndim != 2 and not (end and matrix.ndim == 1):
            raise RuntimeError(f"multi_dot(): tensor {place} must be 2D{' or 1D' if end else ''} "
                               f"but got {matrix.ndim}D")
        if matrix.dtype is not first.dtype:
            raise RuntimeError("multi_dot(): all tensors must have be the same dtype but got "
                               f"{first.dtype.scalar_name} and {matrix.dtype.scalar_name}")
    chain = list(tensors)
    if first.ndim == 1:
        chain[0] = p.reshape(first, (1, first.shape[0]))
    if last.ndim == 1:
        chain[-1] = p.reshape(last, (last.shape[0], 1))
    for a, b in itertools.pairwise(chain):
        if a.shape[1] != b.shape[0]:
            raise RuntimeError(f"multi_dot(): tensors with shapes {list(a.shape)} and "
                               f"{list(b.shape)} cannot be multiplied")
    result = _chained(chain)
    shape = (result.shape[:1] if first.ndim == 2 else ()) + (
        result.shape[1:] if last.ndim == 2 else ())
    return p.reshape(result, shape)


def _chained(chain: list[Value]) -> Value:
    """By dynamic programming over the cheapest split of every part of the chain."""
    sizes = [v.shape[0] for v in chain] + [chain[-1].shape[1]]
    count = len(chain)
    cost = {(i, i): 0 for i in range(count)}
    cut: dict[tuple[int, int], int] = {}
    for span in range(1, count):
        for i in range(count - span):
            j = i + span
            options = [(cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k)
                       for k in range(i, j)]
            cost[i, j], cut[i, j] = min(options)

    def product_of(i: int, j: int) -> Value:
        if i == j:
            return chain[i]
        k = cut[i, j]
        return m.product(product_of(i, k), product_of(k + 1, j))

    return product_of(0, count - 1)


# --------------------------------------------------------------------------- einsum
def _einsum_samples():
    yield sample("ij,jk->ik", (Arr((3, 4)), Arr((4, 5))))
    yield sample("bij,bjk->bki", (Arr((2, 3, 4)), Arr((2, 4, 5))))
    yield sample("ii->i", (Arr((3, 3)),))
    yield sample("...i,i,jk", (Arr((2, 3)), Arr((3,)), Arr((2, 2))))


@op(name="_einsum", public=(), method=False, out=False, samples=_einsum_samples,
    grad="ViewBackward0")
def _einsum(equation: str, operands: Tensors):
    """Sums of products as Einstein writes them; see `torch.einsum`."""
    terms, result = _parsed(equation, [v.ndim for v in operands])
    sizes = _label_sizes(terms, operands)
    for value in operands[1:]:
        if value.dtype is not operands[0].dtype:
            raise RuntimeError(f"einsum(): expected scalar type {operands[0].dtype.scalar_name} "
                               f"but found {value.dtype.scalar_name}")
    labels, value = _on_own_diagonals(terms[0], operands[0])
    for number, (term, operand) in enumerate(zip(terms[1:], operands[1:], strict=True), 1):
        later = {c for other in terms[number + 1:] for c in other} | set(result)
        right_labels, right = _on_own_diagonals(term, operand)
        labels, value = _joined(labels, value, right_labels, right, later, sizes)
    gone = [d for d, c in enumerate(labels) if c not in result]
    value = _total(value, gone)
    labels = [c for c in labels if c in result]
    value = p.permute(value, [labels.index(c) for c in result])
    return p.expand(value, [sizes[c] for c in result])


ELLIPSIS = "."


def _parsed(equation: str, ranks: list[int]) -> tuple[list[list], list]:
    """Labels of every operand and of the result; the k-th dimension from the right under an
    ellipsis is labelled (".", k)."""
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    words = left.split(",")
    if len(words) != len(ranks):
        more = "more" if len(words) < len(ranks) else "fewer"
        raise RuntimeError(f"einsum(): {more} operands were provided than specified in the "
                           f"equation: {len(ranks)} operands for {len(words)} terms")
    covered, terms = 0, []
    for place, (word, rank) in enumerate(zip(words, ranks, strict=True)):
        letters = _letters(word, f"operand {place}")
        hidden = rank - sum(c != ELLIPSIS for c in letters)
        if hidden < 0 or hidden and ELLIPSIS not in letters:
            raise RuntimeError(f"einsum(): the number of subscripts in the equation "
                               f"({rank - hidden}) does not match the number of dimensions "
                               f"({rank}) for operand {place}")
        covered = max(covered, hidden if ELLIPSIS in letters else 0)
        terms.append(_spelled(letters, hidden))
    if arrow:
        letters = _letters(right, "the output")
        if len(set(letters)) != len(letters):
            raise RuntimeError("einsum(): output subscript appears more than once in the output")
        result = _spelled(letters, covered)
        known = {c for term in terms for c in term}
        for c in result:
            if c not in known:
                raise RuntimeError(f"einsum(): output subscript {c} does not appear in the "
                                   "equation for any input operand")
        return terms, result
    every = [c for term in terms for c in term if isinstance(c, str)]
    once = sorted(c for c in set(every) if every.count(c) == 1)
    return terms, _spelled([ELLIPSIS], covered) + once


def _letters(word: str, where: str) -> list[str]:
    if word.count(".") not in (0, 3) or (word.count(".") == 3 and "..." not in word):
        raise RuntimeError(f"einsum(): found '.' for {where} that is not part of any ellipsis")
    letters = list(word.replace("...", ELLIPSIS))
    for c in letters:
        if c != ELLIPSIS and not (c.isascii() and c.isalpha()):
            raise RuntimeError(f"einsum(): invalid subscript given for {where}: {c!r}; subscripts "
                               "must be in [a-zA-Z]")
    return letters


def _spelled(letters: list[str], hidden: int) -> list:
    """Letters with the ellipsis written out."""
    spelled: list = []
    for c in letters:
        spelled += [(ELLIPSIS, k) for k in range(hidden, 0, -1)] if c == ELLIPSIS else [c]
    return spelled


def _label_sizes(terms: list[list], operands) -> dict:
    sizes: dict = {}
    for place, (term, value) in enumerate(zip(terms, operands, strict=True)):
        for d, (c, size) in enumerate(zip(term, value.shape, strict=True)):
            if sizes.setdefault(c, size) == 1:
                sizes[c] = size
            elif size not in (1, sizes[c]):
                raise RuntimeError(f"einsum(): subscript {c} has size {size} for operand {place} "
                                   f"(dimension {d}) which does not broadcast with previously seen "
                                   f"size {sizes[c]}")
    return sizes


def _on_own_diagonals(term: list, value: Value) -> tuple[list, Value]:
    """Repeated labels of one operand become one: its diagonal."""
    labels = list(term)
    for c in dict.fromkeys(term):
        while labels.count(c) > 1:
            a = labels.index(c)
            b = labels.index(c, a + 1)
            if value.shape[a] != value.shape[b]:
                raise RuntimeError(f"einsum(): subscript {c} is repeated for one operand but the "
                                   f"sizes don't match, {value.shape[a]} != {value.shape[b]}")
            rest = [d for d in range(value.ndim) if d not in (a, b)]
            value = p.take_diagonal(p.permute(value, [*rest, a, b]), 0, 0, value.shape[a])
            labels = [labels[d] for d in rest] + [c]
    return labels, value


def _total(x: Value, dims: list[int]) -> Value:
    """The sum over dims; integers add up in int64, as in `sum`."""
    if not dims:
        return x
    return p.reduce_sum(convert(x, dtypes.int64) if x.dtype.is_integral else x, dims)


def _joined(left: list, a: Value, right: list, b: Value, later: set, sizes: dict
            ) -> tuple[list, Value]:
    """The product of two operands, summed over the labels that nothing after them has."""
    a = _total(a, [d for d, c in enumerate(left) if c not in right and c not in later])
    left = [c for c in left if c in right or c in later]
    b = _total(b, [d for d, c in enumerate(right) if c not in left and c not in later])
    right = [c for c in right if c in left or c in later]
    if a.dtype is not b.dtype:  # the sum of one of them is int64
        a, b = convert(a, dtypes.int64), convert(b, dtypes.int64)
    batch = [c for c in left if c in right and c in later]
    inner_ = [c for c in left if c in right and c not in later]
    rows = [c for c in left if c not in right]
    columns = [c for c in right if c not in left]
    a = p.permute(a, [left.index(c) for c in (*batch, *rows, *inner_)])
    b = p.permute(b, [right.index(c) for c in (*batch, *inner_, *columns)])
    nb, nr, nc = len(batch), len(rows), len(columns)
    shared = broadcast_shapes(a.shape[:nb], b.shape[:nb])
    depth = broadcast_shapes(a.shape[nb + nr:], b.shape[nb:nb + len(inner_)])
    row_sizes, column_sizes = a.shape[nb:nb + nr], b.shape[nb + len(inner_):]
    assert len(column_sizes) == nc
    a = p.expand(a, (*shared, *row_sizes, *depth))
    b = p.expand(b, (*shared, *depth, *column_sizes))
    lead = (math.prod(shared),) if batch else ()
    a = p.reshape(a, (*lead, math.prod(row_sizes), math.prod(depth)))
    b = p.reshape(b, (*lead, math.prod(depth), math.prod(column_sizes)))
    value = p.reshape(m.product(a, b), (*shared, *row_sizes, *column_sizes))
    return [*batch, *rows, *columns], value
