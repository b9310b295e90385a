"""Shape operations that compute: copies of views, writes into parts, diagonals, joins."""

from __future__ import annotations

import inspect

from flambeau.core import dtypes
from flambeau.core.shapes import normalize_dim, slice_bounds
from flambeau.ir.graph import Value
from flambeau.ops import primitives as p
from flambeau.ops import views as v
from flambeau.ops.examples import without_example
from flambeau.ops.primitives import convert
from flambeau.ops.record import Op, Tensor, Tensors, op
from flambeau.ops.samples import Arr, sample


# --------------------------------------------------------------------------- copies of views
def _copy_of(view: Op, name: str, **options) -> Op:
    """The op that copies what a view op would show."""

    def body(*args, **kwargs):
        shown = view.body(*args, **kwargs)
        return tuple(p.stop_copy(s) for s in shown) if view.many else p.stop_copy(shown)

    body.__name__ = name
    doc = without_example(view.doc)
    body.__doc__ = f"A copy of: {doc[0].lower()}{doc[1:]}"
    body.__signature__ = inspect.signature(view.body)
    words = "".join(word.capitalize() for word in view.name.split("_"))

    def grad(call) -> str:
        base = view.grad(call) if callable(view.grad) else view.grad
        return f"{base or words + 'Backward0'}_copy"

    options = {"samples": view.samples, "grad": grad, "method": False} | options
    return op(opmath=False, many=view.many, order="rows", **options)(body)


expand_copy = _copy_of(v.expand, "expand_copy")
permute_copy = _copy_of(v.permute, "permute_copy")
transpose_copy = _copy_of(v.transpose, "transpose_copy")
t_copy = _copy_of(v.t, "t_copy")
unsqueeze_copy = _copy_of(v.unsqueeze, "unsqueeze_copy")
squeeze_copy = _copy_of(v.squeeze, "squeeze_copy")
select_copy = _copy_of(v.select, "select_copy")
slice_copy = _copy_of(v.slice_, "slice_copy")
diagonal_copy = _copy_of(v.diagonal, "diagonal_copy")
unfold_copy = _copy_of(v.unfold, "unfold_copy")
alias_copy = _copy_of(v.alias, "alias_copy")
narrow_copy = _copy_of(v.narrow, "narrow_copy", grad="NarrowCopyBackward0",
                       samples=v.one(dim=1, start=1, length=2), method=True)
split_copy = _copy_of(v.split, "split_copy", out=False)
unbind_copy = _copy_of(v.unbind, "unbind_copy", out=False)


# --------------------------------------------------------------------------- writing into a part
def _placed(input: Value, src: Value, starts, steps) -> Value:
    """input with src in place of the slice that starts and steps describe."""
    src = convert(src, input.dtype)
    there = p.spread(p.filled(True, convert(src, dtypes.bool_)), starts, steps, input.shape)
    return p.where(there, p.spread(src, starts, steps, input.shape), input)


@op(opmath=False, samples=lambda: iter([sample(Arr((2, 3, 4)), Arr((2, 4)), 1, 2)]))
def select_scatter(input: Tensor, src: Tensor, dim: int, index: int):
    """input with src at `index` of dimension dim.

    >>> torch.select_scatter(torch.zeros(2, 2), torch.tensor([5., 6.]), 0, 1)
    tensor([[0., 0.],
            [5., 6.]])
    """
    shown = v.select.body(input, dim, index)
    if shown.shape != src.shape:
        raise RuntimeError("expected src to have a size equal to the slice of self. src size = "
                           f"{list(src.shape)}, slice size = {list(shown.shape)}")
    at = normalize_dim(dim, input.ndim)
    starts = [index % input.shape[at] if d == at else 0 for d in range(input.ndim)]
    wide = p.reshape(src, src.shape[:at] + (1,) + src.shape[at:])
    return _placed(input, wide, starts, [1] * input.ndim)


@op(opmath=False, samples=lambda: iter([sample(Arr((5, 4)), Arr((2, 4)), 0, 1, 5, 2),
                                        sample(Arr((5, 4)), Arr((5, 4)))]))
