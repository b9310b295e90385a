"""Checks: of sparse tensors' invariants, and of gradients of functions of sparse tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from flambeau.tensor.sparse import invariants
from flambeau.tensor.sparse.tensor import SparseTensor, assemble, values_of

__all__ = ["as_sparse_gradcheck", "check_sparse_tensor_invariants"]


class check_sparse_tensor_invariants:
    """Whether constructors also check what costs more than the range of indices: that they are
    sorted and unique. As a context manager or decorator it holds within the block.

    Args:
        enable: check, or do not.

    >>> with torch.sparse.check_sparse_tensor_invariants():
    ...     a = torch.sparse_coo_tensor([[0]], [1.], (1,))
    >>> a.to_dense()
    tensor([1.])
    """

    def __init__(self, enable: bool = True) -> None:
        self.state = enable
        self._before: list[bool] = []

    @staticmethod
    def is_enabled() -> bool:
        """Are the checks on?"""
        return invariants.wanted()

    @staticmethod
    def enable() -> None:
        """Turn the checks on."""
        invariants.set_wanted(True)

    @staticmethod
    def disable() -> None:
        """Turn the checks off."""
        invariants.set_wanted(False)

    def __enter__(self) -> None:
        self._before.append(invariants.wanted())
        invariants.set_wanted(self.state)

    def __exit__(self, *error: object) -> None:
        invariants.set_wanted(self._before.pop())

    def __call__(self, function: Callable) -> Callable:
        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            with type(self)(self.state):
                return function(*args, **kwargs)

        return checked


def as_sparse_gradcheck(gradcheck: Callable) -> Callable:
    """A gradcheck that also takes sparse inputs and outputs: values are varied, patterns stay.

    The gradient of a sparse tensor is that of its values, whatever `masked` says.

    >>> check = torch.sparse.as_sparse_gradcheck(torch.autograd.gradcheck)
    >>> x = torch.eye(2, dtype=torch.float64).to_sparse().requires_grad_()
    >>> check(lambda s: s.to_dense(masked_grad=True), (x,), masked=True)
    True
    """

    @functools.wraps(gradcheck)
    def gradcheck_with_sparse(func: Callable, inputs: Any, *, masked: bool = False,
                              **options: Any) -> bool:
        given = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
        patterns = [x._pattern if isinstance(x, SparseTensor) else None for x in given]
        plain = tuple(_leaf_values(x) if isinstance(x, SparseTensor) else x for x in given)

        def of_values(*args: Any) -> Any:
            results = func(*(a if p is None else assemble(p, a)
                             for p, a in zip(patterns, args, strict=True)))
            if isinstance(results, (tuple, list)):
                return tuple(map(_plain, results))
            return _plain(results)

        return gradcheck(of_values, plain, **options)

    return gradcheck_with_sparse


def _leaf_values(tensor: SparseTensor) -> Any:
    found = tensor._elements.detach().clone()
    return found.requires_grad_(tensor.requires_grad)


def _plain(result: Any) -> Any:
    return values_of(result) if isinstance(result, SparseTensor) else result
