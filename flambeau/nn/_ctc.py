"""Connectionist temporal classification: labels without alignment to time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flambeau
from flambeau.tensor import Tensor, functions

__all__ = ["ctc_loss"]

_NEVER = -1e30


def _lengths(given: Any, count: int, name: str, limit: int) -> list[int]:
    values = given.tolist() if isinstance(given, Tensor) else given
    if isinstance(given, Tensor) and given.is_floating_point():
        raise RuntimeError(f"{name} must be integral")
    values = [values] if not isinstance(values, Sequence) else [int(v) for v in values]
    if len(values) != count:
        raise RuntimeError(f"{name} must be of size batch_size")
    for place, value in enumerate(values):
        if not 0 <= value <= limit:
            raise RuntimeError(f"Expected {name} to have value between 0 and {limit}, but got "
                               f"value {value} (while checking arguments for ctc_loss) at {place}")
    return values


def _padded(targets: Tensor, sizes: list[int]) -> Tensor:
    """Labels as (n, longest), from that or from all of them in a row."""
    if targets.dim() == 2:
        return targets[:, :max(sizes, default=0)]
    if targets.numel() != sum(sizes):
        raise RuntimeError("ctc_loss: targets, if 1-D, must hold all labels in a row: expected "
                           f"{sum(sizes)}, got {targets.numel()}")
    rows = flambeau.zeros((len(sizes), max(sizes, default=0)), dtype=targets.dtype,
                          device=targets.device)
    start = 0
    for row, size in enumerate(sizes):
        rows[row, :size] = targets[start:start + size]
        start += size
    return rows


def _extended(labels: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """(labels with blanks between and around them, where a blank may be skipped)."""
    n, count = labels.shape
    wide = flambeau.full((n, 2 * count + 1), blank, dtype=flambeau.int64, device=labels.device)
    wide[:, 1::2] = labels.to(flambeau.int64)
    skips = flambeau.zeros(wide.shape, dtype=flambeau.bool, device=labels.device)
    if count > 1:
        skips[:, 3::2] = wide[:, 3::2] != wide[:, 1:-2:2]
    return wide, skips


def ctc_loss(log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any,
             blank: int = 0, reduction: str = "mean", zero_infinity: bool = False) -> Tensor:
    """-log of the probability of the labels, over all their alignments to time.

    Args:
        log_probs: (time, n, classes) or (time, classes), logarithms of probabilities.
        targets: labels (n, longest), or all of them in a row.
        input_lengths, target_lengths: n lengths, as a tensor or a sequence.
        blank: the class that stands for no label.
        reduction: "mean" (over the length of each label sequence, then over the batch), "sum" or
            "none".
        zero_infinity: whether losses of impossible alignments count as 0.
    """
    if log_probs.dtype not in (flambeau.float32, flambeau.float64):
        raise RuntimeError(f'"ctc_loss_cpu" not implemented for {log_probs.dtype}')
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    batched = log_probs.dim() == 3
    if not batched:
        log_probs = log_probs.unsqueeze(1)
        targets = targets.unsqueeze(0) if targets.dim() == 1 else targets
    steps, n, classes = log_probs.shape
    if not 0 <= blank < classes:
        raise RuntimeError("blank must be in label range")
    times = _lengths(input_lengths, n, "input_lengths", steps)
    longest = targets.shape[1] if targets.dim() == 2 else targets.numel()
    sizes = _lengths(target_lengths, n, "target_lengths", longest)
    loss = _negative_log(log_probs, _padded(targets, sizes), times, sizes, blank)
    loss = flambeau.where(loss >= -_NEVER / 2, math.inf, loss)
    if zero_infinity:
        loss = flambeau.where(loss == math.inf, 0.0, loss)
    if reduction == "mean":
        share = loss.new_tensor([max(1, size) for size in sizes])
        return (loss / share).mean()
    if reduction == "sum":
        return loss.sum()
    return loss if batched else loss.squeeze(0)


def _negative_log(log_probs: Tensor, labels: Tensor, times: list[int], sizes: list[int],
                  blank: int) -> Tensor:
    """The loss of every sequence: (n,)."""
    steps, n, _ = log_probs.shape
    wide, skips = _extended(labels, blank)
    places = wide.shape[1]
    found = log_probs.gather(2, wide.unsqueeze(0).expand(steps, n, places)).unbind(0)
    place = flambeau.arange(places, device=wide.device)
    inside = place.unsqueeze(0) <= 2 * wide.new_tensor(sizes).unsqueeze(1)
    first = inside & (place < 2).unsqueeze(0)
    running = wide.new_tensor(times)
    started = first & (running > 0).unsqueeze(1)
    start = found[0] if found else log_probs.new_zeros((n, places))
    alpha = flambeau.where(started, start, _NEVER)
    for t in range(1, max(times, default=0)):
        alpha = functions._ctc_step(alpha, found[t], skips, running > t)
    ends = wide.new_tensor([[2 * size, max(2 * size - 1, 0)] for size in sizes])
    last = alpha.gather(1, ends)
    empty = skips.new_tensor([[False, size == 0] for size in sizes])
    total = functions.logsumexp(last.masked_fill(empty, _NEVER), 1)
    idle = [time == 0 for time in times]
    loss = -total
    if any(idle):  # nothing is read: only no label fits
        none = loss.new_tensor([0.0 if size == 0 else math.inf for size in sizes])
        loss = flambeau.where(skips.new_tensor(idle), none, loss)
    return loss + _normalising(log_probs, running, loss)


def _normalising(log_probs: Tensor, running: Tensor, loss: Tensor) -> Tensor:
    """Zeros whose gradient is that of the sum of all probabilities: the gradient of the loss is
    stated for probabilities that sum to 1, as PyTorch's is."""
    if not log_probs.requires_grad:
        return flambeau.zeros_like(loss.detach())
    step = flambeau.arange(log_probs.shape[0], device=running.device).unsqueeze(1)
    live = (step < running.unsqueeze(0)).unsqueeze(2)
    possible = (loss.detach() < -_NEVER / 2).unsqueeze(0).unsqueeze(2)
    total = flambeau.where(live & possible, log_probs.exp(), 0.0).sum((0, 2))
    return total - total.detach()
