"""What wrong calls get: the class that PyTorch raises, and a text in the user's terms. These tests
also run under PyTorch (tests/conformance), but for the parts of the text that only Flambeau
gives."""

from __future__ import annotations

import re

import numpy as np
import pytest


def flambeau_only(torch, text: str, caught) -> None:
    """The text must be there when it is Flambeau that raised."""
    if torch.__name__ != "torch":
        assert re.search(text, str(caught.value)), str(caught.value)


def test_shapes_that_do_not_broadcast(torch):
    with pytest.raises(RuntimeError, match=r"size of tensor a \(3\) must match the size of tensor "
                                           r"b \(4\) at non-singleton dimension 1") as caught:
        torch.ones(2, 3) + torch.ones(2, 4)
    flambeau_only(torch, r"\[2, 3\] and \[2, 4\]", caught)


@pytest.mark.parametrize(("a", "b", "text"), [
    ((2, 3), (4, 5), r"mat1 and mat2 shapes cannot be multiplied \(2x3 and 4x5\)"),
    ((2, 3), (4,), r"size mismatch|cannot be multiplied"),
    ((), (3,), "both arguments to matmul need to be at least 1D"),
])
def test_products(torch, a, b, text):
    with pytest.raises(RuntimeError, match=text):
        torch.ones(a) @ torch.ones(b)


def test_products_of_the_wrong_rank(torch):
    with pytest.raises(RuntimeError, match="must be a matrix"):
        torch.mm(torch.ones(2), torch.ones(2, 2))
    with pytest.raises(RuntimeError, match="must be a 3D tensor"):
        torch.bmm(torch.ones(2, 2), torch.ones(2, 2, 2))
    with pytest.raises(RuntimeError, match="1D tensors expected"):
        torch.dot(torch.ones(2, 2), torch.ones(2))


def test_dimensions(torch):
    x = torch.ones(2, 3)
    for call in (lambda: x.sum(2), lambda: x.softmax(-3), lambda: x.max(5), lambda: x.size(2),
                 lambda: x.unsqueeze(4), lambda: torch.cat([x], 2), lambda: x.select(2, 0)):
        with pytest.raises(IndexError, match=r"Dimension out of range \(expected to be in range"):
            call()
    with pytest.raises((TypeError, RuntimeError)):
        x.sum("a")
    with pytest.raises(RuntimeError, match="appears multiple times in the list of dims"):
        x.sum((0, 0))


def test_joins(torch):
    with pytest.raises(RuntimeError, match="Sizes of tensors must match except in dimension 0"):
        torch.cat([torch.ones(2, 3), torch.ones(2, 4)])
    with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size"):
        torch.stack([torch.ones(2), torch.ones(3)])
    with pytest.raises((RuntimeError, ValueError), match="non-empty"):
        torch.cat([])
    with pytest.raises(TypeError):
        torch.cat(torch.ones(2))
    with pytest.raises(TypeError):
        torch.cat([torch.ones(2), 1.0])


def test_missing_and_unknown_arguments(torch):
    x = torch.ones(2)
    with pytest.raises(TypeError, match=r"missing|required"):
        torch.exp()
    with pytest.raises(TypeError):
        torch.exp(x, x, x)
    with pytest.raises(TypeError, match=r"unexpected keyword|invalid combination"):
        torch.exp(x, dimension=1)
    with pytest.raises(TypeError):
        torch.softmax(x)
    with pytest.raises(AttributeError, match="no attribute 'unheard_of'"):
        x.unheard_of()
    with pytest.raises(AttributeError, match="no attribute 'unheard_of'"):
        torch.unheard_of(x)


@pytest.mark.parametrize("wrong", [None, "a", [1.0], {"a": 1}])
def test_things_that_are_no_tensors(torch, wrong):
    with pytest.raises(TypeError, match="must be Tensor") as caught:
        torch.exp(wrong)
    flambeau_only(torch, r"exp\(\): argument 'input' \(position 1\) must be Tensor, not", caught)
    with pytest.raises(TypeError):
        torch.ones(2) + wrong
    with pytest.raises(TypeError):
        torch.add(torch.ones(2), wrong)


