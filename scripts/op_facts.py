"""What is true of an op: dtypes, derivatives, vmap. Found by tracing one of its samples.

Nothing is compiled or run, so that all ops take a few seconds.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from flambeau.compiler import split_complex
from flambeau.core import dtypes
from flambeau.ir.graph import sort, tensor_input
from flambeau.ops.batching import BatchedCall, falls_back
from flambeau.ops.derive import Call, OpCall
from flambeau.ops.samples import Arr
from flambeau.ops.tangents import JvpCall

__all__ = ["Facts", "facts"]

DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32",
          "float64", "complex64", "complex128")
GROUPS = {"bool": ("bool",), "integers": ("uint8", "int8", "int16", "int32", "int64"),
          "16-bit floats": ("float16", "bfloat16"), "float32": ("float32",),
          "float64": ("float64",), "complex": ("complex64", "complex128")}
# What a body raises for a dtype that it does not take.
REFUSED = (RuntimeError, NotImplementedError, TypeError, ValueError)


@dataclasses.dataclass(frozen=True)
class Facts:
    """Attributes:
        dtypes: the groups of dtypes that the op takes, by name.
        orders: how many times it can be differentiated: 0, 1 or 2 (meaning any).
        forward: are there tangents; vmap: "" no, "yes", or "one by one".
    """

    dtypes: tuple[str, ...]
    orders: int
    forward: bool
    vmap: str


@functools.cache
def facts(record: Any) -> Facts:
    """The facts of a record."""
    calls = {name: traced(record, name) for name in DTYPES}
    groups = []
    for group, members in GROUPS.items():
        taken = [name for name in members if calls[name] is not None]
        if taken:
            groups.append(group if len(taken) == len(members) else ", ".join(taken))
    call = next((calls[name] for name in ("float64", "complex128", "int64", "bool")
                 if calls[name] is not None), None)
    if call is None:
        return Facts(tuple(groups), 0, False, "")
    return Facts(tuple(groups), _orders(record, call), _has_tangents(record, call), _batched(call))


def traced(record: Any, dtype: str) -> Call | None:
    """A call of the op on tensors of that dtype, or None if it refuses them."""
    for sample in record.samples():
        bound = record.bind(sample.args, sample.kwargs)
        structure, avals = [], []
        for param, arg in zip(record.params, bound, strict=True):
            items = arg if isinstance(arg, (tuple, list)) else (arg,)
            if param.role != "static" and arg is not None and not isinstance(arg, str):
                places = tuple(range(len(avals), len(avals) + len(items)))
                avals += [_aval(item, dtype) for item in items]
                many = param.role == "tensors"
                structure.append(("inputs", places) if many else ("input", places[0]))
            else:
                structure.append(("static", tuple(arg) if isinstance(arg, list) else arg))
        if not any(isinstance(aval, tuple) and 0 not in aval[0] for aval in avals):
            continue  # an empty sample, or one without tensors, tells little
        try:
            call = OpCall(record, structure, avals)
            _check_complex(call.graph)
        except REFUSED:
            return None
        return call
    return None


def _check_complex(graph: Any) -> None:
    """Raise what the compiler raises for operations that complex numbers have not."""
    if not split_complex.has_complex(graph):
        return
    splitter = split_complex._Splitter()
    for value in graph.inputs:
        if value.dtype.is_complex:
            real = value.dtype.to_real()
            splitter.pairs[value] = tensor_input(value.shape, real), tensor_input(value.shape, real)
            splitter.arguments.add(value)
        else:
            splitter.real[value] = value
    for value in sort(graph.outputs):
        splitter.visit(value)


def _aval(arg: Any, dtype: str) -> Any:
    if not isinstance(arg, Arr):
        given = hasattr(arg, "shape")  # an array of fixed values, or a number
        return (arg.shape, dtypes.by_numpy(arg.dtype)) if given else type(arg)
    name = arg.dtype if arg.dtype and not arg.dtype.startswith(("float", "complex")) else dtype
    return arg.shape, getattr(dtypes, "bool_" if name == "bool" else name)


def _moving(avals: Any) -> tuple[bool, ...]:
    return tuple(isinstance(aval, tuple) and aval[1].kind in "fc" for aval in avals)


def _orders(record: Any, call: Call) -> int:
    if not record.differentiable:
        return 0
    for order in range(2):
        wanted = _moving(call.avals)
        given = tuple(o.dtype.kind in "fc" for o in call.graph.outputs)
        try:
            call = call.backward(wanted, given)
        except REFUSED:
            return order
        if not any(place is not None for place in call.produced):
            return 2 * bool(order)  # linear: further gradients are zero
    return 2


def _has_tangents(record: Any, call: Call) -> bool:
    if not record.differentiable or not any(_moving(call.avals)):
        return False
    try:
        tangents = JvpCall(call, _moving(call.avals))
    except REFUSED:
        return False
    return any(place is not None for place in tangents.produced)


def _batched(call: Call) -> str:
    dims = tuple(0 if isinstance(aval, tuple) else None for aval in call.avals)
    try:
        BatchedCall(call, dims, 2)
    except REFUSED:
        return ""
    return "one by one" if falls_back(call) else "yes"
