"""The loss of a linear layer's classes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from flambeau.core.arguments import need_tensor
from flambeau.tensor import Tensor, functions

__all__ = ["LinearCrossEntropyOptions", "linear_cross_entropy"]


@dataclasses.dataclass
class LinearCrossEntropyOptions:
    """How `linear_cross_entropy` may divide its work; taken for compatibility, without effect.

    Attributes:
        allow_retain_graph: whether backward may run twice.
        batch_chunk_size: rows at a time.
        chunking_method, acc_policy, acc_dtype: how chunks are made, and added up.
    """

    allow_retain_graph: bool = True
    batch_chunk_size: int | None = None
    chunking_method: str = "auto"
    acc_policy: str = "auto"
    acc_dtype: Any = None


def _check(input: Tensor, linear_weight: Tensor, bias: Tensor | None, soft: bool,
           ignore_index: int | None) -> None:
    features = linear_weight.shape[-1] if linear_weight.dim() else 0
    if input.dim() not in (1, 2):
        raise RuntimeError("linear_cross_entropy: expected input with dimensionality 1 or 2, got "
                           f"{input.dim()}")
    if linear_weight.dim() < 2:
        raise RuntimeError("linear_cross_entropy: expected linear_weight with dimensionality at "
                           f"least 2, got {linear_weight.dim()}")
    if input.shape[-1] != features:
        raise RuntimeError("linear_cross_entropy: expected equal input and linear_weight last "
                           f"dimensions (in_features), got {input.shape[-1]} and {features}, "
                           "respectively")
    if soft and ignore_index is not None:
        raise RuntimeError("linear_cross_entropy: ignore_index cannot be specified when target "
                           "contains probabilities")
    if linear_weight.dim() > 2 and input.dim() == 1:
        raise RuntimeError("linear_cross_entropy: K-dimensional loss defined by linear_weight "
                           f"shape {tuple(linear_weight.shape)} requires batched input, (N, "
                           f"{features}), got unbatched input with shape {tuple(input.shape)}")
    if bias is not None and bias.shape != linear_weight.shape[:-1]:
        raise RuntimeError("linear_cross_entropy: expected linear_bias shape "
                           f"{tuple(linear_weight.shape[:-1])}, got {tuple(bias.shape)}")


def linear_cross_entropy(input: Tensor, linear_weight: Tensor, target: Tensor, *,
                         linear_bias: Tensor | None = None, weight: Tensor | None = None,
                         reduction: str = "mean", ignore_index: int | None = None,
                         label_smoothing: float = 0.0,
                         options: LinearCrossEntropyOptions | None = None) -> Tensor:
    """cross_entropy(linear(input, linear_weight, linear_bias), target).

    Args:
        input: (n, features), or (features,).
        linear_weight: (classes, features), or (classes, d1, ..., features) for a loss at each of
            the places d1, ....
        target: classes (n, d1, ...), or probabilities (n, classes, d1, ...).

    >>> weight = torch.tensor([[2., 0.], [0., 2.]])
    >>> F.linear_cross_entropy(torch.tensor([[1., 0.]]), weight, torch.tensor([0]))
    tensor(0.1269)
    """
    need_tensor("linear_cross_entropy", "input", input)
    need_tensor("linear_cross_entropy", "linear_weight", linear_weight)
    soft = target.is_floating_point()
    _check(input, linear_weight, linear_bias, soft, ignore_index)
    outputs = tuple(linear_weight.shape[:-1])
    flat = linear_weight.reshape(math.prod(outputs), linear_weight.shape[-1])
    bias = None if linear_bias is None else linear_bias.reshape(-1)
    logits = functions.linear(input, flat, bias)
    if len(outputs) > 1:
        logits = logits.reshape(input.shape[0], *outputs)
    return functions.cross_entropy(logits, target, weight,
                                   ignore_index=-100 if ignore_index is None else ignore_index,
                                   reduction=reduction, label_smoothing=label_smoothing)
