"""Triangular systems, and the factorizations that lead to them: Cholesky, LU, LDL, QR.

Names of sizes: a matrix has `m` rows and `n` columns, right-hand sides have `k` columns.
"""

from __future__ import annotations

from flambeau.compiler.factorizations.room import Room, Routine, Task, plain
from flambeau.compiler.factorizations.small import (
    LARGEST,
    either,
    small_identity,
    small_lu,
    small_solve,
)

__all__ = ["TRIANGULAR"]

BLOCK = 64  # columns that blocked routines work on at a time: LAPACK's block sizes are no larger


def _square(shapes) -> dict[str, int]:
    return {"n": shapes[0][-1]}


def _matrix(shapes) -> dict[str, int]:
    return {"m": shapes[0][-2], "n": shapes[0][-1], "k": min(shapes[0][-2:])}


def _nothing(task: Task, sizes: dict[str, int]) -> dict[str, int]:
    return {}


def _cubed(sizes: dict[str, int]) -> int:
    return sizes["n"] ** 3


# ---------------------------------------------------------------------- Cholesky
def _cholesky(room: Room) -> None:
    """Row-major, the lower triangle of A is the upper one of conj(A), whose factor is L, read
    row-major."""
    n, upper = room.size("n"), room.task.has("upper")
    target = room.result(0)
    room.copy(room.source(0), room.rows(0), n, n, target, n)
    room.keep(target, n, n, n, upper)
    with room.info() as info:
        room.call("potrf", "L" if upper else "U", room.int(n), target, room.pitch(n), info)
        _find_unordered(room, target, n, info)


def _find_unordered(room: Room, target, n, info) -> None:
    """Not every library takes note of NaN on the diagonal."""
    f = room.f
    with f.when(f.cmp("eq", f.load("i32", info), 0)), f.loop(0, n) as back:
        i = f.sub(f.sub(n, 1), back)
        item = f.load(room.real, room.at(target, f.mul(i, f.add(n, 1))))
        with f.when(f.cmp("uno", item, item)):
            f.store(f.cast("trunc", f.add(i, 1), "i32"), info)


def _cholesky_solve(room: Room) -> None:
    """Read row-major, L is the factor U of conj(A)."""
    n, k, b = room.size("n"), room.size("k"), room.region("b")
    room.turn(room.source(1), room.rows(1), n, k, b, n)
    room.call("potrs", "L" if room.task.has("upper") else "U", room.int(n), room.int(k),
              room.source(0), room.pitch(room.rows(0)), b, room.pitch(n), room.int(0))
    room.turn(b, n, k, n, room.result(0), k)


def _definite_sizes(shapes) -> dict[str, int]:
    return {"n": shapes[0][-1], "k": shapes[1][-1]}


def _definite_regions(task: Task, sizes: dict[str, int]) -> dict[str, int]:
    return {"b": sizes["n"] * sizes["k"]}


# ---------------------------------------------------------------------- triangular systems
def _triangular_sizes(shapes) -> dict[str, int]:
    return {"n": shapes[0][-1], "m": shapes[1][-2], "k": shapes[1][-1]}


def _triangular(room: Room) -> None:
    """Read row-major, everything is transposed: the other side, the other triangle."""
    task, m, k = room.task, room.size("m"), room.size("k")
    target = room.result(0)
    room.copy(room.source(1), room.rows(1), m, k, target, k)
    room.call("trsm", "R" if task.has("left") else "L", "L" if task.has("upper") else "U",
              "C" if task.has("adjoint") else "N", "U" if task.has("unit") else "N",
              room.int(k), room.int(m), room.box(room.number(1)), room.source(0),
              room.pitch(room.rows(0)), target, room.pitch(k))


def _triangular_work(sizes: dict[str, int]) -> int:
    return sizes["n"] * sizes["m"] * sizes["k"]


# ---------------------------------------------------------------------- LU
def _lu(room: Room) -> None:
    m, n, k = room.size("m"), room.size("n"), room.size("k")
    a, pivots = room.region("a"), room.region("ipiv")
    room.turn(room.source(0), room.rows(0), m, n, a, m)
    with room.info() as info:
        room.call("getrf", room.int(m), room.int(n), a, room.pitch(m), pivots, info)
    room.turn(a, m, n, m, room.result(0), n)
    room.give_ints(pivots, k, room.result(1, "i32"))


def _lu_of_transpose(room: Room) -> None:
    """What systems and determinants need: the rows as they are."""
    n, target = room.size("n"), room.result(0)
    room.copy(room.source(0), room.rows(0), n, n, target, n)
    with room.info() as info:
        _factor_rows(room, target, n, room.result(1, "i32"), info)


def _factor_rows(room: Room, matrix, n, pivots, info) -> None:
    """LU of the transpose, in place, and int32 pivots."""
    def by_lapack() -> None:
        array = room.region("ipiv")
        room.call("getrf", room.int(n), room.int(n), matrix, room.pitch(n), array, info)
        room.give_ints(array, n, pivots)

    if room.task.complex:
        by_lapack()
        return
    with either(room, n) as otherwise:
        small_lu(room, matrix, n, pivots, info)
        otherwise()
        by_lapack()


