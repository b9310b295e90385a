"""What every test gets: a fixed seed, a fresh kernel cache if asked, `torch` as Flambeau's name.

Warnings are errors (pyproject.toml). Nothing under tests/ needs PyTorch, except tests/conformance.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fresh-cache", action="store_true",
                     help="compile every kernel anew, into a cache that is deleted afterwards")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--fresh-cache"):
        # Set before the package is imported: it reads the environment once.
        folder = tempfile.TemporaryDirectory(prefix="flambeau-test-cache-")
        config.add_cleanup(folder.cleanup)
        os.environ["FLAMBEAU_CACHE_DIR"] = folder.name


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """Flambeau, under the name that users' programs give it."""
    import flambeau

    return flambeau


@pytest.fixture(autouse=True)
def fixed_seed() -> Iterator[None]:
    """Every test starts from the same random state, whichever tests ran before it."""
    random.seed(0)
    np.random.seed(0)
    flambeau = sys.modules.get("flambeau")
    if flambeau is not None and hasattr(flambeau, "manual_seed"):
        flambeau.manual_seed(0)
    yield


@pytest.fixture
def fresh_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that watch or change the planner: no plan comes from the disk or goes there."""
    from flambeau.runtime import plan_cache

    monkeypatch.setattr(plan_cache, "usable", lambda: False)


@pytest.fixture(autouse=True, scope="session")
def verified_programs() -> Iterator[None]:
    """Every program that is compiled is verified as it comes and after it was simplified."""
    from flambeau.compiler import program
    from flambeau.ir.graph import Graph
    from flambeau.ir.verify import verify

    simplify = program.simplify

    def verified(graph: Graph, *rest: object) -> tuple:
        verify(graph)
        simplified, kept = simplify(graph, *rest)
        verify(simplified, "simplifying")
        return simplified, kept

    program.simplify = verified
    yield
    program.simplify = simplify
