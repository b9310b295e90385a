"""Forward mode: the tangents of a program's results from those of its inputs.

`push` walks a graph forwards with each primitive's tangent rule. A primitive without one has its
gradient turned around: the gradient is linear in what it is given, and its own gradient with
respect to that is the tangent. A `JvpCall` is again a call, so tangents are compiled, recorded and
differentiated like everything else.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from flambeau.ir.graph import Graph, Value, sort, tensor_input
from flambeau.ops.derive import Call, OpCall, _aval, reverse, substitute
from flambeau.ops.primitives.elementwise import cast, convert, real, zero_like
from flambeau.ops.primitives.structure import expand
from flambeau.ops.primitives.tangents import total

__all__ = ["JvpCall", "push", "transposed"]

Tangents = Sequence[Value | None]


def moves(value: Value) -> bool:
    """Can the value have a tangent?"""
    return value.dtype.kind in "fc"


def push(outputs: Sequence[Value], inputs: Sequence[Value], tangents: Tangents
         ) -> list[Value | None]:
    """The tangents of `outputs`, None for those that do not move with the inputs."""
    known = {v: t for v, t in zip(inputs, tangents, strict=True) if t is not None}
    for value in sort(outputs, stop=inputs):
        if not moves(value):
            continue
        given = [known.get(v) if moves(v) else None for v in value.inputs]
        if any(t is not None for t in given):
            found = _tangent(value, given)
            if found is not None:
                known[value] = found
    return [known.get(v) for v in outputs]


def _tangent(value: Value, given: Tangents) -> Value | None:
    prim = value.prim
    if prim.jvp_rule is not None:
        found = prim.jvp_rule(value, given)
        return transposed(value, given) if found is NotImplemented else found
    if prim.vjp_rule is None:
        if prim.differentiable:
            raise NotImplementedError(f"no tangent rule for primitive {prim.name!r}")
        return None
    if prim.kind == "elementwise" and not value.dtype.is_complex and not any(
            v.dtype.is_complex for v in value.inputs):
        return _diagonal(value, given)
    return transposed(value, given)


def _diagonal(value: Value, given: Tangents) -> Value | None:
    """Where each element of the result depends on the elements at its place, in real numbers, the
    gradient's factors are those of the tangents."""
    parts = []
    for place, tangent in enumerate(given):
        if tangent is not None:
            parts.append(value.prim.vjp_rule(value, tangent)[place])
    return total(parts)


def transposed(value: Value, given: Tangents) -> Value | None:
    """The tangent of a primitive's result by the gradient of its gradient."""
    probe = tensor_input(value.shape, value.dtype)
    return _turned([value.prim.vjp_rule(value, probe)], [probe], [given])[0]


def _turned(gradients: Sequence[Sequence[Value | None]], probes: Sequence[Value],
            given: Sequence[Tangents]) -> list[Value | None]:
    """For linear maps from `probes` to `gradients`, their transposes applied to `given`."""
    outputs, weights = [], []
    for row, tangents in zip(gradients, given, strict=True):
        for gradient, tangent in zip(row, tangents, strict=True):
            if gradient is not None and tangent is not None:
                if tangent.dtype.kind == "f" and gradient.dtype.is_complex:
                    gradient = real(gradient)
                outputs.append(gradient)
                weights.append(cast(tangent, attrs=(gradient.dtype,))
                               if tangent.dtype is not gradient.dtype else tangent)
    if not outputs:
        return [None] * len(probes)
    results = reverse(outputs, weights, probes, [True] * len(probes))
    found = [r for r in results if r is not None]
    zeros = {probe: zero_like(probe) for probe in probes}  # linear: where it is taken is the same
    filled = iter(substitute(found, zeros))
    return [None if r is None else next(filled) for r in results]


