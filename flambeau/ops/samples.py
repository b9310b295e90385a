"""Sample inputs: what the tests of an op are derived from, in terms of no framework."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Arr", "Sample", "unary", "binary", "sample"]


@dataclasses.dataclass(frozen=True)
class Arr:
    """A random tensor to make: `dtype` None means the dtype under test.

    Attributes:
        low, high: the interval of the values (integers: half-open).
        requires_grad: whether gradients are checked with respect to it.
    """

    shape: tuple[int, ...]
    dtype: str | None = None
    low: float = -2.0
    high: float = 2.0
    requires_grad: bool = True


@dataclasses.dataclass
class Sample:
    """One call: positional and keyword arguments, tensors given as `Arr`."""

    args: tuple
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)


def sample(*args: Any, **kwargs: Any) -> Sample:
    """The call `op(*args, **kwargs)`."""
    return Sample(args, kwargs)


SHAPES = ((), (5,), (3, 4), (2, 1, 17), (0, 3), (40,))


def unary(low: float = -2.0, high: float = 2.0, **kwargs: Any) -> Callable[[], Iterator[Sample]]:
    """One tensor of every shape that tends to break: 0-d, empty, odd, longer than a register."""

    def samples() -> Iterator[Sample]:
        for shape in SHAPES:
            yield Sample((Arr(shape, None, low, high),), dict(kwargs))

    return samples


def binary(low: float = -2.0, high: float = 2.0, number: float | None = 1.5,
           **kwargs: Any) -> Callable[[], Iterator[Sample]]:
    """Two tensors: equal shapes, broadcasting both ways, 0-d, empty, and a number."""

    def samples() -> Iterator[Sample]:
        for a, b in (((), ()), ((5,), (5,)), ((3, 4), (4,)), ((1, 4), (3, 1)), ((2, 3, 17), ()),
                     ((0, 3), (3,)), ((40,), (40,))):
            yield Sample((Arr(a, None, low, high), Arr(b, None, low, high)), dict(kwargs))
        if number is not None:
            yield Sample((Arr((3, 4), None, low, high), number), dict(kwargs))

    return samples
