"""torch.library: overloads, transforms, arguments as kernels get them, older ways to register."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import flambeau as torch
from flambeau import Tensor
from flambeau.library import Library, custom_op, opcheck


@pytest.fixture
def library() -> Iterator[Library]:
    with Library("rules", "FRAGMENT") as made:
        yield made
        for name in [n for n in torch.library.operators.OPERATORS if n.startswith("rules::")]:
            torch.library.operators.remove(name)


def test_overloads(library):
    library.define("pick.one(Tensor x) -> Tensor")
    library.define("pick.two(Tensor x, Tensor y) -> Tensor")
    library.impl("pick.one", lambda x: x + 1, "CPU")
    library.impl("pick.two", lambda x, y: x * y, "CPU")
    x = torch.tensor([3.0])
    assert torch.ops.rules.pick.overloads() == ["one", "two"]
    assert torch.ops.rules.pick.two(x, x).item() == 9
    assert (torch.ops.rules.pick(x).item(), torch.ops.rules.pick(x, x).item()) == (4, 9)
    assert torch.ops.rules.pick.one.name() == "rules::pick.one"
    with pytest.raises(AttributeError, match="no overload name 'three'"):
        _ = torch.ops.rules.pick.three
    with pytest.raises(RuntimeError, match="multiple times"):
        library.define("pick.one(Tensor x) -> Tensor")


def test_a_library_as_a_decorator(library):
    library.define("sine(Tensor x) -> Tensor")

    @torch.library.impl(library, "sine", "CompositeImplicitAutograd")
    def sine(x):
        return x.sin()

    x = torch.tensor([0.5], requires_grad=True)
    torch.ops.rules.sine(x).backward()
    assert torch.allclose(x.grad, torch.tensor([0.5]).cos())
    for wrong in ("bad", "bad(Foo x) -> Tensor"):
        with pytest.raises(RuntimeError):
            library.define(wrong)


def test_arguments_are_converted(library):
    seen = []

    @custom_op("rules::many", mutates_args=())
    def many(x: Tensor, sizes: list[int], f: float, flag: bool,
             dtype: torch.dtype = torch.float64) -> Tensor:
        seen[:] = [sizes, f, flag, dtype]
        return x.to(dtype)

    assert many(torch.ones(1), (1, 2), 2, 1).dtype is torch.float64
    assert seen == [[1, 2], 2.0, True, torch.float64]
    assert [type(one) for one in seen[:3]] == [list, float, bool]
    with pytest.raises(RuntimeError, match="no fake impl registered"):
        many(torch.ones(1, device="meta"), [], 1.0, True)


def test_transforms(library):
    @custom_op("rules::cube", mutates_args=())
    def cube(x: Tensor) -> tuple[Tensor, Tensor]:
        array = x.detach().numpy()
        return torch.from_numpy(np.array(array ** 3)), torch.from_numpy(np.array(3 * array ** 2))

    x = torch.tensor([1.0, 2.0, 3.0])
    assert torch.vmap(cube)(x)[0].tolist() == [1.0, 8.0, 27.0]  # one example after the other
    calls = []

    @cube.register_vmap
    def rule(info, in_dims, x):
        calls.append((info.batch_size, in_dims))
        return cube(x), (in_dims[0], in_dims[0])

    cube.register_autograd(lambda ctx, grad, _: grad * ctx.saved_tensors[0],
                           setup_context=lambda ctx, inputs, output: ctx.save_for_backward(
                               output[1]))
    assert torch.vmap(torch.func.grad(lambda x: cube(x)[0]))(x).tolist() == [3.0, 12.0, 27.0]
    assert calls[0] == (3, (0,))
    assert torch.equal(torch.func.jacrev(lambda x: cube(x)[0])(x), torch.diag(3 * x * x))


def test_lists_of_tensors_have_gradients(library):
    @custom_op("rules::double", mutates_args=())
    def double(xs: list[Tensor]) -> list[Tensor]:
        return [x * 2 for x in xs]

    double.register_autograd(lambda ctx, grads: [[grad * 2 for grad in grads]])
    x = torch.ones(2, requires_grad=True)
    results = double([x, x])
    assert isinstance(results, list)
    (results[0].sum() + 3 * results[1].sum()).backward()
    assert x.grad.tolist() == [8.0, 8.0]


def test_an_operator_without_gradient_may_write_to_what_has_one(library):
    @custom_op("rules::raise_", mutates_args={"x"})
    def raise_(x: Tensor) -> None:
        x.add_(1)

    x = torch.zeros(2, requires_grad=True) * 1
    raise_(x)
    assert x.tolist() == [1.0, 1.0]


def test_checks_know_sizes_that_only_elements_decide(library):
    @custom_op("rules::places", mutates_args=())
    def places(x: Tensor) -> Tensor:
        return x.nonzero()

    @places.register_fake
    def _(x):
        return x.new_empty((torch.library.get_ctx().new_dynamic_size(), x.dim()),
                           dtype=torch.int64)

    assert opcheck(places, (torch.tensor([1, 0, 2]),),
                   test_utils="test_faketensor") == {"test_faketensor": "SUCCESS"}
