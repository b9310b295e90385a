"""Results that take over the memory of an operand: less memory, and the same bits."""

import pytest

import flambeau as torch
import flambeau.nn.functional as F

pytestmark = pytest.mark.usefixtures("fresh_plans")  # those on disk name no places

N = 96


def loss_step(x, weight, target):
    weight.grad = None
    loss = F.cross_entropy(x @ weight.t(), target)
    loss.backward()
    return loss


def temporaries(compiled, least):
    """How many places of at least so many bytes hold temporaries."""
    return max(sum(kind == "temp" and nbytes >= least for kind, _, _, nbytes, *_ in
                   program.plan.places) for programs in compiled.programs.values()
               for program in programs)


def run(function, *args):
    compiled = torch.compile(function, options={"exact": False})
    for _ in range(3):
        result = compiled(*args)
    return compiled, result


def test_gradient_of_cross_entropy_lies_where_the_logits_were():
    x, target = torch.randn(N, 32), torch.randint(0, 3000, (N,))
    weight = torch.nn.Parameter(torch.randn(3000, 32))
    compiled, loss = run(loss_step, x, weight, target)
    grad = weight.grad
    eager = loss_step(x, weight, target)
    assert temporaries(compiled, N * 3000 * 4) == 1
    torch.testing.assert_close(loss, eager)
    torch.testing.assert_close(grad, weight.grad)


@pytest.mark.parametrize("middle", [
    lambda y: y.exp() / y.sum(1, keepdim=True),
    lambda y: y - y.mean(0, keepdim=True),
    lambda y: torch.softmax(y, 0) * y.flip(1),
    lambda y: y.t().contiguous() * 2 + y,
    lambda y: torch.cumsum(y, 1) - y.roll(1, 1),
    lambda y: torch.where(y > 0, y.flip(0), y),
    lambda y: y[:, torch.arange(N - 1, -1, -1)] + y,
    lambda y: (y + y.amax(1, keepdim=True)).tril() + y.triu(),
], ids=str)
def test_bits_do_not_depend_on_where_results_lie(middle):
    """A product before and after, so that what lies between them is in temporaries."""
    def function(x, w):
        y = x @ w
        z = middle(y)
        return z @ w, z.sum(1) if z.ndim == 2 else z

    x, w = torch.randn(N, N), torch.randn(N, N)
    exact = torch.compile(function, options={"exact": True})
    for _ in range(3):
        found = exact(x, w)
    for a, b in zip(found, function(x, w), strict=True):
        assert torch.equal(a, b)
    _, fused = run(function, x, w)
    for a, b in zip(fused, function(x, w), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
