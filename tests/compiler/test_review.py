"""Cases that the compiler once got wrong, each with the reason in its name."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading

import numpy as np
import pytest

import flambeau as torch
from flambeau.compiler.expression import Expr
from flambeau.compiler.target import LEVELS, host, limited
from flambeau.core import dtypes
from flambeau.nn import functional as F


def replayed(function, *args):
    """The result of a replay of the compiled function, on copies of the tensors."""
    compiled = torch.compile(function, fullgraph=True)
    compiled(*(a.clone() for a in args))
    return compiled(*(a.clone() for a in args))


# --------------------------------------------------------------------------- scatters
@pytest.mark.parametrize("count", [10, 40, 40000])
def test_expanded_indices_of_a_scatter_meet_at_one_place(count: int):
    index, ones = torch.tensor([1]).expand(count), torch.ones(count)
    assert torch.zeros(3).index_add(0, index, ones).tolist() == [0, count, 0]
    assert torch.zeros(3).scatter_add(0, index, ones).tolist() == [0, count, 0]
    assert torch.zeros(3).index_put((index,), ones, accumulate=True).tolist() == [0, count, 0]


def test_the_last_of_several_writes_through_expanded_indices_stays():
    source = torch.arange(5000.0)
    found = torch.zeros(3).scatter(0, torch.tensor([1]).expand(5000), source)
    assert found.tolist() == [0, 4999, 0]


def test_rows_of_a_scatter_with_expanded_indices():
    index = torch.tensor([[2], [0]]).expand(2, 20)
    source = torch.arange(40.0).reshape(2, 20)
    expected = np.zeros((3, 20), np.float32)
    expected[[2, 0]] = source.numpy()
    assert np.array_equal(torch.zeros(3, 20).scatter_add(0, index, source).numpy(), expected)


# --------------------------------------------------------------------------- indices
def test_an_index_into_an_expanded_dimension_is_checked():
    with pytest.raises(IndexError):
        torch.zeros(1).expand(5)[torch.tensor([7])]


def test_an_index_into_nothing_touches_no_memory():
    whole = torch.arange(16.0)
    nothing = whole[16:]  # its address is one past the end
    with pytest.raises(IndexError):
        nothing.index_add_(0, torch.tensor([0]), torch.ones(1))
    with pytest.raises(IndexError):
        nothing[torch.tensor([0])]
    with pytest.raises(IndexError):
        torch.zeros(0, 100).index_add_(0, torch.tensor([0]), torch.ones(1, 100))
    assert whole.tolist() == list(range(16))


# --------------------------------------------------------------------------- padding
def test_division_beside_padding_does_not_divide_by_what_is_not_there():
    a, b = torch.arange(40), torch.full((40,), 3)
    found = replayed(lambda a, b: F.pad(torch.div(a, b, rounding_mode="floor"), (1, 1)), a, b)
    assert found.tolist() == [0, *(n // 3 for n in range(40)), 0]
    with pytest.raises(RuntimeError, match="division"):
        replayed(lambda a, b: F.pad(torch.div(a, b, rounding_mode="floor"), (1, 1)), a, b * 0)


def test_indices_beside_padding_are_not_read_outside():
    x, index = torch.arange(12.0).reshape(3, 4), torch.tensor([2, 0])

    def call(x, index):
        return F.pad(x.index_select(0, index), (0, 0, 1, 1))

    assert torch.equal(replayed(call, x, index), call(x, index))


def test_the_median_of_no_integers():
    found = [torch.zeros(0, dtype=getattr(torch, name)).median().item()
             for name in ("uint8", "int16", "int32", "int64")]
    assert found == [0, 0, -2**31, -2**63]


# --------------------------------------------------------------------------- constants
def test_constants_of_different_sign_of_zero_stay_apart():
    positive, negative = (Expr("const", dtypes.float32, (), v) for v in (0.0, -0.0))
    assert positive is not negative
    x = torch.tensor([1.0, -1.0])
    found = replayed(lambda x: torch.where(x > 0, torch.full_like(x, 0.0),
                                           torch.full_like(x, -0.0)), x)
    assert (1 / found).tolist() == [float("inf"), float("-inf")]


def test_tensors_made_from_python_data_in_a_compiled_function_are_constants():
    def call(x):
        total, weights = torch.tensor(0.5), torch.tensor([1.0, 2.0, 3.0, 4.0])
        total += x.sum()
        weights *= x
        return total, weights, x[torch.tensor([2, 0, 1, 3, 1])]

    x = torch.arange(4.0)
    compiled = torch.compile(call, fullgraph=True)
    for _ in range(4):  # the writes must not reach the constants
        total, weights, picked = compiled(x)
        assert total.item() == 6.5
        assert weights.tolist() == [0, 2, 6, 12]
        assert picked.tolist() == [2, 0, 1, 3, 1]


# --------------------------------------------------------------------------- large expressions
def test_equal_expressions_that_share_their_parts_are_compared_at_once():
    def squares(y):
        for _ in range(60):
            y = y * y
        return y

    x = torch.ones(10)
    assert replayed(lambda x: squares(x) - squares(x), x).tolist() == [0] * 10


def test_long_chains_are_cut():
    def chain(y):
        for _ in range(400):
            y = y * 1.5 - 0.25
        return y

    assert torch.equal(replayed(chain, torch.full((10,), 0.5)), torch.full((10,), 0.5))


def test_expressions_that_double_with_every_shift_are_cut():
    def prefix_sum(y):
        for k in range(16):
            y = y + F.pad(y[:-(1 << k)], (1 << k, 0))
        return y

    x = torch.ones(1 << 16)
    assert torch.equal(replayed(prefix_sum, x), torch.arange(1.0, x.numel() + 1))


# --------------------------------------------------------------------------- overwriting
@pytest.mark.parametrize("n", [4, 16, 64])
def test_overwriting_waits_for_sums_over_other_rows(n: int):
    def call(x, w, v):
        sums = (x * w).sum(0)
        x.mul_(v)
        return sums

    start, w, v = torch.randn(n, n, 8), torch.randn(8), torch.randn(n, 1, 1)
    compiled = torch.compile(call, fullgraph=True)
    for _ in range(3):
        x = start.clone()
        sums = compiled(x, w, v)
        assert np.allclose(sums.numpy(), (start * w).sum(0).numpy(), atol=1e-4)
        assert torch.equal(x, start * v)


# --------------------------------------------------------------------------- narrower machines
FEATURES = dict.fromkeys(LEVELS["x86-64-v4"].split(), True)


def test_levels_of_a_machine():
    widths = {level: limited("x86_64-unknown-linux-gnu", FEATURES, level).vector_bits
              for level in LEVELS}
    assert widths == {"x86-64": 128, "x86-64-v2": 128, "x86-64-v3": 256, "x86-64-v4": 512}
    with pytest.raises(ValueError, match="lacks avx512bw"):
        limited("x86_64-unknown-linux-gnu", FEATURES | {"avx512bw": False}, "x86-64-v4")
    with pytest.raises(ValueError, match="it may be one of"):
        limited("x86_64-unknown-linux-gnu", FEATURES, "pentium")
    with pytest.raises(ValueError, match="aarch64"):
        limited("aarch64-unknown-linux-gnu", {}, "x86-64")


PROGRAM = """
import numpy as np
import flambeau as torch
from flambeau.compiler.target import host

