"""Writing into tensors: values, dtypes, memory that is shared or overlaps. These tests also run
under PyTorch (tests/conformance)."""

from __future__ import annotations

import numpy as np
import pytest


def test_in_place_forms_return_the_tensor(torch):
    x = torch.arange(4.0)
    y = x
    assert x.add_(1) is x and x.mul_(2) is x and x.clamp_(0, 6) is x
    assert y.tolist() == [2, 4, 6, 6]
    assert x.zero_() is x and x.fill_(3) is x and x.copy_(torch.ones(4)) is x
    assert x.tolist() == [1, 1, 1, 1]


def test_augmented_operators_write_into_the_tensor(torch):
    x = torch.arange(1.0, 5.0)
    same = x
    x += 1
    x -= 0.5
    x *= 2
    x /= 3
    x **= 2
    x //= 1
    x %= 3
    assert same is x and x.tolist() == [1.0, 2.0, 2.0, 0.0]
    bits = torch.tensor([1, 2, 3])
    other = bits
    bits |= 4
    bits &= 6
    bits ^= 1
    bits <<= 1
    bits >>= 2
    assert other is bits and bits.tolist() == [2, 3, 3]


def test_numbers_of_a_higher_kind_are_refused(torch):
    x = torch.ones(2, dtype=torch.int64)
    for change in (lambda: x.add_(1.5), lambda: x.div_(2), lambda: x.mul_(torch.ones(2)),
                   lambda: x.exp_()):
        with pytest.raises(RuntimeError, match="can't be cast to the desired output type Long"):
            change()
    with pytest.raises(RuntimeError, match="result type ComplexFloat can't be cast"):
        torch.ones(2).add_(1j)
    with pytest.raises(RuntimeError, match="can't be cast to the desired output type Bool"):
        torch.zeros(2, dtype=torch.bool).add_(1)
    assert x.tolist() == [1, 1]


def test_lower_kinds_are_converted(torch):
    x = torch.ones(2, dtype=torch.float16)
    x.add_(torch.ones(2, dtype=torch.float64))
    assert x.dtype is torch.float16 and x.tolist() == [2, 2]
    y = torch.ones(2, dtype=torch.int8)
    y += torch.tensor([1, 2])
    assert y.dtype is torch.int8 and y.tolist() == [2, 3]
    z = torch.zeros(2)
    z.copy_(torch.tensor([1, 2]))
    z.eq_(1)
    assert z.tolist() == [1, 0] and z.dtype is torch.float32


def test_the_target_is_not_broadcast(torch):
    x = torch.ones(3)
    x += torch.ones(1)
    with pytest.raises(RuntimeError, match=r"output with shape \[3\] doesn't match the broadcast"):
        x += torch.ones(2, 3)
    assert x.tolist() == [2, 2, 2]


def test_writes_go_through_views(torch):
    x = torch.zeros(3, 4)
    x[1].fill_(1)
    x[:, 2].add_(5)
    x.t()[0].mul_(0).sub_(1)
    x.view(-1)[-1] = 9
    x.diagonal().neg_()
    assert x.tolist() == [[1, 0, 5, 0], [-1, -1, 6, 1], [-1, 0, -5, 9]]


def test_views_see_writes(torch):
    x = torch.zeros(2, 3)
    row, turned, flat = x[1], x.t(), x.view(6)
    x.add_(torch.arange(6.0).reshape(2, 3))
    assert row.tolist() == [3, 4, 5] and turned[2].tolist() == [2, 5]
    assert flat.tolist() == [0, 1, 2, 3, 4, 5]


def test_equal_memory_may_be_read_and_written(torch):
    x = torch.arange(4.0)
    x.add_(x)
    x.mul_(x.view(4))
    assert x.tolist() == [0, 4, 16, 36]
    torch.exp(x[:1], out=x[:1])
    assert x[0].item() == 1


