"""What is refused before it computes, or accepted as PyTorch accepts it."""

from __future__ import annotations

import math

import pytest

import flambeau as torch

F = torch.nn.functional


# ---------------------------------------------------------------------- one dtype
def one() -> torch.Tensor:
    return torch.zeros(1, dtype=torch.int64)


MIXED = {
    "scatter": lambda x, y: x.scatter(0, one(), y[:1]),
    "scatter_add": lambda x, y: x.scatter_add(0, one(), y[:1]),
    "index_add": lambda x, y: x.index_add(0, one(), y[:1]),
    "index_copy": lambda x, y: x.index_copy(0, one(), y[:1]),
    "index_reduce": lambda x, y: x.index_reduce(0, one(), y[:1], "prod"),
    "put": lambda x, y: x.put(one(), y[:1]),
    "cross": lambda x, y: torch.linalg.cross(x, y),
    "addmv": lambda x, y: torch.addmv(x, torch.ones(3, 3), y),
    "conv1d": lambda x, y: F.conv1d(x.reshape(1, 1, 3), y.reshape(1, 1, 3)),
    "layer_norm": lambda x, y: F.layer_norm(x, (3,), y),
    "group_norm": lambda x, y: F.group_norm(x.reshape(1, 3), 1, y, y),
    "bilinear": lambda x, y: F.bilinear(x, x, y.reshape(3, 1, 1).expand(3, 3, 3)),
    "isclose": torch.isclose,
}


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16])
def test_16_bit_floats_do_not_pass_for_float32(name, low):
    with pytest.raises(RuntimeError):
        MIXED[name](torch.ones(3), torch.ones(3, dtype=low))


def test_norms_of_16_bit_floats_take_float32_weights():
    x = torch.tensor([1.0, 3.0], dtype=torch.bfloat16)
    assert F.layer_norm(x, (2,), torch.tensor([2.0, 2.0])).tolist() == [-2.0, 2.0]


def test_rms_norm_gives_the_dtype_of_its_input():
    x = torch.ones(2, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.tensor([1, 2], dtype=torch.float64, requires_grad=True)
    y = F.rms_norm(x, (2,), weight)
    y.sum().backward()
    assert y.dtype is torch.bfloat16 and weight.grad.dtype is torch.float64


# ---------------------------------------------------------------------- promotion
def test_distances_of_integers_wrap_around_as_differences_do():
    a, b = torch.tensor([[1, 5]], dtype=torch.uint8), torch.tensor([[3, 5]], dtype=torch.uint8)
    assert F.pairwise_distance(a, b).item() == pytest.approx(254)
    assert F.triplet_margin_loss(a, b, a).item() == pytest.approx(255, abs=1e-3)
    with pytest.raises(RuntimeError, match="bool tensor"):
        F.pairwise_distance(a > 3, a)


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("loss", [F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss])
def test_losses_broadcast_before_they_promote(loss):
    found = loss(torch.tensor(0.0), torch.ones(3, dtype=torch.float16), reduction="none")
    assert found.dtype is torch.float32


# ---------------------------------------------------------------------- numbers
@pytest.mark.parametrize("number", [math.inf, math.nan, 1e30])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_numbers_that_integers_do_not_hold(number, dtype):
    x = torch.ones(4, dtype=dtype)
    for fails in (lambda: x.fill_(number), lambda: x.masked_fill(x > 0, number),
                  lambda: torch.full((2,), number, dtype=dtype),
                  lambda: torch.full_like(x, number)):
        with pytest.raises(RuntimeError, match="without overflow"):
            fails()


def test_numbers_that_wrap_around():
    x = torch.ones(2, dtype=torch.uint8)
    assert x.fill_(-1).tolist() == [255, 255]
    assert x.masked_fill(x > 0, 1.9).tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="uint8_t without overflow"):
        x.fill_(256)


