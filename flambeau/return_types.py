"""`torch.return_types`: the classes of results with named fields, for isinstance and annotations.

    result = torch.sort(x)
    isinstance(result, torch.return_types.sort)
"""

from __future__ import annotations

from typing import Any

from flambeau.ops.record import REGISTRY
from flambeau.tensor import functions as functions  # the families, so that REGISTRY is whole
from flambeau.tensor.results import PUBLIC_NAMES, result_class

# The fields of functions that are no records; of the others the records tell.
_FIELDS = {
    "geqrf": ("a", "tau"), "histogram": ("hist", "bin_edges"),
    "histogramdd": ("hist", "bin_edges"), "linalg_cholesky_ex": ("L", "info"),
    "linalg_eig": ("eigenvalues", "eigenvectors"), "linalg_eigh": ("eigenvalues", "eigenvectors"),
    "linalg_inv_ex": ("inverse", "info"), "linalg_ldl_factor": ("LD", "pivots"),
    "linalg_ldl_factor_ex": ("LD", "pivots", "info"),
    "linalg_lstsq": ("solution", "residuals", "rank", "singular_values"),
    "linalg_lu": ("P", "L", "U"), "linalg_lu_factor": ("LU", "pivots"),
    "linalg_lu_factor_ex": ("LU", "pivots", "info"), "linalg_qr": ("Q", "R"),
    "linalg_slogdet": ("sign", "logabsdet"), "linalg_solve_ex": ("result", "info"),
    "linalg_svd": ("U", "S", "Vh"), "lu_unpack": ("P", "L", "U"), "qr": ("Q", "R"),
    "slogdet": ("sign", "logabsdet"), "svd": ("U", "S", "V"),
    "triangular_solve": ("solution", "cloned_coefficient"),
}


def _classes() -> dict[str, type]:
    found = {name: result_class(name, fields) for name, fields in _FIELDS.items()}
    for record in REGISTRY.values():
        if record.returns and not record.name.startswith("_") and (
                record.public or record.name in PUBLIC_NAMES):
            found[PUBLIC_NAMES.get(record.name, record.name)] = result_class(
                record.name, record.returns)
    return dict(sorted(found.items()))


_CLASSES = _classes()
all_return_types = list(_CLASSES.values())

__all__ = ["all_return_types", *_CLASSES]


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return _CLASSES[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}: no function of that name "
                         "gives results with named fields")


def __dir__() -> list[str]:
    return sorted({*globals(), *_CLASSES})
