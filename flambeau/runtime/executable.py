"""Plans -> launchable programs: kernels are loaded and addresses filled in."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from flambeau.compiler.horizontal import table, together_kernel
from flambeau.compiler.nest import Float, Number, Pointer
from flambeau.compiler.program import Plan
from flambeau.runtime.launch import FLOAT, INTEGER, NUMBER, STATUS, Program
from flambeau.runtime.loader import load_kernel

__all__ = ["build_program"]

WORTH_RELEASING = 1 << 17  # work from which other Python threads are let run meanwhile


def build_program(plan: Plan, number_kinds: Sequence[type | None], outputs: int) -> Program:
    """The program of `plan`. Its arguments are, in order: one per graph input (an address, or the
    number where `number_kinds` gives its type), the `outputs` addresses, and the arena's address if
    there is one."""
    inputs = len(number_kinds)
    kinds = [{float: FLOAT, int: NUMBER}.get(kind, INTEGER) for kind in number_kinds]
    kinds += [INTEGER] * outputs
    if plan.arena_bytes:
        kinds.append(INTEGER)
    template: list[int] = [0, 0]
    members, patches = [], []
    for step in plan.steps:
        first = len(template)
        for slot in step.slots:
            if isinstance(slot, Pointer):
                argument = {"in": slot.number, "out": inputs + slot.number,
                            "arena": inputs + outputs, "status": STATUS}[slot.kind]
                patches.append((len(template), argument, slot.offset))
                template.append(0)
            elif isinstance(slot, Number):
                patches.append((len(template), slot.number, 0))
                template.append(0)
            elif isinstance(slot, Float):
                template.append(struct.unpack("<q", struct.pack("<d", slot.value))[0])
            else:
                template.append(int(slot))
        step.address = step.address or load_kernel(step.name, step.text())
        members.append((step.address, first, step.nchunks))
    steps = _joined(plan, members, template)
    return Program.build(steps, patches, kinds, template, plan.work > WORTH_RELEASING, members)


def _joined(plan: Plan, members: list, template: list[int]) -> list[tuple[int, int, int]]:
    """The kernel calls, those of each batch as one; its table is added to the template."""
    steps, at = [], 0
    places = [first for _, first, _ in members]
    for batch in plan.batches:
        steps += members[at:batch.first]
        kernel = load_kernel(*together_kernel())
        steps.append((kernel, len(template), batch.nchunks))
        template += table(batch, plan.steps, places, len(template))
        at = batch.last + 1
    return steps + members[at:]
