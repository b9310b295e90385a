"""A softmax over very many classes, rare ones in clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import flambeau
from flambeau.nn import functional as F
from flambeau.nn.modules.container import ModuleList, Sequential
from flambeau.nn.modules.linear import Linear
from flambeau.nn.modules.module import Module
from flambeau.tensor import Tensor

__all__ = ["AdaptiveLogSoftmaxWithLoss"]


class _ASMoutput(NamedTuple):
    """The log probability of each target, and the mean loss."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """Log probabilities of targets when frequent classes come first (Grave et al. 2017).

    The head decides among the most frequent classes and the clusters of the others; each cluster
    has a smaller projection than the one before it.

    Args:
        in_features: size of the input.
        n_classes: number of classes.
        cutoffs: where clusters begin, increasing.
        div_value: how much smaller each cluster's projection is.
        head_bias: whether the head has a bias.
        device: where the parameters live.
        dtype: of the parameters.
    """

    def __init__(self, in_features: int, n_classes: int, cutoffs: Sequence[int],
                 div_value: float = 4.0, head_bias: bool = False, device: Any = None,
                 dtype: Any = None) -> None:
        made = {"device": device, "dtype": dtype}
        super().__init__()
        cutoffs = list(cutoffs)
        if not cutoffs:
            raise ValueError("cutoffs should be a sequence of length larger than 0")
        if cutoffs != sorted(set(cutoffs)) or min(cutoffs) <= 0 or max(cutoffs) > n_classes - 1 or (
                any(int(c) != c for c in cutoffs)):
            raise ValueError("cutoffs should be a sequence of unique, positive integers sorted in "
                             "an increasing order, where each value is between 1 and n_classes-1")
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*cutoffs, n_classes]
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = self.cutoffs[0]
        self.n_clusters = len(self.cutoffs) - 1
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, bias=head_bias, **made)
        self.tail = ModuleList()
        for k in range(self.n_clusters):
            width = int(in_features // div_value ** (k + 1))
            size = self.cutoffs[k + 1] - self.cutoffs[k]
            self.tail.append(Sequential(Linear(in_features, width, bias=False, **made),
                                        Linear(width, size, bias=False, **made)))

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        self.head.reset_parameters()
        for first, second in self.tail:
            first.reset_parameters()
            second.reset_parameters()

    def _check_target(self, input: Tensor, target: Tensor) -> bool:
        """Is the input batched?"""
        if target.dim() not in (0, 1):
            raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
        batched = target.dim() == 1
        if input.dim() != target.dim() + 1:
            raise RuntimeError(f"{target.dim()}D target tensor expects {target.dim() + 1}D input "
                               f"tensors, but found inputs with sizes {list(input.size())}.")
        if batched and input.size(0) != target.size(0):
            raise RuntimeError("Input and target should have the same size in the batch dimension.")
        return batched

    def forward(self, input_: Tensor, target_: Tensor) -> _ASMoutput:
        """(log probabilities of the targets (n,), their negative mean) for input (n, in_features).

        Raises:
            RuntimeError: targets outside of [0, n_classes).
        """
        batched = self._check_target(input_, target_)
        input = input_ if batched else input_.unsqueeze(0)
        target = target_ if batched else target_.unsqueeze(0)
        if target.numel() and (int(target.min()) < 0 or int(target.max()) >= self.n_classes):
            raise RuntimeError(f"Target values should be in [0, {self.n_classes - 1}], but values "
                               f"in range [{int(target.min())}, {int(target.max())}] were found. ")
        column, extra = target, flambeau.zeros(target.shape, dtype=input.dtype,
                                               device=input.device)
        for k in range(self.n_clusters):
            low, high = self.cutoffs[k], self.cutoffs[k + 1]
            rows = ((target >= low) & (target < high)).nonzero().squeeze(1)
            if not rows.numel():
                continue
            inside = F.log_softmax(self.tail[k](input.index_select(0, rows)), dim=1)
            local = inside.gather(1, (target.index_select(0, rows) - low).unsqueeze(1)).squeeze(1)
            extra = extra.index_copy(0, rows, local)
            column = column.index_fill(0, rows, self.shortlist_size + k)
        head = F.log_softmax(self.head(input), dim=1)
        output = extra + head.gather(1, column.unsqueeze(1)).squeeze(1)
        loss = (-output).mean()
        return _ASMoutput(output if batched else output.squeeze(0), loss)

    def log_prob(self, input: Tensor) -> Tensor:
        """Log probabilities of all classes: (n, n_classes)."""
        return self._all_log_probabilities(input, self.head(input))

    def _all_log_probabilities(self, input: Tensor, head: Tensor) -> Tensor:
        found = F.log_softmax(head, dim=1)
        parts = [found[:, :self.shortlist_size]]
        for k in range(self.n_clusters):
            inside = F.log_softmax(self.tail[k](input), dim=1)
            parts.append(inside + found[:, self.shortlist_size + k].unsqueeze(1))
        return flambeau.cat(parts, 1)

    def predict(self, input: Tensor) -> Tensor:
        """The most probable class of every row: (n,)."""
        return self.log_prob(input).argmax(dim=1)
