"""Classes of results: `isinstance(torch.sort(x), torch.return_types.sort)`, and plain tuples."""

from __future__ import annotations

import pickle

import pytest

import flambeau as torch

A = torch.tensor([[2.0, 1.0], [1.0, 3.0]])

CALLS = {
    "aminmax": lambda: torch.aminmax(A), "cummax": lambda: torch.cummax(A, 0),
    "cummin": lambda: torch.cummin(A, 0), "frexp": lambda: torch.frexp(A),
    "geqrf": lambda: torch.geqrf(A), "histogram": lambda: torch.histogram(A.flatten(), 2),
    "histogramdd": lambda: torch.histogramdd(A, [2, 2]), "kthvalue": lambda: torch.kthvalue(A, 1),
    "linalg_cholesky_ex": lambda: torch.linalg.cholesky_ex(A),
    "linalg_eig": lambda: torch.linalg.eig(A), "linalg_eigh": lambda: torch.linalg.eigh(A),
    "linalg_inv_ex": lambda: torch.linalg.inv_ex(A),
    "linalg_ldl_factor": lambda: torch.linalg.ldl_factor(A),
    "linalg_ldl_factor_ex": lambda: torch.linalg.ldl_factor_ex(A),
    "linalg_lstsq": lambda: torch.linalg.lstsq(A, A), "linalg_lu": lambda: torch.linalg.lu(A),
    "linalg_lu_factor": lambda: torch.linalg.lu_factor(A),
    "linalg_lu_factor_ex": lambda: torch.linalg.lu_factor_ex(A),
    "linalg_qr": lambda: torch.linalg.qr(A), "linalg_slogdet": lambda: torch.linalg.slogdet(A),
    "linalg_solve_ex": lambda: torch.linalg.solve_ex(A, A),
    "linalg_svd": lambda: torch.linalg.svd(A),
    "lu_unpack": lambda: torch.lu_unpack(*torch.linalg.lu_factor(A)),
    "max": lambda: torch.max(A, 0), "median": lambda: torch.median(A, 0),
    "min": lambda: torch.min(A, 0), "mode": lambda: torch.mode(A),
    "nanmedian": lambda: torch.nanmedian(A, 0), "qr": lambda: torch.qr(A),
    "slogdet": lambda: torch.slogdet(A), "sort": lambda: torch.sort(A),
    "svd": lambda: torch.svd(A), "topk": lambda: torch.topk(A, 1),
    "triangular_solve": lambda: torch.triangular_solve(A, A),
}


@pytest.mark.parametrize("name", sorted(CALLS))
def test_results_are_of_their_class(name):
    result, cls = CALLS[name](), getattr(torch.return_types, name)
    assert type(result) is cls and cls in torch.return_types.all_return_types
    assert repr(result).startswith(f"torch.return_types.{name}(")
    assert type(pickle.loads(pickle.dumps(result))) is cls


def test_none_is_forgotten():
    assert {cls.__name__ for cls in torch.return_types.all_return_types} == set(CALLS)
    with pytest.raises(AttributeError, match="no function of that name"):
        torch.return_types.add  # noqa: B018


def test_plain_tuples():
    for result in (torch.std_mean(A), torch.var_mean(A), torch.gradient(A),
                   torch.native_layer_norm(A, (2,), None, None, 1e-5)):
        assert type(result) is tuple
    variances, means = torch.vmap(torch.var_mean)(A)
    assert means.tolist() == [1.5, 2.0] and variances.tolist() == [0.5, 2.0]
