"""Arguments that are one number or one number per spatial dimension, and state dict prefixes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["consume_prefix_in_state_dict_if_present"]


def ntuple(value: Any, count: int) -> tuple:
    """`value` as a tuple: a single number is repeated, an iterable is taken as it is."""
    if isinstance(value, Iterable):
        return tuple(value)
    return (value,) * count


def reverse_repeat(values: tuple, times: int) -> tuple:
    """The values in reverse, each `times` times: the order in which `F.pad` wants its padding."""
    return tuple(value for value in reversed(values) for _ in range(times))


def _ntuple(count: int, name: str = "parse") -> Callable[[Any], tuple]:
    def parse(value: Any) -> tuple:
        return ntuple(value, count)

    parse.__name__ = name
    return parse


# Third-party modules import these names.
_single = _ntuple(1, "_single")
_pair = _ntuple(2, "_pair")
_triple = _ntuple(3, "_triple")
_quadruple = _ntuple(4, "_quadruple")


def consume_prefix_in_state_dict_if_present(state_dict: dict, prefix: str) -> None:
    """Remove `prefix` from every key of `state_dict` that starts with it, in place."""
    for key in list(state_dict):
        if key.startswith(prefix):
            state_dict[key[len(prefix):]] = state_dict.pop(key)
    metadata = getattr(state_dict, "_metadata", None)
    for key in list(metadata or ()):
        # The key of the module itself lacks the dot with which those of its children continue.
        if key.startswith(prefix) or key == prefix.replace(".", ""):
            metadata[key[len(prefix):]] = metadata.pop(key)
