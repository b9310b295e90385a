"""Primitives over a batch of examples: one rule each.

A rule takes a node, the inputs that stand for its own, their flags, and the number of examples. An
input with a true flag has one element per example along a new first dimension; others serve all
examples. The result has the new first dimension.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from flambeau.ir.graph import Value
from flambeau.ops.primitives import contraction as c
from flambeau.ops.primitives import elementwise as e
from flambeau.ops.primitives import factors, fourier, order, pooling, resampling, scan
from flambeau.ops.primitives import structure as s

__all__ = ["into", "leading", "out_of", "spread_over"]

Flags = Sequence[bool]


def spread_over(x: Value, flag: bool, size: int) -> Value:
    """`x` with the new first dimension, whether it has it already or not."""
    return x if flag else s.expand(x, (size, *x.shape))


def leading(node: Value, inputs: Sequence[Value], flags: Flags, size: int) -> Value:
    """The rule of primitives that take any dimensions in front, with unchanged attributes."""
    given = [spread_over(x, flag, size) for x, flag in zip(inputs, flags, strict=True)]
    return node.prim(*given, attrs=node.attrs)


for _prim in (s.DIAGONAL, s.WINDOW, e.view_as_real, e.view_as_complex, order.ARGSORT):
    _prim.batch(leading)


# --------------------------------------------------------------------------- movement
@s.EXPAND.batch
def expand_batch(node, inputs, flags, size):
    (x,), (shape,) = inputs, node.attrs
    ones = (1,) * (len(shape) - (x.ndim - 1))
    return s.expand(s.reshape(x, (size, *ones, *x.shape[1:])), (size, *shape))


@s.PERMUTE.batch
def permute_batch(node, inputs, flags, size):
    return s.permute(inputs[0], (0, *[d + 1 for d in node.attrs[0]]))


@s.RESHAPE.batch
def reshape_batch(node, inputs, flags, size):
    return s.reshape(inputs[0], (size, *node.attrs[0]))


@s.SLICE.batch
def slice_batch(node, inputs, flags, size):
    starts, steps, sizes = node.attrs
    return s.slice_(inputs[0], (0, *starts), (1, *steps), (size, *sizes))


@s.SPREAD.batch
def spread_batch(node, inputs, flags, size):
    starts, steps, shape, fill = node.attrs
    return s.spread(inputs[0], (0, *starts), (1, *steps), (size, *shape), fill)


@s.AS_STRIDED.batch
def as_strided_batch(node, inputs, flags, size):
    """Each example lies row-major behind the one before it."""
    shape, strides, offset = node.attrs
    return s.as_strided(inputs[0], (size, *shape), (node.inputs[0].numel, *strides), offset)


@s.FOLD.batch
def fold_batch(node, inputs, flags, size):
    kernel, stride, dilation, shape = node.attrs
    return s.fold(inputs[0], kernel, stride, dilation, (size, *shape))


@s.CAT.batch
def cat_batch(node, inputs, flags, size):
    given = [spread_over(x, flag, size) for x, flag in zip(inputs, flags, strict=True)]
    return s.cat(given, node.attrs[0] + 1)


# --------------------------------------------------------------------------- reductions and scans
def _reduce_batch(node, inputs, flags, size):
    return node.prim(inputs[0], attrs=(tuple(d + 1 for d in node.attrs[0]),))


for _prim in (s.REDUCE_SUM, s.REDUCE_PROD, s.REDUCE_MAX, s.REDUCE_MIN, s.REDUCE_ARGMAX,
              s.REDUCE_ARGMIN):
    _prim.batch(_reduce_batch)


def _scan_batch(node, inputs, flags, size):
    dim, reverse = node.attrs
    given = [spread_over(x, flag, size) for x, flag in zip(inputs, flags, strict=True)]
    return node.prim(*given, attrs=(dim + 1, reverse))


for _prim in (scan.CUMSUM, scan.CUMPROD, scan.CUMLOGSUMEXP, scan.CUMARGMAX, scan.CUMARGMIN,
              scan.RECURRENCE):
    _prim.batch(_scan_batch)


@fourier.FOURIER.batch
def fourier_batch(node, inputs, flags, size):
    (how,) = node.attrs
    return node.prim(inputs[0], attrs=(dataclasses.replace(how, dim=how.dim + 1),))


@factors.FACTOR.batch
def factor_batch(node, inputs, flags, size):
    """Matrices become more matrices."""
    form, number = node.attrs
    given = [spread_over(x, flag, size) for x, flag in zip(inputs, flags, strict=True)]
    return node.prim(*given, attrs=(dataclasses.replace(form, lead=form.lead + 1), number))


@order.SEARCH.batch
def search_batch(node, inputs, flags, size):
    ordered, values = inputs
    if node.inputs[0].ndim == 1:
        if not flags[0]:
            return node.prim(*inputs, attrs=node.attrs)
        rows = s.reshape(spread_over(values, flags[1], size), (size, node.numel))
        return s.reshape(node.prim(ordered, rows, attrs=node.attrs), (size, *node.shape))
    return leading(node, inputs, flags, size)


# --------------------------------------------------------------------------- lookup and scatter
def _coordinates(pattern: Sequence, indices: Sequence[Value], flags: Flags, size: int) -> list:
    """Coordinates for a place among all examples."""
    spread = [spread_over(i, flag, size) for i, flag in zip(indices, flags, strict=True)]
    return s.coordinates([None if d is None else d + 1 for d in pattern], spread)


@s.LOOKUP.batch
def lookup_batch(node, inputs, flags, size):
    pattern, shape = node.attrs
    coords = _coordinates(pattern, inputs[1:], flags[1:], size)
    return s.lookup(inputs[0], [0, *coords] if flags[0] else coords, (size, *shape))


@s.SCATTER.batch
def scatter_batch(node, inputs, flags, size):
    pattern, mode = node.attrs
    base, source = (spread_over(x, flag, size) for x, flag in
                    zip(inputs[:2], flags, strict=False))
    return s.scatter(base, [0, *_coordinates(pattern, inputs[2:], flags[2:], size)], source, mode)


# --------------------------------------------------------------------------- products
@c.DOT.batch
def dot_batch(node, inputs, flags, size):
    """An operand that serves all examples makes one large product of many small ones, where the
    other's examples can be rows (or columns that stand alone) of it."""
    a, b = inputs
    rows, columns = node.shape[-2:]
    inner = node.inputs[0].shape[-1]
    if node.ndim == 2 and not flags[1]:
        return s.reshape(c.dot(s.reshape(a, (size * rows, inner)), b), (size, rows, columns))
    if node.ndim == 2 and not flags[0] and columns == 1:
        turned = c.dot(s.reshape(b, (size, inner)), c.transpose(a))
        return s.reshape(turned, (size, rows, 1))
    return c.dot(spread_over(a, flags[0], size), spread_over(b, flags[1], size))


