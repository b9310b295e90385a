"""Steps of a schedule as text: what each kernel computes, in the notation of a loop nest."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from flambeau.compiler.expression import Buffer, Expr, Index
from flambeau.compiler.fusing import fuse
from flambeau.compiler.nest import Loop, Phase
from flambeau.compiler.program import Planner
from flambeau.compiler.schedule import LibraryStep, schedule
from flambeau.compiler.simplify import simplify
from flambeau.compiler.sweeps import Nest
from flambeau.compiler.target import host
from flambeau.runtime.pool import get_num_threads

__all__ = ["buffer_name", "listed", "passes", "shape_text"]

_SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "gt": ">",
          "ge": ">=", "eq": "==", "ne": "!="}
_LETTERS = "ijklmnpqrstuvw"
LONGEST = 160  # characters of an expression


def shape_text(shape: Sequence[int]) -> str:
    """[32, 64] for a shape."""
    return "[" + ", ".join(map(str, shape)) + "]"


def buffer_name(buffer: Buffer) -> str:
    """in0, out2, temp5; "sum" for what a product's kernel has in its registers."""
    if buffer.kind == "acc":
        return "sum"
    return f"{buffer.kind}{buffer.number}" + ("/row" if buffer.per_thread else "")


def listed(step: Any) -> list[str]:
    """The lines of a phase, nest or library step."""
    if isinstance(step, Phase):
        return [_Names().phase(step)]
    if isinstance(step, Nest):
        return _nest(step)
    return _library(step)


def _nest(nest: Nest) -> list[str]:
    names = _Names()
    lines = []
    if len(nest.sweeps) > 1 and nest.rows:
        lines.append("for each row " + names.loops(nest.rows) + ":")
    rows = {row.var for row in nest.rows} if lines else set()
    margin = "  " if lines else ""
    for sweep in nest.sweeps:
        if len(sweep) > 1:
            lines.append(f"{margin}in one loop:")
        indent = margin + ("  " if len(sweep) > 1 else "")
        lines += [indent + names.phase(phase, rows) for phase in sweep]
    return lines


def _library(step: LibraryStep) -> list[str]:
    given = ", ".join(f"{buffer_name(b)}{shape_text(b.shape)}" for b in step.sources)
    made = [b for b in (step.results or (step.target,)) if b is not None]
    target = ", ".join(f"{buffer_name(b)}{shape_text(b.shape)}" for b in made)
    lines = [f"{target} = {step.kind}({given})"]
    if step.epilogue:
        names = _Names()
        kept = "" if not step.private else ", which is not stored itself"
        lines.append(f"  and on each finished part of it{kept}:")
        lines += ["    " + names.phase(phase) for phase in step.epilogue]
    return lines


def _constant(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "far" if isinstance(value, int) and abs(value) > 1 << 60 else str(value)


class _Names:
    """Letters for loop variables."""

    def __init__(self) -> None:
        self.letters: dict[int, str] = {}

    def of(self, var: int) -> str:
        if var not in self.letters:
            count = len(self.letters)
            self.letters[var] = _LETTERS[count % len(_LETTERS)] + (
                str(count // len(_LETTERS)) if count >= len(_LETTERS) else "")
        return self.letters[var]

    def loops(self, loops: Sequence[Loop]) -> str:
        return ", ".join(f"{self.of(loop.var)} < {loop.extent}" for loop in loops)

    def phase(self, phase: Phase, rows: Collection[int] = ()) -> str:
        """A line for a phase; `rows` are loops that were told already."""
        loops = self.loops([loop for loop in phase.loops() if loop.var not in rows])
        target = f"{buffer_name(phase.target)}[{self.index(phase.where)}]"
        value = self.text(phase.value)
        if len(value) > LONGEST:
            value = value[:LONGEST] + "..."
        if phase.reduce is not None:
            reduced = [*phase.inner, *([phase.lane] if phase.lane_reduced and phase.lane else [])]
            over = ", ".join(self.of(loop.var) for loop in reduced)
            value = f"{phase.reduce} over {over} of {value}" if over else value
        if phase.mode != "set":
            target += f" ({phase.mode.replace('_', ', ')})"
        return f"{target} = {value}" + (f"    for {loops}" if loops else "")

    def index(self, index: Index) -> str:
        parts = [self.of(var) if factor == 1 else f"{factor}*{self.of(var)}"
                 for var, factor in sorted(index.terms.items(), key=lambda item: -item[1])]
        parts += [f"{stride}*({self.text(expr)})" if stride != 1 else self.text(expr)
                  for expr, stride in index.dynamic]
        if index.const or not parts:
            parts.append(str(index.const))
        return " + ".join(parts)

    def text(self, expr: Expr, depth: int = 0) -> str:
        """An expression, shortened where it is deep."""
        if depth > 12:
            return "..."
        kind = expr.kind
        args = [self.text(arg, depth + 1) for arg in expr.args]
        if kind == "load":
            return f"{buffer_name(expr.data[0])}[{self.index(expr.data[1])}]"
        if kind == "const":
            return _constant(expr.data)
        if kind == "number":
            return f"number{expr.data[0] if isinstance(expr.data, tuple) else expr.data}"
        if kind == "cast":
            return args[0] if args[0].startswith("number") else f"{expr.dtype.name}({args[0]})"
        if kind == "op":
            name = expr.data.name
            if name in _SIGNS and len(args) == 2:
                return f"({args[0]} {_SIGNS[name]} {args[1]})"
            return f"{name}({', '.join(args)})"
        if kind == "inside":
            return f"0 <= {self.index(expr.data[0])} < {expr.data[1]}"
        if kind == "index":
            return self.index(expr.data)
        if kind == "divides":
            return f"{expr.data[1]} divides {self.index(expr.data[0])}"
        if kind == "quotient":
            return f"({self.index(expr.data[0])}) / {expr.data[1]}"
        return f"{kind}({', '.join(args)})"


def passes(recording: Any, program: Any) -> dict[str, str]:
    """What each pass of the compiler makes of a captured program, as text.

    Args:
        recording: of the list `compiled.recordings`, which is filled if it is set to a list before
            the first call.
        program: the program that was made of it.

    The passes: "capture", "simplify", "schedule", "fuse", "nests", "reuse".
    """
    told = {"capture": str(recording.graph)}
    graph, effects = simplify(recording.graph, recording.effects)
    told["simplify"] = str(graph)
    face = program.interface

    def planner() -> Planner:
        scheduled = schedule(graph, face.inputs, face.outputs, face.aliases, effects, host())
        return Planner(scheduled, host(), get_num_threads(), face.aliases)

    told["schedule"] = _lines(planner().scheduled.steps)
    first = planner()
    told["fuse"] = _lines(fuse(first.scheduled.steps, first._memory, first._var))
    steps, shared = planner().settled()
    told["nests"] = _lines(steps)
    told["reuse"] = "\n".join(f"temp{new} takes the memory of temp{old}"
                              for new, old in shared.items())
    return told


def _lines(steps: Sequence[Any]) -> str:
    return "\n".join(line for step in steps for line in listed(step))
