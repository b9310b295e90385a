"""Functions that PyTorch has beside those of `torch.nn.functional`, under `torch` itself: with the
order of arguments of its C++ side, and reductions as numbers (0 none, 1 mean, 2 sum; none if not
given, as in PyTorch)."""

from __future__ import annotations

from typing import Any

from flambeau.nn import functional as F
from flambeau.tensor import creation, random
from flambeau.tensor.functions import ops
from flambeau.tensor.tensor import Tensor

__all__ = ["alpha_dropout", "alpha_dropout_", "binary_cross_entropy_with_logits",
           "cosine_embedding_loss", "ctc_loss", "dropout_", "embedding", "embedding_bag",
           "feature_alpha_dropout", "feature_alpha_dropout_", "feature_dropout",
           "feature_dropout_", "frobenius_norm", "get_device", "hinge_embedding_loss",
           "instance_norm", "is_signed", "kl_div", "margin_ranking_loss", "native_dropout",
           "poisson_nll_loss", "rrelu", "rrelu_", "triplet_margin_loss", "zero_", "detach_",
           "resize_as_", "adaptive_max_pool1d", "max_pool1d_with_indices", "norm_except_dim"]

_REDUCTIONS = ("none", "mean", "sum")


def _reduction(number: int | str) -> str:
    """A reduction by its number.

    Raises:
        ValueError: not 0, 1 or 2.
    """
    if isinstance(number, str):
        return number
    if number not in (0, 1, 2):
        raise ValueError(f"{number} is not a valid value for reduction: it is 0 (none), 1 (mean) "
                         "or 2 (sum)")
    return _REDUCTIONS[number]


# ---------------------------------------------------------------------- dropout
def dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """`torch.dropout` in place."""
    return F.dropout(input, p, train, inplace=True)


def alpha_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """`torch.nn.functional.alpha_dropout`."""
    return F.alpha_dropout(input, p, train)


def alpha_dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """`alpha_dropout` in place."""
    return F.alpha_dropout(input, p, train, inplace=True)


def feature_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """Zero whole channels (dimension 1) with probability p, when training."""
    if input.ndim < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    if not train or p == 0:
        return ops.clone(input)
    shape = (*input.shape[:2], *(1,) * (input.ndim - 2))
    kept = random.bernoulli_(creation.empty(shape, dtype=input.dtype), 1 - p)
    return input * (kept / (1 - p) if p < 1 else kept)


def feature_dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """`feature_dropout` in place."""
    return input.copy_(feature_dropout(input, p, train)) if train else input


def feature_alpha_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """`torch.nn.functional.feature_alpha_dropout`."""
    return F.feature_alpha_dropout(input, p, train)


def feature_alpha_dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """`feature_alpha_dropout` in place."""
    return F.feature_alpha_dropout(input, p, train, inplace=True)


