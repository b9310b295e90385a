"""Rules of elementwise operations: on values where zeros stay zeros, joined patterns for sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from flambeau.autograd.grad_mode import is_recording
from flambeau.core import dtypes
from flambeau.tensor.composed import write_back
from flambeau.tensor.compress import nonzero_positions
from flambeau.tensor.dispatch import FUNCTIONS
from flambeau.tensor.formats import sparse_coo
from flambeau.tensor.functions import ops
from flambeau.tensor.sparse.convert import as_coo, as_layout, empty_sparse, to_dense, values_at
from flambeau.tensor.sparse.patterns import Coo, locate
from flambeau.tensor.sparse.tensor import (
    SparseTensor,
    assemble,
    coalesced,
    same_pattern,
    values_of,
)
from flambeau.tensor.tensor import Tensor

__all__ = ["LINEAR", "ZERO_PRESERVING", "add", "add_inplace", "clone", "convert_dtype", "copy",
           "divide", "mul", "on_values", "power", "rsub", "sub", "sub_inplace", "zero"]

ZERO_PRESERVING = (
    "abs", "asin", "asinh", "atan", "atanh", "ceil", "erf", "erfinv", "expm1", "floor", "frac",
    "isinf", "isnan", "isneginf", "isposinf", "log1p", "nan_to_num", "relu", "round", "sgn",
    "sign", "signbit", "sin", "sinh", "sqrt", "square", "tan", "tanh", "trunc", "relu6",
    "leaky_relu", "angle")
"""Operations f with f(0) = 0: applied to the values, once equal entries are added up."""

LINEAR = ("neg", "conj_physical", "deg2rad", "rad2deg", "_real_part", "_imag_part")
"""Those that may be applied to entries before they are added up."""


def on_values(name: str, linear: bool) -> Callable:
    """The rule of an operation that applies to the values."""

    def rule(input: SparseTensor, *rest: Any) -> SparseTensor:
        plain = input
        if not linear and input.layout is sparse_coo:
            plain = coalesced(input)
        named, params = {}, FUNCTIONS[name].record.params[1:]
        for param, arg in zip(params, rest, strict=True):
            if arg is not param.default:
                named[param.name] = arg
        return assemble(plain._pattern, getattr(ops, name)(values_of(plain), **named))

    rule.__name__ = rule.__qualname__ = name
    return rule


def convert_dtype(input: SparseTensor, dtype: Any) -> SparseTensor:
    """The values in another dtype."""
    return assemble(input._pattern, values_of(input).to(dtype))


def clone(input: SparseTensor) -> SparseTensor:
    """A copy of the values; patterns are not written to, so they are shared."""
    return assemble(input._pattern, ops.clone(values_of(input)))


def zero(input: SparseTensor) -> SparseTensor:
    """No entries."""
    pattern = input._pattern
    return empty_sparse(pattern.shape, input.dtype, pattern.layout, len(pattern.dense_shape),
                        getattr(pattern, "block", ()), pattern.device)


def copy(input: Any, src: Any, non_blocking: bool = False) -> SparseTensor:
    """What `copy_` writes."""
    if not (isinstance(input, SparseTensor) and isinstance(src, SparseTensor)):
        kinds = [f"torch.{'sparse.' if isinstance(t, SparseTensor) else ''}{t.dtype.legacy}"
                 for t in (input, src)]
        raise RuntimeError("copy_() between dense and sparse Tensors is not implemented! Found "
                           f"self type = {kinds[0]} and src type = {kinds[1]}")
    if tuple(input.shape) != tuple(src.shape):
        raise RuntimeError(f"copy_(): a sparse tensor of shape {list(src.shape)} cannot be copied "
                           f"to one of shape {list(input.shape)}")
    made = as_layout(src, input.layout, getattr(input._pattern, "block", None) or None)
    return assemble(made._pattern, values_of(made).to(input.dtype).clone())


# ---------------------------------------------------------------------- sums
def add(input: Any, other: Any, alpha: Any = 1) -> Any:
    """input + alpha * other: sparse and sparse, dense and sparse."""
    if not isinstance(other, SparseTensor):
        if isinstance(input, SparseTensor) and input.layout is not sparse_coo and (
                isinstance(other, Tensor)):
            return _into_dense(_scaled(other, alpha), input, 1)
        raise RuntimeError("add(sparse, dense) is not supported. Use add(dense, sparse) instead.")
    if not isinstance(input, SparseTensor):
        return _into_dense(input, other, alpha)
    if tuple(input.shape) != tuple(other.shape):
        raise RuntimeError("add: expected 'self' and 'other' to have same size, but "
                           f"{list(input.shape)} != {list(other.shape)}")
    if input.layout is not other.layout:
        raise RuntimeError(f"add: expected tensors of one layout, got {input.layout!r} and "
                           f"{other.layout!r}; convert one of them")
    if same_pattern(input._pattern, other._pattern):
        return assemble(input._pattern, ops.add(values_of(input), values_of(other), alpha=alpha))
    if input.layout is not sparse_coo:
        total = add(as_coo(input), as_coo(other), alpha)
        return as_layout(total, input.layout, input._pattern.block or None,
                         len(input._pattern.dense_shape) or None)
    return _joined(input, other, alpha)


def _scaled(tensor: Any, alpha: Any) -> Any:
    return tensor if alpha == 1 else ops.mul(tensor, alpha)


def _joined(input: SparseTensor, other: SparseTensor, alpha: Any) -> SparseTensor:
    """The entries of both; added up if both were."""
    a, b = input._pattern, other._pattern
    if a.sparse_dim != b.sparse_dim:
        raise RuntimeError("add: expected 'self' and 'other' to have same number of sparse "
                           f"dimensions, but {a.sparse_dim} != {b.sparse_dim}")
    dtype = dtypes.promote_types(input.dtype, other.dtype)
    values = ops.cat((values_of(input).to(dtype), _scaled(values_of(other).to(dtype), alpha)), 0)
    both = Coo(ops.cat((a.indices[0], b.indices[0]), 1), a.shape)
    made = assemble(both, values)
    return coalesced(made) if a.coalesced and b.coalesced else made


def _into_dense(dense: Any, other: SparseTensor, alpha: Any) -> Any:
    """dense + alpha * sparse."""
    dtype = _dense_dtype("add", dense, other)
    pattern = other._pattern
    if not isinstance(pattern, Coo):
        return ops.add(dense, to_dense(other), alpha=alpha)
    rows = dense.to(dtype).reshape(math.prod(pattern.sparse_shape), *pattern.dense_shape)
    values = _scaled(values_of(other).to(dtype), alpha)
    return ops.index_add(rows, 0, pattern.keys(), values).reshape(dense.shape)


def _dense_dtype(name: str, dense: Any, other: SparseTensor) -> Any:
    if not isinstance(dense, Tensor):
        raise TypeError(f"{name}(): a number and a sparse tensor cannot be added up: the result "
                        "would be dense; use to_dense() first")
    if tuple(dense.shape) != tuple(other.shape):
        raise RuntimeError(f"{name}: expected 'self' and 'other' to have same size, but "
                           f"{list(dense.shape)} != {list(other.shape)}")
    return dtypes.promote_types(dense.dtype, other.dtype)


def sub(input: Any, other: Any, alpha: Any = 1) -> Any:
    """input - alpha * other."""
    return add(input, other, -alpha)


def rsub(input: Any, other: Any, alpha: Any = 1) -> Any:
    """other - alpha * input."""
    return add(other, input, -alpha)


def add_inplace(input: Any, other: Any, alpha: Any = 1) -> Any:
    """input += alpha * other. A dense tensor changes at the entries of `other` only."""
    direct = not isinstance(input, SparseTensor) and isinstance(other._pattern, Coo) and (
        input.is_contiguous() and input.dtype is dtypes.promote_types(input.dtype, other.dtype))
    if not direct or is_recording() and (input._rg or other._rg):
        return write_back(input, add(input, other, alpha))
    _dense_dtype("add_", input, other)
    pattern = other._pattern
    rows = input.view(math.prod(pattern.sparse_shape), *pattern.dense_shape)
    ops.index_add_(rows, 0, pattern.keys(), _scaled(values_of(other).to(input.dtype), alpha))
    return input


def sub_inplace(input: Any, other: Any, alpha: Any = 1) -> Any:
    """input -= alpha * other."""
    return add_inplace(input, other, -alpha)


# ---------------------------------------------------------------------- products
def mul(input: Any, other: Any) -> SparseTensor:
    """Element by element; the entries are those that both have."""
    if not isinstance(input, SparseTensor):
        input, other = other, input
    if isinstance(other, SparseTensor):
        return _intersection(input, other)
    if not isinstance(other, Tensor) or other.ndim == 0:
        return assemble(input._pattern, ops.mul(values_of(input), other))
    if other.ndim > input.ndim or tuple(other.shape) != tuple(input.shape) and any(
            b not in (1, a) for a, b in zip(reversed(input.shape), reversed(other.shape),
                                            strict=False)):
        raise RuntimeError(f"mul: a dense tensor of shape {list(other.shape)} does not broadcast "
                           f"to the sparse tensor's shape {list(input.shape)}")
    wide = ops.expand(other, tuple(input.shape))
    return assemble(input._pattern, ops.mul(values_of(input), values_at(wide, input._pattern)))


def _intersection(a: SparseTensor, b: SparseTensor) -> SparseTensor:
    if tuple(a.shape) != tuple(b.shape):
        raise RuntimeError("mul operands have incompatible sizes: "
                           f"{list(a.shape)} and {list(b.shape)}")
    if a.layout is not sparse_coo:
        if same_pattern(a._pattern, b._pattern):
            return assemble(a._pattern, ops.mul(values_of(a), values_of(b)))
        found = _intersection(as_coo(a), as_coo(b))
        return as_layout(found, a.layout, a._pattern.block or None)
    a, b = coalesced(a), coalesced(b)
    if same_pattern(a._pattern, b._pattern):
        return assemble(a._pattern, ops.mul(values_of(a), values_of(b)))
    if a._pattern.sparse_dim != b._pattern.sparse_dim:
        raise RuntimeError("mul: operands must have the same number of sparse dimensions, got "
                           f"{a._pattern.sparse_dim} and {b._pattern.sparse_dim}")
    place, found = locate(b._pattern.keys(), a._pattern.keys())
    kept = nonzero_positions(found)
    pattern = Coo(ops.index_select(a._pattern.indices[0], 1, kept), a.shape, True)
    left = ops.index_select(values_of(a), 0, kept)
    right = ops.index_select(values_of(b), 0, place[kept])
    return assemble(pattern, ops.mul(left, right))


def _need_scalar(name: str, other: Any) -> None:
    if isinstance(other, Tensor) and (other.ndim or isinstance(other, SparseTensor)):
        raise RuntimeError(f"Sparse {name} requires a scalar or zero-dim dense tensor divisor "
                           f"(got shape {list(other.shape)} for divisor)")


def divide(name: str) -> Callable:
    """The rule of a division: by a number, or a dense tensor of no dimensions."""

    def rule(input: Any, other: Any, *rest: Any) -> SparseTensor:
        _need_scalar("division", other)
        rounded = name == "floor_divide" or any(rest)
        plain = coalesced(input) if rounded and input.layout is sparse_coo else input
        mode = {"rounding_mode": rest[0]} if any(rest) else {}
        return assemble(plain._pattern, getattr(ops, name)(values_of(plain), other, **mode))

    rule.__name__ = rule.__qualname__ = name
    return rule


def power(input: Any, exponent: Any) -> SparseTensor:
    """The entries raised to a number; what is not stored stays zero."""
    if isinstance(exponent, Tensor) or not isinstance(input, SparseTensor):
        raise NotImplementedError("pow: a sparse tensor can only be raised to a number, got "
                                  f"{exponent!r}; use .to_dense()")
    if exponent == 0:
        raise RuntimeError("pow: cannot raise to zeroth power on sparse tensor; it would make the "
                           "result tensor dense")
    plain = coalesced(input) if input.layout is sparse_coo else input
    return assemble(plain._pattern, ops.pow(values_of(plain), exponent))
