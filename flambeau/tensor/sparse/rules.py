"""Which rule computes which operation of the table for sparse tensors.

A rule is a function of the op's arguments, in their order, that gives the result. In-place and
`out=` forms follow from it, unless `IN_PLACE` has something better.
"""

from __future__ import annotations

from collections.abc import Callable

from flambeau.tensor.sparse import elementwise, products, reductions, shaping
from flambeau.tensor.sparse.tensor import SparseTensor

__all__: list[str] = []

_NO_VIEW = "reshape is not implemented for sparse tensors"
_NO_EXPAND = "expand is unsupported for Sparse tensors"

_CALLS: dict[str, Callable] = {
    "add": elementwise.add, "sub": elementwise.sub, "rsub": elementwise.rsub,
    "mul": elementwise.mul, "div": elementwise.divide("div"),
    "true_divide": elementwise.divide("true_divide"),
    "floor_divide": elementwise.divide("floor_divide"), "pow": elementwise.power,
    "_to_dtype": elementwise.convert_dtype, "clone": elementwise.clone,
    "zero": elementwise.zero, "copy": elementwise.copy,
    "sum": reductions.sum_, "any": reductions.any_, "vector_norm": reductions.norm,
    "linalg.vector_norm": reductions.norm,
    "alias": shaping.alias, "permute": shaping.permute, "transpose": shaping.transpose,
    "t": shaping.t, "unsqueeze": shaping.unsqueeze, "select": shaping.select,
    "index_select": shaping.index_select, "narrow_copy": shaping.narrow_copy,
    "slice": shaping.slice_, "unbind": shaping.unbind, "cat": shaping.cat,
    "stack": shaping.stack, "hstack": shaping.hstack, "vstack": shaping.vstack,
    "movedim": shaping.movedim, "_reshape_copy": shaping.refuse(_NO_VIEW),
    "expand": shaping.refuse(_NO_EXPAND), "repeat": shaping.refuse(_NO_EXPAND),
    "mm": products.mm, "matmul": products.matmul, "mv": products.mv, "bmm": products.bmm,
    "addmm": products.addmm, "addmv": products.addmv, "linear": products.linear,
    "nn.functional.linear": products.linear,
    **{name: elementwise.on_values(name, False) for name in elementwise.ZERO_PRESERVING},
    **{name: elementwise.on_values(name, True) for name in elementwise.LINEAR},
}

_IN_PLACE: dict[str, Callable] = {"add": elementwise.add_inplace, "sub": elementwise.sub_inplace}


SparseTensor.rules["call"] |= _CALLS
SparseTensor.rules["inplace"] |= _IN_PLACE
