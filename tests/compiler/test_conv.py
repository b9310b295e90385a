"""Convolution kernels against a NumPy convolution: forward and both gradients, through tensors, in
every layout of operands."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from kernel_calls import sample

import flambeau as torch

F = torch.nn.functional


@dataclasses.dataclass(frozen=True)
class Case:
    """One convolution: sizes as in PyTorch."""

    n: int
    c_in: int
    c_out: int
    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def out(self) -> tuple[int, ...]:
        return tuple((i + 2 * p - d * (k - 1) - 1) // s + 1 for i, k, s, p, d in zip(
            self.spatial, self.kernel, self.stride, self.padding, self.dilation, strict=True))

    def window(self, tap: tuple[int, ...]) -> tuple[slice, ...]:
        """Where the padded input is read by one tap."""
        return tuple(slice(t * d, t * d + s * (o - 1) + 1, s) for t, d, s, o in zip(
            tap, self.dilation, self.stride, self.out, strict=True))


CASES = (
    Case(2, 3, 5, (7, 9), (3, 3), (1, 1), (1, 1), (1, 1)),
    Case(1, 1, 1, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1)),
    Case(20, 1, 32, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1)),
    Case(3, 32, 20, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1)),
    Case(2, 4, 6, (9, 11), (3, 2), (2, 3), (2, 1), (2, 1), groups=2),
    Case(2, 6, 6, (13, 40), (3, 3), (1, 1), (1, 1), (1, 1), groups=6),
    Case(2, 3, 6, (5, 40), (3, 3), (1, 2), (1, 1), (1, 1), groups=3),
    Case(2, 16, 33, (12, 5), (1, 1), (1, 1), (0, 0), (1, 1)),
    Case(2, 16, 33, (12, 5), (1, 1), (2, 2), (0, 0), (1, 1)),
    Case(1, 3, 4, (6, 6), (5, 5), (1, 1), (7, 7), (1, 1)),
    Case(1, 3, 8, (23, 31), (7, 7), (2, 2), (3, 3), (1, 1)),
    Case(1, 5, 4, (9, 9), (2, 2), (3, 3), (0, 0), (1, 1)),
    Case(2, 60, 15, (6, 6), (3, 3), (1, 1), (1, 1), (1, 1)),
    Case(2, 8, 8, (4, 40), (1, 3), (1, 1), (0, 1), (1, 3), groups=4),
    Case(5, 2, 3, (17,), (5,), (1,), (2,), (1,)),
    Case(3, 2, 3, (700,), (450,), (3,), (5,), (1,)),
    Case(2, 3, 4, (5, 6, 7), (3, 2, 3), (1, 2, 1), (1, 0, 1), (1, 1, 2)),
    Case(0, 3, 4, (5, 5), (3, 3), (1, 1), (0, 0), (1, 1)),
    Case(2, 4, 2, (7, 1), (3, 1), (1, 2), (2, 1), (2, 1)),  # a dimension of one pixel
    Case(2, 3, 4, (6, 1), (1, 1), (1, 1), (0, 0), (1, 1)),
    Case(2, 70, 130, (19, 21), (3, 3), (1, 1), (1, 1), (1, 1)),
    Case(1, 130, 70, (9, 20), (1, 1), (1, 1), (0, 0), (1, 1)),
    Case(3, 40, 48, (17, 33), (3, 3), (2, 2), (1, 1), (1, 1)),
    Case(2, 6, 6, (13, 40), (3, 3), (1, 1), (1, 1), (1, 1), groups=6),
    Case(1, 4, 4, (9, 17), (5, 3), (2, 2), (2, 1), (1, 1), groups=4),
    Case(2, 2, 6, (7, 8), (2, 3), (3, 1), (0, 2), (2, 2), groups=2),
    Case(1, 2, 2, (6, 6), (3, 3), (1, 1), (5, 5), (1, 1), groups=2),
    Case(3, 4, 4, (30,), (4,), (1,), (3,), (1,), groups=4),
    Case(2, 2, 4, (4, 5, 18), (3, 2, 3), (1, 2, 1), (1, 0, 1), (1, 1, 1), groups=2),
    Case(2, 32, 32, (14, 14), (3, 3), (1, 1), (1, 1), (1, 1), groups=4),
)


def forward(case: Case, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The convolution, tap by tap, in float64 or the integer type."""
    y = np.zeros((case.n, case.c_out, *case.out), _exact(x))
    for _, xs, wt, group in _taps(case, _padded(case, x), w):
        y[:, group] += np.einsum("nc...,oc->no...", xs, wt)
    return y