def slice_scatter(input: Tensor, src: Tensor, dim: int = 0, start: int | None = None,
                  end: int | None = None, step: int = 1):
    """input with src in place of input[start:end:step] along dim.

    >>> torch.slice_scatter(torch.zeros(4), torch.tensor([5., 6.]), start=1, end=3)
    tensor([0., 5., 6., 0.])
    """
    if not input.ndim:
        raise IndexError("slice_scatter(): slice() cannot be applied to a 0-dim tensor.")
    at = normalize_dim(dim, input.ndim)
    shown = v.slice_.body(input, at, start, end, step)
    if shown.shape != src.shape:
        raise RuntimeError("expected src to have a size equal to the slice of self. src size = "
                           f"{list(src.shape)}, slice size = {list(shown.shape)}")
    if not src.numel:
        return p.stop_copy(input)
    first, _ = slice_bounds(start, end, input.shape[at])
    return _placed(input, src, [first if d == at else 0 for d in range(input.ndim)],
                   [step if d == at else 1 for d in range(input.ndim)])


@op(opmath=False, order="first", samples=lambda: iter([
    sample(Arr((3, 4)), Arr((3,)), 1), sample(Arr((3, 4, 2)), Arr((4, 2)), 0, 0, 2)]))
def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1):
    """input with src on the diagonal of dim1 and dim2.

    >>> torch.diagonal_scatter(torch.zeros(2, 2), torch.tensor([5., 6.]))
    tensor([[5., 0.],
            [0., 6.]])
    """
    shown = v.diagonal.body(input, offset, dim1, dim2)
    if shown.shape != src.shape:
        raise RuntimeError("expected src to have a size equal to the slice of self. src size = "
                           f"{list(src.shape)}, slice size = {list(shown.shape)}")
    wide = _along_rows(convert(src, input.dtype), input.shape, offset, dim1, dim2)
    return p.where(_is_diagonal(input.shape, offset, dim1, dim2), wide, input)


@diagonal_scatter.vjp
def diagonal_scatter_vjp(g, input, src, offset, dim1, dim2):
    """The diagonal goes to src, the rest to the input."""
    there = _is_diagonal(g.shape, offset, dim1, dim2)
    return p.where(there, p.zero_like(g), g), v.diagonal.body(g, offset, dim1, dim2)


def _is_diagonal(shape, offset: int, dim1: int, dim2: int) -> Value:
    """Which elements of a tensor lie on the diagonal of two dimensions."""
    a, b = normalize_dim(dim1, len(shape)), normalize_dim(dim2, len(shape))
    row = p.iota(shape, a)
    return p.eq(p.add(row, p.filled(offset, row)), p.iota(shape, b))


def _along_rows(src: Value, shape, offset: int, dim1: int, dim2: int) -> Value:
    """What lies on a diagonal, in every column of its row of dim1."""
    a, b = normalize_dim(dim1, len(shape)), normalize_dim(dim2, len(shape))
    last = src.ndim - 1
    starts, longer = [0] * src.ndim, list(src.shape)
    starts[last], longer[last] = max(0, -offset), shape[a]
    rows = p.spread(src, starts, [1] * src.ndim, longer)
    rest = [d for d in range(len(shape)) if d not in (a, b)]
    rows = p.reshape(p.permute(rows, [[*rest, a].index(d) for d in range(len(shape)) if d != b]),
                     [1 if d == b else size for d, size in enumerate(shape)])
    return p.expand(rows, shape)


# --------------------------------------------------------------------------- diagonals
@op(opmath=False, samples=lambda: iter([sample(Arr((3,))), sample(Arr((2, 3)), 1),
                                        sample(Arr((2, 3)), -1, 0, 2)]))
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1):
    """Matrices whose diagonals are the last dimension of input and which are 0 elsewhere.

    >>> torch.diag_embed(torch.tensor([1, 2]), offset=1)
    tensor([[0, 1, 0],
            [0, 0, 2],
            [0, 0, 0]])
    """
    rank = input.ndim + 1
    a, b = normalize_dim(dim1, rank), normalize_dim(dim2, rank)
    if a == b:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    size = input.shape[-1] + abs(offset)
    shape = (*input.shape[:-1], size, size)
    lead = [0] * (input.ndim - 1)
    padded = p.spread(input, [*lead, max(0, offset)], [1] * input.ndim, (*input.shape[:-1], size))
    wide = p.expand(p.reshape(padded, (*padded.shape[:-1], 1, size)), shape)
    rows, columns = p.iota(shape, rank - 2), p.iota(shape, rank - 1)
    there = p.eq(columns, p.add(rows, p.filled(offset, rows)))
    matrix = p.where(there, wide, p.zero_like(wide))
    rest = iter(range(rank - 2))
    order = [rank - 2 if d == a else rank - 1 if d == b else next(rest) for d in range(rank)]
    return p.permute(matrix, order)


