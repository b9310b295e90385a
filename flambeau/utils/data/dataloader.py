"""DataLoader: batches of a dataset, read in the order of a sampler, in this process."""

from __future__ import annotations

import itertools
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import flambeau
from flambeau.tensor import Tensor
from flambeau.utils.data._utils.collate import default_collate, default_convert
from flambeau.utils.data.dataset import Dataset, IterableDataset
from flambeau.utils.data.sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
)

__all__ = ["DataLoader", "default_collate", "default_convert", "get_worker_info"]

_FIXED = ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers")


def get_worker_info() -> None:
    """None: samples are loaded in the main process."""


class _DatasetKind:
    """Whether a dataset is indexed or iterated."""

    Map = 0
    Iterable = 1


class _InfiniteConstantSampler(Sampler[None]):
    """None for ever: the place of a sampler where the dataset decides the order."""

    def __iter__(self) -> Iterator[None]:
        return itertools.repeat(None)


class DataLoader:
    """Iterates over batches of a dataset.

    Args:
        dataset: indexed or iterable-style.
        batch_size: samples per batch; None for single samples, not joined.
        shuffle: whether each pass uses a new random order.
        sampler: the order, instead of `shuffle`.
        batch_sampler: lists of indices, instead of all four other options of order.
        num_workers: 0. Loading in worker processes is not available yet.
        collate_fn: joins a list of samples into a batch.
        pin_memory: whether batches are copied to page-locked memory (with an accelerator).
        drop_last: whether a last, smaller batch is left out.
        timeout: accepted; it concerns worker processes.
        worker_init_fn: accepted; it concerns worker processes.
        multiprocessing_context: only with worker processes.
        generator: the source of randomness for the order.
        prefetch_factor: only with worker processes.
        persistent_workers: only with worker processes.
        pin_memory_device: deprecated.
        in_order: accepted; it concerns worker processes.

    Raises:
        NotImplementedError: `num_workers` is greater than 0.
        ValueError: options that exclude each other.
    """

    __initialized = False

    def __init__(self, dataset: Dataset, batch_size: int | None = 1, shuffle: bool | None = None,
                 sampler: Sampler | Iterable | None = None,
                 batch_sampler: Sampler[list] | Iterable[list] | None = None,
                 num_workers: int = 0, collate_fn: Callable | None = None,
                 pin_memory: bool = False, drop_last: bool = False, timeout: float = 0,
                 worker_init_fn: Callable | None = None, multiprocessing_context: Any = None,
                 generator: Any = None, *, prefetch_factor: int | None = None,
                 persistent_workers: bool = False, pin_memory_device: str = "",
                 in_order: bool = True) -> None:
        _check_worker_options(num_workers, timeout, prefetch_factor, persistent_workers,
                              multiprocessing_context)
        self.dataset = dataset
        self.num_workers = num_workers
        self.prefetch_factor = prefetch_factor
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.in_order = in_order
        self._dataset_kind = _DatasetKind.Map
        if isinstance(dataset, IterableDataset):
            self._dataset_kind = _DatasetKind.Iterable
            _check_iterable_options(shuffle, sampler, batch_sampler)
            shuffle = False
        shuffle = bool(shuffle)
        _check_order_options(batch_size, shuffle, sampler, batch_sampler, drop_last)
        if batch_sampler is not None:
            batch_size, drop_last = None, False
        if sampler is None:
            if self._dataset_kind == _DatasetKind.Iterable:
                sampler = _InfiniteConstantSampler()
            elif shuffle:
                sampler = RandomSampler(dataset, generator=generator)
            else:
                sampler = SequentialSampler(dataset)
        if batch_size is not None and batch_sampler is None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.generator = generator
        if collate_fn is None:
            collate_fn = default_collate if self._auto_collation else default_convert
        self.collate_fn = collate_fn
        self.persistent_workers = persistent_workers
        self._IterableDataset_len_called: int | None = None
        self.multiprocessing_context = multiprocessing_context
        self._pass: weakref.ref[_LoaderIterator] | None = None
        self._position: dict[str, Any] = {}  # where the next pass begins, from a state_dict
        self.__initialized = True

    def __setattr__(self, name: str, value: Any) -> None:
        if self.__initialized and name in _FIXED:
            raise ValueError(f"{name} attribute should not be set after {type(self).__name__} is "
                             "initialized")
        super().__setattr__(name, value)

    @property
    def _auto_collation(self) -> bool:
        return self.batch_sampler is not None

    @property
    def _index_sampler(self) -> Any:
        """What gives the key of one fetch: a list of indices, or one index."""
        return self.batch_sampler if self._auto_collation else self.sampler

    def __iter__(self) -> _LoaderIterator:
        position = self._position
        self._position = {}
        made = _LoaderIterator(self) if not position else self._resumed(position)
        self._pass = weakref.ref(made)
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pass": None}

    # -- where a pass is (PyTorch's loaders have no such methods; torchdata's have) ---------------
    def state_dict(self) -> dict[str, Any]:
        """Where the present pass is; {} if there is none. For `load_state_dict`, and for
        `flambeau.checkpoint`.

        Samplers may draw from `generator`, or from the default stream when a pass begins; one that
        draws from the default stream later, or an iterable dataset that does, is not brought back.
        """
        made = self._pass and self._pass()
        if made is None:
            return dict(self._position)
        return {"began": made._began, "batches": made._num_yielded}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next pass go on behind the batches that were taken."""
        unknown = set(state_dict) - {"began", "batches"}
        if unknown:
            raise KeyError(f"DataLoader.load_state_dict: unexpected {sorted(unknown)}; expected "
                           "what DataLoader.state_dict gave")
        self._position = dict(state_dict)
        self._pass = None

    def _streams(self) -> list[Any]:
        """The random streams that the order may be drawn from."""
        given = [self.generator, getattr(self.sampler, "generator", None)]
        return [flambeau.default_generator, *{id(g): g for g in given if g is not None}.values()]

    def _resumed(self, position: dict[str, Any]) -> _LoaderIterator:
        """The pass that began with these states, behind its first batches."""
        streams = self._streams()
        now = [stream.get_state() for stream in streams]
        for stream, state in zip(streams, position["began"], strict=True):
            stream.set_state(state)
        made = _LoaderIterator(self)
        made._skip(position["batches"])
        # The default stream has been drawn from by others since; the loader's own have not.
        streams[0].set_state(now[0])
        return made

    def __len__(self) -> int:
        """Number of batches; for an iterable-style dataset what its own length says."""
        if self._dataset_kind != _DatasetKind.Iterable:
            return len(self._index_sampler)
        length = self._IterableDataset_len_called = len(self.dataset)
        if self.batch_size is None:
            return length
        return length // self.batch_size if self.drop_last else -(-length // self.batch_size)


class _LoaderIterator:
    """One pass over a loader."""

    def __init__(self, loader: DataLoader):
        self._began = [stream.get_state() for stream in loader._streams()]
        self._loader = loader
        self._dataset = loader.dataset
        self._collate_fn = loader.collate_fn
        self._auto_collation = loader._auto_collation
        self._drop_last = loader.drop_last
        self._index_sampler = loader._index_sampler
        self._sampler_iter = iter(self._index_sampler)
        # Drawn although only worker processes need it: the order that a seed gives depends on it.
        self._base_seed = flambeau.empty((), dtype=flambeau.int64).random_(
            generator=loader.generator).item()
        self._num_yielded = 0
        self._pin_memory = loader.pin_memory and _can_pin()
        self._samples = None
        if loader._dataset_kind == _DatasetKind.Iterable:
            self._samples = iter(loader.dataset)
        self._exhausted = False

    def __iter__(self) -> _LoaderIterator:
        return self

    def __len__(self) -> int:
        return len(self._index_sampler)

    def __next__(self) -> Any:
        key = next(self._sampler_iter)
        data = self._fetch(key) if self._samples is None else self._fetch_next(key)
        if self._pin_memory:
            data = _pin(data)
        self._num_yielded += 1
        self._warn_of_length()
        return data

    def _skip(self, batches: int) -> None:
        """Pass over the first batches."""
        for _ in range(batches):
            key = next(self._sampler_iter)
            if self._samples is not None:
                wanted = len(key) if self._auto_collation else 1
                self._exhausted = len(list(itertools.islice(self._samples, wanted))) < wanted
        self._num_yielded = batches

    def _fetch(self, key: Any) -> Any:
        dataset = self._dataset
        if not self._auto_collation:
            return self._collate_fn(dataset[key])
        if getattr(dataset, "__getitems__", None):
            return self._collate_fn(dataset.__getitems__(key))
        return self._collate_fn([dataset[index] for index in key])

    def _fetch_next(self, key: Any) -> Any:
        if self._exhausted:
            raise StopIteration
        if not self._auto_collation:
            return self._collate_fn(next(self._samples))
        data = list(itertools.islice(self._samples, len(key)))
        self._exhausted = len(data) < len(key)
        if not data or (self._drop_last and self._exhausted):
            raise StopIteration
        return self._collate_fn(data)

    def _warn_of_length(self) -> None:
        said = self._loader._IterableDataset_len_called
        if self._samples is not None and said is not None and self._num_yielded > said:
            warnings.warn(f"Length of IterableDataset {self._dataset} was reported to be {said} "
                          f"(when accessing len(dataloader)), but {self._num_yielded} samples have "
                          "been fetched. ", stacklevel=3)


# The name that type checks in third-party code use.
_BaseDataLoaderIter = _SingleProcessDataLoaderIter = _LoaderIterator


def _can_pin() -> bool:
    cuda = getattr(flambeau, "cuda", None)
    if cuda is not None and cuda.is_available():
        return True
    warnings.warn("'pin_memory' argument is set as true but no accelerator is found, then device "
                  "pinned memory won't be used.", stacklevel=4)
    return False


def _pin(data: Any) -> Any:
    """The batch with all tensors in page-locked memory."""
    if isinstance(data, Tensor):
        return data.pin_memory()
    if isinstance(data, str | bytes):
        return data
    if isinstance(data, dict):
        return {key: _pin(value) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(_pin(value) for value in data))
    if isinstance(data, tuple | list):
        return [_pin(value) for value in data]
    return data.pin_memory() if hasattr(data, "pin_memory") else data


def _check_worker_options(num_workers: int, timeout: float, prefetch_factor: int | None,
                          persistent_workers: bool, multiprocessing_context: Any) -> None:
    if num_workers < 0:
        raise ValueError("num_workers option should be non-negative; use num_workers=0 to disable "
                         "multiprocessing.")
    if timeout < 0:
        raise ValueError("timeout option should be non-negative")
    if num_workers > 0:
        raise NotImplementedError(
            f"DataLoader(num_workers={num_workers}): worker processes (a shared-memory ring with a "
            "seed per epoch and index) are not available yet; use num_workers=0, which loads in "
            "this process in the same order"
        )
    if prefetch_factor is not None:
        raise ValueError("prefetch_factor option could only be specified in multiprocessing.let "
                         "num_workers > 0 to enable multiprocessing, otherwise set "
                         "prefetch_factor to None.")
    if persistent_workers:
        raise ValueError("persistent_workers option needs num_workers > 0")
    if multiprocessing_context is not None:
        raise ValueError("multiprocessing_context can only be used with multi-process loading "
                         f"(num_workers > 0), but got num_workers={num_workers}")


def _check_iterable_options(shuffle: Any, sampler: Any, batch_sampler: Any) -> None:
    for name, value in (("shuffle", shuffle or None), ("sampler", sampler),
                        ("batch_sampler", batch_sampler)):
        if value is not None:
            raise ValueError(f"DataLoader with IterableDataset: expected unspecified {name} "
                             f"option, but got {name}={value}")


def _check_order_options(batch_size: int | None, shuffle: bool, sampler: Any, batch_sampler: Any,
                         drop_last: bool) -> None:
    if sampler is not None and shuffle:
        raise ValueError("sampler option is mutually exclusive with shuffle")
    if batch_sampler is not None:
        if batch_size != 1 or shuffle or sampler is not None or drop_last:
            raise ValueError("batch_sampler option is mutually exclusive with batch_size, shuffle, "
                             "sampler, and drop_last")
    elif batch_size is None and drop_last:
        raise ValueError("batch_size=None option disables auto-batching and is mutually exclusive "
                         "with drop_last")
