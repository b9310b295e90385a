"""multilabel_margin_loss against NumPy, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as fb

F = fb.nn.functional


def _expected(x: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(losses of the rows, their derivatives by x)."""
    rows, classes = x.shape
    loss, slopes = np.zeros(rows), np.zeros(x.shape)
    for n in range(rows):
        ends = np.flatnonzero(target[n] < 0)
        labels = target[n, :ends[0]] if len(ends) else target[n]
        others = np.setdiff1d(np.arange(classes), labels)
        for label in labels:
            gap = 1 - x[n, label] + x[n, others]
            hits = others[gap > 0]
            loss[n] += gap[gap > 0].sum()
            slopes[n, hits] += 1
            slopes[n, label] -= len(hits)
    return loss / classes, slopes / classes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["random", "equal", "nan", "infinite"])
@pytest.mark.parametrize(("rows", "classes"), [(3, 1), (5, 20), (4, 64), (3, 131)])
def test_label_margins(rows: int, classes: int, kind: str, dtype: str) -> None:
    """Repeated targets count again; what follows a negative one, and pairs with NaN, do not."""
    draws = np.random.default_rng(classes)
    x = draws.standard_normal((rows, classes)).astype(dtype)
    if kind == "equal":
        x = np.round(x)
    elif kind != "random":
        x[draws.random(x.shape) < 0.1] = np.nan if kind == "nan" else -np.inf
    target = draws.integers(-1, classes, x.shape)
    target[0] = -1
    target[1, min(4, classes - 1):] = -1
    if kind == "infinite":
        target[:] = np.where(np.isinf(np.take_along_axis(x, target.clip(0), 1)), -1, target)
    loss, slopes = _expected(x.astype("f8"), target)
    given = fb.from_numpy(x).requires_grad_()
    found = F.multilabel_margin_loss(given, fb.from_numpy(target), reduction="none")
    g = draws.standard_normal(rows).astype(dtype)
    (gradient,) = fb.autograd.grad(found, given, fb.from_numpy(g))
    np.testing.assert_allclose(found.detach().numpy(), loss, 1e-5, 1e-6)
    np.testing.assert_allclose(gradient.numpy(), slopes * g[:, None], 1e-5, 1e-6)


def test_targets_out_of_range() -> None:
    target = fb.tensor([[0, 3, -1], [0, 1, -1]])
    with pytest.raises(IndexError, match="3 is out of bounds"):
        F.multilabel_margin_loss(fb.randn(2, 3), target)
    target[0, 1:] = fb.tensor([-1, 3])  # behind the end: never read
    assert F.multilabel_margin_loss(fb.randn(2, 3), target).isfinite()
