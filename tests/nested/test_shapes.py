"""Nested tensors: operations that move, choose, join and reduce, against the parts one by one."""

import pytest

import flambeau as torch
import flambeau.nn.functional as F

LAYOUTS = (torch.strided, torch.jagged)


def pair(layout, width=3):
    parts = [torch.arange(2.0 * width).reshape(2, width),
             torch.arange(3.0 * width).reshape(3, width)]
    return torch.nested.nested_tensor(parts, layout=layout), parts


def same(nested, expected):
    assert nested.is_nested
    found = nested.unbind()
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and torch.equal(a, b)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dimensions_that_are_not_ragged(layout):
    n, parts = pair(layout)
    same(n.select(-1, 1), [p[:, 1] for p in parts])
    same(n.narrow(-1, 1, 2), [p[:, 1:] for p in parts])
    same(n[:, :, 0], [p[:, 0] for p in parts])
    same(n.unsqueeze(1), [p.unsqueeze(0) for p in parts])
    same(n.unsqueeze(-1), [p.unsqueeze(-1) for p in parts])
    same(n.unsqueeze(-1).squeeze(-1), parts)
    same(n.squeeze(-1), parts)
    same(n.unflatten(-1, (1, 3)), [p.reshape(-1, 1, 3) for p in parts])
    same(n.unflatten(-1, (3, 1)).flatten(-2), parts)
    same(n.permute(0, 2, 1), [p.t() for p in parts])
    for k, piece in enumerate(n.split([1, 2], -1)):
        same(piece, [p.split([1, 2], -1)[k] for p in parts])
    same(n.chunk(3, -1)[2], [p[:, 2:] for p in parts])
    same(torch.cat([n, n], -1), [torch.cat([p, p], -1) for p in parts])
    same(torch.stack([n, n], -1), [torch.stack([p, p], -1) for p in parts])
    same(n.view(2, -1, 3, 1), [p.unsqueeze(-1) for p in parts])
    same(torch.reshape(n, (2, -1, 1, 3)), [p.unsqueeze(1) for p in parts])
    same(F.rms_norm(n, (3,)), [F.rms_norm(p, (3,)) for p in parts])
    for wrong in (lambda: n.unsqueeze(0), lambda: n.squeeze(0), lambda: n.squeeze(),
                  lambda: n.view(3, -1)):
        with pytest.raises(RuntimeError):
            wrong()


def test_the_ragged_size_names_its_dimension():
    n, parts = pair(torch.jagged)
    same(n.view(2, n.size(1), 3, 1), [p.unsqueeze(-1) for p in parts])
    same(n.reshape(n.shape), parts)
    same(n.unsqueeze(-1).expand(-1, -1, -1, 4), [p.unsqueeze(-1).expand(-1, -1, 4) for p in parts])
    assert n.select(2, 0).size(1) is n.size(1) and n.transpose(1, 2).size(2) is n.size(1)
    for wrong in (lambda: n.select(1, 0), lambda: n.narrow(1, 0, 1), lambda: n.flatten(1, 2),
                  lambda: n.view(2, 3, -1), lambda: n.transpose(0, 1)):
        with pytest.raises((RuntimeError, ValueError)):
            wrong()


def test_strided_ones_join_along_the_batch_and_slice_within():
    n, parts = pair(torch.strided)
    same(torch.cat([n, n]), parts + parts)
    same(n.narrow(0, 1, 1), parts[1:])
    same(n.select(1, 0), [p[0] for p in parts])
    same(torch.softmax(n, 1), [torch.softmax(p, 0) for p in parts])
    assert n._nested_tensor_size().tolist() == [[2, 3], [3, 3]]
    assert n._nested_tensor_strides().tolist() == [[3, 1], [3, 1]]
    assert n._nested_tensor_storage_offsets().tolist() == [0, 6]
    n.fill_(2.0)
    assert n.unbind()[1].tolist() == [[2.0] * 3] * 3
    leaf = torch.nested.nested_tensor([torch.ones(1)], requires_grad=True)
    assert repr(leaf) == ("nested_tensor([\n  tensor([1.], requires_grad=True)\n], "
                          "requires_grad=True)")


