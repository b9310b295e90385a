"""Reading and writing at positions that tensors hold."""

from __future__ import annotations

import math

from flambeau.core import dtypes
from flambeau.core.shapes import broadcast_shapes, normalize_dim
from flambeau.ir.graph import Value, constant
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.activation import beside
from flambeau.ops.checks import one_dtype
from flambeau.ops.primitives import convert
from flambeau.ops.primitives.gradients import product_gradients
from flambeau.ops.record import Index, Number, Operand, Tensor, Tensors, lift, op
from flambeau.ops.samples import Arr, sample

BEYOND = 1 << 62  # taken off negative indices where they are not allowed: then the check fails


def positions(name: str, index: Value, negative: bool = False) -> Value:
    """Indices as int64; negative ones count from the end if allowed, and else fail the range check.

    Raises:
        RuntimeError: `index` does not hold integers.
    """
    if index.dtype.kind not in "iu":
        raise RuntimeError(f"{name}(): Expected dtype int32/int64 for index, got "
                           f"{index.dtype.name}")
    index = convert(index, dtypes.int64)
    if negative:
        return index
    return p.where(p.lt(index, p.zero_like(index)), p.sub(index, e.like(BEYOND, index)), index)


def _shape_of(call, name: str) -> list[int]:
    """The shape of the tensor argument `name` of a call."""
    for param, (kind, what) in zip(call.record.params, call.structure, strict=True):
        if param.name == name and kind == "input":
            return list(call.avals[what][0])
    return []


def along_dim(index: int, call, args) -> Exception:
    """An index beyond the dimension `dim` of `input`."""
    shape = _shape_of(call, "input") or [1]
    dim = normalize_dim(call._static("dim") or 0, len(shape))
    return RuntimeError(f"index {index} is out of bounds for dimension {dim} with size "
                        f"{shape[dim]} ({call.name}: the input has shape {shape}; negative indices "
                        "are not taken)")


def along_dim_as_index_error(index: int, call, args) -> Exception:
    """The same where PyTorch raises IndexError."""
    text = str(along_dim(index, call, args))
    return IndexError(f"{call.name}_(): {text}" if call.name == "index_copy" else text)


def along_dim_from_both_ends(index: int, call, args) -> Exception:
    """The same where negative indices count from the end."""
    return IndexError(str(along_dim(index, call, args)).partition(" (")[0])


def in_self(index: int, call, args) -> Exception:
    """An index beyond the table that it addresses."""
    table = _shape_of(call, "weight") or _shape_of(call, "input") or [1]
    dim = normalize_dim(call._static("dim") or 0, len(table))
    return IndexError(f"index out of range in self: {call.name} got index {index}, but dimension "
                      f"{dim} of {table} allows 0 to {table[dim] - 1}")


def _flat_error(index: int, call, args) -> Exception:
    shape = _shape_of(call, "input")
    return IndexError(f"out of range: tried to access index {index} on a tensor of "
                      f"{math.prod(shape)} elements. (shape {shape})")


def _advanced_error(index: int, call, args) -> Exception:
    shape = _shape_of(call, "input")
    dim = next((d for d, given in zip(call._static("where"), args[1:], strict=False)
                if not -shape[d] <= index < shape[d] and (given == index).any()), 0)
    return IndexError(f"index {index} is out of bounds for dimension {dim} with size {shape[dim]} "
                      f"(the indexed tensor has shape {shape})")


def _at_least_1d(x: Value) -> Value:
    return x if x.ndim else p.reshape(x, (1,))


def _index_arr(shape, high: int) -> Arr:
    return Arr(shape, "int64", 0, high)


# --------------------------------------------------------------------------- along one dimension
def _along(dim: int, index: Value, rank: int) -> list:
    """Coordinates that replace dimension `dim` by `index`, which has the result's shape."""
    return [index if d == dim else d for d in range(rank)]