@op(opmath=False, samples=lambda: iter([sample(Arr((3,)), 1), sample(Arr((3, 4)), -1)]),
    grad=lambda call: "DiagEmbedBackward0" if len(call.avals[0][0]) == 1 else "DiagonalBackward0")
def diag(input: Tensor, diagonal: int = 0):
    """A vector as the diagonal of a matrix; the diagonal of a matrix as a vector.

    >>> torch.diag(torch.tensor([1, 2]))
    tensor([[1, 0],
            [0, 2]])
    >>> torch.diag(torch.tensor([[1, 2], [3, 4]]), 1)
    tensor([2])
    """
    if input.ndim == 1:
        return diag_embed.body(input, diagonal)
    if input.ndim != 2:
        raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {input.ndim}D")
    return p.stop_copy(v.diagonal.body(input, diagonal))


@op(opmath=False, out=False, samples=lambda: iter([sample(Arr((3,)), 1), sample(Arr((2, 2)))]),
    grad="DiagEmbedBackward0")
def diagflat(input: Tensor, offset: int = 0):
    """All elements as the diagonal of a matrix.

    >>> torch.diagflat(torch.tensor([[1, 2]]))
    tensor([[1, 0],
            [0, 2]])
    """
    return diag_embed.body(p.reshape(input, (input.numel,)), offset)


@op(out=False, samples=lambda: iter([sample(Arr((3, 4)))]))
def trace(input: Tensor):
    """The sum of the diagonal of a matrix; integers add up in int64.

    >>> torch.trace(torch.tensor([[1, 2], [3, 4]]))
    tensor(5)
    """
    if input.ndim != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {input.ndim}")
    line = v.diagonal.body(input)
    return p.reduce_sum(convert(line, dtypes.int64) if line.dtype.is_integral else line, (0,))


# --------------------------------------------------------------------------- turning
def _turned(call) -> list[int]:
    """Which dimension of the input each dimension of the result is."""
    rank, (a, b) = len(call.avals[0][0]), call._static("dims")
    places = list(range(rank))
    if call._static("k") % 2:
        places[a], places[b] = places[b], places[a]
    return places


@op(opmath=False, out=False, name="_rot90", public=(), method=False, grad="Rot90Backward0",
    order=_turned, samples=lambda: iter([sample(Arr((2, 3)), k) for k in (0, 1, 2, 3)]))
def _rot90(input: Tensor, k: int = 1, dims: tuple = (0, 1)):
    """The tensor turned k times by 90 degrees in the plane of two dimensions."""
    if len(dims) != 2:
        raise RuntimeError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
    if input.ndim < 2:
        raise RuntimeError(f"expected total dims >= 2, but got total dims = {input.ndim}")
    if dims[0] == dims[1] or abs(dims[0] - dims[1]) == input.ndim:
        raise RuntimeError(f"expected rotation dims to be different, but got dim0 = {dims[0]} and "
                           f"dim1 = {dims[1]}")
    for dim in dims:
        if not -input.ndim <= dim < input.ndim:
            raise RuntimeError(f"Rotation dim{dims.index(dim)} out of range, dim{dims.index(dim)} "
                               f"= {dim}")
    a, b = (normalize_dim(d, input.ndim) for d in dims)
    turns = k % 4
    if turns == 2:
        return v.flip.body(input, (a, b))
    if turns == 1:
        return p.stop_copy(v.transpose.body(v.flip.body(input, (b,)), a, b))
    if turns == 3:
        return p.stop_copy(v.transpose.body(v.flip.body(input, (a,)), a, b))
    return p.stop_copy(input)


@op(opmath=False, out=False, order="first", samples=v.one(shape=(3, 4)), grad="FlipBackward0")
def fliplr(input: Tensor):
    """The columns (dimension 1) in reverse order.

    >>> torch.fliplr(torch.tensor([[1, 2], [3, 4]]))
    tensor([[2, 1],
            [4, 3]])
    """
    if input.ndim < 2:
        raise RuntimeError("Input must be >= 2-d.")
    return v.flip.body(input, (1,))


@op(opmath=False, out=False, order="first", samples=v.one(shape=(3, 4)), grad="FlipBackward0")
def flipud(input: Tensor):
    """The rows (dimension 0) in reverse order.

    >>> torch.flipud(torch.tensor([[1, 2], [3, 4]]))
    tensor([[3, 4],
            [1, 2]])
    """
    if input.ndim < 1:
        raise RuntimeError("Input must be >= 1-d.")
    return v.flip.body(input, (0,))


