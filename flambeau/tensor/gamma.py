"""Gamma and Dirichlet numbers: PyTorch's streams, with gradients."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from flambeau.autograd.function import Function, once_differentiable
from flambeau.autograd.grad_mode import LEVELS, mode
from flambeau.core import dtypes
from flambeau.core.arguments import need_tensor
from flambeau.tensor import creation, interop, launches
from flambeau.tensor.fills import fill
from flambeau.tensor.functions import ops
from flambeau.tensor.tensor import Tensor

__all__ = ["_dirichlet_grad", "_sample_dirichlet", "_standard_gamma", "_standard_gamma_grad"]

_NODES = 20


@functools.cache
def _rule() -> Tensor:
    """Gauss and Legendre's rule on [0, 1] for two panels: nodes, weights and number of the panel,
    (3, 2 * _NODES)."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    table = np.array([np.tile((nodes + 1) / 2, 2), np.tile(weights / 2, 2),
                      np.repeat((0.0, 1.0), _NODES)])
    return interop.from_numpy(table)


def _needs_real(name: str, tensor: Tensor) -> None:
    need_tensor(name, "input", tensor)
    if tensor.dtype not in (dtypes.float32, dtypes.float64):
        raise NotImplementedError(f'"{name}" not implemented for '
                                  f"'{tensor.dtype.scalar_name}': convert with .float()")


def _standard_gamma_grad(input: Tensor, output: Tensor) -> Tensor:
    """How gamma numbers `output` move with their shapes `input`, at the same rank."""
    return ops._gamma_derivative(input, output, _rule())


def _dirichlet_grad(x: Tensor, alpha: Tensor, total: Tensor) -> Tensor:
    """How beta numbers `x` of parameters `alpha` and `total - alpha` move with `alpha`, divided by
    1 - x."""
    return ops._beta_derivative(x, alpha, total, _rule())


class StandardGamma(Function):
    """Gamma numbers as a function of their shapes."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, generator: Any) -> Tensor:
        drawn = _gamma_numbers(input, generator)
        ctx.save_for_backward(input, drawn)
        return drawn

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        input, drawn = ctx.saved_tensors
        return grad * _standard_gamma_grad(input, drawn), None


def _gamma_numbers(shapes: Tensor, generator: Any) -> Tensor:
    if mode() & LEVELS:
        numbers = functools.partial(_gamma_numbers, generator=generator)
        return launches.late.draws(numbers, shapes)
    given = shapes.detach().contiguous()
    made = creation.empty(tuple(given.shape), dtype=given.dtype, device=given.device)
    return fill(made, "gamma", (), generator, given=given._ptr)


def _standard_gamma(input: Tensor, generator: Any = None) -> Tensor:
    """A gamma number of rate 1 for each shape in `input`; differentiable.

    Raises:
        NotImplementedError: a dtype other than float32 and float64.
    """
    _needs_real("gamma_cpu", input)
    if input.requires_grad:
        return StandardGamma.apply(input, generator)
    return _gamma_numbers(input, generator)


class SampleDirichlet(Function):
    """Dirichlet numbers as a function of their concentrations."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, generator: Any) -> Tensor:
        drawn = _dirichlet_numbers(input, generator)
        ctx.save_for_backward(input, drawn)
        return drawn

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        input, drawn = ctx.saved_tensors
        total = input.sum(-1, True).expand_as(input)
        motion = _dirichlet_grad(drawn, input, total)
        return motion * (grad - (drawn * grad).sum(-1, True)), None


def _dirichlet_numbers(concentration: Tensor, generator: Any) -> Tensor:
    """Gamma numbers over their sum, in double; below 1, and at least the smallest normal number."""
    info = np.finfo(concentration.dtype.numpy)
    draws = _gamma_numbers(concentration.detach().double(), generator)
    below = float(np.nextafter(info.dtype.type(1), info.dtype.type(0)))
    shares = (draws / draws.sum(-1, True)).to(concentration.dtype)
    return shares.clamp(float(info.tiny), below)


def _sample_dirichlet(input: Tensor, generator: Any = None) -> Tensor:
    """Dirichlet numbers of the concentrations along the last dimension; differentiable.

    Raises:
        NotImplementedError: a dtype other than float32 and float64.
    """
    _needs_real("dirichlet", input)
    if input.requires_grad:
        return SampleDirichlet.apply(input, generator)
    return _dirichlet_numbers(input, generator)
