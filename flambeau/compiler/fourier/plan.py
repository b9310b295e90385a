"""Plans of transforms: into which radices a length is factored, and the tables of its rotations.

A transform of n points goes through one pass per radix (decimation in time, self-sorting: C. Van
Loan, "Computational Frameworks for the Fast Fourier Transform", 1992, section 1.7). Before the pass
of radix r, `before` points (the product of earlier radices) are transformed, in each of n / before
columns; it combines r columns that lie `rest` apart:

    y[k + before t', j] = sum over t < r of w(r)^(t t') w(before r)^(k t) x[k, t rest + j]

Lengths with a prime factor beyond 127 are convolutions with a chirp (L. Bluestein, 1970), done by a
longer transform.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

__all__ = ["LARGEST_PRIME", "Pass", "address", "chirp_tables", "chirp_size", "factors", "halves",
           "is_large_prime", "is_smooth", "passes", "rotations", "split_length", "twist_table",
           "unit_roots"]

LARGEST_PRIME = 127  # 2 to 4 times faster than a chirp, and 199 would still be; but errors grow
LARGE_PRIME = 11  # from which primes on transforms are loops
WRITTEN_OUT = 31  # up to which the sums in those loops are no loops themselves
ODD_RADICES = (9, 3, 5, 7, *(n for n in range(11, LARGEST_PRIME + 1, 2)
                             if all(n % d for d in range(3, 12, 2) if d < n)))


@dataclasses.dataclass(frozen=True)
class Pass:
    """One pass.

    Attributes:
        radix; before: the product of earlier ones; rest: that of later ones.
        table: where its rotations begin in the table: `before` real parts for each t from 1 on,
            then as many imaginary parts; nothing if before is 1.
        matrix: for primes from `LARGE_PRIME` on: where the cosine and the sine of 2 pi k t / radix
            begin in the table, for 0 < k, t < radix / 2.
    """

    radix: int
    before: int
    rest: int
    table: int
    matrix: int = 0


def factors(n: int) -> list[int]:
    """The prime factors of n, smallest first."""
    found, p = [], 2
    while p * p <= n:
        while n % p == 0:
            found.append(p)
            n //= p
        p += 1
    return [*found, n] if n > 1 else found


def is_smooth(n: int) -> bool:
    """Is n a product of radices?"""
    return n < 2 or max(factors(n)) <= LARGEST_PRIME


@functools.cache
def passes(n: int, lanes: int) -> tuple[Pass, ...]:
    """The passes of a transform of n points, which is smooth: odd radices first, and last the one
    that fills vectors best."""
    primes = factors(n)
    twos = primes.count(2)
    radices = []
    rest = n >> twos
    for odd in ODD_RADICES:
        while rest % odd == 0:
            radices.append(odd)
            rest //= odd
    last_bits = min(twos, 4 if lanes >= 16 else 3)
    radices.sort()
    radices += _powers(twos - last_bits)
    if last_bits:
        radices.append(1 << last_bits)
    found, before, table = [], 1, 0
    for radix in radices:
        rotations = 2 * (radix - 1) * before if before > 1 else 0
        matrix = table + rotations
        found.append(Pass(radix, before, n // (before * radix), table, matrix))
        table = matrix + (2 * (radix // 2) ** 2 if is_large_prime(radix) else 0)
        before *= radix
    return tuple(found)


def is_large_prime(radix: int) -> bool:
    """Is the transform of `radix` points a loop?"""
    return radix >= LARGE_PRIME and radix % 2 == 1


def _powers(bits: int) -> list[int]:
    """Radices 16, 8 and 4 (at most one 2) whose product is 2**bits, as few as that takes with 8."""
    found = []
    while bits > 0:
        step = 3 if bits == 3 or bits > 4 else bits
        if bits == 4:
            found += [4, 4]
            break
        found.append(1 << step)
        bits -= step
    return sorted(found, reverse=True)


@functools.cache
def unit_roots(n: int) -> np.ndarray:
    """exp(-2 pi i k / n) for k < n, each part correct to about an ulp: computed in the first octant
    and mirrored."""
    k = np.arange(n, dtype=np.int64)
    eighth = 8 * k
    octant = eighth // n
    turned = octant % 2 == 1
    part = np.where(turned, (octant + 1) * n - eighth, eighth - octant * n)
    angle = part.astype(np.longdouble) * (np.longdouble(np.pi) / (4 * n))
    cos, sin = np.cos(angle).astype(np.float64), np.sin(angle).astype(np.float64)
    quadrant = ((octant + 1) // 2) % 4  # the axis that the angle is measured from
    sin = np.where(turned, -sin, sin)
    re = np.choose(quadrant, [cos, -sin, -cos, sin])
    im = np.choose(quadrant, [sin, cos, -sin, -cos])
    return re - 1j * im


@functools.cache
def rotations(n: int, lanes: int, kind: str) -> np.ndarray:
    """The table that `passes` point into, of dtype `kind`, padded for whole vectors."""
    parts = [np.zeros(0)]
    for each in passes(n, lanes):
        if each.before > 1:
            size = each.radix * each.before
            roots = unit_roots(size)
            places = np.outer(np.arange(1, each.radix), np.arange(each.before)) % size
            parts += [roots.real[places].ravel(), roots.imag[places].ravel()]
        if is_large_prime(each.radix):
            half = np.arange(1, each.radix // 2 + 1)
            turns = unit_roots(each.radix)[np.outer(half, half) % each.radix]
            parts.append(np.stack([turns.real, -turns.imag], -1).ravel())
    return np.concatenate([*parts, np.zeros(2 * lanes)]).astype(kind)


@functools.cache
def halves(n: int, lanes: int, kind: str) -> np.ndarray:
    """exp(-2 pi i k / n) for k <= n / 2: real parts, then imaginary parts, each padded to
    n / 2 + 1 + lanes."""
    roots = unit_roots(n)[:n // 2 + 1]
    padding = np.zeros(lanes)
    return np.concatenate([roots.real, padding, roots.imag, padding]).astype(kind)


# --------------------------------------------------------------------------- chirps
def chirp_size(n: int) -> int:
    """The length of the transforms that do a chirp convolution of n points: at least 2 n - 1."""
    size = 1
    while size < 2 * n - 1:
        size *= 2
    for odd, unit in ((9, 16), (5, 8), (3, 4)):
        if size >= 64 and size // unit * odd >= 2 * n - 1:
            return size // unit * odd
    return size


@functools.cache
def chirp_tables(n: int, lanes: int, kind: str) -> np.ndarray:
    """Four rows: real and imaginary parts of the chirp conj b (n each, padded), and of the
    transform of b, divided by its length m (m each, padded); b[e] = exp(i pi e**2 / n)."""
    m = chirp_size(n)
    e = np.arange(n, dtype=np.int64)
    chirp = unit_roots(2 * n)[e * e % (2 * n)]
    wrapped = np.zeros(m, np.complex128)
    wrapped[:n] = chirp.conj()
    wrapped[m - n + 1:] = chirp.conj()[:0:-1]
    spectrum = np.fft.fft(wrapped) / m
    padding = np.zeros(lanes)
    return np.concatenate([chirp.real, padding, chirp.imag, padding,
                           spectrum.real, padding, spectrum.imag, padding]).astype(kind)


# --------------------------------------------------------------------------- long transforms
@functools.cache
def split_length(n: int, lanes: int) -> tuple[int, int] | None:
    """(m, c) with m c = n, both near the root and c a multiple of `lanes`, or None."""
    best = None
    for m in range(1, int(n ** 0.5) + 1):
        if n % m == 0:
            for small, large in ((m, n // m), (n // m, m)):
                if large % lanes == 0 and small % lanes == 0 and max(small, large) <= 8192:
                    best = small, large
    return best


@functools.cache
def twist_table(m: int, c: int, kind: str) -> np.ndarray:
    """w(m c)^(k j) for k < m, j < c: real parts, then imaginary parts."""
    roots = unit_roots(m * c)
    places = np.outer(np.arange(m), np.arange(c))  # below m c
    return np.concatenate([roots.real[places].ravel(), roots.imag[places].ravel()]).astype(kind)


def address(table: np.ndarray) -> int:
    """Where a table lies. Tables are kept for good, as kernels are."""
    return table.__array_interface__["data"][0]
