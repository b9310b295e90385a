"""Look-ups whose table gets a sparse gradient: one entry per row that was looked up."""

from __future__ import annotations

from typing import Any

from flambeau.autograd.grad_mode import is_recording, no_grad
from flambeau.autograd.graph import Node, node_type
from flambeau.tensor import tape
from flambeau.tensor.creation import arange, zeros
from flambeau.tensor.functions import ops
from flambeau.tensor.sparse.patterns import Coo
from flambeau.tensor.sparse.tensor import assemble

__all__ = ["sparse_embedding", "sparse_embedding_bag"]


class _OfTable(Node):
    """The gradient of a table: the rows' gradients, at their numbers."""

    __slots__ = ("index", "shape", "padding")

    def apply(self, grads: list) -> tuple:
        index = self.index.reshape(-1)
        values = grads[0].reshape(-1, self.shape[1])
        if self.padding is not None:
            kept = ops.ne(index, self.padding)
            index, values = index[kept], values[kept]
        return (assemble(Coo(index.unsqueeze(0), self.shape), values),)


_OF_TABLE = node_type("EmbeddingBackward0", _OfTable)


def sparse_embedding(input: Any, weight: Any, padding_idx: int | None = None,
                     scale_grad_by_freq: bool = False) -> Any:
    """`embedding` with a sparse gradient for `weight` (n, d), a row for each index but padding's.

    Raises:
        RuntimeError: `scale_grad_by_freq`, which needs all indices together.
    """
    with no_grad():
        result = ops.embedding(input, weight)
    if not (is_recording() and weight._rg):
        return result
    if scale_grad_by_freq:
        raise RuntimeError("embedding_backward: scale_grad_by_freq not supported with sparse "
                           "gradients")
    node = _OF_TABLE((tape.edge_to(weight),), (result._meta,))
    node.index, node.shape = input.detach().long(), tuple(weight.shape)
    node.padding = padding_idx
    result._grad_fn, result._rg = node, True
    return result


def sparse_embedding_bag(input: Any, weight: Any, offsets: Any, per_sample_weights: Any, mode: str,
                         include_last_offset: bool, padding_idx: int | None) -> Any:
    """`embedding_bag` (sums and means) with a sparse gradient for `weight`: the rows are looked up
    first, and the bags are made of them."""
    flat = input.reshape(-1)
    rows = sparse_embedding(flat, weight, padding_idx)
    number = arange(flat.shape[0]).reshape(input.shape)
    padding = None
    if padding_idx is not None:  # all padding becomes the same row, behind the others
        padding = flat.shape[0]
        rows = ops.cat((rows, zeros((1, rows.shape[1]), dtype=rows.dtype)), 0)
        number = ops.masked_fill(number, ops.eq(input, padding_idx % weight.shape[0]), padding)
    return ops._embedding_bag(rows, number, offsets, per_sample_weights, mode,
                              include_last_offset, padding, False)
