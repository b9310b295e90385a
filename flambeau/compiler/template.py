"""Plans for sizes that vary: made once with symbolic sizes, then filled in for given ones.

The planner runs with symbolic sizes, and what it compares becomes a guard. Nests keep their
kernels; their slots hold expressions. Library steps plan anew for each size, since what they choose
(tiles, cuts, workspaces) follows from sizes in ways of their own; so does the arena.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from flambeau.compiler import libraries
from flambeau.compiler.expression import Buffer
from flambeau.compiler.nest import Float, Pointer
from flambeau.compiler.program import Plan, Planner, assembled
from flambeau.compiler.schedule import LibraryStep, schedule
from flambeau.compiler.simplify import simplify
from flambeau.compiler.split_complex import has_complex
from flambeau.compiler.step import Step
from flambeau.compiler.stored_bits import has_stored
from flambeau.compiler.sweeps import Nest
from flambeau.compiler.target import Target
from flambeau.core.symbolic import (
    Environment,
    Guard,
    Unfit,
    Valuation,
    environment,
    is_symbolic,
)
from flambeau.ir.graph import Graph, Value
from flambeau.ir.settle import Settler

__all__ = ["Template"]


class Template:
    """A plan for sizes that vary. The arguments are those of `plan`, with symbolic sizes.

    Attributes:
        guards: what must hold of sizes for the plan to be right, besides the graph's own guards.

    Raises:
        Unfit: there is no such plan.
    """

    def __init__(self, env: Environment, graph: Graph, inputs: Sequence[Buffer | None],
                 outputs: Sequence[Buffer], target: Target, threads: int,
                 aliases: Mapping[int, int], effects: Sequence[Value]):
        if has_complex(graph):
            raise Unfit("complex numbers")
        if has_stored(graph):
            raise Unfit("dtypes without arithmetic")
        known, env.guards = env.guards, dict(env.guards)
        env.closed, env.planning = False, True
        environment.append(env)
        try:
            graph, effects = simplify(graph, effects)
            planner = Planner(schedule(graph, inputs, outputs, aliases, effects, target), target,
                              threads, aliases)
            planned, self.shared = planner.settled()
            self.groups = planner.independent(planned, self.shared)
            self.parts = [_Kernel(*planner.nest(step)) if isinstance(step, Nest)
                          else _Library(step, target, threads) for step in planned]
        finally:
            environment.remove(env)
            env.closed, env.planning = True, False
            made, env.guards = env.guards, known
        self.temps, self.threads = planner.temps, threads
        self.guards: dict[tuple, Guard] = {
            key: guard for key, guard in made.items() if key not in known}

    def plan(self, valuation: Valuation) -> Plan:
        """The plan for given sizes.

        Raises:
            Unfit: it does not serve them.
        """
        broken = valuation.check(self.guards)
        if broken is not None:
            raise Unfit(str(broken))
        settler = Settler(valuation.number)
        steps = []
        for part, group in zip(self.parts, self.groups, strict=True):
            made = part.steps(settler)
            if len(made) == 1:
                made[0][0].group = group
            steps += made
        return assembled(steps, [settler.tree(temp) for temp in self.temps], self.shared,
                         {}, self.threads)


class _Kernel:
    """The kernel of a nest; it is loaded once."""

    def __init__(self, step: Step, work: int):
        self.step, self.work = step, work
        self.varying = [(at, slot) for at, slot in enumerate(step.slots) if _varies(slot)]
        self.first: Step | None = None

    def steps(self, settler: Settler) -> list[tuple[Step, int]]:
        slots = list(self.step.slots)
        for at, slot in self.varying:
            slots[at] = (
                Pointer(slot.kind, slot.number, settler.number(slot.offset))
                if type(slot) is Pointer else Float(settler.number(slot.value))
                if type(slot) is Float else settler.number(slot))
        made = Step(self.step.name, self.step.text, slots, settler.number(self.step.nchunks))
        self.first = self.first or made
        made.address = self.first.address
        return [(made, settler.number(self.work))]


def _varies(slot: object) -> bool:
    if type(slot) is Pointer:
        if is_symbolic(slot.number):
            raise Unfit("a workspace whose size varies")
        return is_symbolic(slot.offset)
    return is_symbolic(slot.value if type(slot) is Float else slot)


class _Library:
    """A library step, planned anew for each size; its kernels are loaded once."""

    def __init__(self, step: LibraryStep, target: Target, threads: int):
        self.target, self.threads = target, threads
        self.ready = libraries.epilogue_with_slots(step, target) if step.epilogue else None
        self.step = dataclasses.replace(step, epilogue=())
        self.known: dict[str, Step] = {}

    def steps(self, settler: Settler) -> list[tuple[Step, int]]:
        step = settler.tree(self.step)
        if self.ready is not None:
            follows, slots = self.ready
            step = dataclasses.replace(step, ready=(follows, [settler.tree(s) for s in slots]))
        found = libraries.steps(step, self.target, self.threads)
        for each, _ in found:
            each.address = self.known.setdefault(each.name, each).address
        return found
