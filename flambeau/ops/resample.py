"""Images resampled: interpolation to a new size, and at places that a grid gives.

All are lookups at computed coordinates, weighted: nothing between input and result is stored.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np

from flambeau.core import dtypes
from flambeau.core.dtypes import DType
from flambeau.ir.graph import Value
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.activation import FUNCTIONAL, floats_only
from flambeau.ops.primitives import convert
from flambeau.ops.record import Tensor, op
from flambeau.ops.resample_bytes import Taps, joined_taps, resized_bytes
from flambeau.ops.samples import Arr, sample

CUBIC = -0.75  # slope of the cubic kernel at 1 (Keys 1981 uses -0.5; PyTorch and OpenCV this)
CUBIC_SMOOTH = -0.5  # the same with antialiasing, as Pillow


# --------------------------------------------------------------------------- one dimension
class _Axis:
    """How one spatial dimension of `size` places becomes one of `out` places.

    Attributes:
        ratio: places of the input per place of the result.
        dtype: what coordinates are computed in.
    """

    def __init__(self, dim: int, size: int, out: int, factor: float | None, corners: bool,
                 dtype: DType):
        self.dim, self.size, self.out, self.corners = dim, size, out, corners
        self.dtype = dtype if dtype.kind == "f" else dtypes.float32
        if corners:
            ratio = (size - 1) / (out - 1) if out > 1 else 0.0
        else:
            ratio = 1 / factor if factor else size / out
        self.ratio = float(np.float32(ratio)) if self.dtype is not dtypes.float64 else ratio

    def _at(self) -> Value:
        return convert(p.iota((self.out,), 0), self.dtype)

    def _clipped(self, index: Value) -> Value:
        low, high = p.zero_like(index), e.like(self.size - 1, index)
        return p.minimum(p.maximum(index, low), high)

    def nearest(self, exact: bool) -> list[tuple[Value, Value | None]]:
        """(index of the place that stands in for each place of the result, None)."""
        at = self._at()
        if exact:
            at = p.add(at, e.like(0.5, at))
        index = convert(p.floor(p.mul(at, e.like(self.ratio, at))), dtypes.int64)
        return [(self._clipped(index), None)]

    def source(self) -> Value:
        """Where each place of the result lies in the input."""
        at = self._at()
        if self.corners:
            return p.mul(at, e.like(self.ratio, at))
        half = e.like(0.5, at)
        return p.sub(p.mul(p.add(at, half), e.like(self.ratio, at)), half)

    def window(self, cubic: bool) -> int:
        """How many places an antialiasing kernel covers at most, and no fewer than five."""
        return max(5, math.ceil(self.support(cubic)) * 2 + 1)

    def support(self, cubic: bool) -> float:
        """How far an antialiasing kernel reaches."""
        return (2 if cubic else 1) * max(self.ratio, 1.0)

    def uses(self, cubic: bool) -> int:
        """How many antialiasing kernels cover a place at most."""
        if self.ratio == 0:
            return self.out
        return min(self.out, int(2 * self.support(cubic) / self.ratio) + 3)

    def linear(self) -> list[tuple[Value, Value | None]]:
        """(index, weight) of the two neighbours."""
        source = self.source()
        source = p.maximum(source, p.zero_like(source))
        low = self._clipped(convert(p.floor(source), dtypes.int64))
        high = p.minimum(p.add(low, e.like(1, low)), e.like(self.size - 1, low))
        share = p.sub(source, convert(low, source.dtype))
        share = p.minimum(share, e.like(1, share))
        return [(low, p.sub(e.like(1, share), share)), (high, share)]

    def cubic(self) -> list[tuple[Value, Value | None]]:
        """(index, weight) of the four nearest places."""
        source = self.source()
        floor = p.floor(source)
        first = convert(floor, dtypes.int64)
        return [(self._clipped(p.add(first, e.like(tap - 1, first))), weight)
                for tap, weight in enumerate(cubic_weights(p.sub(source, floor)))]


def cubic_weights(share: Value) -> list[Value]:
    """Weights of the places at -1, 0, 1 and 2 for a point `share` after place 0."""
    one = e.like(1, share)
    rest = p.sub(one, share)
    return [_cubic_far(p.add(share, one)), _cubic_near(share), _cubic_near(rest),
            _cubic_far(p.add(rest, one))]


def _cubic_near(x: Value, a: float = CUBIC) -> Value:
    """((a + 2) x - (a + 3)) x^2 + 1, for x in [0, 1]"""
    inner = p.sub(p.mul(e.like(a + 2, x), x), e.like(a + 3, x))
    return p.add(p.mul(p.mul(inner, x), x), e.like(1, x))


def _cubic_far(x: Value, a: float = CUBIC) -> Value:
    """((a x - 5 a) x + 8 a) x - 4 a, for x in [1, 2]"""
    inner = p.sub(p.mul(e.like(a, x), x), e.like(5 * a, x))
    inner = p.add(p.mul(inner, x), e.like(8 * a, x))
    return p.sub(p.mul(inner, x), e.like(4 * a, x))


# --------------------------------------------------------------------------- sizes
def _axes(name: str, x: Value, size: tuple, factors: tuple | None, corners: bool,
          dtype: DType | None = None) -> list[_Axis]:
    rank = x.ndim - 2
    if len(size) != rank:
        raise RuntimeError(f"It is expected output_size equals to {rank}, but got size {len(size)}")
    if 0 in x.shape[1:] or min(size) <= 0:
        raise RuntimeError("Input and output sizes should be greater than 0, but got input "
                           f"{list(x.shape)} and output size {list(size)}")
    return [_Axis(2 + d, x.shape[2 + d], size[d], factors[d] if factors else None, corners,
                  dtype or x.dtype) for d in range(rank)]


def _resized(x: Value, size: Sequence[int], taps: Sequence[list]) -> Value:
    """The sum over all combinations of taps of x there, times the weights: the last two dimensions
    at once, another one after them."""
    n, c, *old = x.shape
    if len(size) == 1:
        y = _resized_plane(p.reshape(x, (n, c, 1, *old)), [None, taps[0]], (1, size[0]))
        return p.reshape(y, (n, c, *size))
    if len(size) == 2:
        return _resized_plane(x, taps, size)
    y = _resized_plane(p.reshape(x, (n, c * old[0], *old[1:])), taps[1:], size[1:])
    y = p.reshape(y, (n, c, old[0], size[1] * size[2]))
    y = _resized_plane(y, [taps[0], None], (size[0], size[1] * size[2]))
    return p.reshape(y, (n, c, *size))


def _resized_plane(x: Value, taps: Sequence[list | None], out: Sequence[int]) -> Value:
    """(n, c, h, w) -> (n, c, *out); None keeps a dimension."""
    tables, weighted = [], any(way and way[0][1] is not None for way in taps)
    for way in taps:
        columns = [column for column in zip(*way or (), strict=True) if column[0] is not None]
        tables += [p.cat([p.reshape(v, (1, *v.shape)) for v in column], 0) for column in columns]
    how = p.Resized(x.shape[2:], tuple(out), tuple(len(way or ()) for way in taps), weighted)
    return p.resize(x, how, tables)


def _resize_grad(kind: str):
    def grad(call) -> str:
        rank = len(call.avals[0][0]) - 2
        exact = "Exact" if call._static("exact") else ""
        word = {"nearest": "Nearest" + exact, "cubic": "Bicubic"}.get(
            kind, {1: "Linear", 2: "Bilinear", 3: "Trilinear"}[rank])
        return f"Upsample{word}{rank}DBackward0"

    return grad


def _resize_samples(*more, ranks=(1, 2, 3)):
    def samples():
        for rank in ranks:
            x = Arr((2, 3, *(5, 4, 3)[:rank]))
            for extra in more:
                yield sample(x, (7, 9, 2)[:rank], None, *extra)
                yield sample(x, (2, 3, 5)[:rank], (0.5, 0.9, 1.9)[:rank], *extra)

    return samples


@op(method=False, out=False, public=(), order="images", grad=_resize_grad("nearest"),
    samples=_resize_samples((False,), (True,)))
def _upsample_nearest(input: Tensor, size: tuple, factors: tuple | None, exact: bool = False):
    """Each place takes the value of one place of the input; `exact` the one at its centre."""
    axes = _axes("upsample_nearest", input, size, factors, False, dtypes.float32)
    return _resized(input, size, [axis.nearest(exact) for axis in axes])


@op(method=False, out=False, public=(), order="images", grad=_resize_grad("linear"),
    samples=_resize_samples((False,), (True,)))
def _upsample_linear(input: Tensor, size: tuple, factors: tuple | None, align_corners: bool):
    """Linear interpolation in every spatial dimension."""
    if input.dtype is dtypes.uint8 and input.ndim == 4:
        return _of_bytes(input, size, factors, align_corners, _linear_bytes)
    floats_only("compute_indices_weights_linear", input)
    axes = _axes("upsample_linear", input, size, factors, align_corners)
    return _resized(input, size, [axis.linear() for axis in axes])


@op(method=False, out=False, public=(), order="images", grad=_resize_grad("cubic"),
    samples=_resize_samples((False,), (True,), ranks=(2,)))
def _upsample_cubic(input: Tensor, size: tuple, factors: tuple | None, align_corners: bool):
    """Cubic convolution in both spatial dimensions (Keys 1981)."""
    if input.dtype is dtypes.uint8:
        return _of_bytes(input, size, factors, align_corners, _cubic_bytes)
    floats_only("compute_indices_weights_cubic", input)
    axes = _axes("upsample_bicubic2d", input, size, factors, align_corners)
    return _resized(input, size, [axis.cubic() for axis in axes])


@op(method=False, out=False, public=(), grad="UpsampleBilinear2DAaBackward0",
    samples=_resize_samples((False, False), (True, True), ranks=(2,)))
def _upsample_antialias(input: Tensor, size: tuple, factors: tuple | None, align_corners: bool,
                        cubic: bool = False):
    """Interpolation by a kernel as wide as the places it shrinks (as Pillow resizes)."""
    if input.dtype is dtypes.uint8:
        return _of_bytes(input, size, factors, align_corners,
                         functools.partial(_smooth_bytes, cubic=cubic))
    floats_only("upsample_antialias", input)
    axes = _axes("upsample_antialias", input, size, factors, align_corners)
    tables = [table for axis in axes for table in _smoothing_columns(axis, cubic)]
    how = p.Resized(input.shape[2:], tuple(size), tuple(axis.window(cubic) for axis in axes), True,
                    tuple(axis.uses(cubic) for axis in axes))
    return p.resize(input, how, tables)


def _of_bytes(x: Value, size: tuple, factors: tuple | None, corners: bool, taps) -> Value:
    """Bytes resized; `taps` gives those of an axis, whose coordinates are doubles."""
    axes = _axes("upsample", x, size, factors, corners, dtypes.float64)
    return resized_bytes(x, [None if axis.size == axis.out else taps(axis) for axis in axes])


def _linear_bytes(axis: _Axis) -> Taps:
    return joined_taps(axis.linear())


def _cubic_bytes(axis: _Axis) -> Taps:
    return joined_taps(axis.cubic())


def _smooth_bytes(axis: _Axis, cubic: bool) -> Taps:
    return Taps(*_smoothing_columns(axis, cubic), axis.uses(cubic))


def _smoothing_columns(axis: _Axis, cubic: bool) -> tuple[Value, Value]:
    """`_smoothing_table` as `resize` takes it: both (taps, out), -1 where there is no place."""
    place, weight = _smoothing_table(axis, cubic)
    place = p.where(p.eq(weight, p.zero_like(weight)), e.like(-1, place), place)
    return p.permute(place, (1, 0)), p.permute(weight, (1, 0))


def _smoothing_table(axis: _Axis, cubic: bool) -> tuple[Value, Value]:
    """The (places, weights) of the taps of an axis, both (out, taps)."""
    place, weight = _smoothing(axis, cubic, (axis.out, axis.window(cubic)), 0)
    total = p.reduce_sum(weight, (1,))
    return place, p.div(weight, p.unreduce(total, weight.shape, (1,)))


def _smoothing(axis: _Axis, cubic: bool, shape: Sequence[int], dim: int) -> tuple[Value, Value]:
    """(place, weight) of the taps, which lie along the last dimension of `shape`; those of `axis`
    along `dim`."""
    stretch, support = max(axis.ratio, 1.0), axis.support(cubic)
    at = convert(p.iota(shape, dim), axis.dtype)
    half = e.like(0.5, at)
    centre = p.mul(p.add(at, half), e.like(axis.ratio, at))
    reach = e.like(support, at)
    first = convert(p.add(p.sub(centre, reach), half), dtypes.int64)
    first = p.maximum(first, p.zero_like(first))
    last = convert(p.add(p.add(centre, reach), half), dtypes.int64)
    last = p.minimum(last, e.like(axis.size, last))
    place = p.add(first, p.iota(shape, len(shape) - 1))
    gap = p.sub(p.add(convert(place, axis.dtype), half), centre)
    weight = _kernel(p.abs_(p.div(gap, e.like(stretch, gap))), cubic)
    weight = p.where(p.lt(place, last), weight, p.zero_like(weight))
    return p.minimum(place, e.like(axis.size - 1, place)), weight


def _kernel(x: Value, cubic: bool) -> Value:
    """The weight of a place at distance x."""
    zero, one = p.zero_like(x), e.like(1, x)
    if not cubic:
        return p.maximum(p.sub(one, x), zero)
    far = p.where(p.lt(x, e.like(2, x)), _cubic_far(x, CUBIC_SMOOTH), zero)
    return p.where(p.lt(x, one), _cubic_near(x, CUBIC_SMOOTH), far)


# --------------------------------------------------------------------------- grids
def _affine_samples():
    for corners in (False, True):
        yield sample(Arr((2, 2, 3)), (2, 3, 4, 5), corners)
        yield sample(Arr((2, 3, 4)), (2, 3, 2, 4, 5), corners)


@op(method=False, out=False, public=FUNCTIONAL, samples=_affine_samples,
    grad="AffineGridGeneratorBackward0")
def affine_grid(theta: Tensor, size: tuple, align_corners: bool | None = None):
    """Sampling places of an affine map: theta (n, 2, 3) or (n, 3, 4) -> (n, *space, 2 or 3).

    Coordinates run from -1 to 1 over the image: centre to centre of its outermost places with
    `align_corners`, else edge to edge; x comes first.

    >>> theta = torch.tensor([[[1., 0., 0.], [0., 1., 0.]]])
    >>> F.affine_grid(theta, (1, 1, 2, 2), align_corners=True)
    tensor([[[[-1., -1.],
              [ 1., -1.]],
    <BLANKLINE>
             [[-1.,  1.],
              [ 1.,  1.]]]])
    """
    rank = len(size) - 2
    floats_only("affine_grid", theta)
    if rank not in (2, 3):
        raise NotImplementedError("affine_grid only supports 4D and 5D sizes, for 2D and 3D affine "
                                  f"transforms, respectively. Got size {list(size)}")
    if theta.ndim != 3 or theta.shape[1:] != (rank, rank + 1):
        raise ValueError(f"Expected a batch of {rank}D affine matrices of shape Nx{rank}x{rank + 1}"
                         f" for size {list(size)}. Got {list(theta.shape)}.")
    if min(size) <= 0:
        raise ValueError(f"Expected non-zero, positive output size. Got {list(size)}")
    n, space = theta.shape[0], tuple(size[2:])
    shape = (n, *space, rank)

    def column(k: int) -> Value:
        part = p.reshape(p.slice_dim(theta, 2, k, 1, 1), (n, *[1] * rank, rank))
        return p.expand(part, shape)

    grid = column(rank)
    for d, places in enumerate(space):
        at = convert(p.iota(shape, 1 + d), theta.dtype)
        step = 2 / (places - 1 if align_corners and places > 1 else places)
        start = 1.0 if align_corners else 1 - 1 / places
        if not align_corners or places > 1:
            along = p.sub(p.mul(at, e.like(step, at)), e.like(start, at))
            grid = p.add(grid, p.mul(along, column(rank - 1 - d)))
    return grid


class _Grid:
    """Coordinates of a grid in places of the input, by dimension (the last of the grid first)."""

    def __init__(self, x: Value, grid: Value, padding: str, corners: bool):
        self.rank, self.corners, self.padding = x.ndim - 2, corners, padding
        self.x, self.size, self.places = x, x.shape[2:], grid.shape[:-1]
        self.raw = [self._coordinate(grid, d) for d in range(self.rank)]

    def _coordinate(self, grid: Value, d: int) -> Value:
        """Where the grid points along spatial dimension d, in places of the input."""
        one = p.slice_dim(grid, grid.ndim - 1, self.rank - 1 - d, 1, 1)
        one = p.reshape(one, self.places)
        size, half = self.size[d], e.like(0.5, one)
        if self.corners:
            return p.mul(p.mul(p.add(one, e.like(1, one)), half), e.like(size - 1, one))
        return p.mul(p.sub(p.mul(p.add(one, e.like(1, one)), e.like(size, one)), e.like(1, one)),
                     half)

    def padded(self, at: Value, d: int) -> Value:
        """A coordinate brought into the image as the padding mode says."""
        if self.padding == "zeros":
            return at
        if self.padding == "reflection":
            at = self._reflected(at, d)
        return self._bounded(at, d)

    def _bounded(self, at: Value, d: int) -> Value:
        return p.minimum(p.maximum(at, p.zero_like(at)), e.like(self.size[d] - 1, at))

    def _reflected(self, at: Value, d: int) -> Value:
        low, high = (0.0, self.size[d] - 1.0) if self.corners else (-0.5, self.size[d] - 0.5)
        span = high - low
        if span == 0:  # zeros that hang on the coordinate, for its gradient
            return p.where(p.lt(at, at), at, p.zero_like(at))
        distance = p.abs_(p.sub(at, e.like(low, at)))
        flips = p.floor(p.div(distance, e.like(span, at)))
        rest = p.sub(distance, p.stop_gradient(p.mul(flips, e.like(span, at))))
        half = p.mul(flips, e.like(0.5, flips))
        even = p.eq(half, p.floor(half))
        return p.where(even, p.add(rest, e.like(low, at)), p.sub(e.like(high, at), rest))

    def marked(self, at: Value, d: int) -> Value:
        """A whole coordinate (as a float) as what it adds to the place in the flattened image, or
        so far below 0 that the sum stays there where it lies outside."""
        inside = p.logical_and(p.ge(at, p.zero_like(at)), p.le(at, e.like(self.size[d] - 1, at)))
        index = convert(p.where(inside, at, p.zero_like(at)), dtypes.int64)
        index = p.mul(index, e.like(math.prod(self.size[d + 1:]), index))
        return p.where(inside, index, e.like(-math.prod(self.size), index))

    def blended(self, taps: Sequence[tuple[Sequence[Value], Value]]) -> Value:
        """The sum over taps of weight times x at marked coordinates: (n, c, *out). Each tap is
        (coordinates, weight), of shape (n, *out)."""
        n, *out = self.places
        flat = (n, 1, math.prod(out))
        places, weights = (p.cat([p.reshape(value, flat) for value in column], 1) for column in (
            [functools.reduce(p.add, indices) for indices, _ in taps],
            [weight for _, weight in taps]))
        x = p.reshape(self.x, (n, self.x.shape[1], math.prod(self.size)))
        return p.reshape(p.sampled(x, places, weights), (n, x.shape[1], *out))


def _grid_samples():
    for mode, padding, corners in itertools.product(
            ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection"), (False, True)):
        yield sample(Arr((2, 3, 4, 5)), Arr((2, 3, 2, 2), None, -1.3, 1.3), mode, padding, corners)
    yield sample(Arr((1, 2, 3, 4, 5)), Arr((1, 2, 3, 4, 3), None, -1.2, 1.2))


def _grid_grad(call) -> str:
    return f"GridSampler{len(call.avals[0][0]) - 2}DBackward0"


@op(method=False, out=False, public=FUNCTIONAL, samples=_grid_samples, grad=_grid_grad)
def grid_sample(input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros",
                align_corners: bool | None = None):
    """The input (n, c, *space) at the places of grid (n, *out, 2 or 3): (n, c, *out).

    Coordinates are those of `affine_grid`. `padding_mode` says what lies outside: "zeros",
    "border" (the nearest place) or "reflection".

    >>> x = torch.tensor([[[[1., 2.], [3., 4.]]]])
    >>> F.grid_sample(x, torch.tensor([[[[0., 0.], [1., 1.]]]]), align_corners=True)
    tensor([[[[2.5000, 4.0000]]]])
    """
    _check_grid(input, grid, mode, padding_mode)
    places = _Grid(input, grid, padding_mode, bool(align_corners))
    if mode == "nearest":
        at = [p.round_(places.padded(at, d)) for d, at in enumerate(places.raw)]
        # a weight of one that hangs on the grid: moving it a little changes nothing, which is a
        # gradient of zeros, not none
        weight = p.where(p.lt(at[0], at[0]), at[0], e.like(1, at[0]))
        return places.blended([([places.marked(one, d) for d, one in enumerate(at)], weight)])
    axes = [[(p.in_memory(places.marked(index, d)), p.in_memory(weight)) for index, weight in
             (_cubic_taps if mode == "bicubic" else _linear_taps)(places, at, d)]
            for d, at in enumerate(places.raw)]
    return places.blended([([at for at, _ in corner],
                            functools.reduce(p.mul, [weight for _, weight in corner]))
                           for corner in itertools.product(*axes)])


_SAMPLER_MODES, _SAMPLER_PADS = ("bilinear", "nearest", "bicubic"), ("zeros", "border",
                                                                      "reflection")


def _sampler(name: str, ranks: tuple[int, ...]):
    """`grid_sample` with numbers for the modes, as PyTorch's older functions have it."""
    def body(input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int,
             align_corners: bool):
        if input.ndim not in ranks:
            raise RuntimeError(f"{name}(): expected {' or '.join(f'{n}D' for n in ranks)} input, "
                               f"but got input with sizes {list(input.shape)}")
        for word, number in (("interpolation", interpolation_mode), ("padding", padding_mode)):
            if number not in (0, 1, 2):
                raise RuntimeError(f"{name}(): {word}_mode must be 0, 1 or 2, got {number}")
        return grid_sample(input, grid, _SAMPLER_MODES[interpolation_mode],
                           _SAMPLER_PADS[padding_mode], align_corners)

    def samples():
        for item in _grid_samples():
            x, grid, *modes = item.args
            mode, pad, corners = modes or ("bilinear", "zeros", False)
            if len(x.shape) in ranks:
                yield sample(x, grid, _SAMPLER_MODES.index(mode), _SAMPLER_PADS.index(pad),
                             corners)

    body.__name__ = name
    body.__doc__ = ("`torch.nn.functional.grid_sample` with numbers for its modes: bilinear, "
                    "nearest, bicubic; zeros, border, reflection.")
    return op(method=False, out=False, samples=samples, grad=_grid_grad)(body)


