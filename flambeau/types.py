"""`torch.types`: names for annotations."""

from __future__ import annotations

from flambeau.core.device import Device
from flambeau.core.shapes import Size

__all__ = ["Device", "Number", "_size"]

Number = bool | int | float
_size = Size | list[int] | tuple[int, ...]
