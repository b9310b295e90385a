"""Least squares, by LAPACK's four drivers."""

from __future__ import annotations

from flambeau.compiler.factorizations.room import Room, Routine, Task

__all__ = ["LEAST_SQUARES", "DRIVERS"]

DRIVERS = ("gels", "gelsy", "gelsd", "gelss")


def _driver(task: Task) -> str:
    return next(flag for flag in task.flags if flag in DRIVERS)


def _least_squares(room: Room) -> None:
    """Results: the solution and below it what the residuals are computed from, max(m, n) rows;
    the rank; singular values. Operand 2 is `rcond`."""
    f, task, driver = room.f, room.task, _driver(room.task)
    m, n, k, rows = (room.size(name) for name in ("m", "n", "k", "rows"))
    a, b, work, lwork = room.region("a"), room.region("b"), room.region("work"), room.size("lwork")
    room.turn(room.source(0), room.rows(0), m, n, a, m)
    room.turn(room.source(1), room.rows(1), m, k, b, rows)
    given = [room.int(m), room.int(n), room.int(k), a, room.pitch(m), b, room.pitch(rows)]
    rank, extra = f.var("i64"), []
    rank.set(f.smin(m, n))
    if driver == "gelsy":
        pivots = room.region("ipiv")
        with f.loop(0, n) as i:
            room.put_int(f.const(0, "i64"), pivots, i)
        given.append(pivots)
    if driver in ("gelsd", "gelss"):
        given.append(room.result(2))
    else:
        with f.loop(0, rank.get()) as i:
            f.store(f.const(0.0, room.real), room.result(2), i)
    if driver == "gels":
        given.insert(0, "N")
    else:
        given += [room.box(f.load(room.real, room.source(2))), rank.pointer]
    if driver != "gels" and task.complex:
        extra.append(room.region("rwork"))
    if driver == "gelsd":
        extra.append(room.region("iwork"))
    with room.info() as info, room.if_finite(info, 0, m, n):
        room.call(driver, *given, work, room.int(lwork), *extra, info)
    room.turn(b, rows, k, rows, room.result(0), k)
    f.store(f.cast("sext", f.cast("trunc", rank.get(), "i32"), "i64"), room.result(1, "i64"))


def _sizes(shapes) -> dict[str, int]:
    (m, n), k = shapes[0][-2:], shapes[1][-1]
    small, large = min(m, n), max(m, n)
    levels = max(small.bit_length() - 4, 1)  # of gelsd's division of a problem of 25 and more
    lwork = 64 * (large + k + small) + 3 * small + 12 * small + 2 * small * 25 + (
        8 * small * levels + small * k + 26 * 26) + small * small + 64 * small
    return {"m": m, "n": n, "k": k, "rows": large, "small": small, "levels": levels,
            "lwork": lwork}


def _regions(task: Task, sizes: dict[str, int]) -> dict[str, int]:
    small, k, levels = sizes["small"], sizes["k"], sizes["levels"]
    n = sizes["n"]
    rwork = 10 * small + 2 * small * 25 + 8 * small * levels + 3 * 25 * k + max(
        26 * 26, n * (1 + k) + 2 * k) + 2 * n + 5 * small
    return {"a": sizes["m"] * n, "b": sizes["rows"] * k, "work": sizes["lwork"],
            "rwork": rwork if task.complex else 0, "ipiv": n + 1,
            "iwork": 3 * small * levels + 11 * small + 1}


def _functions(task: Task) -> dict[str, str]:
    return {_driver(task): _driver(task)}


def _work(sizes: dict[str, int]) -> int:
    return 4 * sizes["m"] * sizes["n"] * sizes["small"]


LEAST_SQUARES = {"least_squares": Routine(_functions, _sizes, _regions, _least_squares, _work)}
