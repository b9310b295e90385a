"""Sparse tensors against SciPy's and against dense computation."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import scipy.sparse as sp

import flambeau as torch
from flambeau.autograd import gradcheck, gradgradcheck

SPARSE_CHECK = torch.sparse.as_sparse_gradcheck(gradcheck)
SPARSE_SECOND = torch.sparse.as_sparse_gradcheck(gradgradcheck)
LAYOUTS = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)


def scipy_matrix(rows=30, columns=20, density=0.15, seed=0, dtype=np.float64):
    return sp.random(rows, columns, density, format="csr", random_state=seed, dtype=dtype)


def from_scipy(matrix, layout=torch.sparse_coo):
    found = matrix.tocoo()
    indices = torch.from_numpy(np.stack([found.row, found.col]).astype(np.int64))
    made = torch.sparse_coo_tensor(indices, torch.from_numpy(found.data), matrix.shape)
    return made.to_sparse(layout=layout)


def uncoalesced(seed=0, shape=(5, 4), count=9):
    rng = np.random.default_rng(seed)
    indices = np.stack([rng.integers(0, n, count) for n in shape])
    return torch.sparse_coo_tensor(torch.from_numpy(indices),
                                   torch.from_numpy(rng.standard_normal(count)), shape)


def dense(*shape, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def close(a, b):
    a = a.to_dense() if a.layout is not torch.strided else a
    np.testing.assert_allclose(a.detach().numpy(), np.asarray(b), rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------- construction
def test_parts_and_attributes():
    s = torch.sparse_coo_tensor([[0, 1, 1], [2, 0, 2]], [3.0, 4.0, 5.0], (2, 3))
    assert isinstance(s, torch.Tensor) and s.is_sparse and not s.is_sparse_csr
    assert s.layout is torch.sparse_coo and s.shape == (2, 3) and s.dtype is torch.float32
    assert (s._nnz(), s.sparse_dim(), s.dense_dim(), s.is_coalesced()) == (3, 2, 0, False)
    assert s._indices().tolist() == [[0, 1, 1], [2, 0, 2]] and s._values().tolist() == [3, 4, 5]
    with pytest.raises(RuntimeError, match="coalesce"):
        s.values()
    assert s.coalesce().values().tolist() == [3, 4, 5]
    assert torch.ones(2).sparse_dim() == 0 and torch.ones(2).dense_dim() == 1
    with pytest.raises(RuntimeError, match="SparseCsr"):
        s.to_sparse_csr().indices()


def test_equal_entries_add_up_in_order():
    s = uncoalesced(count=40)
    c = s.coalesce()
    expected = np.zeros((5, 4))
    np.add.at(expected, tuple(s._indices().numpy()), s._values().numpy())
    close(c, expected)
    close(s, expected)
    keys = c.indices()[0] * 4 + c.indices()[1]
    assert bool((keys[1:] > keys[:-1]).all()) and c.coalesce() is c


@pytest.mark.parametrize("indices, values, size, message", [
    ([[0, 5]], [1.0, 2.0], (2,), "size is 2 but found index 5"),
    ([[0, -1]], [1.0, 2.0], None, "negative index -1"),
    ([[0, 1]], [1.0], (2,), "same nnz"),
    ([[0, 1]], [1.0, 2.0], (2, 3), "sparse_dim"),
    ([0, 1], [1.0, 2.0], (2,), "sparse_dim x nnz"),
])
def test_wrong_coordinates_are_refused(indices, values, size, message):
    with pytest.raises(RuntimeError, match=message):
        torch.sparse_coo_tensor(indices, values, size)


@pytest.mark.parametrize("crow, col, message", [
    ([0, 1, 3], [0, 1], "nnz"), ([0, 1, 2], [0, 9], "found 9"), ([1, 1, 2], [0, 1], "== 0"),
    ([0, 2, 2, 2], [0, 1], "compressed lines"), ([0, 3, 2], [0, 1], "0 <= crow"),
])
def test_wrong_offsets_are_refused(crow, col, message):
    with pytest.raises(RuntimeError, match=message):
        torch.sparse_csr_tensor(crow, col, [1.0, 2.0], (2, 3))


def test_invariants_on_request():
    with torch.sparse.check_sparse_tensor_invariants(), pytest.raises(RuntimeError,
                                                                       match="sorted"):
        torch.sparse_csr_tensor([0, 2], [1, 1], [1.0, 2.0], (1, 3))
    assert not torch.sparse.check_sparse_tensor_invariants.is_enabled()
    with pytest.raises(RuntimeError, match="is_coalesced"):
        torch.sparse_coo_tensor([[1, 0]], [1.0, 2.0], is_coalesced=True, check_invariants=True)


# ---------------------------------------------------------------------- conversions
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.complex64])
def test_all_layouts_give_the_same_matrix(dtype):
    matrix = (scipy_matrix(12, 8, 0.3) * 10).astype(dtype)
    plain = torch.from_numpy(matrix.toarray())
    layouts = [{"layout": layout} for layout in LAYOUTS]
    layouts += [{"layout": layout, "blocksize": (3, 2)}
                for layout in (torch.sparse_bsr, torch.sparse_bsc)]
    for first in layouts:
        made = plain.to_sparse(**first)
        for second in layouts:
            turned = made.to_sparse(**second)
            assert turned.layout is second["layout"]
            assert torch.equal(turned.to_dense(), plain), (first, second)


def test_csr_and_csc_parts_equal_scipys():
    matrix = scipy_matrix()
    r, c = from_scipy(matrix, torch.sparse_csr), from_scipy(matrix, torch.sparse_csc)
    columns = matrix.tocsc()
    assert r.crow_indices().tolist() == matrix.indptr.tolist()
    assert r.col_indices().tolist() == matrix.indices.tolist()
    assert c.ccol_indices().tolist() == columns.indptr.tolist()
    assert c.row_indices().tolist() == columns.indices.tolist()
    np.testing.assert_array_equal(c.values().numpy(), columns.data)


def test_batches_and_hybrids():
    x = dense(2, 3, 4) > 0
    full = torch.where(x, dense(2, 3, 4), 0.0)
    counts = (full != 0).reshape(2, -1).sum(1)
    if counts[0] != counts[1]:
        full = torch.stack([full[0], full[0] * 2])
    assert torch.equal(full.to_sparse_csr().to_dense(), full)
    hybrid = full.to_sparse(1)
    assert (hybrid.sparse_dim(), hybrid.dense_dim()) == (1, 2)
    assert torch.equal(hybrid.to_dense(), full)
    assert torch.equal(full.to_sparse_csr().to_sparse().to_dense(), full)


def test_empty_ones():
    for layout in LAYOUTS:
        made = torch.zeros(3, 4, layout=layout)
        assert made._nnz() == 0 and torch.equal(made.to_dense(), torch.zeros(3, 4))
        assert torch.equal(made @ torch.ones(4, 2), torch.zeros(3, 2))
        assert torch.zeros_like(made).layout is layout
    assert torch.zeros(0, 4).to_sparse()._nnz() == 0
    assert (torch.zeros(3, 0).to_sparse() @ torch.ones(0, 2)).tolist() == [[0, 0]] * 3


# ---------------------------------------------------------------------- operations
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", [1, 3, 16, 70])
def test_products_equal_scipys(layout, width):
    matrix = scipy_matrix()
    s, d, e = from_scipy(matrix, layout), dense(20, width), dense(width, 30)
    close(s @ d, matrix @ d.numpy())
    close(e @ s, e.numpy() @ matrix.toarray())
    close(s @ d[:, 0], matrix @ d.numpy()[:, 0])
    close(torch.addmm(dense(30, width), s, d, beta=0.5, alpha=2),
          0.5 * dense(30, width).numpy() + 2 * (matrix @ d.numpy()))
    close(s @ s.t(), (matrix @ matrix.T).toarray())
    close(torch.nn.functional.linear(dense(7, 20), s), dense(7, 20).numpy() @ matrix.T)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32", "complex128"])
def test_products_of_other_dtypes(dtype):
    a = torch.tensor([[1, 0, 2], [0, 0, 3]], dtype=getattr(torch, dtype))
    b = torch.arange(6).reshape(3, 2).to(a.dtype)
    made = a.to_sparse_csr() @ b
    assert made.dtype is a.dtype and made.tolist() == [[8, 11], [12, 15]]


def test_products_are_equal_for_any_number_of_threads():
    s, d = from_scipy(scipy_matrix(3000, 2000, 0.01)), dense(2000, 33)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append((s @ d).numpy().tobytes())
    finally:
        torch.set_num_threads(before)
    assert len(set(found)) == 1


def test_elementwise_equals_dense():
    a, b = uncoalesced(0), uncoalesced(1)
    da, db, d = a.to_dense().numpy(), b.to_dense().numpy(), dense(5, 4)
    close(a + b, da + db)
    close(a - b, da - db)
    close(a.add(b, alpha=2), da + 2 * db)
    close(a * b, da * db)
    close(d + a, d.numpy() + da)
    close(d - a, d.numpy() - da)
    close(a * d, da * d.numpy())
    close(a * 3 / 2, da * 1.5)
    close(-a.sin(), -np.sin(da))
    close(a.to_sparse_csr() + b.to_sparse_csr(), da + db)
    close(a.clone().mul_(2).add_(b), 2 * da + db)
    close(d.clone().add_(a, alpha=-1), d.numpy() - da)
    assert a.double().dtype is torch.float64 and a.float().dtype is torch.float32
    with pytest.raises(RuntimeError, match="add\\(sparse, dense\\)"):
        a + d
    with pytest.raises(NotImplementedError, match="exp"):
        a.exp()


def test_moving_and_choosing_equal_dense():
    s = uncoalesced(2, (4, 5, 3), 20)
    d = s.to_dense().numpy()
    close(s.permute(2, 0, 1), d.transpose(2, 0, 1))
    close(s.transpose(0, 2), d.transpose(2, 1, 0))
    close(s[1], d[1])
    close(s[:, 2], d[:, 2])
    close(s[1, 2, 0], d[1, 2, 0])
    close(s[1:3], d[1:3])
    close(s.unsqueeze(1), d[:, None])
    index = torch.tensor([3, 0, 3])
    close(s.index_select(0, index), d[[3, 0, 3]])
    close(torch.cat([s, s], 1), np.concatenate([d, d], 1))
    close(torch.stack([s, s]), np.stack([d, d]))
    close(torch.narrow_copy(s, 1, 1, 3), d[:, 1:4])
    assert len(list(s)) == 4
    with pytest.raises(IndexError):
        s[7]


def test_reductions_equal_dense():
    s = uncoalesced(3, (4, 5), 12)
    d = s.to_dense().numpy()
    close(s.sum(), d.sum())
    close(torch.sparse.sum(s, 0), d.sum(0))
    close(s.sum(1, keepdim=True), d.sum(1, keepdims=True))
    np.testing.assert_allclose(s.norm().item(), np.linalg.norm(d))
    close(s.to_sparse_csr().sum(0, keepdim=True), d.sum(0, keepdims=True))


def test_softmax_over_entries():
    s = uncoalesced(4, (4, 6), 12).coalesce()
    d = np.full((4, 6), -np.inf)
    d[tuple(s.indices().numpy())] = s.values().numpy()
    for dim in (0, 1):
        with np.errstate(all="ignore"):
            e = np.exp(d - d.max(dim, keepdims=True))
            expected = np.nan_to_num(e / e.sum(dim, keepdims=True))
        close(torch.sparse.softmax(s, dim), expected)
        close(torch.sparse.log_softmax(s, dim).coalesce().values().exp(),
              expected[tuple(s.indices().numpy())])


def test_diagonals_equal_scipys():
    data, offsets = dense(3, 4), torch.tensor([0, -1, 2])
    expected = sp.spdiags(data.numpy(), offsets.numpy(), 5, 4).toarray()
    close(torch.sparse.spdiags(data, offsets, (5, 4)), expected)
    assert torch.sparse.spdiags(data, offsets, (5, 4), torch.sparse_csr).layout is torch.sparse_csr


# ---------------------------------------------------------------------- gradients
def _functions():
    mix = torch.sparse_coo_tensor([[0, 2, 3], [1, 1, 2]], dense(3, seed=5), (5, 4))
    return {
        "mm": (lambda s, d: s @ d, True), "dm": (lambda s, d: d.t()[:, :4] @ s.t(), True),
        "ss": (lambda s, d: (s @ s.t()).to_dense(), False),
        "sin": (lambda s, d: s.sin().to_dense(), False),
        "mul": (lambda s, d: (s * mix).to_dense(), False),
        "add": (lambda s, d: (s + mix).to_dense(), False),
        "sum": (lambda s, d: torch.sparse.sum(s, 0).to_dense(), False),
        "softmax": (lambda s, d: torch.sparse.softmax(s, 1).to_dense(), False),
        "csc": (lambda s, d: s.to_sparse_csc().values(), False),
        "select": (lambda s, d: s.index_select(0, torch.tensor([1, 0, 1])).to_dense(), False),
        "mean": (lambda s, d: torch.sparse.mm(s.to_sparse_csr(), d, "mean"), True),
    }


@pytest.mark.parametrize("name", list(_functions()))
def test_gradients(name):
    function, both = _functions()[name]
    s, d = uncoalesced(7).requires_grad_(), dense(4, 3).requires_grad_(both)
    assert SPARSE_CHECK(function, (s, d)) and SPARSE_SECOND(function, (s, d))


def test_gradients_are_sparse_with_the_same_places():
    s, d = uncoalesced(8).requires_grad_(), dense(4, 3).requires_grad_()
    (s @ d).sum().backward()
    assert s.is_leaf and s.grad.layout is torch.sparse_coo
    assert torch.equal(s.grad._indices(), s.detach().coalesce().indices())
    assert d.grad.layout is torch.strided
    first = s.grad.to_dense()
    (s @ d).sum().backward()
    assert torch.allclose(s.grad.to_dense(), 2 * first)
    values = dense(2).requires_grad_()
    made = torch.sparse_coo_tensor([[0, 1], [1, 0]], values, (2, 2))
    assert not made.is_leaf and made.requires_grad
    (made @ dense(2, 2)).sum().backward()
    assert torch.allclose(values.grad, dense(2, 2).sum(1)[[1, 0]])


def test_in_place_on_what_requires_grad():
    s = uncoalesced(9).requires_grad_()
    with pytest.raises(RuntimeError, match="leaf"):
        s.mul_(2)
    y = s * 1
    y.mul_(3)
    y.to_dense().sum().backward()
    places = s.detach().coalesce().indices()  # those of equal entries count once
    assert torch.equal(s.grad.to_dense()[places[0], places[1]],
                       torch.full((places.shape[1],), 3.0, dtype=torch.float64))


# ---------------------------------------------------------------------- embeddings, optimizers
@pytest.mark.parametrize("make, kwargs", [
    (torch.optim.SGD, {"lr": 0.1}), (torch.optim.Adagrad, {"lr": 0.1}),
])
def test_sparse_and_dense_embeddings_train_alike(make, kwargs):
    found = []
    for sparse in (False, True):
        table = torch.nn.Embedding(6, 3, sparse=sparse, padding_idx=1,
                                   _weight=dense(6, 3).clone())
        optimizer = make(table.parameters(), **kwargs)
        for step in range(3):
            optimizer.zero_grad()
            (table(torch.tensor([[0, 2, 1], [2, step, 5]])) ** 2).sum().backward()
            assert table.weight.grad.is_sparse is sparse
            optimizer.step()
        found.append(table.weight.detach())
    close(found[0], found[1])


def test_sparse_adam_touches_rows_with_gradients_only():
    table = torch.nn.Embedding(5, 2, sparse=True)
    before = table.weight.detach().clone()
    optimizer = torch.optim.SparseAdam(table.parameters(), lr=0.1)
    table(torch.tensor([1, 3, 1])).sum().backward()
    optimizer.step()
    moved = (table.weight.detach() != before).any(1)
    assert moved.tolist() == [False, True, False, True, False]
    assert torch.allclose((before - table.weight.detach())[[1, 3]], torch.tensor(0.1))
    with pytest.raises(RuntimeError, match="consider SparseAdam"):
        torch.optim.Adam(table.parameters()).step()


def test_bags_with_sparse_gradients():
    found = []
    for sparse in (False, True):
        bag = torch.nn.EmbeddingBag(6, 3, mode="mean", sparse=sparse, padding_idx=2,
                                    _weight=dense(6, 3).clone())
        bag(torch.tensor([0, 1, 2, 2, 5, 0]), torch.tensor([0, 3])).sum().backward()
        found.append(bag.weight.grad.to_dense())
    close(found[0], found[1])


# ---------------------------------------------------------------------- Python
def test_text():
    s = torch.sparse_coo_tensor([[0, 1], [2, 0]], [3.0, 4.0], (2, 3))
    assert repr(s) == ("tensor(indices=tensor([[0, 1],\n                       [2, 0]]),\n"
                       "       values=tensor([3., 4.]),\n"
                       "       size=(2, 3), nnz=2, layout=torch.sparse_coo)")
    assert repr(s.to_sparse_csr().requires_grad_()) == (
        "tensor(crow_indices=tensor([0, 1, 2]),\n       col_indices=tensor([2, 0]),\n"
        "       values=tensor([3., 4.]), size=(2, 3), nnz=2, layout=torch.sparse_csr,\n"
        "       requires_grad=True)")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_copies_pickles_and_checkpoints(layout):
    s = from_scipy(scipy_matrix(6, 4, 0.4), layout)
    for other in (copy.copy(s), copy.deepcopy(s), pickle.loads(pickle.dumps(s))):
        assert other.layout is layout and torch.equal(other.to_dense(), s.to_dense())
    file = io.BytesIO()
    torch.save({"s": s}, file)
    file.seek(0)
    other = torch.load(file)["s"]
    assert other.layout is layout and torch.equal(other.to_dense(), s.to_dense())


def test_memory_cannot_be_reached():
    s = uncoalesced()
    for wrong in (s.data_ptr, s.untyped_storage, s.numpy, s.tolist, lambda: s.view(-1),
                  lambda: s.uniform_(), lambda: torch.tril(s), lambda: s._ptr):
        with pytest.raises((RuntimeError, TypeError)):
            wrong()


def test_resizing():
    s = uncoalesced()
    assert s.sparse_resize_((9, 9), 2, 0).shape == (9, 9)
    with pytest.raises(RuntimeError, match="shrinking"):
        s.sparse_resize_((2, 2), 2, 0)
    assert s.sparse_resize_and_clear_((2, 2), 2, 0)._nnz() == 0


def test_buffers_and_parameters():
    module = torch.nn.Linear(2, 2)
    module.register_buffer("adjacency", uncoalesced())
    assert module.float().adjacency.dtype is torch.float32
    assert module.state_dict()["adjacency"].is_sparse
    module.load_state_dict(module.state_dict())
    assert isinstance(torch.nn.Parameter(uncoalesced()), torch.nn.Parameter)


def test_gradients_of_sampled_addmm() -> None:
    dense = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]], dtype=torch.float64)
    a = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    b = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(2, 3, dtype=torch.float64)
    leaf = dense.to_sparse_csr().requires_grad_()
    y = torch.sparse.sampled_addmm(leaf, a, b, beta=3.0, alpha=2.0)
    assert y.grad_fn.name() == "SparseSampledAddmmBackward0"
    sparse, left, right = torch.autograd.grad(y, (leaf, a, b), cotangent, retain_graph=True)
    read = cotangent * (dense != 0)
    torch.testing.assert_close(sparse, 3 * cotangent)  # the result's gradient as it is
    torch.testing.assert_close(left, 2 * read @ b.detach().T)
    torch.testing.assert_close(right, 2 * a.detach().T @ read)
    (sparse,) = torch.autograd.grad(y, leaf, cotangent.sparse_mask(leaf.detach()))
    assert sparse.layout is torch.sparse_csr
    torch.testing.assert_close(sparse.to_dense(), 3 * read)
    whole = dense.clone().requires_grad_()
    torch.sparse.sampled_addmm(whole.to_sparse_csr(), a, b).to_dense().sum().backward()
    torch.testing.assert_close(whole.grad, (dense != 0).to(torch.float64))