# --------------------------------------------------------------------------- joins
def _joined(name: str, tensors, rank: int) -> list[Value]:
    """The tensors with at least `rank` dimensions."""
    if not tensors:
        raise RuntimeError(f"{name} expects a non-empty TensorList")
    return [at_least(t, rank) for t in tensors]


def at_least(x: Value, rank: int) -> Value:
    """Dimensions of size 1 added: scalars and vectors as rows, matrices in depth."""
    if x.ndim >= rank:
        return x
    shape = {0: (1,) * rank, 1: (1, *x.shape, 1)[rank == 1:rank], 2: (*x.shape, 1)}[x.ndim]
    return p.reshape(x, shape)


def _stacker(name: str, rank: int, dim: int, doc: str, aliases=()) -> Op:
    def body(tensors: Tensors):
        parts = _joined(name, tensors, rank)
        return v.cat.body(parts, 0 if parts[0].ndim == 1 else dim)

    body.__name__, body.__doc__, body.__annotations__ = name, doc, {"tensors": "Tensors"}
    return op(promote="match", opmath=False, method=False, order="rows", aliases=aliases,
              grad="CatBackward0", samples=v._list_samples((2, 3, 1), (2, 3, 1)))(body)


hstack = _stacker("hstack", 1, 1, "Join along columns (vectors along their only dimension).")
vstack = _stacker("vstack", 2, 0, "Join along rows; vectors are rows.", ("row_stack",))
dstack = _stacker("dstack", 3, 2, "Join along the third dimension; matrices gain one.")


@op(promote="match", opmath=False, method=False, grad="CatBackward0",
    samples=v._list_samples((3,), (3, 2), (3,)))
def column_stack(tensors: Tensors):
    """Join along columns; vectors are columns.

    >>> torch.column_stack((torch.tensor([1, 2]), torch.tensor([3, 4])))
    tensor([[1, 3],
            [2, 4]])
    """
    if not tensors:
        raise RuntimeError("column_stack expects a non-empty TensorList")
    return v.cat.body([p.reshape(t, (t.numel, 1)) if t.ndim <= 1 else t for t in tensors], 1)


@op(promote="match", opmath=False, method=False, out=False, name="_block_diag", public=(),
    samples=v._list_samples((2, 3), (3,), (1, 2)), grad="BlockDiagBackward0")
def _block_diag(tensors: Tensors):
    """A matrix with the tensors (matrices, vectors as rows, scalars) along its diagonal."""
    for place, tensor in enumerate(tensors):
        if tensor.ndim > 2:
            raise RuntimeError("torch.block_diag: Input tensors must have 2 or fewer dimensions. "
                               f"Input {place} has {tensor.ndim} dimensions")
    blocks = [at_least(t, 2) for t in tensors]
    width = sum(b.shape[1] for b in blocks)
    rows, start = [], 0
    for block in blocks:
        rows.append(p.spread(block, (0, start), (1, 1), (block.shape[0], width)))
        start += block.shape[1]
    return p.cat([r for r in rows if r.shape[0]] or rows[:1], 0)


# --------------------------------------------------------------------------- repeats, sums
@op(opmath=False, name="_repeat_each", public=(), method=False, out=False,
    samples=lambda: iter([sample(Arr((2, 3)), 2, 1)]), grad="RepeatInterleaveBackward0")
def _repeat_each(input: Tensor, repeats: int, dim: int):
    """Every slice along dim `repeats` times in a row."""
    at = normalize_dim(dim, input.ndim)
    shape = (*input.shape[:at + 1], repeats, *input.shape[at + 1:])
    wide = p.expand(p.reshape(input, input.shape[:at + 1] + (1,) + input.shape[at + 1:]), shape)
    return p.reshape(p.stop_copy(wide), (*input.shape[:at], input.shape[at] * repeats,
                                         *input.shape[at + 1:]))


@op(name="_sum_to_size", public=(), method=False, out=False, opmath=False,
    samples=lambda: iter([sample(Arr((2, 3)), (1, 3))]), grad="SumBackward1")
def _sum_to_size(input: Tensor, size: tuple):
    """The sum over all dimensions that broadcasting from `size` would stretch."""
    lead = input.ndim - len(size)
    fits = lead >= 0 and all(s in (1, input.shape[lead + d]) for d, s in enumerate(size))
    if not fits:
        raise RuntimeError(f"size {{{list(size)}}} is not expandable to size "
                           f"{{{list(input.shape)}}}.")
    x = convert(input, dtypes.int64) if input.dtype.is_integral else input
    return p.sum_to_shape(x, tuple(size))

