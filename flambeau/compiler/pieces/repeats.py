"""What repeats in a sequence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

__all__ = ["Stretch", "repeats"]

LEAST = 3  # times that something must come for it to count
CANDIDATES = 12  # periods that are tried, the most frequent distances between equals


class Stretch(NamedTuple):
    """`count` times the same `period` items, from `start` on."""

    start: int
    period: int
    count: int

    @property
    def stop(self) -> int:
        return self.start + self.period * self.count


def repeats(items: Sequence[Hashable], shortest: int) -> list[Stretch]:
    """The stretches of `items` in which at least `shortest` of them come again and again; in order,
    and apart from one another."""
    last: dict[Hashable, int] = {}
    distances: Counter[int] = Counter()
    for at, item in enumerate(items):
        if item in last:
            distances[at - last[item]] += 1
        last[item] = at
    periods = [period for period, _ in distances.most_common(CANDIDATES)]
    found = [stretch for period in periods for stretch in _of_period(items, period, shortest)]
    taken: list[Stretch] = []
    for stretch in sorted(found, key=lambda s: (s.start - s.stop, s.period)):
        if all(stretch.stop <= other.start or other.stop <= stretch.start for other in taken):
            taken.append(stretch)
    return sorted(taken)


def _of_period(items: Sequence[Hashable], period: int, shortest: int) -> list[Stretch]:
    """The longest stretches in which each item equals the one `period` further."""
    found, at = [], 0
    whole = period * -(-shortest // period)
    while at + period < len(items):
        start = at
        while at + period < len(items) and items[at] == items[at + period]:
            at += 1
        count = (at - start + period) // whole
        if count >= LEAST:
            found.append(Stretch(start, whole, count))
        at += 1
    return found
