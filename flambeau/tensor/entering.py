"""Inputs that a transform differentiates with respect to, and what leaves it again.

`func.grad` and `func.vjp` use the ordinary tape. Each input is entered as another tensor on the
same memory that hangs on the tape by itself: gradients with respect to it are not mixed up with
those with respect to the tensor it was made of, however deep transforms nest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.autograd.grad_mode import RECORD, mode
from flambeau.autograd.graph import AccumulateGrad, Node, next_order
from flambeau.tensor import levels, tape
from flambeau.tensor.tangents import JvpLevel, set_tangent, tangent_of

__all__ = ["Entry", "begin", "entered", "reaches_outside", "recorded_below", "unrecorded"]


class Entry(Node):
    """The identity: leads from an entered input to the tensor that it was made of."""

    __slots__ = ()

    def apply(self, grads: list) -> tuple:
        return (grads[0],)


def entered(tensor: Any) -> Any:
    """`tensor` as an input of a function that is differentiated with respect to it.

    Raises:
        RuntimeError: a dtype that has no gradients.
    """
    if tensor._meta.dtype.kind not in "fc":
        raise RuntimeError("only Tensors of floating point dtype can require gradients, and this "
                           f"one has {tensor._meta.dtype!r}")
    level = _innermost_batch()
    if level is not None and tensor._level is not level:
        made = level.lifted(tensor)
    else:
        made = _alias(tensor)
        if tensor._rg and mode() & 3 == RECORD:
            made._grad_fn = Entry((tape.edge_to(tensor),), (made._meta,))
    made._rg = True
    return made


def _innermost_batch() -> Any:
    for level in reversed(levels.current()):
        if level.batches:
            return level
    return None


def _alias(tensor: Any) -> Any:
    """The same memory without history, with the tangents."""
    made = tape.alias_of(tensor)
    for level in levels.current():
        if isinstance(level, JvpLevel):
            tangent = tangent_of(tensor, level)
            if tangent is not None:
                set_tangent(made, level, tangent)
    return made


def unrecorded(tensor: Any) -> Any:
    """A result without its history; with its tangents, unlike `detach()`."""
    return _alias(tensor) if tensor._rg else tensor


def recorded_below(tensor: Any) -> bool:
    """Has what a tensor inside of vmap stands for a history of its own?"""
    while tensor._level is not None:
        tensor = tensor._value
        if tensor._rg:
            return True
    return False


def reaches_outside(outputs: Sequence, inputs: Sequence, start: int) -> bool:
    """Do results depend on tensors that require grad other than the entered inputs (or on what
    those were made of)? `start` is the order of a node made before the inputs."""
    leaves = {id(tensor) for tensor in inputs}
    stack = [node for out in outputs if out._rg and (node := out.grad_fn) is not None]
    if any(out._rg and out.grad_fn is None and id(out) not in leaves for out in outputs):
        return True
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if node.tape_order in seen:
            continue
        seen.add(node.tape_order)
        if isinstance(node, AccumulateGrad):
            if id(node.variable) not in leaves:
                return True
        elif node.tape_order > start:
            return True
        stack += [edge[0] for edge in node.next_edges if edge is not None]
    return False


begin = next_order
"""The order to give to `reaches_outside`, taken before inputs are entered."""
