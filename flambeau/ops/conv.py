"""Convolutions, padding, and the patches they read."""

from __future__ import annotations

import math

from flambeau.ir.graph import Value
from flambeau.ops import primitives as p
from flambeau.ops.activation import BOTH
from flambeau.ops.record import Tensor, op
from flambeau.ops.samples import Arr, sample

_SPACE = {1: "conv1d", 2: "conv2d", 3: "conv3d"}


def sizes_of(name: str, value: int | tuple, rank: int) -> tuple[int, ...]:
    """One size per spatial dimension, from an int or a list of 1 or `rank` ints."""
    if isinstance(value, int):
        return (value,) * rank
    if len(value) == 1:
        return tuple(value) * rank
    if len(value) != rank:
        raise RuntimeError(f"expected {name} to be a single integer value or a list of {rank} "
                           f"values to match the convolution dimensions, but got {name}="
                           f"{list(value)}")
    return tuple(value)


def _positive(name: str, sizes: tuple[int, ...]) -> None:
    if min(sizes) <= 0:
        word = "dilation should be greater than zero" if name == "dilation" \
            else f"non-positive {name} is not supported"
        raise RuntimeError(f"{word}, got {list(sizes)}")


class _Call:
    """The arguments of a convolution, checked and brought to one form.

    Attributes:
        x: the input with a batch dimension; `batched` tells whether it had one.
        stride, padding, dilation: one entry per spatial dimension.
    """

    def __init__(self, rank: int, transposed: bool, input: Value, weight: Value,
                 bias: Value | None, stride, padding, dilation, groups: int):
        name = f"conv_transpose{rank}d" if transposed else _SPACE[rank]
        if input.ndim not in (rank + 1, rank + 2):
            raise RuntimeError(f"Expected {rank + 1}D (unbatched) or {rank + 2}D (batched) input "
                               f"to {name}, but got input of size: {list(input.shape)}")
        if weight.ndim != rank + 2:
            if weight.ndim < 3:
                raise RuntimeError("weight should have at least three dimensions, but got weight "
                                   f"of size {list(weight.shape)}")
            raise RuntimeError(f"Expected {weight.ndim}-dimensional input for {weight.ndim}-"
                               f"dimensional weight {list(weight.shape)}, but {name} got "
                               f"{input.ndim}-dimensional input of size {list(input.shape)} "
                               "instead")
        self.batched = input.ndim == rank + 2
        self.x = input if self.batched else p.reshape(input, (1, *input.shape))
        self.stride = sizes_of("stride", stride, rank)
        self.dilation = sizes_of("dilation", dilation, rank)
        _positive("stride", self.stride)
        _positive("dilation", self.dilation)
        _positive("groups", (groups,))
        if isinstance(padding, str):
            self.padding = self._named_padding(padding, weight.shape[2:])
        else:
            self.padding = sizes_of("padding", padding, rank)
            if min(self.padding) < 0:
                raise RuntimeError(f"negative padding is not supported, got {list(self.padding)}")
        self._check_channels(transposed, weight, bias, groups)

    def _check_channels(self, transposed: bool, weight: Value, bias: Value | None,
                        groups: int) -> None:
        x, shape = self.x.shape, weight.shape
        if shape[0] < groups:
            raise RuntimeError(f"Given groups={groups}, expected weight to be at least {groups} at "
                               f"dimension 0, but got weight of size {list(shape)} instead")
        if shape[0] % groups:
            raise RuntimeError(f"Given groups={groups}, expected weight to be divisible by "
                               f"{groups} at dimension 0, but got weight of size "
                               f"{list(shape)} instead")
        kind = "transposed=1" if transposed else f"groups={groups}"
        channels = shape[0] if transposed else shape[1] * groups
        if x[1] != channels:
            raise RuntimeError(f"Given {kind}, weight of size {list(shape)}, expected "
                               f"input{list(x)} to have {channels} channels, but got {x[1]} "
                               "channels instead")
        outputs = shape[1] * groups if transposed else shape[0]
        if bias is not None and bias.shape != (outputs,):
            given = "transposed=1, " if transposed else ""
            raise RuntimeError(f"Given {given}weight of size {list(shape)}, expected bias to be "
                               f"1-dimensional with {outputs} elements, but got bias of size "
                               f"{list(bias.shape)} instead")

    def _named_padding(self, padding: str, kernel: tuple[int, ...]) -> tuple[int, ...]:
        """Zeros for "valid". For "same" half of what the kernel takes away; what is odd goes to the
        end, by padding the input."""
        if padding == "valid":
            return (0,) * len(kernel)
        if padding != "same":
            raise RuntimeError(f"Invalid padding string: '{padding}'; use 'same', 'valid', or ints")
        if max(self.stride) > 1:
            raise RuntimeError("padding='same' is not supported for strided convolutions")
        total = [d * (k - 1) for d, k in zip(self.dilation, kernel, strict=True)]
        shape = list(self.x.shape)
        for axis, amount in enumerate(total):
            shape[2 + axis] += amount % 2
        self.x = p.spread(self.x, (0,) * len(shape), (1,) * len(shape), shape)
        return tuple(amount // 2 for amount in total)

    def finish(self, y: Value) -> Value:
        return y if self.batched else p.reshape(y, y.shape[1:])


def _one_dtype(input: Value, weight: Value, bias: Value | None = None, *rest: object) -> None:
    if weight.dtype is not input.dtype:
        raise RuntimeError(f"Input type ({input.dtype.name}) and weight type ({weight.dtype.name}) "
                           "should be the same; convert one of them with .to(dtype)")
    if bias is not None and bias.dtype is not input.dtype:
        raise RuntimeError(f"Input type ({input.dtype.name}) and bias type ({bias.dtype.name}) "
                           "should be the same")


def _convolve(rank: int, input, weight, bias, stride, padding, dilation, groups) -> Value:
    call = _Call(rank, False, input, weight, bias, stride, padding, dilation, groups)
    sizes, kernel = call.x.shape[2:], weight.shape[2:]
    reach = [d * (k - 1) + 1 for d, k in zip(call.dilation, kernel, strict=True)]
    padded = [size + 2 * q for size, q in zip(sizes, call.padding, strict=True)]
    if any(a < b for a, b in zip(padded, reach, strict=True)):
        raise RuntimeError("Calculated padded input size per channel: "
                           f"({' x '.join(map(str, padded))}). Kernel size: "
                           f"({' x '.join(map(str, reach))}). Kernel size can't be greater than "
                           "actual input size")
    if bias is None or not _is_product(call, kernel, groups):
        return call.finish(p.conv(call.x, weight, call.stride, call.padding, call.dilation, groups,
                                  bias))
    y = p.conv(call.x, weight, call.stride, call.padding, call.dilation, groups)
    each = p.reshape(bias, (bias.shape[0],) + (1,) * rank)
    return call.finish(p.add(y, p.expand(each, y.shape)))


def _is_product(call: _Call, kernel: tuple[int, ...], groups: int) -> bool:
    """Is it a product of channels and weights, pixel by pixel? Such kernels take the bias in as
    they take in whatever else follows."""
    return (groups == 1 and max((*kernel, *call.stride)) == 1 and max(call.padding) == 0
            and call.x.dtype.is_floating_point)


def _convolve_transposed(rank: int, input, weight, bias, stride, padding, output_padding, groups,
                         dilation) -> Value:
    call = _Call(rank, True, input, weight, bias, stride, padding, dilation, groups)
    extra = sizes_of("output_padding", output_padding, rank)
    if min(extra) < 0:
        raise RuntimeError("negative output_padding is not supported")
    if any(a >= max(s, d) for a, s, d in zip(extra, call.stride, call.dilation, strict=True)):
        raise RuntimeError("output padding must be smaller than either stride or dilation, but got "
                           f"output_padding: {list(extra)} stride: {list(call.stride)} dilation: "
                           f"{list(call.dilation)}")
    spatial = tuple((size - 1) * s - 2 * q + d * (k - 1) + a + 1 for size, s, q, d, k, a in zip(
        call.x.shape[2:], call.stride, call.padding, call.dilation, weight.shape[2:], extra,
        strict=True))
    if min(spatial) <= 0:
        raise RuntimeError(f"Given input size per channel: {list(call.x.shape[2:])}. Calculated "
                           f"output size per channel: {list(spatial)}. Output size is too small")
    shape = (call.x.shape[0], weight.shape[1] * groups, *spatial)
    geometry = (call.stride, call.padding, call.dilation, groups)
    y = p.conv_grad_input(call.x, weight, geometry, shape)
    if bias is not None:
        y = p.add(y, p.expand(p.reshape(bias, (bias.shape[0],) + (1,) * rank), y.shape))
    return call.finish(y)


def _grad_name(rank: int):
    def grad(call) -> str:
        return "ConvolutionBackward0" if len(call.avals[0][0]) == rank + 2 else "SqueezeBackward1"

    return grad


def _conv_samples(rank: int, transposed: bool = False):
    """Plain, unbatched, with bias, strided, padded, dilated, grouped, named paddings."""
    space, kernel = (9, 8, 7)[:rank], (3, 2, 3)[:rank]

    def samples():
        x, w = Arr((2, 4, *space)), Arr((4 if transposed else 6, 4, *kernel))
        bias = Arr((4 if transposed else 6,))
        yield sample(x, w)
        yield sample(x, w, bias)
        yield sample(Arr((4, *space)), w, bias)
        if transposed:
            yield sample(x, w, bias, stride=2, padding=1, output_padding=1)
            yield sample(x, Arr((4, 2, *kernel)), bias, groups=2, dilation=2)
            return
        yield sample(x, w, bias, stride=2, padding=1)
        yield sample(x, Arr((6, 2, *kernel)), bias, dilation=2, groups=2, padding=2)
        yield sample(x, Arr((4, 1, *kernel)), padding="same", groups=4)
        yield sample(x, w, padding="valid")
        yield sample(Arr((0, 4, *space)), w, bias)

    return samples


def _options(rank: int, transposed: bool = False) -> dict:
    return {"method": False, "out": False, "public": BOTH, "check": _one_dtype,
            "grad": _grad_name(rank), "samples": _conv_samples(rank, transposed)}


@op(**_options(1))
def conv1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | tuple = 1,
           padding: int | tuple | str = 0, dilation: int | tuple = 1, groups: int = 1):
    """Cross-correlation of signals (n, c_in, length) with weight (c_out, c_in / groups, k).

    >>> torch.conv1d(torch.tensor([[[1., 2., 3., 4.]]]), torch.tensor([[[1., -1.]]]))
    tensor([[[-1., -1., -1.]]])
    """
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups)


