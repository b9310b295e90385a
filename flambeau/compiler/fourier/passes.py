"""The passes of a transform, over one row (lanes are neighbouring points) or over as many rows as a
vector has lanes."""

from __future__ import annotations

from collections.abc import Callable

from flambeau.compiler.emitter import Function, Value, scalar_of
from flambeau.compiler.fourier.butterflies import Butterflies
from flambeau.compiler.fourier.plan import WRITTEN_OUT, Pass, is_large_prime, passes
from flambeau.compiler.fourier.ports import Array, Point, transpose, unzip

__all__ = ["Passes", "Reader", "Writer"]

LARGE = 16  # points that are too many for registers
Reader = Callable[..., Point]
Writer = Callable[..., None]


class Passes:
    """Emits transforms in one function.

    Args:
        across: whether lanes are rows.
        type_: of a vector.
        room: memory for `LARGEST_PRIME` vectors and one.
    """

    def __init__(self, f: Function, across: bool, lanes: int, type_: str, fused: bool,
                 room: Array):
        self.f, self.across, self.lanes, self.type = f, across, lanes, type_
        self.width = lanes if across else 1
        self.scalar = scalar_of(type_)
        self.points = Butterflies(f, fused)
        self.room = room

    def span(self, count: int, body: Callable) -> None:
        """body(e, count) for `count` points: a vector of them at a time, the last one not full; or
        one point of all lanes at a time."""
        if self.across:
            if count == 1:
                body(0, None)
                return
            with self.f.loop(0, count) as e:
                body(e, None)
            return
        full = count // self.lanes * self.lanes
        if full == self.lanes:
            body(0, None)
        elif full:
            with self.f.loop(0, full, self.lanes) as e:
                body(e, None)
        if count > full:
            body(full, count - full)

    def factor(self, table: Value, size: int, e, start: int = 0) -> Point:
        """Rotation e of a table, in each lane its own point's: `size` real parts from `start` on,
        then imaginary parts."""
        re, im = (self.f.add(e, start + part * size) for part in range(2))
        if not self.across:
            return self.f.load(self.type, table, re), self.f.load(self.type, table, im)
        return self._spread(table, re), self._spread(table, im)

    def _spread(self, table: Value, place) -> Value:
        return self.f.splat(self.f.load(self.scalar, table, place), self.lanes)

    def run(self, n: int, table: Value, read: Reader, write: Writer, stages: tuple[Array, Array]
            ) -> None:
        """The transform of n points, which is smooth, through `stages` in turn."""
        steps = passes(n, self.lanes)
        if not steps:
            write(0, read(0, None), None)
            return
        for number, step in enumerate(steps):
            last = number == len(steps) - 1
            store = write if last else stages[number % 2].store
            source = stages[1 - number % 2]
            if last and not self.across and step.before > 1:
                self._last(step, table, source, store)
            else:
                self._pass(step, table, read if number == 0 else source.load, store)

    def _pass(self, step: Pass, table: Value, read: Reader, write: Writer) -> None:
        """A pass along columns: lanes have the same rotation."""
        def row(k) -> None:
            turns = self._turns(step, lambda t: tuple(
                self._spread(table, self._place(step, t, part, k)) for part in range(2)))
            start = self.f.mul(k, step.radix * step.rest)

            def column(j, count) -> None:
                def fetch(t: Value | int) -> Point:
                    place = self.f.add(self.f.add(start, j), self.f.mul(t, step.rest))
                    return self._turned(read(place, count), turns, t)

                def put(t: int, each: Point) -> None:
                    out = self.f.add(self.f.mul(k, step.rest),
                                     self.f.mul(t, step.before * step.rest))
                    write(self.f.add(out, j), each, count)

                self._combine(step, table, fetch, put)

            self.span(step.rest, column)

        if step.before == 1:
            row(0)
            return
        with self.f.loop(0, step.before) as k:
            row(k)

    def _last(self, step: Pass, table: Value, source: Array, write: Writer) -> None:
        """The last pass over one row: lanes are neighbouring results, each with its own rotation,
        and what they are made of lies side by side."""
        radix = step.radix

        def results(k, count) -> None:
            x = self._columns(source, self.f.mul(k, radix), radix)
            turns = self._turns(step, lambda t: tuple(
                self.f.load(self.type, table, self._place(step, t, part, k))
                for part in range(2)))

            def put(t, each: Point) -> None:
                write(self.f.add(k, self.f.mul(t, step.before)), each, count)

            self._combine(step, table, lambda t: self._turned(x(t), turns, t), put)

        self.span(step.before, results)

    @staticmethod
    def _turns(step: Pass, turn: Callable) -> Callable | None:
        """What gives the rotation of a point: those of a short pass are loaded at once, and stay in
        registers."""
        if step.before == 1:
            return None
        if step.radix > WRITTEN_OUT:
            return turn
        found = [turn(t) for t in range(1, step.radix)]
        return lambda t: found[t - 1]

    def _place(self, step: Pass, t: Value | int, part: int, k):
        """Where the rotation of point t of result k lies in the table."""
        first = step.table + (part * (step.radix - 1) - 1) * step.before
        return self.f.add(k, self.f.add(self.f.mul(t, step.before), first))

    def _columns(self, source: Array, base, radix: int) -> Callable[[int], Point]:
        """What gives column t of a matrix of as many rows as lanes, `radix` points each, that lies
        at `base`."""
        if radix & (radix - 1):
            return lambda t: source.column(base, t, radix)
        if radix == self.lanes:
            self.turn(source, base, self.room, 0)
            return self.room.load
        parts = []
        for pointer in (source.re, source.im):
            rows = [self.f.load(self.type, pointer, self.f.add(base, i * self.lanes))
                    for i in range(radix)]
            parts.append(unzip(self.f, rows, self.lanes))
        return lambda t: (parts[0][t], parts[1][t])

    def turn(self, source: Array, first, target: Array, to) -> None:
        """As many vectors as lanes, from element `first` on, as columns; a function of its own: it
        is long, and used more than once."""
        f, name = self.f, "turned"
        if not f.module.defines(name):
            g = f.module.function(name, [("ptr", "rows"), ("ptr", "columns")], internal=True)
            rows = [g.load(self.type, g.args["rows"], i * self.lanes) for i in range(self.lanes)]
            for i, column in enumerate(transpose(g, rows, self.lanes)):
                g.store(column, g.args["columns"], i * self.lanes)
        for a, b in ((source.re, target.re), (source.im, target.im)):
            f.call("void", name, [f.gep(a, first, self.scalar), f.gep(b, to, self.scalar)])

    def _turned(self, x: Point, turns: Callable | None, t: Value | int) -> Point:
        return x if turns is None or type(t) is int and t == 0 else self.points.mul(x, turns(t))

    def _combine(self, step: Pass, table: Value, fetch: Callable[[int], Point], put: Callable
                 ) -> None:
        """The transform of `radix` points."""
        if step.radix == LARGE:
            self.points.in_two(fetch, put, 4, 4, self.room)
        elif is_large_prime(step.radix):
            self.points.prime(fetch, put, step.radix, self.room, table, step.matrix)
        else:
            x = [fetch(t) for t in range(step.radix)]
            for t, each in enumerate(self.points.transform(x)):
                put(t, each)
