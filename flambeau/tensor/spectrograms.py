"""`stft` and `istft`: what their arguments say, and the checks that depend on values."""

from __future__ import annotations

import warnings
from typing import Any

from flambeau.core.arguments import need_tensor
from flambeau.tensor.creation import ones
from flambeau.tensor.functions import ops

__all__ = ["stft", "istft"]

UNWEIGHTED = ("A window was not provided. A rectangular window will be applied, which is known to "
              "cause spectral leakage. Other windows such as torch.hann_window or "
              "torch.hamming_window are recommended. To suppress this warning and use a "
              "rectangular window, explicitly set `window=torch.ones(n_fft)`.")
SMALLEST = 1e-11  # of the window's envelope that a signal is divided by


def _signature(name: str, input: Any, **given: Any) -> str:
    words = ", ".join(f"{key}={list(value.shape) if hasattr(value, 'shape') else value}"
                      for key, value in given.items())
    return f"{name}({input.dtype.scalar_name}{list(input.shape)}, {words})"


def _need(condition: bool, call: str, message: str) -> None:
    if not condition:
        raise RuntimeError(f"{call}: {message}")


def stft(input: Any, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
         window: Any = None, center: bool = True, pad_mode: str = "reflect",
         normalized: bool = False, onesided: bool | None = None,
         return_complex: bool | None = None, align_to_window: bool | None = None) -> Any:
    """Fourier transforms of frames of a signal: (..., time) -> (..., frequencies, frames).

    Args:
        input: (time) or (batch, time), real or complex.
        hop_length: from one frame to the next; n_fft // 4 by default.
        win_length: of the window, which has zeros on both sides if it is shorter than n_fft.
        center: frame t is centered at t * hop_length: the signal is extended by n_fft // 2 at both
            ends, as `pad_mode` says.
        normalized: divide by the square root of n_fft.
        onesided: only the frequencies up to n_fft // 2; by default of what is real.
        return_complex: if False, the parts lie along a new last dimension (deprecated).
        align_to_window: without `center`: frames begin where their windows do.

    Raises:
        RuntimeError: arguments that do not go together, in their own terms.

    >>> torch.stft(torch.ones(8), 4, window=torch.ones(4), return_complex=True).shape
    torch.Size([3, 9])
    """
    need_tensor("stft", "input", input)
    if window is None:
        warnings.warn(UNWEIGHTED, UserWarning, stacklevel=2)
    else:
        need_tensor("stft", "window", window)
    if center and align_to_window is not None:
        raise RuntimeError("stft align_to_window should only be set when center = false")
    hop = n_fft // 4 if hop_length is None else hop_length
    length = n_fft if win_length is None else win_length
    complex_ = input.dtype.is_complex or window is not None and window.dtype.is_complex
    if return_complex is None:
        if not complex_:
            raise RuntimeError("stft requires the return_complex parameter be given for real "
                               "inputs, and will further require that return_complex=True in a "
                               "future PyTorch release.")
        return_complex = True
    elif not return_complex:
        warnings.warn("stft with return_complex=False is deprecated. In a future pytorch release, "
                      "stft will return complex tensors for all inputs, and return_complex=False "
                      "will raise an error.\nNote: you can still call torch.view_as_real on the "
                      "complex output to recover the old return format.", UserWarning,
                      stacklevel=2)
    pad = n_fft // 2 if center else max(0, n_fft - length) // 2 if align_to_window else 0
    call = _signature("stft", input, n_fft=n_fft, hop_length=hop, win_length=length, window=window,
                      normalized=normalized, onesided=onesided, return_complex=return_complex)
    _check_frames(call, input, n_fft, hop, length, window, pad)
    if onesided is None:
        onesided = not complex_
    if window is None and length < n_fft:
        window = ones(length, dtype=input.dtype.to_real(), device=input.device)
    found = ops._stft(input, window, n_fft, hop, pad, pad_mode, bool(normalized), onesided)
    found = found.transpose(-1, -2)
    return found if return_complex else ops.view_as_real(found)


def _check_frames(call: str, input: Any, n_fft: int, hop: int, length: int, window: Any,
                  pad: int) -> None:
    """Does the signal have frames, and the window their length?"""
    _need(not input.dtype.is_integral, call, "expected a tensor of floating point or complex "
          "values")
    _need(input.ndim in (1, 2), call, f"expected a 1D or 2D tensor, got {input.ndim}D")
    size = input.shape[-1] + 2 * pad
    _need(0 < n_fft <= size, call, f"expected 0 < n_fft < {size}, but got n_fft={n_fft}")
    _need(hop > 0, call, f"expected hop_length > 0, but got hop_length={hop}")
    _need(0 < length <= n_fft, call, f"expected 0 < win_length <= n_fft, but got "
          f"win_length={length}")
    _need(window is None or tuple(window.shape) == (length,), call, "expected a 1D window tensor "
          f"of size equal to win_length={length}, but got window with size "
          f"{window is not None and list(window.shape)}")


