"""Pooling besides maxima and means: power means, random windows, and maxima put back."""

from __future__ import annotations

import math

from flambeau.core import dtypes
from flambeau.ir.graph import Value, constant
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.activation import FUNCTIONAL, floats_only
from flambeau.ops.pool import _avg_pool, _max_pool, _Windows
from flambeau.ops.primitives import convert
from flambeau.ops.record import Index, Tensor, op
from flambeau.ops.samples import Arr, sample


# --------------------------------------------------------------------------- power means
def _lp_pool(name: str, rank: int, x: Value, degree: float, kernel_size, stride,
             ceil_mode: bool) -> Value:
    """(sum of x^degree over each window)^(1 / degree); a negative sum counts as 0."""
    floats_only(name, x)
    if degree == math.inf:
        return _max_pool(_Windows(name, rank, x, kernel_size, stride, 0, 1, ceil_mode),
                         p.abs_(x), False)
    if not degree:
        raise ZeroDivisionError(f"{name}(): norm_type must not be 0")
    windows = _Windows(name, rank, x, kernel_size, stride, 0, 1, ceil_mode)
    power = p.mul(x, x) if degree == 2 else p.pow_(x, e.like(degree, x))
    mean = _avg_pool(windows, power, True, None)
    size, zero = p.abs_(mean), p.zero_like(mean)
    size = p.mul(p.sign(mean), p.where(p.le(size, zero), zero, size))  # NaN passes on, as by relu
    total = p.mul(size, e.like(math.prod(windows.kernel), size))
    return p.sqrt(total) if degree == 2 else p.pow_(total, e.like(1 / degree, total))


def _lp_samples(rank: int):
    space = ((11,), (7, 8), (4, 5, 6))[rank - 1]

    def samples():
        x = Arr((2, 3, *space), None, 0.1, 2)
        yield sample(x, 2.0, 3)
        yield sample(x, 3, 3, 2, True)
        yield sample(Arr((3, *space), None, 0.1, 2), 1.5, 2, 1)

    return samples


def _options(rank: int) -> dict:
    return {"method": False, "out": False, "public": FUNCTIONAL, "grad": "PowBackward0",
            "samples": _lp_samples(rank)}


@op(**_options(1))
def lp_pool1d(input: Tensor, norm_type: int | float, kernel_size: int | tuple,
              stride: int | tuple | None = None, ceil_mode: bool = False):
    """(sum of x^p over each window)^(1 / p) over (n, c, length).

    >>> F.lp_pool1d(torch.tensor([[3., 4., 0., 1.]]), 2, 2)
    tensor([[5., 1.]])
    """
    return _lp_pool("lp_pool1d", 1, input, norm_type, kernel_size, stride, ceil_mode)


@op(**_options(2))
def lp_pool2d(input: Tensor, norm_type: int | float, kernel_size: int | tuple,
              stride: int | tuple | None = None, ceil_mode: bool = False):
    """(sum of x^p over each window)^(1 / p) over (n, c, h, w).

    >>> F.lp_pool2d(torch.tensor([[[3., 4.], [0., 0.]]]), 2, 2)
    tensor([[[5.]]])
    """
    return _lp_pool("lp_pool2d", 2, input, norm_type, kernel_size, stride, ceil_mode)


@op(**_options(3))
def lp_pool3d(input: Tensor, norm_type: int | float, kernel_size: int | tuple,
              stride: int | tuple | None = None, ceil_mode: bool = False):
    """(sum of x^p over each window)^(1 / p) over (n, c, d, h, w).

    >>> F.lp_pool3d(torch.ones(1, 2, 2, 1), 2, (2, 2, 1))
    tensor([[[[2.]]]])
    """
    return _lp_pool("lp_pool3d", 3, input, norm_type, kernel_size, stride, ceil_mode)


# --------------------------------------------------------------------------- unpooling
def _unpool_samples(rank: int):
    space, out = ((3,), (3, 2), (2, 2, 3))[rank - 1], ((7,), (6, 4), (4, 4, 6))[rank - 1]

    def samples():
        high = math.prod(out)
        x, at = (2, 3, *space), Arr((2, 3, *space), "int64", 0, high)
        yield sample(Arr(x, requires_grad=False), at, out)
        yield sample(Arr((1, *(1,) * rank)), Arr((1, *(1,) * rank), "int64", 0, high), out)

    return samples


@op(method=False, out=False, opmath=False, public=(), samples=_unpool_samples(2),
    grad=lambda call: f"MaxUnpool{len(call._static('output_size'))}DBackward0")
def _max_unpool(input: Tensor, indices: Index, output_size: tuple):
    """Zeros, but each element where its index says, row-major over the last dimensions."""
    rank = len(output_size)
    if indices.dtype is not dtypes.int64:
        raise RuntimeError(f"elements in indices should be type int64 but got: "
                           f"{indices.dtype.name}")
    if input.ndim not in (rank + 1, rank + 2):
        raise RuntimeError(f"Input to max_unpooling{rank}d should be a {rank + 1}d or "
                           f"{rank + 2}d Tensor, but got a tensor with {input.ndim} dims.")
    if indices.shape != input.shape:
        raise RuntimeError(f"Expected shape of indices to be same as that of the input tensor "
                           f"({list(input.shape)}) but got indices tensor with shape: "
                           f"{list(indices.shape)}")
    lead = input.shape[:-rank]
    if 0 in input.shape[input.ndim - rank - 1:]:
        raise RuntimeError(f"max_unpooling{rank}d(): Expected input to have non-zero size for "
                           f"non-batch dimensions, but got {list(input.shape)}")
    zero = p.expand(constant(0, input.dtype, number=False), (*lead, math.prod(output_size)))
    at = p.reshape(indices, (*lead, math.prod(input.shape[-rank:])))
    source = p.reshape(input, at.shape)
    return p.reshape(p.scatter(zero, [*range(len(lead)), at], source, "set"),
                     (*lead, *output_size))