def _check_gather(x: Value, index: Value, dim: int, src: Value | None = None) -> None:
    if index.ndim != x.ndim:
        raise RuntimeError("Index tensor must have the same number of dimensions as "
                           f"{'self' if src is not None else 'input'} tensor; got index "
                           f"{list(index.shape)} and input {list(x.shape)}")
    small = all(i <= n for d, (i, n) in enumerate(zip(index.shape, x.shape, strict=True))
                if d != dim)
    if src is None:
        if not small:
            wrong = next(d for d, (i, n) in enumerate(zip(index.shape, x.shape, strict=True))
                         if d != dim and i > n)
            raise RuntimeError(f"Size does not match at dimension {wrong} expected index "
                               f"{list(index.shape)} to be no larger than self {list(x.shape)} "
                               f"apart from dimension {dim}")
        return
    if src.ndim != index.ndim:
        raise RuntimeError("Index tensor must have the same number of dimensions as src tensor; "
                           f"got index {list(index.shape)} and src {list(src.shape)}")
    fits = all(
        i <= n for i, n in zip(index.shape, src.shape, strict=True))
    if not (small and fits):
        raise RuntimeError(f"Expected index {list(index.shape)} to be no larger than self "
                           f"{list(x.shape)} apart from dimension {dim} and to be no larger size "
                           f"than src {list(src.shape)}")


def _gather_samples():
    yield sample(Arr((3, 4)), 0, _index_arr((2, 4), 3))
    yield sample(Arr((2, 3, 5)), -1, _index_arr((2, 2, 7), 5))
    yield sample(Arr((5,)), 0, _index_arr((8,), 5))
    yield sample(Arr(()), 0, _index_arr((), 1))


@op(opmath=False, samples=_gather_samples, index_error=along_dim)
def gather(input: Tensor, dim: int, index: Index, *, sparse_grad: bool = False):
    """result[i][j] = input[index[i][j]][j] for dim 0, and so on: along `dim` the index decides.

    >>> torch.gather(torch.tensor([[1, 2], [3, 4]]), 1, torch.tensor([[0, 0], [1, 0]]))
    tensor([[1, 1],
            [4, 3]])
    """
    if sparse_grad:
        raise NotImplementedError("gather: sparse_grad=True is not implemented; use a dense "
                                  "gradient")
    at = normalize_dim(dim, input.ndim)
    x, index_ = _at_least_1d(input), _at_least_1d(positions("gather", index))
    _check_gather(x, index_, at)
    return p.reshape(p.lookup(x, _along(at, index_, x.ndim), index_.shape), index.shape)


def _take_along_samples():
    yield sample(Arr((3, 4)), _index_arr((3, 2), 4), 1)
    yield sample(Arr((3, 4)), _index_arr((1, 4), 3), 0)
    yield sample(Arr((3, 4)), _index_arr((7,), 12))


@op(opmath=False, samples=_take_along_samples, grad="GatherBackward0", index_error=along_dim)
def take_along_dim(input: Tensor, indices: Index, dim: int | None = None):
    """`gather` that broadcasts the other dimensions, and counts negative indices from the end; of
    the flattened input without `dim`.

    >>> x = torch.tensor([[3, 1, 2]])
    >>> torch.take_along_dim(x, x.argsort(dim=1), dim=1)
    tensor([[1, 2, 3]])
    """
    if indices.dtype is not dtypes.int64:
        raise RuntimeError("torch.take_along_dim(): dtype of indices should be Long but got "
                           f"{indices.dtype.scalar_name}")
    if dim is None:
        flat = p.reshape(input, (input.numel,))
        indices = p.reshape(indices, (indices.numel,))
        return gather(flat, 0, _from_front(indices, input.numel))
    if input.ndim != indices.ndim:
        raise RuntimeError("torch.take_along_dim(): input and indices should have the same number "
                           f"of dimensions, but got {input.ndim} dimensions for input, and "
                           f"{indices.ndim} dimensions for indices")
    at = normalize_dim(dim, input.ndim)
    rest = broadcast_shapes(*([1 if d == at else n for d, n in enumerate(x.shape)]
                              for x in (input, indices)))
    x = p.expand(input, [input.shape[at] if d == at else n for d, n in enumerate(rest)])
    indices = p.expand(_from_front(indices, input.shape[at]),
                       [indices.shape[at] if d == at else n for d, n in enumerate(rest)])
    return gather(x, at, indices)


def _from_front(index: Value, size: int) -> Value:
    """Indices with the negative ones counted from the end."""
    return p.where(p.lt(index, p.zero_like(index)), p.add(index, e.like(size, index)), index)


def _vector(name: str, index: Value, negative: bool = False) -> Value:
    if index.ndim > 1:
        raise IndexError(f"{name}(): Index is supposed to be a vector, got {list(index.shape)}")
    return _at_least_1d(positions(name, index, negative))


def _spread_index(index: Value, dim: int, shape) -> Value:
    """A vector of indices along `dim`, broadcast to `shape`."""
    ones = [1] * len(shape)
    ones[dim] = index.shape[0]
    return p.expand(p.reshape(index, ones), shape)


