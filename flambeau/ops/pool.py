"""Pooling: reductions over sliding windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flambeau.core import dtypes
from flambeau.ir.graph import Value, constant
from flambeau.ops import primitives as p
from flambeau.ops.activation import BOTH, FUNCTIONAL
from flambeau.ops.primitives import convert
from flambeau.ops.record import Tensor, op
from flambeau.ops.reduce import size_constant
from flambeau.ops.samples import Arr, sample


def _nothing_in(shape: Sequence[int]) -> str:
    """What is wrong with the part of a shape that windows move over, if it holds nothing."""
    if 0 not in shape:
        return ""
    return (": Expected input's non-batch dimensions to have positive length, but non-batch "
            f"dimension {list(shape).index(0)} has length zero!")


class _Windows:
    """Sliding windows over the last `rank` dimensions of an input, checked.

    Attributes:
        kernel, stride, padding, dilation, size: one entry per dimension; size is the input's.
        out: number of windows.
        span: how much of the padded input the windows cover.
    """

    def __init__(self, name: str, rank: int, input: Value, kernel_size, stride, padding,
                 dilation=1, ceil_mode: bool = False):
        self.name, self.rank = name, rank
        self.kernel = self._sizes("kernel_size", kernel_size)
        empty = stride is None or stride in ((), [])
        self.stride = self.kernel if empty else self._sizes("stride", stride)
        self.padding, self.dilation = self._sizes("padding", padding), self._sizes(
            "dilation", dilation)
        for what in ("kernel", "stride", "dilation"):
            found = getattr(self, what)
            if min(found) <= 0:
                word = "kernel_size" if what == "kernel" else what
                raise RuntimeError(f"{name}: {word} must be greater than zero, but got "
                                   f"{found[0] if rank == 1 else list(found)}")
        for q, k in zip(self.padding, self.kernel, strict=True):
            if q < 0:
                raise RuntimeError(f"{name}: pad must be non-negative, but got pad={q}")
            if q > k // 2:
                raise RuntimeError(f"{name}: pad should be at most half of effective kernel size, "
                                   f"but got pad={q}, kernel_size={k}")
        if input.ndim not in (rank + 1, rank + 2) or 0 in input.shape[-rank - 1:]:
            raise RuntimeError(f"{name}: Expected {rank + 1}D or {rank + 2}D (batch mode) tensor "
                               "with optional 0 dim batch size for input, but "
                               f"got:{list(input.shape)}"
                               f"{_nothing_in(input.shape[-rank - 1:])}")
        self.size = input.shape[-rank:]
        self.reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True)]
        self.out = tuple(self._count(d, ceil_mode) for d in range(rank))
        if min(self.out) < 1:
            given = input.shape[-rank - 1:]
            raise RuntimeError(f"{name}: Given input size: ({_by(given)}). Calculated output "
                               f"size: ({_by((given[0], *self.out))}). Output size is too small")
        self.span = tuple((o - 1) * s + reach for o, s, reach in zip(
            self.out, self.stride, self.reach, strict=True))

    def _sizes(self, what: str, value) -> tuple[int, ...]:
        if isinstance(value, int):
            return (value,) * self.rank
        if len(value) == 1:
            return tuple(value) * self.rank
        if len(value) != self.rank:
            raise RuntimeError(f"{self.name}: {what} must be an int or a tuple of {self.rank} "
                               f"ints, but got {tuple(value)}")
        return tuple(value)

    def _count(self, d: int, ceil_mode: bool) -> int:
        """The last window must begin inside the input or its left padding."""
        stride, padding = self.stride[d], self.padding[d]
        room = self.size[d] + 2 * padding - self.reach[d]
        count = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
        if ceil_mode and (count - 1) * stride >= self.size[d] + padding:
            count -= 1
        return count

    @property
    def whole(self) -> bool:
        """Is there one window, the whole input?"""
        return self.kernel == tuple(self.size) and not any(self.padding) and (
            set(self.out) == {1} and set(self.dilation) == {1})

    def sliding(self, include_pad: bool = True, divisor: int | None = None) -> p.Sliding:
        """The windows as pooling primitives take them."""
        return p.Sliding(tuple(self.size), self.out, self.kernel, self.stride, self.padding,
                         self.dilation, include_pad, divisor)

    def dims(self, x: Value) -> range:
        """The dimensions that slide."""
        return range(x.ndim - self.rank, x.ndim)


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


# --------------------------------------------------------------------------- maximum
def _argmax(windows: _Windows | _Bins, x: Value) -> Value:
    """Where the maxima lie in the input, counted row-major over the dimensions that slide."""
    if not windows.whole:
        return p.pool_argmax(x, windows.sliding())
    at = p.reduce_arg(x, windows.dims(x), True)
    return p.reshape(at, (*at.shape, *windows.out))


def _max_pool(windows: _Windows | _Bins, x: Value, return_indices: bool):
    if x.dtype.kind == "b" or x.dtype.is_complex:
        raise NotImplementedError(f"\"{windows.name}\" not implemented for '{x.dtype.scalar_name}'")
    if windows.whole:
        y = p.reduce_max(x, windows.dims(x))
        y = p.reshape(y, (*y.shape, *windows.out))
    else:
        y = p.pool_max(x, windows.sliding())
    return (y, _argmax(windows, x)) if return_indices else y


def _max_pool_vjp(windows: _Windows | _Bins, g, x: Value, y) -> Value:
    """The gradient goes to the first element of each window that equals its maximum."""
    g, y = (v if isinstance(v, Value) else v[0] for v in (g, y))
    if not windows.whole:
        wide = convert(g, dtypes.float32) if g.dtype.is_reduced else g
        return convert(p.POOL_MAX_BACK(wide, x, y, attrs=(windows.sliding(),)), g.dtype)
    shape = (*x.shape[:-windows.rank], math.prod(windows.size))
    at = p.expand(p.reshape(_argmax(windows, x), (*shape[:-1], 1)), shape)
    wide = p.expand(p.reshape(g, (*shape[:-1], 1)), shape)
    grad = p.where(p.eq(p.iota(shape, len(shape) - 1), at), wide, p.zero_like(wide))
    return p.reshape(grad, x.shape)


def _max_samples(rank: int):
    space = ((11,), (7, 8), (4, 5, 6))[rank - 1]

    def samples():
        x = Arr((2, 3, *space))
        yield sample(x, 2)
        yield sample(Arr((3, *space)), 3, 2)
        yield sample(x, 3, 2, 1)
        yield sample(x, (2, 3, 1)[:rank], (2, 1, 3)[:rank], (1, 0, 0)[:rank], 2)
        yield sample(x, 2, ceil_mode=True)
        yield sample(x, 3, 2, 1, return_indices=True, ceil_mode=True)
        yield sample(Arr((0, 3, *space)), 2)

    return samples


def _max_grad(rank: int):
    return "SqueezeBackward1" if rank == 1 else f"MaxPool{rank}DWithIndicesBackward0"


def _options(grad, samples) -> dict:
    return {"method": False, "out": False, "public": FUNCTIONAL, "grad": grad, "samples": samples}


@op(**_options(_max_grad(1), _max_samples(1)) | {"public": BOTH, "opmath": False})
def max_pool1d(input: Tensor, kernel_size: int | tuple, stride: int | tuple | None = None,
               padding: int | tuple = 0, dilation: int | tuple = 1, ceil_mode: bool = False,
               return_indices: bool = False):
    """The maximum of each window over (n, c, length); equal maxima: the first takes the gradient.

    With `return_indices` also where each maximum lies in the last dimension.

    >>> torch.max_pool1d(torch.tensor([[1., 3., 2., 6.]]), 2)
    tensor([[3., 6.]])
    """
    windows = _Windows("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode)
    return _max_pool(windows, input, return_indices)


@max_pool1d.vjp
def max_pool1d_vjp(g, output, input, kernel_size, stride, padding, dilation, ceil_mode):
    """See _max_pool_vjp."""
    return _max_pool_vjp(_Windows("max_pool1d", 1, input, kernel_size, stride, padding, dilation,
                                  ceil_mode), g, input, output)


@op(**_options(_max_grad(2), _max_samples(2)) | {"public": BOTH, "opmath": False})
def max_pool2d(input: Tensor, kernel_size: int | tuple, stride: int | tuple | None = None,
               padding: int | tuple = 0, dilation: int | tuple = 1, ceil_mode: bool = False,
               return_indices: bool = False):
    """The maximum of each window over (n, c, h, w); equal maxima: the first takes the gradient.

    With `return_indices` also where each maximum lies, counted row-major over (h, w).

    >>> torch.max_pool2d(torch.arange(16.).reshape(1, 4, 4), 2)
    tensor([[[ 5.,  7.],
             [13., 15.]]])
    """
    windows = _Windows("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode)
    return _max_pool(windows, input, return_indices)


@max_pool2d.vjp
def max_pool2d_vjp(g, output, input, kernel_size, stride, padding, dilation, ceil_mode):
    """See _max_pool_vjp."""
    return _max_pool_vjp(_Windows("max_pool2d", 2, input, kernel_size, stride, padding, dilation,
                                  ceil_mode), g, input, output)


@op(**_options(_max_grad(3), _max_samples(3)) | {"public": BOTH, "opmath": False})
def max_pool3d(input: Tensor, kernel_size: int | tuple, stride: int | tuple | None = None,
               padding: int | tuple = 0, dilation: int | tuple = 1, ceil_mode: bool = False,
               return_indices: bool = False):
    """The maximum of each window over (n, c, d, h, w); equal maxima: the first takes the gradient.

    With `return_indices` also where each maximum lies, counted row-major over (d, h, w).

    >>> torch.max_pool3d(torch.arange(8.).reshape(1, 2, 2, 2), 2)
    tensor([[[[7.]]]])
    """
    windows = _Windows("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode)
    return _max_pool(windows, input, return_indices)


@max_pool3d.vjp
def max_pool3d_vjp(g, output, input, kernel_size, stride, padding, dilation, ceil_mode):
    """See _max_pool_vjp."""
    return _max_pool_vjp(_Windows("max_pool3d", 3, input, kernel_size, stride, padding, dilation,
                                  ceil_mode), g, input, output)


# --------------------------------------------------------------------------- mean
def _avg_pool(windows: _Windows | _Bins, x: Value, include_pad: bool, divisor: int | None) -> Value:
    """Window sums over the number of elements that count: padding does if `include_pad`, what lies
    beyond it (ceil_mode) never."""
    if x.dtype.is_integral and x.dtype is not dtypes.int64:
        raise NotImplementedError(f"\"{windows.name}\" not implemented for '{x.dtype.scalar_name}'")
    if divisor == 0:
        raise RuntimeError("divisor must be not zero")
    wide = convert(x, dtypes.float64) if x.dtype.is_integral else x
    if not windows.whole:
        return convert(p.pool_mean(wide, windows.sliding(include_pad, divisor)), x.dtype)
    total = p.reduce_sum(wide, windows.dims(x))
    total = p.reshape(total, (*total.shape, *windows.out))
    count = math.prod(windows.size) if divisor is None else divisor
    return convert(p.div(total, size_constant(count, total)), x.dtype)


def _avg_samples(rank: int):
    space = ((11,), (7, 8), (4, 5, 6))[rank - 1]

    def samples():
        x = Arr((2, 3, *space))
        yield sample(x, 2)
        yield sample(Arr((3, *space)), 3, 2)
        yield sample(x, 3, 2, 1)
        yield sample(x, 3, 2, 1, True, False)
        yield sample(x, 3, 2, 1, ceil_mode=True)
        if rank > 1:
            yield sample(x, 2, divisor_override=3)

    return samples


def _avg_grad(rank: int) -> str:
    return "SqueezeBackward1" if rank == 1 else f"AvgPool{rank}DBackward0"


@op(**_options(_avg_grad(1), _avg_samples(1)) | {"public": BOTH})
def avg_pool1d(input: Tensor, kernel_size: int | tuple, stride: int | tuple | None = None,
               padding: int | tuple = 0, ceil_mode: bool = False, count_include_pad: bool = True):
    """The mean of each window over (n, c, length).

    >>> torch.avg_pool1d(torch.tensor([[1., 3., 2., 6.]]), 2)
    tensor([[2., 4.]])
    """
    windows = _Windows("avg_pool1d", 1, input, kernel_size, stride, padding, 1, ceil_mode)
    return _avg_pool(windows, input, count_include_pad, None)


@op(**_options(_avg_grad(2), _avg_samples(2)) | {"out": True})
def avg_pool2d(input: Tensor, kernel_size: int | tuple, stride: int | tuple | None = None,
               padding: int | tuple = 0, ceil_mode: bool = False, count_include_pad: bool = True,
               divisor_override: int | None = None):
    """The mean of each window over (n, c, h, w); `divisor_override` replaces the count.

    >>> F.avg_pool2d(torch.arange(16.).reshape(1, 4, 4), 2)
    tensor([[[ 2.5000,  4.5000],
             [10.5000, 12.5000]]])
    """
    windows = _Windows("avg_pool2d", 2, input, kernel_size, stride, padding, 1, ceil_mode)
    return _avg_pool(windows, input, count_include_pad, divisor_override)


@op(**_options(_avg_grad(3), _avg_samples(3)) | {"out": True})
def avg_pool3d(input: Tensor, kernel_size: int | tuple, stride: int | tuple | None = None,
               padding: int | tuple = 0, ceil_mode: bool = False, count_include_pad: bool = True,
               divisor_override: int | None = None):
    """The mean of each window over (n, c, d, h, w); `divisor_override` replaces the count.

    >>> F.avg_pool3d(torch.arange(8.).reshape(1, 2, 2, 2), 2)
    tensor([[[[3.5000]]]])
    """
    windows = _Windows("avg_pool3d", 3, input, kernel_size, stride, padding, 1, ceil_mode)
    return _avg_pool(windows, input, count_include_pad, divisor_override)


# --------------------------------------------------------------------------- adaptive
def _adaptive_sizes(name: str, rank: int, x: Value, output_size) -> tuple[int, ...]:
    if isinstance(output_size, tuple) and rank > 1 and x.ndim <= len(output_size):
        raise ValueError(f"Input dimension should be at least {len(output_size) + 1}: {name} got "
                         f"an input of shape {list(x.shape)}")
    if x.ndim not in (rank + 1, rank + 2):
        raise RuntimeError(f"{name}(): Expected {rank + 1}D or {rank + 2}D tensor, but got "
                           f"{list(x.shape)}")
    if isinstance(output_size, int) or output_size is None:
        output_size = (output_size,) * rank
    if len(output_size) != rank:
        raise RuntimeError(f"{name}: output_size must be {rank}, got {len(output_size)} sizes")
    sizes = tuple(size if wanted is None else wanted
                  for wanted, size in zip(output_size, x.shape[-rank:], strict=True))
    if min(sizes) < 0:
        raise RuntimeError(f"{name}: elements of output_size must be greater than or equal to 0 "
                           f"but received {list(output_size)}")
    return sizes


class _Bins:
    """Windows of an adaptive pooling: bin i covers floor(i n / o) .. ceil((i + 1) n / o)."""

    whole = False

    def __init__(self, name: str, rank: int, x: Value, out: tuple[int, ...]):
        self.name, self.rank, self.out, self.size = name, rank, out, tuple(x.shape[-rank:])

    def sliding(self, include_pad: bool = True, divisor: int | None = None) -> p.Sliding:
        """The windows as pooling primitives take them."""
        ones, longest = (1,) * self.rank, tuple(
            -(-n // o) + (n % o != 0) for n, o in zip(self.size, self.out, strict=True))
        return p.Sliding(self.size, self.out, longest, ones, (0,) * self.rank, ones, include_pad,
                         divisor, bins=True)


SHORT = 8  # bins no longer than this along a row, all alike, go the way of other windows


def _adaptive(name: str, rank: int, x: Value, out: tuple[int, ...]) -> _Windows | _Bins:
    """The windows of an adaptive pooling; no size of `out` is 0."""
    size = x.shape[-rank:]
    if 0 in x.shape[-rank - 1:]:
        raise RuntimeError(f"{name}(): Expected input to have non-zero size for non-batch "
                           f"dimensions, but input has sizes {list(x.shape)}")
    regular = all(n % o == 0 for n, o in zip(size, out, strict=True))
    if regular and (set(out) == {1} or size[-1] <= SHORT * out[-1]):
        kernel = tuple(n // o for n, o in zip(size, out, strict=True))
        return _Windows(name, rank, x, kernel, kernel, 0)
    return _Bins(name, rank, x, out)


def _adaptive_avg(name: str, rank: int, x: Value, output_size) -> Value:
    out = _adaptive_sizes(name, rank, x, output_size)
    if x.dtype.is_integral:
        raise NotImplementedError(f"\"{name}\" not implemented for '{x.dtype.scalar_name}'")
    if 0 in out:
        return p.expand(constant(0.0, x.dtype, number=False), x.shape[:-rank] + out)
    return _avg_pool(_adaptive(name, rank, x, out), x, True, None)


def _adaptive_max(name: str, rank: int, x: Value, output_size, return_indices: bool):
    out = _adaptive_sizes(name, rank, x, output_size)
    if 0 in out:
        y = p.expand(constant(0, x.dtype, number=False), x.shape[:-rank] + out)
        return (y, convert(y, dtypes.int64)) if return_indices else y
    return _max_pool(_adaptive(name, rank, x, out), x, return_indices)


def _adaptive_max_vjp(name: str, rank: int, g, x: Value, y, output_size) -> Value:
    out = _adaptive_sizes(name, rank, x, output_size)
    if 0 in out:
        return p.zero_like(x)
    return _max_pool_vjp(_adaptive(name, rank, x, out), g, x, y)


def _adaptive_samples(rank: int, *more):
    space = ((12,), (8, 9), (4, 5, 6))[rank - 1]

    def samples():
        x = Arr((2, 3, *space))
        yield sample(x, tuple(s // (2 if s % 2 == 0 else 1) for s in space))
        yield sample(x, 3)
        yield sample(Arr((3, *space)), 1)
        yield sample(x, 5)
        if rank > 1:
            yield sample(x, (2, None, 3)[:rank])
        for extra in more:
            yield sample(x, 2, extra)
            yield sample(x, 5, extra)

    return samples


def _adaptive_grad(rank: int):
    def grad(call) -> str:
        out = call._static("output_size")
        if rank == 1:
            return "SqueezeBackward1"
        single = out == 1 or (isinstance(out, tuple) and set(out) == {1})
        return "MeanBackward1" if single else f"AdaptiveAvgPool{rank}DBackward0"

    return grad


@op(**_options(_adaptive_grad(1), _adaptive_samples(1)) | {"public": BOTH})
def adaptive_avg_pool1d(input: Tensor, output_size: int | tuple):
    """The means of `output_size` bins that divide the last dimension as evenly as possible.

    >>> torch.adaptive_avg_pool1d(torch.tensor([[1., 2., 3., 4., 5.]]), 2)
    tensor([[2., 4.]])
    """
    return _adaptive_avg("adaptive_avg_pool1d", 1, input, output_size)


@op(**_options(_adaptive_grad(2), _adaptive_samples(2)))
def adaptive_avg_pool2d(input: Tensor, output_size: int | tuple[int | None, ...]):
    """The means of a grid of bins that divide (h, w) as evenly as possible; None keeps a size.

    >>> F.adaptive_avg_pool2d(torch.arange(16.).reshape(1, 4, 4), 2)
    tensor([[[ 2.5000,  4.5000],
             [10.5000, 12.5000]]])
    """
    return _adaptive_avg("adaptive_avg_pool2d", 2, input, output_size)


@op(**_options(_adaptive_grad(3), _adaptive_samples(3)))
def adaptive_avg_pool3d(input: Tensor, output_size: int | tuple[int | None, ...]):
    """The means of a grid of bins that divide (d, h, w) as evenly as possible.

    >>> F.adaptive_avg_pool3d(torch.arange(8.).reshape(1, 2, 2, 2), 1)
    tensor([[[[3.5000]]]])
    """
    return _adaptive_avg("adaptive_avg_pool3d", 3, input, output_size)


def _adaptive_max_grad(rank: int) -> str:
    return "SqueezeBackward1" if rank == 1 else f"AdaptiveMaxPool{rank}DBackward0"


@op(**_options(_adaptive_max_grad(1), _adaptive_samples(1, True)) | {"opmath": False})
def adaptive_max_pool1d(input: Tensor, output_size: int | tuple, return_indices: bool = False):
    """The maxima of `output_size` bins of the last dimension, and where they lie if asked."""
    return _adaptive_max("adaptive_max_pool1d", 1, input, output_size, return_indices)


@adaptive_max_pool1d.vjp
def adaptive_max_pool1d_vjp(g, output, input, output_size):
    """See _adaptive_max_vjp."""
    return _adaptive_max_vjp("adaptive_max_pool1d", 1, g, input, output, output_size)


@op(**_options(_adaptive_max_grad(2), _adaptive_samples(2, True)) | {"opmath": False})
def adaptive_max_pool2d(input: Tensor, output_size: int | tuple[int | None, ...],
                        return_indices: bool = False):
    """The maxima of a grid of bins of (h, w), and where they lie, row-major, if asked.

    >>> F.adaptive_max_pool2d(torch.arange(16.).reshape(1, 4, 4), 2)
    tensor([[[ 5.,  7.],
             [13., 15.]]])
    """
    return _adaptive_max("adaptive_max_pool2d", 2, input, output_size, return_indices)


@adaptive_max_pool2d.vjp
def adaptive_max_pool2d_vjp(g, output, input, output_size):
    """See _adaptive_max_vjp."""
    return _adaptive_max_vjp("adaptive_max_pool2d", 2, g, input, output, output_size)


@op(**_options(_adaptive_max_grad(3), _adaptive_samples(3, True)) | {"opmath": False})
def adaptive_max_pool3d(input: Tensor, output_size: int | tuple[int | None, ...],
                        return_indices: bool = False):
    """The maxima of a grid of bins of (d, h, w), and where they lie, row-major, if asked.

    >>> F.adaptive_max_pool3d(torch.arange(8.).reshape(1, 2, 2, 2), 1)
    tensor([[[[7.]]]])
    """
    return _adaptive_max("adaptive_max_pool3d", 3, input, output_size, return_indices)


@adaptive_max_pool3d.vjp
def adaptive_max_pool3d_vjp(g, output, input, output_size):
    """See _adaptive_max_vjp."""
    return _adaptive_max_vjp("adaptive_max_pool3d", 3, g, input, output, output_size)
