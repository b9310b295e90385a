"""Eigenvalues and singular values."""

from __future__ import annotations

from flambeau.compiler.factorizations.room import Room, Routine, Task, plain

__all__ = ["SPECTRAL"]


def _square(shapes) -> dict[str, int]:
    return {"n": shapes[0][-1]}


def _cubed(sizes: dict[str, int]) -> int:
    return 10 * sizes["n"] ** 3


# ---------------------------------------------------------------------- Hermitian matrices
def _hermitian(room: Room) -> None:
    """Eigenvalues in result 0, ascending; vectors, if wanted, in result 1."""
    task, n = room.task, room.size("n")
    a, values, work = room.region("a"), room.result(0), room.region("work")
    room.turn(room.source(0), room.rows(0), n, n, a, n)
    given = ["V" if task.has("vectors") else "N", "U" if task.has("upper") else "L", room.int(n),
             a, room.pitch(n), values, work, room.int(room.size("lwork"))]
    if task.complex:
        given += [room.region("rwork"), room.int(room.size("lrwork"))]
    with room.info() as info, room.if_finite(info, 0, n, n):
        room.call("syevd", *given, room.region("iwork"), room.int(room.size("liwork")), info)
    if task.has("vectors"):
        room.turn(a, n, n, n, room.result(1), n)


def _hermitian_sizes(shapes) -> dict[str, int]:
    """LAPACK's own formulas for syevd and heevd with vectors, with room for its blocks."""
    n = shapes[0][-1]
    lwork = 1 + 64 * n + 2 * n * n
    return {"n": n, "lwork": lwork, "lrwork": 1 + 5 * n + 2 * n * n, "liwork": 3 + 5 * n}


def _hermitian_regions(task: Task, sizes: dict[str, int]) -> dict[str, int]:
    n = sizes["n"]
    return {"a": n * n, "work": sizes["lwork"], "rwork": sizes["lrwork"] if task.complex else 0,
            "iwork": sizes["liwork"]}


def _hermitian_functions(task: Task) -> dict[str, str]:
    return {"syevd": "heevd" if task.complex else "syevd"}


# ---------------------------------------------------------------------- singular values
def _singular(room: Room) -> None:
    """A row-major matrix is its transpose, U and V^H change places and are transposed as well.
    Results: U, S, V^H; S alone without vectors."""
    task, m, n, k = room.task, *(room.size(name) for name in "mnk")
    a = room.region("a")
    room.copy(room.source(0), room.rows(0), m, n, a, n)
    if task.has("none"):
        nowhere = room.region("a")
        values, left, right, pitch = room.result(0), nowhere, nowhere, room.int(1)
    else:
        left, values, right = (room.result(number) for number in range(3))
        pitch = room.pitch(m if task.has("full") else k)
    given = ["N" if task.has("none") else "A" if task.has("full") else "S", room.int(n),
             room.int(m), a, room.pitch(n), values, right, room.pitch(n), left, pitch,
             room.region("work"), room.int(room.size("lwork"))]
    if task.complex:
        given.append(room.region("rwork"))
    with room.info() as info, room.if_finite(info, 0, m, n):
        room.call("gesdd", *given, room.region("iwork"), info)


def _singular_sizes(shapes) -> dict[str, int]:
    m, n = shapes[0][-2:]
    small, large = min(m, n), max(m, n)
    return {"m": m, "n": n, "k": small, "large": large,
            "lwork": 6 * small * small + 64 * (small + large) + 64}


def _singular_regions(task: Task, sizes: dict[str, int]) -> dict[str, int]:
    small, large = sizes["k"], sizes["large"]
    rwork = 7 * small * small + 2 * large * small + 7 * small + 7 if task.complex else 0
    return {"a": sizes["m"] * sizes["n"], "work": sizes["lwork"], "rwork": rwork,
            "iwork": 8 * small + 1}


def _singular_work(sizes: dict[str, int]) -> int:
    return 10 * sizes["m"] * sizes["n"] * sizes["k"]


# ---------------------------------------------------------------------- general matrices
def _general(room: Room) -> None:
    """Eigenvalues in result 0 and vectors in result 1, both complex: pairs of real numbers if the
    matrix is real."""
    task, n = room.task, room.size("n")
    a, work, lwork = room.region("a"), room.region("work"), room.size("lwork")
    room.turn(room.source(0), room.rows(0), n, n, a, n)
    vectors = room.region("v") if task.has("vectors") else a
    job, none = "V" if task.has("vectors") else "N", a
    if task.complex:
        values = [room.result(0)]
    else:
        values = [room.region("re"), room.region("im")]
    given = ["N", job, room.int(n), a, room.pitch(n), *values, none, room.int(1), vectors,
             room.pitch(n), work, room.int(lwork)]
    if task.complex:
        given.append(room.region("rwork"))
    with room.info() as info, room.if_finite(info, 0, n, n):
        room.call("geev", *given, info)
    if task.complex:
        if task.has("vectors"):
            room.turn(vectors, n, n, n, room.result(1), n)
        return
    _pairs(room, *values, vectors)


def _pairs(room: Room, re, im, vectors) -> None:
    """Complex eigenvalues of a real matrix come in conjugate pairs; of the pair's vectors two
    columns hold the real and the imaginary part."""
    f, n, values = room.f, room.size("n"), room.result(0)
    with f.loop(0, n) as j:
        real, imaginary = room.load(re, j), room.load(im, j)
        f.store(real, values, f.mul(j, 2))
        f.store(imaginary, values, f.add(f.mul(j, 2), 1))
        if room.task.has("vectors"):
            first, second = f.cmp("ogt", imaginary, 0.0), f.cmp("olt", imaginary, 0.0)
            back = f.sub(j, f.cast("zext", second, "i64"))
            pair = f.or_(first, second)
            ahead = f.add(back, f.cast("zext", pair, "i64"))
            target = room.result(1)
            with f.loop(0, n) as i:
                x = f.load(room.real, vectors, f.add(f.mul(back, n), i))
                y = f.load(room.real, vectors, f.add(f.mul(ahead, n), i))
                y = f.select(pair, f.select(second, f.fneg(y), y), f.const(0.0, room.real))
                place = f.mul(f.add(f.mul(i, n), j), 2)
                f.store(x, target, place)
                f.store(y, target, f.add(place, 1))


def _general_sizes(shapes) -> dict[str, int]:
    n = shapes[0][-1]
    return {"n": n, "lwork": 68 * n + 68}


def _general_regions(task: Task, sizes: dict[str, int]) -> dict[str, int]:
    n = sizes["n"]
    found = {"a": n * n, "v": n * n if task.has("vectors") else 0, "work": sizes["lwork"]}
    return found | ({"rwork": 2 * n + 1} if task.complex else {"re": n, "im": n})


SPECTRAL = {
    "hermitian": Routine(_hermitian_functions, _hermitian_sizes, _hermitian_regions, _hermitian,
                         _cubed),
    "singular": Routine(plain("gesdd"), _singular_sizes, _singular_regions, _singular,
                        _singular_work),
    "general": Routine(plain("geev"), _general_sizes, _general_regions, _general, _cubed),
}