def native_dropout(input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """(the input after dropout, the mask of what was kept)."""
    if not train:
        return ops.clone(input), creation.ones(tuple(input.shape), dtype=bool)
    mask = random.bernoulli_(creation.empty_like(input, dtype=bool), 1 - p)
    return input * mask * (0.0 if p == 1 else 1 / (1 - p)), mask


def rrelu(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3,
          training: bool = False) -> Tensor:
    """`torch.nn.functional.rrelu`."""
    return F.rrelu(input, lower, upper, training)


def rrelu_(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3,
           training: bool = False) -> Tensor:
    """`rrelu` in place."""
    return F.rrelu(input, lower, upper, training, True)


# ---------------------------------------------------------------------- layers
def embedding(weight: Tensor, indices: Tensor, padding_idx: int = -1,
              scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """Row i of `weight` for every index i; the row `padding_idx`, unless it is -1, gets no
    gradient."""
    return F.embedding(indices, weight, None if padding_idx < 0 else padding_idx,
                       scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)


def embedding_bag(weight: Tensor, indices: Tensor, offsets: Tensor,
                  scale_grad_by_freq: bool = False, mode: int = 0, sparse: bool = False,
                  per_sample_weights: Tensor | None = None, include_last_offset: bool = False,
                  padding_idx: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums (mode 0), means (1) or maxima (2) of bags of rows. The first result is what
    `torch.nn.functional.embedding_bag` gives; the others are empty here."""
    if mode not in (0, 1, 2):
        raise RuntimeError("embedding_bag(): mode must be 0 (sum), 1 (mean) or 2 (max), got "
                           f"{mode}")
    made = F.embedding_bag(indices, weight, offsets, scale_grad_by_freq=scale_grad_by_freq,
                           mode=("sum", "mean", "max")[mode], sparse=sparse,
                           per_sample_weights=per_sample_weights,
                           include_last_offset=include_last_offset, padding_idx=padding_idx)
    nothing = creation.empty(0, dtype=indices.dtype)
    return made, nothing, nothing, nothing


def instance_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None,
                  running_mean: Tensor | None, running_var: Tensor | None, use_input_stats: bool,
                  momentum: float, eps: float, cudnn_enabled: bool) -> Tensor:
    """`torch.nn.functional.instance_norm`."""
    return F.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats,
                           momentum, eps)


def adaptive_max_pool1d(input: Tensor, output_size: Any) -> tuple[Tensor, Tensor]:
    """(maxima, where they lie)."""
    return F.adaptive_max_pool1d(input, output_size, return_indices=True)


def max_pool1d_with_indices(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
                            dilation: Any = 1, ceil_mode: bool = False) -> tuple[Tensor, Tensor]:
    """(maxima, where they lie)."""
    return F.max_pool1d(input, kernel_size, stride or None, padding, dilation, ceil_mode,
                        return_indices=True)


# ---------------------------------------------------------------------- losses
def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                     pos_weight: Tensor | None = None,
                                     reduction: int = 0) -> Tensor:
    """`torch.nn.functional.binary_cross_entropy_with_logits`."""
    return F.binary_cross_entropy_with_logits(input, target, weight,
                                              reduction=_reduction(reduction),
                                              pos_weight=pos_weight)


def kl_div(input: Tensor, target: Tensor, reduction: int = 0, *, log_target: bool = False
           ) -> Tensor:
    """`torch.nn.functional.kl_div`."""
    return F.kl_div(input, target, reduction=_reduction(reduction), log_target=log_target)


def poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool, full: bool, eps: float,
                     reduction: int) -> Tensor:
    """`torch.nn.functional.poisson_nll_loss`."""
    return F.poisson_nll_loss(input, target, log_input, full, eps=eps,
                              reduction=_reduction(reduction))


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0,
                         reduction: int = 0) -> Tensor:
    """`torch.nn.functional.hinge_embedding_loss`."""
    return F.hinge_embedding_loss(input, target, margin, reduction=_reduction(reduction))


def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0,
                          reduction: int = 0) -> Tensor:
    """`torch.nn.functional.cosine_embedding_loss`."""
    return F.cosine_embedding_loss(input1, input2, target, margin, reduction=_reduction(reduction))


def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0,
                        reduction: int = 0) -> Tensor:
    """`torch.nn.functional.margin_ranking_loss`."""
    return F.margin_ranking_loss(input1, input2, target, margin, reduction=_reduction(reduction))


def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0,
                        p: float = 2, eps: float = 1e-6, swap: bool = False,
                        reduction: int = 0) -> Tensor:
    """`torch.nn.functional.triplet_margin_loss`."""
    return F.triplet_margin_loss(anchor, positive, negative, margin, p, eps, swap,
                                 reduction=_reduction(reduction))


def ctc_loss(log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any,
             blank: int = 0, reduction: int = 0, zero_infinity: bool = False) -> Tensor:
    """`torch.nn.functional.ctc_loss`."""
    return F.ctc_loss(log_probs, targets, input_lengths, target_lengths, blank,
                      _reduction(reduction), zero_infinity)


# ---------------------------------------------------------------------- methods as functions
def frobenius_norm(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """The square root of the sum of squares over `dim`."""
    return ops.vector_norm(input, 2.0, dim, keepdim)


def norm_except_dim(v: Tensor, pow: int = 2, dim: int = 0) -> Tensor:
    """The norm over all dimensions but `dim` (over all, if it is -1)."""
    if dim == -1:
        return ops.vector_norm(v, float(pow))
    return ops.vector_norm(v, float(pow), tuple(d for d in range(v.ndim) if d != dim), True)


def is_signed(input: Tensor) -> bool:
    """Can the tensor's dtype hold negative numbers?"""
    return input.is_signed()


def get_device(input: Tensor) -> int:
    """The number of the tensor's device; -1 is the CPU."""
    return input.get_device()


def zero_(input: Tensor) -> Tensor:
    """Set all elements to 0, in place."""
    return input.zero_()


def detach_(input: Tensor) -> Tensor:
    """Take the tensor out of the graph, in place."""
    return input.detach_()


def resize_as_(input: Tensor, the_template: Tensor, *, memory_format: Any = None) -> Tensor:
    """Change the shape in place to that of another tensor."""
    return input.resize_as_(the_template, memory_format=memory_format)
