"""Fills that are made again take a short way: what they draw, refuse and note must not change."""

from __future__ import annotations

import pickle

import pytest


def thrice(torch, make, seed=5):
    """What `make` draws in a row: the first call goes the long way, the others the short one."""
    torch.manual_seed(seed)
    return [make() for _ in range(3)]


@pytest.mark.parametrize("shape", [(3,), (2, 5), ()])
def test_factories_continue_the_stream(torch, shape):
    torch.manual_seed(5)
    whole = torch.rand(30)
    count = torch.zeros(shape).numel()
    parts = thrice(torch, lambda: torch.rand(*shape) if shape else torch.rand(()))
    assert torch.equal(torch.cat([p.reshape(-1) for p in parts]), whole[:3 * count])
    assert all(tuple(p.shape) == shape and not p.requires_grad for p in parts)


def test_the_forms_of_one_call_agree(torch):
    for make in (lambda: torch.rand(2, 3), lambda: torch.rand((2, 3)), lambda: torch.rand([2, 3]),
                 lambda: torch.rand(size=(2, 3)), lambda: torch.rand_like(torch.zeros(2, 3)),
                 lambda: torch.zeros(2, 3).uniform_(),
                 lambda: torch.rand(2, 3, dtype=torch.float32, device="cpu")):
        first, second, third = thrice(torch, make)
        torch.manual_seed(5)
        assert torch.equal(torch.cat([first, second, third]), torch.rand(9, 2).reshape(6, 3))


def test_equal_keys_of_other_types_are_still_refused(torch):
    torch.rand(4), torch.randperm(4), torch.randint(0, 4, (2,))
    for wrong in (lambda: torch.rand(4.0), lambda: torch.randperm(4.0),
                  lambda: torch.randint(0, 4.0, (2,)), lambda: torch.rand("4")):
        with pytest.raises(TypeError):
            wrong()


def test_the_default_dtype_is_looked_up_anew(torch):
    assert torch.rand(4).dtype is torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.rand(4).dtype is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.rand(4).dtype is torch.float32


def test_generators_are_apart(torch):
    own = torch.Generator().manual_seed(3)
    for _ in range(2):
        torch.rand(4)
        first = torch.rand(4, generator=own)
        own.manual_seed(3)
    assert torch.equal(first, torch.rand(4, generator=own))
    with pytest.raises(TypeError, match="Generator"):
        torch.rand(4, generator=3)


def test_writing_in_place_is_noted_and_refused(torch):
    x = torch.zeros(4)
    for _ in range(3):
        before = x._version
        x.normal_()
        assert x._version == before + 1
    leaf = torch.zeros(4, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        leaf.normal_()
    with torch.no_grad():
        leaf.normal_()
    y = torch.ones(4, requires_grad=True) * 2
    z = y * y
    y.detach().normal_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_a_written_leaf_may_be_filled_again(torch):
    """A recorded result that is overwritten has no history any more."""
    y = torch.ones(4, requires_grad=True) * 2
    for _ in range(2):
        y.normal_()
    assert y.requires_grad


def test_elements_are_drawn_in_the_order_of_memory(torch):
    for view in (lambda x: x.t(), lambda x: x[:, ::2], lambda x: x.t()[1:]):
        torch.manual_seed(1)
        x = torch.zeros(4, 6)
        view(x).uniform_()
        drawn = x.reshape(-1)[x.reshape(-1) != 0]
        torch.manual_seed(1)
        assert torch.equal(drawn, torch.rand(len(drawn)))


def test_probabilities_are_checked_each_time(torch):
    p = torch.tensor([0.0, 1.0, 0.5])
    for _ in range(2):
        assert torch.bernoulli(p)[:2].tolist() == [0.0, 1.0]
    for wrong in (1.5, -0.1, float("nan")):
        with pytest.raises(RuntimeError, match="p_in >= 0 && p_in <= 1"):
            torch.bernoulli(torch.tensor([0.5, wrong, 0.5]))


def test_random_with_one_bound_none_or_both(torch):
    x = torch.zeros(1000, dtype=torch.int64)
    assert x.random_(5).max() == 4 and x.random_(5).min() == 0
    assert x.random_(-3, 2).min() == -3
    assert x.random_(-2**63, None).min() < 0
    assert x.random_().min() >= 0
    assert x.random_(**{"from": 2, "to": 4}).unique().tolist() == [2, 3]


# -- layouts and limits, as PyTorch has them ------------------------------------------------------

@pytest.mark.parametrize("p", [None, 0.4])
def test_bernoulli_draws_in_the_order_of_its_result(torch, p):
    chances = torch.rand(5, 3).t()
    for given in (chances, chances.reshape(1, 3, 5, 1).to(memory_format=torch.channels_last)):
        torch.manual_seed(3)
        found = torch.bernoulli(given) if p is None else torch.bernoulli(given, p)
        torch.manual_seed(3)
        dense = given.contiguous()
        expected = torch.bernoulli(dense) if p is None else torch.bernoulli(dense, p)
        assert found.is_contiguous() and torch.equal(found, expected)


def test_alpha_dropout_draws_in_the_order_of_memory(torch):
    x = torch.rand(5, 3)
    torch.manual_seed(3)
    expected = torch.nn.functional.alpha_dropout(x, 0.3, True)
    torch.manual_seed(3)
    found = torch.nn.functional.alpha_dropout(x.t(), 0.3, True)
    assert found.stride() == (1, 3) and torch.equal(found.t(), expected)


@pytest.mark.parametrize(("dtype", "most"), [("uint8", 256), ("int8", 128), ("int16", 32768),
                                             ("float16", 2049)])
def test_permutations_that_do_not_fit_their_dtype(torch, dtype, most):
    kind = getattr(torch, dtype)
    found = torch.randperm(most, dtype=kind)
    assert found.long().sort().values.equal(torch.arange(most)) or dtype == "float16"
    with pytest.raises(RuntimeError, match=r"overflow|greater"):
        torch.randperm(most + 1, dtype=kind)


def test_generators_are_pickled_with_their_place(torch):
    made = torch.Generator().manual_seed(3)
    torch.randn(3, generator=made)
    other = pickle.loads(pickle.dumps(made))
    assert other.initial_seed() == 3
    assert torch.equal(torch.randn(20, generator=other), torch.randn(20, generator=made))
    fresh = torch.Generator()
    fresh.__setstate__((3, None, made.get_state()))
    assert torch.equal(torch.randn(20, generator=fresh), torch.randn(20, generator=made))
    with pytest.raises(TypeError, match="seed, offset"):
        fresh.__setstate__({})
