"""Shape operations whose arguments PyTorch overloads, or whose result is a choice of views.

They sort out the arguments and call ops.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from flambeau.core import dtypes
from flambeau.core.arguments import need_tensor
from flambeau.core.device import CPU, META
from flambeau.core.dtypes import DType
from flambeau.core.shapes import Size, existing_dim, normalize_dim, required_span
from flambeau.core.shapes import broadcast_shapes as joined_shape
from flambeau.tensor import creation, interop
from flambeau.tensor.devices import moved_to
from flambeau.tensor.functions import ops
from flambeau.tensor.meta import TensorBase
from flambeau.tensor.method_docs import shown
from flambeau.tensor.sizes import named_shape, shape_of

__all__ = [
    "positive", "atleast_3d", "hsplit", "vsplit", "dsplit", "split_with_sizes", "unsafe_chunk",
    "unsafe_split", "unsafe_split_with_sizes", "as_strided", "as_strided_copy",
    "as_strided_scatter", "view_copy", "view_as_real_copy", "view_as_complex_copy",
    "split_with_sizes_copy", "detach_copy", "split_copy", "unbind_copy", "swapaxes",
    "block_diag",
    "cartesian_prod", "combinations", "einsum", "chain_matmul", "repeat_interleave", "gradient",
    "unravel_index", "broadcast_shapes", "constant_pad_nd", "rot90", "sum_to_size",
]


def positive(input: Any) -> Any:
    """The input itself.

    Raises:
        RuntimeError: a bool tensor.

    >>> torch.positive(torch.tensor([-1, 2]))
    tensor([-1,  2])
    """
    if input.dtype is dtypes.bool_:
        raise RuntimeError("The `+` operator, on a bool tensor is not supported.")
    return input


def broadcast_shapes(*shapes: Any) -> Size:
    """The common shape of tensors of these shapes.

    Raises:
        RuntimeError: they do not broadcast.

    >>> torch.broadcast_shapes((2, 1), (3,))
    torch.Size([2, 3])
    """
    tuples = [(s,) if isinstance(s, int) else tuple(s) for s in shapes]
    for size in itertools.chain.from_iterable(tuples):
        if size < 0:
            raise RuntimeError(f"Trying to create tensor with negative dimension ({size}): "
                               f"({size})")
    return Size(joined_shape(*tuples))


def atleast_3d(*tensors: Any) -> Any:
    """Tensors of fewer dimensions gain dimensions of size 1: vectors as rows, matrices in depth.

    >>> torch.atleast_3d(torch.tensor([5, 6])).shape
    torch.Size([1, 2, 1])
    """
    if len(tensors) == 1 and isinstance(tensors[0], TensorBase):
        return _three(tensors[0])
    many = tensors[0] if len(tensors) == 1 else tensors
    return tuple(_three(t) for t in many)


def _three(tensor: Any) -> Any:
    shape = tuple(tensor.shape)
    if len(shape) >= 3:
        return tensor
    return ops.reshape(tensor, {0: (1, 1, 1), 1: (1, *shape, 1), 2: (*shape, 1)}[len(shape)])


# --------------------------------------------------------------------------- pieces
def _named_split(name: str, least: int, dim_of: Any, doc: str) -> Any:
    def split(input: Any, sections: int | Sequence[int] | None = None, *,
              indices: int | Sequence[int] | None = None) -> tuple:
        from flambeau.tensor.overloads import tensor_split

        if input.ndim < least:
            raise RuntimeError(f"torch.{name} requires a tensor with at least {least} dimension, "
                               f"but got a tensor with {input.ndim} dimensions!")
        dim = dim_of(input)
        sections = indices if sections is None else sections
        if isinstance(sections, int) and (sections == 0 or input.shape[dim] % sections):
            raise RuntimeError(f"torch.{name} attempted to split along dimension {dim}, but "
                               f"the size of the dimension {input.shape[dim]} is not divisible "
                               f"by the split_size {sections}!")
        return tensor_split(input, sections, dim)

    split.__name__ = split.__qualname__ = name
    split.__doc__ = shown(name, doc)
    return split


def _columns(tensor: Any) -> int:
    return 0 if tensor.ndim == 1 else 1


def _rows(tensor: Any) -> int:
    return 0


def _depth(tensor: Any) -> int:
    return 2


hsplit = _named_split("hsplit", 1, _columns, "Equal parts, or cuts at positions, along columns.")
vsplit = _named_split("vsplit", 2, _rows, "Equal parts, or cuts at positions, along rows.")
dsplit = _named_split("dsplit", 3, _depth, "Equal parts, or cuts at positions, in depth.")


def split_with_sizes(input: Any, split_sizes: Sequence[int], dim: int = 0) -> tuple:
    """Pieces of the given sizes along `dim`.

    >>> torch.split_with_sizes(torch.arange(3), (1, 2))
    (tensor([0]), tensor([1, 2]))
    """
    return ops.split(input, shape_of((split_sizes,)), dim)


unsafe_split_with_sizes = split_with_sizes


def unsafe_split(input: Any, split_size: int, dim: int = 0) -> tuple:
    """`split`: the pieces share memory with the input.

    >>> torch.unsafe_split(torch.arange(3), 2)
    (tensor([0, 1]), tensor([2]))
    """
    return ops.split(input, split_size, dim)


def unsafe_chunk(input: Any, chunks: int, dim: int = 0) -> tuple:
    """`chunk`: the pieces share memory with the input.

    >>> torch.unsafe_chunk(torch.arange(4), 2)
    (tensor([0, 1]), tensor([2, 3]))
    """
    return ops.chunk(input, chunks, dim)


def _written(pieces: tuple, out: Any) -> Any:
    """The pieces; None if they are written to the tensors `out`."""
    pieces = pieces if isinstance(pieces, tuple) else (pieces,)
    if out is None:
        return pieces
    for target, piece in zip(out, pieces, strict=True):
        target.resize_(piece.shape).copy_(piece)
    return None


def split_copy(input: Any, split_size: int, dim: int = 0, *, out: Any = None) -> Any:
    """Copies of pieces of `split_size` (the last one may be smaller) along `dim`.

    >>> torch.split_copy(torch.arange(5), 2)
    (tensor([0, 1]), tensor([2, 3]), tensor([4]))
    """
    return _written(ops.split_copy(input, split_size, dim), out)


def unbind_copy(input: Any, dim: int = 0, *, out: Any = None) -> Any:
    """Copies of the slices of `dim`.

    >>> torch.unbind_copy(torch.tensor([[1, 2], [3, 4]]))
    (tensor([1, 2]), tensor([3, 4]))
    """
    return _written(ops.unbind_copy(input, dim), out)


def swapaxes(input: Any, axis0: int, axis1: int) -> Any:
    """Swap two dimensions.

    >>> torch.swapaxes(torch.tensor([[1, 2], [3, 4]]), 0, 1)
    tensor([[1, 3],
            [2, 4]])
    """
    return ops.transpose(input, axis0, axis1)


def split_with_sizes_copy(input: Any, split_sizes: Sequence[int], dim: int = 0, *,
                          out: Any = None) -> Any:
    """Copies of pieces of the given sizes along `dim`.

    >>> torch.split_with_sizes_copy(torch.arange(3), (1, 2))
    (tensor([0]), tensor([1, 2]))
    """
    return _written(ops.split_copy(input, shape_of((split_sizes,)), dim), out)


# --------------------------------------------------------------------------- views of memory
def as_strided(input: Any, size: Sequence[int], stride: Sequence[int],
               storage_offset: int | None = None) -> Any:
    """Any view of the input's memory; the offset counts elements from the start of the storage.

    Raises:
        RuntimeError: it would reach outside the storage.

    >>> torch.as_strided(torch.arange(5), (3, 2), (1, 1))  # overlapping windows
    tensor([[0, 1],
            [1, 2],
            [2, 3]])
    """
    size, stride, own = shape_of((size,)), shape_of((stride,)), input.storage_offset()
    offset = own if storage_offset is None else int(storage_offset)
    if offset < 0:
        raise RuntimeError(f"Tensor: invalid storage offset {offset}")
    if 0 not in size and len(size) == len(stride) and min((0, *stride)) == 0:
        itemsize, room = input._meta.dtype.itemsize, input._storage.nbytes
        needed = (offset + required_span(size, stride)) * itemsize
        if needed > room:
            raise RuntimeError(f"setStorage: sizes {list(size)}, strides {list(stride)}, storage "
                               f"offset {offset}, and itemsize {itemsize} requiring a storage size "
                               f"of {needed} are out of bounds for storage of size {room}")
    start, meta = offset - own, input._meta
    if 0 not in size and 0 not in meta.shape and len(size) == len(stride) and (
            not meta.contiguous or start < 0 or start + required_span(size, stride) > meta.numel):
        return ops._as_strided_within(input, size, stride, start, meta.strides)
    return ops.as_strided(input, size, stride, start)


def _stored(made: Any, out: Any) -> Any:
    """`made`, or `out` with the elements of `made`."""
    return made if out is None else out.resize_(made.shape).copy_(made)


def as_strided_copy(input: Any, size: Sequence[int], stride: Sequence[int],
                    storage_offset: int | None = None, *, out: Any = None) -> Any:
    """A copy of what `as_strided` shows.

    >>> torch.as_strided_copy(torch.arange(5), (3, 2), (1, 1))
    tensor([[0, 1],
            [1, 2],
            [2, 3]])
    """
    return _stored(ops.clone(as_strided(input, size, stride, storage_offset)), out)


def as_strided_scatter(input: Any, src: Any, size: Any, stride: Any,
                       storage_offset: int | None = None, *, out: Any = None) -> Any:
    """A copy of the input with src in the place that `as_strided` shows.

    >>> torch.as_strided_scatter(torch.zeros(4), torch.ones(2), (2,), (2,))
    tensor([1., 0., 1., 0.])
    """
    need_tensor("as_strided_scatter", "src", src)
    own = input.storage_offset()
    offset = own if storage_offset is None else storage_offset
    result = input.clone()
    if result.stride() == input.stride() and offset >= own:
        base, offset = result, offset - own
    else:  # places are those of the input's memory, gaps between its elements included
        base = as_strided(input, (own + required_span(input.shape, input.stride()),), (1,), 0)
        base = base.clone()
        result = as_strided(base, input.shape, input.stride(), own)
    shown = as_strided(base, size, stride, offset)
    if tuple(shown.shape) != tuple(src.shape):
        raise RuntimeError("expected src to have a size equal to the slice of self. src size = "
                           f"{list(src.shape)}, slice size = {list(shown.shape)}")
    shown.copy_(src)
    return _stored(result, out)


def view_copy(input: Any, size: Any, *, out: Any = None) -> Any:
    """A copy of what `view` shows: of another shape, or of another dtype.

    >>> torch.view_copy(torch.arange(4), (2, 2))
    tensor([[0, 1],
            [2, 3]])
    """
    shown = input.view(size) if isinstance(size, DType) else ops.reshape(input, shape_of((size,)))
    return _stored(ops.clone(shown), out)


def view_as_real_copy(input: Any, *, out: Any = None) -> Any:
    """A copy of what `view_as_real` shows.

    >>> torch.view_as_real_copy(torch.tensor([1 + 2j]))
    tensor([[1., 2.]])
    """
    return _stored(ops.clone(ops.view_as_real(input)), out)


def view_as_complex_copy(input: Any, *, out: Any = None) -> Any:
    """A copy of what `view_as_complex` shows.

    >>> torch.view_as_complex_copy(torch.tensor([[1., 2.]]))
    tensor([1.+2.j])
    """
    return _stored(ops.clone(ops.view_as_complex(input)), out)


def detach_copy(input: Any, *, out: Any = None) -> Any:
    """A copy outside the graph.

    >>> torch.detach_copy(torch.ones(2, requires_grad=True))
    tensor([1., 1.])
    """
    return _stored(ops.clone(input.detach()), out)


def sum_to_size(input: Any, *size: Any, **named: Any) -> Any:
    """The sum over the dimensions that broadcasting from `size` to this shape would stretch.

    >>> torch.ones(3, 2).sum_to_size(1, 2)
    tensor([[3., 3.]])
    """
    wanted = named_shape("sum_to_size", "size", size, named)
    return input if wanted and wanted == tuple(input.shape) else ops._sum_to_size(input, wanted)


# --------------------------------------------------------------------------- of several tensors
def block_diag(*tensors: Any) -> Any:
    """A matrix with the tensors (matrices, vectors as rows, scalars) along its diagonal.

    >>> torch.block_diag(torch.tensor([[1, 2]]), torch.tensor([[3], [4]]))
    tensor([[1, 2, 0],
            [0, 0, 3],
            [0, 0, 4]])
    """
    if not tensors:
        return creation.empty(1, 0, device=CPU)
    return ops._block_diag(tensors)


def cartesian_prod(*tensors: Any) -> Any:
    """All combinations of one element of each vector, as rows.

    >>> torch.cartesian_prod(torch.tensor([1, 2]), torch.tensor([5, 6]))
    tensor([[1, 5],
            [1, 6],
            [2, 5],
            [2, 6]])
    """
    from flambeau.tensor.overloads import meshgrid

    for tensor in tensors:
        if tensor.ndim > 1:
            raise RuntimeError("Expect a 1D vector, but got shape " f"{list(tensor.shape)}")
    if len(tensors) == 1:
        return tensors[0]
    grids = meshgrid(*tensors, indexing="ij")
    return ops.stack([ops.reshape(g, (-1,)) for g in grids], 1)


def combinations(input: Any, r: int = 2, with_replacement: bool = False) -> Any:
    """All choices of r elements of a vector, in its order, as rows.

    >>> torch.combinations(torch.tensor([1, 2, 3]), 2)
    tensor([[1, 2],
            [1, 3],
            [2, 3]])
    """
    need_tensor("combinations", "input", input)
    if input.ndim != 1:
        raise RuntimeError("Expect a 1D vector, but got shape " f"{list(input.shape)}")
    if r < 0:
        raise RuntimeError(f"Expect a non-negative number, but got {r}")
    if r == 0:
        return creation.empty(0, dtype=input.dtype, device=input.device)
    if r == 2:
        size = input.shape[0]
        pairs = creation.triu_indices(size, size, 0 if with_replacement else 1,
                                      device=input.device)
        return ops.reshape(ops.index_select(input, 0, pairs.t().reshape(-1)), (pairs.shape[1], 2))
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = list(choose(range(input.shape[0]), r))
    places = creation.tensor(rows, dtype=dtypes.int64, device=input.device).reshape(len(rows), r)
    return ops.reshape(ops.index_select(input, 0, places.reshape(-1)), (len(rows), r))


def einsum(*args: Any) -> Any:
    """Sums of products as Einstein writes them: einsum("ij,jk->ik", a, b).

    Terms may also be given as lists of numbers: einsum(a, [0, 1], b, [1, 2], [0, 2]).

    >>> torch.einsum("ij,j->i", torch.tensor([[1., 2.], [3., 4.]]), torch.tensor([1., 10.]))
    tensor([21., 43.])
    """
    if len(args) < 2:
        raise ValueError("einsum(): must specify the equation string and at least one operand, or "
                         "at least one operand and its subscripts list")
    if isinstance(args[0], TensorBase):
        equation, operands = _from_lists(args)
    else:
        equation, operands = args[0], args[1:]
        if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
            operands = tuple(operands[0])
    return ops._einsum(equation, operands)


def _from_lists(args: Sequence) -> tuple[str, tuple]:
    """The equation that pairs of operands and lists of numbers spell."""
    def word(numbers: Sequence) -> str:
        letters = []
        for n in numbers:
            if n is Ellipsis:
                letters.append("...")
            elif 0 <= n < 52:
                letters.append(chr(ord("A") + n) if n < 26 else chr(ord("a") + n - 26))
            else:
                raise ValueError(f"einsum(): subscripts must be within the range [0, 52), got {n}")
        return "".join(letters)

    pairs = len(args) // 2
    equation = ",".join(word(args[2 * k + 1]) for k in range(pairs))
    if len(args) % 2:
        equation += "->" + word(args[-1])
    return equation, tuple(args[2 * k] for k in range(pairs))


def chain_matmul(*matrices: Any, out: Any = None) -> Any:
    """The product of matrices, multiplied in the cheapest order.

    >>> import warnings
    >>> warnings.simplefilter("ignore")  # deprecated: use linalg.multi_dot
    >>> torch.chain_matmul(torch.tensor([[1., 2.]]), torch.tensor([[3., 4.], [5., 6.]]))
    tensor([[13., 16.]])
    """
    for matrix in matrices:
        if matrix.ndim != 2:
            raise RuntimeError(f"Tensor dimension is {matrix.ndim}, expected 2 instead.")
    if not matrices:
        raise RuntimeError("chain_matmul(): Expected one or more matrices")
    return _stored(matrices[0] if len(matrices) == 1 else ops.multi_dot(matrices), out)


# --------------------------------------------------------------------------- repeats, padding
def repeat_interleave(input: Any, repeats: Any = None, dim: int | None = None, *,
                      output_size: int | None = None) -> Any:
    """Each element, or slice along `dim`, several times in a row.

    `repeats` is one number for all, or a vector of them. With one argument: the positions of a
    vector so repeated.

    >>> torch.repeat_interleave(torch.tensor([1, 2]), torch.tensor([3, 1]))
    tensor([1, 1, 1, 2])
    """
    if repeats is None:
        return _spelled_out(input, output_size)
    if dim is None:
        input, dim = ops.reshape(input, (-1,)), 0
    if isinstance(repeats, TensorBase) and repeats.numel() == 1 and repeats.ndim == 0:
        repeats = int(repeats.item())
    at = existing_dim(dim, input.ndim)
    if isinstance(repeats, int):
        if repeats < 0:
            raise RuntimeError("Repeats must be non-negative")
        wanted = input.shape[at] * repeats
        if output_size not in (None, wanted):
            raise RuntimeError(f"repeat_interleave: Invalid output_size, expected {wanted} but got "
                               f"{output_size}")
        return ops._repeat_each(input, repeats, at)
    if not isinstance(repeats, TensorBase):
        repeats = creation.as_tensor(repeats, device=CPU)
    if repeats.ndim > 1:
        raise RuntimeError("repeats must be 0-dim or 1-dim tensor")
    if repeats.numel() == 1:
        repeats = ops.expand(ops.reshape(repeats, (1,)), (input.shape[at],))
    elif repeats.shape[0] != input.shape[at]:
        raise RuntimeError("repeats must have the same size as input along dim, but got "
                           f"repeats.size(0) = {repeats.shape[0]} and input.size({at}) = "
                           f"{input.shape[at]}")
    places = moved_to(_spelled_out(repeats, output_size), input.device)
    return ops.index_select(input, at, places)


def _spelled_out(repeats: Any, size: int | None) -> Any:
    """0 repeats[0] times, 1 repeats[1] times, ...; `size` in all."""
    import numpy as np

    if repeats.dtype not in (dtypes.int64, dtypes.int32):
        raise RuntimeError("repeats has to be Long or Int tensor")
    if repeats.device is META:
        if size is None:
            raise RuntimeError("cannot repeat_interleave a meta tensor without output_size")
        return creation.empty(size, dtype=repeats.dtype, device=META)
    counts = repeats.detach().contiguous().numpy()
    if (counts < 0).any():
        raise RuntimeError("repeats can not be negative")
    if size is not None and size != counts.sum():
        raise RuntimeError(f"repeat_interleave: output_size={size} is not the sum of the repeats, "
                           f"{counts.sum()}")
    return interop.from_numpy(np.repeat(np.arange(counts.size), counts)).to(repeats.dtype)


def constant_pad_nd(input: Any, pad: Sequence[int], value: Any = 0) -> Any:
    """The tensor with `value` around it; pairs of widths, last dimension first.

    >>> torch.constant_pad_nd(torch.tensor([1, 2]), (1, 2), 9)
    tensor([9, 1, 2, 9, 9])
    """
    return ops.pad(input, tuple(pad), "constant", value)


def rot90(input: Any, k: int = 1, dims: Sequence[int] = (0, 1)) -> Any:
    """The tensor turned k times by 90 degrees in the plane of two dimensions.

    >>> torch.rot90(torch.tensor([[1, 2], [3, 4]]))
    tensor([[2, 4],
            [1, 3]])
    """
    return ops._rot90(input, k, tuple(dims))


# --------------------------------------------------------------------------- differences
def gradient(input: Any, *, spacing: Any = None, dim: Any = None, edge_order: int = 1
             ) -> tuple:
    """The derivative along each of `dim` by central differences (one-sided at the edges).

    Args:
        spacing: one distance, one for each dimension, or a vector of coordinates for each.

    >>> torch.gradient(torch.tensor([1., 4., 9., 16.]))
    (tensor([3., 4., 6., 7.]),)
    """
    dims = range(input.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    dims = [normalize_dim(d, input.ndim) for d in dims]
    spacing = 1 if spacing is None else spacing
    if isinstance(spacing, TensorBase):
        spacing = [spacing]
    elif not isinstance(spacing, (list, tuple)):
        spacing = [spacing] * len(dims)
    if len(spacing) != len(dims):
        raise RuntimeError("torch.gradient expected spacing to be unspecified, a scalar or a list "
                           f"of length {len(dims)}, got a list of length {len(spacing)}")
    if edge_order not in (1, 2):
        raise RuntimeError("torch.gradient only supports edge_order=1 and edge_order=2.")
    if len(set(dims)) != len(dims):
        repeated = next(d for d in dims if dims.count(d) > 1)
        raise RuntimeError(f"dim {repeated} appears multiple times in the list of dims")
    for d, space in zip(dims, spacing, strict=True):
        if input.shape[d] <= edge_order:
            raise RuntimeError("torch.gradient expected each dimension size to be at least "
                               "edge_order+1")
        if isinstance(space, TensorBase) and (space.ndim != 1 or space.shape[0] != input.shape[d]):
            raise RuntimeError("torch.gradient expected each element of spacing to have one "
                               "dimension, and the size of the dimension of the input")
    return tuple(ops._gradient_over(input, space, d, edge_order) if isinstance(space, TensorBase)
                 else ops._gradient_along(input, float(space), d, edge_order)
                 for d, space in zip(dims, spacing, strict=True))


def unravel_index(indices: Any, shape: Any) -> tuple:
    """The coordinates, in a tensor of `shape`, of row-major positions: one tensor per dimension.

    >>> torch.unravel_index(torch.tensor([1, 5]), (2, 3))
    (tensor([0, 1]), tensor([1, 2]))
    """
    if not isinstance(indices, TensorBase):
        raise TypeError("unravel_index(): argument 'indices' (position 1) must be Tensor, not "
                        f"{type(indices).__name__}")
    if indices.dtype.kind not in "ui":
        raise TypeError("expected 'indices' to be integer dtype, but got "
                        f"{indices.dtype!r}")
    sizes = shape_of((shape,)) if not isinstance(shape, int) else (shape,)
    if any(size < 0 for size in sizes):
        raise ValueError(f"'shape' cannot have negative values, but got {tuple(sizes)}")
    indices = indices.to(dtypes.int64)
    columns, step = [], 1
    for size in reversed(sizes):
        whole = indices if step == 1 else ops.floor_divide(indices, step)
        columns.append(ops.remainder(whole, size) if size else whole)
        step *= size
    return tuple(reversed(columns))
