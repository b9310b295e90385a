"""Dropout: random zeros in training, the identity in evaluation."""

from __future__ import annotations

from flambeau.nn import functional as F
from flambeau.nn.modules.module import Module
from flambeau.tensor import Tensor

__all__ = ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"]


class _DropoutNd(Module):
    """What dropout modules share.

    Args:
        p: probability of a zero; the rest is scaled by 1 / (1 - p).
        inplace: whether the input itself is changed.
    """

    __constants__ = ["p", "inplace"]
    _function: str

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if p < 0 or p > 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return getattr(F, self._function)(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_DropoutNd):
    """Zeroes single elements. Hinton et al., 2012.

    Args:
        p: probability of a zero; the rest is scaled by 1 / (1 - p).
        inplace: whether the input itself is changed.
    """

    _function = "dropout"


class Dropout1d(_DropoutNd):
    """Zeroes whole channels of (N, C, L) or (C, L); arguments as of `Dropout`."""

    _function = "dropout1d"


class Dropout2d(_DropoutNd):
    """Zeroes whole channels of (N, C, H, W); arguments as of `Dropout`."""

    _function = "dropout2d"


class Dropout3d(_DropoutNd):
    """Zeroes whole channels of (N, C, D, H, W) or (C, D, H, W); arguments as of `Dropout`."""

    _function = "dropout3d"


class AlphaDropout(_DropoutNd):
    """Sets elements to SELU's negative saturation, keeping mean and variance.

    Klambauer et al., Self-normalizing neural networks, 2017. Arguments as of `Dropout`.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.alpha_dropout(input, self.p, self.training)


class FeatureAlphaDropout(_DropoutNd):
    """AlphaDropout of whole channels; arguments as of `Dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.feature_alpha_dropout(input, self.p, self.training)
