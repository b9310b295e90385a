"""Making one batch of many samples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np

import flambeau
from flambeau.tensor import Tensor

__all__ = ["default_collate", "default_convert", "collate"]

# NumPy arrays of these kinds (strings, bytes, objects) hold no numbers.
_NOT_NUMERIC = "SUO"


def _is_namedtuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def default_convert(data: Any) -> Any:
    """NumPy arrays and numbers as tensors, inside any nesting; everything else stays as it is."""
    if isinstance(data, Tensor):
        return data
    if isinstance(data, np.ndarray | np.generic):
        return data if data.dtype.kind in _NOT_NUMERIC else flambeau.as_tensor(data)
    if isinstance(data, Mapping):
        return _like_mapping(data, {key: default_convert(data[key]) for key in data})
    if _is_namedtuple(data):
        return type(data)(*(default_convert(item) for item in data))
    if isinstance(data, tuple):
        return [default_convert(item) for item in data]
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        return _like_sequence(data, [default_convert(item) for item in data])
    return data


def _like_mapping(pattern: Mapping, items: dict) -> Any:
    """`items` in a mapping of the type of `pattern` if that can be made, else in a dict."""
    try:
        if isinstance(pattern, MutableMapping):
            # A copy keeps what the constructor would ask for, such as a default factory.
            made = copy.copy(pattern)
            made.update(items)
            return made
        return type(pattern)(items)
    except TypeError:
        return items


def _like_sequence(pattern: Sequence, items: list) -> Any:
    """`items` in a sequence of the type of `pattern` if that can be made, else in a list."""
    try:
        if isinstance(pattern, MutableSequence):
            made = copy.copy(pattern)
            for index, item in enumerate(items):
                made[index] = item
            return made
        return type(pattern)(items)
    except TypeError:
        return items


def _collate_tensors(batch: list, collate_fn_map: dict | None = None) -> Tensor:
    return flambeau.stack(list(batch), 0)


def _collate_arrays(batch: list, collate_fn_map: dict | None = None) -> Tensor:
    if batch[0].dtype.kind in _NOT_NUMERIC:
        raise TypeError(_message(batch[0].dtype))
    return flambeau.stack([flambeau.as_tensor(array) for array in batch], 0)


def _collate_numpy_scalars(batch: list, collate_fn_map: dict | None = None) -> Tensor:
    return flambeau.as_tensor(np.asarray(batch))


def _collate_floats(batch: list, collate_fn_map: dict | None = None) -> Tensor:
    return flambeau.tensor(batch, dtype=flambeau.float64)


def _collate_ints(batch: list, collate_fn_map: dict | None = None) -> Tensor:
    return flambeau.tensor(batch)


def _collate_texts(batch: list, collate_fn_map: dict | None = None) -> list:
    return batch


default_collate_fn_map: dict[Any, Callable] = {
    Tensor: _collate_tensors,
    np.ndarray: _collate_arrays,
    (np.bool_, np.number, np.object_): _collate_numpy_scalars,
    float: _collate_floats,
    int: _collate_ints,
    str: _collate_texts,
    bytes: _collate_texts,
}


def collate(batch: Any, *, collate_fn_map: dict[Any, Callable] | None = None) -> Any:
    """Join the samples of `batch`, going into mappings and sequences.

    Args:
        batch: the samples, all of one structure.
        collate_fn_map: per type (or tuple of types) the function that joins such values; called
            with the list of values and `collate_fn_map=`.

    Raises:
        TypeError: a value is of a type that cannot be joined.
        RuntimeError: sequences in the batch differ in length.
    """
    first = batch[0]
    kind = type(first)
    if collate_fn_map is not None:
        if kind in collate_fn_map:
            return collate_fn_map[kind](batch, collate_fn_map=collate_fn_map)
        for types, join in collate_fn_map.items():
            if isinstance(first, types):
                return join(batch, collate_fn_map=collate_fn_map)
    if isinstance(first, Mapping):
        return _like_mapping(first, {
            key: collate([sample[key] for sample in batch], collate_fn_map=collate_fn_map)
            for key in first})
    if _is_namedtuple(first):
        return kind(*(collate(values, collate_fn_map=collate_fn_map)
                      for values in zip(*batch, strict=True)))
    if isinstance(first, Sequence):
        if not all(len(sample) == len(first) for sample in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        joined = [collate(values, collate_fn_map=collate_fn_map)
                  for values in zip(*batch, strict=True)]
        return joined if isinstance(first, tuple) else _like_sequence(first, joined)
    raise TypeError(_message(kind))


def _message(found: Any) -> str:
    return ("default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; "
            f"found {found}")


def default_collate(batch: Any) -> Any:
    """Join samples: tensors, arrays and numbers become one tensor with a new first dimension.

    Inside mappings, tuples and lists their members are joined; texts stay a list. Python floats
    become float64, ints int64.
    """
    return collate(batch, collate_fn_map=default_collate_fn_map)
