"""The examples of the reference print under PyTorch what they print here."""

from __future__ import annotations

import sys
import warnings

import pytest
from programs import ROOT
from shown import Shown

sys.path.insert(0, str(ROOT / "scripts"))

from entries import entries

torch = pytest.importorskip("torch")

# What PyTorch has not, or prints otherwise.
OURS = {
    "torch.checkpoint": "ours", "torch.resume": "ours",
    "torch.are_deterministic_algorithms_enabled": "always, here",
    "torch.detach_copy": "a grad_fn that is not implemented",
    "Tensor.names": "a build without named dimensions",
    "torch.indices_copy": "not for sparse tensors", "torch.values_copy": "not for sparse tensors",
    "torch.crow_indices_copy": "not for sparse tensors",
    "torch.col_indices_copy": "not for sparse tensors",
    "torch.ccol_indices_copy": "not for sparse tensors",
    "torch.row_indices_copy": "not for sparse tensors",
    "torch.compile": "needs a C++ compiler",
    "torch.nn.functional.scaled_mm": "needs other kernels on the CPU",
    "torch.nn.functional.scaled_grouped_mm": "needs other kernels on the CPU",
}
FOUND = [entry for entry in entries() if entry.title not in OURS]


@pytest.mark.parametrize("page", sorted({entry.page for entry in FOUND}))
def test_examples_print_the_same(page):
    failures = []
    for entry in FOUND:
        if entry.page == page:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                failures += Shown(entry.title, entry.doc).failures(torch)
    assert not failures, "\n".join(failures)
