"""Datasets, samplers, collation and the loader."""

from __future__ import annotations

import collections

import numpy as np
import pytest


@pytest.fixture
def data(torch):
    return torch.utils.data


def test_batches_in_order(torch, data):
    rows = data.TensorDataset(torch.arange(10).reshape(5, 2), torch.arange(5.0))
    loader = data.DataLoader(rows, batch_size=2)
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert batches[0][0].tolist() == [[0, 1], [2, 3]]
    assert batches[2][1].tolist() == [4.0]
    assert len(list(data.DataLoader(rows, 2, drop_last=True))) == 2


def test_shuffling(torch, data):
    def order(seed):
        torch.manual_seed(seed)
        loader = data.DataLoader(range(20), 20, shuffle=True)
        return [next(iter(loader)).tolist() for _ in range(2)]

    first, second = order(1)
    assert sorted(first) == list(range(20))
    assert first != second
    assert order(1) == [first, second]
    assert order(2) != [first, second]


def test_a_generator_decides_the_order(torch, data):
    def order():
        generator = torch.Generator().manual_seed(7)
        loader = data.DataLoader(range(20), 20, shuffle=True, generator=generator)
        torch.rand(3)
        return next(iter(loader)).tolist()

    assert order() == order()


def test_samplers(torch, data):
    assert sorted(data.SubsetRandomSampler([3, 5, 9])) == [3, 5, 9]
    drawn = list(data.RandomSampler(range(4), replacement=True, num_samples=100))
    assert len(drawn) == 100
    assert set(drawn) <= {0, 1, 2, 3}
    assert len(list(data.RandomSampler(range(4), num_samples=10))) == 10
    weighted = list(data.WeightedRandomSampler([0.0, 1.0, 0.0], 5))
    assert weighted == [1] * 5
    assert list(data.BatchSampler(range(5), 2, False)) == [[0, 1], [2, 3], [4]]
    assert list(data.BatchSampler(range(5), 2, True)) == [[0, 1], [2, 3]]
    shares = [list(data.DistributedSampler(range(10), 3, rank)) for rank in range(3)]
    assert [len(share) for share in shares] == [4, 4, 4]
    assert set().union(*shares) == set(range(10))


def test_iterable_dataset(torch, data):
    class Stream(data.IterableDataset):
        def __iter__(self):
            yield from range(5)

    assert [b.tolist() for b in data.DataLoader(Stream(), 2)] == [[0, 1], [2, 3], [4]]
    assert [b.tolist() for b in data.DataLoader(Stream(), 2, drop_last=True)] == [[0, 1], [2, 3]]
    assert list(data.DataLoader(Stream(), None)) == [0, 1, 2, 3, 4]
    assert len(list(Stream() + Stream())) == 10


def test_datasets(torch, data):
    both = data.ConcatDataset([range(3), range(10, 12)])
    assert [both[i] for i in range(5)] == [0, 1, 2, 10, 11]
    assert both[-1] == 11
    subset = data.Subset(both, [4, 0])
    assert [subset[0], subset[1], len(subset)] == [11, 0, 2]
    assert data.StackDataset(range(3), range(3, 6))[1] == (1, 4)
    parts = data.random_split(range(10), [0.75, 0.25])
    assert [len(part) for part in parts] == [8, 2]
    assert sorted(parts[0].indices + parts[1].indices) == list(range(10))
    with pytest.raises(ValueError, match="Sum of input lengths"):
        data.random_split(range(10), [1, 2])


def test_collation(torch, data):
    Point = collections.namedtuple("Point", "x y")
    joined = data.default_collate([
        {"a": 1, "b": (2.0, "t"), "c": np.ones(2, "int16"), "d": Point(True, torch.zeros(3))},
        {"a": 2, "b": (3.0, "u"), "c": np.zeros(2, "int16"), "d": Point(False, torch.ones(3))}])
    assert joined["a"].tolist() == [1, 2]
    assert joined["a"].dtype == torch.int64
    assert joined["b"][0].dtype == torch.float64
    assert joined["b"][1] == ("t", "u")
    assert joined["c"].dtype == torch.int16
    assert joined["d"].x.tolist() == [True, False]
    assert list(joined["d"].y.shape) == [2, 3]
    with pytest.raises(TypeError, match="batch must contain tensors"):
        data.default_collate([object()])
    with pytest.raises(RuntimeError, match="equal size"):
        data.default_collate([[1], [1, 2]])


def test_workers_are_refused_with_advice(data):
    with pytest.raises(NotImplementedError, match="use num_workers=0"):
        data.DataLoader(range(3), num_workers=2)
    assert data.get_worker_info() is None


def test_fixed_attributes(data):
    loader = data.DataLoader(range(3))
    with pytest.raises(ValueError, match="should not be set after"):
        loader.batch_size = 2


def test_custom_collate_and_batch_sampler(data):
    loader = data.DataLoader(range(6), batch_sampler=[[0, 5], [2]], collate_fn=tuple)
    assert list(loader) == [(0, 5), (2,)]
    assert loader.batch_size is None