@op(**_options(2))
def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | tuple = 1,
           padding: int | tuple | str = 0, dilation: int | tuple = 1, groups: int = 1):
    """Cross-correlation of images (n, c_in, h, w) with weight (c_out, c_in / groups, kh, kw).

    >>> torch.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 2, 2), stride=1, padding=1)
    tensor([[[[1., 2., 2., 1.],
              [2., 4., 4., 2.],
              [2., 4., 4., 2.],
              [1., 2., 2., 1.]]]])
    """
    return _convolve(2, input, weight, bias, stride, padding, dilation, groups)


@op(**_options(3))
def conv3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | tuple = 1,
           padding: int | tuple | str = 0, dilation: int | tuple = 1, groups: int = 1):
    """Cross-correlation of volumes (n, c_in, d, h, w) with weight (c_out, c_in / groups, ...).

    >>> torch.conv3d(torch.ones(1, 1, 2, 2, 2), torch.ones(1, 1, 2, 2, 2)).flatten()
    tensor([8.])
    """
    return _convolve(3, input, weight, bias, stride, padding, dilation, groups)


@op(method=False, out=False, grad="ConvTbcBackward0", check=_one_dtype, samples=lambda: iter([
    sample(Arr((7, 2, 3)), Arr((3, 3, 4)), Arr((4,))),
    sample(Arr((5, 2, 3)), Arr((2, 3, 4)), Arr((4,)), 1)]))
