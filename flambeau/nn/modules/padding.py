"""Padding modules."""

from __future__ import annotations

from typing import Any

from flambeau.nn import functional as F
from flambeau.nn.modules.module import Module
from flambeau.nn.modules.utils import ntuple
from flambeau.tensor import Tensor

__all__ = [
    "CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d", "ConstantPad2d",
    "ConstantPad3d", "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d",
    "ReplicationPad2d", "ReplicationPad3d", "ZeroPad1d", "ZeroPad2d", "ZeroPad3d",
]


class _Pad(Module):
    """Padding of the last dimensions.

    Args:
        padding: one number, or (left, right) pairs from the last dimension on.
    """

    __constants__ = ["padding"]
    _dims: int
    _mode: str

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.padding = ntuple(padding, 2 * self._dims)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, mode=self._mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _CircularPad(_Pad):
    _mode = "circular"

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (self._dims + 1, self._dims + 2):
            raise ValueError(f"expected {self._dims + 1}D or {self._dims + 2}D input (got "
                             f"{input.dim()}D input)")
        return super().forward(input)


class CircularPad1d(_CircularPad):
    """The last dimension continued by its other end; `padding` as one number or a pair."""

    _dims = 1


class CircularPad2d(_CircularPad):
    """The last two dimensions continued by their other ends; `padding` as one number or two
    pairs."""

    _dims = 2


class CircularPad3d(_CircularPad):
    """The last three dimensions continued by their other ends; `padding` as one number or three
    pairs."""

    _dims = 3


class _ConstantPad(_Pad):
    __constants__ = ["padding", "value"]

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """The last dimension padded with `value`."""

    _dims = 1


class ConstantPad2d(_ConstantPad):
    """The last two dimensions padded with `value`."""

    _dims = 2


class ConstantPad3d(_ConstantPad):
    """The last three dimensions padded with `value`."""

    _dims = 3


class ZeroPad1d(ConstantPad1d):
    """The last dimension padded with zeros."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad2d(ConstantPad2d):
    """The last two dimensions padded with zeros."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad3d(ConstantPad3d):
    """The last three dimensions padded with zeros."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ReflectionPad1d(_Pad):
    """The last dimension mirrored at its edges, the edges themselves once."""

    _dims, _mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """The last two dimensions mirrored at their edges, the edges themselves once."""

    _dims, _mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """The last three dimensions mirrored at their edges, the edges themselves once."""

    _dims, _mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """The edge of the last dimension repeated."""

    _dims, _mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """The edges of the last two dimensions repeated."""

    _dims, _mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """The edges of the last three dimensions repeated."""

    _dims, _mode = 3, "replicate"
