"""`Size`, broadcasting, dimension checks, and the geometry of views against NumPy."""

from __future__ import annotations

import itertools
import pickle
import random

import numpy as np
import pytest

import flambeau as torch
from flambeau.core.shapes import (
    broadcast_shapes,
    contiguous_strides,
    dense_order,
    infer_size,
    is_contiguous,
    normalize_dim,
    normalize_dims,
    required_span,
    reshape_strides,
)


class TestSize:
    def test_is_a_tuple_that_prints_as_pytorchs(self):
        size = torch.zeros(2, 3).shape
        assert isinstance(size, tuple) and isinstance(size, torch.Size)
        assert repr(size) == "torch.Size([2, 3])" and str(torch.Size([])) == "torch.Size([])"
        assert size == (2, 3) and hash(size) == hash((2, 3)) and size != [2, 3]
        assert size.numel() == 6 and torch.Size([]).numel() == 1

    def test_operations_keep_the_type(self):
        size = torch.Size([2, 3, 4])
        assert type(size[1:]) is torch.Size and size[1:] == (3, 4)
        assert type(size[0]) is int and size[-1] == 4
        assert type(size + (5,)) is torch.Size and size + (5,) == (2, 3, 4, 5)
        assert (1,) + size == (1, 2, 3, 4)
        assert size * 2 == (2, 3, 4, 2, 3, 4)
        first, *rest = size
        assert (first, rest) == (2, [3, 4])

    def test_pickles(self):
        size = torch.Size([2, 3])
        again = pickle.loads(pickle.dumps(size))
        assert again == size and type(again) is torch.Size


def test_broadcasting_follows_numpy():
    sizes = [(), (1,), (3,), (2, 1), (2, 3), (1, 1, 3), (4, 2, 1), (0,), (2, 0), (5,)]
    for shapes in itertools.product(sizes, repeat=2):
        try:
            expected = np.broadcast_shapes(*shapes)
        except ValueError:
            with pytest.raises(RuntimeError, match=r"The size of tensor a \(\d\) must match"):
                broadcast_shapes(*shapes)
        else:
            assert broadcast_shapes(*shapes) == expected


def test_dimensions():
    assert [normalize_dim(d, 3) for d in (-3, -1, 0, 2)] == [0, 2, 0, 2]
    assert normalize_dim(-1, 0) == 0
    for dim, rank in ((3, 3), (-4, 3), (1, 0)):
        with pytest.raises(IndexError, match="Dimension out of range"):
            normalize_dim(dim, rank)
    assert normalize_dims((-1, 0), 3) == (2, 0)
    assert normalize_dims(None, 2) == normalize_dims((), 2) == (0, 1)
    assert normalize_dims((), 2, empty_means_all=False) == ()
    with pytest.raises(RuntimeError, match="dim 1 appears multiple times"):
        normalize_dims((1, -1), 2)


def test_sizes_with_a_hole():
    assert infer_size((2, -1), 6) == (2, 3)
    assert infer_size((0,), 0) == (0,)
    for shape, numel, message in (((-1, -1), 6, "only one dimension"), ((4, -1), 6, "is invalid"),
                                  ((7,), 6, "is invalid"), ((0, -1), 0, "ambiguous"),
                                  ((-2, 3), 6, "invalid shape dimension")):
        with pytest.raises(RuntimeError, match=message):
            infer_size(shape, numel)


def numpy_strides(array: np.ndarray) -> tuple[int, ...]:
    return tuple(s // array.itemsize for s in array.strides)


def test_strides_agree_with_numpy():
    """Whether a reshape is a view, and with which strides, is what NumPy decides."""
    rng = random.Random(7)
    for _ in range(400):
        shape = [rng.choice((1, 2, 3, 4)) for _ in range(rng.randint(1, 4))]
        array = np.zeros(shape)
        array = array.transpose(rng.sample(range(len(shape)), len(shape)))
        if rng.random() < 0.3:
            array = array[::2]
        new = factored(rng, array.size)
        found = reshape_strides(array.shape, numpy_strides(array), new)
        view = array.reshape(new)
        shared = np.shares_memory(view, array)
        assert (found is not None) == shared
        if found is not None:
            for size, mine, theirs in zip(new, found, numpy_strides(view), strict=True):
                assert size == 1 or mine == theirs


def factored(rng: random.Random, numel: int) -> tuple[int, ...]:
    """A random shape of that many elements."""
    shape = []
    while numel > 1:
        factor = rng.choice([f for f in range(1, numel + 1) if numel % f == 0])
        shape.append(factor)
        numel //= factor
    return tuple(shape) or (1,)


def test_layout_facts():
    assert contiguous_strides((2, 3, 4)) == (12, 4, 1)
    assert contiguous_strides((2, 0, 4)) == (4, 4, 1)
    assert is_contiguous((2, 1, 3), (3, 99, 1)) and not is_contiguous((2, 3), (1, 2))
    assert is_contiguous((0, 3), (7, 7))
    assert dense_order((2, 3), (1, 2)) == (1, 0) and dense_order((2, 3), (6, 1)) is None
    assert required_span((2, 3), (4, 1)) == 7 and required_span((2, 0), (4, 1)) == 0
