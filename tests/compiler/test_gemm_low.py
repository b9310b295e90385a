"""Products of 16-bit floats and bytes against NumPy, in every layout, on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as torch
from flambeau.compiler import amx, target
from flambeau.compiler.products.low_packing import engine_for

SHAPES = ((1, 1, 1), (1, 70, 33), (5, 3, 130), (17, 33, 65), (64, 64, 64), (100, 130, 257),
          (3, 200, 512), (130, 7, 40))


def operand(rows: int, columns: int, turned: bool, dtype) -> torch.Tensor:
    shape = (columns, rows) if turned else (rows, columns)
    made = torch.randn(*shape).to(dtype)
    return made.t() if turned else made


@pytest.mark.parametrize("form", ("NN", "NT", "TN", "TT"))
@pytest.mark.parametrize("dtype", ("bfloat16", "float16"))
def test_floats(dtype, form):
    torch.manual_seed(0)
    kind = getattr(torch, dtype)
    for m, n, k in SHAPES:
        a = operand(m, k, form[0] == "T", kind)
        b = operand(k, n, form[1] == "T", kind)
        expected = a.double().numpy() @ b.double().numpy()
        got = (a @ b).double().numpy()
        step = 2.0 ** (-8 if dtype == "bfloat16" else -11)
        assert np.abs(got - expected).max() <= step * np.abs(expected).max() * 1.01, (m, n, k)


def test_bytes():
    torch.manual_seed(1)
    for m, n, k in ((17, 8, 8), (33, 40, 72), (64, 128, 256)):
        a = torch.randint(-128, 128, (m, k), dtype=torch.int8)
        b = torch.randint(-128, 128, (n, k), dtype=torch.int8).t()
        got = torch._int_mm(a, b)
        assert got.dtype is torch.int32
        assert np.array_equal(got.numpy(), a.int().numpy() @ b.int().numpy())


def test_special_values():
    a = torch.tensor([[float("inf"), 1.0], [float("nan"), 1.0], [0.0, 2.0]]).bfloat16()
    got = (a @ torch.ones(2, 3).bfloat16()).float().numpy()
    assert np.isinf(got[0]).all() and np.isnan(got[1]).all() and (got[2] == 2).all()
    assert (torch.ones(4, 0).bfloat16() @ torch.ones(0, 3).bfloat16() == 0).all()


@pytest.mark.parametrize("dtype", ("bfloat16", "float16"))
def test_bits_do_not_depend_on_threads(dtype):
    torch.manual_seed(2)
    a, b = (torch.randn(300, 300).to(getattr(torch, dtype)) for _ in range(2))
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3, 4):
            torch.set_num_threads(count)
            results.append((a @ b.t()).float().numpy().copy())
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_tiles_that_the_system_refuses_are_not_used(monkeypatch):
    monkeypatch.setattr(amx, "permitted", lambda: False)
    machine = target.host.__wrapped__()
    assert not machine.has("amx-tile") and engine_for("bfloat", machine).kind != "amx"
    features = {"amx-tile": True, "amx-int8": True, "avx2": True}
    assert amx.usable(features) == {"amx-tile": False, "amx-int8": False, "avx2": True}
