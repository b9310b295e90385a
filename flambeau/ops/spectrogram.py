"""Short-time Fourier transforms: of overlapping frames of a signal, and back by adding frames up.

What users call (`tensor/spectrograms.py`) checks arguments and turns frames and frequencies round.
"""

from __future__ import annotations

import math

from flambeau.ir.graph import Value
from flambeau.ops import primitives as p
from flambeau.ops.conv import pad as pad_op
from flambeau.ops.fft import floating
from flambeau.ops.primitives import convert
from flambeau.ops.record import Tensor, op, result_type
from flambeau.ops.samples import Arr, sample

_OPTIONS = {"method": False, "public": (), "out": False, "opmath": False}


def _centered(window: Value, n: int) -> Value:
    """A window with zeros on both sides, n points in all."""
    (size,) = window.shape
    return p.spread(window, ((n - size) // 2,), (1,), (n,))


def _weighted(frames: Value, window: Value | None) -> Value:
    """Frames (..., n) times a window of n points or fewer."""
    if window is None:
        return frames
    both = result_type([frames, window])
    window = _centered(convert(window, both), frames.shape[-1])
    return p.mul(convert(frames, both), p.expand(window, frames.shape))


def _stft_samples():
    yield sample(Arr((19,)), Arr((5,), None, 0.5, 2.0), 6, 2, 3, "reflect", True, True)
    yield sample(Arr((2, 19)), None, 8, 3, 0, "constant", False, False)
    yield sample(Arr((2, 19), "complex128"), Arr((8,), "float64", 0.5, 2.0), 8, 3, 4, "constant",
                 False, False)


@op(name="_stft", samples=_stft_samples, grad="StftBackward0", **_OPTIONS)
def _stft(input: Tensor, window: Tensor | None, n_fft: int, hop: int, pad: int, pad_mode: str,
          normalized: bool, onesided: bool):
    """Transforms of n_fft points, hop apart: (..., time) -> (..., frames, frequencies).

    Args:
        pad: how many points are put in front of the signal, and behind it, as `pad_mode` says.
    """
    x = floating("stft", input)
    if onesided and result_type([x] if window is None else [x, window]).is_complex:
        raise RuntimeError("Cannot have onesided output if window or input is complex")
    if pad:
        lead = (1,) * (3 - x.ndim)
        x = pad_op.body(p.reshape(x, (*lead, *x.shape)), (pad, pad), pad_mode)
        x = p.reshape(x, (*input.shape[:-1], x.shape[-1]))
    frames = _weighted(p.window(x, (n_fft,), (hop,), (1,)), window)
    scale = 1 / math.sqrt(n_fft) if normalized else 1.0
    if onesided:
        return p.fourier_from_reals(frames, frames.ndim - 1, False, scale)
    return p.fourier(frames, frames.ndim - 1, False, scale)


def _istft_samples():
    yield sample(Arr((3, 4, 5), "complex128"), Arr((6,), "float64", 0.5, 2.0), 8, 3, True, True)
    yield sample(Arr((2, 4, 6), "complex128"), None, 6, 2, False, False)


@op(name="_istft", samples=_istft_samples, grad="IstftBackward0", **_OPTIONS)
def _istft(input: Tensor, window: Tensor | None, n_fft: int, hop: int, normalized: bool,
           onesided: bool):
    """Frames transformed back, weighted by the window and added up where they lie: (batch, frames,
    frequencies) -> (batch, time)."""
    scale = 1 / math.sqrt(n_fft) if normalized else 1 / n_fft
    if onesided:
        half = p.slice_dim(input, 2, 0, 1, n_fft // 2 + 1)
        frames = p.fourier_to_reals(half, 2, n_fft, True, scale)
    else:
        frames = p.fourier(input, 2, True, scale)
    return _added_up(_weighted(frames, window), hop)


def _added_up(frames: Value, hop: int) -> Value:
    *lead, count, n = frames.shape
    return p.fold(frames, (n,), (hop,), (1,), (*lead, n + hop * (count - 1)))


@op(name="_window_envelope", samples=lambda: iter([sample(Arr((5,), None, 0.5, 2.0), 3, 6, 2)]),
    grad="IstftBackward0", **_OPTIONS)
def _window_envelope(window: Tensor, count: int, n_fft: int, hop: int):
    """The sum of the squares of `count` windows, hop apart, in frames of n_fft points: (time,)."""
    window = _centered(window, n_fft)
    squares = p.mul(window, window)
    return _added_up(p.expand(squares, (count, n_fft)), hop)
