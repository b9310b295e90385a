"""Compiled functions of tensors that are made of others: they run, in parts or as they are."""

import pytest

import flambeau as torch
from flambeau.masked import masked_tensor


def test_sparse_nested_and_masked_arguments():
    x, s = torch.arange(6.0).reshape(3, 2), torch.eye(3).to_sparse()
    nested = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)], layout=torch.jagged)
    masked = masked_tensor(torch.arange(3.0), torch.tensor([True, False, True]))
    for function, args in (
            (lambda a, b: (a @ b).sum(), (s, x)),
            (lambda a, b: (a @ b).sum(), (s.to_sparse_csr(), x)),
            (lambda n: (n * 2).select(-1, 0).sum(), (nested,)),
            (lambda m: (m * 2).sum().get_data(), (masked,))):
        compiled = torch.compile(function)
        for _ in range(3):
            assert torch.equal(compiled(*args), function(*args))


def test_whole_graphs_say_why_not():
    with pytest.raises(RuntimeError, match="no memory of its own"):
        torch.compile(lambda s: s.sum(), fullgraph=True)(torch.eye(2).to_sparse())


def test_modules_that_hold_sparse_matrices():
    class Propagate(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("adjacency", torch.eye(3).to_sparse())
            self.linear = torch.nn.Linear(2, 2)

        def forward(self, x):
            return self.linear(self.adjacency @ x)

    module = Propagate()
    compiled, x = torch.compile(module), torch.ones(3, 2)
    for _ in range(3):
        torch.testing.assert_close(compiled(x), module(x))


def test_sizes_vary_while_sparse_tensors_live():
    """A capture for all sizes settles the layouts of every tensor that there is."""
    bystander = torch.eye(2).to_sparse()
    compiled = torch.compile(lambda x: (x * 2).sum(0))
    for size in (2, 3, 4):
        assert compiled(torch.ones(size, 2)).tolist() == [2.0 * size] * 2
    assert bystander.is_sparse


def test_sizes_vary_while_tensors_live_that_left_their_vmap():
    escaped = []
    torch.vmap(lambda x: (escaped.append(x), x * 2)[1])(torch.ones(3, 2))
    compiled = torch.compile(lambda x: (x * 2).sum(0))
    for size in (2, 3, 4):
        assert compiled(torch.ones(size, 2)).tolist() == [2.0 * size] * 2
    assert "BatchedTensor" in repr(escaped[0])


def test_arguments_of_compile_that_have_no_effect():
    f = torch.compile(lambda x: x + 1, name="f", recompile_limit=3, isolate_recompiles=True)
    assert f(torch.zeros(1)).item() == 1
    with pytest.raises(NotImplementedError, match="mark_dynamic"):
        torch.compile(len, shapes_spec={})
