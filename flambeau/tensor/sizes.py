"""Sizes and dimensions, given one by one or as one sequence, by place or by name."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from flambeau.core.arguments import kind_of, unexpected_keyword
from flambeau.core.symbolic import environment, index_of
from flambeau.tensor.meta import TensorBase

__all__ = ["named_shape", "shape_of"]

_index_of = operator.index


def shape_of(args: Sequence) -> tuple:
    """Sizes given as separate ints or as one sequence."""
    if len(args) == 1 and args[0].__class__ is not int and isinstance(args[0], (tuple, list)):
        args = args[0]
    try:
        return tuple(map(index_of if environment else _index_of, args))
    except TypeError:
        raise _not_sizes(args) from None


def named_shape(name: str, word: str, args: tuple, named: dict[str, Any]) -> tuple:
    """`shape_of(args)` for the method `name(*args, **named)`, whose sizes may also be given as one
    argument called `word`: `x.permute(dims=(1, 0))`.

    Raises:
        TypeError: another keyword, or sizes by place and by name.
    """
    if not named:
        return shape_of(args)
    for other in named:
        if other != word:
            raise unexpected_keyword(name, other, [word])
    if args:
        raise TypeError(f"{name}() got multiple values for argument {word!r}")
    return shape_of((named[word],))


def _is_index(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def _not_sizes(args: Sequence) -> TypeError:
    """The error for sizes or dimensions that are no integers."""
    place, wrong = next((i, a) for i, a in enumerate(args) if not _is_index(a))
    if isinstance(wrong, TensorBase):
        return TypeError(f"sizes and dimensions must be integers, but the one at pos {place} is a "
                         f"tensor of shape {list(wrong.shape)} and dtype {wrong.dtype!r}; use "
                         ".item()")
    return TypeError(f"argument must be tuple of ints, but found element of type {kind_of(wrong)} "
                     f"at pos {place}: {wrong!r}. Round or convert it with int(...) first.")