def test_reductions_along_any_dimension():
    n, parts = pair(torch.jagged)
    assert torch.equal(n.amax(1), torch.stack([p.amax(0) for p in parts]))
    assert torch.equal(n.max(1).indices, torch.stack([p.max(0).indices for p in parts]))
    values = n.max(2).values
    same(values, [p.max(1).values for p in parts])
    same(n.prod(2), [p.prod(1) for p in parts])
    assert torch.equal(n.sum((0, 1)), sum(p.sum(0) for p in parts))
    assert n.argmax().item() == 14 and n.prod().item() == 0
    with pytest.raises(RuntimeError, match="batch"):
        n.amax(0)


def test_products_with_matrices_of_their_own():
    for layout in LAYOUTS:
        n, parts = pair(layout)
        many = torch.arange(24.0).reshape(2, 3, 4)
        for product in (torch.matmul(n, many), torch.bmm(n, many)):
            same(product, [p @ m for p, m in zip(parts, many, strict=True)])
    n, parts = pair(torch.jagged)
    dense = torch.matmul(n.transpose(1, 2), n)
    assert torch.equal(dense, torch.stack([p.t() @ p for p in parts]))


def test_look_ups_and_draws():
    index = torch.nested.nested_tensor([torch.tensor([0, 1]), torch.tensor([1])],
                                       layout=torch.jagged)
    table = torch.arange(4.0).reshape(2, 2)
    same(F.embedding(index, table), [table[:2], table[1:]])
    for layout in LAYOUTS:
        n, parts = pair(layout)
        drawn = torch.randn_like(n)
        assert [p.shape for p in drawn.unbind()] == [p.shape for p in parts]


def test_parts_with_holes_between_them():
    values = torch.arange(10.0).reshape(5, 2)
    y = torch.nested.nested_tensor_from_jagged(values, torch.tensor([0, 2, 5]),
                                               torch.tensor([1, 2]))
    assert y.lengths().tolist() == [1, 2] and not y.is_contiguous()
    assert torch.equal(y.values(), values) and y.offsets().tolist() == [0, 2, 5]
    assert "contiguous=False" in repr(y) and y.detach().lengths() is not None
    same(y, [values[:1], values[2:4]])
    same(y * 2, [2 * values[:1], 2 * values[2:4]])
    assert y.contiguous().lengths() is None and y.sum().item() == values[[0, 2, 3]].sum().item()
    with pytest.raises(RuntimeError, match="holes"):
        y.add_(1)
    cut = torch.nested.narrow(values.reshape(1, 5, 2), 1, torch.tensor([1]), torch.tensor([3]),
                              layout=torch.jagged)
    same(cut, [values[1:4]])
    assert cut.offsets().tolist() == [1, 4] and cut.lengths().tolist() == [3]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_attention_modules_take_them(layout):
    torch.manual_seed(0)
    n, parts = pair(layout, 4)
    attention = torch.nn.MultiheadAttention(4, 2, batch_first=True)
    result, weights = attention(n, n, n)
    for k, part in enumerate(parts):
        one, weight = attention(part, part, part)
        torch.testing.assert_close(result.unbind()[k], one)
        torch.testing.assert_close(weights[k, :len(part), :len(part)], weight)
    encoder = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2).eval()
    for found, part in zip(encoder(n).unbind(), parts, strict=True):
        torch.testing.assert_close(found, encoder(part.unsqueeze(0))[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_without_elements(layout):
    n, _ = pair(layout)
    made = torch.nested.nested_tensor([torch.ones(2, 3)], layout=layout, device="meta")
    for m in (n.to("meta"), made):
        assert m.is_meta and m.unbind()[0].is_meta and m.unbind()[0].shape == (2, 3)
        assert (m * 2).is_meta and m.double().dtype is torch.float64
        with pytest.raises(NotImplementedError, match="no data"):
            m.cpu()
