"""Products of 8-bit floats with scales: each operand stands for its elements times a scale."""

from __future__ import annotations

from flambeau.core import dtypes
from flambeau.ir.graph import Value
from flambeau.ops import primitives as p
from flambeau.ops.matmul import _check_inner
from flambeau.ops.primitives import convert
from flambeau.ops.record import Index, op
from flambeau.ops.samples import Arr, sample

_RESULTS = (dtypes.float32, dtypes.bfloat16, dtypes.float16, *dtypes.FLOAT8[:4])


def _samples():
    a, b = (Arr(shape, "float8_e4m3fn", requires_grad=False) for shape in ((3, 16), (16, 5)))
    one = Arr((), "float32", 0.5, 1.5, False)
    yield sample(a, b, one, one, out_dtype=dtypes.float32)
    yield sample(a, b, Arr((3, 1), "float32", 0.5, 1.5, False),
                 Arr((1, 5), "float32", 0.5, 1.5, False), out_dtype=dtypes.float32)


@op(name="_scaled_mm", method=False, opmath=False, differentiable=False, samples=_samples)
def scaled_mm(input: Index, mat2: Index, scale_a: Index, scale_b: Index, bias: Index | None = None,
              scale_result: Index | None = None, out_dtype: object = None,
              use_fast_accum: bool = False):
    """(input * scale_a) @ (mat2 * scale_b) + bias for matrices of 8-bit floats.

    Args:
        input, mat2: (n, m) and (m, k), each of an 8-bit float dtype.
        scale_a, scale_b: one number each; or (n, 1) and (1, k), one for each row and column.
        bias: (k,).
        scale_result: an 8-bit result stands for its elements times this.
        out_dtype: that of `input` unless given.
    """
    _check_matrices(input, mat2)
    _check_scales(input, mat2, scale_a, scale_b)
    out_dtype = out_dtype or input.dtype
    if out_dtype not in _RESULTS:
        raise RuntimeError(f"_scaled_mm: out_dtype must be one of "
                           f"{', '.join(d.name for d in _RESULTS)}, got {out_dtype.name}")
    rows, columns = input.shape[0], mat2.shape[1]
    result = p.dot(_wide(input), _wide(mat2))
    shape = result.shape
    for scale in (scale_a, scale_b):
        if scale.numel != 1 or scale.ndim == 2:
            factor = p.expand(convert(scale, dtypes.float32), shape)
        else:
            factor = p.expand(p.reshape(convert(scale, dtypes.float32), ()), shape)
        result = p.mul(result, factor)
    if bias is not None:
        if bias.shape != (columns,):
            raise RuntimeError(f"Bias must be size {columns} but got {bias.numel}: it is added to "
                               f"each of the {rows} rows")
        result = p.add(result, p.expand(convert(bias, dtypes.float32), shape))
    if scale_result is not None and out_dtype.carrier is not None:
        if scale_result.numel != 1:
            raise RuntimeError("scale_result must be a float scalar, got shape "
                               f"{list(scale_result.shape)}")
        factor = p.reshape(convert(scale_result, dtypes.float32), ())
        result = p.div(result, p.expand(factor, shape))
    return convert(result, out_dtype)


def _wide(x: Value) -> Value:
    """8-bit floats as float32, by way of bfloat16: the product then takes the kernels for that."""
    return convert(convert(x, dtypes.bfloat16), dtypes.float32)


def _check_matrices(a: Value, b: Value) -> None:
    for which, value in (("mat1", a), ("mat2", b)):
        if value.ndim != 2:
            raise RuntimeError(f"{which} must be a matrix, got a tensor of shape "
                               f"{list(value.shape)}")
    _check_inner(a.shape, b.shape)


def _check_scales(a: Value, b: Value, scale_a: Value, scale_b: Value) -> None:
    """Raise ValueError unless the operands are 8-bit floats, and the scales floats of a form that
    `scaled_mm` states."""
    for which, value in (("mat1", a), ("mat2", b)):
        if value.dtype.kind in "bui":
            raise RuntimeError(f"Expected {which} to be Float8 matrix got "
                               f"{value.dtype.scalar_name}")
    rows, columns = (a.shape[0], 1), (1, b.shape[1])
    whole = scale_a.numel == 1 and scale_b.numel == 1
    each = scale_a.shape == rows and scale_b.shape == columns
    floats = all(s.dtype in (dtypes.float32, dtypes.float64) for s in (scale_a, scale_b))
    if not (floats and (whole or each)) or a.dtype not in dtypes.FLOAT8[:4] or (
            b.dtype not in dtypes.FLOAT8[:4]):
        raise ValueError(
            "Invalid scaling configuration.\n- For TensorWise scaling, a and b should be float8, "
            "scales should be float and singletons.\n- For RowWise scaling, a and b should be "
            f"float8, scales should be float, scale_a should be {rows} and scale_b {columns}.\n"
            f"Got a of {a.dtype.name}, b of {b.dtype.name}, scale_a of {scale_a.dtype.name} and "
            f"shape {list(scale_a.shape)}, scale_b of {scale_b.dtype.name} and shape "
            f"{list(scale_b.shape)}")


