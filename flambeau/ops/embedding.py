"""Look-up tables: rows by number, alone or in bags."""

from __future__ import annotations

import math

from flambeau.core import dtypes
from flambeau.ir.graph import Value
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.activation import FUNCTIONAL, floats_only
from flambeau.ops.index import _index_arr, in_self, positions
from flambeau.ops.primitives import convert
from flambeau.ops.record import Index, Number, Tensor, lift, op
from flambeau.ops.reduce import how_many
from flambeau.ops.samples import Arr, sample


def _embedding_samples():
    yield sample(_index_arr((2, 3), 5), Arr((5, 4)))
    yield sample(_index_arr((6,), 5), Arr((5, 4)), padding_idx=2)
    yield sample(_index_arr((6,), 5), Arr((5, 17)), scale_grad_by_freq=True)
    yield sample(_index_arr((), 5), Arr((5, 4)))


@op(opmath=False, method=False, out=False, public=FUNCTIONAL, samples=_embedding_samples,
    index_error=in_self)
def embedding(input: Index, weight: Tensor, padding_idx: int | None = None,
              scale_grad_by_freq: bool = False, sparse: bool = False):
    """Rows of `weight` (n, d) by number: (...) -> (..., d). Row `padding_idx` takes no gradient.

    `scale_grad_by_freq` divides gradients by how often the row occurs.
    """
    if sparse:
        raise NotImplementedError("embedding: sparse gradients are not implemented; use "
                                  "sparse=False")
    if weight.ndim != 2:
        raise RuntimeError("'weight' must be 2-D")
    if input.dtype not in (dtypes.int64, dtypes.int32):
        raise RuntimeError("Expected tensor for argument #1 'indices' to have one of the following "
                           f"scalar types: Long, Int; but got torch.{input.dtype.legacy} instead "
                           "(while checking arguments for embedding)")
    shape = (*input.shape, weight.shape[1])
    return p.lookup(weight, _rows(input, shape), shape)


def _rows(index: Value, shape) -> list:
    index = positions("embedding", index)
    return [p.expand(p.reshape(index, (*index.shape, 1)), shape), len(shape) - 1]


@embedding.vjp
def embedding_vjp(g, input, weight, padding_idx, scale_grad_by_freq):
    """g added up by row, in float32 for 16-bit floats."""
    g = convert(g, dtypes.float32) if g.dtype.is_reduced else g
    if padding_idx is not None:
        padding = padding_idx % weight.shape[0]
        skip = p.eq(input, e.like(padding, input))
        skip = p.expand(p.reshape(skip, (*input.shape, 1)), g.shape)
        g = p.where(skip, p.zero_like(g), g)
    if scale_grad_by_freq:
        at = positions("embedding", input)
        ones = p.expand(convert(lift(1.0), g.dtype), at.shape)
        none = p.expand(convert(lift(0.0), g.dtype), weight.shape[:1])
        count = p.lookup(p.scatter(none, [at], ones, "add"), [at], at.shape)
        g = p.div(g, p.expand(p.reshape(count, (*at.shape, 1)), g.shape))
    zero = p.expand(convert(lift(0.0), g.dtype), weight.shape)
    return p.scatter(zero, _rows(input, g.shape), g, "add")


def _class_error(index: int, call, args) -> Exception:
    classes = call._static("num_classes")
    if index < 0:
        return RuntimeError(f"Class values must be non-negative. Got {index}")
    return RuntimeError(f"Class values must be smaller than num_classes. Got {index}, with "
                        f"num_classes={classes}")


@op(method=False, out=False, public=FUNCTIONAL, differentiable=False,
    index_error=_class_error,
    samples=lambda: iter([sample(_index_arr((2, 3), 5), 5), sample(_index_arr((), 5), 7)]))
