"""Operations on nested tensors that move, choose and join elements, or reduce dimensions.

In the jagged layout the numbers of all parts are one tensor, with the ragged dimension of the parts
joined: an operation on another dimension works on all at once, and only the place of the ragged one
may change. In the strided layout, whose parts may differ in any dimension, it works part by part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.core.shapes import normalize_dim
from flambeau.tensor.formats import jagged, strided
from flambeau.tensor.functions import ops
from flambeau.tensor.nested.structure import NestedInt, Structure
from flambeau.tensor.nested.tensor import NestedTensor, numbers_of, wrap

__all__ = ["cat", "choose", "expand", "extremum", "flatten", "of_parts", "parts_of", "permute",
           "pieces", "resized", "select", "squeeze", "stack", "unflatten", "unsqueeze"]


def parts_of(tensor: NestedTensor) -> tuple:
    """The parts, with their history."""
    return tuple(tensor._structure.parts(numbers_of(tensor)))


def of_parts(parts: Sequence) -> NestedTensor:
    """Parts as a nested tensor of the strided layout."""
    structure = Structure(strided, [tuple(part.shape) for part in parts])
    return wrap(structure, structure.join(parts))


def _of_numbers(old: Structure, numbers: Any, ragged: int) -> NestedTensor:
    """A jagged tensor of numbers whose dimension `ragged` - 1 joins the parts."""
    sizes, at = tuple(numbers.shape), ragged - 1
    shapes = [(*sizes[:at], length, *sizes[at + 1:]) for length in old.lengths]
    shape = (len(old.shapes), *sizes[:at], old.shape[old.ragged], *sizes[at + 1:])
    return wrap(Structure(jagged, shapes, ragged, old.offsets, shape), numbers)


def _place(name: str, input: NestedTensor, dim: int, added: int = 0) -> int:
    """The dimension from the front, which is neither the batch's nor, if jagged, the ragged one.

    Raises:
        RuntimeError: it is.
    """
    at = normalize_dim(dim, input.ndim + added)
    if at == 0:
        raise RuntimeError(f"{name}(): not supported for NestedTensor on dim={dim}")
    if not added and at == input._structure.ragged:
        raise RuntimeError(f"{name}(): not supported for NestedTensor on ragged dim")
    return at


def _on(input: NestedTensor, function: Callable, at: int, change: int = 0) -> NestedTensor:
    """function(tensor, dim) applied where dimension `at` of the nested tensor is; `change` is how
    many dimensions that gives."""
    structure = input._structure
    if structure.layout is not jagged:
        return of_parts([function(part, at - 1) for part in parts_of(input)])
    ragged = structure.ragged + (change if at < structure.ragged or (
        change > 0 and at == structure.ragged) else 0)
    return _of_numbers(structure, function(numbers_of(input), at - 1), ragged)


# ---------------------------------------------------------------------- one dimension
def select(input: NestedTensor, dim: int, index: int) -> Any:
    """A part, or one slice of each part along a dimension."""
    at = normalize_dim(dim, input.ndim)
    if at == 0:
        count = len(input)
        if not -count <= index < count:
            raise IndexError(f"index {index} is out of bounds for dimension 0 with size {count}")
        return parts_of(input)[index]

    def chosen(x: Any, place: int) -> Any:
        return ops.select(x, place, index)

    return _on(input, chosen, _place("select", input, dim), -1)


def unsqueeze(input: NestedTensor, dim: int) -> NestedTensor:
    """A new dimension of size 1."""
    return _on(input, ops.unsqueeze, _place("unsqueeze", input, dim, 1), 1)


def squeeze(input: NestedTensor, dim: Any = None) -> NestedTensor:
    """Without a dimension of size 1."""
    if dim is None or isinstance(dim, (tuple, list)) and len(dim) != 1:
        raise RuntimeError("squeeze(): For nested tensors, squeeze takes one dim")
    dim = dim[0] if isinstance(dim, (tuple, list)) else dim
    at = _place("squeeze", input, dim)
    if any(shape[at - 1] != 1 for shape in input._structure.shapes):
        return wrap(input._structure, numbers_of(input))

    def dropped(x: Any, place: int) -> Any:
        return ops.select(x, place, 0)

    return _on(input, dropped, at, -1)


def choose(name: str) -> Callable:
    """The rule of an operation (x, dim, ...) that keeps a range of a dimension."""

    def rule(input: NestedTensor, dim: int = 0, *rest: Any) -> NestedTensor:
        if name == "narrow" and input._structure.layout is strided and (
                normalize_dim(dim, input.ndim) == 0):
            start, length = rest
            if start < 0 or start + length > len(input):
                raise RuntimeError(f"start ({start}) + length ({length}) exceeds dimension size "
                                   f"({len(input)}).")
            return of_parts(parts_of(input)[start:start + length])
        if name == "slice" and rest[:2] in ((None, None), (0, None)) and rest[2:] in ((), (1,)):
            return wrap(input._structure, numbers_of(input))

        def kept(x: Any, place: int) -> Any:
            return getattr(ops, name)(x, place, *rest)

        return _on(input, kept, _place(name, input, dim))

    rule.__name__ = rule.__qualname__ = name
    return rule


def pieces(name: str) -> Callable:
    """The rule of `split` or `chunk`: (x, how, dim) -> tuple."""

    def rule(input: NestedTensor, how: Any, dim: int = 0) -> tuple:
        at = _place(name, input, dim)
        structure = input._structure
        if structure.layout is jagged:
            found = getattr(ops, name)(numbers_of(input), how, at - 1)
            return tuple(_of_numbers(structure, piece, structure.ragged) for piece in found)
        columns = [getattr(ops, name)(part, how, at - 1) for part in parts_of(input)]
        return tuple(of_parts(column) for column in zip(*columns, strict=True))

    rule.__name__ = rule.__qualname__ = name
    return rule


def unflatten(input: NestedTensor, dim: int, sizes: Sequence[int]) -> NestedTensor:
    """A dimension parted into several."""

    def parted(x: Any, place: int) -> Any:
        return ops.unflatten(x, place, tuple(sizes))

    return _on(input, parted, _place("unflatten", input, dim), len(sizes) - 1)


def permute(input: NestedTensor, dims: Sequence[int]) -> NestedTensor:
    """Other orders of the dimensions; that of the batch stays the first."""
    order = [normalize_dim(d, input.ndim) for d in dims]
    if sorted(order) != list(range(input.ndim)):
        raise RuntimeError(f"permute(): dims {list(dims)} must name each of {input.ndim} "
                           "dimensions once")
    if order[0] != 0:
        raise RuntimeError("permute(): the batch dimension of a nested tensor must stay the first")
    structure, inner = input._structure, [d - 1 for d in order[1:]]
    if structure.layout is not jagged:
        return of_parts([ops.permute(part, inner) for part in parts_of(input)])
    return _of_numbers(structure, ops.permute(numbers_of(input), inner),
                       order.index(structure.ragged))


# ---------------------------------------------------------------------- several dimensions
def resized(input: NestedTensor, sizes: Sequence[Any]) -> NestedTensor:
    """`view` and `reshape`: -1, or the ragged size itself, stands for the ragged dimension."""
    structure = input._structure
    sizes = tuple(sizes)
    if not sizes or sizes[0] not in (-1, len(structure.shapes)):
        raise RuntimeError(f"shape {list(sizes)} is invalid for a nested tensor of "
                           f"{len(structure.shapes)} parts: the batch dimension cannot change")
    if structure.layout is not jagged:
        return of_parts([_reshaped(part, structure, k, sizes) for k, part in
                         enumerate(parts_of(input))])
    named = [d for d, size in enumerate(sizes) if size is structure.shape[structure.ragged]]
    free = [d for d, size in enumerate(sizes) if type(size) is int and size == -1]
    ragged = (named or free or [0])[0]
    if not ragged:
        raise RuntimeError(f"shape {list(sizes)} has no place for the ragged dimension: write -1")
    numbers = numbers_of(input)
    before = tuple(numbers.shape[:structure.ragged - 1])
    wanted = [*sizes[1:ragged], numbers.shape[structure.ragged - 1], *sizes[ragged + 1:]]
    if -1 not in wanted[:ragged - 1] and math.prod(before) != math.prod(wanted[:ragged - 1]):
        raise RuntimeError(f"shape {list(sizes)} would mix the ragged dimension with others")
    return _of_numbers(structure, numbers.reshape(wanted), ragged)


def _reshaped(part: Any, structure: Structure, number: int, sizes: Sequence[int]) -> Any:
    """One part: -1 keeps the size at its place, or is what remains where there is none."""
    shape, wanted = structure.shapes[number], list(sizes[1:])
    free = [d for d, size in enumerate(wanted) if size == -1]
    if len(free) > 1 or free and free[0] < len(shape) and type(
            structure.shape[free[0] + 1]) is NestedInt:
        wanted = [shape[d] if size == -1 and d < len(shape) else size
                  for d, size in enumerate(wanted)]
    return part.reshape(wanted)


def cat(tensors: Sequence, dim: int = 0) -> NestedTensor:
    """Nested tensors joined: strided ones along the batch, jagged ones along dense dimensions."""
    first = tensors[0]
    if not all(isinstance(t, NestedTensor) for t in tensors):
        raise RuntimeError("cat(): all tensors must be nested if one is")
    at, structure = normalize_dim(dim, first.ndim), first._structure
    if structure.layout is not jagged:
        if at == 0:
            return of_parts([part for tensor in tensors for part in parts_of(tensor)])
        return of_parts([ops.cat(column, at - 1) for column in
                         zip(*map(parts_of, tensors), strict=True)])
    if at == 0 or at == structure.ragged:
        raise RuntimeError(f"cat(): not supported for NestedTensor on dim={dim}")
    joined = ops.cat(tuple(numbers_of(t) for t in tensors), at - 1)
    return _of_numbers(structure, joined, structure.ragged)


def stack(tensors: Sequence, dim: int = 0) -> NestedTensor:
    """Nested tensors of one structure along a new dimension, which is not the first."""
    if not all(isinstance(t, NestedTensor) for t in tensors):
        raise RuntimeError("stack(): all tensors must be nested if one is")
    at = _place("stack", tensors[0], dim, 1)
    return cat([unsqueeze(tensor, at) for tensor in tensors], at)


def flatten(input: NestedTensor, start_dim: int = 0, end_dim: int = -1) -> NestedTensor:
    """Dimensions beside one another as one, without the batch's and the ragged one."""
    first, last = normalize_dim(start_dim, input.ndim), normalize_dim(end_dim, input.ndim)
    structure = input._structure
    if first > last:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    if first == last:
        return input
    if first == 0:
        raise RuntimeError("flatten(): not supported for NestedTensor on dim=0")
    if structure.layout is not jagged:
        return of_parts([part.flatten(first - 1, last - 1) for part in parts_of(input)])
    if first <= structure.ragged <= last:
        raise RuntimeError("flatten(): not supported for NestedTensor on ragged dim")
    joined = numbers_of(input).flatten(first - 1, last - 1)
    return _of_numbers(structure, joined,
                       structure.ragged - (last - first if last < structure.ragged else 0))