class JvpCall(Call):
    """The tangents of a call's results.

    Its inputs are the tangents of the inputs that have one, then the inputs and then the outputs of
    the call that it needs; its outputs are the tangents of the outputs that move.

    Attributes:
        saved_inputs, saved_outputs: positions of what is needed of the call.
        produced: for each output of the call, the position of its tangent among the outputs, or
            None.
    """

    def __init__(self, forward: Call, wanted: tuple[bool, ...]):
        self.forward = forward
        self.name = f"{forward.name}_jvp"
        graph = forward.graph
        tangents = [tensor_input(v.shape, v.dtype) if w else None
                    for v, w in zip(graph.inputs, wanted, strict=True)]
        results = tangents_of(forward, graph.inputs, graph.outputs, tangents)
        results = [None if r is None else convert(r, o.dtype)
                   for r, o in zip(results, graph.outputs, strict=True)]
        live = [r for r in results if r is not None]
        stand_ins = {o: tensor_input(o.shape, o.dtype) for o in graph.outputs
                     if o.prim.kind != "source"}
        live = substitute(live, stand_ins)
        used = set(sort(live))
        self.saved_inputs = tuple(i for i, v in enumerate(graph.inputs) if v in used)
        self.saved_outputs = tuple(i for i, o in enumerate(graph.outputs)
                                   if stand_ins.get(o) in used)
        position = iter(range(len(live)))
        self.produced = tuple(None if r is None else next(position) for r in results)
        placeholders = ([t for t in tangents if t is not None]
                        + [graph.inputs[i] for i in self.saved_inputs]
                        + [stand_ins[graph.outputs[i]] for i in self.saved_outputs])
        super().__init__([_aval(v) for v in placeholders])
        self._made = Graph(placeholders, live)

    @classmethod
    def of(cls, forward: Call, wanted: tuple[bool, ...]) -> JvpCall:
        """The tangents of a call, given those of the `wanted` inputs; made once."""
        known = forward.__dict__.setdefault("tangent_calls", {})
        if wanted not in known:
            known[wanted] = cls(forward, wanted)
        return known[wanted]

    @functools.cached_property
    def graph(self) -> Graph:
        return self._made

    @property
    def grad_name(self) -> str:
        return self.forward.grad_name

    def build(self, values: Sequence[Value]) -> tuple[Value, ...]:
        """The same program on other values (for inlining into a larger one)."""
        mapping = dict(zip(self._made.inputs, values, strict=True))
        return tuple(substitute(self._made.outputs, mapping))


def tangents_of(call: Call, inputs: Sequence[Value], outputs: Sequence[Value], tangents: Tangents
                ) -> list[Value | None]:
    """The tangents of a call's outputs: by the gradient that overrides the derived one if there is
    one, turned around, else from the primitives."""
    record = getattr(call, "record", None)
    if record is not None and not record.differentiable:
        return [None] * len(outputs)
    if isinstance(call, OpCall) and record.gradient is not None:
        if _elementwise(outputs, inputs):
            return [_by_gradient(call, inputs, outputs, tangents)]
        rows = _gradient_rows(call, inputs, outputs)
        if any(v.prim.kind == "joint" for _, row in rows for v in sort(
                [g for g in row if g is not None])):  # its own gradient would be long
            still = [all(row[place] is None for _, row in rows) for place in range(len(inputs))]
            return push(outputs, inputs, [None if s else t for s, t in
                                          zip(still, tangents, strict=True)])
        return _by_transposing(rows, outputs, tangents)
    return push(outputs, inputs, tangents)


def _elementwise(outputs: Sequence[Value], inputs: Sequence[Value]) -> bool:
    """Is there one result, real, whose elements depend on those at their (broadcast) places?"""
    if len(outputs) != 1 or outputs[0].dtype.is_complex:
        return False
    return all(v.prim.kind in ("elementwise", "source") and v.prim.name != "iota"
               or v.prim.name == "expand" for v in sort(outputs)) and not any(
        v.dtype.is_complex for v in inputs)


def _by_gradient(call: OpCall, inputs: Sequence[Value], outputs: Sequence[Value],
                 tangents: Tangents) -> Value | None:
    (output,) = outputs
    shape = output.shape
    spread = [v if v.number else expand(v, shape) for v in inputs]
    whole = OpCall(call.record, call.structure, [_aval(v) for v in spread])
    parts = []
    for place, tangent in enumerate(tangents):
        if tangent is not None:
            given = convert(expand(tangent, shape), output.dtype)
            part = whole.rule(spread, outputs, (given,))[place]
            parts.append(None if part is None else convert(part, output.dtype))
    return total(parts)


def _gradient_rows(call: Call, inputs: Sequence[Value], outputs: Sequence[Value]
                   ) -> list[tuple[Value, list[Value | None]]]:
    """(gradient given, gradients of the inputs) by a call's override, for each output that can
    move: an input that gets no gradient has no tangent either."""
    found = []
    for place, output in enumerate(outputs):
        if moves(output):
            probe = tensor_input(output.shape, output.dtype)
            grads: list[Any] = [probe if n == place else None for n in range(len(outputs))]
            found.append((probe, call.rule(inputs, outputs, grads)))
    return found


def _by_transposing(rows: Sequence[tuple], outputs: Sequence[Value], tangents: Tangents
                    ) -> list[Value | None]:
    turned = iter([_turned([row], [probe], [tangents])[0] for probe, row in rows])
    return [next(turned) if moves(output) else None for output in outputs]