def _select_samples():
    yield sample(Arr((3, 4)), 0, _index_arr((5,), 3))
    yield sample(Arr((2, 3, 5)), -1, _index_arr((2,), 5))
    yield sample(Arr((3, 4)), 1, _index_arr((), 4))


@op(opmath=False, samples=_select_samples, index_error=in_self)
def index_select(input: Tensor, dim: int, index: Index):
    """The slices of `dim` whose numbers are in the vector `index`.

    >>> torch.index_select(torch.tensor([[1, 2], [3, 4]]), 1, torch.tensor([1, 0]))
    tensor([[2, 1],
            [4, 3]])
    """
    at = normalize_dim(dim, input.ndim)
    x, index = _at_least_1d(input), _vector("index_select", index)
    if not input.ndim and index.shape[0] != 1:
        raise RuntimeError("index_select(): Index to scalar can have only 1 value, got "
                           f"{index.shape[0]} value(s)")
    shape = [*x.shape[:at], index.shape[0], *x.shape[at + 1:]]
    y = p.lookup(x, _along(at, _spread_index(index, at, shape), x.ndim), shape)
    return y if input.ndim else p.reshape(y, ())


# --------------------------------------------------------------------------- in row-major order
@op(opmath=False, index_error=_flat_error, samples=lambda: iter([
    sample(Arr((3, 4)), _index_arr((2, 3), 12)),
    sample(Arr((5,)), _index_arr((), 5))]))
def take(input: Tensor, index: Index):
    """Elements of the flattened input, in the shape of `index`.

    >>> torch.take(torch.tensor([[1, 2], [3, 4]]), torch.tensor([0, 3]))
    tensor([1, 4])
    """
    flat = p.reshape(input, (input.numel,))
    return p.lookup(flat, [positions("take", index, True)], index.shape)


@op(inplace=True, opmath=False, index_error=_flat_error, check=one_dtype(
    "put_(): self and source expected to have the same dtype, but got self.dtype = {first} and "
    "source.dtype = {other}", 0, 2), samples=lambda: iter([
    sample(Arr((3, 4)), _index_arr((2, 3), 12), Arr((2, 3)), True),
    sample(Arr((5,)), Arr((1,), "int64", 2, 3), Arr((1,)))]))
def put(input: Tensor, index: Index, source: Tensor, accumulate: bool = False):
    """The input with source written (or added) at positions of the flattened input.

    >>> torch.put(torch.zeros(2, 2), torch.tensor([1, 3]), torch.tensor([5., 6.]))
    tensor([[0., 5.],
            [0., 6.]])
    """
    if source.numel != index.numel:
        raise IndexError("put_(): Expected source and index to have the same number of elements, "
                         f"but got source.numel() = {source.numel}, index.numel() = "
                         f"{index.numel}")
    flat = p.reshape(input, (input.numel,))
    at = p.reshape(positions("put_", index, True), (index.numel,))
    source = p.reshape(source, (source.numel,))
    if accumulate and input.dtype.is_reduced:  # what meets at one place is rounded once
        flat, source = convert(flat, dtypes.float32), convert(source, dtypes.float32)
    found = p.scatter(flat, [at], source, "add" if accumulate else "set")
    return p.reshape(convert(found, input.dtype), input.shape)


# --------------------------------------------------------------------------- scatter
def _scatter_samples():
    yield sample(Arr((3, 4)), 0, Arr((1, 4), "int64", 0, 3),
                 Arr((2, 5), requires_grad=False))
    yield sample(Arr((3, 4)), 1, Arr((3, 1), "int64", 0, 4), value=1.5)
    yield sample(Arr((3, 4)), 1, _index_arr((3, 6), 4), Arr((3, 6), requires_grad=False),
                 reduce="add")
    yield sample(Arr(()), 0, _index_arr((), 1), Arr(()))


def _scatter_grad(call) -> str:
    return "ScatterBackward1" if isinstance(call.avals[-1], type) else "ScatterBackward0"


_AS_SELF = one_dtype("scatter(): Expected self.dtype to be equal to src.dtype", 0, 3)


@op(inplace=True, samples=_scatter_samples, grad=_scatter_grad, index_error=along_dim,
    check=_AS_SELF)
