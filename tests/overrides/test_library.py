"""torch.library: operators of users."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import flambeau
from flambeau import Tensor


@pytest.fixture
def sine(torch):
    @torch.library.custom_op("tests::sine", mutates_args=())
    def sine(x: Tensor, factor: int = 1) -> Tensor:
        return torch.from_numpy(np.sin(factor * x.detach().numpy()))

    yield sine
    flambeau.library.operators.OPERATORS.pop("tests::sine", None)


def _saved(ctx, inputs, output):
    ctx.save_for_backward(inputs[0])
    ctx.factor = inputs[1]


def _gradient(ctx, grad):
    x, = ctx.saved_tensors
    return grad * ctx.factor * flambeau.cos(ctx.factor * x), None


def test_calls(torch, sine):
    x = torch.tensor([0.5, 1.0], dtype=torch.float64)
    assert torch.allclose(sine(x), x.sin())
    assert torch.allclose(torch.ops.tests.sine(x, factor=2), (2 * x).sin())
    assert torch.allclose(torch.ops.tests.sine.default(x, 2), (2 * x).sin())
    assert repr(sine) == "<CustomOpDef(tests::sine)>"
    assert str(torch.ops.tests.sine.default._schema) == "tests::sine(Tensor x, SymInt factor=1) " \
                                                        "-> Tensor"


def test_wrong_arguments(torch, sine):
    for args, words in ((("a",), "Expected a value of type 'Tensor'"), ((), "missing value"),
                        ((torch.ones(1), 1, 2), "at most 2")):
        with pytest.raises(RuntimeError, match=words):
            sine(*args)
    with pytest.raises(RuntimeError, match="Unknown keyword argument 'k'"):
        sine(torch.ones(1), k=1)
    with pytest.raises(AttributeError, match="nothing"):
        torch.ops.tests.nothing()


def test_gradient(torch, sine):
    x = torch.tensor([0.5, 1.0], dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        sine(x).sum().backward()
    sine.register_autograd(_gradient, setup_context=_saved)
    assert torch.autograd.gradcheck(lambda x: sine(x, 3), (x,))
    with torch.no_grad():
        assert not sine(x).requires_grad


def test_lists_of_tensors(torch):
    @torch.library.custom_op("tests::total", mutates_args=())
    def total(xs: Sequence[Tensor], scale: float) -> Tensor:
        return torch.from_numpy(scale * sum(x.detach().numpy() for x in xs))

    def gradient(ctx, grad):
        return [grad * ctx.scale] * ctx.count, None

    def keep(ctx, inputs, output):
        ctx.count, ctx.scale = len(inputs[0]), inputs[1]

    total.register_autograd(gradient, setup_context=keep)
    xs = [torch.ones(2, requires_grad=True) for _ in range(3)]
    total(xs, 2.0).sum().backward()
    assert [x.grad.tolist() for x in xs] == [[2, 2]] * 3


def test_writing(torch):
    @torch.library.custom_op("tests::increase", mutates_args={"x"})
    def increase(x: Tensor) -> None:
        x.numpy()[...] += 1

    x = torch.ones(2)
    version = x._version
    assert increase(x) is None and x.tolist() == [2, 2] and x._version > version
    with pytest.raises(RuntimeError, match="non-functional"):
        increase.register_autograd(_gradient)

    @torch.library.custom_op("tests::same", mutates_args=())
    def same(x: Tensor) -> Tensor:
        return x

    with pytest.raises(RuntimeError, match="may not alias"):
        same(x)


def test_autocast(torch, sine):
    @torch.library.custom_op("tests::dtype_of", mutates_args=())
    def dtype_of(x: Tensor) -> Tensor:
        return torch.zeros(2, dtype=x.dtype)

    dtype_of.register_autocast("cpu", torch.bfloat16)
    assert dtype_of(torch.ones(1)).dtype == torch.float32
    with torch.autocast("cpu"):
        assert dtype_of(torch.ones(1)).dtype == torch.bfloat16


def test_inferred_schema(torch):
    def f(x: Tensor, y: Tensor | None, n: Sequence[int], w: float = 1.0, *,
          kind: flambeau.dtype | None = None) -> tuple[Tensor, Tensor]:
        raise AssertionError

    assert torch.library.infer_schema(f, mutates_args={"x"}) == (
        "(Tensor(a0!) x, Tensor? y, SymInt[] n, float w=1.0, *, ScalarType? kind=None) -> "
        "(Tensor, Tensor)")

    def g(x):
        raise AssertionError

    with pytest.raises(ValueError, match="must have a type annotation"):
        torch.library.infer_schema(g, mutates_args=())
    with pytest.raises(ValueError, match="namespace::name"):
        torch.library.custom_op("plain", f, mutates_args=())


def test_libraries(torch):
    with torch.library.Library("tests_lib", "DEF") as lib:
        assert lib.define("scale(Tensor x, int k=2) -> Tensor") == "scale"

        def scale(x, k=2):
            return x * k

        lib.impl("scale", scale, "CompositeImplicitAutograd")
        x = torch.ones(2, requires_grad=True)
        torch.ops.tests_lib.scale(x, 3).sum().backward()
        assert x.grad.tolist() == [3, 3]
        with pytest.raises(RuntimeError, match="Only a single"):
            torch.library.Library("tests_lib", "DEF")
        with pytest.raises(RuntimeError, match="multiple times"):
            lib.define("scale(Tensor x) -> Tensor")
    with pytest.raises(AttributeError):
        torch.ops.tests_lib.scale(x)
    with pytest.raises(ValueError, match="Unsupported kind"):
        torch.library.Library("tests_lib", "OTHER")


def test_opcheck(torch, sine):
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    report = torch.library.opcheck(sine, (x,), raise_exception=False)
    assert report["test_schema"] == "SUCCESS"
    assert isinstance(report["test_autograd_registration"], RuntimeError)
    assert isinstance(report["test_faketensor"], RuntimeError)

    @sine.register_fake
    def fake(x, factor=1):
        return torch.empty_like(x)

    sine.register_autograd(_gradient, setup_context=_saved)
    assert set(torch.library.opcheck(sine, (x,)).values()) == {"SUCCESS"}


def test_what_is_missing_says_so(torch, sine):
    with pytest.raises(NotImplementedError, match="Triton"):
        torch.library.triton_op("tests::t", mutates_args=())
    with pytest.raises(NotImplementedError):
        sine.register_torch_dispatch(torch.Tensor, None)
    with pytest.raises(RuntimeError, match="register_fake"):
        torch.library.get_ctx()
    with pytest.raises(NotImplementedError):
        torch.ops.load_library("x.so")


def test_classes_take_operators_over(torch, sine):
    class Logged(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            return super().__torch_function__(func, types, args, kwargs)

    assert type(sine(torch.ones(2).as_subclass(Logged))) is Logged
