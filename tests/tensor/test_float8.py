"""8-bit floats and dtypes without arithmetic: against the definitions of the formats."""

from __future__ import annotations

import io
import math

import ml_dtypes
import numpy as np
import pytest

import flambeau as torch

FORMATS = {  # mantissa bits, bias
    torch.float8_e4m3fn: (3, 7), torch.float8_e4m3fnuz: (3, 8),
    torch.float8_e5m2: (2, 15), torch.float8_e5m2fnuz: (2, 16),
}
FLOAT8 = (*FORMATS, torch.float8_e8m0fnu)
OPAQUE = [getattr(torch, name) for name in (
    "int1", "int4", "uint3", "uint7", "bits8", "bits16", "bits1x8", "float4_e2m1fn_x2")]


def meaning(dtype, code):
    """The number that a byte stands for, from the format's definition."""
    if dtype is torch.float8_e8m0fnu:
        return math.nan if code == 255 else 2.0 ** (code - 127)
    mantissa, bias = FORMATS[dtype]
    low = code & 0x7F
    if dtype.name.endswith("fnuz") and code == 0x80 or dtype is torch.float8_e4m3fn and low == 0x7F:
        return math.nan
    if dtype is torch.float8_e5m2 and low >= 0x7C:
        return math.nan if low > 0x7C else math.copysign(math.inf, -1 if code >> 7 else 1)
    exponent, fraction = low >> mantissa, low & ((1 << mantissa) - 1)
    size = (fraction * 2.0 ** (1 - bias - mantissa) if exponent == 0
            else (1 + fraction / 2**mantissa) * 2.0 ** (exponent - bias))
    return math.copysign(size, -1 if code >> 7 else 1)


def every_code(dtype):
    return torch.arange(256, dtype=torch.int32).to(torch.uint8).view(dtype)


def bits(tensor):
    return tensor.contiguous().view(torch.uint8).flatten().tolist()


@pytest.mark.parametrize("dtype", FLOAT8, ids=repr)
def test_every_code(dtype):
    codes = every_code(dtype)
    wanted = np.array([meaning(dtype, code) for code in range(256)])
    for wide in (torch.float32, torch.float64, torch.bfloat16):
        got = np.array(codes.to(wide).double().tolist())
        np.testing.assert_array_equal(got, wanted.astype(np.float64))
    np.testing.assert_array_equal(np.array(codes.tolist()), wanted)
    back = bits(codes.float().to(dtype))
    same = [code for code in range(256) if not math.isnan(wanted[code])]
    assert [back[code] for code in same] == same


@pytest.mark.parametrize("dtype", FORMATS, ids=repr)
def test_nearest_even(dtype):
    """Halfway points and their neighbours, for every pair of numbers that follow one another."""
    finite = [code for code in range(127) if math.isfinite(meaning(dtype, code))]
    values = np.array([meaning(dtype, code) for code in finite])
    middle = (values[:-1] + values[1:]) / 2
    single = middle.astype(np.float32)
    points = np.concatenate([np.nextafter(single, -np.inf), single, np.nextafter(single, np.inf)])
    wanted = np.concatenate([finite[:-1], [a + a % 2 for a in finite[:-1]], finite[1:]])
    for sign in (1, -1):
        got = np.array(bits(torch.from_numpy(sign * points).to(dtype)))
        minus = 0x80 if sign < 0 else 0
        expected = np.where((wanted == 0) & dtype.name.endswith("fnuz"), 0, wanted | minus)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("dtype", "wanted"), [
    (torch.float8_e4m3fn, [0x7E, 0xFE, 0x7E, 0x7E, 0x7E, 0x7F, 0x80]),
    (torch.float8_e4m3fnuz, [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]),
    (torch.float8_e5m2, [0x7C, 0xFC, 0x5F, 0x7B, 0x7C, 0x7F, 0x80]),
    (torch.float8_e5m2fnuz, [0x80, 0x80, 0x63, 0x7F, 0x80, 0x80, 0x00]),
    (torch.float8_e8m0fnu, [0xFF, 0xFF, 0x88, 0x8F, 0x8F, 0xFF, 0x00])], ids=repr)
def test_specials(dtype, wanted):
    numbers = [math.inf, -math.inf, 465.0, 61439.0, 61440.0, math.nan, -0.0]
    assert bits(torch.tensor(numbers).to(dtype)) == wanted
    assert bits(torch.tensor(numbers, dtype=dtype)) == wanted


def test_power_of_two_takes_the_exponent():
    numbers = [1.0, -2.0, 1.4999, 1.5, 3.0, 2.0**-127, 0.75 * 2.0**-127, 1.25 * 2.0**-127,
               1.5 * 2.0**-126, 2.0**127, 1.5 * 2.0**127]
    wanted = [127, 128, 127, 128, 129, 0, 0, 1, 2, 254, 255]
    assert bits(torch.tensor(numbers, dtype=torch.float64).to(torch.float8_e8m0fnu)) == wanted
    assert bits(torch.tensor(numbers, dtype=torch.float8_e8m0fnu)) == wanted