rng = np.random.default_rng(0)
results = [np.array(host().vector_bits)]
for name in ("float32", "float64", "float16", "int8", "uint8", "int16", "int32", "int64"):
    x = torch.from_numpy(rng.integers(-9, 9, (7, 37)).astype(name))
    odd = torch.from_numpy(rng.integers(1, 9, (7, 37)).astype(name))
    results += [y.numpy() for y in (
        x * 3 + odd, x[:, ::2].sum(1), x.amax(0), x.argmin(1), (x > 2).sum(), x.cumsum(0),
        torch.where(x > 0, x, odd), x.flip(1).to(torch.int8), x.sort(1).values,
        torch.div(x, odd, rounding_mode="floor"), x.to(torch.float32) @ odd.t().to(torch.float32),
        x.clone().index_add_(1, torch.tensor([3, 3, 36]), odd[:, :3]))]
x = torch.from_numpy(rng.standard_normal((9, 45)).astype(np.float32))
results += [y.numpy() for y in (x.softmax(1), torch.tanh(x), x.to(torch.bfloat16).float(),
                                torch.nn.functional.conv2d(x[None, None], x[:3, :3][None, None]))]
np.savez(__import__("sys").argv[1], *results)
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="levels of x86-64")
@pytest.mark.parametrize("level", ["x86-64", "x86-64-v3"])
def test_kernels_for_narrower_machines(level: str, tmp_path):
    if level == "x86-64-v3" and not host().has("avx2"):
        pytest.skip("the machine has no AVX2")
    found = []
    for number, setting in enumerate(("", level)):
        path = str(tmp_path / f"{number}.npz")
        subprocess.run([sys.executable, "-c", PROGRAM, path], check=True, timeout=300,
                       env=os.environ | {"FLAMBEAU_TARGET": setting})
        with np.load(path) as file:
            found.append([file[name] for name in file.files])
    assert found[1][0] == {"x86-64": 128, "x86-64-v3": 256}[level]
    for wide, narrow in zip(found[0][1:], found[1][1:], strict=True):
        assert wide.dtype == narrow.dtype
        if wide.dtype.kind == "f":
            assert np.allclose(wide, narrow, rtol=1e-3 if wide.itemsize == 2 else 1e-5, atol=1e-5)
        else:
            assert np.array_equal(wide, narrow)


