"""Kernels of transforms: rows one at a time, or as many at a time as a vector has lanes."""

from __future__ import annotations

import dataclasses

from flambeau.compiler.emitter import Function, Module, Value, vector
from flambeau.compiler.fourier.ends import Ends
from flambeau.compiler.fourier.passes import Passes
from flambeau.compiler.fourier.plan import LARGEST_PRIME, chirp_size, is_smooth
from flambeau.compiler.fourier.ports import Array, Port
from flambeau.compiler.frame import chunk_range, thread_workspace
from flambeau.compiler.target import Target

__all__ = ["FOURIER_SLOTS", "FourierSpec", "fourier_kernel", "points_of", "work_bytes"]

_POINTERS = ("x_re", "x_im", "y_re", "y_im", "table", "ends", "work")
FOURIER_SLOTS = (*_POINTERS, "work_stride", "outer", "inner", "x_outer", "x_inner", "x_step",
                 "y_outer", "y_inner", "y_step", "scale", "im_scale")
ARRAYS = 4  # two that passes go back and forth between, and two for what comes before and after


ROOM = LARGEST_PRIME + 1  # vectors that a transform of a few points may put aside


@dataclasses.dataclass(frozen=True)
class FourierSpec:
    """What the text of a kernel depends on.

    Attributes:
        n: the length; `kind`: "c2c", "r2c" (to the first half), "c2r" (from the first half).
        backward: the sign of the exponent is positive.
        across: lanes are rows.
        source, target: flavours of `Port`, or "turn" and "turn_pair": lanes are rows, and lie
            `step` 1 or 2 along the row.
        twisted: results are rotated by a table, as the first half of a long transform.
        real: points of a "c2c" have no imaginary parts.
    """

    scalar: str
    n: int
    kind: str
    backward: bool
    across: bool
    source: str
    target: str
    twisted: bool = False
    real: bool = False

    @property
    def name(self) -> str:
        words = (self.kind, self.n, self.scalar, "backward" if self.backward else "forward",
                 "across" if self.across else "along", self.source, self.target)
        more = ("_twisted" if self.twisted else "") + ("_real" if self.real else "")
        return f"fourier_{'_'.join(map(str, words))}{more}"


def points_of(spec: FourierSpec) -> int:
    """The length of the complex transform behind it: half for reals of even length."""
    return spec.n // 2 if spec.kind != "c2c" and spec.n % 2 == 0 else spec.n


def _room(spec: FourierSpec) -> int:
    """Points of an array."""
    points = points_of(spec)
    return max(points + 1, 1 if is_smooth(points) else chirp_size(points))


def work_bytes(spec: FourierSpec, lanes: int) -> int:
    """Workspace of one thread."""
    width = lanes if spec.across else 1
    room = Array.elements(_room(spec) + 16 * lanes, lanes, width)
    room = ARRAYS * room + Array.elements(ROOM, lanes, lanes)
    return room * (4 if spec.scalar == "float" else 8)


def fourier_kernel(spec: FourierSpec, target: Target) -> tuple[str, str]:
    """(name, LLVM IR)."""
    module = Module(target.attributes)
    f = module.function(spec.name, [("ptr noalias", "args"), ("i32", "chunk"), ("i32", "nchunks"),
                                    ("i32", "thread")])
    lanes = target.lanes(4 if spec.scalar == "float" else 8)
    fused = target.has("fma") or not target.triple.startswith(("x86_64", "i686", "i386"))
    _Kernel(f, spec, lanes, fused).emit()
    return spec.name, module.text()


