"""Channels and places of images traded for each other: pixel shuffles, channel shuffle."""

from __future__ import annotations

from flambeau.ir.graph import Value
from flambeau.ops import primitives as p
from flambeau.ops.activation import BOTH
from flambeau.ops.record import Tensor, op
from flambeau.ops.samples import Arr, sample


def _copied(x: Value, shape) -> Value:
    """A rearrangement in its final shape: always new memory."""
    return p.reshape(p.stop_copy(x), shape)


@op(method=False, out=False, opmath=False, order="images", public=BOTH, samples=lambda: iter([
    sample(Arr((2, 12, 3, 5)), 2), sample(Arr((9, 2, 2)), 3), sample(Arr((0, 4, 2, 2)), 2)]))
def pixel_shuffle(input: Tensor, upscale_factor: int):
    """Channels to places: (..., c r^2, h, w) -> (..., c, h r, w r) (Shi et al. 2016).

    >>> torch.pixel_shuffle(torch.arange(4).reshape(1, 4, 1, 1), 2)
    tensor([[[[0, 1],
              [2, 3]]]])
    """
    if input.ndim < 3:
        raise RuntimeError("pixel_shuffle expects input to have at least 3 dimensions, but got "
                           f"input with {input.ndim} dimension(s)")
    if upscale_factor <= 0:
        raise RuntimeError("pixel_shuffle expects a positive upscale_factor, but got "
                           f"{upscale_factor}")
    *lead, c, h, w = input.shape
    r = upscale_factor
    if c % (r * r):
        raise RuntimeError("pixel_shuffle expects its input's 'channel' dimension to be divisible "
                           "by the square of upscale_factor, but input.size(-3)="
                           f"{c} is not divisible by {r * r}")
    n = len(lead)
    split = p.reshape(input, (*lead, c // (r * r), r, r, h, w))
    moved = p.permute(split, (*range(n + 1), n + 3, n + 1, n + 4, n + 2))
    return _copied(moved, (*lead, c // (r * r), h * r, w * r))


@op(method=False, out=False, opmath=False, order="images", public=BOTH, samples=lambda: iter([
    sample(Arr((2, 3, 4, 6)), 2), sample(Arr((1, 3, 6)), 3)]))
def pixel_unshuffle(input: Tensor, downscale_factor: int):
    """Places to channels, the inverse of `pixel_shuffle`: (..., c, h r, w r) -> (..., c r^2, h, w).

    >>> torch.pixel_unshuffle(torch.arange(4).reshape(1, 1, 2, 2), 2).flatten()
    tensor([0, 1, 2, 3])
    """
    if input.ndim < 3:
        raise RuntimeError("pixel_unshuffle expects input to have at least 3 dimensions, but got "
                           f"input with {input.ndim} dimension(s)")
    if downscale_factor <= 0:
        raise RuntimeError("pixel_unshuffle expects a positive downscale_factor, but got "
                           f"{downscale_factor}")
    *lead, c, h, w = input.shape
    r = downscale_factor
    for name, size in (("height", h), ("width", w)):
        if size % r:
            raise RuntimeError(f"pixel_unshuffle expects {name} to be divisible by "
                               f"downscale_factor, but input.size("
                               f"{-2 if name == 'height' else -1})={size} is not divisible by {r}")
    n = len(lead)
    split = p.reshape(input, (*lead, c, h // r, r, w // r, r))
    moved = p.permute(split, (*range(n + 1), n + 2, n + 4, n + 1, n + 3))
    return _copied(moved, (*lead, c * r * r, h // r, w // r))


@op(method=False, out=False, opmath=False, order="images", public=BOTH,
    grad="ChannelShuffleBackward0", aliases=("native_channel_shuffle",), samples=lambda: iter([
        sample(Arr((2, 6, 3, 4)), 3), sample(Arr((1, 4, 5)), 2)]))
def channel_shuffle(input: Tensor, groups: int):
    """Channel g k + i of k per group becomes i groups + g (Zhang et al. 2018): (n, c, ...).

    >>> torch.channel_shuffle(torch.arange(4).reshape(1, 4, 1, 1), 2).flatten()
    tensor([0, 2, 1, 3])
    """
    if input.ndim < 3:
        raise RuntimeError("channel_shuffle expects input with > 2 dims, but got input with sizes "
                           f"{list(input.shape)}")
    if groups <= 0:
        raise RuntimeError(f"Number of groups to divide channels in must be positive. Value of "
                           f"groups:{groups}")
    n, c, *rest = input.shape
    if c % groups:
        raise RuntimeError("Number of channels must be divisible by groups. Got "
                           f"{c} channels and {groups} groups.")
    split = p.reshape(input, (n, groups, c // groups, *rest))
    moved = p.permute(split, (0, 2, 1, *range(3, split.ndim)))
    return _copied(moved, input.shape)
