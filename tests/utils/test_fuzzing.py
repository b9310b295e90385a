"""`torch.utils.benchmark.Fuzzer` and its parts."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as torch
from flambeau.utils.benchmark import FuzzedParameter, FuzzedTensor, Fuzzer, ParameterAlias


def draws(parameter, n=300):
    state = np.random.RandomState(0)
    return [parameter.sample(state) for _ in range(n)]


def test_distributions():
    whole = draws(FuzzedParameter("n", 2, 5, "uniform"))
    assert set(whole) == {2, 3, 4, 5} and all(type(n) is int for n in whole)
    orders = draws(FuzzedParameter("n", 1, 1024, "loguniform"))
    assert min(orders) >= 1 and max(orders) <= 1024 and 10 < np.median(orders) < 100
    parts = draws(FuzzedParameter("p", 0.5, 1.0, "uniform"))
    assert all(0.5 <= p < 1 and isinstance(p, float) for p in parts)
    named = draws(FuzzedParameter("c", distribution={"a": 3.0, "b": 1.0}))
    assert 0.6 < named.count("a") / len(named) < 0.9


@pytest.mark.parametrize("wrong", [
    {"distribution": "normal"}, {"minval": 3, "maxval": 2, "distribution": "uniform"},
    {"minval": 0, "maxval": 2, "distribution": "loguniform"},
    {"distribution": {1: 0.5}, "strict": True}, {"distribution": "uniform"}])
def test_wrong_parameters(wrong):
    with pytest.raises(ValueError, match="FuzzedParameter"):
        FuzzedParameter("n", **wrong)


def fuzzer(seed=1, **options):
    return Fuzzer(
        [[FuzzedParameter("n", 2, 32, "loguniform")],
         FuzzedParameter("m", distribution={ParameterAlias("n"): 0.5, 7: 0.5}),
         FuzzedParameter("dim", distribution={1: 0.5, 2: 0.5})],
        [FuzzedTensor("x", ("n", "m"), steps=(2, 1), probability_contiguous=0.5,
                      dim_parameter="dim", min_elements=3, max_elements=200),
         FuzzedTensor("k", ("n",), dtype=torch.int64)], seed=seed, **options)


def test_tensors_are_what_parameters_say():
    seen = set()
    for tensors, known, params in fuzzer().take(30):
        shape = (params["n"], params["m"])[:params["dim"]]
        assert tuple(tensors["x"].shape) == shape and 3 <= tensors["x"].numel() <= 200
        assert tensors["k"].dtype is torch.int64 and tensors["k"].shape == (params["n"],)
        assert known["x"]["is_contiguous"] == tensors["x"].is_contiguous()
        assert params["m"] in (7, params["n"])
        seen.add((known["x"]["is_contiguous"], params["dim"]))
    assert len(seen) > 1


def test_a_seed_repeats_and_constraints_count():
    first, second = ([(p, t["x"].tolist()) for t, _, p in fuzzer().take(5)] for _ in range(2))
    assert first == second
    picky = fuzzer(constraints=[lambda n, **_: n % 2 == 0])
    assert all(params["n"] % 2 == 0 for _, _, params in picky.take(20))
    assert 0 < picky.rejection_rate < 1
    with pytest.raises(ValueError, match="loosen"):
        next(fuzzer(constraints=[lambda **_: False]).take(1))


def test_names_are_unique_and_aliases_end():
    with pytest.raises(ValueError, match="several"):
        Fuzzer([FuzzedParameter("n", 1, 2, "uniform")], [FuzzedTensor("n", (2,))])
    circle = [FuzzedParameter(name, distribution={ParameterAlias(other): 1.0})
              for name, other in (("a", "b"), ("b", "a"))]
    with pytest.raises(ValueError, match="circle"):
        next(Fuzzer(circle, [], seed=0).take(1))


def test_own_constructors():
    made = Fuzzer([FuzzedParameter("n", 3, 3, "uniform")], [FuzzedTensor(
        "x", ("n",), tensor_constructor=lambda size, dtype, **_: torch.zeros(size, dtype=dtype))])
    (tensors, _, _), = made.take(1)
    assert tensors["x"].tolist() == [0.0, 0.0, 0.0]