def scatter(input: Tensor, dim: int, index: Index, src: Operand | None = None, *,
            value: Number | None = None, reduce: str | None = None):
    """The input with src (or one value) written where `index` says along `dim`.

    `reduce` "add" or "multiply" combines with what is there.

    >>> torch.scatter(torch.zeros(2, 3), 1, torch.tensor([[2], [0]]), torch.tensor([[5.], [6.]]))
    tensor([[0., 0., 5.],
            [6., 0., 0.]])
    """
    source = src if src is not None else value
    if source is None:
        raise TypeError("scatter() missing required argument 'src' or 'value'")
    mode = {None: "set", "add": "add", "multiply": "mul"}.get(reduce)
    if mode is None:
        raise RuntimeError("reduce argument must be either add or multiply.")
    return _scattered("scatter", input, dim, index, lift(source), mode)


def _scattered(name: str, input: Value, dim: int, index: Value, source: Value,
               mode: str) -> Value:
    at = normalize_dim(dim, input.ndim)
    x, where = _at_least_1d(input), _at_least_1d(positions(name, index))
    if source.number:
        source = p.expand(convert(source, x.dtype), where.shape)
    if source.dtype is not x.dtype:
        raise RuntimeError(f"{name}(): Expected self.dtype to be equal to src.dtype, got "
                           f"{x.dtype.name} and {source.dtype.name}")
    source = _at_least_1d(source)
    _check_gather(x, where, at, source)
    source = p.slice_(source, (0,) * x.ndim, (1,) * x.ndim, where.shape)
    return p.reshape(p.scatter(x, _along(at, where, x.ndim), source, mode), input.shape)


def _add_samples():
    yield sample(Arr((3, 4)), 0, _index_arr((5, 4), 3), Arr((5, 4)))
    yield sample(Arr((2, 3, 5)), -1, _index_arr((2, 2, 7), 5),
                 Arr((2, 3, 8), requires_grad=False))


@op(inplace=True, samples=_add_samples, index_error=along_dim, check=_AS_SELF)
def scatter_add(input: Tensor, dim: int, index: Index, src: Tensor):
    """The input with src added where `index` says along `dim`, in order.

    >>> torch.scatter_add(torch.zeros(3), 0, torch.tensor([0, 0, 2]), torch.tensor([1., 2., 3.]))
    tensor([3., 0., 3.])
    """
    return _scattered("scatter_add", input, dim, index, src, "add")


def _reduce_samples():
    for how in ("sum", "mean", "amax", "amin"):
        yield sample(Arr((3, 4)), 0, _index_arr((5, 4), 3), Arr((5, 4)), how)
        yield sample(Arr((3, 4)), 1, _index_arr((3, 2), 4), Arr((3, 2)), how, include_self=False)
    yield sample(Arr((3, 4), requires_grad=False), 1, _index_arr((3, 2), 4),
                 Arr((3, 2), requires_grad=False), "prod")


_MODES = {"sum": ("add", 0), "mean": ("add", 0), "prod": ("mul", 1), "amax": ("max", -math.inf),
          "amin": ("min", math.inf)}


@op(inplace=True, samples=_reduce_samples, index_error=along_dim, check=_AS_SELF)
def scatter_reduce(input: Tensor, dim: int, index: Index, src: Tensor, reduce: str, *,
                   include_self: bool = True):
    """The input combined with src where `index` says along `dim`: "sum", "mean", "prod", "amax" or
    "amin". Without `include_self`, the input counts only where nothing is written.

    >>> x, into = torch.tensor([2., 4., 6.]), torch.zeros(2)
    >>> torch.scatter_reduce(into, 0, torch.tensor([0, 0, 1]), x, "mean", include_self=False)
    tensor([3., 6.])
    """
    if reduce not in _MODES:
        raise RuntimeError("reduce argument must be either sum, prod, mean, amax or amin, got "
                           f"{reduce}")
    mode, neutral = _MODES[reduce]
    base = input
    if not include_self:
        neutral = _neutral(mode, neutral, input.dtype)
        base = p.where(_touched(input, dim, index), e.like(neutral, input), input)
    result = _scattered("scatter_reduce", base, dim, index, src, mode)
    if reduce != "mean":
        return result
    counts = _counts(input, dim, index, include_self)
    return p.div(result, counts) if input.dtype.kind == "f" else (
        e.floor_divide(result, counts))


def _neutral(mode: str, value: float, dtype) -> float:
    """What changes nothing: `value`, or the limit of an integer type for an extremum."""
    if not math.isinf(value) or dtype.kind == "f":
        return value
    bits = 1 if dtype.kind == "b" else 8 * dtype.itemsize - (dtype.kind == "i")
    low = -(1 << bits) if dtype.kind == "i" else 0
    return low if mode == "max" else (1 << bits) - 1