def _system_sizes(shapes) -> dict[str, int]:
    return {"n": shapes[0][-1], "k": shapes[2][-1]}


def _lu_solve(room: Room) -> None:
    """With the factors of the transpose, A X = B is a system with their transpose."""
    n, k, turned = room.size("n"), room.size("k"), room.task.has("transposed")
    if room.task.complex:
        _solve_by_lapack(room, n, k, turned)
        return
    with either(room, n) as otherwise:
        target = room.result(0)
        room.copy(room.source(2), room.rows(2), n, k, target, k)
        small_solve(room, room.source(0), room.rows(0), n, room.source(1, "i32"), target, k, turned)
        otherwise()
        _solve_by_lapack(room, n, k, turned)


def _solve_by_lapack(room: Room, n, k, turned: bool) -> None:
    b, pivots = room.region("b"), room.region("ipiv")
    room.take_pivots(room.source(1, "i32"), n, pivots)
    room.turn(room.source(2), room.rows(2), n, k, b, n)
    room.call("getrs", "N" if turned else "T", room.int(n), room.int(k), room.source(0),
              room.pitch(room.rows(0)), pivots, b, room.pitch(n), room.int(0))
    room.turn(b, n, k, n, room.result(0), k)


def _system_work(sizes: dict[str, int]) -> int:
    return sizes["n"] ** 2 * sizes["k"]


def _inverse(room: Room) -> None:
    f, n = room.f, room.size("n")
    with room.info() as info:
        if room.task.complex:
            _invert_by_lapack(room, n, info)
            return
        with either(room, n) as otherwise:
            matrix, pivots, target = room.region("a"), room.region("ipiv"), room.result(0)
            room.copy(room.source(0), room.rows(0), n, n, matrix, n)
            small_lu(room, matrix, n, pivots, info)
            small_identity(room, target, n)
            with f.when(f.cmp("eq", f.load("i32", info), 0)):
                small_solve(room, matrix, n, n, pivots, target, n, False)
            otherwise()
            _invert_by_lapack(room, n, info)


def _invert_by_lapack(room: Room, n, info) -> None:
    f, target, pivots = room.f, room.result(0), room.region("ipiv")
    room.copy(room.source(0), room.rows(0), n, n, target, n)
    room.call("getrf", room.int(n), room.int(n), target, room.pitch(n), pivots, info)
    with f.when(f.cmp("eq", f.load("i32", info), 0)):
        room.call("getri", room.int(n), target, room.pitch(n), pivots, room.region("work"),
                  room.int(f.mul(n, BLOCK)), info)


def _permutation_sizes(shapes) -> dict[str, int]:
    return {"m": shapes[0][-2], "k": shapes[1][-1]}


def _permutation(room: Room) -> None:
    """Row i of P^T A is row p[i] of A: the exchanges of rows, one after the other."""
    f, target, pivots = room.f, room.result(0, "i64"), room.source(1, "i32")
    with f.loop(0, room.size("m")) as i:
        f.store(i, target, i)
    with f.loop(0, room.size("k")) as i:
        j = f.sub(f.cast("sext", f.load("i32", pivots, i), "i64"), 1)
        known = f.and_(f.cmp("sge", j, 0), f.cmp("slt", j, room.size("m")))
        with f.when(known):
            here, there = f.load("i64", target, i), f.load("i64", target, j)
            f.store(there, target, i)
            f.store(here, target, j)


# ---------------------------------------------------------------------- LDL
def _ldl(room: Room) -> None:
    f, n, a, pivots = room.f, room.size("n"), room.region("a"), room.region("ipiv")
    room.turn(room.source(0), room.rows(0), n, n, a, n)
    with room.info() as info:
        room.call("sytrf", "L", room.int(n), a, room.pitch(n), pivots, room.region("work"),
                  room.int(f.mul(f.smax(n, 1), BLOCK)), info)
    room.turn(a, n, n, n, room.result(0), n)
    room.keep(room.result(0), n, n, n, False)
    room.give_ints(pivots, n, room.result(1, "i32"))


def _ldl_solve(room: Room) -> None:
    n, k, b, a = room.size("n"), room.size("k"), room.region("b"), room.region("a")
    pivots = room.region("ipiv")
    room.take_pivots(room.source(1, "i32"), n, pivots, True)
    room.turn(room.source(0), room.rows(0), n, n, a, n)
    room.turn(room.source(2), room.rows(2), n, k, b, n)
    room.call("sytrs", "L", room.int(n), room.int(k), a, room.pitch(n), pivots, b, room.pitch(n),
              room.int(0))
    room.turn(b, n, k, n, room.result(0), k)


def symmetric(name: str):
    """LDL of complex matrices comes in two kinds: symmetric and Hermitian."""
    def functions(task: Task) -> dict[str, str]:
        hermitian = task.has("hermitian") and task.complex
        return {name: name.replace("sy", "he") if hermitian else name}

    return functions


