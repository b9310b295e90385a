"""`torch.special`: special functions, ops of the op table under their special names."""

from __future__ import annotations

from typing import Any

from flambeau.tensor.functions import ops

_NAMES = {name: name for name in (
    "digamma", "entr", "erf", "erfc", "erfcx", "erfinv", "exp2", "expm1", "i0", "i0e", "i1", "i1e",
    "log1p", "log_ndtr", "log_softmax", "logit", "logsumexp", "ndtr", "ndtri", "polygamma", "round",
    "sinc", "softmax", "xlog1py", "xlogy", "zeta")}
_NAMES |= {name: name for name in (
    "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "modified_bessel_i0", "modified_bessel_i1",
    "modified_bessel_k0", "modified_bessel_k1", "scaled_modified_bessel_k0",
    "scaled_modified_bessel_k1", "spherical_bessel_j0",
    "hermite_polynomial_h", "hermite_polynomial_he", "laguerre_polynomial_l",
    "legendre_polynomial_p")}
_NAMES |= {f"{shifted}chebyshev_polynomial_{kind}": f"{shifted}chebyshev_polynomial_{kind}"
           for shifted in ("", "shifted_") for kind in "tuvw"}
_NAMES |= {"expit": "sigmoid", "psi": "digamma", "gammaln": "lgamma", "gammainc": "igamma",
           "gammaincc": "igammac", "airy_ai": "airy_ai", "multigammaln": "mvlgamma"}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    found = getattr(ops, _NAMES[name], None) if name in _NAMES else None
    if found is None:
        raise AttributeError(f"module 'flambeau.special' has no attribute {name!r}: not "
                             "implemented yet, or no such name in PyTorch")
    return found