def _touched(x: Value, dim: int, index: Value) -> Value:
    ones = e.like(True, convert(index, dtypes.bool_))
    none = e.like(False, convert(x, dtypes.bool_))
    return _scattered("scatter_reduce", none, dim, index, ones, "set")


def _counts(x: Value, dim: int, index: Value, include_self: bool) -> Value:
    """How many elements each result is made of, at least 1."""
    ones = p.expand(convert(lift(1), x.dtype), index.shape)
    counts = _scattered("scatter_reduce", e.like(1 if include_self else 0, x), dim, index, ones,
                        "add")
    return p.maximum(counts, e.like(1, counts))


@scatter_reduce.vjp
def scatter_reduce_vjp(g, output, input, dim, index, src, reduce, include_self):
    """Sums pass g on, means share it, extrema share it among the equal, products pass on the
    product of the other factors."""
    at = normalize_dim(dim, input.ndim)

    def picked(x: Value) -> Value:
        y = gather(x, at, index)
        return p.spread(y, (0,) * y.ndim, (1,) * y.ndim, src.shape)

    zero, counted = p.zero_like(g), None
    if not include_self:
        counted = _touched(input, dim, index)
    if reduce in ("sum", "mean"):
        if reduce == "mean":
            g = p.div(g, _counts(input, dim, index, include_self))
        return [g if counted is None else p.where(counted, zero, g), picked(g)]
    area = p.slice_(src, (0,) * src.ndim, (1,) * src.ndim, index.shape)
    if reduce == "prod":
        own = input if counted is None else p.where(counted, e.like(1, input), input)
        coords = _along(at, _at_least_1d(positions("scatter_reduce", index)), max(1, input.ndim))
        own, area = _at_least_1d(own), _at_least_1d(area)
        whole = p.scatter(own, coords, area, "mul")
        to_own, to_area = product_gradients(own, area, coords, _at_least_1d(g), whole)
        to_own = p.reshape(to_own, input.shape)
        to_src = p.spread(p.reshape(to_area, index.shape), (0,) * src.ndim, (1,) * src.ndim,
                          src.shape)
        return [to_own if counted is None else p.where(counted, zero, to_own), to_src]
    own = convert(p.eq(input, output), g.dtype)
    if counted is not None:
        own = p.where(counted, zero, own)
    hit = convert(p.eq(area, gather(output, at, index)), g.dtype)
    hits = _scattered("scatter_reduce", own, dim, index, hit, "add")
    share = p.div(g, p.maximum(hits, e.like(1, hits)))
    to_src = p.spread(p.mul(hit, gather(share, at, index)), (0,) * src.ndim, (1,) * src.ndim,
                      src.shape)
    to_input = p.mul(own, share)
    return [to_input if counted is None else p.where(counted, to_input, g), to_src]


# --------------------------------------------------------------------------- slices by number
def _slices_samples(**kwargs):
    def samples():
        yield sample(Arr((3, 4)), 0, Arr((1,), "int64", 2, 3), Arr((1, 4)), **kwargs)
        yield sample(Arr((2, 3, 5)), -1, Arr((1,), "int64", 0, 5), Arr((2, 3, 1)), **kwargs)

    return samples


def _written_slices(name: str, input: Value, dim: int, index: Value, source: Value,
                    mode: str) -> Value:
    at = normalize_dim(dim, input.ndim)
    x, where = _at_least_1d(input), _vector(name, index)
    source = _checked_slices(name, x, at, where, source)
    coords = _along(at, _spread_index(where, at, source.shape), x.ndim)
    return p.reshape(p.scatter(x, coords, source, mode), input.shape)


def _checked_slices(name: str, x: Value, at: int, where: Value, source: Value) -> Value:
    """The source with at least one dimension, after checking that it fits."""
    source = _at_least_1d(source)
    if source.dtype is not x.dtype:
        raise RuntimeError(f"{name}(): self and source expected to have the same dtype, but got "
                           f"(self) {x.dtype.scalar_name} and (source) {source.dtype.scalar_name}")
    if (*source.shape[:at], *source.shape[at + 1:]) != (*x.shape[:at], *x.shape[at + 1:]):
        raise RuntimeError(f"{name}(): Source/destination tensor must have same slice shapes. "
                           f"Destination shape: {list(x.shape)} and source shape: "
                           f"{list(source.shape)}, apart from dimension {at}.")
    if source.ndim == x.ndim and source.shape[at] != where.shape[0]:
        kind = IndexError if name == "index_copy" else RuntimeError
        raise kind(f"{name}(): Number of indices ({where.shape[0]}) should be equal to "
                   f"source.size(dim): ({source.shape[at]}), for dim: {at}")
    return source


