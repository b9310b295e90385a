"""One kernel call of a program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

__all__ = ["Step"]


@dataclasses.dataclass
class Step:
    """One kernel call: `slots` holds Pointer, Number, Float and int entries.

    `after` counts the steps since the one whose workspace this one goes on with; 0: it has its own.
    `group` numbers the set of consecutive steps that do not depend on one another; 0: in none.
    `address` is that of the kernel once it is loaded, `module` the hash of the module it is in.
    `source` is the nest or library step that it does, or is a part of.
    `work` is the rough amount of work.
    `names` says what the buffers of `source`, by (kind, number), are called in the program, where
    that differs: the step was planned for a piece that is written down alike.
    """

    name: str
    text: Callable[[], str]
    slots: list
    nchunks: int
    after: int = 0
    address: int = 0
    source: object = None
    group: int = 0
    work: int = 0
    names: Mapping[tuple[str, int], tuple[str, int]] | None = None
    module: str = ""
