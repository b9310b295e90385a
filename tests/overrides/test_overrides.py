"""`__torch_function__`: subclasses, tensor-likes, modes, and what torch.overrides says of them."""

from __future__ import annotations

import copy

import numpy as np
import pytest


@pytest.fixture
def logged(torch):
    calls: list = []

    class Logged(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            calls.append(func)
            return super().__torch_function__(func, types, args, kwargs or {})

    return Logged, calls


@pytest.fixture
def marked(torch):
    class Marked(torch.Tensor):
        pass

    return Marked


def test_subclasses_are_preserved(torch, marked):
    x = marked([1.0, 2.0])
    results = [x + 1, 1 - x, x * x, -x, x[0], x.T, x.view(2, 1), x.sum(), torch.cat([x, x]),
               torch.where(x > 1, x, 0), x.to(torch.float64), x.detach(), x.clone(), x.add_(0),
               torch.ones_like(x), torch.nn.functional.softmax(x, dim=0), x.max(0).values,
               torch.split(x, 1)[0], next(iter(x)), copy.deepcopy(x), torch.std(x), x.data]
    assert [type(result) for result in results] == [marked] * len(results)
    assert type(x.as_subclass(torch.Tensor)) is torch.Tensor
    assert type(x.shape) is torch.Size and repr(x) == "Marked([1., 2.])"
    assert type(torch.ones(2) + x) is marked
    assert torch.allclose(x + x, torch.tensor([2.0, 4.0]))


def test_subclass_of_a_subclass_wins(torch, marked):
    class More(marked):
        pass

    class Other(torch.Tensor):
        pass

    assert type(marked([1.0]) + More([1.0])) is More
    assert type(More([1.0]) + marked([1.0])) is More
    with pytest.raises(TypeError):
        marked([1.0]) + Other([1.0])


def test_conversions_ask_nobody(torch, logged):
    cls, calls = logged
    x = torch.ones(3).as_subclass(cls)
    calls.clear()
    shared = torch.from_dlpack(x)
    shared[0] = 5
    assert type(shared) is torch.Tensor and shared.tolist() == [5, 1, 1]
    assert (shared + 1).tolist() == [6, 2, 2] and torch.from_dlpack not in calls
    assert torch.as_tensor(x) is x


def test_tensors_of_pytorch_itself(torch):
    """Their answer calls the function again, and asks aside for PyTorch's own functions only."""
    def again(cls, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))

    def shared(self, **options):
        return self.array.__dlpack__()

    body = {"__module__": "torch", "__torch_function__": classmethod(again), "__dlpack__": shared,
            "__dlpack_device__": lambda self: self.array.__dlpack_device__()}
    foreign = type("Parameter", (type("Tensor", (), body),), {})()
    foreign.array = np.arange(3)
    made = [torch.from_dlpack(foreign), torch.asarray(foreign), torch.asarray(foreign, copy=True)]
    foreign.array[0] = 7
    assert [x.tolist() for x in made] == [[7, 1, 2], [7, 1, 2], [0, 1, 2]]
    for call in (torch.neg, torch.nn.functional.relu, torch.ones(3).add):
        with pytest.raises(TypeError):
            call(foreign)

    def add(*args):
        raise AssertionError("asked again")

    add.__module__ = "torch"
    assert torch.Tensor.__torch_function__(add, (torch.Tensor,), (1,)) is NotImplemented


def test_gradients_flow_through_subclasses(torch, marked):
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = (x.as_subclass(marked) * 3).sum()
    assert type(y) is marked
    y.backward()
    assert type(x.grad) is torch.Tensor and x.grad.tolist() == [3, 3]
    leaf = marked([2.0]).requires_grad_()
    (leaf * leaf).sum().backward()
    assert leaf.grad.tolist() == [4]


def test_parameters_give_plain_tensors(torch, marked):
    class Weight(torch.nn.Parameter):
        pass

    assert type(Weight(torch.ones(2)) + 1) is torch.Tensor
    held = torch.nn.Parameter(marked([1.0]))
    assert type(held) is marked and isinstance(held, torch.nn.Parameter)


def test_handlers_see_functions_methods_and_attributes(torch, logged):
    cls, calls = logged
    x = torch.ones(2, 2).as_subclass(cls)
    seen = [(lambda: torch.exp(x), torch.exp), (lambda: x.view(4), torch.Tensor.view),
            (lambda: x[0], torch.Tensor.__getitem__), (lambda: x.shape, torch.Tensor.shape.__get__),
            (lambda: x.add_(1), torch.Tensor.add_), (lambda: x + 1, torch.add),
            (lambda: torch.where(x > 0, x, x), torch.where), (lambda: len(x), torch.Tensor.__len__),
            (lambda: torch.einsum("ij->i", x), torch.einsum),
            (lambda: torch.nn.functional.relu(x), torch.nn.functional.relu),
            (lambda: torch.nn.functional.cross_entropy(x, torch.tensor([0, 1])),
             torch.nn.functional.cross_entropy),
            (lambda: x.requires_grad_(), torch.Tensor.requires_grad_)]
    for call, expected in seen:
        calls.clear()
        call()
        assert expected in calls
    assert torch.overrides.resolve_name(torch.Tensor.shape.__get__) == "torch.Tensor.shape.__get__"
    assert torch.overrides.resolve_name(torch.exp) == "torch.exp"