@pytest.mark.parametrize("dtype", [*FLOAT8, *OPAQUE], ids=repr)
def test_moving_keeps_every_bit(dtype):
    codes = torch.arange(256, dtype=torch.int32).to(torch.uint8)
    codes = codes.view(dtype)
    index = torch.tensor([3, 0, 7])
    pairs = [
        (codes.clone(), codes), (torch.cat([codes, codes])[-len(codes):], codes),
        (codes.reshape(2, -1).t().contiguous().t(), codes.reshape(2, -1)),
        (codes[index], torch.stack([codes[3], codes[0], codes[7]])),
        (codes.flip(0).flip(0), codes), (codes[::3].clone(), codes[::3]),
        (torch.empty_like(codes).copy_(codes), codes),
        (torch.where(torch.ones(len(codes), dtype=torch.bool), codes, codes), codes),
    ]
    for got, wanted in pairs:
        assert got.dtype is dtype
        assert bits(got) == bits(wanted)
    assert bits(torch.zeros(3, dtype=dtype)) == [0] * 3 * dtype.itemsize


@pytest.mark.parametrize("dtype", FLOAT8, ids=repr)
def test_what_works(dtype):
    x = torch.tensor([1.0, 2.0, 4.0, math.nan], dtype=dtype)
    assert (x == x).tolist() == [True, True, True, False]
    assert x.isnan().tolist() == [False, False, False, True]
    assert torch.full((2,), 2.0, dtype=dtype).tolist() == [2.0, 2.0]
    assert (x[:3] * x[:3]).tolist() == [1.0, 4.0, 16.0]
    assert torch.where(x == 2, x, x[0]).tolist() == [1.0, 2.0, 1.0, 1.0]
    assert repr(x[:3]) == f"tensor([1., 2., 4.], dtype=torch.{dtype.name})"
    assert x.sum(dtype=torch.float32).isnan()
    saved = io.BytesIO()
    torch.save(x, saved)
    saved.seek(0)
    assert bits(torch.load(saved)) == bits(x)
    shared = torch.from_dlpack(torch.utils.dlpack.to_dlpack(x))
    assert shared.dtype is dtype
    assert shared.data_ptr() == x.data_ptr()
    array = np.array([1.0, 2.0]).astype(getattr(ml_dtypes, dtype.name))
    assert torch.from_numpy(array).tolist() == [1.0, 2.0]


def refusals(x):
    yield lambda: x + x
    yield lambda: x.add_(1)
    yield lambda: x.sum()
    yield lambda: x.exp()
    yield lambda: x < x
    yield lambda: x.sort()
    yield lambda: torch.rand(3, dtype=x.dtype)
    yield lambda: x.clone().normal_()


@pytest.mark.parametrize("dtype", [*FLOAT8, *OPAQUE], ids=repr)
def test_what_does_not(dtype):
    x = torch.zeros(4, dtype=torch.uint8).view(dtype)
    for call in refusals(x):
        with pytest.raises(NotImplementedError, match=f"not implemented for '{dtype.scalar_name}'"):
            call()
    with pytest.raises(RuntimeError, match="Promotion"):
        torch.cat([x, torch.ones(1)]) if not dtype.name.startswith("uint") else (
            torch.promote_types(dtype, torch.int32))
    if dtype in OPAQUE:
        with pytest.raises(NotImplementedError, match="copy_"):
            x.to(torch.float32)
        with pytest.raises(TypeError, match="view"):
            torch.tensor([1, 2], dtype=dtype)


def test_gradients_pass_conversions():
    x = torch.tensor([1.0, 3.3], requires_grad=True)
    y = (x.to(torch.float8_e5m2).to(torch.float32) * 2).sum()
    y.backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_compiled_equals_eager():
    def step(x, w):
        y = x.to(torch.float8_e4m3fn)
        return y, (y.float() @ w.to(torch.float8_e5m2).float()).to(torch.float8_e4m3fnuz), y == y

    x, w = torch.randn(33, 17), torch.randn(17, 9)
    for options in ({}, {"exact": True}):
        compiled = torch.compile(step, options=options)
        for _ in range(3):
            got, wanted = compiled(x, w), step(x, w)
            assert all(bits(a) == bits(b) for a, b in zip(got, wanted, strict=True))


# ---------------------------------------------------------------------- products
def operands(first=torch.float8_e4m3fn, second=torch.float8_e4m3fn, n=16, m=32, k=24):
    torch.manual_seed(0)
    return torch.randn(n, m).to(first), torch.randn(k, m).to(second).t()


