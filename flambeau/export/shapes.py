"""Which sizes of an exported program's arguments may vary."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flambeau.tensor import Tensor

__all__ = ["Dim", "Size", "check", "dims", "spread"]


class _Hint:
    """`Dim.AUTO` and its like."""

    def __init__(self, name: str, moves: bool):
        self.name, self.moves = name, moves

    def __repr__(self) -> str:
        return f"Dim.{self.name}"


class Dim:
    """A size that may vary; equal names mean equal sizes.

    Args:
        name: for messages.
        min, max: its bounds, both included; no bound by default.
    """

    AUTO = _Hint("AUTO", True)
    DYNAMIC = _Hint("DYNAMIC", True)
    STATIC = _Hint("STATIC", False)

    def __init__(self, name: str, *, min: int | None = None, max: int | None = None):
        if not name.isidentifier():
            raise ValueError(f"Dim names must be valid identifiers, got {name}")
        self.min, self.max = 0 if min is None else min, max
        if self.max is not None and self.max <= self.min:
            raise ValueError(f"Cannot create Dim with inconsistent min={self.min}, max={max}")
        self.__name__ = self.name = name

    def __repr__(self) -> str:
        return f"Dim('{self.name}', min={self.min}" + (
            ")" if self.max is None else f", max={self.max})")


def dims(*names: str, min: int | None = None, max: int | None = None) -> tuple[Dim, ...]:
    """Several `Dim`s at once."""
    return tuple(Dim(name, min=min, max=max) for name in names)


class Size(NamedTuple):
    """What is said of one size.

    Attributes:
        where: how a user would write the tensor, as `args[0]`.
        example: the size in the example; dim: its number.
        rule: None if it must stay so.
    """

    where: str
    dim: int
    example: int
    rule: Dim | _Hint | None


def spread(forward: Any, args: tuple, kwargs: dict, given: Any) -> list[list[Size]]:
    """For each tensor among the arguments, in order, what is said of its sizes.

    Raises:
        ValueError: `given` does not fit the arguments.
    """
    if given is None:
        given = {}
    names = list(inspect.signature(forward).parameters)
    if not isinstance(given, Mapping):
        if len(given) != len(args) + len(kwargs):
            raise ValueError(f"dynamic_shapes has {len(given)} entries for "
                             f"{len(args) + len(kwargs)} arguments")
        order = [*names[:len(args)], *kwargs]
        given = dict(zip(order, given, strict=False))
    known = {*names, *kwargs}
    for name in given:
        if name not in known:
            raise ValueError(f"dynamic_shapes names {name!r}, which is no argument; there are "
                             f"{', '.join(names)}")
    found: list[list[Size]] = []
    for i, arg in enumerate(args):
        name = names[min(i, len(names) - 1)] if names else str(i)
        _spread_one(f"args[{i}]", arg, given.get(name), found)
    for name, arg in kwargs.items():
        _spread_one(f"kwargs[{name!r}]", arg, given.get(name), found)
    return found


def _spread_one(where: str, arg: Any, given: Any, found: list) -> None:
    if isinstance(arg, Tensor):
        found.append(_sizes(where, arg, given))
    elif isinstance(arg, Mapping):
        for key, item in arg.items():
            inner = given.get(key) if isinstance(given, Mapping) else None
            _spread_one(f"{where}[{key!r}]", item, inner, found)
    elif isinstance(arg, (tuple, list)):
        for i, item in enumerate(arg):
            inner = given[i] if isinstance(given, Sequence) and i < len(given) else None
            _spread_one(f"{where}[{i}]", item, inner, found)


def _sizes(where: str, tensor: Tensor, given: Any) -> list[Size]:
    if isinstance(given, Sequence):
        if len(given) != tensor.ndim:
            raise ValueError(f"dynamic_shapes of {where} has {len(given)} entries for "
                             f"{tensor.ndim} dimensions")
        given = dict(enumerate(given))
    given = {} if given is None else given
    if not isinstance(given, Mapping) or any(
            not 0 <= d < tensor.ndim or not (rule is None or isinstance(rule, (Dim, _Hint)))
            for d, rule in given.items()):
        raise ValueError(f"dynamic_shapes of {where} must map dimensions of {list(tensor.shape)} "
                         f"to Dim, Dim.AUTO, Dim.DYNAMIC, Dim.STATIC or None, got {given!r}")
    sizes = []
    for d, size in enumerate(tensor.shape):
        rule = given.get(d)
        fixed = isinstance(rule, _Hint) and not rule.moves
        sizes.append(Size(where, d, size, None if fixed else rule))
    return sizes


def check(sizes: list[list[Size]], leaves: Sequence[Tensor], examples: Sequence[Tensor]) -> None:
    """Raise RuntimeError if arguments do not have the dtypes and sizes that were exported."""
    named: dict[str, tuple[int, str]] = {}
    for rules, tensor, example in zip(sizes, leaves, examples, strict=True):
        where = rules[0].where if rules else "an argument"
        if tensor.dtype is not example.dtype or tensor.ndim != example.ndim:
            raise RuntimeError(f"Expected input at {where} to have {example.ndim} dimensions of "
                               f"{example.dtype!r}, but got shape {list(tensor.shape)} of "
                               f"{tensor.dtype!r}")
        for rule in rules:
            _check_size(rule, tensor.shape[rule.dim], named)


def _check_size(size: Size, found: int, named: dict[str, tuple[int, str]]) -> None:
    place = f"{size.where}.shape[{size.dim}]"
    if size.rule is None and found != size.example:
        raise RuntimeError(f"Expected input at {place} to be equal to {size.example}, but got "
                           f"{found}. If it may vary, say so in dynamic_shapes.")
    if not isinstance(size.rule, Dim):
        return
    bound = size.rule
    if found < bound.min or bound.max is not None and found > bound.max:
        raise RuntimeError(f"Expected input at {place} to be in the range {bound!r}, but got "
                           f"{found}")
    other, where = named.setdefault(bound.name, (found, place))
    if other != found:
        raise RuntimeError(f"Expected input at {place} to be equal to {where}, which is {other}, "
                           f"but got {found}")
