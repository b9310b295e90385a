"""Parametrizations of weights: orthogonal, by magnitude and direction, of spectral norm 1."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

import flambeau
from flambeau.autograd.grad_mode import no_grad
from flambeau.nn import functional as F
from flambeau.nn.modules.conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from flambeau.nn.modules.module import Module
from flambeau.nn.utils import parametrize
from flambeau.nn.utils._norms import norm_except
from flambeau.tensor import Tensor

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]


def _named(module: Module, name: str) -> Tensor:
    tensor = getattr(module, name, None)
    if not isinstance(tensor, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    return tensor


# ---------------------------------------------------------------------- orthogonal matrices
class _Maps(Enum):
    matrix_exp = auto()
    cayley = auto()
    householder = auto()


def _is_orthogonal(q: Tensor, eps: float | None = None) -> bool:
    """Has a tall (..., n, k) matrix orthonormal columns?"""
    n, k = q.size(-2), q.size(-1)
    identity = flambeau.eye(k, dtype=q.dtype, device=q.device)
    eps = 10.0 * n * flambeau.finfo(q.dtype).eps if eps is None else eps
    return bool(flambeau.allclose(q.mH @ q, identity, atol=eps))


def _nearby_orthogonal(matrix: Tensor) -> Tensor:
    """The orthogonal factor of QR, such that R has a positive diagonal: continuous in `matrix`."""
    a, tau = flambeau.geqrf(matrix)
    q = flambeau.linalg.householder_product(a, tau)
    return q * a.diagonal(dim1=-2, dim2=-1).sgn().unsqueeze(-2)


class _Orthogonal(Module):
    """A matrix with orthonormal rows or columns, from one without conditions.

    Let A be skew-symmetric, made of what lies below the diagonal. exp(A) and the Cayley transform
    (I + A/2)(I - A/2)^-1 are orthogonal; so is a product of Householder reflections.
    """

    base: Tensor | None

    def __init__(self, weight: Tensor, orthogonal_map: _Maps, *,
                 use_trivialization: bool = True) -> None:
        super().__init__()
        if weight.is_complex() and orthogonal_map is _Maps.householder:
            raise ValueError("The householder parametrization does not support complex tensors.")
        self.shape = weight.shape
        self.orthogonal_map = orthogonal_map
        self.trivialized = use_trivialization
        self.register_buffer("base", None)  # right_inverse sets it

    def forward(self, X: Tensor) -> Tensor:
        wide = X.size(-2) < X.size(-1)
        if wide:
            X = X.mT
        if self.orthogonal_map is _Maps.householder:
            q = self._reflections(X)
        else:
            q = self._rotation(X)
        if self.base is not None:
            q = self.base @ q
        return q.mT if wide else q

    def _reflections(self, X: Tensor) -> Tensor:
        below = X.tril(diagonal=-1)
        tau = 2.0 / (1.0 + (below * below).sum(dim=-2))
        q = flambeau.linalg.householder_product(below, tau)
        # whole numbers: the signs on the diagonal are not trained
        return q * X.diagonal(dim1=-2, dim2=-1).int().unsqueeze(-2)

    def _rotation(self, X: Tensor) -> Tensor:
        n, k = X.size(-2), X.size(-1)
        X = X.tril()
        if n != k:
            X = flambeau.cat([X, X.new_zeros(*X.shape[:-2], n, n - k)], dim=-1)
        skew = X - X.mH
        if self.orthogonal_map is _Maps.matrix_exp:
            q = flambeau.matrix_exp(skew)
        else:
            identity = flambeau.eye(n, dtype=X.dtype, device=X.device)
            q = flambeau.linalg.solve(flambeau.add(identity, skew, alpha=-0.5),
                                      flambeau.add(identity, skew, alpha=0.5))
        return q[..., :k]

    @no_grad()
    def right_inverse(self, Q: Tensor) -> Tensor:
        if Q.shape != self.shape:
            raise ValueError(f"Expected a matrix or batch of matrices of shape {self.shape}. "
                             f"Got a tensor of shape {Q.shape}.")
        wide = Q.size(-2) < Q.size(-1)
        tall = Q.mT if wide else Q
        if self.trivialized:
            start = self._around(tall)
        elif self.orthogonal_map is _Maps.householder:
            start = self._of_reflections(tall)
        else:
            raise NotImplementedError("It is not possible to assign to the matrix exponential or "
                                      "the Cayley parametrizations when use_trivialization=False.")
        return start.mT if wide else start

    def _of_reflections(self, tall: Tensor) -> Tensor:
        a, tau = flambeau.geqrf(tall)
        # The forward cannot tell the signs of R's diagonal: they are kept on that of A.
        diagonal = a.diagonal(dim1=-2, dim2=-1)
        diagonal.sign_()
        diagonal[tau == 0.0] *= -1
        return a

    def _around(self, tall: Tensor) -> Tensor:
        """Let `base` give the matrix, and the start the identity."""
        n, k = tall.size(-2), tall.size(-1)
        if n != k:  # the basis is completed by random directions
            more = flambeau.randn(*tall.shape[:-2], n, n - k, dtype=tall.dtype, device=tall.device)
            self.base = _nearby_orthogonal(flambeau.cat([tall, more], dim=-1))
        else:
            self.base = tall.clone() if _is_orthogonal(tall) else _nearby_orthogonal(tall)
        start = flambeau.zeros_like(tall)
        start.diagonal(dim1=-2, dim2=-1).fill_(-1.0)  # each reflection with v = 0 turns a sign
        return start


def orthogonal(module: Module, name: str = "weight", orthogonal_map: str | None = None, *,
               use_trivialization: bool = True) -> Module:
    """Keep a (..., n, k) weight orthogonal (unitary if complex): its columns, or its rows where
    there are more columns than rows; gives the module.

    Args:
        orthogonal_map: "matrix_exp", "cayley" or "householder"; by default matrix_exp for square or
            complex matrices and householder for others.
        use_trivialization: optimize around the present matrix (Lezcano-Casado 2019), which also
            makes assignments possible.

    Raises:
        ValueError: no such tensor, fewer than two dimensions, or an unknown map.
    """
    weight = _named(module, name)
    if weight.ndim < 2:
        raise ValueError(f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} "
                         "dimensions.")
    if orthogonal_map is None:
        square = weight.size(-2) == weight.size(-1)
        orthogonal_map = "matrix_exp" if square or weight.is_complex() else "householder"
    chosen = getattr(_Maps, orthogonal_map, None)
    if chosen is None:
        raise ValueError("orthogonal_map has to be one of \"matrix_exp\", \"cayley\", "
                         f"\"householder\". Got: {orthogonal_map}")
    made = _Orthogonal(weight, chosen, use_trivialization=use_trivialization)
    parametrize.register_parametrization(module, name, made, unsafe=True)
    return module


# ---------------------------------------------------------------------- magnitude and direction
class _WeightNorm(Module):
    """g v / |v|, the norm taken over all dimensions but `dim` (Salimans, Kingma 2016)."""

    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return weight_v * (weight_g / norm_except(weight_v, self.dim))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return norm_except(weight, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Let a weight be a magnitude (`original0`) times a direction (`original1`); gives the module.

    Args:
        dim: the dimension that has magnitudes of its own; None: one magnitude for all.
    """
    _named(module, name)
    parametrize.register_parametrization(module, name, _WeightNorm(dim), unsafe=True)

    def load_older(state: dict, prefix: str, *rest: Any) -> None:
        """Names of the hook that came before."""
        old = [f"{prefix}{name}_g", f"{prefix}{name}_v"]
        if all(each in state for each in old):
            for i, each in enumerate(old):
                state[f"{prefix}parametrizations.{name}.original{i}"] = state.pop(each)

    module._register_load_state_dict_pre_hook(load_older)
    return module


