"""What differential fuzzing against PyTorch has found: one test for each cause."""

from __future__ import annotations

import pytest

import flambeau as torch


def leaf(*values: float):
    return torch.tensor(values or (1.0, 2.0, 3.0, 4.0), requires_grad=True)


# ------------------------------------------------------------------------- views and their bases
def test_views_require_grad_as_soon_as_their_base_does():
    base, x = torch.zeros(4), leaf()
    first, second = base[:2], base[2:]
    first.mul_(x[:2])
    doubled = second * 2  # nobody has asked `second` about itself before
    assert doubled.requires_grad and second.grad_fn.name() == "AsStridedBackward0"
    base2 = torch.zeros(4)
    view = base2[1:]
    base2.add_(x)
    (view * 3).sum().backward()
    assert x.grad.tolist() == [0.0, 3.0, 3.0, 3.0]


def test_views_made_before_requires_grad():
    base = torch.zeros(4)
    view = base[:2]
    base.requires_grad_()
    assert view.requires_grad and view.is_leaf
    (view * 2).sum().backward()
    assert view.grad is None and base.grad is None
    base.requires_grad_(False)
    assert not view.requires_grad
    base.requires_grad_()
    with torch.no_grad():
        base.add_(1)
    assert view.grad_fn.name() == "AsStridedBackward0" and not view.is_leaf


def test_dead_views_are_forgotten():
    base = torch.zeros(4)
    for _ in range(1000):
        base[0]
    assert len(base._views) < 100
    kept = [base[0] for _ in range(100)]
    base.requires_grad_()
    assert all(view.requires_grad for view in kept)


def test_views_made_under_no_grad():
    x = leaf()
    with torch.no_grad():
        view = x[:2]
        assert view.requires_grad and view.numpy().tolist() == [1.0, 2.0]
    assert view.requires_grad and view.is_leaf
    (view * x[:2]).sum().backward()
    assert x.grad.tolist() == [1.0, 2.0, 0.0, 0.0]
    with torch.no_grad():
        x.add_(1)
    with pytest.raises(RuntimeError, match="created in no_grad mode"):
        view * 2


def test_views_of_many_are_not_written_to():
    x = leaf() * 1
    for piece in (x.split(2)[0], x.chunk(2)[0], x.unbind()[0], x.unbind()[0].view(1)):
        with pytest.raises(RuntimeError, match="multiple views"):
            piece.mul_(2)
    first, _ = x.split(2)
    x.mul_(2)
    with pytest.raises(RuntimeError, match="multiple views"):
        first * 2
    first, _ = torch.ones(4).split(2)
    assert first.mul_(2).tolist() == [2.0, 2.0]


def test_view_that_is_a_leaf_is_not_written_to():
    x = torch.arange(4.0).reshape(2, 2).requires_grad_()
    with pytest.raises(RuntimeError, match="a view of a leaf Variable"):
        x.add_(1)


def test_retain_grad_survives_a_write_to_the_base():
    y = leaf() * 1
    view = y[:2]
    view.retain_grad()
    y.mul_(2)
    (view * 1).sum().backward()
    assert view.grad.tolist() == [1.0, 1.0]


def test_functions_see_what_was_done_to_the_base_of_a_view():
    class Triple(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a):
            return a * 3

        @staticmethod
        def backward(ctx, grad):
            return grad * 3

    x = leaf()
    y = x * 1
    view = y[0]
    y.mul_(2)
    Triple.apply(view).backward()
    assert x.grad.tolist() == [6.0, 0.0, 0.0, 0.0]


def test_leaf_that_stopped_to_require_grad_gets_none():
    x = leaf()
    y = x * 2
    x.requires_grad_(False)
    y.sum().backward()
    assert x.grad is None


def test_requires_grad_is_not_set_on_results():
    y = leaf() * 2
    with pytest.raises(RuntimeError, match="leaf variables"):
        y.requires_grad = True


def test_layout_changed_in_place_under_no_grad_keeps_history():
    y = (leaf(1.0) * 2)
    with torch.no_grad():
        y.squeeze_()
    assert not y.is_leaf and y.grad_fn is not None