def one_hot(tensor: Index, num_classes: int):
    """1 at the position that each element names, 0 elsewhere: (...) -> (..., num_classes)."""
    if tensor.dtype is not dtypes.int64:
        raise RuntimeError("one_hot is only applicable to index tensor of type LongTensor.")
    if num_classes <= 0:
        raise RuntimeError("num_classes should be positive")
    zero = p.expand(convert(lift(0), dtypes.int64), (*tensor.shape, num_classes))
    at = positions("one_hot", tensor)
    ones = e.like(1, at)
    return p.scatter(zero, [*range(tensor.ndim), at], ones, "set")


# --------------------------------------------------------------------------- bags
def _check_tables(name: str, weight: Value, input: Value) -> None:
    if weight.ndim != 2:
        raise RuntimeError("'weight' must be 2-D")
    if input.dtype not in (dtypes.int64, dtypes.int32):
        raise RuntimeError(f"Expected tensor for argument #1 'indices' to have one of the following"
                           f" scalar types: Long, Int; but got {input.dtype!r} instead (while "
                           f"checking arguments for {name})")
    floats_only(name, weight)


class _Bags:
    """Which row goes to which bag.

    Attributes:
        row: the row of every entry, of shape `lead`.
        bag, ends: unless all bags are alike, the bag of every entry, and where bags begin, and the
            last one ends.
        counted: whether the entry counts (it is not the padding), or None if all do.
        lead: (entries,), or (bags, entries of each) if all have as many.
        place: (*lead, width), the shape of the rows that are looked up.
        count: the number of bags; alike: how many entries each has, if all have as many, else 0.
    """

    def __init__(self, weight: Value, input: Value, offsets: Value | None, last: bool,
                 padding_idx: int | None):
        _check_tables("embedding_bag", weight, input)
        self.width = weight.shape[1]
        self.alike = input.shape[1] if offsets is None else 0
        self.count = input.shape[0]
        if self.alike:
            self.lead = (self.count, self.alike)
        else:
            self.lead = (input.numel,)
            self._find_bags(offsets, last)
        self.row = positions("embedding_bag", p.reshape(input, self.lead))
        self.place, self.last = (*self.lead, self.width), len(self.lead)
        self.counted = None
        if padding_idx is not None:
            skipped = e.like(padding_idx % weight.shape[0], self.row)
            self.counted = p.ne(self.row, skipped)

    def _find_bags(self, offsets: Value | None, last: bool) -> None:
        """The bag of every entry."""
        (entries,) = self.lead
        if offsets is None:  # bags without entries
            self.bag = p.iota((entries,), 0)
            self.ends = p.expand(convert(lift(0), dtypes.int64), (self.count + 1,))
            return
        self.count = offsets.shape[0] - last
        self.ends = offsets = convert(offsets, dtypes.int64)
        if not last:
            self.ends = p.cat([offsets, p.expand(e.like(entries, lift(0)), (1,))], 0)
        starts = p.slice_dim(offsets, 0, 0, 1, self.count)
        none = p.expand(convert(lift(0), dtypes.int64), (entries + 1,))
        marks = p.scatter(none, [starts], e.like(1, starts), "add")
        number = p.slice_dim(p.cumsum(marks, 0), 0, 0, 1, entries)
        self.bag = p.sub(number, e.like(1, number))

    def summed(self, weight: Value, scale: Value | None) -> Value:
        """The sums of the rows, each times its entry's scale."""
        held = weight.prim.name != "cast"  # else a kernel of its own would need a copy of the table
        if not self.alike and self.counted is None and held and 0 not in weight.shape:
            return p.segment_sum(self.ends, self.row, weight, scale, checked=True)
        rows = self.rows(weight)
        if scale is not None:
            rows = p.mul(rows, self.wide(scale))
        return self.gathered(rows, 0, "add")

    def wide(self, x: Value) -> Value:
        """One value per entry, for its whole row."""
        return p.expand(p.reshape(x, (*self.lead, 1)), self.place)

    def rows(self, weight: Value) -> Value:
        """The rows, 0 where they do not count."""
        return self.masked(p.lookup(weight, [self.wide(self.row), self.last], self.place))

    def masked(self, rows: Value, fill: float = 0) -> Value:
        if self.counted is None:
            return rows
        return p.where(self.wide(self.counted), rows, e.like(fill, rows))

    def spread(self, x: Value) -> Value:
        """One row per bag, for each entry of the bag."""
        if self.alike:
            return p.unreduce(x, self.place, (1,))
        return p.lookup(x, [self.wide(self.bag), self.last], self.place)

    def sizes(self, dtype) -> Value:
        """How many entries of each bag count, one number per bag."""
        if self.alike and self.counted is None:
            return p.expand(convert(lift(float(self.alike)), dtype), (self.count,))
        if self.counted is None:
            ends, starts = (p.slice_dim(self.ends, 0, first, 1, self.count) for first in (1, 0))
            return convert(p.sub(ends, starts), dtype)
        ones = convert(self.counted, dtype)
        if self.alike:
            return p.reduce_sum(ones, (1,))
        none = p.expand(convert(lift(0.0), dtype), (self.count,))
        return p.scatter(none, [self.bag], ones, "add")

    def gathered(self, rows: Value, start: float, how: str) -> Value:
        """Rows combined by bag: (bags, width)."""
        if self.alike:
            return (p.reduce_sum if how == "add" else p.reduce_max)(rows, (1,))
        base = p.expand(convert(lift(float(start)), rows.dtype), (self.count, self.width))
        return p.scatter(base, [self.wide(self.bag), self.last], rows, how)

    def means(self, total: Value) -> Value:
        sizes = self.sizes(total.dtype)
        sizes = p.maximum(sizes, e.like(1, sizes))
        return p.div(total, p.expand(p.reshape(sizes, (self.count, 1)), total.shape))


