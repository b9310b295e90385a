"""Where points of a transform are: in the user's memory (`Port`), or in a workspace (`Array`).

Vectors hold neighbouring points of one row, or one point of neighbouring rows: an index `e` counts
points either way, and `count` says how many lanes there are, None for all.
"""

from __future__ import annotations

from flambeau.compiler.emitter import Function, Value, scalar_of, vector

__all__ = ["Array", "Point", "Port", "interleave", "pair_up", "transpose", "unzip"]

Point = tuple[Value, Value]

_BYTES = {"float": 4, "double": 8}


def pair_up(f: Function, low: Value, high: Value, lanes: int) -> Point:
    """Two vectors of (re, im, re, im ...) as the vectors of the real and imaginary parts."""
    return (f.shuffle(low, high, range(0, 2 * lanes, 2)),
            f.shuffle(low, high, range(1, 2 * lanes, 2)))


def interleave(f: Function, a: Point, lanes: int) -> tuple[Value, Value]:
    """Undoes `pair_up`."""
    order = [lane + part * lanes for lane in range(lanes) for part in range(2)]
    return f.shuffle(*a, order[:lanes]), f.shuffle(*a, order[lanes:])


def unzip(f: Function, vectors: list[Value], lanes: int) -> list[Value]:
    """c vectors, c a power of 2, that hold rows of c elements one after another, as its columns."""
    if len(vectors) == 1:
        return vectors
    pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
    halves = [unzip(f, [f.shuffle(a, b, range(part, 2 * lanes, 2)) for a, b in pairs], lanes)
              for part in range(2)]
    return [column for both in zip(*halves, strict=True) for column in both]


