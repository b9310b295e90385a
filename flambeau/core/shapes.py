"""Shapes and strides: `Size`, broadcasting, dimension checks and view geometry.

Strides count elements.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence

from flambeau.core.symbolic import index_of

__all__ = ["Size", "broadcast_shapes", "contiguous_strides", "is_contiguous", "normalize_dim",
           "existing_dim",
           "normalize_dims", "infer_size", "reshape_strides", "required_span", "dense_order",
           "may_overlap", "one_stride", "check_expand", "same_shape", "slice_bounds"]


class Size(tuple):
    """The shape of a tensor: a tuple of ints that prints as `torch.Size([2, 3])`."""

    __slots__ = ()

    def __new__(cls, sizes: Iterable = ()):
        made = tuple.__new__(cls, sizes)
        for size in made:
            if size.__class__ is not int:
                return _with_numbers(cls, made)
        return made

    def __repr__(self) -> str:
        return f"torch.Size([{', '.join(map(repr, self))}])"

    def numel(self) -> int:
        """The number of elements of a tensor of this shape."""
        return math.prod(self)

    def __getitem__(self, key):
        found = tuple.__getitem__(self, key)
        return Size(found) if isinstance(key, slice) else found

    def __add__(self, other):
        return Size(tuple.__add__(self, tuple(other)))

    def __radd__(self, other):
        return Size(tuple(other) + tuple(self))

    def __mul__(self, count):
        return Size(tuple.__mul__(self, count))

    __rmul__ = __mul__

    def __reduce__(self):
        return Size, (tuple(self),)


def _with_numbers(cls: type, sizes: tuple) -> tuple:
    """The sizes with numbers in the place of tensors and of NumPy's integers; symbols stay.

    Raises:
        TypeError: a size is no integer.
    """
    for place, size in enumerate(sizes):
        if isinstance(size, (float, str)) or not hasattr(size, "__index__"):
            raise TypeError(f"torch.Size() takes an iterable of 'int' (item {place} is "
                            f"'{type(size).__name__}')")
    return tuple.__new__(cls, (size.__index__() if hasattr(size, "item") else size
                               for size in sizes))


def same_shape(a: Sequence[int], b: Sequence[int]) -> bool:
    """Are two shapes equal? (Comparing tuples looks at sizes before it looks at ranks.)"""
    return len(a) == len(b) and tuple(a) == tuple(b)


def slice_bounds(start: int | None, end: int | None, size: int) -> tuple[int, int]:
    """Where a slice with a positive step begins and ends in a dimension: within 0..size."""
    def place(bound: int | None, default: int) -> int:
        if bound is None:
            return default
        if bound < 0:
            bound += size
        return 0 if bound < 0 else size if bound > size else bound

    return place(start, 0), place(end, size)


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides; a dimension of size 0 counts as 1, as in PyTorch."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size if size > 1 else 1
    return tuple(reversed(strides))


def is_contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Row-major without gaps? Dimensions of size 1 may have any stride; empty tensors count."""
    if 0 in shape:
        return True
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def one_stride(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, int] | None:
    """(count, stride) of the one loop that walks these dimensions in order; None if there is
    none."""
    count, stride = 1, 0
    for size, step in zip(reversed(shape), reversed(strides), strict=True):
        if size == 1:
            continue
        if count == 1:
            count, stride = size, step
        elif step == stride * count:
            count *= size
        else:
            return None
    return count, stride


def dense_order(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, ...] | None:
    """The dimensions from outermost to innermost if they cover memory densely, else None."""
    order = sorted(range(len(shape)), key=lambda d: (-strides[d], d))
    expected = 1
    for d in reversed(order):
        if shape[d] != 1:
            if strides[d] != expected:
                return None
            expected *= shape[d]
    return tuple(order)


