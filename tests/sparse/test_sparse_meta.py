"""Sparse tensors without elements (meta), and corners of those with."""

import copy
import pickle

import pytest

import flambeau as torch


def on_meta(shape=(4, 5), nnz=3):
    return torch.sparse_coo_tensor(torch.zeros(2, nnz, dtype=torch.int64, device="meta"),
                                   torch.zeros(nnz, device="meta"), shape)


def test_they_have_all_but_numbers():
    m = on_meta()
    assert m.is_meta and m.is_sparse and m.device == torch.device("meta")
    assert (m.shape, m._nnz(), m.sparse_dim(), m.dense_dim()) == ((4, 5), 3, 2, 0)
    assert repr(m) == ("tensor(indices=tensor(..., size=(2, 3)),\n       values=tensor(..., "
                       "size=(3,)),\n       device='meta', size=(4, 5), layout=torch.sparse_coo)")
    for other in (m.detach(), copy.deepcopy(m), pickle.loads(pickle.dumps(m)), m.clone()):
        assert other.is_meta and other.shape == m.shape
    with pytest.raises(NotImplementedError, match="no data"):
        m.cpu()


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_they_are_made_like_others(layout):
    made = torch.zeros(2, 3, layout=layout, device="meta")
    assert made.is_meta and made.layout is layout and made._nnz() == 0
    moved = torch.eye(2).to_sparse(layout=layout).to("meta")
    assert moved.is_meta and moved._nnz() == 2
    like = torch.zeros_like(torch.eye(2).to_sparse(layout=layout), device="meta")
    assert like.is_meta and like.layout is layout
    with torch.device("meta"):
        assert torch.sparse_coo_tensor([[0], [1]], [1.0], (2, 2)).is_meta
    parts = [torch.zeros(3, dtype=torch.int64, device="meta") for _ in range(2)]
    c = torch.sparse_csr_tensor(*parts, torch.zeros(3, device="meta"), (2, 5))
    assert repr(c).endswith("values=tensor(..., size=(3,)), device='meta', size=(2, 5),\n"
                            "       layout=torch.sparse_csr)")
    with pytest.raises(RuntimeError, match="give the size"):
        torch.sparse_csr_tensor(*parts, torch.zeros(3, device="meta"))


def test_operations_give_shapes():
    m = on_meta()
    assert (m @ torch.zeros(5, 2, device="meta")).shape == (4, 2)
    assert m.t().shape == (5, 4) and m.abs().is_sparse and (m * 2).is_meta
    assert m.sum().shape == () and m.to_dense().shape == (4, 5)
    assert torch.cat([m, m]).shape == (8, 5) and m.to_sparse_csr().layout is torch.sparse_csr
    assert m.double().dtype is torch.float64
    leaf = torch.eye(3).to_sparse().requires_grad_()
    assert leaf.to("meta").requires_grad


# ---------------------------------------------------------------------- corners
def test_sizes_alone():
    assert torch.sparse_coo_tensor(size=(2, 3)).shape == (2, 3)


def test_division_by_a_number_with_rounding():
    a = torch.sparse_coo_tensor([[0, 0], [1, 1]], [3.0, 4.0], (2, 2))
    assert torch.div(a, 2).to_dense()[0, 1] == 3.5
    assert torch.div(a, 2, rounding_mode="floor").to_dense()[0, 1] == 3
    assert torch.floor_divide(a, 2).to_dense()[0, 1] == 3  # of the sum, 7
    assert a.div_(2).to_dense()[0, 1] == 3.5


def test_elements_cannot_be_assigned():
    a = torch.eye(2).to_sparse()
    for key in (0, (0, 0)):
        with pytest.raises(TypeError, match="Cannot assign to a sparse tensor"):
            a[key] = 1


def test_joins_and_moves():
    a = torch.tensor([[0.0, 1], [2, 0]])
    s = a.to_sparse()
    assert torch.equal(torch.hstack([s, s]).to_dense(), torch.hstack([a, a]))
    assert torch.equal(torch.vstack([s, s]).to_dense(), torch.vstack([a, a]))
    assert torch.equal(s.movedim(0, 1).to_dense(), a.t())
    for wrong in (lambda: s.reshape(4), s.flatten):
        with pytest.raises(RuntimeError, match="reshape is not implemented for sparse"):
            wrong()


@pytest.mark.parametrize("layout", [torch.sparse_bsr, torch.sparse_bsc])
def test_blocks_keep_their_zeros_in_coordinates(layout):
    blocks = torch.eye(4).to_sparse(layout=layout, blocksize=(2, 2))
    found = blocks.to_sparse_coo()
    assert found._nnz() == 8 and found.is_coalesced()
    assert torch.equal(found.to_dense(), torch.eye(4))
    assert blocks.to("meta").to_sparse_coo()._nnz() == 8


def test_text_of_parameters_and_types():
    s = torch.eye(2).to_sparse()
    assert repr(torch.nn.Parameter(s)).startswith("Parameter containing:\ntensor(indices=")
    assert s.type() == "torch.sparse.FloatTensor"
    torch.set_default_dtype(torch.float64)
    try:
        assert "dtype" not in repr(torch.eye(2).to_sparse())
        assert repr(torch.tensor([1.0])) == "tensor([1.])"
        assert repr(torch.ones(1, dtype=torch.float32)) == "tensor([1.], dtype=torch.float32)"
    finally:
        torch.set_default_dtype(torch.float32)


def test_gradients_of_equal_entries_count_once():
    values = torch.tensor([1.0, 3, 5], requires_grad=True)
    made = torch.sparse_coo_tensor([[0, 2, 2]], values, (3,))
    (made.to_dense() ** 2).sum().backward()
    assert values.grad.tolist() == [2, 16, 16]
    leaf = made.detach().requires_grad_()
    (2 * leaf).to_dense().sum().backward()
    assert leaf.grad.to_dense().tolist() == [2, 0, 2]
    leaf.grad = None
    (leaf.to_dense() * leaf.coalesce().to_dense()).sum().backward()
    assert leaf.grad.to_dense().tolist() == [2, 0, 16]


def test_matrices_of_a_batch_keep_their_layout():
    batch = torch.arange(12.0).reshape(2, 2, 3) + 1
    for layout in (torch.sparse_csr, torch.sparse_csc):
        one = batch.to_sparse(layout=layout)[1]
        assert one.layout is layout and torch.equal(one.to_dense(), batch[1])


def test_powers():
    s = torch.tensor([[0.0, 2], [4, 0]]).to_sparse()
    assert (s ** -1).to_dense().tolist() == [[0, 0.5], [0.25, 0]]
    with pytest.raises(RuntimeError, match="zeroth power"):
        s ** 0


def test_new_ones_without_entries():
    s = torch.eye(2).to_sparse()
    for layout in (torch.sparse_coo, torch.sparse_csr):
        made = s.to_sparse(layout=layout).new_zeros(2, 3)
        assert made.layout is layout and made.shape == (2, 3) and made._nnz() == 0
    assert torch.nested.nested_tensor([torch.ones(2)]).new_zeros(2).layout is torch.strided
