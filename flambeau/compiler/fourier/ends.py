"""What comes before and after the passes: reals as half as many points, and lengths with large
primes as convolutions with a chirp.

Reals x of even length n are the points z[e] = x[2e] + i x[2e + 1]; of the transform Z of z,

    X[k] = E[k] + w(n)^k O[k],   2 E[k] = Z[k] + conj Z[h - k],   2 i O[k] = Z[k] - conj Z[h - k]

where h = n / 2 and Z[h] is Z[0]. The way back solves this for Z.
"""

from __future__ import annotations

from collections.abc import Callable

from flambeau.compiler.emitter import Value
from flambeau.compiler.fourier.passes import Passes, Reader, Writer
from flambeau.compiler.fourier.plan import chirp_size, is_smooth
from flambeau.compiler.fourier.ports import Array

__all__ = ["Ends"]


class Ends:
    """Emits one transform, ends and all, from a reader to a writer.

    Args:
        table: rotations of the passes. `ends`: those of the two ends: `halves` or chirps, in this
            order if there are both.
        arrays: four; the last one may hold what is read and what is written.
        transform_apart: emits the call of a transform of the last one, in place.
    """

    def __init__(self, passes: Passes, spec, table: Value, ends: Value, arrays: list[Array],
                 transform_apart: Callable[[int], None]):
        self.passes, self.f, self.points = passes, passes.f, passes.points
        self.spec, self.table, self.ends, self.arrays = spec, table, ends, arrays
        self.transform_apart = transform_apart
        self.n, self.lanes = spec.n, passes.lanes
        self.even = spec.n % 2 == 0

    def run(self, read: Reader, write: Writer) -> None:
        rule = {"c2c": self._complex, "r2c": self._from_reals, "c2r": self._to_reals}
        rule[self.spec.kind](read, write)

    def _complex(self, read: Reader, write: Writer) -> None:
        self._transform(self.n, read, write)

    # ------------------------------------------------------------------ reals
    def _from_reals(self, read: Reader, write: Writer) -> None:
        made, h = self.arrays[2], self.n // 2
        if not self.even:
            self._transform(self.n, read, made.store)
            self.passes.span(h + 1, lambda e, count: write(e, made.load(e), count))
            return
        self._transform(h, read, made.store)
        self._repeat_first(made, h)
        points, f = self.points, self.f

        def result(k, count) -> None:
            a, b = made.load(k), made.mirrored(h, k)
            even = f.fadd(a[0], b[0]), f.fsub(a[1], b[1])
            odd = f.fadd(a[1], b[1]), f.fsub(b[0], a[0])
            turned = points.mul(odd, self._half_turn(k))
            write(k, points.scale(points.add(even, turned), 0.5), count)

        self.passes.span(h + 1, result)

    def _repeat_first(self, made: Array, h: int) -> None:
        """Let point h be point 0."""
        f, first = self.f, made.load(0)
        if self.passes.across:
            made.store(h, first)
            return
        for pointer, value in zip((made.re, made.im), first, strict=True):
            f.store(f.extract(value, 0), pointer, h)

    def _half_turn(self, k):
        return self.passes.factor(self.ends, self.n // 2 + 1 + self.lanes, k)

    def _to_reals(self, read: Reader, write: Writer) -> None:
        """The exponent is positive: by exchanging parts before and after. A forward one has
        conjugates for points, whose sign `im_scale` of the source brings."""
        given, h = self.arrays[2], self.n // 2
        f, points, sign = self.f, self.points, -1 if not self.spec.backward else 1

        def take(k, count) -> None:
            re, im = read(k, count)
            given.store(k, (re, f.fneg(im) if sign < 0 else im))

        self.passes.span(h + 1, take)
        self._forget_imaginary(given, 0)
        if not self.even:
            self._odd_reals(given, write)
            return
        self._forget_imaginary(given, h)

        def point(k, count):
            a, b = given.load(k), given.mirrored(h, k)
            even = f.fadd(a[0], b[0]), f.fsub(a[1], b[1])
            gap = f.fsub(a[0], b[0]), f.fadd(a[1], b[1])
            re, im = self._half_turn(k)
            odd = points.mul(gap, (re, f.fneg(im)))
            return f.fadd(even[1], odd[0]), f.fsub(even[0], odd[1])  # exchanged: E + i O

        self._transform(h, point, lambda e, a, count: write(e, a[::-1], count))

    def _odd_reals(self, given: Array, write: Writer) -> None:
        n, h, whole = self.n, self.n // 2, self.arrays[3]
        f = self.f
        self.passes.span(h + 1, lambda e, count: whole.store(e, given.load(e)[::-1], count))

        def mirror(e, count) -> None:
            re, im = given.mirrored(h, e)
            whole.store(f.add(e, h + 1), (f.fneg(im), re), count)

        self.passes.span(n - h - 1, mirror)
        self._transform(n, whole.load, lambda e, a, count: write(e, a[::-1], count))

    def _forget_imaginary(self, given: Array, place: int) -> None:
        f, passes = self.f, self.passes
        if passes.across:
            f.store(f.const(0, passes.type), given.im, place * passes.width)
        else:
            f.store(f.const(0, passes.scalar), given.im, place)

    # ------------------------------------------------------------------ chirps
    def _transform(self, n: int, read: Reader, write: Writer) -> None:
        """The transform of n points behind it all."""
        stages = self.arrays[0], self.arrays[1]
        if is_smooth(n):
            self.passes.run(n, self.table, read, write, stages)
            return
        m = chirp_size(n)
        start = 2 * (self.n // 2 + 1 + self.lanes) if self.spec.kind != "c2c" and self.even else 0
        spectrum = start + 2 * (n + self.lanes)
        passes, points, f = self.passes, self.points, self.f

        def chirp(e):
            return passes.factor(self.ends, n + self.lanes, e, start)

        zero = f.const(0, passes.type)
        padded = self.arrays[3]
        passes.span(n, lambda e, count: stages[0].store(
            e, points.mul(read(e, count), chirp(e)), count))  # what is read may lie in `padded`
        passes.span(m, lambda e, count: padded.store(e, (zero, zero), count))
        passes.span(n, lambda e, count: padded.store(e, stages[0].load(e), count))

        def filtered(e, count) -> None:
            factor = passes.factor(self.ends, m + self.lanes, e, spectrum)
            padded.store(e, points.mul(padded.load(e), factor)[::-1], count)

        self.transform_apart(m)
        passes.span(m, filtered)
        self.transform_apart(m)
        passes.span(n, lambda e, count: write(
            e, points.mul(padded.load(e)[::-1], chirp(e)), count))
