"""Structural primitives: where elements come from, not what is done to them.

A movement primitive has two readings of one definition. `index_map(node, index)` turns the index of
a result element into the index of the input element (the compiler inlines movement into the kernels
that read it). `layout(shape, strides, offset, attrs, out_shape)` gives the strides of the result as
a view of the input's memory, or None if it is not a view (eager tensors share memory through it).
"""

from __future__ import annotations

from flambeau.core import dtypes
from flambeau.core.shapes import check_expand, reshape_strides, same_shape
from flambeau.ir.graph import Primitive, Value, constant


def infer_same(inputs, attrs):
    """The rule of primitives whose result has the shape and dtype of their first input."""
    return inputs[0].shape, inputs[0].dtype


def _infer_reshaped(inputs, attrs):
    """The rule of primitives whose first attribute is the shape of the result."""
    return attrs[0], inputs[0].dtype


def _movement(name, infer, index_map, layout=None) -> Primitive:
    return Primitive(name, "movement", infer, index_map=index_map, layout=layout)


# --------------------------------------------------------------------------- iota
def _infer_iota(inputs, attrs):
    return attrs[0], dtypes.int64


IOTA = Primitive("iota", "source", _infer_iota)


def iota(shape, dim: int) -> Value:
    """int64 values that equal their own index along `dim`."""
    return IOTA(attrs=(tuple(shape), dim))


# --------------------------------------------------------------------------- expand
def _infer_expand(inputs, attrs):
    check_expand(inputs[0].shape, attrs[0])
    return attrs[0], inputs[0].dtype


def _map_expand(node, index):
    (x,) = node.inputs
    lead = len(index) - len(x.shape)
    return [index[lead + d] if size == node.shape[lead + d] else index[lead + d].zero()
            for d, size in enumerate(x.shape)]


def _layout_expand(shape, strides, offset, attrs, out_shape):
    lead = len(out_shape) - len(shape)
    kept = [strides[d] if size == out_shape[lead + d] and size != 1 or out_shape[lead + d] == size
            else 0 for d, size in enumerate(shape)]
    return (0,) * lead + tuple(kept), offset


EXPAND = _movement("expand", _infer_expand, _map_expand, _layout_expand)


def expand(x: Value, shape) -> Value:
    """Broadcast `x` to `shape`."""
    shape = tuple(shape)
    if same_shape(x.shape, shape):
        return x
    made = EXPAND(x, attrs=(shape,))
    made.number = False
    return made


@EXPAND.vjp
def expand_vjp(node, g):
    (x,) = node.inputs
    return (sum_to_shape(g, x.shape),)


def sum_to_shape(g: Value, shape) -> Value:
    """Undo broadcasting: sum over the dimensions that `expand` made or stretched."""
    if same_shape(g.shape, shape):
        return g
    lead = g.ndim - len(shape)
    dims = [d for d in range(g.ndim) if d < lead or shape[d - lead] == 1 and g.shape[d] != 1]
    return reshape(reduce_sum(g, dims), shape)


# --------------------------------------------------------------------------- permute
def _infer_permute(inputs, attrs):
    return tuple(inputs[0].shape[d] for d in attrs[0]), inputs[0].dtype


def _map_permute(node, index):
    result = [None] * len(index)
    for position, dim in enumerate(node.attrs[0]):
        result[dim] = index[position]
    return result


def _layout_permute(shape, strides, offset, attrs, out_shape):
    return tuple(strides[d] for d in attrs[0]), offset


PERMUTE = _movement("permute", _infer_permute, _map_permute, _layout_permute)


def permute(x: Value, dims) -> Value:
    """`x` with dimension `dims[d]` in place d."""
    dims = tuple(dims)
    if x.prim is PERMUTE:
        dims, x = tuple([x.attrs[0][d] for d in dims]), x.inputs[0]
    return x if dims == tuple(range(x.ndim)) else PERMUTE(x, attrs=(dims,))


@PERMUTE.vjp
def permute_vjp(node, g):
    dims = node.attrs[0]
    return (permute(g, sorted(range(len(dims)), key=dims.__getitem__)),)


# --------------------------------------------------------------------------- reshape
def _layout_reshape(shape, strides, offset, attrs, out_shape):
    found = reshape_strides(shape, strides, out_shape)
    return None if found is None else (found, offset)