@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")
def test_mixing_numpy_and_tensors(torch):
    x, array = torch.ones(2), np.ones(2)
    with pytest.raises(TypeError) as caught:
        torch.exp(array)
    flambeau_only(torch, "torch.from_numpy", caught)
    assert (x + array).tolist() == [2, 2] and isinstance(x + array, torch.Tensor)
    assert (x + np.float32(2)).tolist() == [3, 3] and (x * np.int64(2)).tolist() == [2, 2]


@pytest.mark.parametrize(("call", "text"), [
    (lambda t: t.ones(2, dtype=t.int64).softmax(0), "not implemented for 'Long'"),
    (lambda t: -t.ones(2, dtype=t.bool), "bool"),
    (lambda t: t.ones(2, dtype=t.bool) - t.ones(2, dtype=t.bool), "bool"),
    (lambda t: t.ones(2) & 1, "not implemented for 'Float'"),
    (lambda t: t.ones(2, dtype=t.int64).mean(), "mean"),
    (lambda t: t.where(t.ones(2), 1, 2), "bool"),
])
def test_dtypes_that_do_not_fit(torch, call, text):
    with pytest.raises((RuntimeError, NotImplementedError), match=text):
        call(torch)


def test_reductions_of_nothing(torch):
    empty = torch.ones(0, 3)
    assert empty.sum().item() == 0 and empty.prod().item() == 1
    assert np.isnan(empty.mean().item())
    with pytest.raises((RuntimeError, IndexError)):
        empty.max()
    with pytest.raises((RuntimeError, IndexError)):
        empty.argmax(0)
    assert empty.max(1).values.shape == (0,)


def test_truth_and_numbers(torch):
    with pytest.raises(RuntimeError, match="Boolean value of Tensor with more than one value"):
        bool(torch.ones(2))
    with pytest.raises(RuntimeError, match="Boolean value of Tensor with no values is ambiguous"):
        bool(torch.ones(0))
    with pytest.raises(RuntimeError, match="a Tensor with 2 elements cannot be converted to "
                                           "Scalar"):
        torch.ones(2).item()
    with pytest.raises(TypeError, match="only integer tensors of a single element"):
        [1, 2][torch.tensor(1.0)]
    with pytest.raises((RuntimeError, TypeError, ValueError)):
        float(torch.ones(2))


def test_devices(torch):
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(2, device="nowhere")
    with pytest.raises((RuntimeError, AssertionError)):
        torch.ones(2).to("cuda:99")
    assert torch.ones(2, device="cpu").device.type == "cpu"
    assert torch.device("cuda:1").index == 1 and torch.device("cpu").index is None


def test_sizes_by_name_are_not_missing(torch):
    with pytest.raises(RuntimeError, match="not expandable"):
        torch.ones(3, 2).sum_to_size(size=(7, 7))
    with pytest.raises(TypeError, match="'dtype' must be"):
        torch.empty(size=(2,), dtype="f")
    with pytest.raises(TypeError, match="missing 1 required"):
        torch.zeros()


def test_integer_division_by_zero(torch):
    x = torch.tensor([1, 2])
    for call in (lambda: x // 0, lambda: x % torch.tensor([1, 0]),
                 lambda: torch.div(x, torch.tensor([0, 1]), rounding_mode="trunc")):
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            call()
    assert (x / 0).tolist() == [float("inf")] * 2


def test_indices_out_of_range_in_operations(torch):
    x, far = torch.arange(4.0), torch.tensor([0, 4])
    for call in (lambda: x.gather(0, far), lambda: x.index_select(0, far), lambda: x.take(far),
                 lambda: x.scatter(0, far, 1.0)):
        with pytest.raises((IndexError, RuntimeError), match=r"out of|out of bounds"):
            call()
    assert x.tolist() == [0, 1, 2, 3]


def test_a_failed_call_changes_nothing(torch):
    x = torch.ones(3)
    before = x._version
    for call in (lambda: x.add_(torch.ones(2)), lambda: x.add_("a"), lambda: x.add_(1j),
                 lambda: x.masked_fill_(torch.ones(3), 1)):
        with pytest.raises((RuntimeError, TypeError)):
            call()
    assert x.tolist() == [1, 1, 1] and x._version == before
