"""How sparse tensors print: PyTorch's text, from that of their parts."""

from __future__ import annotations

from typing import Any

from flambeau.core.dtypes import bool_, int64
from flambeau.ops.record import dtypes_default
from flambeau.tensor.display import array_body, autograd_suffixes, join_suffixes
from flambeau.tensor.formats import sparse_coo
from flambeau.tensor.interop import array_of
from flambeau.tensor.sparse.patterns import is_row_compressed

__all__ = ["sparse_repr"]

_PREFIX = "tensor("


def sparse_repr(tensor: Any) -> str:
    """The repr of a sparse tensor: its indices, its values, and what else there is to say."""
    indent = len(_PREFIX)
    if tensor.layout is sparse_coo:
        names: tuple = ("indices",)
    elif is_row_compressed(tensor.layout):
        names = ("crow_indices", "col_indices")
    else:
        names = ("ccol_indices", "row_indices")
    parts = [*zip(names, tensor._pattern.indices, strict=True), ("values", tensor._elements)]
    text = (",\n" + " " * indent).join(_part(name, part, indent) for name, part in parts)
    suffixes = [f"size={tuple(tensor.shape)}", f"nnz={tensor._pattern.nnz}"]
    if tensor.is_meta:
        suffixes.pop()
        suffixes.insert(0, "device='meta'")
    default = dtypes_default()
    if tensor.dtype not in (default, default.to_complex(), int64, bool_):
        suffixes.append(f"dtype={tensor.dtype}")
    node = tensor.grad_fn
    suffixes += [f"layout={tensor.layout}"]
    suffixes += autograd_suffixes(tensor.requires_grad, None if node is None else node.name())
    return join_suffixes(_PREFIX + text, suffixes, indent, broken=tensor.layout is sparse_coo)


def _part(name: str, part: Any, indent: int) -> str:
    prefix = f"{name}=tensor("
    if part.is_meta:
        return f"{prefix}..., size={tuple(part.shape)})"
    body = array_body(array_of(part), part.dtype, indent + len(prefix))
    size = f", size={tuple(part.shape)}" if part.numel() == 0 else ""
    return f"{prefix}{body}{size})"