def required_span(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements from the first to one past the last that a (shape, strides) view touches.

    Raises:
        RuntimeError: there is not one stride for each size.
    """
    if len(shape) != len(strides):
        raise RuntimeError(f"dimensionality of sizes ({len(shape)}) must match dimensionality of "
                           f"strides ({len(strides)})")
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def may_overlap(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Is there a stride that does not reach over all dimensions with smaller ones? Elements can
    share memory only then."""
    extent = 1
    for step, size in sorted(zip(strides, shape, strict=True)):
        if size > 1:
            if step < extent:
                return True
            extent += step * (size - 1)
    return False


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """NumPy's broadcasting rule.

    Raises:
        RuntimeError: two sizes differ and neither is 1; names the sizes and the dimension.
    """
    rank = max(map(len, shapes), default=0)
    result = [1] * rank
    for shape in shapes:
        for back in range(1, len(shape) + 1):
            size, seen = shape[-back], result[-back]
            if size == seen or size == 1:
                continue
            if seen != 1:
                raise RuntimeError(
                    f"The size of tensor a ({seen}) must match the size of tensor b ({size}) at "
                    f"non-singleton dimension {rank - back} (shapes "
                    f"{' and '.join(str(list(s)) for s in shapes)})")
            result[-back] = size
    return tuple(result)


def check_expand(shape: Sequence[int], target: Sequence[int]) -> None:
    """Raise if a tensor of `shape` does not broadcast to `target`.

    Raises:
        RuntimeError: names both shapes and the dimension.
    """
    lead = len(target) - len(shape)
    if lead < 0:
        raise RuntimeError(f"expand: the number of sizes provided ({len(target)}) must be greater "
                           f"or equal to the number of dimensions in the tensor ({len(shape)}).  "
                           f"Target sizes: {list(target)}.  Tensor sizes: {list(shape)}")
    for d, size in enumerate(shape):
        if size != 1 and size != target[lead + d]:
            raise RuntimeError(f"The expanded size of the tensor ({target[lead + d]}) must match "
                               f"the existing size ({size}) at non-singleton dimension {lead + d}. "
                               f" Target sizes: {list(target)}.  Tensor sizes: {list(shape)}")


def normalize_dim(dim: int, rank: int) -> int:
    """`dim` counted from the front.

    Raises:
        IndexError: out of range.
        TypeError: not an int.
    """
    dim = operator.index(dim)
    span = max(rank, 1)
    if not -span <= dim < span:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-span}, {span - 1}]"
                         f", but got {dim})")
    return dim % span


def existing_dim(dim: int, rank: int) -> int:
    """`normalize_dim`, where a tensor without dimensions has none to speak of.

    Raises:
        IndexError: out of range, or there are no dimensions.
    """
    if not rank:
        raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
    return normalize_dim(dim, rank)


def normalize_dims(dims: int | Iterable[int] | None, rank: int,
                   empty_means_all: bool = True) -> tuple[int, ...]:
    """Several dimensions counted from the front; None (or an empty list) means all of them."""
    if dims is None:
        return tuple(range(rank))
    # a number is anything that can serve as an index: NumPy's integers do
    given: Iterable = (dims,) if hasattr(dims, "__index__") else dims
    result = tuple(normalize_dim(dim, rank) for dim in given)
    if not result and empty_means_all:
        return tuple(range(rank))
    if len(set(result)) != len(result):
        repeated = next(d for d in result if result.count(d) > 1)
        raise RuntimeError(f"dim {repeated} appears multiple times in the list of dims")
    return result if rank else ()


def infer_size(shape: Sequence[int], numel: int) -> tuple[int, ...]:
    """Replace one -1 in `shape` so that it holds `numel` elements.

    Raises:
        RuntimeError: impossible or ambiguous.
    """
    shape = tuple(index_of(size) for size in shape)
    holes = [d for d, size in enumerate(shape) if size == -1]
    if any(size < -1 for size in shape):
        at, wrong = next((d, size) for d, size in enumerate(shape) if size < -1)
        raise RuntimeError(f"invalid shape dimension {wrong} at index {at} of shape {list(shape)}")
    known = math.prod(size for size in shape if size != -1)
    if len(holes) > 1:
        raise RuntimeError("only one dimension can be inferred")
    if holes:
        if known == 0:
            if numel == 0:
                raise RuntimeError(
                    f"cannot reshape tensor of 0 elements into shape {list(shape)} because the "
                    "unspecified dimension size -1 can be any value and is ambiguous")
        elif numel % known == 0:
            return tuple(numel // known if size == -1 else size for size in shape)
    elif known == numel:
        return shape
    raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {numel}")


def reshape_strides(shape: Sequence[int], strides: Sequence[int],
                    new_shape: Sequence[int]) -> tuple[int, ...] | None:
    """Strides of the view of shape `new_shape`, or None if only a copy has that shape."""
    numel = math.prod(shape)
    if numel == 0:
        return contiguous_strides(new_shape)
    # (elements, innermost stride) of maximal contiguous runs, outermost first
    groups: list[tuple[int, int]] = []
    for size, stride in zip(shape, strides, strict=True):
        if size == 1:
            continue
        if groups and groups[-1][1] == size * stride:
            groups[-1] = (groups[-1][0] * size, stride)
        else:
            groups.append((size, stride))
    result = [1] * len(new_shape)
    position = len(new_shape) - 1
    for count, stride in reversed(groups):
        while count > 1:
            if position < 0:
                return None
            size = new_shape[position]
            if count % size:
                return None
            result[position] = stride
            stride *= size
            count //= size
            position -= 1
    # what remains has size 1: continue the strides as a contiguous tensor would
    step = result[position + 1] * new_shape[position + 1] if position + 1 < len(new_shape) else 1
    for d in range(position, -1, -1):
        result[d] = step
    return tuple(result)
