"""Which dtype results have, in everyday expressions. (All pairs: tests/core/test_dtypes.py.) These
tests also run under PyTorch (tests/conformance)."""

from __future__ import annotations

import pytest


def test_tensors_with_dimensions_decide(torch):
    i, f, d = torch.ones(2, dtype=torch.int64), torch.ones(2), torch.ones(2, dtype=torch.float64)
    half, b = torch.ones(2, dtype=torch.float16), torch.ones(2, dtype=torch.bool)
    assert (i + f).dtype is torch.float32 and (f + d).dtype is torch.float64
    assert (half + f).dtype is torch.float32 and (half + i).dtype is torch.float16
    assert (half + half.to(torch.bfloat16)).dtype is torch.float32
    assert (b + b).dtype is torch.bool and (b + i).dtype is torch.int64
    assert (torch.ones(2, dtype=torch.uint8) + torch.ones(2, dtype=torch.int8)).dtype is torch.int16


def test_tensors_without_dimensions_only_raise_the_kind(torch):
    f, zero = torch.ones(2), torch.tensor(1.0, dtype=torch.float64)
    assert (f + zero).dtype is torch.float32
    assert (torch.ones(2, dtype=torch.int32) + torch.tensor(1)).dtype is torch.int32
    assert (torch.ones(2, dtype=torch.int32) + zero).dtype is torch.float64
    assert (zero + torch.tensor(1.0)).dtype is torch.float64


def test_numbers_only_raise_the_kind(torch):
    i, half = torch.ones(2, dtype=torch.int8), torch.ones(2, dtype=torch.float16)
    assert (i + 1).dtype is torch.int8 and (i + 1.0).dtype is torch.float32
    assert (half + 1).dtype is torch.float16 and (half * 1.5).dtype is torch.float16
    assert (torch.ones(2) + 1j).dtype is torch.complex64
    assert (torch.ones(2, dtype=torch.float64) + 1j).dtype is torch.complex128
    assert (torch.ones(2, dtype=torch.bool) + 1).dtype is torch.int64
    assert (1 + i).dtype is torch.int8 and (True + i).dtype is torch.int8
    assert (2 ** torch.arange(3)).tolist() == [1, 2, 4]


def test_division(torch):
    i = torch.tensor([7, -7])
    assert (i / 2).dtype is torch.float32 and (i / 2).tolist() == [3.5, -3.5]
    assert (i // 2).dtype is torch.int64 and (i // 2).tolist() == [3, -4]
    assert torch.div(i, 2, rounding_mode="trunc").tolist() == [3, -3]
    assert (i % 4).tolist() == [3, 1] and torch.fmod(i, 4).tolist() == [3, -3]
    assert (7.0 // torch.tensor([2.0, -2.0])).tolist() == [3, -4]
    assert (i // 2.0).dtype is torch.float32
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        i // 0


def test_comparisons_and_logic_give_bool(torch):
    a, b = torch.tensor([1, 2]), torch.tensor([1.0, 3.0])
    for result in (a == b, a < b, a >= 1, a != 2.5, ~(a == 1), torch.isnan(b),
                   torch.logical_and(a, b), (a > 0) & (b > 0), (a > 0) ^ True):
        assert result.dtype is torch.bool
    assert (a == "a") is False and (a != None) is True  # noqa: E711


def test_functions_of_integers(torch):
    i = torch.arange(1, 5)
    assert torch.exp(i).dtype is torch.float32 and i.sqrt().dtype is torch.float32
    assert i.sum().dtype is torch.int64 and (i > 2).sum().dtype is torch.int64
    assert i.to(torch.int8).sum().dtype is torch.int64
    assert i.to(torch.int8).prod().dtype is torch.int64
    assert i.abs().dtype is torch.int64 and i.max().dtype is torch.int64
    assert i.cumsum(0).dtype is torch.int64 and i.to(torch.uint8).cumsum(0).dtype is torch.int64
    assert i.sum(dtype=torch.float64).dtype is torch.float64
    assert i.float().mean(dtype=torch.float64).dtype is torch.float64
    with pytest.raises(RuntimeError, match="mean"):
        i.mean()


def test_where_and_joins(torch):
    mask = torch.tensor([True, False])
    assert torch.where(mask, 1.0, torch.tensor([1, 2])).dtype is torch.float32
    assert torch.where(mask, 1, 2).dtype is torch.int64
    double = torch.ones(2, dtype=torch.float64)
    assert torch.where(mask, torch.ones(2), double).dtype is torch.float64
    assert torch.cat([torch.ones(1), torch.ones(1, dtype=torch.int64)]).dtype is torch.float32
    assert torch.stack([torch.tensor(1), torch.tensor(2.5)]).tolist() == [1, 2.5]


def test_products_do_not_promote(torch):
    a, b = torch.ones(2, 2), torch.ones(2, 2, dtype=torch.float64)
    for product in (torch.mm, torch.matmul, lambda x, y: x @ y):
        with pytest.raises(RuntimeError, match=r"dtype|type"):
            product(a, b)
    assert (torch.ones(2, 2, dtype=torch.int64) @ torch.ones(2, 2, dtype=torch.int64)).dtype is (
        torch.int64)


def test_conversions(torch):
    x = torch.tensor([1.7, -1.7, 0.0])
    assert x.int().tolist() == [1, -1, 0] and x.bool().tolist() == [True, True, False]
    assert x.long().dtype is torch.int64 and x.half().dtype is torch.float16
    assert x.double().dtype is torch.float64 and x.bfloat16().dtype is torch.bfloat16
    assert x.short().dtype is torch.int16 and x.char().dtype is torch.int8
    assert x.abs().byte().dtype is torch.uint8 and x.to(torch.complex64).dtype is torch.complex64
    assert x.type(torch.float64).dtype is torch.float64 and x.type() == "torch.FloatTensor"
    assert x.type_as(torch.tensor(1)).dtype is torch.int64
    assert torch.tensor([300, -1]).to(torch.uint8).tolist() == [44, 255]
    assert torch.tensor([1 + 2j]).real.dtype is torch.float32
    assert x.to(torch.float64, copy=True).dtype is torch.float64


def test_bfloat16_rounds_to_even(torch):
    x = torch.tensor([1.0 + 2.0 ** -8, 1.0 + 3 * 2.0 ** -8, 3.4e38])
    assert x.to(torch.bfloat16).tolist() == [1.0, 1.015625, float("inf")]
    assert (torch.tensor([256.0]).bfloat16() + 1).tolist() == [256.0]
