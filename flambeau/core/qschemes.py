"""The ways in which integers stand for numbers: names only."""

from __future__ import annotations

__all__ = ["QScheme", "SCHEMES", "per_channel_affine", "per_channel_affine_float_qparams",
           "per_channel_symmetric", "per_tensor_affine", "per_tensor_symmetric"]


class QScheme:
    """A way of quantizing, for example `torch.per_tensor_affine`; one object each.

    >>> torch.per_tensor_affine
    torch.per_tensor_affine
    """

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> str:
        return self.name


per_tensor_affine = QScheme("per_tensor_affine")
per_channel_affine = QScheme("per_channel_affine")
per_tensor_symmetric = QScheme("per_tensor_symmetric")
per_channel_symmetric = QScheme("per_channel_symmetric")
per_channel_affine_float_qparams = QScheme("per_channel_affine_float_qparams")
SCHEMES = {scheme.name: scheme for scheme in (
    per_tensor_affine, per_channel_affine, per_tensor_symmetric, per_channel_symmetric,
    per_channel_affine_float_qparams)}
