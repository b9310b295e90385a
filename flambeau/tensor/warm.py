"""Warm paths: functions generated for patterns of arguments, shared by all ops.

A pattern has one letter per parameter: T tensor, N number, L list of tensors, - not passed to the
kernel. Dispatch looks a launch up and calls the function that the launch carries (`Launch.go`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.autograd.grad_mode import mode
from flambeau.core import errors
from flambeau.core.generated import define
from flambeau.ops.record import Op
from flambeau.tensor import launches, tape
from flambeau.tensor.launches import Launch
from flambeau.tensor.meta import TensorBase
from flambeau.tensor.results import result_class

__all__ = ["pattern_of", "go_for", "go_inplace", "go_mutating", "go_out"]


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
    return "-" if arg is param.default or param.fixes(arg) else "N"


def go_for(record: Op, args: Sequence, launch: Launch) -> Callable | None:
    """The warm path for calls of this pattern: a function of (launch, *args)."""
    if not launch.outs:
        return None
    pattern = pattern_of(record, args)
    result = None
    if record.returns:
        result = result_class(record.name, record.returns)
    return _compile_go(pattern, len(launch.outs), launch.arena is not None, launch.checked,
                       launch.node_class is not None, result)


@functools.cache
def _compile_go(pattern: str, results: int, arena: bool, checked: bool, differentiable: bool,
                result: type | None) -> Callable:
    """Generate the warm path: allocate, launch, and record if an argument requires grad."""
    names = [f"a{i}" for i in range(len(pattern))]
    pairs = [(n, c) for n, c in zip(names, pattern, strict=True) if c != "-"]
    forms = {"T": "{}._ptr", "N": "{}", "L": "*[t._ptr for t in {}]"}
    argv = [forms[c].format(n) for n, c in pairs]
    flat = "".join(("*" if c == "L" else "") + n + ", " for n, c in pairs)
    lines = [f"def go(launch, {', '.join(names)}):"]
    single = results == 1
    outs = ["out"] if single else [f"r{i}" for i in range(results)]
    if not single:
        lines.append(f"    {', '.join(f'(m{i}, p{i})' for i in range(results))} = launch.outs")
    for i, out in enumerate(outs):
        pool, size, meta = ("launch.pool", "launch.nbytes", "launch.meta") if single else (
            f"p{i}", f"m{i}.nbytes", f"m{i}")
        lines += [f"    {out} = new(Tensor)",
                  f"    {out}._storage = storage = {pool}.new({size})",
                  f"    {out}._ptr = ptr{i} = storage.ptr",
                  f"    {out}._meta = {meta}",
                  f"    {out}._rg = False",
                  f"    {out}._grad_fn = {out}._base = None"]
        argv.append(f"ptr{i}")
    if arena:
        lines.append("    arena = launch.arena.new(launch.arena_bytes)")
        argv.append("arena.ptr")
    call = f"late.{'checked' if checked else 'launch'}(launch.address, {', '.join(argv)})"
    if checked:
        lines += [f"    failure = {call}",
                  "    if failure is not None:",
                  f"        raise_failure(launch, failure, ({flat}))"]
    else:
        lines.append(f"    {call}")
    if differentiable:
        plain = single and result is None and "L" not in pattern
        lines += _record_lines(pattern, flat) if plain else _attach_lines(pairs, flat, outs)
    made = "out" if single and result is None else f"({', '.join(outs)},)"
    lines.append(f"    return {made if result is None else f'result({made})'}")
    space = {"new": object.__new__, "Tensor": launches.late.tensor, "late": launches.late,
             "attach_one": tape.attach_one, "attach": tape.attach, "mode": mode,
             "raise_failure": launches.raise_failure, "next_order": tape.next_order,
             "edge_of": tape.edge_to, "caller_location": errors.caller_location, "result": result}
    words = (("a", arena), ("c", checked), ("d", differentiable))
    flags = "".join(word for word, on in words if on)
    name = "" if result is None else f" {result.__name__}"
    return define("go", "\n".join(lines), f"<flambeau go {pattern} {results}{flags}{name}>", space)


def _attach_lines(pairs: list, flat: str, outs: list) -> list[str]:
    """Recording by the general path: several results, or lists of tensors."""
    flags = [f"any([t._rg for t in {n}])" if c == "L" else f"{n}._rg" for n, c in pairs if c != "N"]
    if not flags:
        return []
    return [f"    if {' or '.join(flags)}:",
            f"        attach(launch, ({flat}), ({', '.join(outs)},), caller_location(3))"]


def _record_lines(pattern: str, flat: str) -> list[str]:
    """The tape's part of a warm path: what `tape.record` does, unrolled for one pattern."""
    pairs = [(f"a{i}", c) for i, c in enumerate(pattern) if c != "-"]
    tensors = [n for n, c in pairs if c == "T"]
    if not tensors:
        return []
    wanted = ", ".join(f"{n}._rg" if c == "T" else "False" for n, c in pairs)
    edges = ", ".join(
        f"((fn{n}, {n}._output_nr) if (fn{n} := {n}._grad_fn) is not None and {n}._base is None "
        f"else edge_of({n})) if {n}._rg else None" if c == "T" else "None" for n, c in pairs)
    return [
        f"    if {' or '.join(n + '._rg' for n in tensors)}:",
        f"        wanted = ({wanted},)",
        "        plan = launch.plans.get(wanted)",
        "        if plan is None or mode() != 1:",
        f"            return attach_one(launch, ({flat}), out, caller_location(3))",
        "        node = new(launch.node_class)",
        "        node.tape_hooks = None",
        "        node.tape_launch, node.tape_wanted, node.tape_plan = launch, wanted, plan",
        f"        node.next_edges = ({edges},)",
        "        node.tape_order = next_order()",
        "        node.output_metas = launch.metas_out",
        "        save = plan.save",
        "        if save is not None:",
        f"            save(node, ({flat}), out)",
        "        else:",
        "            node.tape_saved = node.tape_versions = ()",
        "            node.tape_where = None",
        "        out._grad_fn = node",
        "        out._rg = True",
    ]