@_max_unpool.vjp
def _max_unpool_vjp(g, input, indices, output_size):
    """Each element takes the gradient of where it went, even if another overwrote it."""
    rank = len(output_size)
    lead = input.shape[:-rank]
    flat = p.reshape(g, (*lead, math.prod(output_size)))
    at = p.reshape(indices, (*lead, math.prod(input.shape[-rank:])))
    return p.reshape(p.lookup(flat, [*range(len(lead)), at], at.shape), input.shape)


# --------------------------------------------------------------------------- random windows
class _Fractions:
    """Windows of `kernel` places that begin at pseudo-random, roughly even steps (Graham 2014).

    Window i of o begins at floor((i + u) a) - floor(u a), a = (size - kernel) / (o - 1), where u is
    the sample of its plane and dimension; the last one ends with the input.
    """

    def __init__(self, x: Value, samples: Value, kernel: tuple, out: tuple):
        self.rank, self.kernel, self.out = len(kernel), kernel, out
        self.lead, self.size = x.shape[:-self.rank], x.shape[-self.rank:]
        for d, (size, k, o) in enumerate(zip(self.size, kernel, out, strict=True)):
            if o + k - 1 > size:
                raise RuntimeError(f"fractional_max_pool{self.rank}d(): pool size {k} of dimension "
                                   f"{d} is too large relative to input size {size}")
        n, c = (1, x.shape[0]) if len(self.lead) == 1 else self.lead
        if samples.dtype is not x.dtype:
            raise RuntimeError("Expect _random_samples to have the same dtype as input")
        if samples.ndim != 3 or samples.shape[0] < n or samples.shape[1:] != (c, self.rank):
            raise RuntimeError(f"Expect _random_samples of size {[n, c, self.rank]}, got "
                               f"{list(samples.shape)}")
        self.samples = p.slice_(samples, (0, 0, 0), (1, 1, 1), (n, c, self.rank))
        self.samples = p.reshape(self.samples, (*self.lead, self.rank))

    def places(self, d: int, shape) -> Value:
        """The place along dimension d of each element (..., *out, *kernel)."""
        n = len(self.lead)
        u = p.lookup(self.samples, [*range(n), self._number(d, shape)], shape)
        at = p.iota(shape, n + d)
        size, k, o = self.size[d], self.kernel[d], self.out[d]
        last = e.like(size - k, at)
        if o > 1:
            pace = e.like((size - k) / (o - 1), u)
            start = p.sub(self._whole(p.mul(p.add(convert(at, u.dtype), u), pace)),
                          self._whole(p.mul(u, pace)))
            last = p.where(p.eq(at, e.like(o - 1, at)), last, start)
        return p.add(last, p.iota(shape, n + self.rank + d))

    def _number(self, d: int, shape) -> Value:
        return p.expand(constant(self._column(d), dtypes.int64, number=False), shape)

    def _column(self, d: int) -> int:
        """Which of the samples of a plane serves dimension d: in the plane, x comes first."""
        return self.rank - 1 - d if self.rank == 2 else d

    @staticmethod
    def _whole(x: Value) -> Value:
        return convert(p.trunc(x), dtypes.int64)

    def pool(self, x: Value) -> tuple[Value, Value]:
        """(maxima, where they lie row-major in their plane)."""
        n = len(self.lead)
        shape = (*self.lead, *self.out, *self.kernel)
        places = [self.places(d, shape) for d in range(self.rank)]
        taps = tuple(range(n + self.rank, len(shape)))
        elements = p.lookup(x, [*range(n), *places], shape)
        best = p.reduce_arg(elements, taps, True)
        flat = None
        for place, size in zip(places, self.size, strict=True):
            flat = place if flat is None else p.add(p.mul(flat, e.like(size, flat)), place)
        rows = p.reshape(flat, (*self.lead, *self.out, math.prod(self.kernel)))
        index = p.lookup(rows, [*range(n + self.rank), best], best.shape)
        plane = p.reshape(x, (*self.lead, math.prod(self.size)))
        return p.lookup(plane, [*range(n), index], index.shape), index


def _fraction_samples(rank: int):
    space, kernel, out = (((7, 8), (2, 3), (3, 4)) if rank == 2
                          else ((6, 5, 7), (2, 2, 3), (3, 2, 3)))

    def samples():
        for lead, draws in (((2, 3), (2, 3, rank)), ((3,), (1, 3, rank))):
            yield sample(Arr((*lead, *space)), Arr(draws, None, 0, 1, requires_grad=False),
                         kernel, out)

    return samples


@op(method=False, out=False, opmath=False, public=(), returns=("output", "indices"),
    samples=_fraction_samples(2),
    grad=lambda call: f"FractionalMaxPool{len(call._static('kernel_size'))}DBackward0")
def _fractional_max_pool(input: Tensor, samples: Index, kernel_size: tuple, output_size: tuple):
    """The maximum of each pseudo-random window, and where it lies."""
    floats_only("fractional_max_pool_out_frame", input)
    rank = len(kernel_size)
    if input.ndim not in (rank + 1, rank + 2) or 0 in input.shape[-rank - 1:]:
        raise RuntimeError(f"fractional_max_pool{rank}d(): Expected {rank + 1}D or {rank + 2}D "
                           f"tensor with non-zero sizes, but got: {list(input.shape)}")
    y, index = _Fractions(input, samples, kernel_size, output_size).pool(input)
    return y, p.stop_gradient(index)
