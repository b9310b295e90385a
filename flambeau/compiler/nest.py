"""Loop nests: phases, their normal form, and the canonical text that kernels are cached by.

A *phase* computes one buffer from others over a domain of loops. `normalise` drops and merges
loops, orders them by memory, and picks the loop whose iterations become vector lanes. `canonical`
replaces every size, stride, offset and constant by a slot number: what is left is the kernel's
identity, and the slots' contents are the launch's arguments.
"""

from __future__ import annotations

import dataclasses

from flambeau.compiler.expression import Buffer, Expr, Index
from flambeau.compiler.target import Target

__all__ = ["Loop", "Phase", "Pointer", "Number", "Float", "normalise", "canonical", "split",
           "tile_loop", "vector_lanes", "walk"]


@dataclasses.dataclass
class Loop:
    """One loop. If `clip` is (outer var, total), it ends at min(extent, total - outer * extent)."""

    var: int
    extent: int
    clip: tuple[int, int] | None = None


@dataclasses.dataclass
class Phase:
    """One computation over a domain.

    Attributes:
        outer: loops whose iterations are independent; chunks of their product run in parallel.
        inner: loops that run in order inside (reduced, or feeding a scatter).
        lane: the loop whose iterations are vector lanes; a member of neither list.
        reduce: None, or the combining rule: "sum", "prod", "max", "min", "argmax", "argmin". With
            "scan_" before it every intermediate result is stored, along the only inner loop.
        lane_reduced: the lanes are combined (horizontal) rather than kept (vertical).
        value: what is stored or reduced; `position`: for argmax/argmin, the counted position.
        target, where: the buffer stored to, and the element index there.
        mode: "set", or how a scatter combines with what is there.
        free: variables of loops whose iterations never meet at one place of a scatter.
        tile: the last of `inner`, along which loads are contiguous that are not along the lanes:
            they are loaded in squares and transposed in registers.
        carry: what a scan begins with, in the precision that it is carried in; None: the identity.
    """

    outer: list[Loop]
    inner: list[Loop]
    lane: Loop | None
    value: Expr
    target: Buffer
    where: Index
    reduce: str | None = None
    lane_reduced: bool = False
    position: Expr | None = None
    mode: str = "set"
    free: frozenset[int] = frozenset()
    tile: Loop | None = None
    carry: Expr | None = None

    def roots(self) -> list[Expr]:
        roots = [self.value] + [expr for expr in (self.position, self.carry) if expr]
        return roots + [expr for expr, _ in self.where.dynamic]


def walk(roots: list[Expr]) -> list[Expr]:
    """Every expression under `roots`, children first, each once."""
    order: list[Expr] = []
    seen: set[Expr] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        expr, ready = stack.pop()
        if ready:
            order.append(expr)
        elif expr not in seen:
            seen.add(expr)
            stack.append((expr, True))
            stack.extend((child, False) for child in reversed(expr.children())
                         if child not in seen)
    return order


# --------------------------------------------------------------------------- normal form
def normalise(kept: list[Loop], reduced: list[Loop], phase: Phase) -> Phase:
    """Fill in the loops of `phase`: merge what can be merged, order by memory, choose the lanes."""
    exprs = walk(phase.roots())
    indices = {index for expr in exprs for index in expr.indices()} | {phase.where}
    loads = [expr.data[1] for expr in exprs if expr.kind == "load"]
    kept = _merge(sorted((loop for loop in kept if loop.extent != 1),
                         key=lambda loop: -phase.where.terms.get(loop.var, 0)), indices)
    if phase.reduce is not None and phase.reduce.startswith("scan_"):
        # lanes are neighbours in memory that are scanned side by side, or there are none: gathering
        # others only pays where a step is dear
        dear = phase.reduce == "scan_logsumexp"
        phase.lane = next((loop for loop in kept[::-1] if loop.extent >= 4 and (
            dear or phase.where.terms.get(loop.var) == 1)), None)
        phase.outer = [loop for loop in kept if loop is not phase.lane]
        phase.inner = reduced
        along = phase.where.terms.get(reduced[0].var)
        if phase.lane is None and not dear and reduced[0].extent >= 4 and (
                along == 1 or along == -1 and phase.position is None):
            phase.lane, phase.inner, phase.lane_reduced = reduced[0], [], True
        return phase
    main = max(loads, key=lambda index: len(index.terms), default=phase.where)
    reduced = _merge(sorted((loop for loop in reduced if loop.extent != 1),
                            key=lambda loop: -main.terms.get(loop.var, 0)), indices)
    scatters = phase.mode != "set" or phase.where.dynamic
    bound = _bound_vars(phase, kept) - phase.free if scatters else set()
    candidates = [loop for loop in kept + reduced if loop.var not in bound]
    if scatters:  # one by one is faster than gathering
        candidates = [loop for loop in candidates if phase.where.terms.get(loop.var) == 1]
    lane = max(candidates, default=None, key=lambda loop: (
        _lane_score(loop, loads, phase.where, loop in reduced), loop.extent))
    phase.lane = lane
    phase.lane_reduced = lane in reduced
    phase.outer = [loop for loop in kept if loop is not lane and loop.var not in bound]
    phase.inner = ([loop for loop in kept if loop is not lane and loop.var in bound]
                   + [loop for loop in reduced if loop is not lane])
    return phase


