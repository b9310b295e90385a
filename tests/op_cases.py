"""From the samples of an op record to arrays, and to tensors of Flambeau or PyTorch.

Nothing here imports PyTorch: functions take the framework as an argument.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np

import flambeau
from flambeau.core.dtypes import DType
from flambeau.ops.record import REGISTRY, Op
from flambeau.ops.samples import Arr
from flambeau.tensor.functions import ops

__all__ = ["Case", "RECORDS", "cases", "family", "function_of", "inplace_of", "named", "private",
           "tensors", "to_tensor", "to_array", "leaves", "short_name", "widened"]

flambeau.Tensor  # noqa: B018 - the methods are attached when the class is first used

RECORDS: dict[str, Op] = dict(REGISTRY)
"""Every op by name. A copy: tests may register more."""

NUMPY = {"bfloat16": ml_dtypes.bfloat16, "bool": np.bool_}


@dataclasses.dataclass
class Case:
    """One call of an op, with arrays where tensors go.

    Attributes:
        label: what the call is, for failure messages.
        floating: for each array (in order), whether gradients can be asked of it.
    """

    label: str
    args: tuple
    kwargs: dict[str, Any]
    floating: list[bool]


def short_name(record: Op) -> str:
    return record.name.split(".")[-1]


def private(record: Op) -> bool:
    """Only for use inside the package: PyTorch has no function or method of this name."""
    return short_name(record).startswith("_") or not (record.public or record.method)


def family(record: Op) -> str:
    """The module of flambeau.ops that defines the op."""
    return record.body.__module__.rpartition(".")[2]


def function_of(record: Op) -> Any:
    return getattr(ops, short_name(record))


def inplace_of(record: Op) -> Any:
    return getattr(ops, short_name(record) + "_")


def cases(record: Op, dtype: str = "float32") -> Iterator[Case]:
    """The op's samples as arrays; the same values in every run."""
    for number, item in enumerate(record.samples()):
        seed = zlib.crc32(f"{record.name} {number}".encode())
        rng = np.random.default_rng(seed)
        floating: list[bool] = []
        args = tuple(_made(a, dtype, rng, floating) for a in item.args)
        kwargs = {k: _made(a, dtype, rng, floating) for k, a in item.kwargs.items()}
        yield Case(_label(record, item, dtype), args, kwargs, floating)


def _label(record: Op, item: Any, dtype: str) -> str:
    words = [_words(a) for a in item.args] + [f"{k}={_words(a)}" for k, a in item.kwargs.items()]
    return f"{record.name}({', '.join(words)}) of {dtype}"


def _words(arg: Any) -> str:
    if isinstance(arg, Arr):
        return f"{arg.dtype or ''}{list(arg.shape)}"
    if isinstance(arg, (tuple, list)):
        return f"({', '.join(_words(item) for item in arg)})"
    return repr(arg)


def _made(arg: Any, dtype: str, rng: np.random.Generator, floating: list[bool]) -> Any:
    if isinstance(arg, Arr):
        array = _array(arg, arg.dtype or dtype, rng)
        floating.append(arg.requires_grad and arg.dtype in (None, dtype)
                        and array.dtype.kind in "fc")
        return array
    if isinstance(arg, (tuple, list)):
        return tuple(_made(item, dtype, rng, floating) for item in arg)
    if isinstance(arg, np.ndarray):  # given, not drawn: for values that must be in order
        floating.append(False)
    return arg


def _array(arr: Arr, dtype: str, rng: np.random.Generator) -> np.ndarray:
    shape = tuple(arr.shape)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(np.bool_)
    if "int" in dtype:
        low = max(0, int(np.ceil(arr.low))) if dtype.startswith("u") else int(np.ceil(arr.low))
        return rng.integers(low, max(int(np.ceil(arr.high)), low + 1), shape).astype(dtype)
    if dtype.startswith("complex"):
        real, imag = rng.uniform(arr.low, arr.high, (2, *shape))
        return np.asarray(real + 1j * imag).astype(dtype)
    return np.asarray(rng.uniform(arr.low, arr.high, shape)).astype(NUMPY.get(dtype, dtype))


def leaves(value: Any) -> Iterator[Any]:
    """The members of nested tuples and lists."""
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def widened(value: Any) -> Any:
    """Arguments with arrays of 16-bit floats as float32."""
    if isinstance(value, np.ndarray) and value.dtype in (np.float16, ml_dtypes.bfloat16):
        return value.astype(np.float32)
    if isinstance(value, tuple):
        return tuple(widened(item) for item in value)
    if isinstance(value, dict):
        return {key: widened(item) for key, item in value.items()}
    return value


def named(torch: ModuleType, dtype: DType) -> Any:
    """A dtype of Flambeau as one of `torch`."""
    return getattr(torch, dtype.name)


def to_tensor(torch: ModuleType, array: np.ndarray) -> Any:
    """A tensor with a copy of the array's elements, also for bfloat16, in the array's order."""
    if array.dtype == ml_dtypes.bfloat16:
        bits = torch.from_numpy(array.view(np.int16).copy(order="K"))
        return bits.view(torch.bfloat16)
    return torch.from_numpy(array.copy(order="K"))


def tensors(torch: ModuleType, value: Any) -> Any:
    """The arguments of a case for `torch`: arrays become tensors, dtypes its dtypes."""
    if isinstance(value, np.ndarray):
        return to_tensor(torch, value)
    if isinstance(value, tuple):
        return tuple(tensors(torch, item) for item in value)
    if isinstance(value, dict):
        return {key: tensors(torch, item) for key, item in value.items()}
    return named(torch, value) if isinstance(value, DType) else value


def to_array(torch: ModuleType, tensor: Any) -> np.ndarray:
    """The elements as an array; bfloat16 as float32, which holds them exactly."""
    tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.to(torch.float32)
    return tensor.numpy(force=True)
