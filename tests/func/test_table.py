"""Every op of the table under vmap and in forward mode. What an op does follows from its
primitives, so a few ops that use them all are looked at here, and all of them in the slow tests."""

from __future__ import annotations

import itertools

import op_cases as oc
import pytest
from transform_checks import check_batch, check_tangents

WITH_SAMPLES = sorted(name for name, record in oc.RECORDS.items() if record.samples is not None)

SOME = [name for name in (
    "add", "mul", "pow", "where", "clamp", "sum", "amax", "prod", "cumsum", "cumprod",
    "logcumsumexp", "softmax", "matmul", "conv2d", "max_pool2d", "avg_pool2d", "index_select",
    "gather", "scatter_add", "layer_norm", "group_norm", "cross_entropy", "embedding", "sort",
    "topk", "permute", "select", "expand", "cat", "diagonal", "fold", "var", "logsumexp",
    "_attention") if name in oc.RECORDS]

# where the two may differ: eigenvectors have a phase of their own, some results are not gradients'
# business, and a factorization may leave parts of its results open
FREE_BATCH = {"_lstsq"}
FREE_TANGENTS = {"_eig", "_recurrent_layer"}


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
    record = oc.RECORDS[name]
    for case in oc.cases(record, "float64"):
        if name not in FREE_BATCH:
            check_batch(record, case)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", WITH_SAMPLES)
def test_tangents_of_all(name, dtype):
    record = oc.RECORDS[name]
    for case in oc.cases(record, dtype):
        if name not in FREE_TANGENTS:
            check_tangents(record, case)