def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0):
    """Cross-correlation of signals (time, batch, c_in) with weight (k, c_in, c_out).

    >>> torch.conv_tbc(torch.ones(3, 1, 2), torch.ones(2, 2, 1), torch.zeros(1)).flatten()
    tensor([4., 4.])
    """
    for name, given, rank in (("Input", input, 3), ("Weight", weight, 3), ("Bias", bias, 1)):
        if given.ndim != rank:
            raise RuntimeError(f"{name} must have {rank} dims, got {list(given.shape)}")
    if input.shape[2] != weight.shape[1]:
        raise RuntimeError("Input dim 2 (input channels) is not == dim 1 in the weight tensor: "
                           f"{list(input.shape)} and {list(weight.shape)}")
    if bias.shape[0] != weight.shape[2]:
        raise RuntimeError("Bias size must equal dim 2 in the weight tensor (output channels): "
                           f"{list(bias.shape)} and {list(weight.shape)}")
    made = _convolve(1, p.permute(input, (1, 2, 0)), p.permute(weight, (2, 1, 0)), bias, 1, pad, 1,
                     1)
    return p.permute(made, (2, 0, 1))


@op(**_options(1, True))
def conv_transpose1d(input: Tensor, weight: Tensor, bias: Tensor | None = None,
                     stride: int | tuple = 1, padding: int | tuple = 0,
                     output_padding: int | tuple = 0, groups: int = 1, dilation: int | tuple = 1):
    """The gradient of conv1d as an operation: weight (c_in, c_out / groups, k).

    >>> torch.conv_transpose1d(torch.tensor([[[1., 2.]]]), torch.tensor([[[1., 10.]]]), stride=2)
    tensor([[[ 1., 10.,  2., 20.]]])
    """
    return _convolve_transposed(1, input, weight, bias, stride, padding, output_padding, groups,
                                dilation)