def test_one_value_may_be_written_to_shared_elements():
    x = torch.ones(3)
    x.expand(2, 3).zero_()
    assert x.tolist() == [0, 0, 0]
    x.expand(2, 3).fill_(4)
    assert x.tolist() == [4, 4, 4]
    with pytest.raises(RuntimeError, match="single memory location"):
        x.expand(2, 3).neg_()


# ---------------------------------------------------------------------- gradients
@pytest.mark.parametrize("function", [lambda x: x // 2, lambda x: torch.heaviside(x, x)])
def test_functions_without_a_derivative_say_so(function):
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = function(x)
    assert y.requires_grad
    with pytest.raises(RuntimeError, match=r"derivative for aten::.* is not implemented"):
        y.sum().backward()


def test_comparisons_write_to_out_whoever_requires_grad():
    x = torch.ones(2, requires_grad=True)
    assert torch.ge(x, 1, out=torch.empty(2)).tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="automatic differentiation"):
        torch.add(x, 1, out=torch.empty(2))


def gradient(view) -> list[float]:
    x = torch.arange(1.0, 11.0, requires_grad=True)
    (view(x) ** 2).sum().backward()
    return x.grad.tolist()


def test_as_strided_of_tensors_with_gaps():
    every_other = gradient(lambda x: x[1::2].as_strided((2, 2), (3, 1), 1))
    assert every_other == [0, 4, 0, 0, 0, 12, 0, 0, 0, 0]
    before = gradient(lambda x: x[4:].as_strided((4,), (2,), 0))
    assert before == [0, 0, 0, 0, 10, 0, 14, 0, 0, 0]
    turned = gradient(lambda x: x[:6].reshape(2, 3).t().as_strided((3,), (2,)))
    assert turned == [2, 0, 6, 0, 10, 0, 0, 0, 0, 0]
    repeated = gradient(lambda x: x[:2].expand(3, 2).as_strided((2,), (1,)))
    assert repeated == [2, 4, 0, 0, 0, 0, 0, 0, 0, 0]


# ---------------------------------------------------------------------- forms
def test_one_piece_is_a_tuple_of_one():
    x = torch.arange(3)
    for pieces in (torch.split_copy(x, 3), torch.split_with_sizes_copy(x, [3]),
                   torch.unbind_copy(x.reshape(1, 3))):
        assert isinstance(pieces, tuple) and pieces[0].tolist() == [0, 1, 2]


def test_indices_of_other_dtypes():
    with pytest.raises(IndexError, match="long, int, byte or bool"):
        torch.ones(3)[torch.tensor([1], dtype=torch.int8)]


def test_conversions_take_no_positional_argument():
    with pytest.raises(TypeError):
        torch.ones(2).float(5)
    for method in ("reshape_as", "type_as"):
        with pytest.raises(TypeError, match=f"{method}.*'other'"):
            getattr(torch.ones(2), method)(2)


# ---------------------------------------------------------------------- other libraries
def test_tensors_of_another_library_say_how_to_come_in():
    kind = type("Tensor", (), {"__module__": "torch", "__dlpack__": lambda self: None})
    for fails in (lambda: torch.ones(2) + kind(), lambda: kind() * torch.ones(2),
                  lambda: torch.add(torch.ones(2), kind()), lambda: torch.ones(2).copy_(kind()),
                  lambda: torch.cat([torch.ones(2), kind()])):
        with pytest.raises(TypeError, match="from_dlpack"):
            fails()


def test_views_beside_a_leaf_that_is_a_view():
    x = torch.linspace(-1, 2, 28).reshape(7, 4).requires_grad_()
    for write in (lambda: x.__setitem__(0, 5), lambda: x[0].mul_(2), lambda: x.view(28).add_(1)):
        with pytest.raises(RuntimeError, match="a view of a leaf Variable that requires grad"):
            write()
    assert x.is_leaf
    base = torch.zeros(2, 2)
    base[0].requires_grad_()
    base[1].mul_(2)  # beside it, and it requires no grad


def test_one_value_is_selected_from_a_number():
    scalar = torch.tensor(1.0)
    assert scalar.index_select(0, torch.tensor([0])) == 1
    with pytest.raises(RuntimeError, match="only 1 value, got 2"):
        scalar.index_select(0, torch.tensor([0, 0]))


@pytest.mark.parametrize("multiply", [torch.inner, lambda a, b: torch.tensordot(a, b, 1)])
def test_products_want_one_dtype(multiply):
    with pytest.raises(RuntimeError, match="same dtype"):
        multiply(torch.ones(3, dtype=torch.bfloat16), torch.ones(3))
    assert torch.inner(torch.ones(()), torch.ones(3, dtype=torch.float64)).dtype is torch.float64


# ---------------------------------------------------------------------- Python's own complaints
SAID = {
    "combinations": (lambda x: torch.combinations(x, "a"), "'r' .* must be int, not str"),
    "cartesian_prod": (lambda x: torch.cartesian_prod("a", x), "expected Tensor as element 0"),
    "hsplit": (lambda x: torch.hsplit(x, "a"), "'sections' .* int or tuple of ints, not str"),
    "as_strided": (lambda x: torch.as_strided("a", (1,), (1,)), "'input' .* must be Tensor"),
    "as_strided size": (lambda x: torch.as_strided(x, (1.5,), (1,)), "element of type float"),
    "atleast_3d": (lambda x: torch.atleast_3d([1.5]), "expected Tensor as element 0"),
    "logspace": (lambda x: torch.logspace(0, 1, 2.5), "'steps' .* must be int, not float"),
    "all": (lambda x: torch.all(x, dim=2.5), "'dim' .* must be int | tuple of ints"),
    "any": (lambda x: torch.any(x, dim=0, keepdim="yes"), "'keepdim' .* must be bool"),
}


@pytest.mark.parametrize("name", SAID)
def test_wrong_types_are_told_in_the_callers_terms(name):
    call, message = SAID[name]
    with pytest.raises(TypeError, match=message):
        call(torch.ones(3))


def test_what_the_messages_name():
    x = torch.ones(3)
    with pytest.raises(RuntimeError, match="same dtype, but found Float and Half"):
        torch.dot(x, x.half())
    with pytest.raises(RuntimeError, match="same dtype, but found BFloat16 and Half"):
        torch.vdot(x.bfloat16(), x.half())
    with pytest.raises(RuntimeError, match="only supports 0-dimensional start and end"):
        torch.linspace(x, x, 3)
    with pytest.raises(RuntimeError, match="non-batch dimension 1 has length zero"):
        F.max_pool3d(torch.ones(2, 1, 0, 1, 2), 1)
    with pytest.raises(RuntimeError, match="categories cannot exceed 2"):
        torch.multinomial(torch.ones(1).expand(2 ** 24 + 1), 1, True)
    with pytest.raises(RuntimeError, match="Optional dtype must be"):
        x.long().mean(dtype=torch.int64)


def test_no_dimension_means_all():
    x = torch.arange(6.0).reshape(2, 3)
    assert torch.amax(x, dim=None).item() == 5 and torch.amin(x, None).item() == 0
    assert torch.fft.fftn(x, s=2, dim=-1).shape == (2, 2)
    assert torch.fft.ihfftn(x, dim=-1).shape == (2, 2)


def test_names_with_an_underscore():
    x, g = torch.tensor([[1.0, 2.0, 4.0]], requires_grad=True), torch.tensor([[1.0, 0.0, 2.0]])
    for name in ("softmax", "log_softmax"):
        y = getattr(torch, name)(x, 1)
        (expected,) = torch.autograd.grad(y, x, g)
        made = getattr(torch, f"_{name}_backward_data")(g, y.detach(), 1, x.dtype)
        torch.testing.assert_close(made, expected)
        assert torch.equal(getattr(torch, f"_{name}")(x, 1, False), y)
    assert torch._shape_as_tensor(x).tolist() == [1, 3]
    with pytest.raises(AssertionError, match="too small"):
        torch._assert(x.sum() > 100, "too small")