def _map_reshape(node, index):
    """Only for reshapes that add or drop dimensions of size 1: others are resolved on buffers."""
    kept = [i for i, size in zip(index, node.shape, strict=True) if size != 1]
    moving = iter(kept)
    zero = index[0].zero() if index else None
    return [next(moving) if size != 1 else zero for size in node.inputs[0].shape]


RESHAPE = _movement("reshape", _infer_reshaped, _map_reshape, _layout_reshape)


def reshape(x: Value, shape) -> Value:
    """The same elements, in row-major order, as `shape`."""
    shape = tuple(shape)
    return x if same_shape(x.shape, shape) else RESHAPE(x, attrs=(shape,))


@RESHAPE.vjp
def reshape_vjp(node, g):
    return (reshape(g, node.inputs[0].shape),)


# --------------------------------------------------------------------------- slice
def _infer_slice(inputs, attrs):
    _, _, sizes = attrs
    return sizes, inputs[0].dtype


def _map_slice(node, index):
    starts, steps, _ = node.attrs
    return [i.scaled(step).shifted(start)
            for i, start, step in zip(index, starts, steps, strict=True)]


def _layout_slice(shape, strides, offset, attrs, out_shape):
    starts, steps, _ = attrs
    if any(step < 0 for step in steps):
        return None
    offset += sum(start * stride for start, stride in zip(starts, strides, strict=True))
    return tuple(step * stride for step, stride in zip(steps, strides, strict=True)), offset


SLICE = _movement("slice", _infer_slice, _map_slice, _layout_slice)


def slice_(x: Value, starts, steps, sizes) -> Value:
    """x[start + i * step] for i < size, in every dimension; a negative step reverses."""
    starts, steps, sizes = tuple(starts), tuple(steps), tuple(sizes)
    if sizes == x.shape and not any(starts) and all(step == 1 for step in steps):
        return x
    return SLICE(x, attrs=(starts, steps, sizes))


def slice_dim(x: Value, dim: int, start: int, step: int, size: int) -> Value:
    """`slice_` along one dimension."""
    starts, steps, sizes = [0] * x.ndim, [1] * x.ndim, list(x.shape)
    starts[dim], steps[dim], sizes[dim] = start, step, size
    return slice_(x, starts, steps, sizes)


@SLICE.vjp
def slice_vjp(node, g):
    starts, steps, _ = node.attrs
    return (spread(g, starts, steps, node.inputs[0].shape),)


# --------------------------------------------------------------------------- spread (pad)
def _infer_spread(inputs, attrs):
    return attrs[2], inputs[0].dtype


def _map_spread(node, index):
    """(index of the input, condition): outside the condition the result is the fill value."""
    starts, steps, _, _ = node.attrs
    result, conditions = [], []
    for d, i in enumerate(index):
        size = node.inputs[0].shape[d]
        if starts[d] == 0 and steps[d] == 1 and size == node.shape[d]:
            result.append(i)
            continue
        position, inside = i.unspread(starts[d], steps[d], size)
        result.append(position)
        conditions += inside
    return result, conditions


SPREAD = Primitive("spread", "spread", _infer_spread, index_map=_map_spread)


def spread(x: Value, starts, steps, shape, fill: float = 0) -> Value:
    """The inverse of `slice_`: x[i] at start + i * step, `fill` elsewhere. Negative starts crop.

    Padding is spread with step 1.
    """
    starts, steps, shape = tuple(starts), tuple(steps), tuple(shape)
    if shape == x.shape and not any(starts) and all(step == 1 for step in steps):
        return x
    return SPREAD(x, attrs=(starts, steps, shape, fill))


@SPREAD.vjp
def spread_vjp(node, g):
    starts, steps, _, _ = node.attrs
    shape = node.inputs[0].shape
    inside = all(start >= 0 and 0 <= start + (size - 1) * step < out for start, step, size, out
                 in zip(starts, steps, shape, node.shape, strict=True))
    if inside:
        return (slice_(g, starts, steps, shape),)
    # cropping: pad g with zeros so that every element of x has a place, then slice
    low = [max(0, -start) for start in starts]
    high = [max(0, start + (size - 1) * step + 1 - out) for start, step, size, out
            in zip(starts, steps, shape, node.shape, strict=True)]
    padded = spread(g, low, (1,) * g.ndim,
                    [a + size + b for a, size, b in zip(low, g.shape, high, strict=True)])
    return (slice_(padded, [s + a for s, a in zip(starts, low, strict=True)], steps, shape),)


