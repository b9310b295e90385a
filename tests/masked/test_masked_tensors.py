"""`MaskedTensor`: elements that do not count, through operations, gradients and text."""

import copy
import pickle

import pytest

import flambeau as torch
from flambeau.masked import MaskedTensor, as_masked_tensor, is_masked_tensor, masked_tensor

DATA = torch.arange(6.0).reshape(2, 3)
MASK = torch.tensor([[True, False, True], [False, False, True]])


@pytest.fixture
def x():
    return masked_tensor(DATA, MASK)


def test_text(x):
    assert repr(x) == ("MaskedTensor(\n  [\n    [  0.0000,       --,   2.0000],\n"
                       "    [      --,       --,   5.0000]\n  ]\n)")
    assert repr(x.sum()) == "MaskedTensor(  7.0000, True)"
    assert repr(x[0, 1]) == "MaskedTensor(--, False)"
    assert repr(x.int()[0]) == "MaskedTensor(\n  [0,       --, 2]\n)"
    assert repr(masked_tensor(torch.ones(0), torch.ones(0).bool())) == "MaskedTensor(\n  []\n)"


def test_parts_and_attributes(x):
    assert is_masked_tensor(x) and isinstance(x, torch.Tensor) and not is_masked_tensor(DATA)
    assert torch.equal(x.get_data(), DATA) and torch.equal(x.get_mask(), MASK)
    assert x.shape == (2, 3) and x.dtype is torch.float32 and len(x) == 2 and x.numel() == 6
    assert x.to_tensor(-1.0).tolist() == [[0, -1, 2], [-1, -1, 5]]
    for convert in (x.tolist, x.numpy):
        with pytest.raises(RuntimeError, match="not supported for tensor subclasses"):
            convert()


@pytest.mark.parametrize("function", [
    torch.exp, torch.neg, lambda t: t + 1, lambda t: 2 * t, lambda t: t * t, lambda t: t > 2,
    lambda t: t + DATA, torch.isnan, lambda t: t.clamp(1, 3)])
def test_elementwise(x, function):
    result = function(x)
    assert torch.equal(result.get_mask(), MASK)
    assert torch.equal(result.get_data(), function(DATA))


def test_in_place_and_other_masks(x):
    assert x.add_(1) is x and torch.equal(x.get_data(), DATA + 1)
    with pytest.raises(ValueError, match="Input masks must match"):
        x + masked_tensor(DATA, ~MASK)
    with pytest.raises(TypeError, match="no rule"):
        x @ x.t()
    with pytest.raises(NotImplementedError, match="dense"):
        x.to_sparse()


def test_reductions(x):
    assert torch.equal(x.sum(0).to_tensor(-1.0), torch.tensor([0.0, -1, 7]))
    assert torch.equal(x.amax(1).get_data(), torch.tensor([2.0, 5]))
    assert torch.equal(torch.mean(x, 1).get_data(), torch.tensor([1.0, 5]))
    assert x.prod().get_data().item() == 0 and x.argmax().get_data().item() == 5
    assert x.sum(1, keepdim=True).shape == (2, 1) and x.norm().get_data().item() > 5
    assert x.all().get_data().item() is False and x.any().get_data().item() is True
    soft = torch.softmax(x, 1).to_tensor(0.0)
    torch.testing.assert_close(soft.sum(1), torch.ones(2))
    assert torch.masked.sum(x, 1).tolist() == [2.0, 5.0]  # functions take them too


def test_movements(x):
    for moved, data, mask in ((x.t(), DATA.t(), MASK.t()), (x.T, DATA.T, MASK.T),
                              (x.view(3, 2), DATA.view(3, 2), MASK.view(3, 2)),
                              (x[0], DATA[0], MASK[0]), (x.unsqueeze(0), DATA[None], MASK[None])):
        assert torch.equal(moved.get_data(), data) and torch.equal(moved.get_mask(), mask)
    assert [torch.equal(row.get_mask(), m) for row, m in zip(x, MASK, strict=True)] == [True, True]
    joined = torch.cat([x, x])
    assert joined.shape == (4, 3) and torch.equal(joined.get_mask(), torch.cat([MASK, MASK]))
    chosen = torch.where(MASK, x, 2 * x)
    assert torch.equal(chosen.get_mask(), MASK)
    assert torch.equal(x.where(MASK, 0.0).get_mask(), MASK | ~MASK)
    assert x.double().dtype is torch.float64 and torch.equal(x.to(torch.int64).get_mask(), MASK)


def test_gradients():
    data = torch.arange(6.0).reshape(2, 3).requires_grad_()
    (as_masked_tensor(data, MASK) * 3).sum().backward()
    assert torch.equal(data.grad, 3 * MASK.float())
    leaf = masked_tensor(DATA, MASK, requires_grad=True)
    (leaf * leaf).sum().backward()
    assert leaf.is_leaf and isinstance(leaf.grad, MaskedTensor)
    assert torch.equal(leaf.grad.to_tensor(0.0), 2 * DATA * MASK)


def test_copies(x):
    for other in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x)), x.clone()):
        assert torch.equal(other.get_data(), DATA) and torch.equal(other.get_mask(), MASK)


@pytest.mark.parametrize("data, mask, error", [
    ([1.0], MASK, TypeError), (DATA, MASK.int(), TypeError), (DATA, MASK[0], ValueError),
    (DATA.to(torch.complex64), MASK, TypeError), (DATA, MASK[:1], ValueError),
    (DATA.to_sparse(), MASK, NotImplementedError)])
def test_what_is_no_masked_tensor(data, mask, error):
    with pytest.raises(error):
        masked_tensor(data, mask)
