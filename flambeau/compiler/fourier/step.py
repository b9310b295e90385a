"""Transforms as steps of a program: how rows are gone through, and what slots hold."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from flambeau.compiler.expression import Buffer
from flambeau.compiler.fourier.kernel import (
    FOURIER_SLOTS,
    FourierSpec,
    fourier_kernel,
    points_of,
    work_bytes,
)
from flambeau.compiler.fourier.plan import (
    WRITTEN_OUT,
    address,
    chirp_size,
    chirp_tables,
    halves,
    is_smooth,
    passes,
    rotations,
    split_length,
    twist_table,
)
from flambeau.compiler.nest import Address, Float, Pointer
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target
from flambeau.core.shapes import one_stride
from flambeau.ops.primitives.fourier import Fourier

__all__ = ["fits_fourier", "fourier_steps"]

LONG = 1 << 20  # points from which a transform goes in two halves
GRAIN = 1 << 16  # work that is worth a chunk
CHUNKS = 64


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Where the rows of an operand are: addresses (None: no imaginary parts), strides between
    groups of rows, between rows of a group, and along a row, in elements of one part; their
    bytes."""

    re: Pointer
    im: Pointer | None
    outer: int
    inner: int
    step: int
    size: int

    @property
    def paired(self) -> bool:
        """Do imaginary parts lie right behind real ones?"""
        a, b = self.re, self.im
        return b is not None and (a.kind, a.number) == (b.kind, b.number) \
            and b.offset - a.offset == self.size


def fits_fourier(buffer: Buffer, dim: int) -> bool:
    """Does one stride walk the dimensions before `dim`, and one those behind it?"""
    return _stride(buffer, 0, dim) is not None and _stride(
        buffer, dim + 1, len(buffer.shape)) is not None


def _stride(buffer: Buffer, first: int, end: int) -> int | None:
    """The stride that walks dimensions first to end, or None."""
    found = one_stride(buffer.shape[first:end], buffer.strides[first:end])
    return None if found is None else found[1]


def _pointer(buffer: Buffer) -> Pointer:
    return Pointer(buffer.kind, buffer.number, buffer.offset * buffer.dtype.itemsize)


def _rows(buffers: Sequence[Buffer], dim: int) -> _Rows:
    first = buffers[0]
    return _Rows(_pointer(first), _pointer(buffers[1]) if len(buffers) > 1 else None,
                 _stride(first, 0, dim), _stride(first, dim + 1, len(first.shape)),
                 first.strides[dim], first.dtype.itemsize)


def _halved(rows: _Rows) -> _Rows:
    """Reals as half as many points."""
    behind = dataclasses.replace(rows.re, offset=rows.re.offset + rows.step * rows.size)
    return dataclasses.replace(rows, im=behind, step=2 * rows.step)


@dataclasses.dataclass
class _Problem:
    """One transform of many rows: outer groups of inner rows."""

    how: Fourier
    scalar: str
    outer: int
    inner: int
    source: _Rows
    target: _Rows

    @property
    def itemsize(self) -> int:
        return 4 if self.scalar == "float" else 8


def fourier_steps(library, target: Target, threads: int) -> list[tuple[Step, int]]:
    """The kernel calls of a Fourier LibraryStep, each with its amount of work."""
    how: Fourier = library.attrs[0]
    buffer, dim = library.sources[0], how.dim
    results = [each for each in library.results if each is not None]
    problem = _Problem(how, buffer.dtype.llvm, math.prod(buffer.shape[:dim]),
                       math.prod(buffer.shape[dim + 1:]), _rows(library.sources, dim),
                       _rows(results, dim))
    size = problem.itemsize
    if how.n % 2 == 0 and how.kind == "r2c":
        problem.source = _halved(problem.source)
    if how.n % 2 == 0 and how.kind == "c2r":
        problem.target = _halved(problem.target)
    lanes = target.lanes(size)
    if how.kind == "c2c" and how.n >= LONG and is_smooth(how.n):
        cut = split_length(how.n, lanes)
        if cut is not None:
            return _long_steps(problem, cut, target, threads)
    if problem.inner == 1:  # rows across lanes are those of the outer dimensions
        problem.inner, problem.outer = problem.outer, 1
        problem.source = dataclasses.replace(problem.source, inner=problem.source.outer, outer=0)
        problem.target = dataclasses.replace(problem.target, inner=problem.target.outer, outer=0)
    across = _goes_across(problem, target)
    return [_step(problem, across, target, threads)]


def _spec(problem: _Problem, across: bool, twisted: bool = False) -> FourierSpec:
    how = problem.how
    flavours = [_flavour(rows, across) for rows in (problem.source, problem.target)]
    return FourierSpec(problem.scalar, how.n, how.kind, how.backward, across, *flavours, twisted,
                       how.kind == "c2c" and problem.source.im is None)


def _flavour(rows: _Rows, across: bool) -> str:
    between = rows.inner if across else rows.step
    if between == 1:
        return "unit"
    if between == 2 and rows.paired:
        return "pair"
    if across and rows.step == 1:
        return "turn"
    return "turn_pair" if across and rows.step == 2 and rows.paired else "any"


