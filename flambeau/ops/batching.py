"""vmap: programs for a batch of examples, from the programs for one.

`vectorized` walks a graph with each primitive's batching rule. A `BatchedCall` is again a call:
one launch for all examples, whose gradient is derived like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.ir.graph import Value, sort, tensor_input
from flambeau.ops.derive import Aval, Call
from flambeau.ops.primitives import batching as rules
from flambeau.ops.primitives.batching import one_by_one, spread_over
from flambeau.ops.primitives.structure import expand, permute, reduce_sum

__all__ = ["BatchedCall", "vectorized"]

Known = dict[Value, tuple[Value, bool]]


def vectorized(outputs: Sequence[Value], known: Known, size: int) -> list[tuple[Value, bool]]:
    """(value, does it differ between examples?) of each output, given those of the inputs."""
    known = dict(known)
    for value in sort(outputs, stop=known):
        if value in known:
            continue
        given = [known[v] for v in value.inputs]
        inputs, flags = [v for v, _ in given], [flag for _, flag in given]
        if any(flags):
            known[value] = _rule(value)(value, inputs, flags, size), True
        elif all(a is b for a, b in zip(inputs, value.inputs, strict=True)):
            known[value] = value, False
        else:
            made = Value(value.prim, tuple(inputs), value.attrs, value.shape, value.dtype,
                         value.number)
            known[value] = made, False
    return [known[o] for o in outputs]


def _rule(value: Value) -> Any:
    prim = value.prim
    if prim.batch_rule is not None:
        return prim.batch_rule
    if prim.kind == "elementwise":
        return rules.leading
    if prim.kind == "joint":
        return rules.through(vectorized)
    return one_by_one


def falls_back(call: Call) -> list[str]:
    """The primitives of a call that have no batching rule, by name."""
    return sorted({v.prim.name for v in call.graph.order() if v.inputs
                   and _rule(v) is one_by_one})


class BatchedCall(Call):
    """A call for `size` examples.

    Args:
        forward: the call for one example.
        dims: for each input, the dimension along which the examples lie, or None.

    Attributes:
        flags: for each output, whether it differs between examples; these lie along its first
            dimension then.
    """

    def __init__(self, forward: Call, dims: tuple[int | None, ...], size: int):
        super().__init__([_spread(aval, dim, size)
                          for aval, dim in zip(forward.avals, dims, strict=True)])
        self.forward, self.dims, self.size = forward, dims, size
        self.name = f"vmap({forward.name})"
        self.record = getattr(forward, "record", None)
        self.original = getattr(forward, "original", forward)  # as users know it
        self.flags: tuple[bool, ...] = ()
        self.graph  # noqa: B018 - tells the flags

    @classmethod
    def of(cls, forward: Call, dims: tuple[int | None, ...], size: int) -> BatchedCall:
        """A call for `size` examples; made once."""
        known = forward.__dict__.setdefault("batched_calls", {})
        found = known.get((dims, size))
        if found is None:
            found = known[dims, size] = cls(forward, dims, size)
        return found

    @property
    def grad_name(self) -> str:
        return self.forward.grad_name

    def _known(self, values: Sequence[Value]) -> Known:
        return {v: (_first(x, dim), dim is not None) for v, x, dim in
                zip(self.forward.graph.inputs, values, self.dims, strict=True)}

    def build(self, values: Sequence[Value]) -> tuple[Value, ...]:
        results = vectorized(self.forward.graph.outputs, self._known(values), self.size)
        self.flags = tuple([flag for _, flag in results])
        return tuple([value for value, _ in results])

    def rule(self, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence) -> Any:
        """The override of the gradient for one example, for all of them."""
        graph = self.forward.graph
        probes = [None if g is None else tensor_input(o.shape, o.dtype)
                  for g, o in zip(grads, graph.outputs, strict=True)]
        found = self.forward.rule(graph.inputs, graph.outputs, probes)
        if found is None:
            return None
        known = {o: (x, flag) for o, x, flag in
                 zip(graph.outputs, outputs, self.flags, strict=True)
                 if o.prim.kind != "source"}
        known |= {p: (g, flag) for p, g, flag in
                  zip(probes, grads, self.flags, strict=True) if p is not None}
        known |= self._known(inputs)
        live = [g for g in found if g is not None]
        filled = iter(vectorized(live, known, self.size))
        return [None if g is None else self._returned(*next(filled), dim)
                for g, dim in zip(found, self.dims, strict=True)]

    def _returned(self, grad: Value, flag: bool, dim: int | None) -> Value:
        """The gradient of an input: where the examples lie, or the sum over them."""
        if dim is None:
            if flag:
                return reduce_sum(grad, (0,))
            return reduce_sum(expand(grad, (self.size, *grad.shape)), (0,))
        whole = spread_over(grad, flag, self.size)
        places = list(range(1, whole.ndim))
        places.insert(dim, 0)
        return permute(whole, places)


def _spread(aval: Aval, dim: int | None, size: int) -> Aval:
    if dim is None:
        return aval
    shape, dtype = aval
    return (*shape[:dim], size, *shape[dim:]), dtype


def _first(x: Value, dim: int | None) -> Value:
    """The input with its examples along the first dimension."""
    if not dim:
        return x
    return permute(x, (dim, *[d for d in range(x.ndim) if d != dim]))
