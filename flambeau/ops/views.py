"""Views and shape operations: nothing is computed, memory is shared where the layout allows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.core import dtypes
from flambeau.core.shapes import (
    existing_dim,
    infer_size,
    may_overlap,
    normalize_dim,
    normalize_dims,
    required_span,
    slice_bounds,
)
from flambeau.ir.graph import Value, constant
from flambeau.ops import primitives as p
from flambeau.ops.record import Tensor, Tensors, op, view_op
from flambeau.ops.samples import Arr, sample


def one(*args, shape=(2, 3, 4), **kwargs):
    """Samples of one call on a tensor of `shape`."""
    return lambda: iter([sample(Arr(shape), *args, **kwargs)])


@view_op(samples=one((4, 6)), public=())
def view(input: Tensor, size: tuple):
    """The same elements as a tensor of another shape, without copying."""
    return p.reshape(input, infer_size(size, input.numel))


@op(samples=one((4, 6)), opmath=False, out=False, method=False, public=(), order="rows")
def _reshape_copy(input: Tensor, size: tuple):
    """The elements in another shape, copied."""
    return p.reshape(p.stop_copy(input), infer_size(size, input.numel))


@view_op(samples=one((2, 0, 1)), grad="PermuteBackward0")
def permute(input: Tensor, dims: tuple):
    """Reorder the dimensions: result.shape[i] == input.shape[dims[i]].

    >>> torch.permute(torch.zeros(2, 3, 4), (2, 0, 1)).shape
    torch.Size([4, 2, 3])
    """
    if len(dims) != input.ndim:
        raise RuntimeError("permute(sparse_coo): number of dimensions in the tensor input does not "
                           "match the length of the desired ordering of dimensions i.e. "
                           f"input.dim() = {input.ndim} is not equal to len(dims) = {len(dims)}")
    return p.permute(input, normalize_dims(dims, input.ndim, empty_means_all=False))


@view_op(samples=one(0, 2), aliases=("swapaxes", "swapdims"))
def transpose(input: Tensor, dim0: int, dim1: int):
    """Swap two dimensions.

    >>> torch.transpose(torch.tensor([[1, 2], [3, 4]]), 0, 1)
    tensor([[1, 3],
            [2, 4]])
    """
    if input.ndim == 0:
        normalize_dim(dim0, 0), normalize_dim(dim1, 0)
        return p.reshape(input, ())
    order = list(range(input.ndim))
    a, b = normalize_dim(dim0, input.ndim), normalize_dim(dim1, input.ndim)
    order[a], order[b] = order[b], order[a]
    return p.permute(input, order)


@view_op(samples=one(shape=(3, 4)))
def t(input: Tensor):
    """The transpose of a matrix; vectors and scalars are their own.

    >>> torch.t(torch.tensor([[1, 2], [3, 4]]))
    tensor([[1, 3],
            [2, 4]])
    """
    if input.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D")
    return p.permute(input, range(input.ndim)[::-1])


@view_op(samples=one((5, 2, 3, 4)), public=())
def expand(input: Tensor, size: tuple, *, implicit: bool = False):
    """Broadcast to a larger shape without copying; -1 keeps a size."""
    lead = len(size) - input.ndim
    if lead < 0:
        raise RuntimeError(f"expand({_legacy(input)}{{{list(input.shape)}}}, size={list(size)}): "
                           f"the number of sizes provided ({len(size)}) must be greater or equal "
                           f"to the number of dimensions in the tensor ({input.ndim})")
    shape = []
    for d, wanted in enumerate(size):
        have = input.shape[d - lead] if d >= lead else None
        if wanted == -1:
            if have is None:
                raise RuntimeError("The expanded size of the tensor (-1) isn't allowed in a "
                                   f"leading, non-existing dimension {d}")
            wanted = have
        elif have is not None and have not in (1, wanted):
            raise RuntimeError(f"The expanded size of the tensor ({wanted}) must match the "
                               f"existing size ({have}) at non-singleton dimension {d}.  Target "
                               f"sizes: {list(size)}.  Tensor sizes: {list(input.shape)}")
        shape.append(wanted)
    return p.expand(input, shape)


def _legacy(x: Value) -> str:
    return f"torch.{x.dtype.legacy}"


@view_op(samples=one((3, 4), shape=(4,)), grad="ExpandBackward0")
def broadcast_to(input: Tensor, size: tuple):
    """Broadcast to `size` without copying.

    >>> torch.broadcast_to(torch.tensor([1, 2]), (2, 2))
    tensor([[1, 2],
            [1, 2]])
    """
    return expand(input, size)


@view_op(samples=one(1))
def unsqueeze(input: Tensor, dim: int):
    """Insert a dimension of size 1 at `dim`.

    >>> torch.unsqueeze(torch.tensor([1, 2]), 1)
    tensor([[1],
            [2]])
    """
    at = normalize_dim(dim, input.ndim + 1)
    return p.reshape(input, input.shape[:at] + (1,) + input.shape[at:])


@view_op(samples=one(shape=(1, 3, 1)), grad=lambda call: "SqueezeBackward0" if call._static(
    "dim") is None else "SqueezeBackward1")
def squeeze(input: Tensor, dim: int | tuple | None = None):
    """Drop dimensions of size 1: all, or only those of `dim`.

    >>> torch.squeeze(torch.zeros(1, 2, 1)).shape
    torch.Size([2])
    >>> torch.squeeze(torch.zeros(1, 2, 1), 0).shape
    torch.Size([2, 1])
    """
    if dim is None:
        dims = range(input.ndim)
    else:
        dims = normalize_dims(dim, input.ndim, empty_means_all=False)
    return p.reshape(input, [size for d, size in enumerate(input.shape)
                             if d not in dims or size != 1])


@view_op(samples=one(1, 1), public=("torch",))
def select(input: Tensor, dim: int, index: int):
    """The slice at `index` of dimension `dim`, without that dimension.

    >>> torch.select(torch.tensor([[1, 2], [3, 4]]), 1, 0)
    tensor([1, 3])
    """
    if input.ndim == 0:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    at = normalize_dim(dim, input.ndim)
    size = input.shape[at]
    if not -size <= index < size:
        raise IndexError(f"index {index} is out of bounds for dimension {at} with size {size}")
    kept = p.slice_dim(input, at, index % size, 1, 1)
    return p.reshape(kept, input.shape[:at] + input.shape[at + 1:])


@view_op(samples=one(1, 0, 3, 2), public=(), method=False, name="slice")
def slice_(input: Tensor, dim: int = 0, start: int | None = None, end: int | None = None,
           step: int = 1):
    """input[start:end:step] along `dim`."""
    at = normalize_dim(dim, input.ndim)
    if step < 1:
        raise ValueError("step must be greater than zero (negative steps: use flip)")
    first, last = slice_bounds(start, end, input.shape[at])
    return p.slice_dim(input, at, first, step, max(0, -(-(last - first) // step)))


@view_op(samples=one(1, 1, 2), grad="SliceBackward0")
def narrow(input: Tensor, dim: int, start: int, length: int):
    """`length` elements of dimension `dim` from `start` on.

    >>> torch.narrow(torch.arange(5), 0, 1, 3)
    tensor([1, 2, 3])
    """
    if not input.ndim:
        raise RuntimeError("narrow() cannot be applied to a 0-dim tensor.")
    at = normalize_dim(dim, input.ndim)
    size = input.shape[at]
    if length < 0:
        raise RuntimeError("narrow(): length must be non-negative.")
    if not -size <= start <= size:
        raise IndexError(f"start out of range (expected to be in range of [{-size}, {size}], "
                         f"but got {start})")
    start = start + size if start < 0 else start
    if start + length > size:
        raise RuntimeError(f"start ({start}) + length ({length}) exceeds dimension size ({size}).")
    return p.slice_dim(input, at, start, 1, length)


@view_op(samples=one(0, 2), grad="PermuteBackward0",
         aliases=("moveaxis",))
def movedim(input: Tensor, source: int | tuple, destination: int | tuple):
    """Move dimensions to new positions; the others keep their order.

    >>> torch.movedim(torch.zeros(2, 3, 4), 0, -1).shape
    torch.Size([3, 4, 2])
    """
    given = [[dims] if hasattr(dims, "__index__") else list(dims)
             for dims in (source, destination)]
    if len(given[0]) != len(given[1]):
        raise RuntimeError(f"movedim: Invalid source or destination dims: source ({given[0]} dims) "
                           "should contain the same number of dims as destination "
                           f"({given[1]} dims)")
    take, put = ([normalize_dim(d, input.ndim) for d in dims] for dims in given)
    for word, dims, named in zip(("source", "destination"), (take, put), given, strict=True):
        if len(set(dims)) != len(dims):
            raise RuntimeError(f"movedim: repeated dim in `{word}` ({named})")
    if not input.ndim:
        return p.permute(input, [])
    rest = iter(d for d in range(input.ndim) if d not in take)
    places = dict(zip(put, take, strict=True))
    return p.permute(input, [places[d] if d in places else next(rest) for d in range(input.ndim)])


@view_op(samples=one(1, (3, 1)), public=("torch",), grad="ViewBackward0")
def unflatten(input: Tensor, dim: int, sizes: tuple):
    """Split dimension `dim` into `sizes`.

    >>> torch.unflatten(torch.arange(4), 0, (2, 2))
    tensor([[0, 1],
            [2, 3]])
    """
    if not input.ndim:
        raise RuntimeError(f"unflatten: Dimension specified as {dim} but tensor has no dimensions")
    at = normalize_dim(dim, input.ndim)
    sizes = infer_size(sizes, input.shape[at])
    return p.reshape(input, input.shape[:at] + sizes + input.shape[at + 1:])


@view_op(samples=one(shape=(3, 4)), grad="DiagonalBackward0")
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1):
    """The diagonal of dimensions dim1 and dim2, as the last dimension.

    >>> torch.diagonal(torch.tensor([[1, 2], [3, 4]]))
    tensor([1, 4])
    """
    a, b = normalize_dim(dim1, input.ndim), normalize_dim(dim2, input.ndim)
    if a == b:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    rest = [d for d in range(input.ndim) if d not in (a, b)]
    x = p.permute(input, [*rest, a, b])
    rows, columns = x.shape[-2:]
    first_row, first_column = max(0, -offset), max(0, offset)
    length = max(0, min(rows - first_row, columns - first_column))
    return p.take_diagonal(x, first_row, first_column, length)


@view_op(many=True, samples=one(2, shape=(5, 4)), grad="SplitBackward0")
def split(tensor: Tensor, split_size_or_sections: int | tuple, dim: int = 0):
    """Cut into pieces of a size, or of given sizes, along `dim`.

    >>> torch.split(torch.arange(5), 2)
    (tensor([0, 1]), tensor([2, 3]), tensor([4]))
    >>> torch.split(torch.arange(5), [1, 4])
    (tensor([0]), tensor([1, 2, 3, 4]))
    """
    if not tensor.ndim:
        raise RuntimeError("split expects at least a 1-dimensional tensor, but got one with 0 "
                           "dimensions")
    at = normalize_dim(dim, tensor.ndim)
    size, wanted = tensor.shape[at], split_size_or_sections
    if isinstance(wanted, int):
        if wanted < 0 or (wanted == 0 and size):
            raise RuntimeError("split expects split_size be non-negative, but got "
                               f"split_size={wanted}")
        count = -(-size // wanted) if size else 1
        wanted = [*[wanted] * (count - 1), size - (count - 1) * wanted] if size else [0]
    elif sum(wanted) != size:
        raise RuntimeError(f"split_with_sizes expects split_sizes to sum exactly to {size} (input "
                           f"tensor's size at dimension {at}), but got split_sizes={list(wanted)}")
    pieces, start = [], 0
    for length in wanted:
        pieces.append(p.slice_dim(tensor, at, start, 1, length))
        start += length
    return tuple(pieces)


@split.vjp
def split_vjp(g, output, dim):
    """The pieces' gradients, joined."""
    return _joined(g, output, normalize_dim(dim, _listed(output)[0].ndim))


