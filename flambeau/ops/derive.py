"""Calls: ops with all static arguments bound, and the derivation of their gradients.

A `Call` is a program of flat inputs (tensors and numbers). `Call.backward(...)` is again a Call, so
that gradients of every order come from the same few lines: trace the forward, walk it backwards
with each primitive's rule, and keep only what the result still needs.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any

from flambeau.core import dtypes
from flambeau.core.dtypes import DType
from flambeau.ir.graph import Graph, Value, number_input, sort, tensor_input
from flambeau.ops.primitives.elementwise import add, convert, filled
from flambeau.ops.record import Op
from flambeau.ops.stored import check_stored

__all__ = ["Aval", "Call", "OpCall", "WrittenCall", "BackwardCall", "reverse"]

Aval = tuple[tuple[int, ...], DType] | type
"""What an input looks like: (shape, dtype), or the type of a Python number."""


class Call:
    """A program with flat inputs. Subclasses say in `build` how it is traced.

    Attributes:
        name: for error messages and profiles.
        avals: what each input looks like.
    """

    name = "call"
    grad_name = "Backward"

    def __init__(self, avals: Sequence[Aval]):
        self.avals = tuple(avals)

    def build(self, values: Sequence[Value]) -> tuple[Value, ...]:
        raise NotImplementedError

    @functools.cached_property
    def graph(self) -> Graph:
        """The traced program."""
        inputs = [number_input(a) if isinstance(a, type) else tensor_input(*a) for a in self.avals]
        return Graph(inputs, self.build(inputs))

    def rule(self, inputs, outputs, grads):
        """An overriding gradient: one per input (None allowed), or None for the derived one."""
        return

    @functools.cache  # noqa: B019 - calls live as long as their launch records
    def backward(self, wanted: tuple[bool, ...], given: tuple[bool, ...]) -> BackwardCall:
        """The gradient with respect to the `wanted` inputs; `given` says which outputs have one."""
        return BackwardCall(self, wanted, given)


class OpCall(Call):
    """An op with its static arguments bound.

    Args:
        structure: for each parameter, the position(s) of its flat input, or a static value:
            ("input", i), ("inputs", (i, ...)) or ("static", value).
    """

    def __init__(self, record: Op, structure: Sequence[tuple[str, Any]], avals: Sequence[Aval]):
        super().__init__(avals)
        self.record = record
        self.structure = tuple(structure)
        self.name = record.name

    def _bind(self, values: Sequence[Value]) -> list:
        bound: list = []
        for kind, what in self.structure:
            if kind == "input":
                bound.append(values[what])
            elif kind == "inputs":
                bound.append(tuple(values[i] for i in what))
            else:
                bound.append(what)
        return bound

    def build(self, values: Sequence[Value]) -> tuple[Value, ...]:
        record = self.record
        given = [record._lifted(p, a) for p, a in
                 zip(record.params, self._bind(values), strict=True)]
        args = record.promoted(given, widen=record.opmath)
        widen, low = self._reduced(given, args) if record.opmath else (False, None)
        if widen:
            args = [_widened(arg) for arg in args]
        outputs = record.run_body(args)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        if low is not None:
            wanted = self._static("dtype") or low
            outputs = tuple(_narrowed(o, wanted) for o in outputs)
        if any(v.dtype.carrier is not None for v in (*values, *outputs)):
            check_stored(self.name, sort(outputs))
        return tuple(convert(o, o.dtype) if o.number else o for o in outputs)

    def _promoted(self, bound: Sequence) -> list:
        """Tensors and operands in the dtype that the forward computed in, 16-bit ones as they are
        given."""
        record = self.record
        if record.promote is None:
            return list(bound)
        lifted = [record._lifted(p, a) for p, a in zip(record.params, bound, strict=True)]
        common = record.promoted(lifted, widen=record.opmath)
        return [after if p.role in ("tensor", "operand", "tensors") and before is not None
                else before for p, before, after in zip(record.params, bound, common, strict=True)]

    def _reduced(self, given: Sequence, args: Sequence) -> tuple[bool, DType | None]:
        """(Are any values of few bits? The dtype of few bits that results have: the one of the
        first floating tensor, if it is one.) `given`: the arguments before promotion."""
        found, tensors = [], []
        for before, after in zip(given, args, strict=True):
            for value in after if isinstance(after, tuple) else (after,):
                if isinstance(value, Value):
                    found.append(value.dtype)
                    if value.dtype.kind in "fc" and not getattr(before, "number", False):
                        tensors.append(value.dtype)
        first = tensors[0] if tensors else None
        return (any(map(self._widens, found)),
                first if first is not None and self._widens(first) else None)

    def _widens(self, dtype: DType) -> bool:
        """Is arithmetic on this dtype done in a wider one?"""
        return dtype.is_reduced or self.record.float8 and dtype.carrier is not None

    def _static(self, name: str) -> Any:
        for param, (kind, what) in zip(self.record.params, self.structure, strict=True):
            if param.name == name and kind == "static":
                return what
        return None

    @property
    def grad_name(self) -> str:
        grad = self.record.grad
        if callable(grad):
            return grad(self)
        if grad is None:
            words = self.record.name.split(".")[-1].split("_")
            grad = "".join(word.capitalize() for word in words) + "Backward0"
        return grad

    def rule(self, inputs, outputs, grads):
        override = self.record.gradient
        if override is None:
            return None
        bound = self._promoted(self._bind(inputs))
        low = next((v.dtype for v in inputs if not v.number and self._widens(v.dtype)), None)
        if low is not None and self.record.opmath:
            bound = [_widened(arg) for arg in bound]
            outputs = tuple(_widened(o) for o in outputs)
            grads = tuple(None if g is None else _widened(g) for g in grads)
        known = {p.name: a for p, a in zip(self.record.params, bound, strict=True)}
        known |= {"g": grads if len(grads) > 1 else grads[0],
                  "output": outputs if len(outputs) > 1 else outputs[0]}
        names = inspect.signature(override).parameters
        result = override(**{name: known[name] for name in names})
        result = list(result) if isinstance(result, (tuple, list)) else [result]
        flat: list[Value | None] = [None] * len(inputs)
        for param, (kind, what) in zip(self.record.params, self.structure, strict=True):
            if param.role not in ("tensor", "operand", "tensors"):
                continue
            grad = result.pop(0)
            if kind == "input":
                flat[what] = grad
            elif kind == "inputs":
                for i, item in zip(what, grad, strict=True):
                    flat[i] = item
        return [None if g is None or v.number else convert(g, v.dtype)
                for g, v in zip(flat, inputs, strict=True)]


class WrittenCall(OpCall):
    """An op whose results are stored as other dtypes: those of the tensors that it writes to.

    Gradients arrive and saved results are read in the stored dtypes, and the op's own rules meet
    them in the dtypes that it computed in. What is stored may have a gradient where the op's own
    result has none (`x.lt_(y)`): zero.

    Args:
        stored: the dtype of each result.
    """

    def __init__(self, call: OpCall, stored: Sequence[DType]):
        super().__init__(call.record, call.structure, call.avals)
        self.computed = tuple(output.dtype for output in call.graph.outputs)
        self.stored = tuple(stored)

    def build(self, values: Sequence[Value]) -> tuple[Value, ...]:
        return tuple(convert(output, dtype) for output, dtype in
                     zip(super().build(values), self.stored, strict=True))

    def rule(self, inputs, outputs, grads):
        if any(dtype.kind not in "fc" for dtype in self.computed):
            return [None if v.number else filled(0, v) for v in inputs]
        return super().rule(inputs, [convert(o, dtype) for o, dtype in
                                     zip(outputs, self.computed, strict=True)],
                            [g if g is None else convert(g, dtype) for g, dtype in
                             zip(grads, self.computed, strict=True)])


def _narrowed(value: Value, low: DType) -> Value:
    """What was computed in 32 bits for arguments of dtype `low`, in its precision."""
    if (low.is_reduced or low.carrier) and value.dtype in (dtypes.float32, dtypes.complex64):
        return convert(value, low.to_real() if value.dtype.kind == "f" else low.to_complex())
    return value


def _widened(arg: Any) -> Any:
    """Values of 16-bit and 8-bit floats as float32; everything else as it is."""
    if isinstance(arg, tuple) and arg and isinstance(arg[0], Value):
        return tuple(_widened(item) for item in arg)
    if isinstance(arg, Value) and arg.dtype.is_reduced:
        return convert(arg, arg.dtype.widened)
    if isinstance(arg, Value) and arg.dtype.carrier is not None and arg.dtype.kind == "f":
        # by way of bfloat16, which holds them all: products then take the kernels for that
        return convert(convert(arg, dtypes.bfloat16), dtypes.float32)
    return arg


class BackwardCall(Call):
    """The gradient of a call.

    Its inputs are the gradients of the outputs that have one, then the inputs and then the outputs
    of the forward that it needs; its outputs are the gradients of the wanted inputs that are not
    zero.

    Attributes:
        saved_inputs, saved_outputs: positions of what the forward must keep.
        produced: for each input of the forward, the position of its gradient among the outputs, or
            None.
    """

    def __init__(self, forward: Call, wanted: tuple[bool, ...], given: tuple[bool, ...]):
        self.forward = forward
        self.name = f"{forward.name}_backward"
        graph = forward.graph
        inputs = graph.inputs
        grads = [tensor_input(o.shape, o.dtype) if has else None
                 for o, has in zip(graph.outputs, given, strict=True)]
        results = forward.rule(inputs, graph.outputs, grads)
        if results is None:
            results = reverse(graph.outputs, grads, inputs, wanted)
        results = [r if w else None for r, w in zip(results, wanted, strict=True)]
        live = [r for r in results if r is not None]
        stand_ins = {o: tensor_input(o.shape, o.dtype) for o in graph.outputs
                     if o.prim.kind != "source"}
        live = substitute(live, stand_ins)
        used = set(sort(live))
        self.saved_inputs = tuple(i for i, v in enumerate(inputs) if v in used)
        self.saved_outputs = tuple(i for i, o in enumerate(graph.outputs)
                                   if stand_ins.get(o) in used)
        position = iter(range(len(live)))
        self.produced = tuple(None if r is None else next(position) for r in results)
        placeholders = ([g for g in grads if g is not None]
                        + [inputs[i] for i in self.saved_inputs]
                        + [stand_ins[graph.outputs[i]] for i in self.saved_outputs])
        super().__init__([_aval(v) for v in placeholders])
        self._made = Graph(placeholders, live)

    @functools.cached_property
    def graph(self) -> Graph:
        return self._made

    @property
    def grad_name(self) -> str:
        return self.forward.grad_name + "Backward0"

    def build(self, values: Sequence[Value]) -> tuple[Value, ...]:
        """The same program on other values (for inlining into a larger one)."""
        made = self._made
        mapping = dict(zip(made.inputs, values, strict=True))
        return tuple(substitute(made.outputs, mapping))


def _aval(value: Value) -> Aval:
    if value.number:
        return {"b": bool, "i": int, "f": float, "c": complex}[value.dtype.kind]
    return value.shape, value.dtype


def substitute(outputs: Sequence[Value], mapping: dict[Value, Value], numbered: bool = False
               ) -> list[Value]:
    """`outputs` with values replaced as `mapping` says; untouched parts are shared. If `numbered`,
    new values keep the numbers of the old ones, which they are to be used instead of."""
    done = dict(mapping)
    for value in sort(outputs, stop=mapping):
        if value in done:
            continue
        inputs = tuple(done[v] for v in value.inputs)
        if inputs == value.inputs:
            done[value] = value
        else:
            done[value] = made = Value(value.prim, inputs, value.attrs, value.shape, value.dtype,
                                       value.number)
            if numbered:
                made.serial = value.serial
    return [done[o] for o in outputs]


def reverse(outputs: Sequence[Value], grads: Sequence[Value | None], inputs: Sequence[Value],
            wanted: Sequence[bool]) -> list[Value | None]:
    """Differentiate a graph in reverse: the gradient of each wanted input, or None if zero."""
    order = sort(outputs)
    needed = {v for v, w in zip(inputs, wanted, strict=True) if w}
    for value in order:
        if value not in needed and value.prim.name != "stop_gradient" and any(
                v in needed for v in value.inputs):
            needed.add(value)
    total: dict[Value, Value] = {}

    def accumulate(value: Value, grad: Value) -> None:
        total[value] = add(total[value], grad) if value in total else grad

    for output, grad in zip(outputs, grads, strict=True):
        if grad is not None and output in needed:
            accumulate(output, grad)
    for value in reversed(order):
        grad = total.get(value)
        if grad is None or not value.inputs or value.prim.vjp_rule is None:
            if grad is not None and value.inputs and value.prim.differentiable:
                raise NotImplementedError(f"no gradient rule for primitive {value.prim.name!r}")
            continue
        for operand, part in zip(value.inputs, value.prim.vjp_rule(value, grad), strict=True):
            if part is not None and operand in needed and not operand.dtype.is_integral:
                if operand.dtype.kind == "f" and part.dtype.is_complex:
                    from flambeau.ops.primitives.elementwise import real

                    part = real(part)
                accumulate(operand, part)
    return [total.get(v) if w else None for v, w in zip(inputs, wanted, strict=True)]
