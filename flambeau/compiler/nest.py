"""Loop nests: phases, their normal form, and the canonical text that kernels are cached by.

A *phase* computes one buffer from others over a domain of loops. `normalise` drops and merges
loops, orders them by memory, and picks the loop whose iterations become vector lanes. `canonical`
replaces every size, stride, offset and constant by a slot number: what is left is the kernel's
identity, and the slots' contents are the launch's arguments.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

from flambeau.compiler.expression import Buffer, Expr, Index
from flambeau.compiler.target import Target
from flambeau.core.symbolic import choice, float_of, is_symbolic

__all__ = ["Loop", "Phase", "Pointer", "Number", "Float", "Address", "normalise", "canonical",
           "split", "tidy", "renamed", "rewrite", "merges", "tile_loop", "vector_lanes", "walk"]


@dataclasses.dataclass
class Loop:
    """One loop. If `clip` is (outer var, total), it ends at min(extent, total - outer * extent).

    `parts` are the loops that it was merged from, outermost first; empty if it is one itself.
    """

    var: int
    extent: int
    clip: tuple[int, int] | None = None
    parts: tuple[Loop, ...] = ()

    def unmerged(self) -> tuple[Loop, ...]:
        return self.parts or (self,)


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
        value: what is stored or reduced; `position`: for argmax/argmin, the counted position; for a
            recurrence, its factor.
        target, where: the buffer stored to, and the element index there.
        mode: "set", or how a scatter combines with what is there. "carry_" and a rule: the target
            holds one row of results, which every iteration of the last outer loop adds to.
        kept, reduced: the domain before loops were merged, without loops of one iteration.
        lanes: how many, of the phase on its own; a reduction keeps them wherever it runs.
        pinned: the variable of the loop that must become the lanes.
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
    kept: list[Loop] = dataclasses.field(default_factory=list)
    reduced: list[Loop] = dataclasses.field(default_factory=list)
    lanes: int = 1
    pinned: int | None = None

    @property
    def scans(self) -> bool:
        return self.reduce is not None and self.reduce.startswith("scan_")

    def loops(self) -> list[Loop]:
        """All loops, outermost first."""
        return [*self.outer, *self.inner, *([self.lane] if self.lane else [])]

    def loads(self) -> list[Expr]:
        """The loads under `roots`, each once."""
        roots = self.roots()
        if len(roots) == 1:
            return list(roots[0].loads())
        return list(dict.fromkeys(load for root in roots for load in root.loads()))

    def roots(self) -> list[Expr]:
        roots = [self.value]
        if self.position:
            roots.append(self.position)
        if self.carry:
            roots.append(self.carry)
        if self.where.dynamic:
            roots += [expr for expr, _ in self.where.dynamic]
        return roots

    def variables(self) -> set[int]:
        """The loop variables of all its indices."""
        return set(self.where.terms).union(*[root.variables() for root in self.roots()])

    def copy(self) -> Phase:
        """Another one that is equal."""
        made = object.__new__(Phase)
        made.__dict__.update(self.__dict__)
        return made


def walk(roots: Sequence[Expr]) -> list[Expr]:
    """Every expression under `roots`, children first, each once."""
    if len(roots) == 1:
        return list(roots[0].order())
    return list(dict.fromkeys(itertools.chain.from_iterable(root.order() for root in roots)))


def rewrite(phase: Phase, move: Callable[[Index], Index],
            replace: Callable[[Expr], Expr] | None = None,
            exchange: Mapping[Expr, Expr] | None = None) -> Phase:
    """`phase` with the affine part of every index moved by `move`, and every load then exchanged
    for what `replace` gives; `exchange` puts others in the place of whole expressions."""
    made: dict[Expr, Expr] = {}

    def moved(index: Index) -> Index:
        result = move(index)
        if index.dynamic:
            dynamic = tuple((made[expr], stride) for expr, stride in index.dynamic)
            result = Index(result.terms, result.const, dynamic)
        return result

    for expr in walk(phase.roots()):
        data, kind = expr.data, expr.kind
        if exchange is not None and expr in exchange:
            made[expr] = exchange[expr]
            continue
        if kind == "load":
            data = data[0], moved(data[1]), tuple([made[c] for c in data[2]])
        elif kind == "index":
            data = moved(data)
        elif kind in ("inside", "divides", "quotient"):
            data = moved(data[0]), data[1]
        args = tuple([made[arg] for arg in expr.args])
        same = data is expr.data and args == expr.args
        new = expr if same else Expr(kind, expr.dtype, args, data)
        if replace is not None and new.kind == "load":
            new = replace(new)
        made[expr] = new
    result = phase.copy()
    result.value, result.where = made[phase.value], moved(phase.where)
    result.position = None if phase.position is None else made[phase.position]
    result.carry = None if phase.carry is None else made[phase.carry]
    return result


def renamed(phase: Phase, names: Mapping[int, int]) -> Phase:
    """`phase` (its indices; not its loops) with other loop variables."""
    def move(index: Index) -> Index:
        return Index({names.get(var, var): f for var, f in index.terms.items()}, index.const)

    if all(names.get(var, var) == var for var in phase.variables()):
        return phase.copy()
    return rewrite(phase, move)


# --------------------------------------------------------------------------- normal form
def normalise(kept: list[Loop], reduced: list[Loop], phase: Phase, rows: Sequence[Loop] = ()
              ) -> Phase:
    """Fill in the loops of `phase`: merge what can be merged, order by memory, choose the lanes.

    `rows`, some of the kept loops, become the outer loops as they are.
    """
    phase.kept = [loop for loop in kept if loop.extent != 1]
    phase.reduced = [loop for loop in reduced if loop.extent != 1]
    exprs = walk(phase.roots())
    indices = {index for expr in exprs for index in expr.indices()} | {phase.where}
    loads = [expr.data[1] for expr in exprs if expr.kind == "load"]
    fixed = {loop.var for loop in rows}
    kept = _merge(sorted((loop for loop in phase.kept if loop.var not in fixed),
                         key=lambda loop: -phase.where.terms.get(loop.var, 0)), indices)
    if phase.scans:
        # lanes are neighbours in memory that are scanned side by side, or there are none: gathering
        # others only pays where a step is dear
        dear = phase.reduce in ("scan_logsumexp", "scan_recurrence")
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
    reduced = _merge(sorted(phase.reduced, key=lambda loop: -main.terms.get(loop.var, 0)), indices)
    scatters = phase.mode != "set" or phase.where.dynamic
    carried = phase.mode.startswith("carry_")
    bound = _bound_vars(phase, kept) - phase.free if scatters and not carried else set()
    candidates = [loop for loop in kept + reduced if loop.var not in bound]
    if scatters and not carried:  # one by one is faster than gathering
        candidates = [loop for loop in candidates if phase.where.terms.get(loop.var) == 1]
    lane = None
    if candidates:
        lane = candidates[0] if len(candidates) == 1 else _best_lane(
            candidates, phase, kept, reduced, exprs)
    phase.lane = lane
    phase.lane_reduced = lane in reduced
    free = [loop for loop in kept if loop is not lane and loop.var not in bound]
    phase.inner = ([loop for loop in kept if loop is not lane and loop.var in bound]
                   + [loop for loop in reduced if loop is not lane])
    phase.outer = [*rows, *free]
    if rows and phase.reduce is None:
        phase.outer, phase.inner = list(rows), free + phase.inner
    return phase


@choice
def _best_lane(candidates: Sequence[Loop], phase: Phase, kept: Sequence[Loop],
               reduced: Sequence[Loop], exprs: Sequence[Expr]) -> Loop:
    return min(candidates, key=lambda loop: (
        loop.var != phase.pinned, _lane_cost(loop, kept, reduced, exprs, phase.where),
        -loop.extent))


def tidy(phase: Phase, more: Iterable[int] = ()) -> Phase:
    """`phase` without the variables of loops that were merged away in its indices; `more` are
    variables that stay."""
    live = {loop.var for loop in phase.loops()} | set(more)

    def move(index: Index) -> Index:
        if all(var in live for var in index.terms):
            return index if not index.dynamic else Index(index.terms, index.const)
        return Index({var: f for var, f in index.terms.items() if var in live}, index.const)

    return phase.copy() if phase.variables() <= live else rewrite(phase, move)


def _merge(loops: list[Loop], indices: set[Index]) -> list[Loop]:
    """Join neighbours (outer, inner) that every index walks as one run of memory."""
    result: list[Loop] = []
    for loop in reversed(loops):
        if result and merges(loop, result[-1], indices):
            inner = result[-1]
            result[-1] = Loop(inner.var, inner.extent * loop.extent, None,
                              loop.unmerged() + inner.unmerged())
        else:
            result.append(loop)
    return result[::-1]


def merges(outer: Loop, inner: Loop, indices: Iterable[Index]) -> bool:
    """Does every index walk these two loops as one run?"""
    return outer.clip is None and inner.clip is None and all(
        index.terms.get(outer.var, 0) == index.terms.get(inner.var, 0) * inner.extent
        for index in indices)


def _bound_vars(phase: Phase, kept: list[Loop]) -> set[int]:
    """Loop variables whose iterations may meet at one place of a scatter: they must run in order.
    The place depends on them through data, or (as where the indices are expanded) not at all."""
    roots = [expr for expr, _ in phase.where.dynamic]
    return ({var for expr in walk(roots) for index in expr.indices() for var in index.terms}
            | {loop.var for loop in kept if not phase.where.terms.get(loop.var)})


LANES = 16.0  # for the choice of the lanes; not the machine's, so that trees depend on sizes alone
GATHER, SCATTER, ACROSS = 0.8, 1.5, 8.0  # costs of one element, one element, one sum across lanes
FAR = 4.0  # cost of a gathered element whose neighbours are only wanted after the whole sum


def _lane_cost(lane: Loop, kept: Sequence[Loop], reduced: Sequence[Loop], exprs: Sequence[Expr],
               store: Index) -> float:
    """About how long the phase takes with its lanes along this loop, in accesses of a register."""
    extents = {loop.var: loop.extent for loop in (*kept, *reduced)}
    # lanes that a register fills on average
    each = max(1, lane.extent) / max(1, -(-lane.extent // LANES))

    def count(variables: Iterable[int]) -> float:
        total = 1.0
        for var in variables:
            total *= extents.get(var, 1)
        return total

    def access(index: Index, dear: float) -> float:
        moving = {v for expr, _ in index.dynamic for e in walk([expr]) for i in e.indices()
                  for v in i.terms}
        times = count(moving | set(index.terms))
        if lane.var in moving or index.terms.get(lane.var, 1) not in (1, -1):
            return times * dear
        return times / each if lane.var in index.terms else times

    late = ({loop.var for loop in kept} if lane.var in {loop.var for loop in reduced} else set())

    def gather(index: Index) -> float:
        far = abs(index.terms.get(lane.var, 0)) >= LANES
        return FAR if far and any(index.terms.get(v) in (1, -1) for v in late) else GATHER

    loads = [expr.data[1] for expr in exprs if expr.kind == "load"]
    costs = [access(index, gather(index)) for index in loads]
    if not reduced:
        work = sum(expr.data.cost for expr in exprs if expr.kind == "op")
        return count(extents) / each * work / 16 + sum(costs) + access(store, SCATTER)
    # what is computed on the way, rather than loaded, must not change the tree of a sum
    whole = [cost for cost, index in zip(costs, loads, strict=True)
             if index.dynamic or all(var in index.terms for var in extents)]
    total = max(whole or costs, default=0.0)
    if lane.var in {loop.var for loop in reduced}:
        return total + ACROSS * count(loop.var for loop in kept)
    return total + access(store, SCATTER) + count(extents) / each / 4


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
    lanes = target.lanes(min(8, max(4, min(sizes, default=4))))
    if phase.scans and phase.lane_reduced:
        while lanes > 2 and _fits(phase, lanes // 2):
            lanes //= 2
    return lanes


@choice
def _fits(phase: Phase, lanes: int) -> bool:
    """Is one register of so few lanes enough for the whole row of a scan?"""
    return phase.lane.extent <= lanes


def split(phase: Phase, loop: Loop, block: int, var: int) -> tuple[Phase, Loop, Loop]:
    """Cut a loop of `phase` into (blocks, elements of a block): (the phase with indices that know
    of both, the two loops). `var` is the new variable of the blocks."""
    def move(index: Index) -> Index:
        factor = index.terms.get(loop.var, 0)
        if not factor:
            return index if not index.dynamic else Index(index.terms, index.const)
        return Index(index.terms | {var: factor * block}, index.const)

    blocks = Loop(var, -(-loop.extent // block))
    return rewrite(phase, move), blocks, Loop(loop.var, block, clip=(var, loop.extent))


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


@dataclasses.dataclass(frozen=True)
class Address:
    """A slot that holds an address in this process, but none of an argument: of a table, of a
    library's function, or of the state of the random generator `of`."""

    value: int
    of: object = None


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

    def beside(self, pointer: int, stride: int) -> int:
        """The slot for a stride that belongs to a pointer's slot."""
        if ("stride", pointer) not in self._shared:
            self._shared["stride", pointer] = self.add(stride)
        return self._shared["stride", pointer]


