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
    """`torch.nn.functional.alpha_dropout`.

    >>> torch.alpha_dropout(torch.tensor([1., 2.]), 0.5, False)
    tensor([1., 2.])
    """
    return F.alpha_dropout(input, p, train)


def alpha_dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """`alpha_dropout` in place."""
    return F.alpha_dropout(input, p, train, inplace=True)


def feature_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """Zero whole channels (dimension 1) with probability p, when training.

    >>> torch.feature_dropout(torch.ones(1, 2, 2), 0.5, False)
    tensor([[[1., 1.],
             [1., 1.]]])
    """
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
    """`torch.nn.functional.feature_alpha_dropout`.

    >>> torch.feature_alpha_dropout(torch.ones(1, 2, 2), 0.5, False)
    tensor([[[1., 1.],
             [1., 1.]]])
    """
    return F.feature_alpha_dropout(input, p, train)


def feature_alpha_dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """`feature_alpha_dropout` in place."""
    return F.feature_alpha_dropout(input, p, train, inplace=True)


def native_dropout(input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """(the input after dropout, the mask of what was kept).

    >>> torch.native_dropout(torch.ones(2), 0.5, False)
    (tensor([1., 1.]), tensor([True, True]))
    """
    if not train:
        return ops.clone(input), creation.ones(tuple(input.shape), dtype=bool)
    mask = random.bernoulli_(creation.empty_like(input, dtype=bool), 1 - p)
    return input * mask * (0.0 if p == 1 else 1 / (1 - p)), mask


def rrelu(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3,
          training: bool = False) -> Tensor:
    """`torch.nn.functional.rrelu`.

    >>> torch.rrelu(torch.tensor([-12., 3.]), lower=0.25, upper=0.25)
    tensor([-3.,  3.])
    """
    return F.rrelu(input, lower, upper, training)


def rrelu_(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3,
           training: bool = False, generator: Any = None) -> Tensor:
    """`rrelu` in place.

    Raises:
        NotImplementedError: a generator of one's own in training.
    """
    if generator is not None and training:
        raise NotImplementedError("rrelu_: slopes are drawn from the default generator; seed it "
                                  "with torch.manual_seed instead of giving another")
    return F.rrelu(input, lower, upper, training, True)


# ---------------------------------------------------------------------- layers
def embedding(weight: Tensor, indices: Tensor, padding_idx: int = -1,
              scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """Row i of `weight` for every index i; the row `padding_idx`, unless it is -1, gets no
    gradient.

    >>> torch.embedding(torch.eye(3), torch.tensor([2, 0]))
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """
    return F.embedding(indices, weight, None if padding_idx < 0 else padding_idx,
                       scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)


def embedding_bag(weight: Tensor, indices: Tensor, offsets: Tensor,
                  scale_grad_by_freq: bool = False, mode: int = 0, sparse: bool = False,
                  per_sample_weights: Tensor | None = None, include_last_offset: bool = False,
                  padding_idx: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums (mode 0), means (1) or maxima (2) of bags of rows. The first result is what
    `torch.nn.functional.embedding_bag` gives; the others are empty here.

    >>> F.embedding_bag(torch.tensor([[0, 2], [1, 1]]), torch.eye(3), mode="sum")
    tensor([[1., 0., 1.],
            [0., 2., 0.]])
    """
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
    """`torch.nn.functional.instance_norm`.

    >>> F.instance_norm(torch.tensor([[[1., 3.], [0., 8.]]]))
    tensor([[[-1.0000,  1.0000],
             [-1.0000,  1.0000]]])
    """
    return F.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats,
                           momentum, eps)


def adaptive_max_pool1d(input: Tensor, output_size: Any) -> tuple[Tensor, Tensor]:
    """(maxima, where they lie).

    >>> torch.adaptive_max_pool1d(torch.tensor([[1., 5., 3., 4.]]), 2)
    (tensor([[5., 4.]]), tensor([[1, 3]]))
    """
    return F.adaptive_max_pool1d(input, output_size, return_indices=True)


def max_pool1d_with_indices(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
                            dilation: Any = 1, ceil_mode: bool = False) -> tuple[Tensor, Tensor]:
    """(maxima, where they lie).

    >>> torch.max_pool1d_with_indices(torch.tensor([[1., 3., 2., 5.]]), 2)
    (tensor([[3., 5.]]), tensor([[1, 3]]))
    """
    return F.max_pool1d(input, kernel_size, stride or None, padding, dilation, ceil_mode,
                        return_indices=True)


# ---------------------------------------------------------------------- losses
def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                     pos_weight: Tensor | None = None,
                                     reduction: int = 0) -> Tensor:
    """`torch.nn.functional.binary_cross_entropy_with_logits`.

    >>> F.binary_cross_entropy_with_logits(torch.tensor([0., 2.]), torch.tensor([1., 1.]))
    tensor(0.4100)
    """
    return F.binary_cross_entropy_with_logits(input, target, weight,
                                              reduction=_reduction(reduction),
                                              pos_weight=pos_weight)


def kl_div(input: Tensor, target: Tensor, reduction: int = 0, *, log_target: bool = False
           ) -> Tensor:
    """`torch.nn.functional.kl_div`.

    >>> F.kl_div(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]), reduction="sum")
    tensor(0.1308)
    """
    return F.kl_div(input, target, reduction=_reduction(reduction), log_target=log_target)


def poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool, full: bool, eps: float,
                     reduction: int) -> Tensor:
    """`torch.nn.functional.poisson_nll_loss`.

    >>> F.poisson_nll_loss(torch.tensor([0.]), torch.tensor([2.]))
    tensor(1.)
    """
    return F.poisson_nll_loss(input, target, log_input, full, eps=eps,
                              reduction=_reduction(reduction))


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0,
                         reduction: int = 0) -> Tensor:
    """`torch.nn.functional.hinge_embedding_loss`.

    >>> F.hinge_embedding_loss(torch.tensor([0.5, 0.25]), torch.tensor([1, -1]))
    tensor(0.6250)
    """
    return F.hinge_embedding_loss(input, target, margin, reduction=_reduction(reduction))


def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0,
                          reduction: int = 0) -> Tensor:
    """`torch.nn.functional.cosine_embedding_loss`.

    >>> a, b = torch.tensor([[1., 0.]]), torch.tensor([[0., 1.]])
    >>> F.cosine_embedding_loss(a, b, torch.tensor([1]))
    tensor(1.)
    """
    return F.cosine_embedding_loss(input1, input2, target, margin, reduction=_reduction(reduction))


def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0,
                        reduction: int = 0) -> Tensor:
    """`torch.nn.functional.margin_ranking_loss`.

    >>> F.margin_ranking_loss(torch.tensor([1.]), torch.tensor([3.]), torch.tensor([1]))
    tensor(2.)
    """
    return F.margin_ranking_loss(input1, input2, target, margin, reduction=_reduction(reduction))


def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0,
                        p: float = 2, eps: float = 1e-6, swap: bool = False,
                        reduction: int = 0) -> Tensor:
    """`torch.nn.functional.triplet_margin_loss`.

    >>> anchor, near, far = torch.zeros(1, 2), torch.tensor([[0., 1.]]), torch.tensor([[3., 4.]])
    >>> F.triplet_margin_loss(anchor, near, far, margin=6.0)
    tensor(2.0000)
    """
    return F.triplet_margin_loss(anchor, positive, negative, margin, p, eps, swap,
                                 reduction=_reduction(reduction))


def ctc_loss(log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any,
             blank: int = 0, reduction: int = 0, zero_infinity: bool = False) -> Tensor:
    """`torch.nn.functional.ctc_loss`.

    >>> p = torch.zeros(2, 1, 2).log_softmax(-1)  # 2 steps, blank or "1"
    >>> torch.ctc_loss(p, torch.tensor([[1]]), (2,), (1,))  # 3 of the 4 paths read "1"
    tensor([0.2877])
    """
    return F.ctc_loss(log_probs, targets, input_lengths, target_lengths, blank,
                      _reduction(reduction), zero_infinity)


# ---------------------------------------------------------------------- methods as functions
def frobenius_norm(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """The square root of the sum of squares over `dim`.

    >>> torch.frobenius_norm(torch.tensor([[3., 0.], [0., 4.]]), (0, 1))
    tensor(5.)
    """
    return ops.vector_norm(input, 2.0, dim, keepdim)


def norm_except_dim(v: Tensor, pow: int = 2, dim: int = 0) -> Tensor:
    """The norm over all dimensions but `dim` (over all, if it is -1).

    >>> torch.norm_except_dim(torch.tensor([[3., 4.], [5., 12.]]), 2, 0)
    tensor([[ 5.],
            [13.]])
    """
    if dim == -1:
        return ops.vector_norm(v, float(pow))
    return ops.vector_norm(v, float(pow), tuple(d for d in range(v.ndim) if d != dim), True)


def is_signed(input: Tensor) -> bool:
    """Can the tensor's dtype hold negative numbers?

    >>> torch.is_signed(torch.zeros(1)), torch.is_signed(torch.zeros(1, dtype=torch.uint8))
    (True, False)
    """
    return input.is_signed()


def get_device(input: Tensor) -> int:
    """The number of the tensor's device; -1 is the CPU.

    >>> torch.get_device(torch.zeros(1))
    -1
    """
    return input.get_device()


def zero_(input: Tensor) -> Tensor:
    """Set all elements to 0, in place.

    >>> torch.zero_(torch.ones(2))
    tensor([0., 0.])
    """
    return input.zero_()


def detach_(input: Tensor) -> Tensor:
    """Take the tensor out of the graph, in place."""
    return input.detach_()


def resize_as_(input: Tensor, the_template: Tensor, *, memory_format: Any = None) -> Tensor:
    """Change the shape in place to that of another tensor.

    >>> torch.resize_as_(torch.zeros(4), torch.zeros(2, 2))
    tensor([[0., 0.],
            [0., 0.]])
    """
    return input.resize_as_(the_template, memory_format=memory_format)
