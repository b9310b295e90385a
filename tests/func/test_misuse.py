"""Transforms given what they cannot take, and views of bits inside of vmap."""

from __future__ import annotations

import pytest

import flambeau as torch
from flambeau.func import hessian, jacfwd, jvp, linearize, vmap


def test_integers_have_no_tangents():
    n = torch.arange(3)
    for call in (lambda: jacfwd(torch.sin)(n), lambda: hessian(torch.sin)(n),
                 lambda: jvp(torch.sin, (n,), (n,))):
        with pytest.raises(ValueError, match="floating point or complex"):
            call()


def test_a_tangent_of_another_dtype_is_converted():
    x = torch.tensor([0.5, 1.0])
    _, tangent = jvp(torch.sin, (x,), (x.double(),))
    assert tangent.dtype is torch.float32
    assert torch.allclose(tangent, x * x.cos())


def test_linearize_needs_tensors():
    with pytest.raises(RuntimeError, match="at least one primal"):
        linearize(torch.sin)
    with pytest.raises(RuntimeError, match="only contain Tensors"):
        linearize(lambda x: 3, torch.ones(2))


@pytest.mark.parametrize(("dtype", "dim"), [
    (torch.int32, 0), (torch.int16, 0), (torch.int64, 0), (torch.uint8, 0), (torch.int32, 1)])
def test_other_readings_of_bits(dtype, dim):
    x = torch.randn(4, 4).contiguous()
    got = vmap(lambda row: row.view(dtype), in_dims=dim)(x)
    rows = x if dim == 0 else x.t()
    assert torch.equal(got, torch.stack([row.view(dtype) for row in rows]))


class Marked(torch.Tensor):
    """A class that is asked, and computes as any other."""


def test_tensors_of_a_class_beside_those_of_a_transform():
    x = torch.tensor([0.5, 1.0]).as_subclass(Marked)
    rows = torch.arange(6.0).reshape(3, 2)
    got = vmap(lambda row, y: (row + y) * 2, (0, None))(rows, x)
    assert got.tolist() == ((rows + torch.tensor([0.5, 1.0])) * 2).tolist()
    _, tangent = jvp(lambda y: (y * 2).sin(), (x,), (torch.ones(2),))
    assert torch.allclose(torch.as_tensor(tangent.tolist()), 2 * torch.tensor([1.0, 2.0]).cos())