@pytest.mark.parametrize("second", [torch.float8_e4m3fn, torch.float8_e5m2], ids=repr)
def test_scaled_mm(second):
    a, b = operands(second=second)
    exact = a.double() @ b.double()
    half, two = torch.tensor(0.5), torch.tensor(2.0)
    got = torch._scaled_mm(a, b, half, two, out_dtype=torch.float32)
    torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-5)
    rows, columns = torch.rand(16, 1), torch.rand(1, 24)
    bias = torch.randn(24)
    got = torch._scaled_mm(a, b, rows, columns, bias=bias, out_dtype=torch.bfloat16)
    wanted = exact * rows * columns + bias
    torch.testing.assert_close(got.double(), wanted, rtol=1e-2, atol=1e-2)
    assert torch._scaled_mm(a, b, half, two).dtype is a.dtype
    scaled = torch._scaled_mm(a, b, half, two, scale_result=two)
    assert bits(scaled) == bits((exact.float() / 2).to(a.dtype))


def test_scaled_mm_refuses():
    a, b = operands()
    one = torch.tensor(1.0)
    with pytest.raises(ValueError, match="Invalid scaling configuration"):
        torch._scaled_mm(a.float(), b, one, one)
    with pytest.raises(ValueError, match="Invalid scaling configuration"):
        torch._scaled_mm(a, b, torch.rand(16, 1), torch.rand(1, 23))
    with pytest.raises(RuntimeError, match="Expected mat1 to be Float8"):
        torch._scaled_mm(a.view(torch.uint8), b, one, one)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        torch._scaled_mm(a, b[:16], one, one)
    with pytest.raises(RuntimeError, match="Bias must be size 24 but got 23"):
        torch._scaled_mm(a, b, one, one, bias=torch.ones(23))


def test_functional_scaled_mm():
    functional, kinds = torch.nn.functional, torch.nn.functional.ScalingType
    a, b = operands()
    rows, columns = torch.rand(16), torch.rand(24)
    got = functional.scaled_mm(a, b, rows, kinds.RowWise, [columns], [kinds.RowWise],
                               output_dtype=torch.float32)
    wanted = torch._scaled_mm(a, b, rows[:, None], columns[None], out_dtype=torch.float32)
    assert torch.equal(got, wanted)
    with pytest.raises(ValueError, match="Invalid scaling configuration"):
        functional.scaled_mm(a, b, rows, kinds.BlockWise1x32, columns, kinds.BlockWise1x32)


def test_float8_products_round_once():
    a, b = operands()
    wanted = (a.double() @ b.double()).float().to(a.dtype)
    assert bits(a @ b) == bits(wanted)
    assert bits(torch.nn.functional.linear(a, b.t())) == bits(wanted)


def test_grouped_mm():
    functional = torch.nn.functional
    x, w = torch.randn(16, 8, requires_grad=True), torch.randn(3, 8, 5, requires_grad=True)
    offs = torch.tensor([4, 4, 15], dtype=torch.int32)
    parts = [x[:4] @ w[0], x[4:4] @ w[1], x[4:15] @ w[2], x.new_zeros(1, 5)]
    got = functional.grouped_mm(x, w, offs=offs)
    assert torch.equal(got, torch.cat(parts))
    gradients = torch.autograd.grad(got.sum(), [x, w])
    wanted = torch.autograd.grad(torch.cat(parts).sum(), [x, w])
    assert all(torch.equal(a, b) for a, b in zip(gradients, wanted, strict=True))
    assert functional.grouped_mm(w.transpose(1, 2), x[:8, :6].contiguous(), offs=torch.tensor(
        [1, 3, 6], dtype=torch.int32)).shape == (5, 6)
    assert functional.grouped_mm(x.t(), x, offs=offs).shape == (3, 8, 8)
    with pytest.raises(RuntimeError, match="Have to provide offsets"):
        functional.grouped_mm(x, w)
    with pytest.raises(RuntimeError, match="int32"):
        functional.grouped_mm(x, w, offs=offs.long())


def test_scaled_grouped_mm():
    functional, kinds = torch.nn.functional, torch.nn.functional.ScalingType
    x, w = torch.randn(12, 16).to(torch.float8_e4m3fn), torch.randn(2, 16, 5)
    w = w.to(torch.float8_e4m3fn)
    rows, columns = torch.rand(12), torch.rand(2, 5)
    offs = torch.tensor([5, 12], dtype=torch.int32)
    got = functional.scaled_grouped_mm(x, w, rows, kinds.RowWise, columns, kinds.RowWise, offs=offs,
                                       output_dtype=torch.float32)
    wide = x.double() * rows[:, None]
    wanted = torch.cat([wide[:5] @ (w[0].double() * columns[0]),
                        wide[5:] @ (w[1].double() * columns[1])])
    torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-5)


def test_integers_are_not_rounded_to_decimals():
    x = torch.tensor([1, 25])
    assert torch.equal(torch.round(x), x)
    for dtype in (torch.int64, torch.uint8, torch.uint16):
        with pytest.raises(NotImplementedError, match="round_cpu"):
            torch.round(x.to(dtype), decimals=-1)
