"""Joint primitives: several results of one kernel, each of them a value of its own.

A joint primitive is a function of its inputs, defined by a composite of plain primitives: that is
its meaning, its gradient and what tests compare it with. The compiler has a kernel for it, which
gives all results at once. The last attribute says which result a value is; values whose inputs and
other attributes are the same come from the same run of the kernel.

Where the kernel is given what follows from other inputs (a gradient, what the forward has kept),
the inputs it follows from come first; its first attribute says as `unread` how many of them the
kernel does not read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flambeau.ir.graph import Primitive, Value, tensor_input

__all__ = ["joint"]

Composite = Callable[[Sequence[Value], tuple], tuple[Value, ...]]


def joint(name: str, results: int, infer: Callable, composite: Composite,
          dense: int = 0, any_order: bool = False) -> Primitive:
    """Make a joint primitive.

    Args:
        name: of the primitive, and of the compiler's rule for its kernel.
        results: how many there are.
        infer: (inputs, attrs) -> (shape, dtype) of the result that attrs[-1] names.
        composite: (inputs, attrs without the last) -> all results, by plain primitives.
        dense: how many of the last operands the kernel reads row-major, without strides.
        any_order: the kernel takes all strides of the others, not only contiguous rows.
    """
    made = Primitive(name, "joint", infer)
    made.results, made.dense, made.any_order = results, dense, any_order

    def rule(node: Value, g: Value) -> list[Value | None]:
        """Through the composite."""
        from flambeau.ops.derive import reverse, substitute

        given = [tensor_input(v.shape, v.dtype) for v in node.inputs]
        result = composite(given, node.attrs[:-1])[node.attrs[-1]]
        wanted = [not v.dtype.is_integral for v in node.inputs]
        grads = reverse([result], [g], given, wanted)
        found = [grad for grad in grads if grad is not None]
        filled = iter(substitute(found, dict(zip(given, node.inputs, strict=True))))
        return [None if grad is None else next(filled) for grad in grads]

    def tangent(node: Value, tangents: Sequence[Value | None]) -> Value | None:
        """Through the composite."""
        from flambeau.ops.tangents import push

        result = composite(node.inputs, node.attrs[:-1])[node.attrs[-1]]
        return push([result], node.inputs, tangents)[0]

    made.vjp(rule)
    made.jvp(tangent)
    made.composite = composite
    return made