@op(**_options(2, True))
def conv_transpose2d(input: Tensor, weight: Tensor, bias: Tensor | None = None,
                     stride: int | tuple = 1, padding: int | tuple = 0,
                     output_padding: int | tuple = 0, groups: int = 1, dilation: int | tuple = 1):
    """The gradient of conv2d as an operation: weight (c_in, c_out / groups, kh, kw).

    >>> torch.conv_transpose2d(torch.tensor([[[[1., 2.]]]]), torch.ones(1, 1, 2, 2))
    tensor([[[[1., 3., 2.],
              [1., 3., 2.]]]])
    """
    return _convolve_transposed(2, input, weight, bias, stride, padding, output_padding, groups,
                                dilation)


@op(**_options(3, True))
def conv_transpose3d(input: Tensor, weight: Tensor, bias: Tensor | None = None,
                     stride: int | tuple = 1, padding: int | tuple = 0,
                     output_padding: int | tuple = 0, groups: int = 1, dilation: int | tuple = 1):
    """The gradient of conv3d as an operation: weight (c_in, c_out / groups, kd, kh, kw).

    >>> torch.conv_transpose3d(torch.ones(1, 1, 1, 1, 2), torch.ones(1, 1, 1, 1, 2))
    tensor([[[[[1., 2., 1.]]]]])
    """
    return _convolve_transposed(3, input, weight, bias, stride, padding, output_padding, groups,
                                dilation)


# --------------------------------------------------------------------------- padding
def _pad_samples():
    x = Arr((2, 3, 5, 6))
    yield sample(x, (1, 2))
    yield sample(x, (1, 2, 3, 0), value=1.5)
    yield sample(x, (-1, 2, 1, -2))
    yield sample(x, (-3, -3))
    for mode in ("reflect", "replicate", "circular"):
        yield sample(x, (1, 2, 3, 0), mode)
        yield sample(x, (-1, 2, 1, -1), mode)
        yield sample(Arr((3, 6)), (2, 3), mode)


def _pad_grad(call) -> str:
    mode, rank = call._static("mode"), len(call._static("pad")) // 2
    return {"constant": "ConstantPadNdBackward0", "reflect": f"ReflectionPad{rank}DBackward0",
            "replicate": f"ReplicationPad{rank}DBackward0"}.get(mode, "CopySlices")


@op(method=False, out=False, opmath=False, public=("nn.functional",), samples=_pad_samples,
    order="images", grad=_pad_grad)
def pad(input: Tensor, pad: tuple, mode: str = "constant",
        value: float | complex | None = None):
    """Extend (or, with negative amounts, crop) the last dimensions.

    Args:
        pad: (before, after) of the last dimension, then of the one before it, and so on.
        mode: "constant" (filled with `value`, 0 by default), "reflect" (mirrored, edge not
            repeated), "replicate" (edge repeated) or "circular" (wrapped around).

    >>> F.pad(torch.tensor([1., 2., 3.]), (1, 2))
    tensor([0., 1., 2., 3., 0., 0.])
    >>> F.pad(torch.tensor([[1., 2., 3.]]), (2, 2), mode="reflect")
    tensor([[3., 2., 1., 2., 3., 2., 1.]])
    """
    if len(pad) % 2:
        raise RuntimeError(f"Padding length must be divisible by 2, got {list(pad)}")
    if len(pad) > 2 * input.ndim:
        raise RuntimeError("Padding length should be less than or equal to two times the input "
                           f"dimension but got padding length {len(pad)} and input of dimension "
                           f"{input.ndim}")
    pairs = _pairs(pad)
    if mode == "constant":
        return _pad_constant(input, pairs, value or 0)
    if mode not in ("reflect", "replicate", "circular"):
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    if value not in (None, 0):
        raise RuntimeError(f'Padding mode "{mode}" doesn\'t take in value argument')
    if not 1 <= len(pairs) <= 3 or input.ndim - len(pairs) not in (1, 2):
        raise NotImplementedError(
            f"Padding size {len(pad)} is not supported for {input.ndim}D input tensor.\n"
            "Supported combinations for non-constant padding:\n"
            "  - 2D or 3D input: padding size = 2 (pads last dimension)\n"
            "  - 3D or 4D input: padding size = 4 (pads last 2 dimensions)\n"
            "  - 4D or 5D input: padding size = 6 (pads last 3 dimensions)")
    return _extended(input, pairs, mode)


