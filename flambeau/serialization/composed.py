"""Sparse, nested and quantized tensors as the dense ones that they are made of, and back.

Each layout has the arguments that PyTorch's rebuilding function of it takes. What comes from a file
is checked as what a user passes: the constructors raise RuntimeError, TypeError or ValueError.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

from flambeau.core.dtypes import int64
from flambeau.core.qschemes import SCHEMES
from flambeau.core.shapes import contiguous_strides
from flambeau.serialization.errors import CheckpointError
from flambeau.serialization.geometry import check_geometry

__all__ = ["jagged_of", "nested_of", "parts_of", "quantized_of", "sparse_of"]


def parts_of(tensor: Any) -> tuple[str, Any] | None:
    """(layout's name, arguments of its rebuilding) of a tensor without plain memory, else None.

    Layout "strided" is that of nested tensors that are not jagged, "meta" the meta device's.
    """
    if tensor.device.type == "meta":
        return "meta", (tensor.dtype, tuple(tensor.shape), tuple(tensor.stride()),
                        tensor.requires_grad)
    if tensor._meta.strided:
        return None
    if tensor.is_quantized:
        quantized = importlib.import_module("flambeau.tensor.quantized.tensor")
        return "quantized", quantized.stored_parts(tensor)
    requires_grad, tensor, name = tensor.requires_grad, tensor.detach(), tensor.layout.name
    if name == "strided":
        return name, _nested_parts(tensor)
    if name == "jagged":
        return name, {"values": tensor.values(), "offsets": tensor.offsets(), "lengths": None,
                      "_ragged_idx": tensor._structure.ragged, "_metadata_cache": {},
                      "requires_grad": requires_grad}
    if name == "sparse_coo":
        return name, (tensor._indices(), tensor._values(), tensor.size(), tensor.is_coalesced())
    rows = name in ("sparse_csr", "sparse_bsr")
    compressed = tensor.crow_indices() if rows else tensor.ccol_indices()
    plain = tensor.col_indices() if rows else tensor.row_indices()
    return name, (compressed, plain, tensor.values(), tensor.size())


def quantized_of(plain: Any, shape: tuple, parameters: tuple) -> Any:
    """A quantized tensor of its levels, with the quantized dtype, and its quantizer's parameters.
    """
    quantized = importlib.import_module("flambeau.tensor.quantized.tensor")
    importlib.import_module("flambeau.tensor.quantized.rules")
    if parameters[0] not in SCHEMES.values():
        raise ValueError(f"there is no quantization scheme {parameters[0]!r}")
    return quantized.from_stored(plain, shape, parameters)


def sparse_of(layout: Any, parts: Sequence) -> Any:
    """A sparse tensor of indices, values and size."""
    construct = importlib.import_module("flambeau.tensor.sparse.construct")
    if layout.name == "sparse_coo":
        indices, values, size, *coalesced = parts
        return construct.sparse_coo_tensor(indices, values, size, check_invariants=True,
                                           is_coalesced=coalesced[0] if coalesced else None)
    compressed, plain, values, size = parts
    return construct.sparse_compressed_tensor(compressed, plain, values, size, layout=layout,
                                              check_invariants=True)


# -- nested ---------------------------------------------------------------------------------------

def _nested_parts(tensor: Any) -> tuple:
    """(numbers, (n, d) sizes, (n, d) strides, (n,) offsets): parts lie one behind the other."""
    import flambeau

    shapes = tensor._structure.shapes
    strides, starts, at = [], [], 0
    for shape in shapes:
        strides.append(contiguous_strides(shape))
        starts.append(at)
        at += math.prod(shape)
    rank = len(shapes[0]) if shapes else 0
    sizes, steps = (flambeau.tensor([list(row) for row in rows], dtype=int64).reshape(
        len(shapes), rank) for rows in (shapes, strides))
    return tensor._numbers.reshape(-1), sizes, steps, flambeau.tensor(starts, dtype=int64)


def nested_of(numbers: Any, sizes: Any, strides: Any, offsets: Any) -> Any:
    """A nested tensor of views of one vector."""
    construct = importlib.import_module("flambeau.tensor.nested.construct")
    rows = list(zip(sizes.tolist(), strides.tolist(), offsets.tolist(), strict=True))
    size = numbers.dtype.itemsize
    if sum(math.prod(shape) for shape, _, _ in rows) > numbers.numel():
        raise ValueError("the parts share numbers")
    parts = []
    for shape, steps, start in rows:
        check_geometry(numbers.numel() * size, size, shape, steps, start)
        parts.append(numbers.as_strided(shape, steps, numbers.storage_offset() + start))
    return construct.nested_tensor(parts, dtype=numbers.dtype)


def jagged_of(parts: dict[str, Any]) -> Any:
    """A nested tensor with the layout torch.jagged."""
    construct = importlib.import_module("flambeau.tensor.nested.construct")
    made = construct.nested_tensor_from_jagged(
        parts["values"], parts["offsets"], parts.get("lengths"), parts.get("_ragged_idx", 1))
    return made.requires_grad_() if parts.get("requires_grad") is True else made


def meta_of(dtype: Any, shape: tuple, strides: tuple, requires_grad: bool) -> Any:
    """A tensor of the meta device."""
    import flambeau

    try:
        return flambeau.empty_strided(shape, strides, dtype=dtype, device="meta",
                                      requires_grad=requires_grad)
    except NotImplementedError as error:
        raise CheckpointError(f"a tensor of the meta device cannot be made: {error}") from None