def gradients(case: Case, x: np.ndarray, w: np.ndarray, gy: np.ndarray) -> tuple:
    """(grad_input, grad_weight), tap by tap."""
    padded = _padded(case, x)
    gx, gw = np.zeros_like(padded), np.zeros(w.shape, padded.dtype)
    gy = gy.astype(padded.dtype)
    views = _taps(case, gx, w)
    for (tap, xs, _, group), (_, gxs, wt, _) in zip(_taps(case, padded, w), views, strict=True):
        gxs += np.einsum("no...,oc->nc...", gy[:, group], wt)
        pixels = (case.n, -1, math.prod(case.out))
        if case.n:
            gw[(group, slice(None), *tap)] += np.einsum(
                "nop,ncp->oc", gy[:, group].reshape(pixels), xs.reshape(pixels))
    inner = tuple(slice(p, p + i) for p, i in zip(case.padding, case.spatial, strict=True))
    return gx[(slice(None), slice(None), *inner)], gw


def _exact(x: np.ndarray) -> np.dtype:
    return np.dtype("f8") if x.dtype.kind == "f" else x.dtype


def _padded(case: Case, x: np.ndarray) -> np.ndarray:
    return np.pad(x.astype(_exact(x)), [(0, 0), (0, 0), *((p, p) for p in case.padding)])


def _taps(case: Case, padded: np.ndarray, w: np.ndarray):
    cg, og = case.c_in // case.groups, case.c_out // case.groups
    for tap in np.ndindex(*case.kernel):
        for g in range(case.groups):
            channels, group = slice(g * cg, g * cg + cg), slice(g * og, g * og + og)
            view = padded[(slice(None), channels, *case.window(tap))]
            yield tap, view, w[(group, slice(None), *tap)].astype(padded.dtype), group


def array(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype,
          layout: str) -> np.ndarray:
    values = sample(rng, shape, dtype)
    if layout == "channels_last":
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(values, 1, -1)), -1, 1)
    if layout == "odd":  # strides of dimensions of size 1 mean nothing
        strides = [s if n > 1 else 24 * values.itemsize
                   for n, s in zip(shape, values.strides, strict=True)]
        return np.lib.stride_tricks.as_strided(values, shape, strides)
    if layout == "strided":
        wide = np.zeros((shape[0], shape[1] + 1, *shape[2:-1], 2 * shape[-1]), dtype)
        wide[:, 1:, ..., ::2] = values
        return wide[:, 1:, ..., ::2]
    return values


