"""Every operation, with its gradient, on AArch64 and RISC-V, against this machine's results.

    python -m pytest -m slow tests/targets        (needs qemu-user and cross compilers)
"""

from __future__ import annotations

import collections
import warnings

import numpy as np
import op_cases
import pytest
from targets import foreign

import flambeau as torch

pytestmark = pytest.mark.slow

FAMILIES = collections.defaultdict(list)
for _record in op_cases.RECORDS.values():
    FAMILIES[op_cases.family(_record)].append(_record)
CASES_OF_ONE = 3  # samples of each operation


def record_launches(records) -> list[foreign.Recorded]:
    """Run samples of the operations, forward and backward, on the host."""
    with foreign.Recorder() as recorder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for record in records:
            for dtype in ("float32", "int64"):
                for case in list(op_cases.cases(record, dtype))[:CASES_OF_ONE]:
                    recorder.label = case.label
                    _run_case(record, case)
    return recorder.launches


def _run_case(record, case) -> None:
    tensors = op_cases.tensors(torch, case.args), op_cases.tensors(torch, case.kwargs)
    inputs = [t for t in op_cases.leaves((tensors[0], tuple(tensors[1].values())))
              if isinstance(t, torch.Tensor)]
    for tensor, floating in zip(inputs, case.floating, strict=True):
        tensor.requires_grad_(floating and record.differentiable)
    try:
        result = op_cases.function_of(record)(*tensors[0], **tensors[1])
    except (RuntimeError, TypeError, NotImplementedError, IndexError):
        return  # a dtype that the operation does not take
    outs = [t for t in op_cases.leaves(result) if isinstance(t, torch.Tensor) and t.requires_grad]
    if outs:
        torch.autograd.backward(outs, [torch.ones_like(t) for t in outs])


@pytest.mark.parametrize("machine", foreign.MACHINES)
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_results_equal_the_hosts(machine, family, tmp_path):
    chosen = foreign.MACHINES[machine]
    if chosen.missing():
        pytest.skip(f"{chosen.missing()} is not installed")
    launches = record_launches(FAMILIES[family])
    if not launches:
        pytest.skip("nothing to run: these operations are views or random")
    results = foreign.run(chosen, launches, tmp_path)
    wrong = []
    assert len(results) >= len(launches) // 3
    for one, parts in results:
        for mine, theirs, meta in zip(one.results, parts, one.result_metas, strict=True):
            expected, found = foreign.as_array(mine, meta), foreign.as_array(theirs, meta)
            close = np.allclose(found, expected, rtol=3e-5, atol=1e-5, equal_nan=True) \
                if meta.dtype.kind in "fc" else np.array_equal(found, expected)
            if not close:
                wrong.append(f"{one.label}: {one.graph.outputs} expected {expected.ravel()[:4]}, "
                             f"found {found.ravel()[:4]}")
    assert not wrong, f"{len(wrong)} of {len(launches)} launches differ:\n" + "\n".join(wrong[:10])
