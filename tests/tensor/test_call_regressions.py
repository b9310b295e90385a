"""Calls of single functions that once differed from PyTorch (found by tests/conformance/
fuzz_calls.py), one test for each kind of cause."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest

INF = math.inf


# --------------------------------------------------------------------------- writing in place
@pytest.mark.parametrize("name, others", [
    ("div_", 1), ("mul_", 1), ("atan2_", 1), ("pow_", 1), ("hypot_", 1), ("addcdiv_", 2),
    ("addcmul_", 2), ("sub_", 1)])
def test_gradient_through_a_result_stored_narrower(torch, name, others):
    """A float32 tensor takes a float64 result: gradients of both orders reach everybody."""
    x = torch.tensor([1.5, 2.0, 0.5, 3.0], requires_grad=True)
    rest = [torch.tensor([0.5, 2.0, 1.5, 0.25], dtype=torch.float64, requires_grad=True)
            for _ in range(others)]
    y = getattr(x.clone(), name)(*rest)
    assert y.dtype is torch.float32
    found = torch.autograd.grad(y.sum(), [x, *rest], create_graph=True)
    wide = [t.detach().double().requires_grad_() for t in (x, *rest)]
    z = getattr(torch, name[:-1])(*wide)
    wanted = torch.autograd.grad(z.sum(), wide, create_graph=True)
    for one, other, leaf in zip(found, wanted, (x, *rest), strict=True):
        assert one.dtype is leaf.dtype
        assert torch.allclose(one.double(), other, rtol=1e-6)
    some = [g.double().sum() for g in found if g.requires_grad]
    if some:
        torch.autograd.grad(sum(some), [x, *rest], allow_unused=True)


@pytest.mark.parametrize("name", ["lt_", "eq_"])
def test_a_truth_written_into_floats_has_no_slope(torch, name):
    x = torch.ones(3, requires_grad=True)
    y = x.clone()
    getattr(y, name)(torch.tensor([1.0, 2.0, 0.0]))
    y.sum().backward()
    assert x.grad.tolist() == [0, 0, 0]


def test_in_place_forms_that_want_one_dtype(torch):
    with pytest.raises(RuntimeError, match="abs_"):
        torch.tensor([1j]).abs_()
    with pytest.raises(RuntimeError, match="Double"):
        torch.tensor([1.0]).float_power_(2)


def test_layout_changes_take_tangents_along(torch):
    ad = torch.autograd.forward_ad
    with ad.dual_level():
        x = ad.make_dual(torch.arange(6.0).reshape(2, 3), torch.arange(6.0).reshape(2, 3) + 1)
        y = x.clone()
        y.transpose_(0, 1).unsqueeze_(0)
        assert (y * 2)._tangents is not None
        tangent = ad.unpack_dual(y * 2).tangent
        assert tangent.tolist() == [[[2, 8], [4, 10], [6, 12]]]
        assert ad.unpack_dual(x.clone().detach_()).tangent is None
        assert ad.unpack_dual(torch.detach(x)).tangent is None


def test_copy_takes_numbers(torch):
    assert torch.zeros(2, dtype=torch.int64).copy_(2.7).tolist() == [2, 2]
    with pytest.raises(TypeError, match="must be Tensor"):
        torch.zeros(2).copy_("a")


# --------------------------------------------------------------------------- values
def test_lerp_begins_at_the_nearer_end(torch):
    far = torch.lerp(torch.tensor([1e8, -INF]), torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]))
    assert far.tolist() == [1, INF]
    x, y, w = (torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(torch.lerp, (x, y * 3, w))


@pytest.mark.parametrize("x, y, wanted", [
    (1000 + 1j, 999 + 2j, 1000.21357 + 1.25266j), (complex(INF, 1), 1j, complex(INF, 1)),
    (2 + 3.1j, 1.9 + 3.5j, 2 + 3.1j + cmath.log(1 + cmath.exp(-0.1 + 0.4j))),
    (complex(-INF, 0), 2j, 2j)])
def test_complex_logaddexp(torch, x, y, wanted):
    """No overflow, and the imaginary part of the larger is not brought into (-pi, pi]."""
    found = torch.logaddexp(torch.tensor([x]), torch.tensor([y])).item()
    assert cmath.isclose(found, wanted, rel_tol=1e-5) or found == wanted


def test_index_fill_counts_from_both_ends(torch):
    assert torch.index_fill(torch.zeros(4), 0, torch.tensor([-1, -4]), 2).tolist() == [2, 0, 0, 2]
    with pytest.raises(IndexError, match="index -5 is out of bounds"):
        torch.index_fill(torch.zeros(4), 0, torch.tensor([-5]), 2)


def test_promotion_of_ldexp_and_addcdiv(torch):
    assert torch.ldexp(torch.ones(2, dtype=torch.bfloat16), torch.ones(2)).dtype is torch.float32
    whole = torch.ones(2, dtype=torch.uint8)
    assert torch.addcdiv(whole, torch.ones(2), torch.ones(2)).dtype is torch.float32


@pytest.mark.parametrize("call", [
    "torch.outer(x, y)", "torch.trapezoid(x, y)", "torch.cumulative_trapezoid(x, y)",
    "torch.index_fill(x, 0, torch.tensor([0]), y[0])", "torch.nn.functional.rms_norm(x, (3,), y)"])
def test_results_beside_few_bits_keep_theirs(torch, call):
    """float32 first, 16 bits after it: the result is not rounded to 16 bits."""
    x, y = torch.ones(3), torch.ones(3, dtype=torch.float16)
    assert eval(call, {"torch": torch, "x": x, "y": y}).dtype is torch.float32


def test_numbers_leave_few_bits_alone(torch):
    for dtype in (torch.float16, torch.bfloat16):
        x = torch.ones(2, dtype=dtype)
        for found in (2 * x, 2.5 / x, x + 1, torch.pow(2.0, x), True * x):
            assert found.dtype is dtype


def test_numpy_numbers_say_the_dtype_of_full(torch):
    assert torch.full((2,), np.int64(2)).dtype is torch.int64
    assert torch.full((2,), np.float32(2)).dtype is torch.float32


def test_kron_treats_no_dimensions_as_others(torch):
    x, one = torch.ones(3, dtype=torch.int32), torch.tensor(1)
    assert torch.kron(x, one).dtype is torch.int64


def test_roll_wants_as_many_dims_as_shifts(torch):
    with pytest.raises(RuntimeError, match="must align"):
        torch.roll(torch.arange(4), (1, 2))


def test_float16_refuses_what_it_does_not_hold(torch):
    x = torch.ones(2, dtype=torch.float16)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="without overflow"):
            x.masked_fill(torch.tensor([True, False]), -1e9)
        with pytest.raises(RuntimeError, match="without overflow"):
            x.clone().fill_(65520)
    assert x.masked_fill(torch.tensor([True, False]), -INF).tolist() == [-INF, 1]
    x[0] = 1e9
    assert x.tolist() == [INF, 1]


# --------------------------------------------------------------------------- tensors without dims
def test_dimensions_of_a_tensor_without_any(torch):
    x = torch.tensor(1.0)
    for wrong in (lambda: torch.max(x, 1), lambda: torch.flatten(x, 3)):
        with pytest.raises(IndexError, match="Dimension out of range"):
            wrong()
    with pytest.raises(RuntimeError, match="k out of range"):
        torch.topk(x, 2)
    with pytest.raises(ValueError, match="only one element"):
        complex(torch.ones(2))


def test_unique_slices_without_elements(torch):
    distinct, places = torch.unique(torch.ones(0, 3, 1), return_inverse=True, dim=0)
    assert distinct.shape == (0, 3, 1) and places.shape == (0,)
    assert torch.unique(torch.ones(0), dim=-1).shape == (0,)
    with pytest.raises(RuntimeError, match="0 sized dimensions"):
        torch.unique(torch.ones(3, 0), dim=0)


# --------------------------------------------------------------------------- gradients that lack
@pytest.mark.parametrize("call", [
    "torch.unique(x)", "torch.unique(x, dim=0)", "torch.unique_consecutive(x)",
    "torch.bincount(torch.tensor([0, 1, 1]), weights=x)", "torch.histogram(x, 3)[0]"])
def test_absent_derivatives_raise(torch, call):
    x = torch.tensor([1.0, 2.0, 2.0], requires_grad=True)
    result = eval(call, {"torch": torch, "x": x})
    assert result.requires_grad
    with pytest.raises(NotImplementedError, match="derivative"):
        result.sum().backward()
    with torch.no_grad():
        assert not eval(call, {"torch": torch, "x": x}).requires_grad


# --------------------------------------------------------------------------- arguments
@pytest.mark.parametrize("call, words", [
    ("torch.eye(x)", "'n' .* must be int, not Tensor"),
    ("torch.gradient(0.5)", "'input' .* must be Tensor, not float"),
    ("torch.combinations(x, 2, 3)", "'with_replacement' .* must be bool, not int"),
    ("torch.allclose(x, x, x)", "'rtol' .* must be float, not Tensor"),
    ("torch.atleast_3d(x, 1j)", "expected Tensor as element 1"),
    ("torch.hann_window(-1, 2)", "'periodic' .* must be bool, not int"),
    ("x.is_same_size(3)", "'other' .* must be Tensor, not int"),
    ("x.contiguous(1)", "positional")])
def test_types_are_what_is_wrong_first(torch, call, words):
    with pytest.raises(TypeError, match=words):
        eval(call, {"torch": torch, "x": torch.ones(2, 3)})


def test_what_stays_the_same_object(torch):
    x = torch.ones(3)
    same, other = torch.broadcast_tensors(x, torch.ones(1))
    assert same is x and other.shape == (3,)
    assert torch.zeros(4)[::2].ravel().is_contiguous()