# --------------------------------------------------------------------------- diagonal
def _infer_diagonal(inputs, attrs):
    return inputs[0].shape[:-2] + (attrs[2],), inputs[0].dtype


def _map_diagonal(node, index):
    row, column, _ = node.attrs
    return [*index[:-1], index[-1].shifted(row), index[-1].shifted(column)]


def _layout_diagonal(shape, strides, offset, attrs, out_shape):
    row, column, _ = attrs
    return (strides[:-2] + (strides[-2] + strides[-1],),
            offset + row * strides[-2] + column * strides[-1])


DIAGONAL = _movement("diagonal", _infer_diagonal, _map_diagonal, _layout_diagonal)


def take_diagonal(x: Value, row: int, column: int, length: int) -> Value:
    """x[..., row + i, column + i] for i < length."""
    return DIAGONAL(x, attrs=(row, column, length))


# --------------------------------------------------------------------------- as_strided
def _map_strided(node, index):
    raise AssertionError("as_strided is resolved on buffers")


def _layout_strided(shape, strides, offset, attrs, out_shape):
    return attrs[1], offset + attrs[2]


AS_STRIDED = _movement("as_strided", _infer_reshaped, _map_strided, _layout_strided)


def as_strided(x: Value, shape, strides, offset: int) -> Value:
    """Any view of the memory of `x`, which lies row-major; offset counts from its first element."""
    return AS_STRIDED(x, attrs=(tuple(shape), tuple(strides), offset))


# --------------------------------------------------------------------------- window and fold
def _infer_window(inputs, attrs):
    kernel, stride, dilation = attrs
    x, rank = inputs[0].shape, len(kernel)
    lead, sizes = x[:-rank], x[-rank:]
    out = tuple((size - d * (k - 1) - 1) // s + 1
                for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True))
    return lead + out + kernel, inputs[0].dtype


def _map_window(node, index):
    kernel, stride, dilation = node.attrs
    rank = len(kernel)
    lead = len(index) - 2 * rank
    inner = [index[lead + d].scaled(stride[d]).plus(index[lead + rank + d].scaled(dilation[d]))
             for d in range(rank)]
    return list(index[:lead]) + inner


def _layout_window(shape, strides, offset, attrs, out_shape):
    kernel, stride, dilation = attrs
    rank = len(kernel)
    lead, inner = strides[:-rank], strides[-rank:]
    return (lead + tuple(a * b for a, b in zip(inner, stride, strict=True))
            + tuple(a * b for a, b in zip(inner, dilation, strict=True))), offset


WINDOW = _movement("window", _infer_window, _map_window, _layout_window)


def window(x: Value, kernel, stride, dilation) -> Value:
    """Windows over the last dimensions, as overlapping views: (..., size) -> (..., out, kernel)."""
    return WINDOW(x, attrs=(tuple(kernel), tuple(stride), tuple(dilation)))


def _infer_fold(inputs, attrs):
    return attrs[3], inputs[0].dtype


FOLD = Primitive("fold", "fold", _infer_fold)


def fold(x: Value, kernel, stride, dilation, shape) -> Value:
    """The transpose of `window`: sums every window element into the place it came from."""
    return FOLD(x, attrs=(tuple(kernel), tuple(stride), tuple(dilation), tuple(shape)))


@WINDOW.vjp
def window_vjp(node, g):
    return (fold(g, *node.attrs, node.inputs[0].shape),)


@FOLD.vjp
def fold_vjp(node, g):
    return (window(g, *node.attrs[:3]),)


# --------------------------------------------------------------------------- cat
def _infer_cat(inputs, attrs):
    dim = attrs[0]
    shape = list(inputs[0].shape)
    for value in inputs[1:]:
        assert len(value.shape) == len(shape) and all(
            a == b for d, (a, b) in enumerate(zip(value.shape, shape, strict=True)) if d != dim)
    shape[dim] = sum(value.shape[dim] for value in inputs)
    return tuple(shape), inputs[0].dtype


CAT = Primitive("cat", "cat", _infer_cat)


def cat(values, dim: int) -> Value:
    """Join values along `dim`."""
    values = tuple(values)
    return values[0] if len(values) == 1 else CAT(*values, attrs=(dim,))


