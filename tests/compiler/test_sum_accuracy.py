"""Sums of ill-conditioned data, against exactly rounded ones (`math.fsum`).

An error is measured in rounding errors of the sum of magnitudes, which no order of adding can beat
by much. Adding pairwise bounds it by log2(n); parts of parts come close to that.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import flambeau

UNIT = 2.0**-24


def _data(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    normal = rng.standard_normal(shape, dtype=np.float32)
    if kind == "positive":
        return np.abs(normal) + 0.5
    if kind == "equal":
        return np.full(shape, 0.1, np.float32)
    wide = np.ldexp(normal, rng.integers(-12, 13, shape)).astype(np.float32)
    if kind == "scales":
        return wide
    flat = wide.reshape(-1)  # pairs that cancel, and a few that do not
    half = flat.size // 2
    flat[half:2 * half] = -flat[:half]
    flat[rng.integers(0, flat.size, 1 + flat.size // 50)] += 1
    return rng.permutation(flat).reshape(shape)


def _error(found: np.ndarray, parts: np.ndarray) -> float:
    """The largest error of `found` as sums of the rows of `parts`, in units."""
    exact = [math.fsum(row) for row in parts.tolist()]
    size = np.abs(parts.astype(np.float64)).sum(1)
    return float((np.abs(found.astype(np.float64) - exact) / size).max()) / UNIT


def _pairwise(parts: np.ndarray) -> np.ndarray:
    """Sums of rows by halves, in float32."""
    while parts.shape[1] > 1:
        odd = parts[:, -1:] if parts.shape[1] % 2 else parts[:, :0]
        even = parts.shape[1] // 2 * 2
        parts = np.concatenate([parts[:, :even:2] + parts[:, 1:even:2], odd], 1)
    return parts[:, 0]


@pytest.mark.parametrize("kind", ["positive", "equal", "scales", "cancelling"])
@pytest.mark.parametrize("shape", [(3, 49), (5, 1000), (40, 4097), (3, 100_003), (70, 63)], ids=str)
def test_sums_are_as_accurate_as_pairwise_ones(shape, kind):
    x = _data(kind, shape)
    ours = flambeau.from_numpy(x)
    columns, rows = np.ascontiguousarray(x.T)[:200], x
    whole = x.reshape(1, -1)
    cases = [(ours.sum(1), rows), (ours.t().contiguous().sum(0), rows),
             (ours.sum(0)[:200], columns), (ours.sum(), whole)]
    for found, parts in cases:
        bound = 2 + 2 * _error(_pairwise(parts), parts) + 0.6 * math.log2(parts.shape[1])
        assert _error(found.numpy().reshape(-1), parts) <= bound


@pytest.mark.parametrize("kind", ["equal", "cancelling"])
def test_sums_over_several_dimensions(kind):
    x = _data(kind, (200, 5, 7, 7))
    for dims in ((0, 2, 3), (2, 3), (0,), (1, 3)):
        kept = [d for d in range(4) if d not in dims]
        parts = x.transpose(*kept, *dims).reshape(math.prod(x.shape[d] for d in kept), -1)
        found = flambeau.from_numpy(x).sum(dims).numpy().reshape(-1)
        bound = 2 + 2 * _error(_pairwise(parts), parts) + 0.6 * math.log2(parts.shape[1])
        assert _error(found, parts) <= bound
