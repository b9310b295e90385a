"""What sparse tensors are computed with: sums over segments, and marks between them.

Sparse tensors are made of dense ones (flambeau/sparse); these are the steps of their operations
that no other family has.
"""

from __future__ import annotations

import numpy as np

from flambeau.core import dtypes
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.primitives import convert
from flambeau.ops.record import Index, Tensor, op
from flambeau.ops.samples import Arr, sample

_PRIVATE = {"method": False, "public": (), "out": False}

# A matrix (4, 5) of 6 entries, one row of it empty, in the order of rows, and its transpose.
_OFFSETS, _COLUMNS = np.array([0, 2, 2, 5, 6]), np.array([4, 1, 0, 1, 3, 1])
_TURNED = np.array([0, 1, 4, 4, 5, 6]), np.array([2, 0, 2, 3, 2, 0]), np.array([2, 1, 3, 5, 4, 0])


def _sum_samples():
    for width in (1, 3, 70):
        yield sample(_OFFSETS, _COLUMNS, Arr((5, width)), Arr((6,)))
    yield sample(_OFFSETS, _COLUMNS, Arr((5, 3)))


def _product_samples():
    yield sample(_OFFSETS, _COLUMNS, *_TURNED, Arr((5, 3)), Arr((6,)))


def _rows_samples():
    yield sample(_OFFSETS, 6)


def _offsets_samples():
    yield sample(np.array([0, 0, 2, 2, 2, 3]), 4)


@op(name="_segment_sum", samples=_sum_samples, **_PRIVATE)
def _segment_sum(offsets: Index, index: Index, input: Tensor, weights: Tensor | None = None):
    """Rows of `input` (size, width) by number, weighted, added up over consecutive segments.

    out[s] = sum of weights[k] * input[index[k]] over offsets[s] <= k < offsets[s + 1]. The offsets
    must not fall, and the numbers lie in [0, size): the caller has checked them.
    """
    offsets, index = (convert(v, dtypes.int64) for v in (offsets, index))
    return p.segment_sum(offsets, index, input, weights)


@op(name="_sparse_product", samples=_product_samples, **_PRIVATE)
def _sparse_product(offsets: Index, index: Index, turned_offsets: Index, turned_index: Index,
                    order: Index, input: Tensor, weights: Tensor):
    """`_segment_sum` of a sparse matrix whose transpose is known: its gradient is one, too.

    Entry order[k] of the matrix is entry k of the transpose.
    """
    return p.segment_sum(offsets, index, input, weights)


@_sparse_product.vjp
def _sparse_product_vjp(g, offsets, index, turned_offsets, turned_index, order, input, weights):
    """The transpose times g; for the weights the products of the rows that an entry joins."""
    entries = index.shape[0]
    place = (entries, g.shape[1])

    def rows(table, at):
        return p.lookup(table, [p.expand(p.reshape(at, (entries, 1)), place), 1], place)

    turned = p.lookup(weights, [order], (entries,))
    to_input = p.segment_sum(turned_offsets, turned_index, g, p.conj(turned))
    pairs = p.mul(rows(g, p.segment_rows(offsets, entries)), p.conj(rows(input, index)))
    return to_input, p.reduce_sum(pairs, (1,))


@op(name="_segment_rows", samples=_rows_samples, differentiable=False, **_PRIVATE)
def _segment_rows(offsets: Index, entries: int):
    """The segment that each of `entries` entries belongs to: (segments + 1,) -> (entries,)."""
    return p.segment_rows(convert(offsets, dtypes.int64), entries)


@op(name="_segment_offsets", samples=_offsets_samples, differentiable=False, **_PRIVATE)
def _segment_offsets(rows: Index, segments: int):
    """How many entries come before each segment: (entries,) -> (segments + 1,)."""
    rows = convert(rows, dtypes.int64)
    first = p.iota((1,), 0)
    count = p.scatter(p.expand(first, (segments,)), [rows], e.like(1, rows), "add")
    return p.cat((first, p.cumsum(count, 0)), 0)
