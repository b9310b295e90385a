"""What indices must be like. Ranges are always checked: a wrong index would lead outside of memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.tensor.functions import ops
from flambeau.tensor.sparse.patterns import Compressed, Coo, is_blocked

__all__ = ["check_coalesced", "check_compressed", "check_compressed_parts", "check_coo",
           "set_wanted", "wanted"]

_state = {"enabled": False}


def wanted(here: bool | None = None) -> bool:
    """Shall the invariants be checked that cost more: by what a call says, else by the setting?"""
    return _state["enabled"] if here is None else bool(here)


def set_wanted(enabled: bool) -> None:
    """Change the setting."""
    _state["enabled"] = bool(enabled)


# ---------------------------------------------------------------------- COO
def check_coo(indices: Any, values: Any, size: Sequence[int] | None) -> tuple:
    """The shape of a tensor of these parts.

    Raises:
        RuntimeError: they do not go together, or an index is out of range.
    """
    if indices.ndim != 2:
        raise RuntimeError(f"indices must be sparse_dim x nnz, but got: {list(indices.shape)}")
    dims, count = indices.shape
    if values.ndim == 0:
        raise RuntimeError("values must have a dimension for the entries (nnz), but got a 0-d "
                           "tensor; write [value]")
    if values.shape[0] != count:
        raise RuntimeError("indices and values must have same nnz, but got nnz from indices: "
                           f"{count}, nnz from values: {values.shape[0]}")
    dense = tuple(values.shape[1:])
    if size is None and indices.is_meta:
        raise RuntimeError("tensors on meta have no indices to find the size by: give the size")
    low, high = ([], []) if indices.is_meta else _range(indices)
    for dim, least in enumerate(low):
        if least < 0:
            raise RuntimeError(f"found negative index {least} for dim {dim}")
    if size is None:
        return (*(top + 1 for top in high), *dense) if count else (*(0,) * dims, *dense)
    size = tuple(size)
    if len(size) != dims + len(dense):
        raise RuntimeError("'len(size) == sparse_dim + dense_dim' is not satisfied: len(size) = "
                           f"{len(size)}, sparse_dim = {dims}, dense_dim = {len(dense)}")
    if size[dims:] != dense:
        raise RuntimeError(f"values has incorrect size, expected {[count, *size[dims:]]}, got "
                           f"{list(values.shape)}")
    for dim, top in enumerate(high):
        if count and top >= size[dim]:
            raise RuntimeError(f"size is inconsistent with indices: for dim {dim}, size is "
                               f"{size[dim]} but found index {top}")
    return size


def _range(indices: Any) -> tuple[list, list]:
    """(smallest, largest) index of each dimension; empty lists if there are no entries."""
    if not indices.numel():
        return [], []
    return ops.amin(indices, 1).tolist(), ops.amax(indices, 1).tolist()


def check_coalesced(pattern: Coo) -> None:
    """Raise if entries are not sorted, or repeat."""
    how = pattern.coalescing()
    if how.order is not None or how.offsets is not None:
        raise RuntimeError("cannot set is_coalesced to true if indices correspond to uncoalesced "
                           "COO tensor")


# ---------------------------------------------------------------------- compressed
def check_compressed_parts(names: tuple, layout: Any, offsets: Any, plain: Any, values: Any
                           ) -> tuple:
    """The blocks' size, () if there are none.

    Raises:
        RuntimeError: the parts have too few dimensions, or other batches.
    """
    base = 2 if is_blocked(layout) else 0
    if offsets.ndim < 1 or plain.ndim < 1:
        raise RuntimeError(f"`{names[0]}` and `{names[1]}` must have at least 1 dimension, got "
                           f"{offsets.ndim} and {plain.ndim}")
    if offsets.ndim != plain.ndim or offsets.shape[:-1] != plain.shape[:-1]:
        raise RuntimeError(f"`{names[0]}` and `{names[1]}` must have the same batch dimensions, "
                           f"got shapes {list(offsets.shape)} and {list(plain.shape)}")
    batch = plain.ndim - 1
    if values.ndim < batch + 1 + base or values.shape[:batch] != plain.shape[:batch]:
        raise RuntimeError(f"values must have at least {batch + 1 + base} dimensions and the "
                           f"batch {list(plain.shape[:batch])}, got shape {list(values.shape)}")
    if values.shape[batch] != plain.shape[-1]:
        raise RuntimeError(f"`{names[1]}` and `values` must have the same number of entries, got "
                           f"{plain.shape[-1]} and {values.shape[batch]}")
    return tuple(values.shape[batch + 1:batch + 1 + base])


def check_compressed(names: tuple, pattern: Compressed, values: Any, thorough: bool) -> None:
    """Raise RuntimeError if offsets or indices do not fit the shape, or are not in order."""
    batch, block = len(pattern.batch), pattern.block
    dense = tuple(values.shape[batch + 1 + len(block):])
    if len(pattern.shape) != batch + 2 + len(dense):
        raise RuntimeError(f"size must have {batch + 2 + len(dense)} dimensions ({batch} of the "
                           f"batch, 2 sparse, {len(dense)} dense), got {list(pattern.shape)}")
    if pattern.shape[:batch] != pattern.batch or pattern.dense_shape != dense:
        raise RuntimeError(f"size {list(pattern.shape)} does not fit the batch "
                           f"{list(pattern.batch)} and values of shape {list(values.shape)}")
    rows, columns = pattern.matrix
    lines, across = (rows, columns) if names[0] == "crow_indices" else (columns, rows)
    offsets, plain = pattern.indices
    _need(offsets.shape[-1] == lines + 1,
          f"`{names[0]}.shape[-1] == number of compressed lines + 1` is not satisfied: the shape "
          f"is {list(offsets.shape)}, and size {list(pattern.shape)} has {lines} of them")
    if offsets.is_meta:
        return  # there are no numbers to check
    _need(bool(ops.all(ops.eq(offsets[..., 0], 0))), f"`{names[0]}[..., 0] == 0` is not satisfied")
    _need(bool(ops.all(ops.eq(offsets[..., -1], pattern.nnz))),
          f"`{names[0]}[..., -1] == nnz` is not satisfied: nnz is {pattern.nnz}")
    steps = offsets[..., 1:] - offsets[..., :-1]
    _need(bool(ops.all(ops.ge(steps, 0))),
          f"`0 <= {names[0]}[..., i] - {names[0]}[..., i - 1]` is not satisfied")
    _need(bool(ops.all(ops.le(steps, across))),
          f"`{names[0]}[..., i] - {names[0]}[..., i - 1] <= {across}` is not satisfied")
    if plain.numel():
        low, high = int(ops.amin(plain).item()), int(ops.amax(plain).item())
        _need(low >= 0, f"`0 <= {names[1]}` is not satisfied: found {low}")
        _need(high < across, f"`{names[1]} < {across}` is not satisfied: found {high}")
    if thorough and plain.numel():
        _check_order(names, pattern)


def _check_order(names: tuple, pattern: Compressed) -> None:
    lines, plain = pattern.compressed(), pattern.plain()
    same = ops.eq(lines[1:], lines[:-1])
    rising = ops.lt(plain[:-1], plain[1:])
    count = "nrows" if names[0] == "crow_indices" else "ncols"
    _need(bool(ops.all(ops.logical_or(ops.logical_not(same), rising))),
          f"`{names[1]}[..., {names[0]}[..., i - 1]:{names[0]}[..., i]] for all i = 1, ..., "
          f"{count} are sorted and distinct along the last dimension values` is not satisfied.")


def _need(holds: bool, text: str) -> None:
    if not holds:
        raise RuntimeError(text)