MOST_REGISTERS = 4  # of a lane loop that is written out
OFTEN = 64  # times that it is run
LONGEST_BODY = 160  # cost of all its operations
LITERALS = (0, 1, -1, 2, 0.5, -0.5, True, False)


def canonical(sweeps: Sequence[Sequence[Phase]], lanes: Sequence[int], carried: Loop | None = None,
              whole: bool = False) -> tuple[tuple, list]:
    """(key, slot contents) of the nest that runs `sweeps` in turn for each outer iteration.

    The phases of a sweep share all loops, and all have the same outer loops. `lanes` are those of
    each sweep; `carried` is the last outer loop if it must run in order. `whole`: every lane loop
    runs over its whole extent, so that short ones may be written out.
    """
    slots = _Slots()
    outer = sweeps[0][0].outer
    free = outer if carried is None else outer[:-1]
    key = (tuple(slots.add(loop.extent) for loop in free),
           None if carried is None else _loop_key(carried, slots, _places(outer)),
           tuple((*_canonical_sweep(sweep, count, slots),
                  _registers(sweep, count) if whole else None)
                 for sweep, count in zip(sweeps, lanes, strict=True)))
    return key, slots.contents


@choice
def _registers(sweep: Sequence[Phase], lanes: int) -> tuple[int, bool] | None:
    """(how many registers a short lane loop takes, whether the last one is not full), where it is
    run often enough to be written out; None: it stays a loop.

    Of a sum this decides the tree, and depends on the sum's own loops alone.
    """
    lane = sweep[0].lane
    if lane is None or lane.clip is not None or lanes == 1 or sweep[0].tile or (
            sweep[0].scans and not sweep[0].lane_reduced):
        return None
    count = -(-lane.extent // lanes)
    sums = [phase for phase in sweep if phase.reduce is not None]
    others = 1
    for loop in [*sums[0].kept, *sums[0].reduced] if sums else sweep[0].loops():
        others *= loop.extent
    others //= max(1, lane.extent)
    if is_symbolic(count) and not count.env.exact:
        return None  # one that varies is no part of a kernel
    if count > MOST_REGISTERS or others < OFTEN:
        return None
    if not sums:
        work = sum(expr.data.cost for expr in walk([r for p in sweep for r in p.roots()])
                   if expr.kind == "op")
        if work * count > LONGEST_BODY:
            return None
    return count, lane.extent % lanes != 0


def _places(loops: Sequence[Loop]) -> dict[int, int]:
    return {loop.var: place for place, loop in enumerate(loops)}


def _loop_key(loop: Loop, slots: _Slots, position: dict[int, int]) -> tuple:
    if loop.clip is None:
        return slots.add(loop.extent), None
    return slots.add(loop.extent), (position[loop.clip[0]], slots.add(loop.clip[1]))


def _canonical_sweep(sweep: Sequence[Phase], lanes: int, slots: _Slots) -> tuple:
    phase = sweep[0]
    loops = phase.loops()
    position = _places(loops)
    inner = loops[len(phase.outer):]
    lane_var = phase.lane.var if phase.lane else None
    tile_var = phase.tile.var if phase.tile else None
    numbered: dict[Expr, int] = {}

    def index_key(index: Index, with_const: bool = True) -> tuple:
        terms = []
        for var, place in position.items():
            factor = index.terms.get(var, 0)
            if factor:
                run = {1: "unit", -1: "back"}.get(factor) if var in (lane_var, tile_var) else None
                terms.append((place, run or slots.add(factor)))
        const = slots.add(index.const) if with_const and index.const else None
        dynamic = tuple((numbered[expr], None if stride == 1 else slots.add(stride))
                        for expr, stride in index.dynamic)
        return tuple(terms), const, dynamic

    def pointer(buffer: Buffer, index: Index) -> int | tuple[int, int]:
        offset = index.const * buffer.dtype.itemsize
        slot = slots.shared(Pointer(buffer.kind, buffer.number, offset))
        if not buffer.per_thread:
            return slot
        return slot, slots.beside(slot, buffer.per_thread)

    lines: list[tuple] = []
    for expr in walk([root for each in sweep for root in each.roots()]):
        args = tuple(numbered[arg] for arg in expr.args)
        lines.append((expr.kind, expr.dtype.name, args,
                      _canonical_data(expr, slots, numbered, index_key, pointer)))
        numbered[expr] = len(lines) - 1
    results = tuple((
        numbered[each.value], each.reduce, each.mode,
        None if each.position is None else numbered[each.position],
        (pointer(each.target, each.where), each.target.dtype.name,
         index_key(each.where, with_const=False))) for each in sweep)
    return (lanes, len(phase.outer), tuple(_loop_key(loop, slots, position) for loop in inner),
            phase.lane is not None, any(each.lane_reduced for each in sweep), tuple(lines), results,
            phase.tile is not None,
            None if phase.carry is None else numbered[phase.carry],
            phase.lane is not None and phase.reduce is not None and phase.lane.extent <= lanes)


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
        if is_symbolic(data):
            return "slot", slots.shared(Float(float_of(data)) if expr.dtype.kind == "f" else data)
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

