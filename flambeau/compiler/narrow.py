"""Products whose operands are widened narrow values: the kernels read the narrow memory itself."""

from __future__ import annotations

from flambeau.core import dtypes
from flambeau.ir.graph import Value

__all__ = ["narrow_images", "narrow_operands"]

_BYTES = (dtypes.int8, dtypes.uint8)


def narrow_operands(product: Value) -> tuple[Value, ...] | None:
    """The operands of `product` before they were widened, moved as the wide ones are; or None.

    float32 sums take two operands of one 16-bit type, int32 sums an int8 one after an int8 or
    uint8 one: the kernels of `low.py`, which widen to the same products.
    """
    found = [_before_widening(operand) for operand in product.inputs]
    if any(value is None for value in found):
        return None
    a, b = found
    if product.dtype is dtypes.float32 and a.dtype is b.dtype and a.dtype.is_reduced:
        return a, b
    if product.dtype is dtypes.int32 and a.dtype in _BYTES and b.dtype is dtypes.int8:
        return a, b
    return None


def narrow_images(value: Value) -> tuple[Value, ...] | None:
    """The operands of a convolution or one of its gradients, the two images or weights before they
    were widened from bfloat16; or None. A bias stays wide: sums start from it."""
    if value.dtype is not dtypes.float32 or value.attrs[3] > 1 or not value.numel:
        return None
    found = [_before_widening(operand) for operand in value.inputs[:2]]
    if any(v is None or v.dtype is not dtypes.bfloat16 or not v.numel for v in found):
        return None
    return *found, *value.inputs[2:]


def _before_widening(value: Value) -> Value | None:
    """The value that `value` is a cast of, seen through movements."""
    if value.prim.name == "cast":
        return value.inputs[0] if not value.inputs[0].number else None
    if value.prim.kind != "movement":
        return None
    inner = _before_widening(value.inputs[0])
    if inner is None:
        return None
    return Value(value.prim, (inner,), value.attrs, value.shape, inner.dtype)