def test_ordinary_calls_keep_the_warm_path(torch, logged):
    from flambeau.tensor import dispatch

    cls, calls = logged
    torch.ones(2).as_subclass(cls)
    calls.clear()
    a = torch.ones(3)
    a + a
    assert not dispatch.ACTIVE and not calls
    known = len(dispatch.FUNCTIONS["add"].cache)
    x = a.as_subclass(cls)
    for _ in range(5):
        x + x
    assert len(dispatch.FUNCTIONS["add"].cache) <= known + 1


def test_arguments_as_they_were_given(torch):
    class Like:
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            return func, types, args, kwargs

    like = Like()
    assert torch.sum(like) == (torch.sum, (Like,), (like,), {})
    assert torch.sum(like, dim=1) == (torch.sum, (Like,), (like,), {"dim": 1})
    assert torch.add(like, 2, alpha=3)[2:] == ((like, 2), {"alpha": 3})
    assert torch.cat([like, like])[0] is torch.cat
    out = torch.empty(2)
    assert torch.add(like, 1, out=out)[3]["out"] is out
    assert torch.add(torch.ones(2), like)[1] == (Like,)
    assert torch.is_tensor(like) is False and torch.overrides.is_tensor_like(like)


def test_nobody_answers(torch):
    class Silent:
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            return NotImplemented

    with pytest.raises(TypeError, match=r"torch.add.*\n\n.*Silent"):
        torch.add(Silent(), 1)


def test_disabled(torch, logged):
    from flambeau import _C

    cls, calls = logged
    x = torch.ones(2).as_subclass(cls)
    calls.clear()
    with _C.DisableTorchFunctionSubclass():
        assert type(x + 1) is torch.Tensor and type(x.view(2, 1)) is torch.Tensor

    class Plain(torch.Tensor):
        __torch_function__ = _C._disabled_torch_function_impl

    assert type(torch.ones(2).as_subclass(Plain) + 1) is torch.Tensor
    assert not calls


def test_modes(torch):
    class Counting(torch.overrides.TorchFunctionMode):
        def __init__(self):
            super().__init__()
            self.names = []

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.names.append(torch.overrides.resolve_name(func))
            return func(*args, **(kwargs or {}))

    with Counting() as outer, Counting() as inner:
        a = torch.zeros(2)
        b = a + 1
        torch.where(b > 0, a, b)
        b.mul_(2)
    assert inner.names == outer.names
    assert inner.names[:2] == ["torch.zeros", "torch.add"] and "torch.where" in inner.names
    before = len(inner.names)
    a + b
    assert len(inner.names) == before and b.tolist() == [2, 2]


def test_gradients_keep_their_class(torch, marked):
    x = marked([1.0, 2.0]).requires_grad_()
    torch.Tensor.grad.__set__(x, torch.ones(2))
    assert type(x.grad) is torch.Tensor and type(x.data) is marked
    assert torch.overrides.get_default_nowrap_functions() == {torch.Tensor.grad.__get__}


def test_own_functions(torch, marked):
    @torch.overrides.wrap_torch_function(lambda a, b=None: (a, b))
    def mine(a, b=None):
        return a * 2

    assert type(mine(marked([1.0]))) is marked
    assert mine(torch.ones(1)).item() == 2
    assert not torch.overrides.has_torch_function((torch.ones(1), 3))
    assert torch.overrides.has_torch_function((marked([1.0]),))


def test_tables(torch):
    table = torch.overrides.get_overridable_functions()
    assert torch.add in table[torch] and torch.Tensor.view in table[torch.Tensor]
    assert torch.nn.functional.relu in table[torch.nn.functional]
    assert torch.zeros in torch.overrides.get_ignored_functions()
    stand_in = torch.overrides.get_testing_overrides()[torch.add]
    assert stand_in(1, 2) == -1
    assert torch.overrides.is_tensor_method_or_property(torch.Tensor.shape.__get__)


def test_pickling_keeps_the_class(torch):
    import pickle

    x = pickle.loads(pickle.dumps(Stored([1.0, 2.0])))
    assert x.tolist() == [1, 2] and type(x + 1) is type(x)


import flambeau  # noqa: E402 - pickle finds classes of modules only


class Stored(flambeau.Tensor):
    """A subclass that pickle can find."""
