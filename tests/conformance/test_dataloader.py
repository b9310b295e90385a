"""utils.data: the same loading under Flambeau and PyTorch - orders, batches, errors."""

from __future__ import annotations

import collections
import warnings

import numpy as np
import pytest
import torch as pytorch

import flambeau

Point = collections.namedtuple("Point", "x y")
TENSORS = (flambeau.Tensor, pytorch.Tensor)


def plain(value):
    """Tensors as arrays (dtype and all), inside any nesting."""
    if isinstance(value, TENSORS):
        array = value.numpy()
        return str(array.dtype), array.shape, array.tolist()
    if isinstance(value, collections.abc.Mapping):
        return type(value).__name__, {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [plain(item) for item in value]
    return value


def compare(program):
    ours, theirs = program(flambeau), program(pytorch)
    assert ours == theirs
    return ours


def names(torch):
    data = torch.utils.data

    class Squares(data.Dataset):
        def __len__(self):
            return 11

        def __getitem__(self, index):
            return index * index

    class Batched(Squares):
        def __getitems__(self, indices):
            return [-index for index in indices]

    class Stream(data.IterableDataset):
        def __iter__(self):
            return iter(range(7))

    class Sized(Stream):
        def __len__(self):
            return 7

    found = {name: getattr(data, name) for name in flambeau.utils.data.__all__}
    return {**found, "torch": torch, "np": np, "Point": Point, "Squares": Squares,
            "Batched": Batched, "Stream": Stream, "Sized": Sized,
            "g": torch.Generator().manual_seed(3), "ds": Squares(),
            "rows": data.TensorDataset(torch.arange(10).reshape(5, 2), torch.ones(5))}


ORDERS = """
DataLoader(ds, 3, shuffle=True)
DataLoader(ds, 4)
DataLoader(ds, 4, drop_last=True, shuffle=True)
DataLoader(ds, 4, shuffle=True, generator=g)
DataLoader(ds, None)
DataLoader(ds, None, shuffle=True)
DataLoader(ds, 3, sampler=RandomSampler(ds, replacement=True, num_samples=70))
DataLoader(ds, 3, sampler=RandomSampler(ds, num_samples=25, generator=g))
DataLoader(ds, 3, sampler=SubsetRandomSampler([1, 5, 7, 9]))
DataLoader(ds, 3, sampler=SubsetRandomSampler([1, 5, 7, 9], generator=g))
DataLoader(ds, 3, sampler=WeightedRandomSampler([0.1, 0.5, 0.4], 9))
DataLoader(ds, 3, sampler=[2, 1, 0, 5])
DataLoader(ds, batch_sampler=BatchSampler(RandomSampler(ds), 4, True))
DataLoader(ds, batch_sampler=[[1, 2], [3]])
DataLoader(ds, 3, collate_fn=list)
DataLoader(Batched(), 4, shuffle=True)
DataLoader(Stream(), 3)
DataLoader(Stream(), 3, drop_last=True)
DataLoader(Stream(), None)
DataLoader(Sized(), 4)
DataLoader(rows, 2, shuffle=True)
DataLoader([1, 2, 3], 2)
DataLoader(np.arange(5.0), 2)
DataLoader(Subset(rows, [4, 0, 2]), 2)
DataLoader(Subset(Batched(), [4, 0, 2]), 2)
DataLoader(ConcatDataset([ds, rows]), 1, sampler=[0, 12, -1, 10])
DataLoader(StackDataset(ds, Batched()), 4)
DataLoader(StackDataset(a=ds, b=ds), 4)
DataLoader(Stream() + Sized(), 5)
DataLoader(ds + ds, 5, shuffle=True)
DistributedSampler(ds, 3, 1)
DistributedSampler(ds, 4, 0, drop_last=True, seed=3)
DistributedSampler(ds, 4, 3, shuffle=False)
SequentialSampler(ds)
""".strip().splitlines()


@pytest.mark.parametrize("text", ORDERS)
def test_order(text):
    """Two passes and what the default generator gives afterwards."""
    def program(torch):
        torch.manual_seed(5)
        loader = eval(text, names(torch))
        passes = [[plain(batch) for batch in loader] for _ in range(2)]
        try:
            length = len(loader)
        except TypeError as error:
            length = str(error)
        return passes, length, round(float(torch.rand(())), 6)
    compare(program)


def test_one_batch_at_a_time():
    def program(torch):
        torch.manual_seed(1)
        loader = torch.utils.data.DataLoader(list(range(10)), 3, shuffle=True)
        first = plain(next(iter(loader)))
        iterator = iter(loader)
        seen = [plain(next(iterator)), len(iterator), plain(next(iterator))]
        return first, seen, loader.batch_size, type(loader.sampler).__name__, round(
            float(torch.rand(())), 6)
    compare(program)


SPLITS = ["[3, 8]", "[0.5, 0.5]", "[0.9, 0.05, 0.05]", "[0.3, 0.3, 0.4]", "[5, 6], generator=g"]


@pytest.mark.parametrize("text", SPLITS)
@pytest.mark.filterwarnings("ignore")
def test_split(text):
    def program(torch):
        torch.manual_seed(2)
        return [part.indices for part in eval(f"random_split(ds, {text})", names(torch))]
    compare(program)


COLLATED = """
[1, 2]
[1.0, 2.0]
[True, False]
['a', 'b']
[b'a']
[(1, 2.0), (3, 4.0)]
[[1, 2], [3, 4]]
[{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'y'}]
[Point(1, 2), Point(3, 4.5)]
[np.ones(2), np.zeros(2)]
[np.ones((1, 2), 'int8')]
[np.float32(1), np.float32(2)]
[np.float64(1)]
[np.int32(3)]
[np.array(3.0)]
[torch.ones(2), torch.zeros(2)]
[(torch.ones(2), 1, {'k': [np.ones(1), 'x']})] * 2
[__import__('collections').OrderedDict(a=1)]
[__import__('collections').defaultdict(list, a=1)]
[range(2), range(2)]
[np.array('a')]
[object()]
[None]
[[1], [1, 2]]
[{1, 2}]
""".strip().splitlines()


@pytest.mark.parametrize("text", COLLATED)
def test_collate(text):
    def program(torch):
        results = []
        for function in (torch.utils.data.default_collate, torch.utils.data.default_convert):
            try:
                results.append(plain(function(eval(text, names(torch)))))
            except Exception as error:
                results.append((type(error).__name__, str(error)))
        return repr(results).split(" at 0x")[0]
    compare(program)


ERRORS = """
DataLoader(ds, num_workers=-1)
DataLoader(ds, timeout=-1)
DataLoader(ds, prefetch_factor=2)
DataLoader(ds, persistent_workers=True)
DataLoader(ds, shuffle=True, sampler=SequentialSampler(ds))
DataLoader(ds, batch_sampler=[[1]], batch_size=3)
DataLoader(ds, batch_sampler=[[1]], shuffle=True)
DataLoader(ds, batch_sampler=[[1]], drop_last=True)
DataLoader(ds, None, drop_last=True)
DataLoader(ds, 0)
DataLoader(ds, 1.5)
DataLoader(ds, True)
DataLoader(ds, drop_last=3)
DataLoader(ds, multiprocessing_context='fork')
DataLoader(Stream(), shuffle=True)
DataLoader(Stream(), sampler=range(3))
DataLoader(Stream(), batch_sampler=[[1]])
DataLoader([], shuffle=True)
setattr(DataLoader(ds), 'batch_size', 3)
setattr(DataLoader(ds), 'sampler', 3)
len(DataLoader(Stream()))
RandomSampler(ds, replacement=3)
RandomSampler(ds, num_samples=0)
RandomSampler([])
WeightedRandomSampler([1.0, 2.0], 0)
WeightedRandomSampler([1.0, 2.0], 2, 3)
WeightedRandomSampler([[1.0, 2.0]], 2)
BatchSampler(ds, 0, False)
BatchSampler(ds, 2, 3)
DistributedSampler(ds, 2, 3)
TensorDataset(torch.ones(2), torch.ones(3))
ConcatDataset([])
ConcatDataset([Stream()])
ConcatDataset([ds, ds])[22]
ConcatDataset([ds, ds])[-23]
StackDataset()
StackDataset(ds, [1])
StackDataset(ds, a=ds)
random_split(ds, [3, 3])
random_split(ds, [0.5, 0.6])
random_split(ds, [-0.5, 0.5])
Dataset()[0]
len(Dataset())
""".strip().splitlines()


@pytest.mark.parametrize("text", ERRORS)
def test_error(text):
    def program(torch):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                eval(text, names(torch))
        except Exception as error:
            return type(error).__name__, str(error)
        return None
    compare(program)
