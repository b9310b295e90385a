"""One generated function that runs a program: the replay's steps without loops over tables."""

from __future__ import annotations

import itertools
import linecache
import weakref
from collections.abc import Callable
from typing import Any

from flambeau.compile.trees import rebuild
from flambeau.core.generated import define
from flambeau.tensor import launches

__all__ = ["quick"]

_serial = itertools.count()


def quick(replay: Any, raise_compiled: Callable, view_of: Callable) -> Callable | None:
    """A function of a call's (leaves, numbers) that does what `Replay.run` does; None for programs
    with a later backward, effects on Python state or results with gaps, which take the general
    way."""
    guard = replay.guard
    if replay.backward is not None or guard.finish is not None or guard.computed is not None \
            or replay.gapped:
        return None
    names = guard.names
    inputs = [names.of(tensor) if spot is None else _spot(spot, names)
              for tensor, spot, _ in replay.sources]
    lines = ["def run(leaves, numbers):"]
    if not replay.locks:
        lines.append("    settle('a compiled function')")
    held = []
    for i, (text, (_, spot, _)) in enumerate(zip(inputs, replay.sources, strict=True)):
        if spot is not None:
            lines.append(f"    i{i} = {text}")
            text = f"i{i}"
        held.append(text)
    if replay.count:
        lines.append("    given = compute(numbers)")
    lines += [f"    {_spot(leaf, names)}._grad = None" for leaf in replay.renewed]
    for i, (meta, size_class) in enumerate(replay.pools):
        lines += _fresh(i, meta, names.of(size_class), replay.records[i], names)
    argv = [f"{text}._ptr" for text in held] + ["*given"] * bool(replay.count)
    argv += [f"r{i}._ptr" for i in range(len(replay.pools))]
    argv += [f"{held[i]}._ptr" for i in replay.updated]
    if replay.arena is not None:
        lines.append(f"    arena = {names.of(replay.arena)}.new({replay.plan.arena_bytes})")
        argv.append("arena.ptr")
    call = f"launch([{', '.join(argv)}])"  # holds the generators' locks
    if not replay.locks:
        call = f"late.at_once({', '.join([str(replay.program.address), *argv])})"
    lines += [f"    failure = {call}",
              "    if failure is not None:",
              "        raise_compiled(failure)"]
    lines += [f"    {held[i]}._storage.version += 1" for i in replay.updated]
    lines += [f"    {_spot(leaf, names)}._grad = r{replay.first_gradient + i}"
              for i, leaf in enumerate(replay.owners)]
    lines += [f"    {_spot(leaf, names)}._grad = None" for leaf in replay.dropped]
    lines.append("    return " + _result(replay, names))
    names.space |= {"settle": launches.settle, "late": launches.late, "new": object.__new__,
                    "PlainTensor": launches.late.tensor, "raise_compiled": raise_compiled,
                    "view_of": view_of, "launch": replay._launch, "rebuild": rebuild,
                    "compute": guard.compute}
    filename = f"<flambeau program {next(_serial)}>"
    weakref.finalize(guard, linecache.cache.pop, filename, None)
    return define("run", "\n".join(lines), filename, names.space)


def _spot(spot: Any, names: Any) -> str:
    """Source that finds a tensor of this call: see `found` in replay.py."""
    if spot.__class__ is int:
        return f"leaves[{spot}]"
    if spot.__class__ is not tuple:
        return names.of(spot)
    kind, of = spot
    return f"{_spot(of, names)}.{'_base' if kind == 'base' else '_grad'}"


def _fresh(i: int, meta: Any, size_class: str, record: tuple, names: Any) -> list[str]:
    """A new tensor for result i, as `launches.fresh` makes it."""
    wanted, node, number = record
    lines = [f"    r{i} = new(PlainTensor)",
            f"    r{i}._storage = storage = {size_class}.new({meta.nbytes})",
            f"    r{i}._ptr = storage.ptr",
            f"    r{i}._meta = {names.of(meta)}",
            f"    r{i}._rg = {wanted}",
            f"    r{i}._grad_fn = {'None' if node is None else names.of(node)}",
            f"    r{i}._base = None"]
    return [*lines, f"    r{i}._output_nr = {number}"] if number else lines


def _result(replay: Any, names: Any) -> str:
    """Source of what the call returns; equal entries are one object."""
    first: dict[int, str] = {}
    for n, one in enumerate(replay.returned):
        kind, what = one
        if id(one) in first:
            continue
        if kind == "result":
            first[id(one)] = f"r{what}"
        elif kind == "leaf":
            first[id(one)] = f"leaves[{what}]"
        elif kind == "found":
            first[id(one)] = _spot(what, names)
        elif kind in ("view", "part"):
            root, meta, offset, *flags = what
            text = f"r{root}" if kind == "part" else _spot(root, names)
            first[id(one)] = (f"(v{n} := view_of({text}, {names.of(meta)}, {offset}, "
                              + ", ".join(map(repr, flags)) + "))")
        else:
            first[id(one)] = names.of(what)
    parts, met = [], set()
    for one in replay.returned:
        text = first[id(one)]
        if id(one) in met and text.startswith("(v"):
            text = text[1:].split(" ")[0]
        met.add(id(one))
        parts.append(text)
    if replay.shape.__class__ is tuple:
        if replay.shape[0] is None:  # no tensor: a constant
            return f"rebuild({names.of(replay.shape)}, (), numbers)"
        return f"rebuild({names.of(replay.shape)}, [{', '.join(parts)}], numbers)"
    return parts[0]
