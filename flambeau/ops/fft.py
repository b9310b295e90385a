"""Discrete Fourier transforms: `torch.fft`.

Along several dimensions they are transforms along one after another. Lengths are cut or filled up
with zeros before that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from flambeau.core.shapes import existing_dim, normalize_dim
from flambeau.core.symbolic import pinned
from flambeau.ir.graph import Value
from flambeau.ops import primitives as p
from flambeau.ops.primitives import convert
from flambeau.ops.record import Op, Tensor, dtypes_default, op
from flambeau.ops.samples import Arr, sample
from flambeau.ops.views import roll

DIVIDED = {"backward": (False, True), "forward": (True, False)}  # for each norm: is a transform
# (forward, backward) divided by the number of points?


def _scale(n: int, backward: bool, norm: str | None) -> float:
    """What a transform over n points is multiplied by."""
    norm = "backward" if norm is None else norm
    if norm == "ortho":
        return 1 / math.sqrt(n)
    if norm not in DIVIDED:
        raise RuntimeError(f'Invalid normalization mode: "{norm}"; it may be "backward", "forward" '
                           'or "ortho"')
    return 1 / n if DIVIDED[norm][backward] else 1.0


def floating(name: str, x: Value) -> Value:
    """`x` as a dtype that transforms are computed in; integers become the default one."""
    if x.dtype.is_integral:
        return convert(x, dtypes_default())
    if x.dtype.is_reduced:
        raise RuntimeError(f"Unsupported dtype {x.dtype.scalar_name}: {name}() computes in float32 "
                           "and float64; convert the input first")
    return x


def _real(name: str, x: Value) -> Value:
    if x.dtype.is_complex:
        raise RuntimeError(f"{name} expects a real input tensor, but got {x.dtype.scalar_name}")
    return floating(name, x)


def _complex(name: str, x: Value) -> Value:
    x = floating(name, x)
    return convert(x, x.dtype.to_complex())


def _axis(dim: int, x: Value) -> int:
    if x.ndim == 0:
        raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
    return normalize_dim(dim, x.ndim)


def _resized(x: Value, dim: int, n: int) -> Value:
    """`x` cut, or filled up with zeros, to n points along dim."""
    if n < x.shape[dim]:
        return p.slice_dim(x, dim, 0, 1, n)
    shape = list(x.shape)
    shape[dim] = n
    return p.spread(x, (0,) * x.ndim, (1,) * x.ndim, shape)


def _checked(n: int) -> int:
    if n < 1:
        raise RuntimeError(f"Invalid number of data points ({n}) specified")
    return pinned(n)


# --------------------------------------------------------------------------- one dimension
def _between(name: str, x: Value, n: int | None, dim: int, norm: str | None, backward: bool
             ) -> Value:
    """Complex numbers to complex numbers."""
    x, dim = floating(name, x), _axis(dim, x)
    n = _checked(x.shape[dim] if n is None else n)
    return p.fourier(_resized(x, dim, n), dim, backward, _scale(n, backward, norm))


def _from_reals(name: str, x: Value, n: int | None, dim: int, norm: str | None, backward: bool
                ) -> Value:
    """Reals to the first half of what they become."""
    x, dim = _real(name, x), _axis(dim, x)
    n = _checked(x.shape[dim] if n is None else n)
    return p.fourier_from_reals(_resized(x, dim, n), dim, backward, _scale(n, backward, norm))


def _to_reals(name: str, x: Value, n: int | None, dim: int, norm: str | None, backward: bool
              ) -> Value:
    """The first half of a Hermitian sequence to reals."""
    x, dim = _complex(name, x), _axis(dim, x)
    n = _checked(2 * (x.shape[dim] - 1) if n is None else n)
    return p.fourier_to_reals(_resized(x, dim, n // 2 + 1), dim, n, backward,
                              _scale(n, backward, norm))


def _lines(dtype: str):
    """Samples: small, prime and odd lengths, padded and cut, along both dimensions, each norm."""
    def samples():
        for shape in ((8,), (3, 5), (2, 37), (4, 12)):
            yield sample(Arr(shape, dtype))
        yield sample(Arr((3, 6), dtype), 4, 0)
        yield sample(Arr((2, 9), dtype), 14, -1, "ortho")
        yield sample(Arr((2, 6), dtype), norm="forward")

    return samples


def _along_one(name: str, rule: Callable, backward: bool, dtype: str, doc: str, oracle) -> Op:
    """The record of a transform along one dimension."""
    def transform(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None):
        return rule(name, input, n, dim, norm, backward)

    transform.__name__ = transform.__qualname__ = name
    transform.__doc__ = doc
    kind = {_between: "FftC2C", _from_reals: "FftR2C", _to_reals: "FftC2R"}[rule]
    return op(name=f"fft.{name}", method=False, public=("fft",), oracle=oracle, opmath=False,
              grad=f"{kind}Backward0", samples=_lines(dtype))(transform)


fft = _along_one("fft", _between, False, "complex128",
                 "The sum over j of input[j] exp(-2 pi i j k / n), for each k < n, along dim.",
                 np.fft.fft)
ifft = _along_one("ifft", _between, True, "complex128",
                  "What `fft` makes the input of: the mean over k of input[k] exp(2 pi i j k / n).",
                  np.fft.ifft)
rfft = _along_one("rfft", _from_reals, False, "float64",
                  "`fft` of reals: its first n // 2 + 1 results; the others mirror them.",
                  np.fft.rfft)
ihfft = _along_one("ihfft", _from_reals, True, "float64",
                   "`ifft` of reals: its first n // 2 + 1 results; the others mirror them.",
                   np.fft.ihfft)
irfft = _along_one("irfft", _to_reals, True, "complex128",
                   "What `rfft` makes the input of: n reals, 2 (size - 1) by default.",
                   np.fft.irfft)
hfft = _along_one("hfft", _to_reals, False, "complex128",
                  "`fft` of the Hermitian sequence that begins with the input: n reals, "
                  "2 (size - 1) by default.", np.fft.hfft)


# --------------------------------------------------------------------------- several dimensions
def _axes(x: Value, s: Sequence[int] | None, dim: Sequence[int] | None
          ) -> tuple[list[int], list[int]]:
    """(dimensions, how many points along each; -1: as many as there are)."""
    sizes = None if s is None else [s] if isinstance(s, int) else list(s)
    if dim is not None:
        given = [dim] if isinstance(dim, int) else dim
        dims = [existing_dim(d, x.ndim) for d in given]
        if len(set(dims)) != len(dims):
            raise RuntimeError(f"FFT dims must be unique, got {tuple(given)}")
        if sizes is not None and len(sizes) != len(dims):
            raise RuntimeError("When given, dim and shape arguments must have the same length, got "
                               f"dim={tuple(given)} and s={tuple(sizes)}")
    else:
        count = x.ndim if sizes is None else len(sizes)
        if count > x.ndim:
            raise RuntimeError(f"Got shape with {count} values but input tensor only has {x.ndim} "
                               "dimensions.")
        dims = list(range(x.ndim - count, x.ndim))
    return dims, sizes if sizes is not None else [-1] * len(dims)


def _points(x: Value, dims: Sequence[int], sizes: Sequence[int]) -> list[int]:
    return [_checked(x.shape[d] if n == -1 else n) for d, n in zip(dims, sizes, strict=True)]


def _all_resized(x: Value, dims: Sequence[int], counts: Sequence[int]) -> Value:
    for d, n in zip(dims, counts, strict=True):
        x = _resized(x, d, n)
    return x


def _through(x: Value, dims: Sequence[int], norm: str | None, backward: bool) -> Value:
    """Complex transforms along dims, the last one first."""
    for d in reversed(dims):
        x = p.fourier(x, d, backward, _scale(x.shape[d], backward, norm))
    return x


def _need_axes(name: str, dims: Sequence[int]) -> None:
    if not dims:
        raise RuntimeError(f"{name} must transform at least one axis")


def _between_n(name: str, x: Value, axes: tuple, norm: str | None, backward: bool) -> Value:
    x, (dims, sizes) = floating(name, x), axes
    x = _all_resized(x, dims, _points(x, dims, sizes))
    if not dims:
        _scale(1, backward, norm)
        return convert(x, x.dtype.to_complex())
    return _through(x, dims, norm, backward)


def _from_reals_n(name: str, x: Value, axes: tuple, norm: str | None, backward: bool) -> Value:
    x, (dims, sizes) = _real(name, x), axes
    _need_axes(name, dims)
    counts = _points(x, dims, sizes)
    x = _all_resized(x, dims, counts)
    x = p.fourier_from_reals(x, dims[-1], backward, _scale(counts[-1], backward, norm))
    return _through(x, dims[:-1], norm, backward)


def _to_reals_n(name: str, x: Value, axes: tuple, norm: str | None, backward: bool) -> Value:
    x, (dims, sizes) = _complex(name, x), axes
    _need_axes(name, dims)
    n = _checked(2 * (x.shape[dims[-1]] - 1) if sizes[-1] == -1 else sizes[-1])
    counts = _points(x, dims[:-1], sizes[:-1])
    x = _through(_all_resized(x, dims, [*counts, n // 2 + 1]), dims[:-1], norm, backward)
    return p.fourier_to_reals(x, dims[-1], n, backward, _scale(n, backward, norm))


def _planes(dtype: str):
    def samples():
        for shape in ((4, 6), (2, 5, 3)):
            yield sample(Arr(shape, dtype))
        yield sample(Arr((3, 6), dtype), (4, 5), (0, 1))
        yield sample(Arr((3, 6, 2), dtype), None, (0, 1), "ortho")
        yield sample(Arr((3, 6), dtype), (2, 3), (1, 0), norm="forward")

    return samples


def _along_several(name: str, rule: Callable, backward: bool, dtype: str, doc: str, oracle) -> None:
    """The records of a transform along several dimensions, and along two: `name`n and `name`2."""
    kind = {_between_n: "FftC2C", _from_reals_n: "FftR2C", _to_reals_n: "FftC2R"}[rule]

    def along_all(input: Tensor, s: int | tuple | None = None, dim: int | tuple | None = None,
                  norm: str | None = None):
        return rule(f"{name}n", input, _axes(input, s, dim), norm, backward)

    def along_two(input: Tensor, s: int | tuple | None = None, dim: int | tuple | None = (-2, -1),
                  norm: str | None = None):
        return rule(f"{name}2", input, _axes(input, s, dim), norm, backward)

    for body, suffix, where in ((along_all, "n", "all dimensions (or `dim`)"),
                                (along_two, "2", "the last two dimensions (or `dim`)")):
        body.__name__ = body.__qualname__ = f"{name}{suffix}"
        body.__doc__ = f"{doc} Along {where}, cut or padded to `s` points."
        op(name=f"fft.{name}{suffix}", method=False, public=("fft",), grad=f"{kind}Backward0",
           opmath=False, samples=_planes(dtype), oracle=oracle and oracle[suffix == "2"])(body)


_along_several("fft", _between_n, False, "complex128", "`fft` along one dimension after another.",
               (np.fft.fftn, np.fft.fft2))
_along_several("ifft", _between_n, True, "complex128", "`ifft` along one dimension after another.",
               (np.fft.ifftn, np.fft.ifft2))
_along_several("rfft", _from_reals_n, False, "float64",
               "`rfft` along the last dimension, then `fft` along the others.",
               (np.fft.rfftn, np.fft.rfft2))
_along_several("ihfft", _from_reals_n, True, "float64",
               "`ihfft` along the last dimension, then `ifft` along the others.", None)
_along_several("irfft", _to_reals_n, True, "complex128",
               "`ifft` along all dimensions but the last, then `irfft` along that.",
               (np.fft.irfftn, np.fft.irfft2))
_along_several("hfft", _to_reals_n, False, "complex128",
               "`fft` along all dimensions but the last, then `hfft` along that.", None)


# --------------------------------------------------------------------------- order of frequencies
def _shifted(x: Value, dim: int | tuple | None, back: bool) -> Value:
    """Rolled by half of each dimension; by the larger half `back`."""
    dims = tuple(range(x.ndim)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    halves = [x.shape[normalize_dim(d, x.ndim)] // 2 for d in dims]
    if back:
        halves = [x.shape[d] - half for d, half in zip(dims, halves, strict=True)]
    return roll.body(x, tuple(halves), dims) if dims else x


def _shifts():
    for shape in ((5,), (4, 3), (0, 2)):
        yield sample(Arr(shape))
    yield sample(Arr((4, 3)), 1)
    yield sample(Arr((4, 3, 2)), (0, 2))


@op(name="fft.fftshift", samples=_shifts, method=False, public=("fft",), opmath=False, out=False,
    grad="RollBackward0", oracle=np.fft.fftshift)
def fftshift(input: Tensor, dim: int | tuple | None = None):
    """Frequencies in rising order: the second half of each dimension (or of dim) first.

    >>> torch.fft.fftshift(torch.fft.fftfreq(4))
    tensor([-0.5000, -0.2500,  0.0000,  0.2500])
    """
    return _shifted(input, dim, False)


@op(name="fft.ifftshift", samples=_shifts, method=False, public=("fft",), opmath=False, out=False,
    grad="RollBackward0", oracle=np.fft.ifftshift)
def ifftshift(input: Tensor, dim: int | tuple | None = None):
    """Undoes `fftshift`.

    >>> torch.fft.ifftshift(torch.tensor([-2, -1, 0, 1]))
    tensor([ 0,  1, -2, -1])
    """
    return _shifted(input, dim, True)