# --------------------------------------------------------------------------- convolution
def into(x: Value, dim: int) -> Value:
    """Examples as a part of dimension `dim` (of those behind the first), outermost in it."""
    moved = s.permute(x, [*range(1, dim + 1), 0, *range(dim + 1, x.ndim)])
    shape = moved.shape
    return s.reshape(moved, (*shape[:dim], shape[dim] * shape[dim + 1], *shape[dim + 2:]))


def out_of(x: Value, dim: int, size: int) -> Value:
    """The inverse of `into`."""
    shape = x.shape
    split = s.reshape(x, (*shape[:dim], size, shape[dim] // size, *shape[dim + 1:]))
    return s.permute(split, (dim, *[d for d in range(split.ndim) if d != dim]))


def _per_channel(x: Value, like: Value) -> Value:
    """(examples, channels) spread over (examples, batch, channels, places)."""
    shape = [size if d in (0, 2) else 1 for d, size in enumerate(like.shape)]
    return s.expand(s.reshape(x, shape), like.shape)


@c.CONV.batch
def conv_batch(node, inputs, flags, size):
    """Images become more images; weights become groups, or more of them."""
    x, w = inputs[:2]
    stride, padding, dilation, groups = node.attrs
    bias = spread_over(inputs[2], flags[2], size) if len(inputs) > 2 else None
    if not (flags[0] or flags[1]):
        plain = c.conv(x, w, *node.attrs)
        result = s.expand(plain, (size, *plain.shape))
    elif not flags[1]:
        own = None if bias is None or flags[2] else inputs[2]
        result = out_of(c.conv(into(x, 0), w, *node.attrs, bias=own), 0, size)
        bias = None if own is not None else bias
    elif not flags[0] and groups == 1:
        result = out_of(c.conv(x, into(w, 0), *node.attrs), 1, size)
    else:
        wide = into(spread_over(x, flags[0], size), 1)
        made = c.conv(wide, into(w, 0), stride, padding, dilation, groups * size)
        result = out_of(made, 1, size)
    return result if bias is None else e.add(result, _per_channel(bias, result))


@c.CONV_GRAD_INPUT.batch
def conv_grad_input_batch(node, inputs, flags, size):
    g, w = inputs
    *geometry, groups, shape = node.attrs
    if not flags[1]:
        made = c.conv_grad_input(into(g, 0), w, (*geometry, groups), (size * shape[0], *shape[1:]))
        return out_of(made, 0, size)
    wide = (shape[0], size * shape[1], *shape[2:])
    made = c.conv_grad_input(into(spread_over(g, flags[0], size), 1), into(w, 0),
                             (*geometry, groups * size), wide)
    return out_of(made, 1, size)


@c.CONV_GRAD_WEIGHT.batch
def conv_grad_weight_batch(node, inputs, flags, size):
    g, x = inputs
    *geometry, groups, shape = node.attrs
    wide = (size * shape[0], *shape[1:])
    if not flags[1] and groups == 1:
        return out_of(c.conv_grad_weight(into(g, 1), x, (*geometry, 1), wide), 0, size)
    made = c.conv_grad_weight(into(spread_over(g, flags[0], size), 1),
                              into(spread_over(x, flags[1], size), 1),
                              (*geometry, groups * size), wide)
    return out_of(made, 0, size)


# --------------------------------------------------------------------------- images
def _pool_batch(node, inputs, flags, size):
    """The kernels know up to two dimensions that do not slide."""
    if node.ndim - len(node.attrs[0].out) < 2:
        return leading(node, inputs, flags, size)
    wide = [into(spread_over(x, flag, size), 0) for x, flag in zip(inputs, flags, strict=True)]
    return out_of(node.prim(*wide, attrs=node.attrs), 0, size)


for _prim in (pooling.POOL_MAX, pooling.POOL_ARGMAX, pooling.POOL_MAX_BACK, pooling.POOL_MEAN,
              pooling.POOL_MEAN_BACK):
    _prim.batch(_pool_batch)


def _resize_batch(node, inputs, flags, size):
    if any(flags[1:]):
        raise NotImplementedError("resizing by tables that differ between examples")
    return out_of(node.prim(into(inputs[0], 0), *inputs[1:], attrs=node.attrs), 0, size)


resampling.RESIZE.batch(_resize_batch)
resampling.RESIZE_BACK.batch(_resize_batch)


# --------------------------------------------------------------------------- whatever has no rule
def through(transformed: Callable) -> Callable:
    """The rule of a joint primitive by its definition in others; `transformed` walks a graph."""

    def batch(node, inputs, flags, size):
        result = node.prim.composite(node.inputs, node.attrs[:-1])[node.attrs[-1]]
        known = {v: (x, flag) for v, x, flag in zip(node.inputs, inputs, flags, strict=True)}
        made, flag = transformed([result], known, size)[0]
        return spread_over(made, flag, size)

    return batch


def one_by_one(node: Value, inputs: Sequence[Value], flags: Flags, size: int) -> Value:
    """The examples one after the other, joined again."""
    rows = []
    for place in range(size):
        own = [s.reshape(s.slice_dim(x, 0, place, 1, 1), x.shape[1:]) if flag else x
               for x, flag in zip(inputs, flags, strict=True)]
        row = node.prim(*own, attrs=node.attrs)
        rows.append(s.reshape(row, (1, *row.shape)))
    return s.cat(rows, 0)