def _bag_samples():
    weight, offsets = Arr((6, 4)), Arr((3,), "int64", 0, 1)
    for mode in ("sum", "mean"):
        yield sample(weight, _index_arr((2, 3), 6), None, None, mode)
        yield sample(weight, _index_arr((5,), 6), offsets, None, mode, padding_idx=2)
    yield sample(weight, _index_arr((2, 3), 6), None, Arr((2, 3)), "sum")


@op(name="_embedding_bag", method=False, out=False, public=(), samples=_bag_samples,
    grad="EmbeddingBagBackward0", index_error=in_self)
def _embedding_bag(weight: Tensor, input: Index, offsets: Index | None = None,
                   per_sample_weights: Tensor | None = None, mode: str = "sum",
                   include_last_offset: bool = False, padding_idx: int | None = None,
                   scale_grad_by_freq: bool = False):
    """Sums or means of rows of `weight` (n, d) by bag: (bags, d).

    The bags are the rows of a 2-D `input`, or begin at `offsets` of a 1-D one. The entries equal to
    `padding_idx` do not count. `per_sample_weights` scales rows before they are added up.
    """
    bags = _Bags(weight, input, offsets, include_last_offset, padding_idx)
    scale = per_sample_weights
    total = bags.summed(weight, None if scale is None else p.reshape(scale, bags.row.shape))
    return bags.means(total) if mode == "mean" else total


@_embedding_bag.vjp
def _embedding_bag_vjp(g, weight, input, offsets, per_sample_weights, mode, include_last_offset,
                       padding_idx, scale_grad_by_freq):
    """Every row takes its bag's gradient, times its weight or over the size of the bag."""
    bags = _Bags(weight, input, offsets, include_last_offset, padding_idx)
    part = bags.masked(bags.spread(bags.means(g) if mode == "mean" else g))
    to_samples = None
    if per_sample_weights is not None:
        to_samples = p.reduce_sum(p.mul(part, bags.rows(weight)), (bags.last,))
        to_samples = p.reshape(to_samples, per_sample_weights.shape)
        part = p.mul(part, bags.wide(p.reshape(per_sample_weights, bags.row.shape)))
    zero = p.expand(convert(lift(0.0), g.dtype), weight.shape)
    if scale_grad_by_freq:
        ones = p.expand(convert(lift(1.0), g.dtype), bags.row.shape)
        none = p.expand(convert(lift(0.0), g.dtype), weight.shape[:1])
        count = p.scatter(none, [bags.row], ones, "add")
        part = p.div(part, bags.wide(p.lookup(count, [bags.row], bags.row.shape)))
    return [p.scatter(zero, [bags.wide(bags.row), bags.last], part, "add"), to_samples]