def transpose(f: Function, rows: list[Value], lanes: int) -> list[Value]:
    """As many vectors as lanes, as the columns: by 128-bit blocks, as instructions have it."""
    size = 128 // (8 * _BYTES[scalar_of(rows[0].type)])  # elements of a block

    def shuffled(a: Value, b: Value, block: list[int]) -> Value:
        """The same choice in each block; numbers from `size` on are those of b."""
        return f.shuffle(a, b, [i % size + start + (lanes if i >= size else 0)
                                for start in range(0, lanes, size) for i in block])

    width = 1  # elements that stay together
    while width < size:
        low = [i for first in range(0, size // 2, width)
               for i in (*range(first, first + width), *range(size + first, size + first + width))]
        high = [i + size // 2 for i in low]
        made = list(rows)
        for i in range(lanes):
            if not i & width:
                made[i] = shuffled(rows[i], rows[i + width], low)
                made[i + width] = shuffled(rows[i], rows[i + width], high)
        rows = made if width == 1 else _in_order(made, size)
        width *= 2
    return _blocks_transposed(f, rows, lanes, size)


def _in_order(rows: list[Value], size: int) -> list[Value]:
    """After the second step of four: columns 0, 2, 1, 3 of each group."""
    return [rows[first + place] for first in range(0, len(rows), size) for place in (0, 2, 1, 3)]


def _blocks_transposed(f: Function, rows: list[Value], lanes: int, size: int) -> list[Value]:
    """Row i + size k holds rows of columns i, i + size ... in its blocks: gather each column."""
    count = lanes // size
    result: list = [None] * lanes
    for i in range(size):
        group = rows[i::size]
        span = 1
        while span < count:  # each step halves how many blocks of a column are elsewhere
            order = [[block * size + e for block in range(part, 2 * count, 2)
                      for e in range(size)] for part in range(2)]
            group = [f.shuffle(a, b, each) for each in order
                     for a, b in zip(group[::2], group[1::2], strict=True)]
            span *= 2
        result[i::size] = group
    return result


class Array:
    """Points in a workspace, real and imaginary parts apart; `width` elements a point (the lanes,
    if they are rows). There is room for a vector before and behind."""

    def __init__(self, f: Function, re: Value, im: Value, lanes: int, scalar: str, width: int):
        self.f, self.re, self.im = f, re, im
        self.lanes, self.type, self.width = lanes, vector(lanes, scalar), width

    @staticmethod
    def elements(points: int, lanes: int, width: int) -> int:
        """Elements of the workspace that an array takes."""
        return 2 * (-(-points * width // lanes) + 2) * lanes

    @staticmethod
    def at(f: Function, base: Value, start: int, points: int, lanes: int, scalar: str, width: int
           ) -> Array:
        """The array that begins `start` elements into a workspace."""
        half = Array.elements(points, lanes, width) // 2
        re, im = (f.gep(base, start + lanes + part * half, scalar) for part in range(2))
        return Array(f, re, im, lanes, scalar, width)

    def load(self, e, count: int | None = None) -> Point:
        e = self.f.mul(e, self.width)
        return self.f.load(self.type, self.re, e), self.f.load(self.type, self.im, e)

    def store(self, e, a: Point, count: int | None = None) -> None:
        f = self.f
        e = f.mul(e, self.width)
        for pointer, value in zip((self.re, self.im), a, strict=True):
            if count is None:
                f.store(value, pointer, e)
            else:
                f.masked_store(value, pointer, f.lane_mask(self.lanes, count), e)

    def mirrored(self, total: int, e, count: int | None = None) -> Point:
        """Point total - e, in each lane."""
        f = self.f
        if self.width > 1:
            return self.load(f.sub(total, e))
        back = range(self.lanes - 1, -1, -1)
        return tuple(f.shuffle(part, None, back)
                     for part in self.load(f.sub(total - self.lanes + 1, e)))

    def column(self, e, t: int, size: int) -> Point:
        """Points e + size lane + t."""
        f, lanes = self.f, self.lanes
        places = f.add(f.splat(f.typed(f.add(e, t), "i64"), lanes),
                       f.mul(f.iota(lanes), f.const(size, vector(lanes, "i64"))))
        mask = f.const(True, vector(lanes, "i1"))
        return tuple(f.gather(self.type, f.gep(base, places, scalar_of(self.type)), mask)
                     for base in (self.re, self.im))


class Port:
    """Points in the user's memory.

    Attributes:
        re, im: addresses of point 0 (of lane 0); im is None for reals.
        step: elements from one point to the next.
        lane: elements from one lane to the next, if lanes are rows, else None.
        flavour: "unit" (lanes are neighbours), "pair" (lanes are neighbours, and imaginary parts
            lie behind real ones), "any".
        swap: exchange the parts.
        present: how many lanes there are, if they are rows.
    """

    def __init__(self, f: Function, re: Value, im: Value | None, step: Value, lane: Value | None,
                 flavour: str, lanes: int, scalar: str, swap: bool = False,
                 present: Value | None = None):
        self.f, self.re, self.im, self.step, self.lane = f, re, im, step, lane
        self.flavour, self.lanes, self.scalar, self.swap = flavour, lanes, scalar, swap
        self.type, self.present = vector(lanes, scalar), present

    def _count(self, count: int | None) -> Value | int | None:
        """How many lanes there are; None: all."""
        return count if self.lane is None else self.present

    def _start(self, pointer: Value, e) -> Value:
        return self.f.gep(pointer, self.f.mul(e, self.step), self.scalar)

    def load(self, e, count: int | None = None) -> Point:
        f, count = self.f, self._count(count)
        if self.flavour == "pair":
            start = self._start(self.re, e)
            low = self._vector(start, count)
            high = self._vector(f.gep(start, self.lanes, self.scalar), count, self.lanes)
            a = pair_up(f, low, high, self.lanes)
        else:
            read = self._vector if self.flavour == "unit" else self._gathered
            re = read(self._start(self.re, e), count)
            a = re, (f.const(0, self.type) if self.im is None
                     else read(self._start(self.im, e), count))
        return a[::-1] if self.swap else a

    def store(self, e, a: Point, count: int | None = None) -> None:
        f, count = self.f, self._count(count)
        if self.swap:
            a = a[::-1]
        if self.flavour == "pair":
            start = self._start(self.re, e)
            low, high = interleave(f, a, self.lanes)
            self._put(low, start, count)
            self._put(high, f.gep(start, self.lanes, self.scalar), count, self.lanes)
            return
        put = self._put if self.flavour == "unit" else self._scattered
        put(a[0], self._start(self.re, e), count)
        if self.im is not None:
            put(a[1], self._start(self.im, e), count)

    # ------------------------------------------------------------------ vectors
    def _mask(self, count, behind: int | None) -> Value | None:
        """Lanes that are there; of a "pair" there are twice as many elements, of which `behind` are
        in the vector before."""
        f = self.f
        if count is None:
            return None
        if self.flavour == "pair":
            count = f.sub(f.mul(count, 2), behind or 0)
        return f.lane_mask(self.lanes, count)

    def _vector(self, start: Value, count, behind: int | None = None) -> Value:
        mask = self._mask(count, behind)
        if mask is None:
            return self.f.load(self.type, start, align=_BYTES[self.scalar])
        return self.f.masked_load(self.type, start, mask)

    def _put(self, value: Value, start: Value, count, behind: int | None = None) -> None:
        mask = self._mask(count, behind)
        if mask is None:
            self.f.store(value, start, align=_BYTES[self.scalar])
        else:
            self.f.masked_store(value, start, mask)

    def _places(self, start: Value) -> Value:
        f, lanes = self.f, self.lanes
        between = self.step if self.lane is None else self.lane
        return f.gep(start, f.mul(f.iota(lanes), f.splat(f.typed(between, "i64"), lanes)),
                     self.scalar)

    def _all(self, count) -> Value:
        if count is None:
            return self.f.const(True, vector(self.lanes, "i1"))
        return self.f.lane_mask(self.lanes, count)

    def _gathered(self, start: Value, count) -> Value:
        return self.f.gather(self.type, self._places(start), self._all(count))

    def _scattered(self, value: Value, start: Value, count) -> None:
        self.f.scatter(value, self._places(start), self._all(count))
