"""Transforms of a few points, as straight-line code over registers.

A point is a pair (re, im) of emitter values. All are forward: exp(-2 pi i t k / r).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from flambeau.compiler.emitter import Function, Value, lanes_of, scalar_of
from flambeau.compiler.fourier.plan import WRITTEN_OUT
from flambeau.compiler.fourier.ports import Array, Point

__all__ = ["Butterflies"]


class Butterflies:
    """Arithmetic on points in one function; `fused` says whether the target multiplies and adds in
    one instruction (which rounds once)."""

    def __init__(self, f: Function, fused: bool):
        self.f, self.fused = f, fused

    # ------------------------------------------------------------------ arithmetic
    def add(self, a: Point, b: Point) -> Point:
        return self.f.fadd(a[0], b[0]), self.f.fadd(a[1], b[1])

    def sub(self, a: Point, b: Point) -> Point:
        return self.f.fsub(a[0], b[0]), self.f.fsub(a[1], b[1])

    def mul_add(self, a: Value, b: Value | float, c: Value) -> Value:
        """a b + c."""
        f = self.f
        return f.fma(a, b, c) if self.fused else f.fadd(f.fmul(a, b), c)

    def mul_sub(self, a: Value, b: Value | float, c: Value) -> Value:
        """c - a b."""
        f = self.f
        return f.fma(f.fneg(a), b, c) if self.fused else f.fsub(c, f.fmul(a, b))

    def mul(self, a: Point, w: tuple) -> Point:
        """a w; w may be numbers."""
        f = self.f
        return (self.mul_sub(a[1], w[1], f.fmul(a[0], w[0])),
                self.mul_add(a[1], w[0], f.fmul(a[0], w[1])))

    def scale(self, a: Point, factor: Value | float) -> Point:
        return self.f.fmul(a[0], factor), self.f.fmul(a[1], factor)

    def over_i(self, a: Point) -> Point:
        """-i a."""
        return a[1], self.f.fneg(a[0])

    def turn(self, a: Point, k: int, n: int) -> Point:
        """a exp(-2 pi i k / n)."""
        k %= n
        if 8 * k % n == 0:
            eighths = 8 * k // n
            if eighths % 2:
                a = self._eighth(a)
            for _ in range(eighths // 2):
                a = self.over_i(a)
            return a
        angle = 2 * math.pi * k / n
        return self.mul(a, (math.cos(angle), -math.sin(angle)))

    def _eighth(self, a: Point) -> Point:
        f, half = self.f, math.sqrt(0.5)
        return (f.fmul(f.fadd(a[0], a[1]), half), f.fmul(f.fsub(a[1], a[0]), half))

    # ------------------------------------------------------------------ transforms
    def transform(self, x: Sequence[Point]) -> list[Point]:
        """The transform of len(x) points, a prime or a product of small ones."""
        n = len(x)
        if n == 1:
            return list(x)
        if n == 2:
            return [self.add(x[0], x[1]), self.sub(x[0], x[1])]
        if n == 4:
            return self._four(x)
        small = next((p for p in (4, 2, 3, 5, 7) if n % p == 0 and n > p), None)
        return self._odd(x) if small is None else self._composite(x, small, n // small)

    def in_two(self, fetch: Callable[[int], Point], put: Callable[[int, Point], None], a: int,
               b: int, room: Array) -> None:
        """`transform` of a b points, which `fetch` brings and `put` takes, with a memory for what
        is between its halves: registers would not hold it, and allotting them takes LLVM long."""
        for t in range(b):
            for k, each in enumerate(self.transform([fetch(t + b * i) for i in range(a)])):
                room.store(k * b + t, self.turn(each, k * t, a * b))
        for k in range(a):
            row = [room.load(k * b + t) for t in range(b)]
            for i, each in enumerate(self.transform(row)):
                put(k + a * i, each)

    def prime(self, fetch: Callable[[int], Point], put: Callable, n: int, room: Array,
              table: Value, start: int) -> None:
        """`transform` of n points, a large prime, by a loop over pairs of results; the table holds
        cosines and sines from `start` on. `put` takes numbers known only there."""
        f, half = self.f, n // 2
        if n > WRITTEN_OUT:
            self._long_prime(fetch, put, n, room, table, start)
            return
        total = first = fetch(0)
        for t in range(1, half + 1):
            a, b = fetch(t), fetch(n - t)
            both = self.add(a, b)
            total = self.add(total, both)
            room.store(2 * t, both)
            room.store(2 * t + 1, self.sub(a, b))
        room.store(0, first)
        put(0, total)
        zero = f.const(0, first[0].type)
        scalar, lanes = scalar_of(zero.type), lanes_of(zero.type)
        with f.loop(0, half) as k:
            even, odd = room.load(0), (zero, zero)
            for t in range(1, half + 1):
                place = f.add(f.mul(k, 2 * half), start + 2 * (t - 1))
                c, s = (f.splat(f.load(scalar, table, f.add(place, part)), lanes)
                        for part in range(2))
                both, gap = room.load(2 * t), room.load(2 * t + 1)
                even = self.mul_add(both[0], c, even[0]), self.mul_add(both[1], c, even[1])
                odd = self.mul_add(gap[0], s, odd[0]), self.mul_add(gap[1], s, odd[1])
            put(f.add(k, 1), (f.fadd(even[0], odd[1]), f.fsub(even[1], odd[0])))
            put(f.sub(n - 1, k), (f.fsub(even[0], odd[1]), f.fadd(even[1], odd[0])))

    def _long_prime(self, fetch: Callable[[Value | int], Point], put: Callable, n: int,
                    room: Array, table: Value, start: int) -> None:
        """`prime` whose sums are loops, too. `fetch` takes numbers known only there."""
        f, half = self.f, n // 2
        first = fetch(0)
        room.store(0, first)
        kind = first[0].type
        scalar, lanes = scalar_of(kind), lanes_of(kind)
        total = [f.var(kind, part) for part in first]
        with f.loop(1, half + 1) as t:
            a, b = fetch(t), fetch(f.sub(n, t))
            both, place = self.add(a, b), f.mul(t, 2)
            for part, more in zip(total, both, strict=True):
                part.set(f.fadd(part.get(), more))
            room.store(place, both)
            room.store(f.add(place, 1), self.sub(a, b))
        put(0, tuple(part.get() for part in total))
        with f.loop(0, half) as k:
            even = [f.var(kind, part) for part in room.load(0)]
            odd = [f.var(kind, 0.0) for _ in range(2)]
            row = f.add(f.mul(k, 2 * half), start)
            with f.loop(0, half) as t:
                place = f.add(f.mul(t, 2), 2)
                both, gap = room.load(place), room.load(f.add(place, 1))
                at = f.add(row, f.mul(t, 2))
                c, s = (f.splat(f.load(scalar, table, f.add(at, part)), lanes)
                        for part in range(2))
                for sums, x, factor in ((even, both, c), (odd, gap, s)):
                    for total_, part in zip(sums, x, strict=True):
                        total_.set(self.mul_add(part, factor, total_.get()))
            (re, im), (down, up) = ([part.get() for part in sums] for sums in (even, odd))
            put(f.add(k, 1), (f.fadd(re, up), f.fsub(im, down)))
            put(f.sub(n - 1, k), (f.fsub(re, up), f.fadd(im, down)))

    def _four(self, x: Sequence[Point]) -> list[Point]:
        a, b = self.add(x[0], x[2]), self.sub(x[0], x[2])
        c, d = self.add(x[1], x[3]), self.sub(x[1], x[3])
        f = self.f
        return [self.add(a, c), (f.fadd(b[0], d[1]), f.fsub(b[1], d[0])),
                self.sub(a, c), (f.fsub(b[0], d[1]), f.fadd(b[1], d[0]))]

    def _composite(self, x: Sequence[Point], a: int, b: int) -> list[Point]:
        """a b points: transforms of a points, rotations, transforms of b points."""
        columns = [self.transform(x[t::b]) for t in range(b)]
        result: list = [None] * (a * b)
        for k in range(a):
            row = self.transform([self.turn(columns[t][k], k * t, a * b) for t in range(b)])
            result[k::a] = row
        return result

    def _odd(self, x: Sequence[Point]) -> list[Point]:
        """An odd prime: points that are mirror images of one another share their products."""
        n, f = len(x), self.f
        half = range(1, n // 2 + 1)
        sums = [self.add(x[t], x[n - t]) for t in half]
        gaps = [self.sub(x[t], x[n - t]) for t in half]
        first = x[0]
        for each in sums:
            first = self.add(first, each)
        result: list = [first] + [None] * (n - 1)
        for k in half:
            even, odd = x[0], None
            for t, both, gap in zip(half, sums, gaps, strict=True):
                angle = 2 * math.pi * (k * t % n) / n
                c, s = math.cos(angle), math.sin(angle)
                even = self.mul_add(both[0], c, even[0]), self.mul_add(both[1], c, even[1])
                odd = self.scale(gap, s) if odd is None else (
                    self.mul_add(gap[0], s, odd[0]), self.mul_add(gap[1], s, odd[1]))
            result[k] = f.fadd(even[0], odd[1]), f.fsub(even[1], odd[0])
            result[n - k] = f.fsub(even[0], odd[1]), f.fadd(even[1], odd[0])
        return result
