"""Damaged and hostile files by the thousand (tests/fuzz_checkpoints.py says what they are)."""

from __future__ import annotations

import pytest
from fuzz_checkpoints import KINDS, run


def test_damaged_files():
    assert run(600, 1, list(KINDS)) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_many_damaged_files(seed):
    assert run(10_000, 100 + seed, list(KINDS)) == []