def tensor(values: np.ndarray) -> torch.Tensor:
    """A tensor with the layout of an array."""
    steps = [stride // values.itemsize for stride in values.strides]
    made = torch.empty_strided(values.shape, steps, dtype=getattr(torch, str(values.dtype)))
    return made.copy_(torch.from_numpy(np.ascontiguousarray(values)))


def operands(case: Case, dtype: str, layout: str) -> list[np.ndarray]:
    """input, weight, bias, gradient of the output."""
    rng, kind = np.random.default_rng(0), np.dtype(dtype)
    shapes = ((case.n, case.c_in, *case.spatial),
              (case.c_out, case.c_in // case.groups, *case.kernel))
    x, w = (array(rng, shape, kind, layout) for shape in shapes)
    bias = sample(rng, (case.c_out,), kind)
    return [x, w, bias, array(rng, (case.n, case.c_out, *case.out), kind, layout)]


def run(case: Case, x: np.ndarray, w: np.ndarray, bias: np.ndarray, gy: np.ndarray) -> list:
    """Output, gradients of input and weight, as arrays."""
    x, w, bias = (tensor(a).requires_grad_() for a in (x, w, bias))
    function = (F.conv1d, F.conv2d, F.conv3d)[len(case.spatial) - 1]
    y = function(x, w, bias, case.stride, case.padding, case.dilation, case.groups)
    grads = torch.autograd.grad(y, (x, w), tensor(gy))
    return [t.detach().numpy() for t in (y, *grads)]


def close(got: np.ndarray, expected: np.ndarray, what: object) -> None:
    assert got.shape == expected.shape
    if not got.size:
        return
    error = np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-30)
    assert error < 32 * np.finfo(got.dtype).eps, (what, error)


@pytest.mark.parametrize("layout", ("plain", "channels_last", "strided", "odd"))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_float(case, layout):
    x, w, bias, gy = operands(case, "f4", layout)
    y, gx, gw = run(case, x, w, bias, gy)
    wanted = bias.reshape(-1, *[1] * len(case.spatial)).astype(_exact(x))
    close(y, forward(case, x, w) + wanted, "forward")
    expected = gradients(case, x, w, gy)
    close(gx, expected[0], "gradient of the input")
    close(gw, expected[1], "gradient of the weight")


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_double(case):
    x, w, bias, gy = operands(case, "f8", "plain")
    y, gx, gw = run(case, x, w, bias, gy)
    close(y, forward(case, x, w) + bias.reshape(-1, *[1] * len(case.spatial)), "forward")
    for got, expected in zip((gx, gw), gradients(case, x, w, gy), strict=True):
        close(got, expected, "gradient")


@pytest.mark.parametrize("layouts", (("plain", "channels_last"), ("channels_last", "plain")))
@pytest.mark.parametrize("case", CASES[::2], ids=str)
def test_mixed_layouts(case, layouts):
    """Images in one layout, weights and gradients in another."""
    x, _, bias, _ = operands(case, "f4", layouts[0])
    _, w, _, gy = operands(case, "f4", layouts[1])
    y, gx, gw = run(case, x, w, bias, gy)
    close(y, forward(case, x, w) + bias.reshape(-1, *[1] * len(case.spatial)), "forward")
    for got, expected in zip((gx, gw), gradients(case, x, w, gy), strict=True):
        close(got, expected, "gradient")


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("layout", ("plain", "channels_last"))
@pytest.mark.parametrize("case", CASES[::2], ids=str)
def test_bits_do_not_depend_on_threads(case, layout, threads):
    results = []
    for count in (1, 2, 3, 4):
        threads(count)
        results.append(run(case, *operands(case, "f4", layout)))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert np.array_equal(a, b)


def test_transposed_convolution_is_the_gradient_of_the_input():
    """Output padding and bias included."""
    case = Case(2, 4, 3, (10, 12), (3, 4), (2, 3), (1, 1), (1, 1))
    rng, dtype = np.random.default_rng(3), np.dtype("f4")
    small = sample(rng, (case.n, case.c_out, *case.out), dtype)
    w = sample(rng, (case.c_out, case.c_in, *case.kernel), dtype)
    spread = [i - ((o - 1) * s - 2 * p + k) for i, o, s, p, k in zip(
        case.spatial, case.out, case.stride, case.padding, case.kernel, strict=True)]
    large = F.conv_transpose2d(tensor(small), tensor(w), torch.ones(case.c_in), case.stride,
                               case.padding, spread)
    expected, _ = gradients(case, np.zeros((case.n, case.c_in, *case.spatial), dtype), w, small)
    close(large.numpy(), expected + 1, "transposed")
