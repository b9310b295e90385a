"""Fourier transforms: every kind of length, layout and direction against NumPy; what they refuse;
short-time transforms and windows."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as torch
from flambeau.compiler.fourier.plan import passes, unit_roots

SIZES = (1, 2, 3, 4, 7, 9, 13, 15, 16, 30, 32, 31, 37, 45, 74, 80, 100, 96, 400, 1024, 127, 1517,
         131, 254)
FUNCTIONS = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")


def given(name: str, shape: tuple, n: int, dtype=np.complex64) -> np.ndarray:
    """An input of `name` whose transforms have n points along the last dimension."""
    rng = np.random.default_rng(n)
    size = n // 2 + 1 if name in ("irfft", "hfft") else n
    x = rng.standard_normal((*shape, size))
    if name in ("rfft", "ihfft"):
        return x.astype(np.dtype(dtype).char.lower())
    return (x + 1j * rng.standard_normal((*shape, size))).astype(dtype)


def expected(name: str, x: np.ndarray, n: int, axis: int = -1) -> np.ndarray:
    wide = x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)
    return getattr(np.fft, name)(wide, n, axis)


def close(found: np.ndarray, wanted: np.ndarray, n: int) -> None:
    """Within a few eps of the root mean square, growing as the root of log n does."""
    scale = max(1e-30, np.sqrt(np.mean(np.abs(wanted) ** 2)))
    assert np.abs(found - wanted).max() / scale < 12 * np.finfo(found.dtype).eps * max(
        1, np.log2(n)) ** 0.5


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_lengths(name: str, dtype):
    for n in SIZES[::2] if dtype is np.complex64 else SIZES[1::2]:
        for shape in ((), (19,)):
            x = given(name, shape, n, dtype)
            found = getattr(torch.fft, name)(torch.from_numpy(x), n).numpy()
            assert found.dtype == (x.real.dtype if name in ("irfft", "hfft") else dtype)
            close(found, expected(name, x, n), n)


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_lengths(name: str):
    for n in (*range(1, 201), 499, 997, 1009, 2039, 4093, 8191, 10007):
        for shape in ((), (20,)) if n <= 200 else ((2,),):
            x = given(name, shape, n)
            close(getattr(torch.fft, name)(torch.from_numpy(x), n).numpy(),
                  expected(name, x, n), n)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("n", [15, 37, 96])
def test_one_result_whatever_the_layout(name: str, n: int):
    """Lanes may be points or rows, neighbours or not: the same sums are formed."""
    x = given(name, (6, 21), n)
    wanted = getattr(torch.fft, name)(torch.from_numpy(x), n).numpy()
    close(wanted, expected(name, x, n), n)
    for axis in (0, 1):
        turned = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, axis)))
        for given_ in (turned, turned[:, :, ::2] if axis < 2 else turned):
            found = getattr(torch.fft, name)(given_, n, axis).movedim(axis, -1).numpy()
            rows = wanted if given_ is turned else (wanted[:, ::2])
            assert np.array_equal(found, rows)
    for row in (0, 5):
        one = getattr(torch.fft, name)(torch.from_numpy(x[row, 3]), n).numpy()
        assert np.array_equal(one, wanted[row, 3])


def test_long_transforms_in_two_halves():
    n = 1 << 20
    x = given("fft", (), n)
    close(torch.fft.fft(torch.from_numpy(x)).numpy(), np.fft.fft(x.astype(np.complex128)), n)
    back = torch.fft.ifft(torch.fft.fft(torch.from_numpy(x))).numpy()
    assert np.abs(back - x).max() < 1e-5


@pytest.mark.parametrize("n", [1024, 997])
def test_equal_bits_for_any_number_of_threads(n: int):
    x, results = torch.from_numpy(given("fft", (70,), n)), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            results.append((torch.fft.fft(x), torch.fft.fft(x.T, dim=0), torch.fft.rfft(x.real)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_not_a_number_stays_in_its_row():
    x = given("rfft", (40,), 24)
    x[7, 3] = np.nan
    found = torch.fft.rfft(torch.from_numpy(x)).numpy()
    assert np.isnan(found[7]).all() and not np.isnan(np.delete(found, 7, 0)).any()


def test_several_dimensions():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4, 6))
    t = torch.from_numpy(x)
    for norm in ("backward", "ortho", "forward"):
        assert np.allclose(torch.fft.fftn(t, norm=norm).numpy(), np.fft.fftn(x, norm=norm))
        assert np.allclose(torch.fft.rfft2(t, (5, 4), norm=norm).numpy(),
                           np.fft.rfft2(x, (5, 4), norm=norm))
        half = np.fft.rfftn(x, axes=(0, 2), norm=norm)
        assert np.allclose(torch.fft.irfftn(torch.from_numpy(half), (3, 6), (0, 2), norm).numpy(),
                           x)
    h = torch.fft.ihfftn(t)
    assert np.allclose(torch.fft.hfftn(h, (3, 4, 6)).numpy(), x)
    assert torch.equal(torch.fft.ihfft2(t), torch.fft.ihfftn(t, dim=(-2, -1)))
    assert torch.fft.fftn(torch.tensor(3.0)).item() == 3


def test_refusals():
    x = torch.zeros(4, 5)
    for wrong, error, words in (
            (lambda: torch.fft.fft(x, 0), RuntimeError, "number of data points"),
            (lambda: torch.fft.fft(torch.tensor(1.0)), IndexError, "no dimensions"),
            (lambda: torch.fft.fftn(x, dim=(0, 0)), RuntimeError, "unique"),
            (lambda: torch.fft.fftn(x, (1, 2, 3)), RuntimeError, "only has 2"),
            (lambda: torch.fft.fftn(x, (1,), (0, 1)), RuntimeError, "same length"),
            (lambda: torch.fft.rfft(x + 0j), RuntimeError, "real input"),
            (lambda: torch.fft.fft(x.half()), RuntimeError, "Unsupported dtype Half"),
            (lambda: torch.fft.fft(x, norm="odd"), RuntimeError, "normalization mode"),
            (lambda: torch.fft.rfftn(torch.tensor(1.0)), RuntimeError, "at least one axis")):
        with pytest.raises(error, match=words):
            wrong()


def test_frequencies():
    for n in (1, 4, 5, 8):
        assert np.allclose(torch.fft.fftfreq(n, 0.5).numpy(), np.fft.fftfreq(n, 0.5))
        assert np.allclose(torch.fft.rfftfreq(n, 0.5).numpy(), np.fft.rfftfreq(n, 0.5))
        x = np.arange(float(n))
        assert np.array_equal(torch.fft.fftshift(torch.from_numpy(x)).numpy(), np.fft.fftshift(x))
        assert np.array_equal(torch.fft.ifftshift(torch.from_numpy(x)).numpy(),
                              np.fft.ifftshift(x))


def test_roots_are_exact_where_they_can_be():
    for n in (8, 12, 24, 1000):
        wanted = np.exp(-2j * np.pi * np.arange(n) / n)
        assert np.abs(unit_roots(n) - wanted).max() < 4e-15
    assert unit_roots(8)[2] == -1j and unit_roots(12)[6] == -1


@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
def test_plans_are_complete(lanes: int):
    for n in (1, 2, 30, 64, 400, 1001, 65536):
        steps, before = passes(n, lanes), 1
        for step in steps:
            assert step.before == before and step.before * step.radix * step.rest == n
            before *= step.radix
        assert before == n


# --------------------------------------------------------------------------- frames and windows
def frames_of(x: np.ndarray, window: np.ndarray, hop: int) -> np.ndarray:
    n = len(window)
    padded = np.pad(x, n // 2, mode="reflect")
    count = 1 + (len(padded) - n) // hop
    return np.stack([np.fft.rfft(padded[t * hop:t * hop + n] * window) for t in range(count)], 1)


def test_stft_and_back():
    x = np.random.default_rng(0).standard_normal(160)
    window = torch.hann_window(32, dtype=torch.float64)
    found = torch.stft(torch.from_numpy(x), 32, 8, window=window, return_complex=True)
    assert np.allclose(found.numpy(), frames_of(x, window.numpy(), 8))
    back = torch.istft(found, 32, 8, window=window, length=160)
    assert np.allclose(back.numpy(), x)
    both = torch.stft(torch.from_numpy(np.stack([x, 2 * x])), 32, 8, window=window,
                      return_complex=True)
    assert torch.equal(both[0], found) and both.shape == (2, *found.shape)


def test_stft_refusals():
    x, window = torch.zeros(20), torch.ones(8)
    with pytest.raises(RuntimeError, match="return_complex"):
        torch.stft(x, 8, window=window)
    with pytest.raises(RuntimeError, match="n_fft=80"):
        torch.stft(x, 80, window=torch.ones(80), center=False, return_complex=True)
    with pytest.raises(RuntimeError, match="size equal to win_length"):
        torch.stft(x, 16, window=window, return_complex=True)
    spectrum = torch.stft(x, 8, window=window, return_complex=True)
    with pytest.raises(RuntimeError, match="window overlap add min"):
        torch.istft(spectrum, 8, window=torch.zeros(8))
    with pytest.raises(RuntimeError, match="frequency dimension"):
        torch.istft(spectrum, 16, window=torch.ones(16))


@pytest.mark.parametrize("m", [0, 1, 2, 7, 16])
def test_windows(m: int):
    for name in ("bartlett", "blackman", "hamming", "hanning"):
        own = name.replace("hanning", "hann")
        wanted = getattr(np, name)(m)
        assert np.allclose(getattr(torch.signal.windows, own)(m, dtype=torch.float64).numpy(),
                           wanted)
        periodic = getattr(torch, f"{own}_window")(m, dtype=torch.float64).numpy()
        assert np.allclose(periodic, getattr(np, name)(m + 1)[:m] if m > 1 else np.ones(m))
    assert np.allclose(torch.kaiser_window(m, False, 5.0, dtype=torch.float64).numpy(),
                       np.kaiser(m, 5.0))
    assert np.allclose(torch.signal.windows.kaiser(m, beta=5.0, dtype=torch.float64).numpy(),
                       np.kaiser(m, 5.0))


# --------------------------------------------------------------------------- halves
def test_complex_numbers_of_halves():
    x = torch.randn(5).chalf()
    assert x.dtype is torch.complex32 and x.element_size() == 4
    assert (x * 1j).dtype is torch.complex32 and x.abs().dtype is torch.float16
    assert torch.view_as_complex(torch.view_as_real(x)).tolist() == x.tolist()
    assert torch.promote_types(torch.complex32, torch.bfloat16) is torch.complex64
    with pytest.raises(TypeError, match="ComplexHalf"):
        x.numpy()
