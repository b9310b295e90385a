"""Fixtures of the runtime's tests."""

from __future__ import annotations

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # for `import kernels`


@pytest.fixture
def threads():
    """set_num_threads, put back afterwards."""
    from flambeau.runtime import pool

    before = pool.get_num_threads()
    yield pool.set_num_threads
    pool.set_num_threads(before)