@CAT.vjp
def cat_vjp(node, g):
    dim, start, result = node.attrs[0], 0, []
    for value in node.inputs:
        size = value.shape[dim]
        result.append(slice_dim(g, dim, start, 1, size))
        start += size
    return tuple(result)


# --------------------------------------------------------------------------- reductions
def _infer_reduce(inputs, attrs):
    dims = set(attrs[0])
    return tuple(s for d, s in enumerate(inputs[0].shape) if d not in dims), inputs[0].dtype


def _infer_arg(inputs, attrs):
    return _infer_reduce(inputs, attrs)[0], dtypes.int64


def _reduction(name: str, infer=_infer_reduce) -> Primitive:
    return Primitive(name, "reduce", infer)


REDUCE_SUM, REDUCE_PROD = _reduction("reduce_sum"), _reduction("reduce_prod")
REDUCE_MAX, REDUCE_MIN = _reduction("reduce_max"), _reduction("reduce_min")
REDUCE_ARGMAX, REDUCE_ARGMIN = (_reduction("reduce_argmax", _infer_arg),
                                _reduction("reduce_argmin", _infer_arg))
REDUCE_ARGMAX.differentiable = REDUCE_ARGMIN.differentiable = False


def _reduce(prim: Primitive):
    def reduce(x: Value, dims) -> Value:
        dims = tuple(sorted(dims))
        return prim(x, attrs=(dims,)) if dims else x

    reduce.__name__ = prim.name
    return reduce


reduce_sum, reduce_prod = _reduce(REDUCE_SUM), _reduce(REDUCE_PROD)
reduce_max, reduce_min = _reduce(REDUCE_MAX), _reduce(REDUCE_MIN)


def reduce_arg(x: Value, dims, largest: bool) -> Value:
    """Position of the first extremum along `dims`, counted row-major over them; NaN is extreme."""
    return (REDUCE_ARGMAX if largest else REDUCE_ARGMIN)(x, attrs=(tuple(sorted(dims)),))


def unreduce(y: Value, shape, dims) -> Value:
    """Broadcast the result of a reduction over `dims` back to `shape`."""
    kept = [1 if d in dims else size for d, size in enumerate(shape)]
    return expand(reshape(y, kept), shape)


@REDUCE_SUM.vjp
def reduce_sum_vjp(node, g):
    return (unreduce(g, node.inputs[0].shape, node.attrs[0]),)


# --------------------------------------------------------------------------- lookup and scatter
def _infer_lookup(inputs, attrs):
    return attrs[1], inputs[0].dtype


LOOKUP = Primitive("lookup", "lookup", _infer_lookup)
SCATTER = Primitive("scatter", "scatter", infer_same)


def lookup(x: Value, coords, shape) -> Value:
    """out[o] = x[c0(o), c1(o), ...]: one coordinate per dimension of `x`.

    Args:
        coords: an int d (the output's own index along d) or an int64 Value of shape `shape`, whose
            entries must lie in [-size, size).
        shape: of the result.
    """
    indices = tuple(c for c in coords if isinstance(c, Value))
    pattern = tuple(None if isinstance(c, Value) else c for c in coords)
    return LOOKUP(x, *indices, attrs=(pattern, tuple(shape)))


def scatter(base: Value, coords, source: Value, mode: str) -> Value:
    """`base` with base[c0(s), c1(s), ...] (mode)= source[s] for every position s, in order.

    Args:
        coords: as in `lookup`, over the positions of `source`.
        mode: "set", "add", "mul", "max" or "min".
    """
    indices = tuple(c for c in coords if isinstance(c, Value))
    pattern = tuple(None if isinstance(c, Value) else c for c in coords)
    return SCATTER(base, source, *indices, attrs=(pattern, mode))


def coordinates(pattern, indices):
    """The coordinates that `lookup` and `scatter` were called with: `indices` fill the gaps."""
    remaining = iter(indices)
    return [next(remaining) if c is None else c for c in pattern]


@LOOKUP.vjp
def lookup_vjp(node, g):
    x, *indices = node.inputs
    zero = expand(constant(0, x.dtype, number=False), x.shape)
    grad = scatter(zero, coordinates(node.attrs[0], indices), g, "add")
    return (grad,) + (None,) * len(indices)