@pad.vjp
def pad_vjp(g, input, pad, mode):
    """What was copied from an element comes back to it."""
    pairs = _pairs(pad)
    if mode == "constant":
        starts = [0] * input.ndim
        for back, (before, _) in enumerate(pairs):
            starts[input.ndim - 1 - back] = -before
        return p.spread(g, starts, (1,) * input.ndim, input.shape)
    for back, (before, after) in reversed(list(enumerate(pairs))):
        dim = input.ndim - 1 - back
        g = _taken_back(g, dim, input.shape[dim], before, after, mode)
    return g


def _pairs(pad: tuple) -> list[tuple[int, int]]:
    """(before, after) of the last dimension, then of the one before it, and so on."""
    return [(pad[2 * i], pad[2 * i + 1]) for i in range(len(pad) // 2)]


def _pad_constant(x: Value, pairs: list, value: float | complex) -> Value:
    if isinstance(value, complex) and value.imag and x.dtype.is_complex:
        return p.complex_(_pad_constant(p.real(x), pairs, value.real),
                          _pad_constant(p.imag(x), pairs, value.imag))
    if isinstance(value, complex):
        value = value.real
    starts, shape = [0] * x.ndim, list(x.shape)
    for back, (before, after) in enumerate(pairs):
        d = x.ndim - 1 - back
        starts[d], shape[d] = before, x.shape[d] + before + after
        if shape[d] < 0:
            raise RuntimeError(f"The input size {x.shape[d]}, plus negative padding {before} and "
                               f"{after} resulted in a negative output size, which is invalid. "
                               f"Check dimension {d} of your input.")
    fill = int(value) if x.dtype.is_integral else value
    return p.stop_copy(p.spread(x, starts, (1,) * x.ndim, shape, fill))


def _extended(x: Value, pairs: list, mode: str) -> Value:
    """Padding with the input's own elements. Along the last dimension, in which vectors lie, each
    place chooses among three loads; of others it is computed where each row reads from."""
    rank = x.ndim
    for back, (before, after) in enumerate(pairs):
        _check_extension(x, rank - 1 - back, before, after, mode)
    shape, coords = list(x.shape), list(range(rank))
    for back, (before, after) in enumerate(pairs[1:], 1):
        shape[rank - 1 - back] += before + after
    for back, pair in enumerate(pairs[1:], 1):
        dim = rank - 1 - back
        coords[dim] = _source_place(shape, dim, x.shape[dim], *pair, mode)
    rows = p.lookup(x, coords, shape) if len(pairs) > 1 else x
    before, after = pairs[0]
    first, length = max(0, -before), x.shape[-1] + min(0, before) + min(0, after)
    shape[-1] = length + max(0, before) + max(0, after)
    middle = p.slice_dim(rows, rank - 1, first, 1, length)
    source = middle if mode == "circular" else rows  # what goes around is what is left
    place = p.iota(shape, rank - 1)
    start, end = max(0, before), max(0, before) + length
    result = _moved(middle, start, shape)
    if before > 0:
        edge = _edge(source, before, mode, True, shape)
        result = p.where(p.lt(place, p.filled(start, place)), edge, result)
    if after > 0:
        edge = _edge(source, after, mode, False, shape)
        result = p.where(p.ge(place, p.filled(end, place)), edge, result)
    return p.stop_copy(result)


def _moved(x: Value, place: int, shape) -> Value:
    """x from that place of the last dimension of a larger shape on."""
    starts = [0] * (len(shape) - 1) + [place]
    return p.spread(x, starts, (1,) * len(shape), shape)


def _check_extension(x: Value, dim: int, before: int, after: int, mode: str) -> None:
    size = x.shape[dim]
    if mode == "reflect" and max(before, after) >= size:
        raise RuntimeError("Padding size should be less than the corresponding input dimension, "
                           f"but got: padding ({before}, {after}) at dimension {dim} of input "
                           f"{list(x.shape)}")
    if mode == "circular" and max(before, after) > size:
        raise RuntimeError("Padding value causes wrapping around more than once.")
    if size < max(0, -before) + max(0, -after) or (mode == "replicate" and size == 0):
        raise RuntimeError(f"pad: nothing is left of dimension {dim} of input {list(x.shape)} with "
                           f"padding ({before}, {after})")


def _source_place(shape, dim: int, size: int, before: int, after: int, mode: str) -> Value:
    """Which place of dimension `dim`, of that size, each place of the result is copied from."""
    place = p.iota(shape, dim)

    def number(value: int) -> Value:
        return p.filled(value, place)

    if mode == "circular":
        first, last = max(0, -before), size - max(0, -after)
        place = p.add(place, number(first - max(0, before)))
        period = number(last - first)
        place = p.where(p.lt(place, number(first)), p.add(place, period), place)
        place = p.where(p.ge(place, number(last)), p.sub(place, period), place)
    else:
        place = p.sub(place, number(before))
    if mode == "reflect":
        end = number(size - 1)
        place = p.sub(end, p.abs_(p.sub(end, p.abs_(place))))
    return p.minimum(p.maximum(place, number(0)), number(max(0, size - 1)))


def _edge(x: Value, amount: int, mode: str, front: bool, shape) -> Value:
    """What is added before or after the last dimension, in the shape of the result."""
    dim, size = x.ndim - 1, x.shape[-1]
    if mode == "replicate":
        return p.expand(p.slice_dim(x, dim, 0 if front else size - 1, 1, 1), shape)
    if mode == "circular":
        part = p.slice_dim(x, dim, size - amount if front else 0, 1, amount)
    else:
        part = p.slice_dim(x, dim, amount if front else size - 2, -1, amount)
    return _moved(part, 0 if front else shape[-1] - amount, shape)


def _taken_back(g: Value, dim: int, size: int, before: int, after: int, mode: str) -> Value:
    """The gradient of padding along one dimension of that size."""
    length, front, end = g.shape[dim], max(0, before), max(0, after)

    def moved(part: Value, place: int) -> Value:
        shape, starts = list(g.shape), [0] * g.ndim
        shape[dim], starts[dim] = size, place
        return p.spread(part, starts, (1,) * g.ndim, shape)

    if mode == "circular":
        first, last = max(0, -before), size - max(0, -after)
        total = moved(p.slice_dim(g, dim, front, 1, last - first), first)
        places = last - front, first
    else:
        total = moved(g, -before)
        places = (1, size - 1 - end) if mode == "reflect" else (0, size - 1)
    for amount, start, place in ((front, 0, places[0]), (end, length - end, places[1])):
        if not amount:
            continue
        if mode == "reflect":
            part = p.slice_dim(g, dim, start + amount - 1, -1, amount)
        else:
            part = p.slice_dim(g, dim, start, 1, amount)
        if mode == "replicate":
            kept = [1 if d == dim else n for d, n in enumerate(g.shape)]
            part = p.reshape(p.reduce_sum(part, (dim,)), kept)
        total = p.add(total, moved(part, place))
    return total


# --------------------------------------------------------------------------- patches
def _two(value: int | tuple) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value) * (3 - len(value))


class _Patches:
    """The geometry of sliding blocks over images of `size` (h, w)."""

    def __init__(self, size, kernel_size, dilation, padding, stride):
        self.size, self.kernel = tuple(size), _two(kernel_size)
        self.dilation, self.padding, self.stride = _two(dilation), _two(padding), _two(stride)
        for name in ("kernel", "dilation", "stride"):
            if min(getattr(self, name)) <= 0:
                raise RuntimeError(f"{name} should be greater than zero, but got "
                                   f"{list(getattr(self, name))}")
        if min(self.padding) < 0:
            raise RuntimeError(f"padding should be non-negative, but got {list(self.padding)}")
        self.padded = tuple(s + 2 * q for s, q in zip(self.size, self.padding, strict=True))
        self.blocks = tuple((s - d * (k - 1) - 1) // t + 1 for s, d, k, t in zip(
            self.padded, self.dilation, self.kernel, self.stride, strict=True))
        self.settings = (f"kernel_size={self.kernel}, dilation={self.dilation}, "
                         f"padding={self.padding}")

    def check(self) -> None:
        if min(self.blocks) < 1:
            raise RuntimeError(f"Given input with spatial size {self.size}, {self.settings}, "
                               f"calculated shape of the array of sliding blocks as {self.blocks}, "
                               "but its components must be at least one.")


