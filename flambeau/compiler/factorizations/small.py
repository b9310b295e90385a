"""LU of small matrices, without LAPACK, whose calls would take longer than the work.

The matrix M lies row-major. What is factored is its transpose, by rows of M: columns are exchanged
so that the largest element of a row comes first, and M becomes two triangles, the upper one with a
diagonal of ones. That is, column-major, just what LAPACK's getrf leaves of the transpose.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from flambeau.compiler.emitter import Value, vector
from flambeau.compiler.factorizations.room import Room

__all__ = ["LARGEST", "either", "small_identity", "small_lu", "small_solve"]

LARGEST = 32  # rows from which on LAPACK is faster


@contextlib.contextmanager
def either(room: Room, n: Value) -> Iterator:
    """if (the matrix is small) { ... } else { ... }; call what is yielded where the else begins."""
    f = room.f
    with f.when_else(f.cmp("sle", n, LARGEST)) as otherwise:
        yield otherwise


def _subtract(room: Room, row: Value, factor: Value, other: Value, start, stop) -> None:
    """row[start:stop] -= factor * other[start:stop]"""
    f, lanes = room.f, room.lanes
    wide = vector(lanes, room.real)
    factors = f.splat(f.fneg(factor), lanes)
    with f.loop(start, stop, lanes) as j:
        inside = f.lane_mask(lanes, f.sub(stop, j))
        x = f.masked_load(wide, row, inside, 0.0, j)
        y = f.masked_load(wide, other, inside, 0.0, j)
        f.masked_store(f.fma(factors, y, x), row, inside, j)


def _divide(room: Room, row: Value, by: Value, start, stop) -> None:
    """row[start:stop] /= by"""
    f, lanes = room.f, room.lanes
    wide, divisor = vector(lanes, room.real), f.splat(by, lanes)
    with f.loop(start, stop, lanes) as j:
        inside = f.lane_mask(lanes, f.sub(stop, j))
        x = f.masked_load(wide, row, inside, 1.0, j)
        f.masked_store(f.fdiv(x, divisor), row, inside, j)


def _swap(room: Room, a: Value, b: Value, count, step) -> None:
    """Exchange count elements, step apart, from a and from b."""
    f = room.f
    with f.loop(0, count) as i:
        place = f.mul(i, step)
        x, y = f.load(room.real, a, place), f.load(room.real, b, place)
        f.store(y, a, place)
        f.store(x, b, place)


def small_lu(room: Room, matrix: Value, n: Value, pivots: Value, info: Value) -> None:
    """Factor the (n, n) matrix in place; `pivots`: int32, counted from 1."""
    f, real = room.f, room.real
    best, place = f.var(real), f.var("i64")
    with f.loop(0, n) as k:
        row = room.at(matrix, f.mul(k, n))
        best.set(0.0)
        place.set(k)
        with f.loop(k, n) as j:
            size = f.intrinsic("llvm.fabs", real, f.load(real, row, j))
            more = f.cmp("ogt", size, best.get())
            best.set(f.select(more, size, best.get()))
            place.set(f.select(more, j, place.get()))
        found, after = place.get(), f.add(k, 1)
        f.store(f.cast("trunc", f.add(found, 1), "i32"), pivots, k)
        with f.when(f.cmp("ne", found, k)):
            _swap(room, room.at(matrix, k), room.at(matrix, found), n, n)
        pivot = f.load(real, row, k)
        with f.when_else(f.cmp("une", pivot, 0.0)) as otherwise:
            _divide(room, row, pivot, after, n)
            otherwise()
            known = f.load("i32", info)
            first = f.cast("trunc", after, "i32")
            f.store(f.select(f.cmp("eq", known, 0), first, known), info)
        with f.loop(after, n) as i:
            below = room.at(matrix, f.mul(i, n))
            _subtract(room, below, f.load(real, below, k), row, after, n)


def small_solve(room: Room, matrix: Value, pitch: Value, n: Value, pivots: Value, x: Value,
                count: Value, transpose: bool) -> None:
    """Solve A X = B, or A^T X = B, in place: X (n, count) holds B. `matrix`: what `small_lu` has
    left of A."""
    f = room.f

    def factor(i: Value, j: Value) -> Value:
        place = f.add(f.mul(j, pitch), i) if transpose else f.add(f.mul(i, pitch), j)
        return f.load(room.real, matrix, place)

    def eliminate(i: Value, start, stop, unit: bool) -> None:
        row = room.at(x, f.mul(i, count))
        with f.loop(start, stop) as j:
            _subtract(room, row, factor(i, j), room.at(x, f.mul(j, count)), 0, count)
        if not unit:
            _divide(room, row, factor(i, i), 0, count)

    def exchange(i: Value) -> None:
        other = f.sub(f.cast("sext", f.load("i32", pivots, i), "i64"), 1)
        other = f.smax(f.smin(other, f.sub(n, 1)), 0)
        with f.when(f.cmp("ne", other, i)):
            _swap(room, room.at(x, f.mul(i, count)), room.at(x, f.mul(other, count)), count, 1)

    if transpose:
        with f.loop(0, n) as i:
            exchange(i)
    with f.loop(0, n) as i:
        eliminate(i, 0, i, transpose)
    with f.loop(0, n) as back:
        i = f.sub(f.sub(n, 1), back)
        eliminate(i, f.add(i, 1), n, not transpose)
    if not transpose:
        with f.loop(0, n) as back:
            exchange(f.sub(f.sub(n, 1), back))


def small_identity(room: Room, target: Value, n: Value) -> None:
    """Ones on the diagonal of an (n, n) matrix, zeros elsewhere."""
    f = room.f
    with f.loop(0, f.mul(n, n)) as i:
        f.store(f.const(0.0, room.real), target, i)
    with f.loop(0, n) as i:
        f.store(f.const(1.0, room.real), target, f.mul(i, f.add(n, 1)))