# --------------------------------------------------------------------------- several threads
def run_in_threads(count: int, work) -> None:
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_compiled_programs_draw_from_a_generator_one_at_a_time():
    zeros, draws = torch.zeros(50000), []
    compiled = torch.compile(lambda x: x + torch.rand(50000), fullgraph=True)
    compiled(zeros)
    torch.manual_seed(0)
    run_in_threads(4, lambda _: draws.extend([compiled(zeros) for _ in range(20)]))
    torch.manual_seed(0)
    together = torch.rand(50000 * 80)
    assert torch.equal(torch.cat(draws).sort().values, together.sort().values)


def test_a_capture_takes_no_notice_of_other_threads():
    other, x = torch.zeros(5), torch.ones(5)

    def call(x):
        y = x * 2

        def elsewhere(_):
            other.add_(1)
            assert other.sum().item() > 0

        run_in_threads(1, elsewhere)
        return y + 1

    compiled = torch.compile(call, fullgraph=True)
    assert compiled(x).tolist() == compiled(x).tolist() == [3] * 5
    assert other.tolist() == [1] * 5


def test_operations_in_several_threads_give_what_they_give_in_one():
    x, weight = torch.randn(64, 90), torch.randn(90, 50)

    def results(i: int) -> list:
        part = weight[:, :i + 1].clone().requires_grad_()
        (x @ part).pow(2).mean().backward()
        return [(x[:i + 2] * 2 + 1).sum(1), x[:, :i + 3] @ weight[:i + 3], part.grad,
                x[:, ::i + 1].softmax(1), torch.tanh(x[:i + 1]).cumsum(0), x[:i + 5].sort(1).values]

    found: list = []
    run_in_threads(4, lambda n: found.extend([(i % 6, results(i % 6)) for i in range(n, n + 12)]))
    expected = [results(i) for i in range(6)]
    for i, mine in found:
        assert all(torch.equal(a, b) for a, b in zip(mine, expected[i], strict=True))
