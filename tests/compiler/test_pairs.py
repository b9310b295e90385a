"""Distances of all pairs of rows against plain differences."""

from __future__ import annotations

import math

import numpy as np
import pytest

import flambeau as fb

pdist = fb.nn.functional.pdist
DEGREES = [1.0, 2.0, math.inf, 3.0, 0.0]


def _wanted(x: np.ndarray, degree: float) -> np.ndarray:
    first, second = np.triu_indices(len(x), 1)
    return np.linalg.norm(x[first].astype("f8") - x[second], degree, axis=1)


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("rows", [2, 3, 31, 33, 70])
def test_distances(rows: int, degree: float) -> None:
    rng = np.random.default_rng(rows)
    for columns in (1, 6, 300):
        x = rng.standard_normal((rows, columns)).astype("f4")
        for given in (fb.tensor(x), fb.tensor(x.T.copy()).t(), fb.tensor(x)[:1].expand(rows, -1)):
            np.testing.assert_allclose(pdist(given, degree).numpy(),
                                       _wanted(given.numpy(), degree), 2e-5, 1e-6)
        near = pdist(fb.tensor(x.astype("f8")), degree).numpy()
        np.testing.assert_allclose(near, _wanted(x.astype("f8"), degree), 1e-12, 1e-12)


@pytest.mark.parametrize("degree", DEGREES[:4])
def test_gradients(degree: float) -> None:
    x = fb.tensor(np.random.default_rng(0).standard_normal((6, 4))).requires_grad_()
    assert fb.autograd.gradcheck(lambda a: pdist(a, degree), (x,))


@pytest.mark.parametrize("degree", DEGREES[:3])
def test_special_values(degree: float) -> None:
    x = np.random.default_rng(1).standard_normal((5, 3)).astype("f4")
    x[1, 1], x[3] = np.nan, x[2]
    first, second = np.triu_indices(5, 1)
    found = pdist(fb.tensor(x), degree).numpy()
    assert (np.isnan(found) == ((first == 1) | (second == 1))).all()
    assert found[(first == 2) & (second == 3)] == 0


def test_bits_do_not_depend_on_threads() -> None:
    x = fb.tensor(np.random.default_rng(2).standard_normal((150, 40)).astype("f4"))
    before, found = fb.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            fb.set_num_threads(threads)
            found.append(pdist(x))
    finally:
        fb.set_num_threads(before)
    assert all(fb.equal(found[0], other) for other in found[1:])
