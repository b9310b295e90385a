"""Bags of embeddings against plain loops: bags of one length and by offsets."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as fb

F = fb.nn.functional
BAGS = [np.arange(0, 24, 3), np.array([0, 0, 5, 5, 20]), np.array([0]), np.array([0, 24])]


def _wanted(table: np.ndarray, index: np.ndarray, starts: np.ndarray, mode: str,
            weights: np.ndarray | None) -> np.ndarray:
    ends = [*starts[1:], len(index)]
    made = np.zeros((len(starts), table.shape[1]))
    for bag, (low, high) in enumerate(zip(starts, ends, strict=True)):
        rows = table[index[low:high]].astype("f8")
        if weights is not None:
            rows = rows * weights[low:high, None]
        if len(rows):
            made[bag] = {"sum": np.sum, "mean": np.mean, "max": np.max}[mode](rows, 0)
    return made


@pytest.mark.parametrize("starts", BAGS, ids=["alike", "uneven", "one", "last_is_empty"])
@pytest.mark.parametrize("mode", ["sum", "mean", "max", "weighted"])
def test_bags_by_offsets(mode: str, starts: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    for width in (1, 5, 70):
        table = rng.standard_normal((9, width)).astype("f4")
        index = rng.integers(0, 9, 24)
        weights = rng.standard_normal(24).astype("f4") if mode == "weighted" else None
        given = None if weights is None else fb.tensor(weights)
        kind = "sum" if mode == "weighted" else mode
        wanted = _wanted(table, index, starts, kind, weights)
        found = F.embedding_bag(fb.tensor(index), fb.tensor(table), fb.tensor(starts), mode=kind,
                                per_sample_weights=given)
        np.testing.assert_allclose(found.numpy(), wanted, 1e-5, 1e-5)
        found = F.embedding_bag(fb.tensor(index), fb.tensor(table), fb.tensor([*starts, 24]),
                                mode=kind, per_sample_weights=given, include_last_offset=True)
        np.testing.assert_allclose(found.numpy(), wanted, 1e-5, 1e-5)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_one_length_are_bags_by_offsets(mode: str) -> None:
    rng = np.random.default_rng(1)
    index = fb.tensor(rng.integers(0, 9, (8, 3)))
    for padding in (None, 2):
        results = []
        for shape, offsets in (((8, 3), None), ((24,), fb.arange(0, 24, 3))):
            table = fb.tensor(np.arange(45.0).reshape(9, 5) % 7).requires_grad_()
            y = F.embedding_bag(index.reshape(shape), table, offsets, mode=mode,
                                padding_idx=padding)
            (g,) = fb.autograd.grad((y * y).sum(), table)
            results.append((y.detach().numpy(), g.numpy()))
        for one, other in zip(*results, strict=True):
            np.testing.assert_allclose(one, other, 1e-12, 1e-12)


@pytest.mark.parametrize("index", [9, -1])
def test_a_row_that_is_not_there(index: int) -> None:
    given = fb.tensor([0, index, 1, 2])
    for offsets, shape in ((fb.tensor([0, 2]), (4,)), (None, (2, 2))):
        with pytest.raises(IndexError, match=f"index {index}"):
            F.embedding_bag(given.reshape(shape), fb.ones(9, 3), offsets, mode="sum")


def test_gradients_of_bags_by_offsets() -> None:
    rng = np.random.default_rng(2)
    table = fb.tensor(rng.standard_normal((4, 3))).requires_grad_()
    weights = fb.tensor(rng.standard_normal(6)).requires_grad_()
    index, offsets = fb.tensor([0, 3, 3, 1, 2, 0]), fb.tensor([0, 1, 1, 4])
    assert fb.autograd.gradcheck(
        lambda t, w: F.embedding_bag(index, t, offsets, mode="sum", per_sample_weights=w),
        (table, weights))
    assert fb.autograd.gradgradcheck(
        lambda t: F.embedding_bag(index, t, offsets, mode="mean"), (table,))
