"""Products with scales and products by groups of rows: the public forms.

`scaled_mm` is one op with its arguments spelled out; the grouped forms cut their operands where
`offs` says, which is read, and are products of the parts.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

from flambeau.core import dtypes
from flambeau.core.arguments import need_tensor
from flambeau.core.dtypes import DType
from flambeau.tensor import Tensor
from flambeau.tensor.functions import ops

__all__ = ["ScalingType", "SwizzleType", "grouped_mm", "scaled_grouped_mm", "scaled_mm"]


class ScalingType(enum.IntEnum):
    """For how many elements a scale stands: all, a row, or a block of the sizes named."""

    TensorWise = 0
    RowWise = 1
    BlockWise1x16 = 2
    BlockWise1x32 = 3
    BlockWise1x128 = 4
    BlockWise128x128 = 5


class SwizzleType(enum.IntEnum):
    """The order in which scales lie in memory."""

    NO_SWIZZLE = 0
    SWIZZLE_32_4_4 = 1


def _only(name: str, given: Any) -> Any:
    """The one item of a list, or what is no list."""
    if not isinstance(given, (list, tuple)):
        return given
    if len(given) != 1:
        raise ValueError(f"{name}: one scale with one recipe for each operand is supported, got "
                         f"{len(given)}")
    return given[0]


def _scale(name: str, which: str, scale: Any, recipe: Any, swizzle: Any, column: bool) -> Tensor:
    """The scale in the form that `_scaled_mm` takes."""
    scale, recipe, swizzle = (_only(name, given) for given in (scale, recipe, swizzle))
    need_tensor(name, f"scale_{which}", scale)
    if recipe not in (ScalingType.TensorWise, ScalingType.RowWise):
        raise ValueError(f"Invalid scaling configuration. {name} on the CPU takes TensorWise and "
                         f"RowWise scales, got {recipe!r} for {which}")
    if swizzle not in (None, SwizzleType.NO_SWIZZLE):
        raise ValueError(f"{name}: scales must not be swizzled on the CPU, got {swizzle!r}")
    if recipe == ScalingType.TensorWise:
        if scale.numel() != 1:
            raise ValueError(f"Invalid scaling configuration. {name}: a TensorWise scale_{which} "
                             f"has one element, got shape {list(scale.shape)}")
        return scale
    if scale.ndim == 0:
        raise IndexError(f"{name}: a RowWise scale_{which} has an element for each row, got a "
                         "tensor without dimensions")
    return scale.reshape((1, -1) if column else (-1, 1))


def scaled_mm(mat_a: Tensor, mat_b: Tensor, scale_a: Any, scale_recipe_a: Any, scale_b: Any,
              scale_recipe_b: Any, swizzle_a: Any = None, swizzle_b: Any = None,
              bias: Tensor | None = None, output_dtype: DType | None = dtypes.bfloat16,
              contraction_dim: Sequence[int] = (), use_fast_accum: bool = False) -> Tensor:
    """The product of two matrices of 8-bit floats, each times its scales.

    Args:
        mat_a, mat_b: (n, m) and (m, k).
        scale_a, scale_b: tensors, or lists of one.
        scale_recipe_a, scale_recipe_b: `ScalingType.TensorWise` (one element) or `RowWise` (n, or
            k, elements).
        swizzle_a, swizzle_b: none.
        bias: (k,), added to every row.
        output_dtype: of the result.
        contraction_dim: empty; the last of `mat_a` and the first of `mat_b` are summed over.
        use_fast_accum: without meaning here; sums are float32.

    Raises:
        ValueError: other scalings or dtypes.

    >>> a, s = torch.eye(16).to(torch.float8_e4m3fn), torch.tensor(2.)
    >>> whole = F.ScalingType.TensorWise
    >>> F.scaled_mm(a, a.t(), s, whole, s, whole)[0, :2]
    tensor([4., 0.], dtype=torch.bfloat16)
    """
    if contraction_dim:
        raise NotImplementedError("scaled_mm: contraction_dim is not supported; transpose the "
                                  "operands")
    first = _scale("scaled_mm", "a", scale_a, scale_recipe_a, swizzle_a, column=False)
    second = _scale("scaled_mm", "b", scale_b, scale_recipe_b, swizzle_b, column=True)
    return ops._scaled_mm(mat_a, mat_b, first, second, bias, None, output_dtype, use_fast_accum)


# ---------------------------------------------------------------------- groups
def _bounds(name: str, offs: Any, groups: int | None, length: int) -> list[tuple[int, int]]:
    """(first, one past the last) of each group; `offs` holds the ends."""
    if offs.dtype is not dtypes.int32:
        raise RuntimeError(f"Offsets have to be int32 ({name}), got {offs.dtype.name}")
    if offs.ndim != 1:
        raise RuntimeError(f"offs has to be 1D ({name}), got shape {list(offs.shape)}")
    if groups is not None and offs.shape[0] != groups:
        raise RuntimeError(f"matrix batch sizes have to match: {name} got {offs.shape[0]} offsets "
                           f"for {groups} matrices")
    ends = [min(max(end, 0), length) for end in offs.tolist()]
    return list(zip([0, *ends], ends, strict=False))


def _check_grouped(name: str, mat_a: Any, mat_b: Any, offs: Any) -> None:
    need_tensor(name, "mat_a", mat_a)
    need_tensor(name, "mat_b", mat_b)
    for which, given in (("mat_a", mat_a), ("mat_b", mat_b)):
        if given.ndim not in (2, 3):
            raise RuntimeError(f"{which} has to be 2 or 3d ({name}), got shape "
                               f"{list(given.shape)}")
    if mat_a.shape[-1] != mat_b.shape[-2]:
        raise RuntimeError(f"contraction dimension of mat_a and mat_b must match ({name}), got "
                           f"{list(mat_a.shape)} and {list(mat_b.shape)}")
    if (offs is None) != (mat_a.ndim == 3 and mat_b.ndim == 3):
        raise RuntimeError("Have to provide offsets if there is a 2d matrix, or no offset if both "
                           "matrices are 3d")
    if mat_a.ndim == mat_b.ndim == 3 and mat_a.shape[0] != mat_b.shape[0]:
        raise RuntimeError(f"batched dimension has to match ({name}), got {mat_a.shape[0]} and "
                           f"{mat_b.shape[0]}")


def _parts(name: str, mat_a: Tensor, mat_b: Tensor, offs: Tensor) -> tuple[list, int | None]:
    """(pairs of matrices to multiply, the dimension along which products are joined; None: they
    are stacked)."""
    if mat_a.ndim == 2 and mat_b.ndim == 3:
        cuts = _bounds(name, offs, mat_b.shape[0], mat_a.shape[0])
        return [(mat_a[low:high], mat_b[i]) for i, (low, high) in enumerate(cuts)], 0
    if mat_a.ndim == 3:
        cuts = _bounds(name, offs, mat_a.shape[0], mat_b.shape[1])
        return [(mat_a[i], mat_b[:, low:high]) for i, (low, high) in enumerate(cuts)], 1
    cuts = _bounds(name, offs, None, mat_a.shape[1])
    return [(mat_a[:, low:high], mat_b[low:high]) for low, high in cuts], None


def _joined(products: list, dim: int | None, length: int) -> Tensor:
    """The products side by side; what no group covers is zero."""
    if dim is None:
        return ops.stack(products, 0)
    rest = length - sum(part.shape[dim] for part in products)
    if rest > 0:
        shape = list(products[0].shape)
        shape[dim] = rest
        products = [*products, products[0].new_zeros(shape)]
    return ops.cat(products, dim)


def grouped_mm(mat_a: Tensor, mat_b: Tensor, *, offs: Tensor | None = None,
               bias: Tensor | None = None, out_dtype: DType | None = None) -> Tensor:
    """Products of matrices of different sizes.

    Args:
        mat_a, mat_b: (n, m) and (g, m, k): group i of the rows times matrix i. (g, n, m) and
            (m, k): matrix i times group i of the columns. (n, m) and (m, k): the sums over group i
            alone, (g, n, k). (g, n, m) and (g, m, k): `bmm`.
        offs: int32, where each group ends; it is read.
        bias, out_dtype: None (`out_dtype` may name that of `mat_a`).

    >>> a, b = torch.ones(3, 4), torch.stack([torch.ones(4, 4), 2 * torch.ones(4, 4)])
    >>> F.grouped_mm(a, b, offs=torch.tensor([1, 3], dtype=torch.int32))[:, 0]
    tensor([4., 8., 8.])
    """
    _check_grouped("grouped_mm", mat_a, mat_b, offs)
    for which, given in (("mat_a", mat_a), ("mat_b", mat_b)):
        if given.dtype not in (dtypes.float32, dtypes.bfloat16, dtypes.float16):
            raise RuntimeError(f"Expected {which} to be Float32, BFloat16 or Float16 matrix, got "
                               f"{given.dtype.scalar_name}")
    if bias is not None:
        raise RuntimeError("Bias not supported yet")
    if out_dtype not in (None, mat_a.dtype):
        raise RuntimeError("Grouped gemm output dtype must match `mat_a` dtype")
    if offs is None:
        return ops.bmm(mat_a, mat_b)
    pairs, dim = _parts("grouped_mm", mat_a, mat_b, offs)
    length = mat_a.shape[0] if dim == 0 else mat_b.shape[1]
    return _joined([ops.mm(a, b) for a, b in pairs], dim, length)


def scaled_grouped_mm(mat_a: Tensor, mat_b: Tensor, scale_a: Any, scale_recipe_a: Any, scale_b: Any,
                      scale_recipe_b: Any, swizzle_a: Any = None, swizzle_b: Any = None,
                      bias: Tensor | None = None, offs: Tensor | None = None,
                      output_dtype: DType | None = dtypes.bfloat16,
                      contraction_dim: Sequence[int] = (), use_fast_accum: bool = False) -> Tensor:
    """`grouped_mm` of 8-bit floats, with a scale for each row of `mat_a` and column of `mat_b`.

    Args:
        mat_a, mat_b: (n, m) and (g, m, k), or (g, n, m) and (g, m, k).
        scale_a: (n,), or (g, n).
        scale_b: (g, k).
        scale_recipe_a, scale_recipe_b: `ScalingType.RowWise`.
        offs: int32, where each group of rows ends; it is read.

    >>> a, rows = torch.eye(16).to(torch.float8_e4m3fn), F.ScalingType.RowWise
    >>> b, s = a.reshape(1, 16, 16).transpose(1, 2), torch.ones(16)
    >>> ends = torch.tensor([16], dtype=torch.int32)
    >>> F.scaled_grouped_mm(a, b, s, rows, s.reshape(1, 16), rows, offs=ends)[0, :2]
    tensor([1., 0.], dtype=torch.bfloat16)
    """
    _check_grouped("scaled_grouped_mm", mat_a, mat_b, offs)
    if contraction_dim or bias is not None:
        raise NotImplementedError("scaled_grouped_mm: neither contraction_dim nor bias is "
                                  "supported; add the bias to the result")
    scales = [_only("scaled_grouped_mm", scale) for scale in (scale_a, scale_b)]
    for recipe in (scale_recipe_a, scale_recipe_b):
        if _only("scaled_grouped_mm", recipe) != ScalingType.RowWise:
            raise ValueError(f"scaled_grouped_mm takes RowWise scales on the CPU, got {recipe!r}")
    if mat_b.ndim != 3:
        raise NotImplementedError("scaled_grouped_mm: mat_b must hold a matrix for each group "
                                  f"(3 dimensions), got shape {list(mat_b.shape)}")
    if mat_a.ndim == 2:
        cuts = _bounds("scaled_grouped_mm", offs, mat_b.shape[0], mat_a.shape[0])
        rows = [(mat_a[low:high], scales[0][low:high]) for low, high in cuts]
    else:
        rows = list(zip(mat_a, scales[0], strict=True))
    products = [ops._scaled_mm(a, b, sa.reshape(-1, 1), sb.reshape(1, -1), None, None, output_dtype,
                               use_fast_accum)
                for (a, sa), b, sb in zip(rows, mat_b, scales[1], strict=True)]
    return _joined(products, 0 if mat_a.ndim == 2 else None, mat_a.shape[0])