for _name, _ranks in (("grid_sampler", (4, 5)), ("grid_sampler_2d", (4,)),
                      ("grid_sampler_3d", (5,))):
    _sampler(_name, _ranks)


def _linear_taps(places: _Grid, at: Value, d: int) -> list[tuple[Value, Value]]:
    at = places.padded(at, d)
    low = p.stop_gradient(p.floor(at))
    one = e.like(1, at)
    share = p.sub(at, low)
    return [(low, p.sub(one, share)), (p.add(low, one), share)]


def _cubic_taps(places: _Grid, at: Value, d: int) -> list[tuple[Value, Value]]:
    """Padding applies to each tap: the weights come from the unpadded coordinate."""
    low = p.stop_gradient(p.floor(at))
    return [(p.stop_gradient(places.padded(p.add(low, e.like(tap - 1, low)), d)), weight)
            for tap, weight in enumerate(cubic_weights(p.sub(at, low)))]


def _check_grid(x: Value, grid: Value, mode: str, padding: str) -> None:
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise ValueError("nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' "
                         f"or 'bicubic', but got: '{mode}'")
    if padding not in ("zeros", "border", "reflection"):
        raise ValueError("nn.functional.grid_sample(): expected padding_mode to be 'zeros', "
                         f"'border', or 'reflection', but got: '{padding}'")
    if x.ndim not in (4, 5) or grid.ndim != x.ndim:
        raise RuntimeError("grid_sampler(): expected 4D or 5D input and grid with same number of "
                           f"dimensions, but got input with sizes {list(x.shape)} and grid with "
                           f"sizes {list(grid.shape)}")
    if grid.shape[-1] != x.ndim - 2:
        raise RuntimeError(f"grid_sampler(): expected grid to have size {x.ndim - 2} in last "
                           f"dimension, but got grid with sizes {list(grid.shape)}")
    if grid.shape[0] != x.shape[0]:
        raise RuntimeError("grid_sampler(): expected grid and input to have same batch size, but "
                           f"got input with sizes {list(x.shape)} and grid with sizes "
                           f"{list(grid.shape)}")
    if 0 in x.shape[2:]:
        raise RuntimeError("grid_sampler(): expected input to have non-empty spatial dimensions, "
                           f"but input has sizes {list(x.shape)}")
    if mode == "bicubic" and x.ndim == 5:
        raise RuntimeError("grid_sampler(): bicubic interpolation only supports 4D input")
    if grid.dtype is not x.dtype:
        raise RuntimeError("grid_sampler(): expected input and grid to have same dtype, but input "
                           f"has {x.dtype!r} and grid has {grid.dtype!r}")
    floats_only("grid_sampler_2d_cpu", x)
