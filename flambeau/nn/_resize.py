"""Resizing of images: sorts out sizes and factors, and calls the ops."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

from flambeau.core.arguments import need_tensor
from flambeau.core.symbolic import float_of
from flambeau.tensor import Tensor, functions

__all__ = ["interpolate", "upsample", "upsample_bilinear", "upsample_nearest"]

_RANKS = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
_MODES = ("nearest", "linear", "bilinear", "bicubic", "trilinear", "area", "nearest-exact")


def _per_dimension(value: Any, rank: int, what: str, input: Tensor) -> tuple:
    """One entry per spatial dimension."""
    if not isinstance(value, Sequence):
        return (value,) * rank
    if len(value) != rank:
        raise ValueError(f"Input and {what} must have the same number of spatial dimensions, but "
                         f"got input with spatial dimensions of {list(input.shape[2:])} and {what} "
                         f"of {value}")
    return tuple(value)


def _sizes(input: Tensor, size: Any, scale_factor: Any, recompute: bool | None, mode: str
           ) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
    """(size of the result, factors that coordinates are computed with, if any)."""
    rank = input.dim() - 2
    if size is not None and scale_factor is not None:
        raise ValueError("only one of size or scale_factor should be defined")
    if size is not None:
        if recompute:
            raise ValueError("recompute_scale_factor is not meaningful with an explicit size.")
        return tuple(int(s) for s in _per_dimension(size, rank, "output size", input)), None
    if scale_factor is None:
        raise ValueError("either size or scale_factor should be defined")
    factors = tuple(float(f) for f in _per_dimension(scale_factor, rank, "scale_factor", input))
    out = tuple(math.floor(float_of(s) * f) for s, f in zip(input.shape[2:], factors, strict=True))
    return out, None if recompute or mode == "area" else factors


def _check_mode(input: Tensor, mode: str, align_corners: bool | None, antialias: bool) -> None:
    if mode in ("nearest", "area", "nearest-exact") and align_corners is not None:
        raise ValueError("align_corners option can only be set with the interpolating modes: "
                         "linear | bilinear | bicubic | trilinear")
    if antialias and not (mode in ("bilinear", "bicubic") and input.dim() == 4):
        raise ValueError("Anti-alias option is restricted to bilinear and bicubic modes and "
                         "requires a 4-D tensor as input")
    rank = input.dim() - 2
    wanted = _RANKS.get(mode)
    if mode in _MODES and 1 <= rank <= 3 and wanted in (None, rank):
        return
    if wanted is not None and 1 <= rank <= 3:
        raise NotImplementedError(f"Got {input.dim()}D input, but {mode} mode needs "
                                  f"{wanted + 2}D input")
    raise NotImplementedError("Input Error: Only 3D, 4D and 5D input Tensors supported (got "
                              f"{input.dim()}D) for the modes: {' | '.join(_MODES)} (got {mode})")


def interpolate(input: Tensor, size: int | Sequence[int] | None = None,
                scale_factor: float | Sequence[float] | None = None, mode: str = "nearest",
                align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
                antialias: bool = False) -> Tensor:
    """The input (n, c, *space) resized to `size`, or by `scale_factor`.

    Args:
        mode: "nearest", "nearest-exact", "linear" (3-D), "bilinear" and "bicubic" (4-D),
            "trilinear" (5-D) or "area" (means of bins).
        align_corners: whether the centres of the outermost places of both lie on each other, rather
            than their edges.
        recompute_scale_factor: whether coordinates follow from the sizes, not from `scale_factor`.
        antialias: whether shrinking takes the mean over all places that it covers.

    >>> F.interpolate(torch.tensor([[[1., 3.]]]), size=4)
    tensor([[[1., 1., 3., 3.]]])
    >>> F.interpolate(torch.tensor([[[1., 3.]]]), size=3, mode="linear", align_corners=True)
    tensor([[[1., 2., 3.]]])
    """
    need_tensor("interpolate", "input", input)
    _check_mode(input, mode, align_corners, antialias)
    out, factors = _sizes(input, size, scale_factor, recompute_scale_factor, mode)
    corners = bool(align_corners)
    if mode == "area":
        return getattr(functions, f"adaptive_avg_pool{len(out)}d")(input, out)
    if mode in ("nearest", "nearest-exact"):
        return functions._upsample_nearest(input, out, factors, mode == "nearest-exact")
    if antialias:
        return functions._upsample_antialias(input, out, factors, corners, mode == "bicubic")
    if mode == "bicubic":
        return functions._upsample_cubic(input, out, factors, corners)
    return functions._upsample_linear(input, out, factors, corners)


def upsample(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
             align_corners: bool | None = None) -> Tensor:
    """`interpolate` by its old name.

    >>> F.upsample(torch.tensor([[[1., 3.]]]), scale_factor=2)
    tensor([[[1., 1., 3., 3.]]])
    """
    warnings.warn("`nn.functional.upsample` is deprecated. Use `nn.functional.interpolate` "
                  "instead.", stacklevel=2)
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` in mode "nearest".

    >>> F.upsample_nearest(torch.tensor([[[[1., 3.]]]]), size=(1, 4))
    tensor([[[[1., 1., 3., 3.]]]])
    """
    warnings.warn("`nn.functional.upsample_nearest` is deprecated. Use `nn.functional.interpolate` "
                  "instead.", stacklevel=2)
    return interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` in mode "bilinear" with `align_corners`.

    >>> F.upsample_bilinear(torch.tensor([[[[1., 3.]]]]), size=(1, 3))
    tensor([[[[1., 2., 3.]]]])
    """
    warnings.warn("`nn.functional.upsample_bilinear` is deprecated. Use `nn.functional.interpolate`"
                  " instead.", stacklevel=2)
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)