def test_inference_tensors_from_a_first_call():
    x = leaf(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
    with torch.inference_mode():
        assert (x * 2.5).is_inference()
        assert (x * 2.5).is_inference()


# ------------------------------------------------------------------------- versions and layouts
def test_new_tensors_have_version_zero():
    x = torch.zeros(2)
    made = (x, torch.ones(2), torch.full((2,), 3.0), torch.zeros_like(x), x.new_zeros((2,)))
    assert [t._version for t in made] == [0] * 5


def test_assigning_a_tensor_to_itself_with_an_axis():
    x = torch.arange(3.0)
    x[None] = x[:]
    assert x.tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(RuntimeError):
        x[..., None] = x


@pytest.mark.parametrize("make, strides", [
    (lambda: torch.zeros(1, 2, 3).permute(2, 1, 0) + torch.zeros(1, 2, 3), (3, 9, 1)),
    (lambda: torch.cat([torch.zeros(2, 3).t()]), (2, 1)),
    (lambda: torch.zeros(2, 3).t() + torch.zeros(2), (1, 3)),
    (lambda: torch.zeros(2, 3).t().index_put((torch.tensor([0]),), torch.zeros(2)), (1, 3)),
])
def test_memory_order_of_results(make, strides):
    assert make().stride() == strides


def test_zero_dimensional_tensors_are_not_cut():
    x = torch.tensor(1.0)
    for cut in (lambda: x.split(1), lambda: x.chunk(2), lambda: x.tensor_split(2),
                lambda: x.narrow(0, 0, 1)):
        with pytest.raises(RuntimeError, match="0"):
            cut()


def test_linear_with_a_vector_or_too_many_dimensions():
    x = torch.tensor([1.0, 2.0])
    assert torch.nn.functional.linear(x, x).item() == 5.0
    with pytest.raises(RuntimeError, match="<= 2 dimensions"):
        torch.nn.functional.linear(torch.zeros(2, 2, 2), torch.zeros(2, 2, 2))


# ------------------------------------------------------------------------- compile
def outcomes(function, make, calls: int = 4):
    """What calls with new arguments return, and the arguments' gradients and contents after."""
    found = []
    for number in range(calls):
        args = make(number)
        result = function(*args)
        found.append(([t.tolist() for t in (result if isinstance(result, tuple) else (result,))
                       if t is not None],
                      [t.tolist() for t in args],
                      [None if t.grad is None else t.grad.tolist() for t in args]))
    return found


def fresh(number: int):
    return [torch.tensor([1.0 + number, 2.0], requires_grad=True)]


def detached(x):
    (x * 2).sum().backward()
    return x.detach()


def whole_alias(x):
    return x[...].detach(), x.detach()[1:]


def gradient_of_argument(x):
    (x * x).sum().backward()


@pytest.mark.parametrize("function", [detached, whole_alias, gradient_of_argument])
def test_replays_use_the_arguments_of_their_own_call(function):
    compiled = torch.compile(function, options={"exact": True})
    assert outcomes(compiled, fresh) == outcomes(function, fresh)


def test_replays_of_views_as_arguments():
    data = torch.arange(6.0).reshape(3, 2)
    compiled = torch.compile(lambda row: row * 2)
    assert [compiled(data[i]).tolist() for i in range(3)] == [[0, 2], [4, 6], [8, 10]]
    compiled = torch.compile(lambda row: row[1:] * 2)
    assert [compiled(data.t()[i]).tolist() for i in range(2)] == [[4, 8], [6, 10]]


def test_arguments_that_share_memory():
    def add(a, b):
        a += 1
        return a + b

    compiled = torch.compile(add, options={"exact": True})
    for _ in range(3):
        assert compiled(torch.ones(2), torch.ones(2)).tolist() == [3.0, 3.0]
        x = torch.ones(2)
        assert compiled(x, x).tolist() == [4.0, 4.0]
        x = torch.arange(3.0)
        assert compiled(x[:2], x[1:]).tolist() == [3.0, 4.0]


def test_gradients_accumulate_between_replays():
    weight = torch.ones(2, requires_grad=True)

    def run(x):
        (weight * x).sum().backward()

    compiled = torch.compile(run)
    totals = []
    for number in range(4):
        compiled(torch.tensor([1.0, number]))
        totals.append(weight.grad.tolist())
    assert totals == [[1, 0], [2, 1], [3, 3], [4, 6]]
    weight.grad = None
    compiled(torch.tensor([1.0, 5.0]))
    assert weight.grad.tolist() == [1, 5]


def test_results_that_are_arguments_or_views_of_them():
    compiled = torch.compile(lambda x: (x, x[1:], x * 2))
    for _ in range(3):
        x = torch.ones(3)
        same, part, other = compiled(x)
        part.add_(1)
        assert same is x and x.tolist() == [1.0, 2.0, 2.0] and other.tolist() == [2.0] * 3
    compiled = torch.compile(lambda x: (lambda y: (y, y))(x * 2))
    for _ in range(3):
        first, second = compiled(torch.ones(2))
        assert first is second


def through_detach(x):
    return x.detach() * x


def through_no_grad(x):
    with torch.no_grad():
        y = x * 2
    return y + x * 3


def through_no_grad_view(x):
    with torch.no_grad():
        y = x.view(2)
    return y * x


def hooked(x):
    y = x * 2
    y.register_hook(lambda grad: grad * 10)
    return y * 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("function", [through_detach, through_no_grad, through_no_grad_view,
                                      hooked])
def test_gradients_through_replays(function):
    def run(chosen):
        found = []
        for number in range(4):
            (x,) = fresh(number)
            chosen(x).sum().backward()
            found.append(x.grad.tolist())
        return found

    assert run(torch.compile(function)) == run(function)
