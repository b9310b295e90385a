"""The specification's programs under both frameworks, and the record that `make test` uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from programs import ROOT, TOUR, differences

Outputs = Callable[[str], dict[str, str]]
each_program = pytest.mark.parametrize("path", TOUR, ids=[path.stem for path in TOUR])


@each_program
def test_both_print_the_same(path: Path, tour_outputs: Outputs) -> None:
    theirs = tour_outputs("torch")[path.name]
    ours = tour_outputs("flambeau")[path.name]
    assert differences(theirs, ours) == []


@each_program
def test_the_record_is_what_pytorch_prints(path: Path, tour_outputs: Outputs,
                                           pytestconfig: pytest.Config) -> None:
    theirs = tour_outputs("torch")[path.name]
    record = ROOT / "tests" / "data" / "tour" / f"{path.stem}.txt"
    if pytestconfig.getoption("--record"):
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(theirs)
    # Another machine's PyTorch may round differently.
    assert differences(record.read_text(), theirs) == []