def test_overlapping_memory_is_refused(torch):
    x = torch.arange(6.0)
    with pytest.raises(RuntimeError, match="unsupported operation: some elements of the input"):
        x[1:].add_(x[:-1])
    with pytest.raises(RuntimeError, match="unsupported operation: more than one element"):
        torch.zeros(1).expand(3).add_(1)
    assert x.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_transposed_source_is_read_before_it_is_written(torch):
    x = torch.arange(9.0).reshape(3, 3)
    expected = x.numpy() + x.numpy().T
    x += x.t().clone()
    np.testing.assert_array_equal(x.numpy(), expected)


def test_out(torch):
    a, out = torch.arange(3.0), torch.empty(3)
    assert torch.add(a, 1, out=out) is out and out.tolist() == [1, 2, 3]
    wide = torch.zeros(3, 5)
    torch.mul(a, 2, out=wide[:, 1])
    assert wide[:, 1].tolist() == [0, 2, 4] and wide.sum().item() == 6
    double = torch.empty(3, dtype=torch.float64)
    assert torch.exp(torch.zeros(3), out=double).dtype is torch.float64
    with pytest.raises(RuntimeError, match="result type Float can't be cast"):
        torch.exp(a, out=torch.empty(3, dtype=torch.int64))
    with pytest.raises(RuntimeError, match="don't support automatic differentiation"):
        torch.exp(torch.ones(2, requires_grad=True), out=torch.empty(2))
    with pytest.raises(TypeError):
        torch.exp(a, out=[1.0])


def test_out_of_several_results(torch):
    values, indices = torch.empty(2), torch.empty(2, dtype=torch.int64)
    found = torch.max(torch.tensor([[1.0, 5.0], [7.0, 2.0]]), 1, out=(values, indices))
    assert values.tolist() == [5, 7] and indices.tolist() == [1, 0]
    assert found.values is values and found.indices is indices


def test_in_place_changes_of_shape(torch):
    x = torch.arange(6.0).reshape(2, 3)
    assert x.unsqueeze_(0) is x and x.shape == (1, 2, 3)
    assert x.squeeze_().shape == (2, 3) and x.t_().shape == (3, 2)
    assert x.transpose_(0, 1).tolist() == [[0, 1, 2], [3, 4, 5]]
    y = torch.zeros(2)
    assert y.resize_(2, 3) is y and y.shape == (2, 3)


def test_versions_count_writes(torch):
    x = torch.zeros(3)
    view, detached = x[1:], x.detach()
    first = x._version
    x.add_(1)
    view.mul_(2)
    detached.sub_(1)
    x[0] = 1
    assert x._version == view._version == detached._version == first + 4
    apart = x.data
    apart.add_(1)
    assert x._version == first + 4 and x.tolist() == [2, 2, 2]


def test_masked_and_indexed_writes(torch):
    x = torch.zeros(2, 3)
    x.masked_fill_(torch.tensor([True, False, True]), 5)
    x.index_add_(1, torch.tensor([0, 0]), torch.ones(2, 2))
    x.index_fill_(0, torch.tensor([1]), -1)
    x.scatter_(1, torch.tensor([[1], [2]]), 9.0)
    assert x.tolist() == [[7, 9, 5], [-1, -1, 9]]
    x.index_copy_(0, torch.tensor([0]), torch.zeros(1, 3))
    assert x[0].tolist() == [0, 0, 0]
    x.index_put_((torch.tensor([0]), torch.tensor([1])), torch.tensor(4.0), accumulate=True)
    assert x[0].tolist() == [0, 4, 0]


def test_random_fills(torch):
    torch.manual_seed(0)
    x = torch.empty(1000)
    assert x.uniform_(2, 3) is x and x.min() >= 2 and x.max() < 3
    assert abs(x.normal_(1, 0.5).mean().item() - 1) < 0.1
    assert set(x.bernoulli_(0.3).unique().tolist()) == {0, 1}
    assert set(x.random_(0, 3).unique().tolist()) == {0, 1, 2}
    part = torch.zeros(4, 4)
    part[:, 1].uniform_(1, 2)
    assert (part != 0).sum().item() == 4