# ---------------------------------------------------------------------- QR
def _reflectors(room: Room) -> None:
    m, n, a = room.size("m"), room.size("n"), room.region("a")
    room.turn(room.source(0), room.rows(0), m, n, a, m)
    _geqrf(room, a, room.result(1))
    room.turn(a, m, n, m, room.result(0), n)


def _geqrf(room: Room, a, tau) -> None:
    f, m, n = room.f, room.size("m"), room.size("n")
    room.call("geqrf", room.int(m), room.int(n), a, room.pitch(m), tau, room.region("work"),
              room.int(f.mul(f.add(n, 1), BLOCK)), room.int(0))


def _qr(room: Room) -> None:
    """Q in results 0, R in 1; only R with the flag "r"."""
    f, task, m, n, k = room.f, room.task, *(room.size(name) for name in "mnk")
    a, tau = room.region("a"), room.region("tau")
    room.turn(room.source(0), room.rows(0), m, n, a, m)
    _geqrf(room, a, tau)
    rows = m if task.has("complete") else k
    target = room.result(0 if task.has("r") else 1)
    room.turn(a, m, n, rows, target, n)
    room.keep(target, n, rows, n, True)
    if not task.has("r"):
        room.call("orgqr", room.int(m), room.int(rows), room.int(k), a, room.pitch(m), tau,
                  room.region("work"), room.int(f.mul(f.add(m, f.add(n, 1)), BLOCK)), room.int(0))
        room.turn(a, m, rows, m, room.result(0), rows)


def _qr_regions(task: Task, sizes: dict[str, int]) -> dict[str, int]:
    m, n = sizes["m"], sizes["n"]
    return {"a": m * max(n, m if task.has("complete") else n), "tau": sizes["k"] + 1,
            "work": (m + n + 1) * BLOCK}


def _qr_functions(task: Task) -> dict[str, str]:
    return {"geqrf": "geqrf", "orgqr": "ungqr" if task.complex else "orgqr"}


def _qr_work(sizes: dict[str, int]) -> int:
    return 2 * sizes["m"] * sizes["n"] * sizes["k"]


# ---------------------------------------------------------------------- workspaces
def _pivots(task: Task, sizes: dict[str, int]) -> dict[str, int]:
    return {"ipiv": sizes["n"] + 1}


def _lu_regions(task: Task, sizes: dict[str, int]) -> dict[str, int]:
    return {"a": sizes["m"] * sizes["n"], "ipiv": sizes["k"] + 1}


def _system_regions(task: Task, sizes: dict[str, int]) -> dict[str, int]:
    return {"ipiv": sizes["n"] + 1, "b": sizes["n"] * sizes["k"]}


def _inverse_regions(task: Task, sizes: dict[str, int]) -> dict[str, int]:
    small = min(sizes["n"], LARGEST)
    return {"ipiv": sizes["n"] + 1, "work": sizes["n"] * BLOCK, "a": small * small}


def _ldl_regions(task: Task, sizes: dict[str, int]) -> dict[str, int]:
    return {"a": sizes["n"] ** 2, "ipiv": sizes["n"] + 1, "work": (sizes["n"] + 1) * BLOCK}


def _ldl_system_regions(task: Task, sizes: dict[str, int]) -> dict[str, int]:
    return {"a": sizes["n"] ** 2, **_system_regions(task, sizes)}


def _reflector_regions(task: Task, sizes: dict[str, int]) -> dict[str, int]:
    return {"a": sizes["m"] * sizes["n"], "work": (sizes["n"] + 1) * BLOCK}


def _rows(sizes: dict[str, int]) -> int:
    return sizes["m"]


TRIANGULAR = {
    "cholesky": Routine(plain("potrf"), _square, _nothing, _cholesky, _cubed),
    "cholesky_solve": Routine(plain("potrs"), _definite_sizes, _definite_regions, _cholesky_solve,
                              _system_work),
    "triangular": Routine(plain("trsm"), _triangular_sizes, _nothing, _triangular,
                          _triangular_work),
    "lu": Routine(plain("getrf"), _matrix, _lu_regions, _lu, _qr_work),
    "lu_of_transpose": Routine(plain("getrf"), _square, _pivots, _lu_of_transpose, _cubed),
    "lu_solve": Routine(plain("getrs"), _system_sizes, _system_regions, _lu_solve, _system_work),
    "inverse": Routine(plain("getrf", "getri"), _square, _inverse_regions, _inverse, _cubed),
    "permutation": Routine(plain(), _permutation_sizes, _nothing, _permutation, _rows),
    "ldl": Routine(symmetric("sytrf"), _square, _ldl_regions, _ldl, _cubed),
    "ldl_solve": Routine(symmetric("sytrs"), _system_sizes, _ldl_system_regions, _ldl_solve,
                         _system_work),
    "reflectors": Routine(plain("geqrf"), _matrix, _reflector_regions, _reflectors, _qr_work),
    "qr": Routine(_qr_functions, _matrix, _qr_regions, _qr, _qr_work),
}