def _index_add_samples():
    yield sample(Arr((3, 4)), 0, _index_arr((5,), 3), Arr((5, 4)))
    yield sample(Arr((2, 3, 5)), -1, _index_arr((7,), 5), Arr((2, 3, 7)), alpha=0.5)


@op(inplace=True, samples=_index_add_samples, index_error=in_self, check=one_dtype(
    "index_add_(): self ({first}) and source ({other}) must have the same scalar type", 0, 3))
def index_add(input: Tensor, dim: int, index: Index, source: Tensor, *, alpha: Number = 1):
    """The input with alpha * source[i] added to slice index[i] of `dim`, in order.

    >>> torch.index_add(torch.zeros(3), 0, torch.tensor([0, 2, 0]), torch.tensor([1., 2., 3.]))
    tensor([4., 0., 2.])
    """
    number = lift(alpha)
    if number.prim.name != "constant" or number.attrs[0] != 1:
        source = p.mul(source, beside(number, source))
    return _written_slices("index_add", input, dim, index, source, "add")


@op(inplace=True, opmath=False, samples=_slices_samples(),
    index_error=along_dim_as_index_error, check=one_dtype(
    "index_copy_(): self and source expected to have the same dtype, but got (self) {first} and "
    "(source) {other}", 0, 3))
def index_copy(input: Tensor, dim: int, index: Index, source: Tensor):
    """The input with slice index[i] of `dim` replaced by source[i].

    >>> torch.index_copy(torch.zeros(3), 0, torch.tensor([2, 0]), torch.tensor([5., 6.]))
    tensor([6., 0., 5.])
    """
    return _written_slices("index_copy", input, dim, index, source, "set")


_INDEX_MODES = {"prod": "prod", "mean": "mean", "amax": "amax", "amin": "amin"}


def _index_reduce_samples():
    for how in _INDEX_MODES:
        grad = how == "mean"
        yield sample(Arr((3, 4)), 0, _index_arr((5,), 3), Arr((5, 4)), how)
        yield sample(Arr((3, 4), requires_grad=grad), 1, _index_arr((2,), 4),
                     Arr((3, 2), requires_grad=grad), how, include_self=False)


@op(inplace=True, samples=_index_reduce_samples, index_error=in_self, check=one_dtype(
    "index_reduce_(): self ({first}) and source ({other}) must have the same scalar type", 0, 3))
def index_reduce(input: Tensor, dim: int, index: Index, source: Tensor, reduce: str, *,
                 include_self: bool = True):
    """The input with source[i] combined with slice index[i] of `dim`: "prod", "mean", "amax" or
    "amin". Without `include_self`, slices of the input count only where nothing is
    written.

    >>> x = torch.tensor([2., 3., 4.])
    >>> torch.index_reduce(torch.ones(2), 0, torch.tensor([0, 0, 1]), x, "prod")
    tensor([6., 4.])
    """
    x, index, source = _reduced_slices(input, dim, index, source, reduce)
    result = scatter_reduce(x, dim, index, source, reduce, include_self=include_self)
    return p.reshape(result, input.shape)


@index_reduce.vjp
def index_reduce_vjp(g, output, input, dim, index, source, reduce, include_self):
    """See scatter_reduce_vjp."""
    x, index, wide = _reduced_slices(input, dim, index, source, reduce)
    grads = scatter_reduce_vjp(p.reshape(g, x.shape), p.reshape(output, x.shape), x, dim, index,
                               wide, reduce, include_self)
    return [p.reshape(grads[0], input.shape), p.reshape(grads[1], source.shape)]


def _reduced_slices(input: Value, dim: int, index: Value, source: Value,
                    reduce: str) -> tuple[Value, Value, Value]:
    """index_reduce's arguments as scatter_reduce takes them."""
    if reduce not in _INDEX_MODES:
        raise RuntimeError("index_reduce(): Expected reduce to be one of prod, mean, amax or amin "
                           f"but got {reduce}.")
    at = normalize_dim(dim, input.ndim)
    x, where = _at_least_1d(input), _vector("index_reduce", index)
    source = _checked_slices("index_reduce", x, at, where, source)
    return x, _spread_index(where, at, source.shape), source