@op(name="im2col", method=False, out=False, opmath=False, public=(), grad="Im2ColBackward0",
    samples=lambda: iter([sample(Arr((2, 3, 6, 5)), 3), sample(Arr((3, 6, 5)), (2, 3), 2, 1, 2)]))
def im2col(input: Tensor, kernel_size: int | tuple, dilation: int | tuple = 1,
           padding: int | tuple = 0, stride: int | tuple = 1):
    """Sliding blocks (torch.nn.functional.unfold): (n, c, h, w) -> (n, c * kh * kw, blocks)."""
    if input.ndim not in (3, 4):
        raise RuntimeError("Expected 3D or 4D (batch mode) tensor for input with possible 0 batch "
                           f"size and non-zero dimensions, but got: {list(input.shape)}")
    x = input if input.ndim == 4 else p.reshape(input, (1, *input.shape))
    n, c = x.shape[:2]
    geometry = _Patches(x.shape[2:], kernel_size, dilation, padding, stride)
    geometry.check()
    x = p.spread(x, (0, 0, *geometry.padding), (1,) * 4, (n, c, *geometry.padded))
    blocks = p.window(x, geometry.kernel, geometry.stride, geometry.dilation)
    blocks = p.stop_copy(p.permute(blocks, (0, 1, 4, 5, 2, 3)))
    rows, columns = c * math.prod(geometry.kernel), math.prod(geometry.blocks)
    return p.reshape(blocks, (n, rows, columns) if input.ndim == 4 else (rows, columns))


