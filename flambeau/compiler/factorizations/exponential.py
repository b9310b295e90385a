"""The exponential of a matrix: Pade's approximation of a scaled matrix, squared again and again.

N. J. Higham, "The scaling and squaring method for the matrix exponential revisited" (2005): degree
13 in double precision, degree 7 in single, on matrices scaled to a norm of at most THETA.
"""

from __future__ import annotations

import math

from flambeau.compiler.emitter import Value
from flambeau.compiler.factorizations.room import Room, Routine, Task, plain

__all__ = ["EXPONENTIAL"]

THETA = {"float": (7, 3.925724783138660), "double": (13, 5.371920351148152)}
MOST_HALVINGS = 1100  # what takes the largest double below THETA


def pade(degree: int) -> list[float]:
    """The coefficients of the numerator of exp's diagonal Pade approximation, without its common
    factor: those of the denominator have alternating signs."""
    return [float(math.factorial(2 * degree - j) // (
        math.factorial(degree - j) * math.factorial(j))) for j in range(degree + 1)]


def _exponential(room: Room) -> None:
    """A row-major matrix is its transpose, and so is its exponential."""
    f, n, target = room.f, room.size("n"), room.result(0)
    count = f.mul(n, n)
    degree, theta = THETA[room.real]
    b = pade(degree)
    scaled, two, four, six, odd, even, other = (room.region(name) for name in (
        "scaled", "two", "four", "six", "odd", "even", "other"))
    halvings = _scale(room, scaled, theta)
    for powers in ((two, scaled, scaled), (four, two, two), (six, four, two)):
        _product(room, *powers)
    low_odd = [(b[3], two), (b[5], four), (b[7], six)]
    low_even = [(b[2], two), (b[4], four), (b[6], six)]
    if degree == 13:
        _combine(room, other, [(b[9], two), (b[11], four), (b[13], six)])
        _product(room, odd, six, other)
        _combine(room, other, [(1.0, odd), *low_odd], b[1])
        _product(room, odd, scaled, other)
        _combine(room, other, [(b[8], two), (b[10], four), (b[12], six)])
        _product(room, even, six, other)
        _combine(room, even, [(1.0, even), *low_even], b[0])
    else:
        _combine(room, other, low_odd, b[1])
        _product(room, odd, scaled, other)
        _combine(room, even, low_even, b[0])
    _combine(room, two, [(1.0, even), (-1.0, odd)])
    _combine(room, target, [(1.0, even), (1.0, odd)])
    room.call("gesv", room.int(n), room.int(n), two, room.pitch(n), room.region("ipiv"), target,
              room.pitch(n), room.int(0))
    with f.loop(0, halvings):
        _product(room, odd, target, target)
        with f.loop(0, count) as i:
            room.store(room.load(odd, i), target, i)


def _scale(room: Room, scaled: Value, theta: float) -> Value:
    """A / 2^s in `scaled`, with a norm of at most theta; gives s."""
    f, n, norm, halvings = room.f, room.size("n"), room.f.var(room.real), room.f.var("i64")
    factor = f.var(room.real)
    norm.set(0.0)
    halvings.set(0)
    factor.set(1.0)
    source, pitch = room.source(0), room.rows(0)
    with f.loop(0, n) as i:
        total, row = f.var(room.real), room.at(source, f.mul(i, pitch))
        total.set(0.0)
        with f.loop(0, f.mul(n, room.parts)) as j:
            size = f.intrinsic("llvm.fabs", room.real, f.load(room.real, row, j))
            total.set(f.fadd(total.get(), size))
        more = f.cmp("ogt", total.get(), norm.get())
        norm.set(f.select(more, total.get(), norm.get()))
    finite = f.cmp("olt", norm.get(), float("inf"))
    norm.set(f.select(finite, norm.get(), f.const(0.0, room.real)))
    with f.loop(0, MOST_HALVINGS), f.when(f.cmp("ogt", norm.get(), theta)):
        norm.set(f.fmul(norm.get(), 0.5))
        factor.set(f.fmul(factor.get(), 0.5))
        halvings.set(f.add(halvings.get(), 1))
    by = f.splat(factor.get(), room.parts)
    with f.loop(0, n) as i:
        row, to = room.at(source, f.mul(i, pitch)), room.at(scaled, f.mul(i, n))
        with f.loop(0, n) as j:
            room.store(f.fmul(room.load(row, j), by), to, j)
    return halvings.get()


def _combine(room: Room, target: Value, terms: list[tuple[float, Value]], identity: float = 0.0
             ) -> None:
    """target = the sum of factors times matrices, and of a multiple of the identity."""
    f, n = room.f, room.size("n")
    with f.loop(0, f.mul(n, n)) as i:
        total = None
        for factor, matrix in terms:
            term = f.fmul(room.load(matrix, i), f.const(factor, room.element))
            total = term if total is None else f.fadd(total, term)
        room.store(total, target, i)
    if identity:
        with f.loop(0, n) as i:
            place = f.mul(i, f.add(n, 1))
            room.store(f.fadd(room.load(target, place), room.number(identity)), target, place)


def _product(room: Room, target: Value, a: Value, b: Value) -> None:
    """target = a b; all of them commute, so that the order of storage does not matter."""
    n = room.size("n")
    size, pitch = room.int(n), room.pitch(n)
    one, zero = room.box(room.number(1.0)), room.box(room.number(0.0))
    room.call("gemm", "N", "N", size, size, size, one, a, pitch, b, pitch, zero, target, pitch)


def _sizes(shapes) -> dict[str, int]:
    return {"n": shapes[0][-1]}


def _regions(task: Task, sizes: dict[str, int]) -> dict[str, int]:
    square = sizes["n"] ** 2
    names = ("scaled", "two", "four", "six", "odd", "even", "other")
    return dict.fromkeys(names, square) | {"ipiv": sizes["n"] + 1}


def _work(sizes: dict[str, int]) -> int:
    return 16 * sizes["n"] ** 3


EXPONENTIAL = {"exponential": Routine(plain("gemm", "gesv"), _sizes, _regions, _exponential,
                                      _work)}
