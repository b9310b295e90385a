"""What the tensor layer tells this one about itself; nothing here knows a tensor."""

from __future__ import annotations

from typing import Any

__all__ = ["tensors", "register_tensor_class"]


class _Tensors:
    """What the tensor layer has registered.

    Attributes:
        cls: the tensor class.
        make: a namespace with `tensor`, `zeros`, `zeros_like`, `ones_like` and `empty_strided`,
            which have PyTorch's signatures.
        forward: gives the part of forward mode that knows tensors.
    """

    __slots__ = ("cls", "make", "forward")

    def __init__(self) -> None:
        self.cls: Any = None
        self.make: Any = None
        self.forward: Any = None


tensors = _Tensors()


def register_tensor_class(cls: type, make: Any, forward: Any = None) -> None:
    """Tell this layer what a tensor is and who makes new ones; the tensor layer calls it once."""
    tensors.cls = cls
    tensors.make = make
    tensors.forward = forward
