"""The specification's programs, compared with what PyTorch printed (recorded in tests/data/tour).

`make conformance` runs the same files under PyTorch itself and keeps the record honest.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import ROOT, TOUR, differences, run_file

RECORDS = ROOT / "tests" / "data" / "tour"


@pytest.mark.parametrize("path", TOUR, ids=[path.stem for path in TOUR])
def test_tour_prints_what_pytorch_prints(path: Path) -> None:
    expected = (RECORDS / f"{path.stem}.txt").read_text()
    assert differences(expected, run_file(path)) == []


def test_every_record_belongs_to_a_program() -> None:
    assert sorted(path.stem for path in RECORDS.iterdir()) == [path.stem for path in TOUR]


@pytest.mark.parametrize(("expected", "found", "same"), [
    ("tensor([1.0000, 2.0000])", "tensor([1.0000, 2.0001])", True),   # one unit of the last digit
    ("tensor([1.0000, 2.0000])", "tensor([1.0000, 2.0010])", False),
    ("tensor([ 0.0000, 1.0000])", "tensor([-0.0000, 1.0000])", True),
    ("tensor([1.0000, 2.0000])", "tensor([1.0000,  2.0000])", False),  # spacing counts
    ("loss 721.7247", "loss 721.7201", True),                         # 6e-6 relative
    ("epoch 3", "epoch 4", False),                                    # whole numbers are exact
    ("1.0240e+03", "1.0241e+03", True),
    ("1.0240e+03", "1.0260e+03", False),
    ("a\nb", "a", False),
])
def test_differences(expected: str, found: str, same: bool) -> None:
    assert (differences(expected, found) == []) is same