def expand(input: NestedTensor, sizes: Sequence[Any]) -> NestedTensor:
    """Dimensions of size 1 of a jagged tensor repeated."""
    structure = input._structure
    if structure.layout is not jagged or len(sizes) != input.ndim:
        raise NestedTensor.refusal("expand of this layout, or to another number of dimensions")
    wanted = list(sizes)
    for d in (0, structure.ragged):
        if wanted[d] is not structure.shape[d] and wanted[d] not in (-1, len(structure.shapes)):
            raise RuntimeError(f"expand(): cannot expand shape {structure.shape} -> {tuple(sizes)}")
    wanted[structure.ragged] = -1
    return _of_numbers(structure, ops.expand(numbers_of(input), tuple(wanted[1:])),
                       structure.ragged)


# ---------------------------------------------------------------------- reductions
def extremum(name: str) -> Callable:
    """The rule of a reduction (x, dim, keepdim) of all elements, along the ragged dimension, which
    gives a dense tensor, or along another one."""

    def rule(input: NestedTensor, dim: Any = None, keepdim: bool = False, *rest: Any) -> Any:
        function = getattr(ops, name)
        if all(option is None for option in rest):
            rest = ()
        if dim is None or dim == ():
            return function(numbers_of(input))
        dim = dim[0] if isinstance(dim, (tuple, list)) and len(dim) == 1 else dim
        if isinstance(dim, (tuple, list)):
            raise NestedTensor.refusal(f"{name} along several dimensions")
        at, structure = normalize_dim(dim, input.ndim), input._structure
        if at == 0:
            raise RuntimeError(f"{name}(): reducing along the batch dimension but not the ragged "
                               "dimension is not supported for nested tensors")
        if at == structure.ragged or structure.layout is not jagged:
            found = [function(part, at - 1, keepdim, *rest) for part in parts_of(input)]
            return _each(lambda *parts: ops.stack(parts, 0), found)
        found = [function(numbers_of(input), at - 1, keepdim, *rest)]
        ragged = structure.ragged - (at < structure.ragged and not keepdim)
        return _each(lambda one: _of_numbers(structure, one, ragged), found)

    rule.__name__ = rule.__qualname__ = name
    return rule


def _each(function: Callable, results: Sequence) -> Any:
    """Apply to results, or to each of their fields."""
    if isinstance(results[0], tuple):
        return type(results[0])([function(*column) for column in zip(*results, strict=True)])
    return function(*results)
