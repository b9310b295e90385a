"""What every op of the table must keep to under transforms; tests/func uses it."""

from __future__ import annotations

from typing import Any

import numpy as np
import op_cases as oc

import flambeau as torch
from flambeau.func import jvp, vjp, vmap

__all__ = ["check_batch", "check_tangents"]


def _tensors(value: Any) -> list:
    return [x for x in oc.leaves(value) if isinstance(x, torch.Tensor)]


def _made(arg: Any) -> Any:
    if isinstance(arg, np.ndarray):
        return oc.to_tensor(torch, arg)
    return tuple(_made(item) for item in arg) if isinstance(arg, tuple) else arg


def _filled(arg: Any, tensors: Any) -> Any:
    if isinstance(arg, torch.Tensor):
        return next(tensors)
    return tuple(_filled(item, tensors) for item in arg) if isinstance(arg, tuple) else arg


class Call:
    """A call of an op as a function of its tensors; results are a tuple of tensors.

    Attributes:
        tensors: of the sample; works: whether the op takes it (the dtype may be refused).
    """

    def __init__(self, record: Any, case: Any):
        self.function = oc.function_of(record)
        self.args = _made(case.args), tuple(_made(v) for v in case.kwargs.values())
        self.names = tuple(case.kwargs)
        self.tensors = _tensors(self.args)
        try:
            self.works = bool(self.tensors and self(*self.tensors))
        except (RuntimeError, TypeError, NotImplementedError, IndexError, ValueError):
            self.works = False

    def __call__(self, *tensors: Any) -> tuple:
        args, kwargs = _filled(self.args, iter(tensors))
        results = self.function(*args, **dict(zip(self.names, kwargs, strict=True)))
        return tuple(_tensors((results,)))


def check_batch(record: Any, case: Any) -> bool:
    """vmap gives what a loop gives: over all tensors, over the first, and over the last along its
    last dimension."""
    call, checked = Call(record, case), False
    if not call.works:
        return False
    count = len(call.tensors)
    for chosen, last in ((set(range(count)), False), ({0}, False), ({count - 1}, True)):
        stacks, dims = [], []
        for place, tensor in enumerate(call.tensors):
            dim = (tensor.dim() if last else 0) if place in chosen else None
            dims.append(dim)
            stacks.append(tensor if dim is None else torch.stack(_examples(tensor), dim))
        try:
            rows = [call(*[s if d is None else s.select(d, b)
                           for s, d in zip(stacks, dims, strict=True)]) for b in range(3)]
        except RuntimeError:
            continue
        found = vmap(call, in_dims=tuple(dims))(*stacks)
        for column, result in zip(zip(*rows, strict=True), found, strict=True):
            _check_close(result, torch.stack(column))
        checked = True
    return checked


def _examples(tensor: Any) -> list:
    """Three tensors like this one; indices stay what they are."""
    other = tensor.flip(0) if tensor.dim() and tensor.dtype.is_floating_point else tensor
    return [tensor, other, tensor]


def _check_close(found: Any, wanted: Any) -> None:
    assert found.shape == wanted.shape and found.dtype is wanted.dtype
    np.testing.assert_allclose(found.detach().numpy(), wanted.detach().numpy(), 1e-6, 1e-6)


def check_tangents(record: Any, case: Any) -> bool:
    """<J t, w> equals <t, J* w>: forward mode and the gradient are transposes of each other."""
    call = Call(record, case)
    if not call.works or not record.differentiable:
        return False
    moving = [t for t in call.tensors if _moves(t)]

    def function(*tensors: Any) -> tuple:
        given = iter(tensors)
        results = call(*[next(given) if _moves(t) else t for t in call.tensors])
        return tuple(r for r in results if _moves(r))

    results = function(*moving)
    if not moving or not sum(r.numel() for r in results):
        return False
    torch.manual_seed(1)
    weights = tuple(torch.randn(r.shape, dtype=r.dtype) for r in results)
    moves = tuple(torch.randn(t.shape, dtype=t.dtype) for t in moving)
    try:
        gradients = vjp(function, *moving)[1](weights)
    except NotImplementedError:
        return False
    tangents = jvp(function, tuple(moving), moves)[1]
    forwards, backwards = _inner(tangents, weights), _inner(gradients, moves)
    assert abs(forwards - backwards) <= 1e-6 * (1 + abs(forwards)) or (
        np.isnan(forwards) and np.isnan(backwards))
    return True


def _moves(tensor: Any) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _inner(a: Any, b: Any) -> float:
    return sum(float(np.real(np.vdot(x.detach().numpy(), y.detach().numpy())))
               for x, y in zip(a, b, strict=True))