def _goes_across(problem: _Problem, target: Target) -> bool:
    """Are lanes rows?"""
    lanes = target.lanes(problem.itemsize)
    spec = _spec(problem, True)
    points = points_of(spec)
    if is_smooth(points) and len(passes(points, lanes)) < 2:
        return True
    if 2 * problem.inner <= lanes:
        return False
    neighbours = all(_flavour(rows, False) != "any" for rows in (problem.source, problem.target))
    filled = not is_smooth(points) or all(
        step.rest >= lanes or step.radix <= WRITTEN_OUT for step in passes(points, lanes))
    if neighbours and filled and points >= 5 * lanes:
        return False
    fits = work_bytes(spec, lanes) <= target.cache
    return fits or not neighbours and problem.inner >= lanes and points <= LONG


def _tables(spec: FourierSpec, lanes: int) -> tuple[int, int]:
    """(address of the rotations of passes, address of those of the ends)."""
    import numpy as np

    kind = "float32" if spec.scalar == "float" else "float64"
    points = points_of(spec)
    key = spec.n, spec.kind, lanes, kind
    if key not in _ENDS:
        parts = []
        if spec.kind != "c2c" and spec.n % 2 == 0:
            parts.append(halves(spec.n, lanes, kind))
        if not is_smooth(points):
            parts.append(chirp_tables(points, lanes, kind))
        _ENDS[key] = np.concatenate([*parts, np.zeros(lanes, kind)])
    smooth = points if is_smooth(points) else chirp_size(points)
    return address(rotations(smooth, lanes, kind)), address(_ENDS[key])


_ENDS: dict = {}


def _step(problem: _Problem, across: bool, target: Target, threads: int, *,
          twist: int = 0, work: tuple[int, int] = (0, 0), after: int = 0) -> tuple[Step, int]:
    """The call of one kernel.

    Args:
        twist: the address of the table that results are rotated by.
        work: (bytes in front of its workspace, bytes of the whole).
    """
    spec = _spec(problem, across, bool(twist))
    lanes = target.lanes(problem.itemsize)
    table, ends = _tables(spec, lanes)
    each = -(-work_bytes(spec, lanes) // 4096) * 4096 + 64
    scale, how = problem.how.scale, problem.how
    conjugate = how.kind == "r2c" and how.backward
    values = {"table": Address(table), "ends": Address(twist or ends),
              "work": Pointer("work", max(work[1], work[0] + each * threads), work[0]),
              "work_stride": each, "outer": problem.outer, "inner": problem.inner,
              "scale": Float(scale), "im_scale": Float(-scale if conjugate else scale)}
    for who, rows in (("x", problem.source), ("y", problem.target)):
        values |= {f"{who}_re": rows.re, f"{who}_im": 0 if rows.im is None else rows.im,
                   f"{who}_outer": rows.outer, f"{who}_inner": rows.inner,
                   f"{who}_step": rows.step}
    rows = problem.outer * problem.inner
    cost = rows * how.n * max(4, how.n.bit_length()) // 2
    tasks = problem.outer * (-(-problem.inner // lanes) if across else problem.inner)
    nchunks = 1 if threads == 1 else max(1, min(tasks, cost // GRAIN, CHUNKS))
    slots = [values[name] for name in FOURIER_SLOTS]
    return Step(spec.name, lambda: fourier_kernel(spec, target)[1], slots, nchunks, after), cost


# --------------------------------------------------------------------------- long transforms
def _long_steps(problem: _Problem, cut: tuple[int, int], target: Target, threads: int
                ) -> list[tuple[Step, int]]:
    """A transform of m c points: of m points in c columns, each result rotated, then of c points in
    m rows, whose results are columns. Each half goes through memory once.

    D. H. Bailey, "FFTs in external or hierarchical memory", 1990.
    """
    (m, c), size, how = cut, problem.itemsize, problem.how
    lanes = target.lanes(size)
    kind = "float32" if problem.scalar == "float" else "float64"
    plane = how.n * size
    found = []
    specs = [FourierSpec(problem.scalar, length, "c2c", how.backward, True, "any", "any")
             for length in (m, c)]
    room = max(-(-work_bytes(spec, lanes) // 4096) * 4096 + 64 for spec in specs) * threads
    total = 2 * plane + room
    groups = [(o, i) for o in range(problem.outer) for i in range(problem.inner)]
    for number, (o, i) in enumerate(groups):
        source, result = (_moved(rows, o * rows.outer + i * rows.inner, size)
                          for rows in (problem.source, problem.target))
        middle = [Pointer("work", total, part * plane) for part in range(2)]
        first = _Problem(dataclasses.replace(how, n=m, scale=1.0), problem.scalar, 1, c,
                         _Rows(source.re, source.im, 0, source.step, c * source.step, size),
                         _Rows(*middle, 0, 1, c, size))
        second = _Problem(dataclasses.replace(how, n=c), problem.scalar, 1, m,
                          _Rows(*middle, 0, c, 1, size),
                          _Rows(result.re, result.im, 0, result.step, m * result.step, size))
        twist = address(twist_table(m, c, kind))
        found.append(_step(first, True, target, threads, twist=twist, work=(2 * plane, total),
                           after=2 * number))
        found.append(_step(second, True, target, threads, work=(2 * plane, total),
                           after=2 * number + 1))
    return found


def _moved(rows: _Rows, elements: int, size: int) -> _Rows:
    def moved(at: Pointer | None) -> Pointer | None:
        return at and dataclasses.replace(at, offset=at.offset + elements * size)

    return dataclasses.replace(rows, re=moved(rows.re), im=moved(rows.im))