def _bag_max_samples():
    yield sample(Arr((6, 4)), Arr((2, 3), "int64", 0, 6))
    yield sample(Arr((6, 4)), _index_arr((5,), 6), Arr((3,), "int64", 0, 1), padding_idx=2)


@op(name="_embedding_bag_max", method=False, out=False, public=(), samples=_bag_max_samples,
    grad="EmbeddingBagBackward0", index_error=in_self)
def _embedding_bag_max(weight: Tensor, input: Index, offsets: Index | None = None,
                       include_last_offset: bool = False, padding_idx: int | None = None):
    """Maxima of rows of `weight` by bag, 0 for empty bags; see `_embedding_bag`."""
    bags = _Bags(weight, input, offsets, include_last_offset, padding_idx)
    most = bags.gathered(bags.masked(bags.rows(weight), -math.inf), -math.inf, "max")
    return p.where(_empty(bags, most), p.zero_like(most), most)


def _empty(bags: _Bags, like: Value) -> Value:
    sizes = bags.sizes(like.dtype)
    return p.expand(p.reshape(p.eq(sizes, p.zero_like(sizes)), (bags.count, 1)), like.shape)


@_embedding_bag_max.vjp
def _embedding_bag_max_vjp(g, output, weight, input, offsets, include_last_offset, padding_idx):
    """The entries that are their bag's maximum share its gradient."""
    bags = _Bags(weight, input, offsets, include_last_offset, padding_idx)
    hit = convert(p.eq(bags.rows(weight), bags.spread(output)), g.dtype)
    hit = bags.masked(hit)
    hits = bags.gathered(hit, 0, "add")
    share = p.div(g, p.maximum(hits, e.like(1, hits)))
    zero = p.expand(convert(lift(0.0), g.dtype), weight.shape)
    return p.scatter(zero, [bags.wide(bags.row), bags.last], p.mul(hit, bags.spread(share)),
                     "add")


def _renorm_samples():
    yield sample(Arr((6, 4)), _index_arr((2, 3), 6), 1.0)
    yield sample(Arr((6, 4)), _index_arr((5,), 6), 0.5, 1.0)


@op(name="_embedding_renorm", method=False, out=False, inplace=True, public=(),
    samples=_renorm_samples, differentiable=False, index_error=in_self)
def _embedding_renorm(weight: Tensor, indices: Index, max_norm: Number, norm_type: float = 2.0):
    """The table with the rows at `indices` scaled down to a norm of at most `max_norm`."""
    floats_only("embedding_renorm_", weight)
    at = positions("embedding_renorm_", p.reshape(indices, (indices.numel,)))
    shape = (at.shape[0], weight.shape[1])
    coords = [p.expand(p.reshape(at, (at.shape[0], 1)), shape), 1]
    rows = p.lookup(weight, coords, shape)
    size = p.abs_(rows)
    if norm_type == 2:
        norm = p.sqrt(p.reduce_sum(p.mul(size, size), (1,)))
    elif norm_type == math.inf:
        norm = p.reduce_max(size, (1,))
    elif not norm_type:
        norm = how_many(size, (1,))
    else:
        total = p.reduce_sum(p.pow_(size, e.like(norm_type, size)), (1,))
        norm = p.pow_(total, e.like(1 / norm_type, total))
    limit = p.expand(convert(lift(max_norm), norm.dtype), norm.shape)
    factor = p.div(limit, p.add(norm, e.like(1e-7, norm)))
    factor = p.where(p.gt(norm, limit), factor, e.like(1, factor))
    rows = p.mul(rows, convert(p.unreduce(factor, shape, (1,)), rows.dtype))
    return p.scatter(weight, coords, rows, "set")
