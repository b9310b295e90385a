"""Inside of vmap: new tensors for the examples of a batch, and their random numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flambeau.autograd.grad_mode import no_grad
from flambeau.compiler.random.fills import normal_kind
from flambeau.core.dtypes import DType
from flambeau.core.shapes import broadcast_shapes
from flambeau.tensor import creation, fills, launches, levels, random
from flambeau.tensor.batched import Batched, VmapLevel
from flambeau.tensor.levels import Below

__all__ = ["fill", "room", "room_like"]

RANDOM_ERROR = ("vmap: called random operation while in randomness error mode. Please either use "
                "the 'same' or 'different' randomness flags on vmap or perform the randomness "
                "operation out of vmap")

UNBATCHED = ("vmap: attempted to fill a tensor in place with random numbers that differ between "
             "examples, but the tensor is the same for all of them. Draw into a new tensor instead "
             "(rand_like, bernoulli ...).")


def _owners(tensor: Any) -> list[VmapLevel]:
    """The levels at which the examples of a tensor differ, the outermost first."""
    found = []
    while tensor._level is not None:
        if tensor._bdim is not None:
            found.append(tensor._level)
        tensor = tensor._value
    return found[::-1]


def _made(owners: Sequence[VmapLevel], dtype: DType, shape: Sequence[int]) -> Any:
    """New memory for one tensor for each example of all these levels."""
    sizes = [level.size for level in owners]
    made = launches.fresh_dense(dtype, (*sizes, *shape))
    for level in owners:
        made = level.wrap(made, 0)
    return made


def room_like(tensor: Any, dtype: DType, shape: Sequence[int]) -> Any:
    """A new tensor for each example that `tensor` stands for."""
    return _made(_owners(tensor), dtype, tuple(shape))


def room(made: Any) -> Any:
    """New memory, for each example for which random numbers are drawn apart; `made` itself if there
    are none.

    Raises:
        RuntimeError: a vmap of the thread forbids random numbers.
    """
    own = _owners(made)
    wanted = []
    for level in levels.current():
        if isinstance(level, VmapLevel):
            if level.randomness == "error":
                raise RuntimeError(RANDOM_ERROR)
            if level.randomness == "different" or level in own:
                wanted.append(level)
    if len(wanted) == len(own):
        return made
    return _made(wanted, made._meta.dtype, tuple(made._meta.shape))


def fill(tensor: Any, kind: str, params: tuple, generator: Any, given: int = 0) -> Any:
    """Fill a tensor from a stream, as the innermost level of the thread wants it.

    Raises:
        RuntimeError: random numbers are forbidden, or shall differ between examples that the tensor
            does not have.
    """
    level = levels.current()[-1]
    if not isinstance(level, VmapLevel):
        with Below(level):
            return fills.fill(tensor, kind, params, generator, given=given)
    if level.randomness == "error":
        raise RuntimeError(RANDOM_ERROR)
    if given:
        raise RuntimeError("vmap: these random numbers depend on a tensor of parameters and have "
                           "no rule for batches; draw them outside of vmap")
    inside = tensor.__class__ is Batched and tensor._level is level
    if level.randomness == "different" and not (inside and tensor._bdim is not None):
        raise RuntimeError(UNBATCHED)
    value = tensor._value if inside else tensor
    with Below(level):
        if not inside or tensor._bdim is None:
            fills.fill(value, kind, params, generator)
        elif level.randomness == "same":
            _fill_once(value, tensor._bdim, kind, params, generator)
        elif kind.startswith("randperm"):
            for one in value.unbind(tensor._bdim):
                fills.fill(one, kind, params, generator)
        else:
            if kind in ("normal", "normal_scalar"):
                kind = normal_kind(value._meta.numel, value._meta.contiguous)
            fills.fill(value, kind, params, generator)
    return tensor


def bernoulli_each(tensor: Any, chances: Any, generator: Any) -> Any:
    """Fill a tensor with 0 and 1, with probabilities of their own, among the levels."""
    level = levels.current()[-1]
    if not isinstance(level, VmapLevel):
        with Below(level):
            return random.bernoulli_(tensor, chances, generator=generator)
    if level.randomness == "error":
        raise RuntimeError(RANDOM_ERROR)
    if level.randomness == "same":
        draws = random.rand_like(chances, generator=generator)
        return tensor.copy_(draws < chances)
    if chances._meta.shape != tensor._meta.shape:
        chances = chances.expand(tensor._meta.shape)
    target = _examples(tensor, level)
    if target is None:
        raise RuntimeError(UNBATCHED)
    given = _examples(chances, level)
    with Below(level):
        plain = (chances._value if chances._level is level else chances) if given is None else None
        random.bernoulli_(target, plain.unsqueeze(0) if given is None else given,
                          generator=generator)
    return tensor


def _examples(tensor: Any, level: VmapLevel) -> Any:
    """All examples of a tensor, along the first dimension; None if they are all the same."""
    if tensor._level is not level or tensor._bdim is None:
        return None
    with Below(level):
        return tensor._value if tensor._bdim == 0 else tensor._value.movedim(tensor._bdim, 0)


def draws(function: Callable, *parameters: Any) -> Any:
    """Random numbers that depend on parameters element by element, among the levels: `function` of
    tensors of one shape gives them below."""
    level = levels.current()[-1]
    if not isinstance(level, VmapLevel):
        with Below(level):
            return function(*parameters)
    if level.randomness == "error":
        raise RuntimeError(RANDOM_ERROR)
    shape = broadcast_shapes(*[tuple(p._meta.shape) for p in parameters])
    parameters = tuple([p.detach().expand(shape) for p in parameters])
    rows = [_examples(p, level) for p in parameters]
    batched = any(row is not None for row in rows)
    if level.randomness == "same" and batched:
        raise RuntimeError("vmap: random numbers whose parameters differ between examples cannot "
                           "be the same for all of them; use randomness='different'")
    with Below(level):
        plain = [p._value if p._level is level else p for p in parameters]
        if level.randomness == "same":
            return function(*plain)
        whole = [p.expand(level.size, *p.shape) if row is None else row
                 for p, row in zip(plain, rows, strict=True)]
        return level.wrap(function(*whole), 0)


def each(function: Callable, *tensors: Any) -> Any:
    """`function` of one example at a time, among the levels: for results whose computation looks at
    values. It gives a tensor, or tensors and tuples of them.

    Raises:
        RuntimeError: the results of two examples have different shapes.
    """
    level = levels.current()[-1]
    if not isinstance(level, VmapLevel):
        with Below(level):
            return function(*tensors)
    rows = [_examples(t, level) for t in tensors]
    with Below(level):
        plain = [t._value if t._level is level else t for t in tensors]
        if all(row is None for row in rows):
            return function(*plain)
        found = [function(*[one if row is None else row.select(0, place)
                            for one, row in zip(plain, rows, strict=True)])
                 for place in range(level.size)]
        return _stacked(found, level)


def _stacked(found: Sequence, level: VmapLevel) -> Any:
    """One batched tensor of those of all examples; one result of many tensors, likewise."""
    first = found[0]
    if isinstance(first, tuple):
        parts = [_stacked(column, level) for column in zip(*found, strict=True)]
        return type(first)(parts)
    return level.wrap(launches.late.ops.stack(found, 0), 0)


def multinomial(weights: Any, count: int, replacement: bool, generator: Any) -> Any:
    """`torch.multinomial` among the levels: the rows of all examples are rows of one call."""
    level = levels.current()[-1]
    if not isinstance(level, VmapLevel):
        with Below(level):
            return random.multinomial(weights, count, replacement, generator=generator)
    if level.randomness == "error":
        raise RuntimeError(RANDOM_ERROR)
    rows = _examples(weights, level)
    if rows is None and level.randomness == "same":
        with Below(level):
            plain = weights._value if weights._level is level else weights
            return random.multinomial(plain, count, replacement, generator=generator)
    if level.randomness == "same":
        raise RuntimeError("vmap: multinomial with weights that differ between examples cannot "
                           "draw the same for all of them; use randomness='different'")
    shape = tuple(weights._meta.shape[:-1])
    with Below(level):
        if rows is None:
            plain = weights._value if weights._level is level else weights
            rows = plain.expand(level.size, *plain.shape)
        drawn = random.multinomial(rows.reshape(-1, rows.shape[-1]), count, replacement,
                                   generator=generator)
        return level.wrap(drawn.reshape(level.size, *shape, count), 0)


def _fill_once(value: Any, bdim: int, kind: str, params: tuple, generator: Any) -> None:
    """The same numbers for all examples."""
    with no_grad():
        one = creation.empty_like(value.select(bdim, 0))
        fills.fill(one, kind, params, generator)
        value.copy_(one.unsqueeze(bdim))


launches.late.room, launches.late.room_like, launches.late.fill = room, room_like, fill
launches.late.bernoulli_each, launches.late.multinomial = bernoulli_each, multinomial
launches.late.draws, launches.late.each = draws, each
