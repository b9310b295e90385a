"""Every op of the table under vmap and in forward mode. What an op does follows from its
primitives, so a few ops that use them all are looked at here, and all of them in the slow tests."""

from __future__ import annotations

import itertools

import op_cases as oc
import pytest
from transform_checks import check_batch, check_tangents

import flambeau as torch

WITH_SAMPLES = sorted(name for name, record in oc.RECORDS.items() if record.samples is not None)

SOME = [name for name in (
    "add", "mul", "pow", "where", "clamp", "sum", "amax", "prod", "cumsum", "cumprod",
    "logcumsumexp", "softmax", "matmul", "conv2d", "max_pool2d", "avg_pool2d", "index_select",
    "gather", "scatter_add", "layer_norm", "group_norm", "cross_entropy", "embedding", "sort",
    "topk", "permute", "select", "expand", "cat", "diagonal", "fold", "var", "logsumexp",
    "_attention", "_rot90", "_as_strided_parts") if name in oc.RECORDS]

PHASE = "eigenvectors have a phase of their own"
FREE_TANGENTS = {("_eig", "float64"): PHASE, ("_eig", "complex128"): PHASE,
                 ("_eigh", "complex128"): PHASE,
                 ("_recurrent_layer", "float64"): "what is kept for the backward has no gradient"}
"""Where tangents and gradients may differ, and why."""


@pytest.mark.parametrize("name", SOME)
def test_batch(name):
    record = oc.RECORDS[name]
    checked = [check_batch(record, case)
               for case in itertools.islice(oc.cases(record, "float64"), 2)]
    assert any(checked)


@pytest.mark.parametrize("name", SOME)
def test_tangents(name):
    record = oc.RECORDS[name]
    for case in itertools.islice(oc.cases(record, "float64"), 2):
        check_tangents(record, case)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_SAMPLES)
def test_batch_of_all(name):
    for case in oc.cases(oc.RECORDS[name], "float64"):
        check_batch(oc.RECORDS[name], case)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", WITH_SAMPLES)
def test_tangents_of_all(name, dtype, request):
    if (name, dtype) in FREE_TANGENTS:  # fails when the difference is gone
        reason = FREE_TANGENTS[name, dtype]
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    for case in oc.cases(oc.RECORDS[name], dtype):
        check_tangents(oc.RECORDS[name], case)


@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 3), (1, 1, 2, 3), (1, 2, 4, 3), (2, 1, 2, 3)])
def test_jacobians_of_attention(shape):
    """Where only the gradient differs between examples, what the forward has kept is shared."""
    attend = torch.nn.functional.scaled_dot_product_attention
    inputs = tuple(torch.randn(shape, dtype=torch.float64) for _ in range(3))
    for one, other in zip(torch.func.jacrev(attend, (0, 1, 2))(*inputs),
                          torch.func.jacfwd(attend, (0, 1, 2))(*inputs), strict=True):
        assert torch.allclose(one, other)
