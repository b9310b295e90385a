"""`rearrange`: a new order and grouping of dimensions, written as a pattern with names.

The notation is that of einops (Rogozhnikov 2022): "b (h w) c -> b c h w". It becomes one reshape,
one permutation and one reshape more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import flambeau
from flambeau.core.arguments import kind_of

__all__ = ["rearrange"]

Groups = list[Sequence[str]]
"""For each dimension the names it is made of; none is a dimension of size 1."""

_REST = ("...",)
"""Dots outside of parentheses: any number of dimensions, each by itself."""

_TOKEN = re.compile(r"\s*(\.\.\.|\w+|[()])")


def rearrange(tensor: Any, pattern: str, **axes_lengths: int) -> Any:
    """The tensor with its dimensions in the order, and split and joined, as `pattern` says.

    Args:
        tensor: a tensor; a list of them is stacked along a new first dimension.
        pattern: "dimensions -> dimensions", each a name, 1, or several names in parentheses for a
            dimension that is their product; `...` stands for any number of dimensions.
        axes_lengths: the sizes that do not follow from the shape.

    Raises:
        ValueError: a pattern that does not fit itself or the shape.

    >>> x = torch.arange(6).reshape(1, 6)
    >>> torch.func.rearrange(x, "b (h w) -> b w h", h=2)
    tensor([[[0, 3],
             [1, 4],
             [2, 5]]])
    """
    if isinstance(tensor, (list, tuple)):
        tensor = flambeau.stack(tuple(tensor))
    if not isinstance(tensor, flambeau.Tensor):
        raise TypeError(f"rearrange() takes a tensor or a list of tensors, got {kind_of(tensor)}")
    before, arrow, after = pattern.partition("->")
    if not arrow or "->" in after:
        raise ValueError(f"rearrange(): the pattern {pattern!r} needs one '->'")
    source, target = _groups(before, pattern), _groups(after, pattern)
    _check_names(source, target, pattern)
    rest = _dots(source, tensor.ndim, pattern)
    source, target = _spelled(source, rest), _spelled(target, rest)
    sizes = _sizes(source, tensor.shape, axes_lengths, pattern)
    order = [name for group in source for name in group]
    apart = tensor.reshape([sizes[name] for name in order])
    moved = apart.permute([order.index(name) for group in target for name in group])
    return moved.reshape([math.prod(sizes[name] for name in group) for group in target])


def _groups(side: str, pattern: str) -> Groups:
    """The dimensions of one side of the pattern."""
    groups: Groups = []
    inside, place = False, 0
    side = side.rstrip()
    while place < len(side):
        token = _TOKEN.match(side, place)
        if token is None:
            raise ValueError(f"rearrange(): {side[place:].split()[0]!r} in {pattern!r} is neither "
                             "a name nor a number, '...' or a parenthesis")
        word, place = token[1], token.end()
        if word in "()":
            if inside is (word == "("):
                raise ValueError(f"rearrange(): the parentheses of {pattern!r} do not pair up, or "
                                 "are nested")
            inside = word == "("
            if inside:
                groups.append([])
        elif word.isdigit():
            if word != "1":
                raise ValueError(f"rearrange(): {word} in {pattern!r}: of numbers, only 1 may "
                                 "stand for a dimension")
            if not inside:
                groups.append([])
        elif word != "..." and not (word.isidentifier() and word.strip("_") == word):
            raise ValueError(f"rearrange(): {word!r} in {pattern!r} is not a name; it must not "
                             "begin with a digit, nor begin or end with an underscore")
        elif inside:
            groups[-1] = [*groups[-1], word]
        else:
            groups.append(_REST if word == "..." else [word])
    if inside:
        raise ValueError(f"rearrange(): a parenthesis of {pattern!r} is not closed")
    return groups


def _check_names(source: Groups, target: Groups, pattern: str) -> None:
    sides = [[name for group in groups for name in group] for groups in (source, target)]
    for names in sides:
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"rearrange(): {twice!r} stands twice on one side of {pattern!r}")
    alone = set(sides[0]) ^ set(sides[1])
    if alone:
        raise ValueError(f"rearrange(): {sorted(alone)} stand on one side of {pattern!r} only")
    if any("..." in group and group is not _REST for group in source):
        raise ValueError(f"rearrange(): '...' in parentheses on the left of {pattern!r}: it has no "
                         "sizes there")


def _dots(source: Groups, ndim: int, pattern: str) -> list[str]:
    """Names of the dimensions that "..." stands for."""
    named = sum(group is not _REST for group in source)
    missing = ndim - named
    if missing < 0 or missing and _REST not in source:
        raise ValueError(f"rearrange(): {pattern!r} names {named} dimensions, the tensor has "
                         f"{ndim}")
    return [f"...{number}" for number in range(missing)]


def _spelled(groups: Groups, rest: list[str]) -> Groups:
    """The dimensions with names in place of "..."."""
    spelled: Groups = []
    for group in groups:
        if group is _REST:
            spelled += [[name] for name in rest]
        else:
            spelled.append([one for name in group
                            for one in (rest if name == "..." else [name])])
    return spelled


def _sizes(source: Groups, shape: Sequence[int], given: dict[str, int], pattern: str
           ) -> dict[str, int]:
    """The size of each name.

    Raises:
        ValueError: sizes do not multiply to those of the tensor, or are not known.
    """
    sizes = dict(given)
    names = {name for group in source for name in group}
    unknown = set(given) - names
    if unknown:
        raise ValueError(f"rearrange(): {sorted(unknown)} do not stand in {pattern!r}")
    for size, group in zip(shape, source, strict=True):
        free = [name for name in group if name not in sizes]
        known = math.prod(sizes[name] for name in group if name in sizes)
        if len(free) > 1:
            raise ValueError(f"rearrange(): the sizes of {free} in {pattern!r} do not follow from "
                             f"the shape {list(shape)}; give all but one of them by name")
        if free and known and size % known == 0:
            sizes[free[0]] = size // known
        elif free or known != size:
            given_here = {name: sizes[name] for name in group if name in sizes}
            raise ValueError(f"rearrange(): a dimension of size {size} cannot be "
                             f"({' '.join(group)}) with {given_here}")
    return sizes
