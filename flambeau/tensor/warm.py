"""Warm paths: functions generated for patterns of arguments, shared by all ops.

A pattern has one letter per parameter: T tensor, N number, L list of tensors, - not passed to the
kernel. Dispatch looks a launch up and calls the function that the launch carries (`Launch.go`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.autograd.grad_mode import mode
from flambeau.core import errors
from flambeau.core.generated import define
from flambeau.ops.record import Op
from flambeau.tensor import launches, tape
from flambeau.tensor.launches import Launch
from flambeau.tensor.meta import TensorBase

__all__ = ["pattern_of", "go_for", "go_inplace", "go_mutating"]


def pattern_of(record: Op, args: Sequence) -> str:
    """The pattern of a call."""
    return "".join(_letter(p, a) for p, a in zip(record.params, args, strict=True))


def _letter(param: Any, arg: Any) -> str:
    """T tensor, N number, L list of tensors, - not passed to the kernel."""
    if param.role == "static" or arg is None:
        return "-"
    if param.role == "tensors":
        return "L"
    if isinstance(arg, TensorBase):
        return "T"
    return "-" if arg is param.default else "N"


def go_for(record: Op, args: Sequence, launch: Launch) -> Callable | None:
    """The warm path for calls of this pattern: a function of (launch, *args)."""
    pattern = pattern_of(record, args)
    if record.returns or "L" in pattern or len(launch.outs) != 1:
        return None
    return _compile_go(pattern, launch.arena is not None, launch.checked,
                       launch.node_class is not None)


@functools.cache
def _compile_go(pattern: str, arena: bool, checked: bool, differentiable: bool) -> Callable:
    """Generate the warm path: allocate, launch, and record if an argument requires grad."""
    names = [f"a{i}" for i in range(len(pattern))]
    argv = [f"{n}._ptr" if c == "T" else n for n, c in zip(names, pattern, strict=True) if c != "-"]
    flat = [n for n, c in zip(names, pattern, strict=True) if c != "-"]
    tensors = [n for n, c in zip(names, pattern, strict=True) if c == "T"]
    argv.append("ptr")
    lines = [
        f"def go(launch, {', '.join(names)}):",
        "    out = new(Tensor)",
        "    out._storage = storage = launch.pool.new(launch.nbytes)",
        "    out._ptr = ptr = storage.ptr",
        "    out._meta = launch.meta",
        "    out._rg = False",
        "    out._grad_fn = out._base = None",
    ]
    if arena:
        lines.append("    arena = launch.arena.new(launch.arena_bytes)")
        argv.append("arena.ptr")
    call = f"late.launch(launch.address, {', '.join(argv)})"
    if checked:
        lines += [f"    failure = {call}",
                  "    if failure is not None:",
                  f"        raise_failure(launch, failure, ({', '.join(flat)},))"]
    else:
        lines.append(f"    {call}")
    if tensors and differentiable:
        lines += _record_lines(pattern, names, flat, tensors)
    lines.append("    return out")
    space = {"new": object.__new__, "Tensor": launches.late.tensor, "late": launches.late,
             "attach_one": tape.attach_one, "raise_failure": launches.raise_failure, "mode": mode,
             "next_order": tape.next_order, "edge_of": tape.edge_to, "save_for": tape.save_for}
    words = (("a", arena), ("c", checked), ("d", differentiable))
    flags = "".join(word for word, on in words if on)
    return define("go", "\n".join(lines), f"<flambeau go {pattern} {flags}>", space)


def _record_lines(pattern: str, names: list, flat: list, tensors: list) -> list[str]:
    """The tape's part of a warm path: what `tape.record` does, unrolled for one pattern."""
    wanted = ", ".join(f"{n}._rg" if c == "T" else "False"
                       for n, c in zip(names, pattern, strict=True) if c != "-")
    edges = ", ".join(
        f"((fn{n}, {n}._output_nr) if (fn{n} := {n}._grad_fn) is not None and {n}._base is None "
        f"else edge_of({n})) if {n}._rg else None" if n in tensors else "None" for n in flat)
    return [
        f"    if {' or '.join(n + '._rg' for n in tensors)}:",
        f"        wanted = ({wanted},)",
        "        plan = launch.plans.get(wanted)",
        "        if plan is None or mode() != 1:",
        f"            return attach_one(launch, ({', '.join(flat)},), out)",
        "        node = new(launch.node_class)",
        "        node.tape_hooks = None",
        "        node.tape_launch, node.tape_wanted, node.tape_plan = launch, wanted, plan",
        f"        node.next_edges = ({edges},)",
        "        node.tape_order = next_order()",
        "        node.output_metas = launch.metas_out",
        "        if plan.keeps:",
        f"            save_for(node, plan, ({', '.join(flat)},), out)",
        "        else:",
        "            node.tape_saved = node.tape_versions = ()",
        "            node.tape_where = None",
        "        out._grad_fn = node",
        "        out._rg = True",
    ]