def _merge(loops: list[Loop], indices: set[Index]) -> list[Loop]:
    """Join neighbours (outer, inner) that every index walks as one run of memory."""
    result: list[Loop] = []
    for loop in reversed(loops):
        if result:
            inner = result[-1]
            if all(index.terms.get(loop.var, 0) == index.terms.get(inner.var, 0) * inner.extent
                   for index in indices):
                inner.extent *= loop.extent
                continue
        result.append(Loop(loop.var, loop.extent))
    return result[::-1]


def _bound_vars(phase: Phase, kept: list[Loop]) -> set[int]:
    """Loop variables whose iterations may meet at one place of a scatter: they must run in order.
    The place depends on them through data, or (as where the indices are expanded) not at all."""
    roots = [expr for expr, _ in phase.where.dynamic]
    return ({var for expr in walk(roots) for index in expr.indices() for var in index.terms}
            | {loop.var for loop in kept if not phase.where.terms.get(loop.var)})


def _lane_score(loop: Loop, loads: list[Index], store: Index, reduced: bool) -> int:
    score = 0
    for index in loads:
        factor = index.terms.get(loop.var, 0)
        score += {1: 2, 0: 1, -1: 1}.get(factor, -2)
    if not reduced:
        score += 3 if store.terms.get(loop.var, 0) == 1 else -3
    return score if loop.extent >= 4 else score - 6


def tile_loop(phase: Phase, lanes: int) -> Loop | None:
    """The outer loop along which some load is contiguous that takes steps along the lanes."""
    lane = phase.lane
    if lane is None or phase.reduce is not None or phase.inner or lane.extent < lanes:
        return None
    loops = {loop.var: loop for loop in phase.outer if loop.extent >= max(lanes, 8)}
    for expr in walk(phase.roots()):
        if expr.kind == "load" and not expr.data[2] and not expr.data[1].dynamic:
            terms = expr.data[1].terms
            if abs(terms.get(lane.var, 0)) > 1:
                for var, factor in terms.items():
                    if factor == 1 and var in loops:
                        return loops[var]
    return None


def vector_lanes(phase: Phase, target: Target) -> int:
    """Lanes for the narrowest type that is computed with, but 4 bytes at the least."""
    sizes = [expr.dtype.itemsize for expr in walk(phase.roots())
             if expr.kind in ("load", "op", "cast")] + [phase.target.dtype.itemsize]
    return target.lanes(min(8, max(4, min(sizes, default=4))))