class _Kernel:
    def __init__(self, f: Function, spec: FourierSpec, lanes: int, fused: bool):
        self.f, self.spec, self.lanes = f, spec, lanes
        self.type = vector(lanes, spec.scalar)
        self.slot = {}
        for place, name in enumerate(FOURIER_SLOTS):
            kind = "ptr" if name in _POINTERS else "double" if "scale" in name else "i64"
            self.slot[name] = f.load(kind, f.args["args"], place)
        self.fused = fused
        self.work = thread_workspace(f, self.slot["work"], self.slot["work_stride"])
        self.arrays, self.passes = self._memory(f, self.work)
        self.scale, self.im_scale = (f.splat(
            self.slot[name] if spec.scalar == "double"
            else f.cast("fptrunc", self.slot[name], "float"), lanes)
            for name in ("scale", "im_scale"))

    def _memory(self, f: Function, work: Value) -> tuple[list[Array], Passes]:
        """What a function works with, in a thread's workspace."""
        spec, lanes = self.spec, self.lanes
        width = lanes if spec.across else 1
        points = _room(spec) + 16 * lanes
        size = Array.elements(points, lanes, width)
        arrays = [Array.at(f, work, number * size, points, lanes, spec.scalar, width)
                  for number in range(ARRAYS)]
        room = Array.at(f, work, ARRAYS * size, ROOM, lanes, spec.scalar, lanes)
        return arrays, Passes(f, spec.across, lanes, self.type, self.fused, room)

    def _transform_apart(self, points: int) -> None:
        """The transform of the last array, in place, by a function of its own: it is long, and
        needed twice."""
        f, name = self.f, "transformed"
        if not f.module.defines(name):
            g = f.module.function(name, [("ptr", "table"), ("ptr", "work")], internal=True)
            arrays, passes = self._memory(g, g.args["work"])
            passes.run(points, g.args["table"], arrays[3].load, arrays[3].store,
                       (arrays[0], arrays[1]))
        f.call("void", name, [self.slot["table"], self.work])

    def _clear_margins(self) -> None:
        """Lanes beyond the ends of a row compute on what is there: garbage may be slow (numbers
        that are not normalised)."""
        f, zero = self.f, self.f.const(0, self.type)
        points = points_of(self.spec)
        room = max(points, _room(self.spec) - 1)
        for array in self.arrays:
            for pointer in (array.re, array.im):
                f.store(zero, pointer, -self.lanes)
                for start in sorted({points, room}):
                    with f.loop(start, start + 16 * self.lanes, self.lanes) as e:
                        f.store(zero, pointer, e)

    def emit(self) -> None:
        f, slot, spec = self.f, self.slot, self.spec
        if not spec.across:
            self._clear_margins()
        strips = f.ceil_div(slot["inner"], self.lanes) if spec.across else slot["inner"]
        start, stop = chunk_range(f, f.mul(slot["outer"], strips))
        with f.loop(start, stop) as task:
            o, i = f.udiv(task, strips), f.urem(task, strips)
            if spec.across:
                i = f.mul(i, self.lanes)
                self.present = f.smin(f.sub(slot["inner"], i), self.lanes)
                self.first = i
            base = {}
            for who in "xy":
                offset = f.add(f.mul(o, slot[f"{who}_outer"]), f.mul(i, slot[f"{who}_inner"]))
                for part in ("re", "im"):
                    base[f"{who}_{part}"] = f.gep(slot[f"{who}_{part}"], offset, spec.scalar)
            self._rows(base)

    def _rows(self, base: dict) -> None:
        spec = self.spec
        read, write = self._source(base), self._target(base)
        Ends(self.passes, spec, self.slot["table"], self.slot["ends"], self.arrays,
             self._transform_apart).run(read, write)
        if spec.target.startswith("turn"):
            self._turned_out(base)

    # ------------------------------------------------------------------ ports
    def _step(self, who: str, flavour: str):
        return self.slot[f"{who}_step"] if self.spec.across or flavour == "any" else (
            2 if flavour == "pair" else 1)

    def _is_real(self, who: str) -> bool:
        """Are there no imaginary parts? (Reals of even length are taken as half as many points.)"""
        reals = {"x": "r2c", "y": "c2r"}[who]
        return self.spec.kind == reals and self.spec.n % 2 == 1 or self.spec.real and who == "x"

    def _port(self, who: str, flavour: str, base: dict) -> Port:
        spec = self.spec
        across = spec.across
        return Port(self.f, base[f"{who}_re"],
                    None if self._is_real(who) else base[f"{who}_im"], self._step(who, flavour),
                    self.slot[f"{who}_inner"] if across else None, flavour, self.lanes, spec.scalar,
                    present=self.present if across else None)

    def _source(self, base: dict):
        spec = self.spec
        if spec.source.startswith("turn"):
            room = self.arrays[3]
            self._turned_in(base, room)
            load = room.load
        else:
            load = self._port("x", spec.source, base).load
        swap = spec.backward and spec.kind == "c2c"

        def read(e, count):
            a = load(e, count)
            return a[::-1] if swap else a

        return read

    def _target(self, base: dict):
        spec, f = self.spec, self.f
        store = (self.arrays[3].store if spec.target.startswith("turn")
                 else self._port("y", spec.target, base).store)
        swap = spec.backward and spec.kind == "c2c"

        def write(e, a, count):
            if spec.twisted:
                a = self._twisted(e, a)
            if swap:
                a = a[::-1]
            store(e, (f.fmul(a[0], self.scale), f.fmul(a[1], self.im_scale)), count)

        return write

    def _twisted(self, e, a):
        """Rotated by the table at (e, row)."""
        f, inner = self.f, self.slot["inner"]
        at = f.add(f.mul(e, inner), self.first)
        mask = f.lane_mask(self.lanes, self.present)
        table = self.slot["ends"]
        im = f.gep(table, f.mul(inner, self.spec.n), self.spec.scalar)
        return self.passes.points.mul(a, (f.masked_load(self.type, table, mask, 0, at),
                                          f.masked_load(self.type, im, mask, 0, at)))

    # ------------------------------------------------------------------ rows across lanes
    def _counts(self, who: str) -> int:
        """Points of a row in memory."""
        spec = self.spec
        half = {"x": "c2r", "y": "r2c"}[who]
        return spec.n // 2 + 1 if spec.kind == half else points_of(spec)

    def _turned_in(self, base: dict, room: Array) -> None:
        """Copy rows to a workspace, across the lanes."""
        f, spec, lanes = self.f, self.spec, self.lanes
        points = self._counts("x")
        port = "pair" if spec.source == "turn_pair" else "unit"

        def block(e, count) -> None:
            with f.loop(0, lanes) as lane:
                row = f.smin(lane, f.sub(self.present, 1))
                offset = f.mul(row, self.slot["x_inner"])
                point = self._row_port("x", port, base, offset).load(e, count)
                self.passes.room.store(lane, point)
            self.passes.turn(self.passes.room, 0, room, f.mul(e, lanes))

        self._blocks(points, block)

    def _turned_out(self, base: dict) -> None:
        """Copy results from the workspace to rows."""
        f, spec, lanes, room = self.f, self.spec, self.lanes, self.arrays[3]
        port = "pair" if spec.target == "turn_pair" else "unit"

        def block(e, count) -> None:
            self.passes.turn(room, f.mul(e, lanes), self.passes.room, 0)
            with f.loop(0, self.present) as lane:
                offset = f.mul(lane, self.slot["y_inner"])
                port_ = self._row_port("y", port, base, offset)
                port_.store(e, self.passes.room.load(lane), count)

        self._blocks(self._counts("y"), block)

    def _row_port(self, who: str, flavour: str, base: dict, offset: Value) -> Port:
        """The points along one row."""
        f, spec = self.f, self.spec
        re, im = (f.gep(base[f"{who}_{part}"], offset, spec.scalar) for part in ("re", "im"))
        return Port(f, re, None if self._is_real(who) else im, 2 if flavour == "pair" else 1, None,
                    flavour, self.lanes, spec.scalar)

    def _blocks(self, points: int, body) -> None:
        """body(e, count) for blocks of as many points as lanes."""
        full = points // self.lanes * self.lanes
        if full:
            with self.f.loop(0, full, self.lanes) as e:
                body(e, None)
        if points > full:
            body(full, points - full)