@functools.cache
def go_inplace(pattern: str) -> Callable:
    """A function of (launch, *args) that runs the launch into its first argument, or returns False
    where the general path must look closer."""
    names = [f"a{i}" for i in range(len(pattern))]
    argv = [f"{n}._ptr" if c == "T" else n for n, c in zip(names, pattern, strict=True) if c != "-"]
    others = [n for n, c in zip(names, pattern, strict=True) if c == "T"][1:]
    watched = " or ".join(f"{n}._rg" for n in ["a0", *others])
    lines = [f"def go(launch, {', '.join(names)}):",
             f"    if ({watched}) and mode() & 3 == 1:",
             "        return False",
             "    storage = a0._storage",
             "    if storage.owner is not None:",
             "        return False"]
    for n in others:
        lines += [f"    other = {n}._storage",
                  "    if other.owner is not None or other is storage and not "
                  f"({n}._ptr == a0._ptr and {n}._meta is a0._meta):",
                  "        return False"]
    lines += [f"    late.launch(launch.address, {', '.join([*argv, 'a0._ptr'])})",
              "    storage.version += 1",
              "    note_write(storage, caller_location(3))",
              "    return True"]
    space = {"mode": mode, "late": launches.late, "note_write": errors.note_write,
             "caller_location": errors.caller_location}
    return define("go", "\n".join(lines), f"<flambeau go_ {pattern}>", space)


@functools.cache
def go_mutating(pattern: str, places: tuple[int, ...], arena: bool) -> Callable:
    """A function of (launch, *args) that runs the launch over its targets, or returns False where
    the general path must look closer: when autograd watches, or memory is or may be shared."""
    names = [f"a{i}" for i in range(len(pattern))]
    argv = [f"{n}._ptr" if c == "T" else n for n, c in zip(names, pattern, strict=True) if c != "-"]
    tensors = [n for n, c in zip(names, pattern, strict=True) if c == "T"]
    targets = [names[i] for i in places]
    watched = " or ".join(f"{n}._rg" for n in targets)
    owned = " or ".join(f"s{n}.owner is not None" for n in tensors)
    lines = [f"def go(launch, {', '.join(names)}):",
             f"    if ({watched}) and mode() & 3 == 1:",
             "        return False",
             *(f"    s{n} = {n}._storage" for n in tensors),
             f"    if {owned} or len({{{', '.join('s' + n for n in tensors)}}}) < {len(tensors)}:",
             "        return False"]
    argv += [f"{n}._ptr" for n in targets]
    if arena:
        lines.append("    arena = launch.arena.new(launch.arena_bytes)")
        argv.append("arena.ptr")
    lines += [f"    late.launch(launch.address, {', '.join(argv)})",
              "    where = caller_location(3)",
              *(f"    s{n}.version += 1" for n in targets),
              *(f"    note_write(s{n}, where)" for n in targets),
              "    return True"]
    space = {"mode": mode, "late": launches.late, "note_write": errors.note_write,
             "caller_location": errors.caller_location}
    return define("go", "\n".join(lines), f"<flambeau go_ {pattern} {places}>", space)
