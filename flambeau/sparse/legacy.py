"""`torch.sparse.FloatTensor` and the like: constructors and types in one."""

from __future__ import annotations

from typing import Any

import flambeau
from flambeau.tensor.formats import sparse_coo
from flambeau.tensor.sparse.tensor import SparseTensor

__all__ = ["legacy_type"]


class _LegacyType(type):
    """A type whose instances are the COO tensors of one dtype."""

    dtype: Any

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, SparseTensor) and instance.layout is sparse_coo and (
            instance.dtype is cls.dtype)

    def __call__(cls, *args: Any) -> SparseTensor:
        if not args:
            return flambeau.sparse_coo_tensor((0,), dtype=cls.dtype)
        if not isinstance(args[0], flambeau.Tensor):
            size = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
            return flambeau.sparse_coo_tensor(tuple(size), dtype=cls.dtype)
        indices, values, *size = args
        return flambeau.sparse_coo_tensor(indices, values.to(cls.dtype), *size)


def legacy_type(name: str, dtype: Any) -> type:
    """The type of this name."""
    return _LegacyType(name, (), {"dtype": dtype, "__module__": "torch.sparse"})
