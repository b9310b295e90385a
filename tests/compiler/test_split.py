"""Float32 products in bfloat16 parts, where the machine has tiles: as exact as float32 arithmetic,
in every layout, with what follows a product, on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as torch
from flambeau.compiler.products import low
from flambeau.compiler.products.gemm import GemmSpec, gemm_spec
from flambeau.compiler.products.low_packing import has_split
from flambeau.compiler.target import host

pytestmark = pytest.mark.skipif(not has_split(host()), reason="needs AMX tiles")

SHAPES = ((128, 130, 128), (300, 500, 1000), (257, 129, 333), (96, 1100, 160), (700, 64, 2049))


def operand(rows: int, columns: int, turned: bool) -> torch.Tensor:
    made = torch.randn(columns, rows) if turned else torch.randn(rows, columns)
    return made.t() if turned else made


def test_large_products_are_taken_apart():
    assert low.split_spec("along", "across", 512, 512, 512, host()) is not None
    assert low.split_spec("along", "any", 512, 512, 512, host()) is None
    assert low.split_spec("along", "along", 4, 512, 512, host()) is None
    assert isinstance(gemm_spec("float", "row", "row", 4, 512, 512, host()), GemmSpec)


@pytest.mark.parametrize("form", ("NN", "NT", "TN", "TT"))
def test_error_is_that_of_float32(form):
    torch.manual_seed(0)
    for m, n, k in SHAPES:
        a, b = operand(m, k, form[0] == "T"), operand(k, n, form[1] == "T")
        exact = a.double().numpy() @ b.double().numpy()
        size = np.abs(a.double().numpy()) @ np.abs(b.double().numpy())
        error = np.abs((a @ b).numpy() - exact) / size
        assert error.max() <= 4 * 2.0 ** -24, (m, n, k)


def test_small_integers_are_exact():
    torch.manual_seed(1)
    a, b = torch.randint(-999, 999, (130, 160)).float(), torch.randint(-99, 99, (160, 140)).float()
    assert np.array_equal((a @ b).double().numpy(), a.double().numpy() @ b.double().numpy())


def test_values_of_very_different_size():
    torch.manual_seed(2)
    scale = 2.0 ** torch.linspace(-60, 60, 200)
    a, b = torch.randn(150, 200) * scale, torch.randn(200, 170) / scale.unsqueeze(1)
    exact = a.double().numpy() @ b.double().numpy()
    size = np.abs(a.double().numpy()) @ np.abs(b.double().numpy())
    assert (np.abs((a @ b).numpy() - exact) / size).max() <= 4 * 2.0 ** -24


def test_infinities_and_nan():
    a, b = torch.ones(200, 150), torch.ones(150, 180)
    a[3, 7], a[5, 9], b[20, 11] = float("inf"), float("nan"), -float("inf")
    a[8, 100], b[100, :] = 3.4e38, 0.5  # finite, but its nearest bfloat16 is not
    a[150, 1], b[1, 170], a[30, 20] = float("inf"), 0.0, 0.0
    with np.errstate(invalid="ignore"):
        expected = a.double().numpy() @ b.double().numpy()
    got = (a @ b).double().numpy()
    assert np.array_equal(np.isnan(expected), np.isnan(got))
    kept = ~np.isnan(expected)
    assert np.allclose(got[kept], expected[kept], rtol=1e-6)


def test_what_follows_a_product():
    torch.manual_seed(3)
    layer, x = torch.nn.Linear(300, 1200), torch.randn(260, 300)

    def step(x):
        return torch.relu(layer(x)) * 2, layer(x).sum()

    eager = step(x)
    compiled = torch.compile(step)
    for _ in range(2):
        found = compiled(x)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-5)
               for a, b in zip(eager, found, strict=True))
    exact = x.double() @ layer.weight.double().t() + layer.bias.double()
    assert torch.allclose(eager[0].double(), torch.relu(exact) * 2, rtol=1e-5, atol=1e-5)


def test_bits_do_not_depend_on_threads():
    torch.manual_seed(4)
    pairs = [(torch.randn(300, 700), torch.randn(700, 620)),
             (torch.randn(3, 100, 150), torch.randn(3, 150, 120))]
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3, 4):
            torch.set_num_threads(count)
            results.append([(a @ b).numpy().copy() for a, b in pairs])
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(a, b) for other in results[1:]
               for a, b in zip(results[0], other, strict=True))