def istft(input: Any, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
          window: Any = None, center: bool = True, normalized: bool = False,
          onesided: bool | None = None, length: int | None = None, return_complex: bool = False
          ) -> Any:
    """The signal whose `stft` comes nearest to the input, by least squares (D. Griffin and J. Lim,
    1984): (..., frequencies, frames) -> (..., time).

    Args:
        length: of the result; by default as far as frames reach.
        return_complex: the signal is complex; the input then has all frequencies.

    Raises:
        RuntimeError: arguments that do not go together; a window that leaves places of the signal
            out (its envelope, the sum of squares, is 0 there).

    >>> s = torch.stft(torch.arange(8.), 4, window=torch.hann_window(4), return_complex=True)
    >>> torch.istft(s, 4, window=torch.hann_window(4))
    tensor([0., 1., 2., 3., 4., 5., 6., 7.])
    """
    need_tensor("istft", "input", input)
    if window is None:
        warnings.warn(UNWEIGHTED, UserWarning, stacklevel=2)
    else:
        need_tensor("istft", "window", window)
    hop = n_fft // 4 if hop_length is None else hop_length
    size = n_fft if win_length is None else win_length
    call = _signature("istft", input, n_fft=n_fft, hop_length=hop, win_length=size, window=window,
                      center=center, normalized=normalized, onesided=onesided, length=length,
                      return_complex=return_complex)
    if not input.dtype.is_complex:
        raise RuntimeError("istft requires a complex-valued input tensor matching the output from "
                           "stft with return_complex=True.")
    _need(input.numel() > 0, call, "input tensor cannot be empty.")
    if input.ndim < 2:
        raise IndexError("Dimension out of range: istft expects (frequencies, frames) or (batch, "
                         f"frequencies, frames), got {input.ndim}D")
    _need(input.ndim <= 3, call, "expected a tensor with 2 or 3 dimensions, but got "
          f"{input.ndim}")
    bins, frames = input.shape[-2:]
    if onesided is None:
        onesided = bins != n_fft and not return_complex
    whole = n_fft // 2 + 1 if onesided else n_fft
    _need(bins == whole, call, "expected the frequency dimension (2nd to the last) of the input to "
          f"match {'n_fft / 2 + 1' if onesided else 'n_fft'} when onesided={onesided}, but got "
          f"{bins}")
    _need(0 < hop <= size, call, f"expected 0 < hop_length <= win_length, got hop_length={hop}")
    _need(0 < size <= n_fft, call, f"expected 0 < win_length <= n_fft, got win_length={size}")
    _need(window is None or tuple(window.shape) == (size,), call, "Invalid window shape. window "
          f"has to be 1D and length of `win_length`, got {window is not None and window.shape}")
    if return_complex and onesided:
        raise RuntimeError("Cannot have onesided output if window or input is complex")
    if not return_complex and window is not None and window.dtype.is_complex:
        raise RuntimeError("Complex windows are incompatible with return_complex=False")
    if window is None:
        window = ones(size, dtype=input.dtype.to_real(), device=input.device)
    found = ops._istft(input.reshape((-1, bins, frames)).transpose(1, 2), window, n_fft, hop,
                       bool(normalized), not return_complex)
    found = _divided(found, ops._window_envelope(window, frames, n_fft, hop), call,
                     n_fft // 2 if center else 0, center, length)
    return found[0] if input.ndim == 2 else found


def _divided(signal: Any, envelope: Any, call: str, start: int, center: bool, length: int | None
             ) -> Any:
    """The part of the signal that is asked for, over the envelope; zeros behind its end."""
    reach = signal.shape[-1]
    end = start + length if length is not None else reach - start if center else reach
    signal, envelope = signal[:, start:end], envelope[start:end]
    if not bool(envelope.detach().abs().min() > SMALLEST):
        raise RuntimeError(f"{call} window overlap add min: {envelope.abs().min()}: the windows "
                           "leave places of the signal out")
    signal = signal / envelope
    if end > reach:
        warnings.warn("The length of signal is shorter than the length parameter. Result is being "
                      "padded with zeros in the tail. Please check your center and hop_length "
                      "settings.", UserWarning, stacklevel=3)
        signal = ops.pad(signal, (0, end - reach))
    return signal
