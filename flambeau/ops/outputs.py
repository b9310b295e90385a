"""Which operations want `out=`, or what they change, to have the very dtype of the result.

Others write to any dtype that the result may be cast to (PyTorch's rule for what it computes by its
iterator of elements).
"""

from __future__ import annotations

__all__ = ["EXACT_INPLACE", "EXACT_OUT", "FLAT_INPLACE", "SAME_EVERYWHERE"]

EXACT_OUT = frozenset((
    # one rounding or selection for each element
    "abs", "bitwise_not", "ceil", "clamp", "clamp_max", "clamp_min", "floor", "frac", "gelu",
    "heaviside", "logsigmoid", "nan_to_num", "neg", "round", "sgn", "sign", "softplus",
    "softshrink", "trunc", "where",
    # products
    "addbmm", "addmm", "addmv", "baddbmm", "bmm", "cross", "dot", "inner", "linear", "matmul", "mm",
    "multi_dot", "mv", "tensordot", "vecdot",
    # reductions, scans and order
    "amax", "amin", "aminmax", "argmax", "argmin", "cummax", "cummin", "kthvalue", "log_softmax",
    "logcumsumexp", "mode", "msort", "renorm", "softmax", "sort", "topk", "linalg.vector_norm",
    # positions
    "bucketize", "gather", "index_add", "index_copy", "index_reduce", "index_select",
    "nonzero_static", "scatter", "scatter_add", "scatter_reduce", "searchsorted", "take",
    "take_along_dim",
    # copies of views, parts and windows
    "alias_copy", "avg_pool2d", "avg_pool3d", "diag", "diagonal_copy", "expand_copy", "narrow_copy",
    "permute_copy", "select_copy", "slice_copy", "slice_scatter", "squeeze_copy", "t_copy",
    "transpose_copy", "tril", "triu", "unfold_copy", "unsqueeze_copy",
))

EXACT_INPLACE = frozenset(("abs", "float_power"))
"""Their in-place forms change no tensor of another dtype (`abs_` of complex numbers)."""

FLAT_INPLACE = frozenset(("eq", "ge", "gt", "le", "lt", "ne"))
"""What they write into a tensor has a derivative: zero. (Others that give no floats, such as
`logical_and_`, leave the history of the tensor as it is.)"""

SAME_EVERYWHERE = frozenset(("fill", "zero"))
"""Operations that write one value, so that elements may share memory (`x.expand(...).zero_()`)."""
