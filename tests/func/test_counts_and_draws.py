"""vmap of what looks at values (counts), and of draws with parameters."""

from __future__ import annotations

import math

import pytest

import flambeau as torch

ROWS = torch.tensor([[0, 1, 1], [2, 2, 5]])


def stacked(function, *batches):
    return torch.stack([function(*rows) for rows in zip(*batches, strict=True)])


def test_bincount():
    counts = torch.vmap(lambda row: torch.bincount(row, minlength=6))
    assert torch.equal(counts(ROWS), stacked(lambda row: torch.bincount(row, minlength=6), ROWS))
    weights = torch.arange(6.0).reshape(2, 3)
    weighed = torch.vmap(lambda row, w: torch.bincount(row, w, minlength=6))
    assert weighed(ROWS, weights)[1].tolist() == [0, 0, 7, 0, 0, 5]
    with pytest.raises(RuntimeError):
        torch.vmap(torch.bincount)(ROWS)  # results of different sizes


def test_histograms_over_each_example_s_own_range():
    x = ROWS.float()
    assert torch.equal(torch.vmap(lambda row: torch.histc(row, 4))(x),
                       stacked(lambda row: torch.histc(row, 4), x))
    hist, edges = torch.vmap(lambda row: torch.histogram(row, 2))(x)
    assert hist.tolist() == [[1, 2], [2, 1]] and edges[1].tolist() == [2, 3.5, 5]
    given = torch.vmap(lambda row, cut: torch.histogram(row, cut).hist)
    assert given(x, torch.tensor([[0.0, 1, 2], [0, 3, 6]])).tolist() == [[1, 2], [2, 1]]


def test_gamma_numbers():
    shapes = torch.tensor([[0.5, 2.0], [3.0, 8.0]])
    torch.manual_seed(3)
    wanted = torch._standard_gamma(shapes)
    torch.manual_seed(3)
    found = torch.vmap(torch._standard_gamma, randomness="different")(shapes)
    assert torch.equal(found, wanted)
    for randomness in ("error", "same"):
        with pytest.raises(RuntimeError):
            torch.vmap(torch._standard_gamma, randomness=randomness)(shapes)
    same = torch.vmap(lambda x: x + torch._standard_gamma(shapes[0]), randomness="same")(shapes)
    assert torch.allclose(same[0] - shapes[0], same[1] - shapes[1], atol=1e-5)


@pytest.mark.parametrize("name", ["Gamma", "Dirichlet", "Categorical", "Chi2"])
def test_distributions_check_their_parameters_for_all_examples(name):
    kind = getattr(torch.distributions, name)
    parameters = torch.tensor([[0.5, 0.5], [0.3, 0.7]])

    def draw(p):
        return (kind(p, p) if name == "Gamma" else kind(p)).sample()

    assert torch.vmap(draw, randomness="different")(parameters).shape[0] == 2
    with pytest.raises(ValueError):
        torch.vmap(draw, randomness="different")(torch.tensor([[0.5, 0.5], [-1.0, 2.0]]))


def test_validated_distributions_of_examples():
    def density(low):
        return torch.distributions.Uniform(low, low + 2).log_prob(low + 0.5)

    torch.testing.assert_close(torch.func.vmap(density)(torch.arange(3.0)),
                               torch.full((3,), -math.log(2)))
    with pytest.raises(ValueError, match="low>= high"):
        torch.func.vmap(lambda x: torch.distributions.Uniform(x, x).low)(torch.ones(2))
