"""`torch.Tag`: what an operator's author may say of it."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any

__all__ = ["Tag", "tags_of"]


class Tag(enum.Enum):
    """Properties of operators, by PyTorch's names; `torch.ops.mylib.op.default.tags` holds them."""

    core = 0
    cudagraph_unsafe = 1
    data_dependent_output = 2
    dynamic_output_shape = 3
    flexible_layout = 4
    generated = 5
    inplace = 6
    inplace_view = 7
    maybe_aliasing_or_mutating = 8
    needs_contiguous_strides = 9
    needs_exact_strides = 10
    needs_fixed_stride_order = 11
    nondeterministic_bitwise = 12
    nondeterministic_seeded = 13
    out = 14
    out_variant = 15
    pointwise = 16
    pt2_compliant_tag = 17
    reduction = 18
    view_copy = 19


def tags_of(given: Any) -> list[Tag]:
    """One tag or several as a list.

    Raises:
        TypeError: something that is none.
    """
    many = list(given) if isinstance(given, Iterable) else [given]
    wrong = next((one for one in many if not isinstance(one, Tag)), None)
    if wrong is not None:
        raise TypeError(f"tags: expected torch.Tag or a sequence of them, got {wrong!r}")
    return many
