"""The verifier: a graph must be well formed after every pass."""

from __future__ import annotations

from flambeau.ir.graph import Graph

__all__ = ["VerifyError", "verify"]


class VerifyError(AssertionError):
    """A pass has broken the program."""


def verify(graph: Graph, after: str = "tracing") -> None:
    """Check types and order, and that every placeholder is declared.

    Raises:
        VerifyError: names the value, the pass, and prints the program.
    """
    declared = set(graph.inputs)
    for value in graph.order():
        problem = None
        late = [operand for operand in value.inputs if operand.serial >= value.serial]
        if late:
            problem = f"comes before its input {late[0]!r}"
        elif value.prim.kind == "source":
            if value.prim.name in ("input", "number") and value not in declared:
                problem = "is a placeholder that the program does not declare"
        else:
            shape, dtype = value.prim.infer(value.inputs, value.attrs)
            if tuple(shape) != value.shape or dtype is not value.dtype:
                problem = f"should be {dtype.name}{list(shape)}"
            elif value.prim.kind == "elementwise":
                shapes = {operand.shape for operand in value.inputs}
                if len(shapes) > 1:
                    problem = f"mixes shapes {sorted(shapes)}"
        if problem:
            raise VerifyError(f"after {after}: {value!r} {problem}\n{graph}")
