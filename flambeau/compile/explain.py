"""`compiled.explain()`: what became of a function, in plain words.

Every sentence comes from what runs: the kernels from the program's run-list, their times from
running them one by one on memory of their own, the user's lines and modules from the capture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.compile.report import (
    STAGES,
    Kernel,
    Part,
    Report,
    backward_reports,
    replay_report,
    segment_report,
)

__all__ = ["explain", "reports"]

SHOWN = 12  # rows of a table of memory
FEW = 20  # kernels from which on a summary helps
DEEP = 3  # names of a module's path by which a summary groups


def reports(compiled: Any, times: bool) -> list[Report]:
    """The programs of a compiled function, the latest first."""
    found = []
    programs = [program for group in compiled.programs.values() for program in group]
    for number, program in enumerate(programs, 1):
        title = f"program {number} of {len(programs)}"
        found.append(replay_report(program, title, times))
        found += backward_reports(program, f"its backward ({title})", times)
    parts = [program for segment in compiled.segments.table.values()
             for program in segment.programs.values()]
    for number, part in enumerate(parts, 1):
        found.append(segment_report(part, f"part {number} of {len(parts)}", times))
    return found


def explain(compiled: Any, times: bool) -> str:
    """What `compiled.explain()` says; see there."""
    lines = [f"compile({getattr(compiled.function, '__qualname__', compiled.function)})"]
    lines += [f"  call {n}: {event}" for n, event in enumerate(compiled.history, 1)]
    lines += compiled.shapes.explain()
    programs = [program for group in compiled.programs.values() for program in group]
    if compiled.segments.cuts:
        lines += compiled.segments.explain()
    summaries = [program.explain() for program in programs]
    for report in reports(compiled, times):
        if report.title.startswith("program"):
            lines += ["", summaries.pop(0)]
        lines += _program(report)
    return "\n".join(lines)


def _program(report: Report) -> list[str]:
    head = f"  {report.title}"
    if report.signature:
        head += f", for {report.signature}"
    lines = ["", head]
    if report.seconds is not None:
        lines.append(f"    {_time(report.seconds)} in kernels"
                     + (": " + ", ".join(_stages(report)) if len(_stages(report)) > 1 else ""))
    lines += _summary(report)
    lines += _table(report)
    sizes = [f"{name} {_size(nbytes)}" for name, nbytes in report.sizes.items() if nbytes]
    lines.append(f"    memory: {', '.join(sizes) or 'none'}; together "
                 f"{_size(sum(report.sizes.values()))} while it runs")
    if report.parts:
        lines.append(f"    of the temporaries, most are needed at kernel {report.fullest}:")
        lines += _memory(report.parts)
    if report.kept:
        lines.append("    kept for the backward:")
        lines += _memory(report.kept)
    return lines


def _stages(report: Report) -> list[str]:
    total = report.seconds or 1.0
    return [f"{stage} {100 * part / total:.0f} %" for stage in STAGES
            if (part := sum(k.seconds or 0 for k in report.kernels if k.stage == stage)) > 0]


def _table(report: Report) -> list[str]:
    total = report.seconds
    lines = []
    for run in _runs(report.kernels):
        first = run[0]
        number = str(first.number) if len(run) == 1 else f"{first.number}-{run[-1].number}"
        row = f"    {number:>7}  "
        if total:
            taken = sum(k.seconds or 0 for k in run)
            row += f"{_time(taken):>8} {100 * taken / total:3.0f} %  "
        row += f"{_size(sum(k.moved for k in run)):>8}  {first.title}"
        if len(run) > 1:
            row += f", {len(run)} times"
        lines.append(row)
        done = ", ".join(first.operations)
        where = first.module + (f", {first.lines[0]}" if first.lines and first.module else
                                first.lines[0] if first.lines else "")
        if done or where:
            margin = " " * (29 if total else 13)
            lines.append(f"    {margin}{done}" + (f"  ({where})" if where else ""))
    return lines


def _runs(kernels: Sequence[Kernel]) -> list[list[Kernel]]:
    """Kernels in order, neighbours that do the same in one list."""
    runs: list[list[Kernel]] = []
    for kernel in kernels:
        if runs and runs[-1][0].title == kernel.title \
                and runs[-1][0].operations == kernel.operations \
                and runs[-1][0].lines == kernel.lines and runs[-1][0].module == kernel.module:
            runs[-1].append(kernel)
        else:
            runs.append([kernel])
    return runs


def _summary(report: Report) -> list[str]:
    """Which kinds of kernels and which modules take the time."""
    total = report.seconds
    if not total or len(report.kernels) < FEW:
        return []
    lines = []
    for title, key in (("by kind", _family), ("by module", _module)):
        groups: dict[str, float] = {}
        for kernel in report.kernels:
            groups[key(kernel)] = groups.get(key(kernel), 0) + (kernel.seconds or 0)
        order = sorted(groups.items(), key=lambda item: -item[1])[:SHOWN]
        shares = [f"{name} {100 * taken / total:.0f} %" for name, taken in order
                  if taken >= 0.005 * total]
        lines.append(f"    {title}: {', '.join(shares)}")
    return lines


def _family(kernel: Kernel) -> str:
    return kernel.family.split(":")[0].split(",")[0].split(" and ")[0]


def _module(kernel: Kernel | Part) -> str:
    return ".".join(kernel.module.split(".")[:DEEP]) or "outside of modules"


def _memory(parts: Sequence[Part]) -> list[str]:
    """By module, then by line and operation, the largest first."""
    if len(parts) <= SHOWN:
        return _largest(_grouped(parts, True))
    modules: dict[str, int] = {}
    for part in parts:
        if part.module:
            modules[_module(part)] = modules.get(_module(part), 0) + part.nbytes
    return ["      by module", *_largest(modules), "      by operation and line",
            *_largest(_grouped(parts, False))]


def _grouped(parts: Sequence[Part], modules: bool) -> dict[str, int]:
    """Bytes by operation and line, and by module if wanted."""
    found: dict[str, int] = {}
    for part in parts:
        where = ", ".join(filter(None, (part.module if modules else "", part.line)))
        name = part.what + (f"  ({where})" if where else "")
        found[name] = found.get(name, 0) + part.nbytes
    return found


def _largest(groups: dict[str, int]) -> list[str]:
    order = sorted(groups.items(), key=lambda item: -item[1])
    lines = [f"      {_size(nbytes):>9}  {name}" for name, nbytes in order[:SHOWN]]
    if len(order) > SHOWN:
        rest = sum(nbytes for _, nbytes in order[SHOWN:])
        lines.append(f"      {_size(rest):>9}  {len(order) - SHOWN} more")
    return lines


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.2f} ms"
    return f"{seconds * 1e6:.1f} us"


def _size(nbytes: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= size:
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes:.0f} B"
