"""`torch.testing.make_tensor` and `assert_allclose`."""

from __future__ import annotations

import pytest

import flambeau as torch
from flambeau.testing import assert_allclose, make_tensor

DTYPES = (torch.bool, torch.uint8, torch.int8, torch.int64, torch.float16, torch.bfloat16,
          torch.float32, torch.float64, torch.complex64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_shapes_dtypes_ranges(dtype, shape):
    for made in (make_tensor(shape, dtype=dtype, device="cpu"),
                 make_tensor(*shape, dtype=dtype, device="cpu") if shape else None):
        if made is None:
            continue
        assert tuple(made.shape) == shape and made.dtype is dtype
        parts = torch.view_as_real(made) if dtype.is_complex else made
        low, high = (0, 9) if dtype in (torch.bool, torch.uint8) else (-9, 9)
        assert bool(((parts >= low) & (parts <= high)).all())


def test_options():
    make = lambda **options: make_tensor(4, 4, dtype=torch.float32, device="cpu", **options)  # noqa: E731
    assert not make(noncontiguous=True).is_contiguous() and make().is_contiguous()
    assert make(requires_grad=True).requires_grad
    assert bool((make(low=2, high=3) >= 2).all())
    spread = make_tensor(2, 3, 4, 5, dtype=torch.float32, device="cpu",
                         memory_format=torch.channels_last)
    assert spread.is_contiguous(memory_format=torch.channels_last)
    whole = make_tensor(100, dtype=torch.int8, device="cpu", low=0, high=2, exclude_zero=True)
    assert whole.tolist() == [1] * 100
    wide = make_tensor(9, dtype=torch.float32, device="cpu", low=-1e39, high=1e39)
    assert bool(wide.isfinite().all())
    assert make_tensor(5, dtype=torch.uint8, device="cpu", low=-5, high=1).tolist() == [0] * 5


@pytest.mark.parametrize(("options", "message"), [
    ({"low": 3, "high": 3}, "below"), ({"low": float("nan")}, "must be numbers"),
    ({"noncontiguous": True, "memory_format": torch.contiguous_format}, "exclude one another"),
    ({"dtype": torch.int64, "requires_grad": True}, "gradients"),
    ({"dtype": torch.bool, "high": 3}, "bounds of bool"),
    ({"dtype": torch.uint8, "low": -5, "high": 0}, "no torch.uint8"),
])
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        make_tensor(3, **{"dtype": torch.float32, "device": "cpu"} | options)


def test_assert_allclose():
    with pytest.warns(FutureWarning, match="deprecated"):
        assert_allclose(torch.tensor([1.0, float("nan")]), [1.00001, float("nan")])
    with pytest.warns(FutureWarning), pytest.raises(AssertionError):
        assert_allclose(torch.ones(2), torch.ones(2) * 1.1)
    with pytest.warns(FutureWarning):
        assert_allclose(torch.ones(2), torch.ones(2) * 1.1, rtol=0.2, atol=0.0)
