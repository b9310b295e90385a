"""Every public operation has a docstring with an example, and the examples print what they show."""

from __future__ import annotations

import sys
import warnings

import pytest
from programs import ROOT
from shown import Shown

import flambeau as torch

sys.path.insert(0, str(ROOT / "scripts"))

from entries import entries

FOUND = entries()
PAGES = sorted({entry.page for entry in FOUND})
"""Examples run by page, so that a failure says where to look."""


@pytest.mark.parametrize("page", PAGES)
def test_examples_print_what_they_show(page):
    failures = []
    for entry in FOUND:
        if entry.page == page:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # some are deprecated, and say so
                failures += Shown(entry.title, entry.doc).failures(torch)
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("page", PAGES)
def test_operations_are_described(page):
    bare = [entry.title for entry in FOUND if entry.page == page
            and (">>> " not in entry.doc or len(entry.doc.partition(">>> ")[0]) < 10)]
    assert not bare, f"no description or no example: {', '.join(bare)}"


def test_a_wrong_example_is_found():
    doc = "Adds.\n\n>>> torch.ones(1) + 1\ntensor([3.])"
    (message,) = Shown("torch.add", doc).failures(torch)
    assert "tensor([2.])" in message and "torch.add" in message
    assert Shown("torch.add", doc.replace("3.", "2.")).failures(torch) == []


def test_help_shows_the_example():
    for function in (torch.sort, torch.sin, torch.Tensor.sort, torch.fft.fft, torch.hsplit):
        assert ">>> torch." in function.__doc__
    assert torch.Tensor.T.__doc__.startswith("All dimensions in the opposite order")
    assert torch.Tensor.add_.__doc__.startswith("In-place form of `add`")
