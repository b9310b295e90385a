"""The old type names: `torch.FloatTensor(3, 4)`, `isinstance(x, torch.LongTensor)`."""

from __future__ import annotations

from typing import Any

from flambeau.core import dtypes
from flambeau.tensor import interop, launches
from flambeau.tensor.meta import TensorBase, contiguous_meta
from flambeau.tensor.sizes import shape_of
from flambeau.tensor.tensor import Tensor

__all__ = ["BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor",
           "FloatTensor", "HalfTensor", "IntTensor", "LongTensor", "ShortTensor"]


class _LegacyType(type):
    """A name for "tensor of one dtype": instances are plain tensors."""

    dtype: dtypes.DType

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, TensorBase) and instance._meta.dtype is cls.dtype

    def __call__(cls, *args: Any) -> Tensor:
        """Sizes, or data converted to the dtype."""
        if len(args) == 1 and not isinstance(args[0], int) and not hasattr(args[0], "numel"):
            return interop.from_data(args[0], cls.dtype)
        if len(args) == 1 and isinstance(args[0], TensorBase):
            return args[0].to(cls.dtype)
        return launches.fresh(contiguous_meta(cls.dtype, shape_of(args) if args else (0,)))

    def __repr__(cls) -> str:
        return f"<class 'torch.{cls.__name__}'>"


def _make(dtype: dtypes.DType) -> _LegacyType:
    return _LegacyType(dtype.legacy, (), {"dtype": dtype, "__module__": "torch",
                                          "__doc__": f"Tensors of {dtype!r}, by their old name."})


FloatTensor, DoubleTensor, HalfTensor = map(
    _make, (dtypes.float32, dtypes.float64, dtypes.float16))
BFloat16Tensor, BoolTensor, ByteTensor = map(
    _make, (dtypes.bfloat16, dtypes.bool_, dtypes.uint8))
CharTensor, ShortTensor, IntTensor, LongTensor = map(
    _make, (dtypes.int8, dtypes.int16, dtypes.int32, dtypes.int64))