def _fill_samples():
    yield sample(Arr((3, 4)), 0, _index_arr((2,), 3), 1.5)
    yield sample(Arr((2, 3, 5)), -1, _index_arr((2,), 5), Arr(()))


@op(inplace=True, samples=_fill_samples, index_error=along_dim_from_both_ends,
    grad=lambda call: ("IndexFillBackward0" if isinstance(call.avals[-1], type)
                       else "IndexFillBackward1"))
def index_fill(input: Tensor, dim: int, index: Index, value: Operand):
    """The input with the slices of `dim` numbered in `index` set to `value`; negative numbers count
    from the end.

    >>> torch.index_fill(torch.zeros(3), 0, torch.tensor([0, 2]), 7)
    tensor([7., 0., 7.])
    """
    if value.ndim:
        raise RuntimeError("index_fill_ only supports a 0-dimensional value tensor, but got tensor "
                           f"with {value.ndim} dimension(s).")
    at = normalize_dim(dim, input.ndim)
    where = _vector("index_fill_", index, negative=True)
    ones = p.expand(convert(lift(True), dtypes.bool_), where.shape)
    size = input.shape[at] if input.ndim else 1
    marks = p.scatter(p.expand(convert(lift(False), dtypes.bool_), (size,)), [where], ones, "set")
    shape = [1] * input.ndim
    if input.ndim:
        shape[at] = size
    e.no_part_lost(value, input)
    filling = p.expand(convert(value, input.dtype), input.shape)
    return p.where(p.expand(p.reshape(marks, shape), input.shape), filling, input)


# --------------------------------------------------------------------------- advanced indexing
def _advanced(x: Value, indices, where: tuple[int, ...]) -> tuple[list, tuple[int, ...]]:
    """(coordinates in x, shape of the result) of x[..., indices[0], ..., indices[1], ...].

    The dimensions of the broadcast indices stand where the indices stand if these are neighbours,
    else in front.
    """
    try:
        common = broadcast_shapes(*(index.shape for index in indices))
    except RuntimeError:
        shapes = ", ".join(str(list(index.shape)) for index in indices)
        raise IndexError("shape mismatch: indexing tensors could not be broadcast together with "
                         f"shapes {shapes}") from None
    neighbours = where[-1] - where[0] + 1 == len(where)
    front = where[0] if neighbours else 0
    rest = [d for d in range(x.ndim) if d not in where]
    shape = (*(x.shape[d] for d in rest[:front]), *common, *(x.shape[d] for d in rest[front:]))
    coords: list = [None] * x.ndim
    for place, d in enumerate(rest):
        coords[d] = place if place < front else place + len(common)
    for d, index in zip(where, indices, strict=True):
        index = p.expand(positions("index", index, True), common)
        padded = (1,) * front + common + (1,) * (len(shape) - front - len(common))
        coords[d] = p.expand(p.reshape(index, padded), shape)
    return coords, shape


def _index_samples():
    yield sample(Arr((3, 4)), (_index_arr((5,), 3),), (0,))
    yield sample(Arr((3, 4, 5)), (_index_arr((2, 1), 4), Arr((3,), "int64", -5, 5)), (1, 2))
    yield sample(Arr((3, 4, 5)), (_index_arr((2,), 3), _index_arr((2,), 5)), (0, 2))
    yield sample(Arr((3, 4, 5)), (_index_arr((2, 2), 4),), (1,))
    yield sample(Arr((3,)), (_index_arr((), 3),), (0,))


@op(name="_index", opmath=False, method=False, out=False, public=(), samples=_index_samples,
    grad="IndexBackward0", index_error=_advanced_error)
def _index(input: Tensor, indices: Tensors, where: tuple):
    """input[..., indices[0], ...]: index tensors stand at the dimensions `where`, in order."""
    coords, shape = _advanced(input, indices, where)
    return p.lookup(input, coords, shape)


def _put_samples():
    yield sample(Arr((3, 4)), (Arr((1,), "int64", 0, 3),), Arr((4,)), (0,))
    yield sample(Arr((3, 4, 5)), (_index_arr((2, 1), 4), Arr((3,), "int64", -5, 5)), Arr((3, 2, 3)),
                 (1, 2), True)
    yield sample(Arr((3, 4, 5)), (_index_arr((2,), 3), _index_arr((2,), 5)), Arr(()), (0, 2), True)


@op(name="_index_put", inplace=True, method=False, out=False, public=(), samples=_put_samples,
    grad="IndexPutBackward0", index_error=_advanced_error)
