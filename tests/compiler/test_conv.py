"""The convolution generator against a NumPy convolution: forward and both gradients."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from kernel_calls import (
    FOREIGN,
    LLVM_TYPES,
    address,
    call,
    guarded,
    machines,
    sample,
    strides,
    workspace,
)

from flambeau.compiler import llvm as compiler
from flambeau.compiler.conv import CONV_SLOTS, ConvSpec, conv_kernel, conv_plan
from flambeau.compiler.target import Target, host


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


def run(case: Case, kind: str, x: np.ndarray, w: np.ndarray, y: np.ndarray,
        bias: np.ndarray | None = None, target: Target | None = None, threads: int = 1,
        nchunks: int | None = None, unit: bool | None = None, depthwise: bool = False) -> None:
    """Call the kernel of `kind`; it writes y, x or w."""
    target, rank = target or host(), len(case.spatial)
    if unit is None:
        image = y if kind == "grad_input" else x
        unit = strides(image)[-1] == 1 and (kind == "grad_input" or case.stride[-1] == 1)
    spec = ConvSpec(LLVM_TYPES[x.dtype.str[1:]], rank, kind, unit, bias is not None, depthwise)
    plan = conv_plan(spec, target, case.n, case.c_in, case.c_out, case.groups, case.spatial,
                     case.kernel, case.out, threads, case.stride, case.dilation)
    work = workspace(plan.work_bytes)
    values = {"input": x.ctypes.data, "weight": w.ctypes.data, "output": y.ctypes.data,
              "bias": 0 if bias is None else bias.ctypes.data, "work": work.ctypes.data,
              "work_stride": plan.work_stride, "n": case.n, "c_in": case.c_in,
              "c_out": case.c_out, "groups": case.groups, "bias_stride": 1,
              "tiles_m": plan.tiles_m, "tiles_n": plan.tiles_n}
    for tensor, array, first, second in (("input", x, "n", "c"), ("weight", w, "o", "i"),
                                         ("output", y, "n", "c")):
        for name, stride in zip([first, second, *(f"x{d}" for d in range(rank))], strides(array),
                                strict=True):
            values[f"{tensor}_{name}"] = stride
    for name, sizes in (("in", case.spatial), ("kernel", case.kernel), ("out", case.out),
                        ("stride", case.stride), ("pad", case.padding), ("dil", case.dilation)):
        values |= {f"{name}{d}": size for d, size in enumerate(sizes)}
    name, ir_text = conv_kernel(spec, target)
    call(address(name, ir_text, target), CONV_SLOTS(rank), values, nchunks or plan.nchunks, threads)
    assert guarded(work)


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


def close(got: np.ndarray, expected: np.ndarray, what: object) -> None:
    if not got.size:
        return
    if got.dtype.kind != "f":
        assert (got == expected).all(), what
        return
    error = np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-30)
    assert error < 32 * np.finfo(got.dtype).eps, (what, error)


def check(case: Case, code: str, layout: str, target: Target, depthwise: bool = False) -> None:
    rng, dtype = np.random.default_rng(0), np.dtype(code)
    x = array(rng, (case.n, case.c_in, *case.spatial), dtype, layout)
    w = array(rng, (case.c_out, case.c_in // case.groups, *case.kernel), dtype, layout)
    shape = (case.n, case.c_out, *case.out)
    y, gy = array(rng, shape, dtype, layout), array(rng, shape, dtype, layout)
    bias = sample(rng, (case.c_out,), dtype)
    run(case, "forward", x, w, y, bias, target, depthwise=depthwise)
    close(y, forward(case, x, w) + bias.reshape(-1, *[1] * len(case.spatial)).astype(_exact(x)),
          "forward")
    expected_gx, expected_gw = gradients(case, x, w, gy)
    gx, gw = np.ones_like(x), np.ones_like(w)
    run(case, "grad_input", gx, w, gy, target=target, depthwise=depthwise)
    close(gx, expected_gx, "grad_input")
    run(case, "grad_weight", x, gw, gy, target=target, depthwise=depthwise)
    close(gw, expected_gw, "grad_weight")


@pytest.mark.parametrize("layout", ("plain", "channels_last", "strided", "odd"))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_float(case, layout):
    check(case, "f4", layout, host())


@pytest.mark.parametrize("target", machines()[1:])
@pytest.mark.parametrize("case", CASES[::2], ids=str)
def test_other_machines(case, target):
    check(case, "f4", "plain", target)
    check(case, "f4", "strided", target)


@pytest.mark.parametrize("code", ("f8", "i8", "i1"))
def test_types(code):
    for case in CASES[::3]:
        check(case, code, "plain", host())


DEPTHWISE = (
    Case(2, 6, 6, (13, 40), (3, 3), (1, 1), (1, 1), (1, 1), groups=6),
    Case(2, 3, 6, (5, 40), (3, 3), (1, 2), (1, 1), (1, 1), groups=3),
    Case(1, 4, 4, (9, 17), (5, 3), (2, 2), (2, 1), (1, 1), groups=4),
    Case(2, 2, 6, (7, 8), (2, 3), (3, 1), (0, 2), (2, 2), groups=2),
    Case(1, 2, 2, (6, 6), (3, 3), (1, 1), (5, 5), (1, 1), groups=2),
    Case(3, 4, 4, (30,), (4,), (1,), (3,), (1,), groups=4),
    Case(2, 2, 4, (4, 5, 18), (3, 2, 3), (1, 2, 1), (1, 0, 1), (1, 1, 1), groups=2),
    Case(0, 2, 2, (6, 6), (3, 3), (1, 1), (1, 1), (1, 1), groups=2),
)


@pytest.mark.parametrize("target", machines())
@pytest.mark.parametrize("case", DEPTHWISE, ids=str)
def test_depthwise(case, target):
    for layout in ("plain", "channels_last", "strided"):
        check(case, "f4", layout, target, depthwise=True)
    check(case, "i8", "plain", target, depthwise=True)


def test_depthwise_bits_do_not_depend_on_chunks():
    rng, case, dtype = np.random.default_rng(2), DEPTHWISE[0], np.dtype("f4")
    x = sample(rng, (case.n, case.c_in, *case.spatial), dtype)
    w = sample(rng, (case.c_out, 1, *case.kernel), dtype)
    y = sample(rng, (case.n, case.c_out, *case.out), dtype)
    for kind, written in (("forward", y), ("grad_input", x), ("grad_weight", w)):
        results = []
        for threads, nchunks in ((1, 1), (2, 3), (3, 7)):
            run(case, kind, x, w, y, threads=threads, nchunks=nchunks, depthwise=True)
            results.append(written.copy())
        assert all((result == results[0]).all() for result in results)


def test_gathering_equals_copying():
    rng, case = np.random.default_rng(1), CASES[3]
    x = sample(rng, (case.n, case.c_in, *case.spatial), np.dtype("f4"))
    w = sample(rng, (case.c_out, case.c_in, *case.kernel), np.dtype("f4"))
    results = []
    for unit in (True, False):
        y = np.zeros((case.n, case.c_out, *case.out), "f4")
        run(case, "forward", x, w, y, unit=unit)
        results.append(y)
    assert (results[0] == results[1]).all()


@pytest.mark.parametrize("kind", ("forward", "grad_input", "grad_weight"))
@pytest.mark.parametrize("case", CASES[:9], ids=str)
def test_bits_do_not_depend_on_chunks(kind, case):
    rng, dtype = np.random.default_rng(2), np.dtype("f4")
    x = sample(rng, (case.n, case.c_in, *case.spatial), dtype)
    w = sample(rng, (case.c_out, case.c_in // case.groups, *case.kernel), dtype)
    y = sample(rng, (case.n, case.c_out, *case.out), dtype)
    written = {"forward": y, "grad_input": x, "grad_weight": w}[kind]
    results = []
    for threads, nchunks in ((1, None), (2, None), (5, None), (3, 4)):
        run(case, kind, x, w, y, threads=threads, nchunks=nchunks)
        results.append(written.copy())
        written.fill(7)
    assert all((result == results[0]).all() for result in results)


def test_transposed_convolution_is_grad_input():
    """A transposed convolution's forward, output_padding and bias included."""
    case = Case(2, 4, 3, (10, 12), (3, 4), (2, 3), (1, 1), (1, 1))
    rng, dtype = np.random.default_rng(3), np.dtype("f4")
    small = sample(rng, (case.n, case.c_out, *case.out), dtype)
    w, bias = sample(rng, (case.c_out, case.c_in, *case.kernel), dtype), np.ones(case.c_in, "f4")
    large = np.zeros((case.n, case.c_in, *case.spatial), dtype)
    run(case, "grad_input", large, w, small, bias)
    expected, _ = gradients(case, large, w, small)
    close(large, expected + 1, "transposed")


@pytest.mark.parametrize("target", FOREIGN, ids=lambda target: target.triple)
def test_foreign_machines_compile(target):
    for kind in ("forward", "grad_input", "grad_weight"):
        _, ir_text = conv_kernel(ConvSpec("float", 2, kind, unit=True), target)
        assert compiler.compile_object(ir_text, target, jit=False)


def test_plan():
    spec = ConvSpec("float", 2, "forward")
    small = conv_plan(spec, host(), 1, 1, 4, 1, (8, 8), (3, 3), (8, 8), 8)
    assert small.nchunks == 1
    large = conv_plan(spec, host(), 32, 64, 64, 1, (56, 56), (3, 3), (56, 56), 8)
    assert large.nchunks >= 8 and large.work_bytes == 8 * large.work_stride
    assert math.prod((large.tiles_m, large.tiles_n)) >= large.nchunks


def test_refused_specs():
    with pytest.raises(ValueError, match="spatial dimensions"):
        conv_kernel(ConvSpec("float", 4, "forward"), host())
    with pytest.raises(ValueError, match="kind"):
        conv_kernel(ConvSpec("float", 2, "sideways"), host())