# ---------------------------------------------------------------------- largest singular value
class _SpectralNorm(Module):
    """The weight over its largest singular value, which power iteration follows (Miyato et al.
    2018)."""

    def __init__(self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0,
                 eps: float = 1e-12) -> None:
        super().__init__()
        if not -weight.ndim <= dim < weight.ndim:
            raise IndexError("Dimension out of range (expected to be in range of "
                             f"[-{weight.ndim}, {weight.ndim - 1}] but got {dim})")
        if n_power_iterations <= 0:
            raise ValueError("Expected n_power_iterations to be positive, but got "
                             f"n_power_iterations={n_power_iterations}")
        self.dim = dim if dim >= 0 else dim + weight.ndim
        self.eps = eps
        if weight.ndim > 1:
            self.n_power_iterations = n_power_iterations
            matrix = self._matrix(weight)
            with no_grad():
                u = matrix.new_empty(matrix.size(0)).normal_(0, 1)
                v = matrix.new_empty(matrix.size(1)).normal_(0, 1)
                self.register_buffer("_u", F.normalize(u, dim=0, eps=eps))
                self.register_buffer("_v", F.normalize(v, dim=0, eps=eps))
                self._iterate(matrix, 15)

    def _matrix(self, weight: Tensor) -> Tensor:
        """The weight as a matrix whose rows are `dim`."""
        if self.dim != 0:
            others = [d for d in range(weight.ndim) if d != self.dim]
            weight = weight.permute(self.dim, *others)
        return weight.flatten(1)

    @no_grad()
    def _iterate(self, matrix: Tensor, count: int) -> None:
        for _ in range(count):
            self._u.copy_(F.normalize(flambeau.mv(matrix, self._v), dim=0, eps=self.eps))
            self._v.copy_(F.normalize(flambeau.mv(matrix.mH, self._u), dim=0, eps=self.eps))

    def forward(self, weight: Tensor) -> Tensor:
        if weight.ndim == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        matrix = self._matrix(weight)
        if self.training:
            self._iterate(matrix, self.n_power_iterations)
        # copies: the next pass writes to the buffers, which this one's gradient still needs
        u, v = self._u.clone(), self._v.clone()
        return weight / flambeau.vdot(u, flambeau.mv(matrix, v))

    def right_inverse(self, value: Tensor) -> Tensor:
        """The weight itself: it may have any norm."""
        return value


def spectral_norm(module: Module, name: str = "weight", n_power_iterations: int = 1,
                  eps: float = 1e-12, dim: int | None = None) -> Module:
    """Divide a weight by its largest singular value; gives the module.

    Args:
        n_power_iterations: steps of power iteration in each pass in training mode.
        eps: for dividing by norms.
        dim: the dimension of outputs; by default 0, and 1 for transposed convolutions.
    """
    weight = _named(module, name)
    if dim is None:
        transposed = isinstance(module, (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d))
        dim = 1 if transposed else 0
    made = _SpectralNorm(weight, n_power_iterations, dim, eps)
    parametrize.register_parametrization(module, name, made)
    return module
