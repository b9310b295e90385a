"""Where tensors are: moving them from device to device, and operations on tensors of several.

The device is part of a tensor's layout, by which launches are found. So only calls that were never
seen before come here, and a call of tensors on different devices is never kept as known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.autograd.grad_mode import RECORD, mode
from flambeau.autograd.graph import Node, node_type
from flambeau.core.device import CPU, META, NO_DATA, Device
from flambeau.ops.derive import OpCall
from flambeau.tensor import dispatch, launches, tape
from flambeau.tensor.meta import TensorBase, contiguous_meta, like_order, meta_of

__all__ = ["check_same", "made_on", "moved_to"]


class MoveNode(Node):
    """The tape's part of a copy to another device: its gradient goes back."""

    __slots__ = ("source",)

    def apply(self, grads: list) -> tuple:
        return (moved_to(grads[0], self.source),)


def moved_to(tensor: Any, device: Device) -> Any:
    """The tensor itself if it lies on `device`, else a copy there, without gaps and in the same
    order.

    Raises:
        NotImplementedError: it lies on the meta device, or is no plain tensor.
    """
    meta = tensor._meta
    if meta.device is device:
        return tensor
    if meta.device is META:
        raise NotImplementedError(NO_DATA)
    if tensor._level is None and hasattr(tensor, "_parts_moved"):
        return tensor._parts_moved(device)
    if not meta.strided or tensor._level is not None:
        raise NotImplementedError(f"a {type(tensor).__name__} cannot be moved to {device}: only "
                                  "plain tensors, outside of vmap, can lie there")
    strides = like_order(meta.shape, [meta])
    made = launches.fresh(meta_of(meta.dtype, meta.shape, strides, device))
    if tensor._rg and mode() & 3 == RECORD:
        node = node_type("ToCopyBackward0", MoveNode)((tape.edge_to(tensor),), (made._meta,))
        node.source = meta.device
        made._grad_fn, made._rg = node, True
    return made


def aligned(record: Any, args: Sequence, outs: Sequence = ()) -> list | None:
    """The arguments of an op on one device, or None if they are already: a CPU tensor without
    dimensions counts as a number wherever the others are, and `copy_` reads from any device.

    Raises:
        RuntimeError: tensors on several devices.
    """
    tensors = [*outs]
    for arg in args:
        if isinstance(arg, TensorBase):
            tensors.append(arg)
        elif arg.__class__ is tuple:
            tensors += [item for item in arg if isinstance(item, TensorBase)]
    devices = dict.fromkeys(t._meta.device for t in tensors)
    if len(devices) < 2:
        return None
    target = outs[0]._meta.device if outs else next(d for d in devices if d is not CPU)
    result = []
    for param, arg in zip(record.params, args, strict=True):
        if isinstance(arg, TensorBase) and arg._meta.device is not target and (
                record.name == "copy" or arg._meta.device is CPU and not arg._meta.ndim
                and param.role != "index"):
            arg = moved_to(arg, target)
        result.append(arg)
    if all(new is old for new, old in zip(result, args, strict=True)):
        launches.common_device([t._meta for t in tensors])  # raises
    return result


def check_same(*tensors: Any) -> Device:
    """The device of all these tensors (None among them is no tensor).

    Raises:
        RuntimeError: they lie on several.
    """
    return launches.common_device([t._meta for t in tensors if t is not None])


def made_on(device: Device, name: str, *args: Any) -> Any:
    """The result of an op that makes a tensor of numbers alone, on a device."""
    function = dispatch.FUNCTIONS[name]
    if device is CPU:
        return getattr(launches.late.ops, name.split(".")[-1])(*args)
    structure, flat = dispatch.flatten(function.record, dispatch.normalised(function.record, args))
    value, = OpCall(function.record, structure, [dispatch.aval(a) for a in flat]).graph.outputs
    made = launches.fresh(contiguous_meta(value.dtype, value.shape, device))
    first = made._storage.version
    dispatch.call_out(function, args, made)
    made._storage.version = first
    return made


launches.late.aligned = aligned