def split(loop: Loop, block: int, var: int) -> tuple[Loop, Loop]:
    """Cut a loop into (blocks, elements of a block); `var` is the new variable of the blocks.

    An index advances by `block` of the old variable's steps for each step of the new one: see
    `splits`.
    """
    return Loop(var, -(-loop.extent // block)), Loop(loop.var, block, clip=(var, loop.extent))


# --------------------------------------------------------------------------- canonical form
@dataclasses.dataclass(frozen=True)
class Pointer:
    """A slot that holds an address: of a buffer, `offset` bytes in; or ("status", 0)."""

    kind: str
    number: int
    offset: int = 0


@dataclasses.dataclass(frozen=True)
class Number:
    """A slot that holds the program's number argument `number`."""

    number: int


@dataclasses.dataclass(frozen=True)
class Float:
    """A slot that holds a double."""

    value: float


class _Slots:
    """Collects the launch arguments while the canonical form refers to them by number."""

    def __init__(self) -> None:
        self.contents: list = []
        self._shared: dict = {}

    def add(self, content) -> int:
        self.contents.append(content)
        return len(self.contents) - 1

    def shared(self, content) -> int:
        """One slot for equal pointers and numbers; sizes are never shared, since that two sizes are
        equal must not become part of a kernel's identity."""
        if content not in self._shared:
            self._shared[content] = self.add(content)
        return self._shared[content]


LITERALS = (0, 1, -1, 2, 0.5, -0.5, True, False)


def canonical(phases: list[Phase], splits: dict[int, tuple[int, int]], lanes: int
              ) -> tuple[tuple, list]:
    """(key, slot contents) of the nest that runs `phases` in turn for each outer iteration.

    The outer loops are common to the phases. `splits` maps the variable of a loop over blocks to
    (the variable that was cut, the block's size).
    """
    slots = _Slots()
    outer = phases[0].outer
    key = (lanes, tuple(slots.add(loop.extent) for loop in outer),
           tuple(_canonical_phase(phase, slots, splits) for phase in phases))
    return key, slots.contents


def _canonical_phase(phase: Phase, slots: _Slots, splits: dict) -> tuple:
    # phases of one nest share their outer loops position by position
    position = {loop.var: place for place, loop in enumerate(phase.outer)}
    inner = list(phase.inner) + ([phase.lane] if phase.lane else [])
    position |= {loop.var: len(phase.outer) + place for place, loop in enumerate(inner)}

    def loop_key(loop: Loop) -> tuple:
        if loop.clip is None:
            return slots.add(loop.extent), None
        return slots.add(loop.extent), (position[loop.clip[0]], slots.add(loop.clip[1]))

    lane_var = phase.lane.var if phase.lane else None
    tile_var = phase.tile.var if phase.tile else None
    numbered: dict[Expr, int] = {}

    def index_key(index: Index, with_const: bool = True) -> tuple:
        terms = []
        for var, place in sorted(position.items(), key=lambda item: item[1]):
            owner, times = splits.get(var, (var, 1))
            factor = index.terms.get(var, 0)
            if owner != var:
                factor += index.terms.get(owner, 0) * times
            if factor:
                run = {1: "unit", -1: "back"}.get(factor) if var in (lane_var, tile_var) else None
                terms.append((place, run or slots.add(factor)))
        const = slots.add(index.const) if with_const and index.const else None
        dynamic = tuple((numbered[expr], None if stride == 1 else slots.add(stride))
                        for expr, stride in index.dynamic)
        return tuple(terms), const, dynamic

    def pointer(buffer: Buffer, index: Index) -> int:
        offset = index.const * buffer.dtype.itemsize
        return slots.shared(Pointer(buffer.kind, buffer.number, offset))

    lines = []
    for expr in walk(phase.roots()):
        args = tuple(numbered[arg] for arg in expr.args)
        lines.append((expr.kind, expr.dtype.name, args,
                      _canonical_data(expr, slots, numbered, index_key, pointer)))
        numbered[expr] = len(lines) - 1
    loops = tuple(loop_key(loop) for loop in inner)
    where = (pointer(phase.target, phase.where), phase.target.dtype.name,
             index_key(phase.where, with_const=False))
    return (len(phase.outer), loops, phase.lane is not None, phase.reduce, phase.lane_reduced,
            phase.mode, tuple(lines), numbered[phase.value],
            None if phase.position is None else numbered[phase.position], where,
            phase.tile is not None, None if phase.carry is None else numbered[phase.carry])


def _canonical_data(expr: Expr, slots: _Slots, numbered: dict, index_key, pointer):
    kind, data = expr.kind, expr.data
    if kind == "load":
        buffer, index, conditions = data
        return (pointer(buffer, index), buffer.dtype.name, index_key(index, with_const=False),
                tuple(numbered[c] for c in conditions))
    if kind == "op":
        checked = data.name in ("idiv", "irem")
        return data.name, slots.shared(Pointer("status", 0)) if checked else None
    if kind == "const":
        # one type per dtype: keys that are equal (1 == True == 1.0) must be spelled alike, too
        content = {"f": float, "b": bool}.get(expr.dtype.kind, int)(data)
        if expr.dtype.kind == "b" or content in LITERALS and repr(content) != "-0.0":
            return "literal", content
        return "slot", slots.shared(Float(content) if expr.dtype.kind == "f" else content)
    if kind == "number":
        return slots.shared(Number(data[0])), data[1]
    if kind == "index":
        return index_key(data)
    if kind == "wrap":
        return slots.add(data), slots.shared(Pointer("status", 0))
    if kind in ("inside", "divides", "quotient"):
        return index_key(data[0]), slots.add(data[1])
    if kind == "cast":
        return None
    raise AssertionError(kind)