def _listed(value: Any) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _joined(g: Any, outputs: Any, at: int) -> Value:
    """The gradients of pieces along `at`, joined; zeros for those that have none."""
    pieces = [p.zero_like(o) if piece is None else piece
              for piece, o in zip(_listed(g), _listed(outputs), strict=True)]
    return p.cat([piece for piece in pieces if piece.shape[at]] or pieces[:1], at)


@view_op(many=True, samples=one(2, shape=(5, 4)), grad="SplitBackward0")
def chunk(input: Tensor, chunks: int, dim: int = 0):
    """At most `chunks` pieces of equal size (the last may be smaller).

    >>> torch.chunk(torch.arange(5), 2)
    (tensor([0, 1, 2]), tensor([3, 4]))
    """
    if not input.ndim:
        raise RuntimeError("chunk expects at least a 1-dimensional tensor, but got one with 0 "
                           "dimensions")
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    size = input.shape[normalize_dim(dim, input.ndim)]
    return split(input, max(1, -(-size // chunks)), dim) if size else split(
        input, (0,) * chunks, dim)


@chunk.vjp
def chunk_vjp(g, output, dim):
    """The pieces' gradients, joined."""
    return _joined(g, output, normalize_dim(dim, _listed(output)[0].ndim))


@view_op(many=True, samples=one(1))
def unbind(input: Tensor, dim: int = 0):
    """All slices along `dim`, without it.

    >>> torch.unbind(torch.tensor([[1, 2], [3, 4]]))
    (tensor([1, 2]), tensor([3, 4]))
    """
    at = existing_dim(dim, input.ndim)
    return tuple(select(input, at, i) for i in range(input.shape[at]))


@unbind.vjp
def unbind_vjp(g, output, input, dim):
    """The slices' gradients, joined along the dimension that they lack."""
    at = normalize_dim(dim, input.ndim)
    shape = (*input.shape[:at], 1, *input.shape[at + 1:])
    grads = tuple(None if piece is None else p.reshape(piece, shape) for piece in _listed(g))
    return _joined(grads, tuple(p.reshape(o, shape) for o in _listed(output)), at)


@view_op(samples=one(0, 3, 1, shape=(7,)), public=(), grad="UnfoldBackward0")
def unfold(input: Tensor, dimension: int, size: int, step: int):
    """All windows of `size` elements, `step` apart, along one dimension; they come last.

    >>> torch.arange(5).unfold(0, 3, 2)
    tensor([[0, 1, 2],
            [2, 3, 4]])
    """
    at = normalize_dim(dimension, input.ndim)
    if size > (input.shape[at] if input.ndim else 1):
        raise RuntimeError(f"maximum size for tensor at dimension {at} is "
                           f"{input.shape[at] if input.ndim else 1} but size is {size}")
    if step <= 0:
        raise RuntimeError(f"step is {step} but must be > 0")
    if not input.ndim:
        return p.slice_dim(p.reshape(input, (1,)), 0, 0, 1, size)
    order = [d for d in range(input.ndim) if d != at] + [at]
    windows = p.window(p.permute(input, order), (size,), (step,), (1,))
    back = sorted(range(len(order)), key=order.__getitem__)
    return p.permute(windows, [*back, input.ndim])


@view_op(samples=one(), public=("torch",), differentiable=False)
def detach(input: Tensor):
    """The same memory, outside the graph.

    >>> x = torch.ones(2, requires_grad=True)
    >>> torch.detach(2 * x)
    tensor([2., 2.])
    """
    return p.stop_gradient(input)


@view_op(samples=one(), public=(), method=False, grad="AliasBackward0")
def alias(input: Tensor):
    """Another tensor on the same memory."""
    return p.reshape(input, input.shape)


# --------------------------------------------------------------------------- with copies
@op(opmath=False, order="first", samples=one((0, 2)))
def flip(input: Tensor, dims: tuple):
    """Reverse the order of elements along dims.

    >>> torch.flip(torch.tensor([[1, 2], [3, 4]]), dims=(1,))
    tensor([[2, 1],
            [4, 3]])
    """
    back = normalize_dims(dims, input.ndim, empty_means_all=False)
    starts = [input.shape[d] - 1 if d in back else 0 for d in range(input.ndim)]
    steps = [-1 if d in back else 1 for d in range(input.ndim)]
    return p.slice_(input, starts, steps, input.shape)


@op(opmath=False, samples=one(2, 1))
def roll(input: Tensor, shifts: int | tuple, dims: int | tuple | None = None):
    """Shift elements along dims; those pushed out at the end come back at the start.

    >>> torch.roll(torch.arange(4), 1)
    tensor([3, 0, 1, 2])
    """
    if shifts == ():
        raise RuntimeError("`shifts` required")
    if dims is None or dims == ():
        if not isinstance(shifts, int) and len(shifts) > 1:
            raise RuntimeError(f"shifts and dimensions must align. shifts: {len(shifts)}, dims:0")
        flat = p.reshape(input, (input.numel,))
        return p.reshape(_rolled(flat, shifts if isinstance(shifts, int) else shifts[0], 0),
                         input.shape)
    shifts = (shifts,) if isinstance(shifts, int) else shifts
    dims = (dims,) if isinstance(dims, int) else dims
    if len(shifts) != len(dims):
        raise RuntimeError(f"shifts and dimensions must align. shifts: {len(shifts)}, "
                           f"dims:{len(dims)}")
    result = input
    for shift, dim in zip(shifts, dims, strict=True):
        result = _rolled(result, shift, existing_dim(dim, input.ndim))
    return result


def _rolled(x: Value, shift: int, dim: int) -> Value:
    size = x.shape[dim]
    shift = shift % size if size else 0
    if not shift:
        return x
    return p.cat((p.slice_dim(x, dim, size - shift, 1, shift),
                  p.slice_dim(x, dim, 0, 1, size - shift)), dim)


def _list_samples(*shapes, **kwargs):
    return lambda: iter([sample(tuple(Arr(shape) for shape in shapes), **kwargs)])


@op(promote="match", opmath=False, method=False, order="all", apart=True,
    samples=_list_samples((2, 3), (4, 3)), aliases=("concat", "concatenate"))
def cat(tensors: Tensors, dim: int = 0):
    """Join tensors along an existing dimension.

    >>> torch.cat((torch.tensor([[1, 2]]), torch.tensor([[3, 4]])), dim=0)
    tensor([[1, 2],
            [3, 4]])
    """
    if not tensors:
        raise ValueError("torch.cat(): expected a non-empty list of Tensors")
    kept = [t for t in tensors if t.shape != (0,)] or list(tensors[:1])
    first = kept[0]
    if first.ndim == 0:
        raise RuntimeError("zero-dimensional tensor (at position 0) cannot be concatenated")
    at = normalize_dim(dim, first.ndim)
    for t in kept:
        if t.ndim != first.ndim:
            raise RuntimeError(f"Tensors must have same number of dimensions: got {first.ndim} and "
                               f"{t.ndim} (shapes {list(first.shape)} and {list(t.shape)})")
    for position, t in enumerate(kept[1:], 1):
        for d, (size, wanted) in enumerate(zip(t.shape, first.shape, strict=True)):
            if d != at and size != wanted:
                raise RuntimeError(
                    f"Sizes of tensors must match except in dimension {at}. Expected size {wanted} "
                    f"but got size {size} for tensor number {position} in the list. (the first has "
                    f"shape {list(first.shape)}, this one {list(t.shape)})")
    return p.cat([t for t in kept if t.shape[at]] or kept[:1], at)


@cat.vjp
def cat_vjp(g, tensors, dim):
    """Each tensor gets its slice; those left out because they are empty get zeros."""
    at, start, grads = normalize_dim(dim, g.ndim), 0, []
    for t in tensors:
        if t.shape == (0,) and g.ndim != 1:
            grads.append(p.zero_like(t))
            continue
        grads.append(p.slice_dim(g, at, start, 1, t.shape[at]))
        start += t.shape[at]
    return (grads,)


@op(promote="match", opmath=False, method=False, samples=_list_samples((2, 3), (2, 3), dim=1))
def stack(tensors: Tensors, dim: int = 0):
    """Join tensors of one shape along a new dimension.

    >>> torch.stack((torch.tensor([1, 2]), torch.tensor([3, 4])), dim=1)
    tensor([[1, 3],
            [2, 4]])
    """
    if not tensors:
        raise RuntimeError("stack expects a non-empty TensorList")
    for position, t in enumerate(tensors):
        if t.shape != tensors[0].shape:
            raise RuntimeError(f"stack expects each tensor to be equal size, but got "
                               f"{list(tensors[0].shape)} at entry 0 and {list(t.shape)} at entry "
                               f"{position}")
    return p.cat([unsqueeze(t, dim) for t in tensors],
                 normalize_dim(dim, tensors[0].ndim + 1))


@op(opmath=False, public=(), samples=one((2, 1, 3)), grad="RepeatBackward0")
def repeat(input: Tensor, repeats: tuple):
    """Tile the tensor repeats[d] times along each dimension."""
    if len(repeats) < input.ndim:
        raise RuntimeError("Number of dimensions of repeat dims can not be smaller than number of "
                           "dimensions of tensor")
    shape = (1,) * (len(repeats) - input.ndim) + input.shape
    tiled_shape = [r * s for r, s in zip(repeats, shape, strict=True)]
    if any(n < 0 for n in repeats):
        raise RuntimeError(f"Trying to create tensor with negative dimension {min(tiled_shape)}: "
                           f"{tiled_shape}")
    spread = [n for size in zip(repeats, shape, strict=True) for n in size]
    units = [n for size in shape for n in (1, size)]
    tiled = p.expand(p.reshape(input, units), spread)
    return p.reshape(p.stop_copy(tiled), tiled_shape)


@op(opmath=False, samples=one(), grad="TrilBackward0", inplace=True)
def tril(input: Tensor, diagonal: int = 0):
    """The lower triangle; elements above `diagonal` become 0.

    >>> torch.tril(torch.ones(3, 3), diagonal=-1)
    tensor([[0., 0., 0.],
            [1., 0., 0.],
            [1., 1., 0.]])
    """
    return _triangle(input, diagonal, True)


@op(opmath=False, samples=one(), grad="TriuBackward0", inplace=True)
def triu(input: Tensor, diagonal: int = 0):
    """The upper triangle; elements below `diagonal` become 0.

    >>> torch.triu(torch.ones(3, 3), diagonal=1)
    tensor([[0., 1., 1.],
            [0., 0., 1.],
            [0., 0., 0.]])
    """
    return _triangle(input, diagonal, False)


def _triangle(x: Value, diagonal: int, lower: bool) -> Value:
    if x.ndim < 2:
        raise RuntimeError(f"{'tril' if lower else 'triu'}: input tensor must have at least 2 "
                           "dimensions")
    rows, columns = p.iota(x.shape, x.ndim - 2), p.iota(x.shape, x.ndim - 1)
    limit = p.add(rows, p.filled(diagonal, rows))
    keep = p.le(columns, limit) if lower else p.ge(columns, limit)
    return p.where(keep, x, p.zero_like(x))




@view_op(samples=one((2, 3), (4, 1), 1, shape=(12,)), grad="AsStridedBackward0", public=(),
         method=False)
def as_strided(input: Tensor, size: tuple, stride: tuple, storage_offset: int = 0):
    """Any view of the input's memory; in the graph, the offset counts from its first element."""
    if len(size) != len(stride):
        raise RuntimeError(f"mismatch in length of strides and shape: {len(stride)} and "
                           f"{len(size)}")
    if any(step < 0 for step in stride):
        raise RuntimeError(f"as_strided: Negative strides are not supported at the moment, got "
                           f"strides: {list(stride)}")
    return p.as_strided(input, size, stride, storage_offset)


@view_op(name="_as_strided_within", samples=one((2, 3), (4, 1), 1, (1,), shape=(12,)),
         grad="AsStridedBackward0", public=(), method=False)
def _as_strided_within(input: Tensor, size: tuple, stride: tuple, storage_offset: int, own: tuple):
    """`as_strided` of a tensor with strides `own`, or that shows more than the tensor does."""
    return as_strided.body(input, size, stride, storage_offset)


@_as_strided_within.vjp
def _as_strided_within_vjp(g, input, size, stride, storage_offset, own):
    """Through memory: the gradient is added where the result lies, and read where the input does.
    Elements of the input that share memory share it equally."""
    reach = max(required_span(input.shape, own), storage_offset + required_span(size, stride))
    low = min(0, storage_offset)
    zeros = p.expand(constant(0, g.dtype, number=False), (reach - low,))
    memory = p.scatter(zeros, [_places(size, stride, storage_offset - low)], g, "add")
    places = _places(input.shape, own, -low)
    result = p.lookup(memory, [places], input.shape)
    if may_overlap(input.shape, own):
        one_each = p.expand(constant(1, g.dtype, number=False), input.shape)
        shares = p.lookup(p.scatter(zeros, [places], one_each, "add"), [places], input.shape)
        result = p.div(result, shares)
    return result


def _places(shape: Sequence[int], strides: Sequence[int], first: int) -> Value:
    """Where each element lies in memory."""
    place = p.expand(constant(first, dtypes.int64, number=False), tuple(shape))
    for d, step in enumerate(strides):
        at = p.iota(tuple(shape), d)
        place = p.add(place, p.mul(at, p.filled(step, at)))
    return place