@op(name="col2im", method=False, out=False, opmath=True, public=(), grad="Col2ImBackward0",
    samples=lambda: iter([sample(Arr((2, 27, 12)), (6, 5), 3),
                          sample(Arr((18, 6)), (6, 5), (2, 3), 2, 1, (2, 2))]))
def col2im(input: Tensor, output_size: int | tuple, kernel_size: int | tuple,
           dilation: int | tuple = 1, padding: int | tuple = 0, stride: int | tuple = 1):
    """Sums sliding blocks (torch.nn.functional.fold): (n, c * kh * kw, blocks) -> (n, c, h, w)."""
    if input.ndim not in (2, 3):
        raise RuntimeError("Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch "
                           f"size and non-zero dimensions for input, but got: {list(input.shape)}")
    x = input if input.ndim == 3 else p.reshape(input, (1, *input.shape))
    geometry = _Patches(_two(output_size), kernel_size, dilation, padding, stride)
    area, count = math.prod(geometry.kernel), math.prod(geometry.blocks)
    if x.shape[1] % area:
        raise RuntimeError(f"Expected size of input's dimension 1 to be divisible by the product "
                           f"of kernel_size, but got input.size(1)={x.shape[1]} and kernel_size="
                           f"{geometry.kernel}.")
    if x.shape[2] != count or min(geometry.blocks) < 1:
        raise RuntimeError(f"Given output_size={geometry.size}, {geometry.settings}, "
                           f"stride={geometry.stride}, expected size of input's dimension 2 to "
                           f"match the calculated number of sliding blocks {geometry.blocks[0]} * "
                           f"{geometry.blocks[1]} = {count}, but got input.size(2)={x.shape[2]}.")
    n, c = x.shape[0], x.shape[1] // area
    blocks = p.reshape(x, (n, c, *geometry.kernel, *geometry.blocks))
    image = p.fold(p.permute(blocks, (0, 1, 4, 5, 2, 3)), geometry.kernel, geometry.stride,
                   geometry.dilation, (n, c, *geometry.padded))
    image = p.slice_(image, (0, 0, *geometry.padding), (1,) * 4, (n, c, *geometry.size))
    image = p.stop_copy(image) if max(geometry.padding) else image
    return image if input.ndim == 3 else p.reshape(image, image.shape[1:])