def apart(a: Any, b: Any) -> bool:
    """Do two storages share no memory? Only those that others own can without being the same."""
    return a.ptr + a.nbytes <= b.ptr or b.ptr + b.nbytes <= a.ptr


def all_apart(*storages: Any) -> bool:
    """Does none of the storages share memory with another?"""
    spans = sorted([(s.ptr, s.ptr + s.nbytes) for s in storages])
    return all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


@functools.cache
def go_out(pattern: str, arena: bool) -> Callable:
    """A function of (launch, *args, out) that runs the launch into `out`, or returns False where
    the general path must look closer: when autograd watches, or memory is or may be shared."""
    names = [f"a{i}" for i in range(len(pattern))]
    argv = [f"{n}._ptr" if c == "T" else n for n, c in zip(names, pattern, strict=True) if c != "-"]
    tensors = [n for n, c in zip(names, pattern, strict=True) if c == "T"]
    watched = " or ".join(f"{n}._rg" for n in ["out", *tensors])
    lines = [f"def go(launch, {', '.join(names)}, out):",
             f"    if ({watched}) and mode() & 3 == 1:",
             "        return False",
             "    storage = out._storage"]
    for n in tensors:
        lines += [f"    other = {n}._storage",
                  "    if other is storage or (other.owner is not None or storage.owner is not "
                  "None) and not apart(storage, other):",
                  "        return False"]
    argv.append("out._ptr")
    if arena:
        lines.append("    arena = launch.arena.new(launch.arena_bytes)")
        argv.append("arena.ptr")
    lines += ["    storage.version += 1",  # raises where inference mode forbids the write
              f"    late.launch(launch.address, {', '.join(argv)})",
              "    note_write(storage, caller_location(3))",
              "    return True"]
    space = {"mode": mode, "late": launches.late, "note_write": errors.note_write,
             "caller_location": errors.caller_location, "apart": apart, "all_apart": all_apart}
    return define("go", "\n".join(lines), f"<flambeau go out {pattern}>", space)


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
             "    storage = a0._storage"]
    for n in others:
        lines += [f"    other = {n}._storage",
                  "    if other is storage:",
                  f"        if {n}._ptr != a0._ptr or {n}._meta is not a0._meta:",
                  "            return False",
                  "    elif (other.owner is not None or storage.owner is not None) and not "
                  "apart(storage, other):",
                  "        return False"]
    lines += ["    storage.version += 1",
              f"    late.launch(launch.address, {', '.join([*argv, 'a0._ptr'])})",
              "    note_write(storage, caller_location(3))",
              "    return True"]
    space = {"mode": mode, "late": launches.late, "note_write": errors.note_write,
             "caller_location": errors.caller_location, "apart": apart, "all_apart": all_apart}
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
             f"    if len({{{', '.join('s' + n for n in tensors)}}}) < {len(tensors)}:",
             "        return False",
             f"    if ({owned}) and not all_apart({', '.join('s' + n for n in tensors)}):",
             "        return False"]
    argv += [f"{n}._ptr" for n in targets]
    if arena:
        lines.append("    arena = launch.arena.new(launch.arena_bytes)")
        argv.append("arena.ptr")
    lines += [*(f"    s{n}.version += 1" for n in targets),
              f"    late.launch(launch.address, {', '.join(argv)})",
              "    where = caller_location(3)",
              *(f"    note_write(s{n}, where)" for n in targets),
              "    return True"]
    space = {"mode": mode, "late": launches.late, "note_write": errors.note_write,
             "caller_location": errors.caller_location, "apart": apart, "all_apart": all_apart}
    return define("go", "\n".join(lines), f"<flambeau go_ {pattern} {places}>", space)