def _index_put(input: Tensor, indices: Tensors, values: Tensor, where: tuple,
               accumulate: bool = False):
    """The input with values (broadcast) written, or added, at input[..., indices[0], ...]."""
    if values.dtype is not input.dtype:
        raise RuntimeError("Index put requires the source and destination dtypes match, got "
                           f"{input.dtype.scalar_name} for the destination and "
                           f"{values.dtype.scalar_name} for the source.")
    coords, shape = _advanced(input, indices, where)
    try:
        fits = broadcast_shapes(values.shape, shape) == tuple(shape)
    except RuntimeError:
        fits = False
    if not fits:
        raise RuntimeError(f"shape mismatch: value tensor of shape {list(values.shape)} cannot be "
                           f"broadcast to indexing result of shape {list(shape)}")
    return p.scatter(input, coords, p.expand(values, shape), "add" if accumulate else "set")


# --------------------------------------------------------------------------- by a mask
def _masked_samples():
    yield sample(Arr((3, 4)), Arr((3, 4), "bool"), Arr((12,)))
    yield sample(Arr((3, 4)), Arr((4,), "bool"), Arr((2, 7)))


def _too_few(index: int, call, args) -> Exception:
    return RuntimeError("masked_scatter: Number of elements of source < number of ones in mask: "
                        f"element {index} of the source is asked for")


@op(inplace=True, opmath=False, samples=_masked_samples, index_error=_too_few)
def masked_scatter(input: Tensor, mask: Index, source: Tensor):
    """The input with the elements where `mask` is true replaced by those of source, in order.

    >>> mask = torch.tensor([True, False, True])
    >>> torch.masked_scatter(torch.zeros(3), mask, torch.tensor([5., 6., 7.]))
    tensor([5., 0., 6.])
    """
    if mask.dtype.kind != "b":
        raise RuntimeError("masked_scatter_ only supports boolean masks, but got mask with dtype "
                           f"{mask.dtype.name}")
    if source.dtype is not input.dtype:
        raise RuntimeError("masked_scatter: expected self and source to have same dtypes but got "
                           f"{input.dtype.scalar_name} and {source.dtype.scalar_name}")
    shape = broadcast_shapes(input.shape, mask.shape)
    x, mask = p.expand(input, shape), p.expand(mask, shape)
    flat = p.reshape(mask, (mask.numel,))
    if source.numel == 0 or mask.numel == 0:
        return p.stop_copy(x)
    count = p.cumsum(convert(flat, dtypes.int64), 0)
    at = p.where(flat, p.sub(count, e.like(1, count)), p.zero_like(count))
    taken = p.lookup(p.reshape(source, (source.numel,)), [at], flat.shape)
    return p.where(mask, p.reshape(taken, shape), x)


# --------------------------------------------------------------------------- as many as asked for
def _static_samples():
    yield sample(Arr((5,), "int64", 0, 2), size=3)
    yield sample(Arr((3, 4), "int64", 0, 3), size=20, fill_value=-7)
    yield sample(Arr((), "int64", 0, 2), size=2)


@op(opmath=False, differentiable=False, samples=_static_samples)
def nonzero_static(input: Tensor, *, size: int, fill_value: int = -1):
    """The positions of the first `size` elements that are not zero, one row each, in order; what is
    missing is `fill_value`.

    >>> torch.nonzero_static(torch.tensor([0, 3, 0]), size=2)
    tensor([[ 1],
            [-1]])
    """
    if size < 0:
        raise RuntimeError("nonzero_static: 'size' must be an non-negative integer")
    flat = p.reshape(input, (input.numel,))
    count = p.cumsum(convert(p.ne(flat, p.zero_like(flat)), dtypes.int64), 0)
    wanted = p.iota((size,), 0)
    wanted = p.add(wanted, e.like(1, wanted))
    place = p.search(count, wanted, False) if flat.numel else p.zero_like(wanted)
    found = p.lt(place, e.like(flat.numel, place))
    columns, step = [], input.numel
    for length in input.shape:
        step //= max(1, length)
        column = e.floor_divide(place, e.like(max(1, step), place))
        column = e.remainder(column, e.like(max(1, length), column))
        column = p.where(found, column, e.like(fill_value, column))
        columns.append(p.reshape(column, (size, 1)))
    if not columns:
        return p.expand(constant(0, dtypes.int64, number=False), (size, 0))
    return p.cat(columns, 1)
