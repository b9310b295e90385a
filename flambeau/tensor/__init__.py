"""Tensor: storage and views, dispatch (call -> cached launch), indexing, interop, display.

User-facing behaviour of tensors lives here. What an operation computes is defined in ops/, how it
is compiled in compiler/, how it is differentiated by the tape in autograd/.
"""

from flambeau.autograd.graph import register_tensor_class
from flambeau.tensor import creation, methods
from flambeau.tensor.tensor import Tensor

__all__ = ["Tensor"]



def _forward() -> object:
    """The tensor layer's part of forward mode, imported when it is first used."""
    from flambeau.tensor import forward

    return forward


register_tensor_class(Tensor, creation, _forward)
del creation, methods
