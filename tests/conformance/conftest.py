"""The differential tests: the same programs under Flambeau and PyTorch (`make conformance`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
from programs import TOUR, run_apart

# Without PyTorch there is nothing to compare with: `make test` does not even import these.
if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true",
                     help="rewrite tests/data/tour with what PyTorch prints now")


@pytest.hookimpl(tryfirst=True)  # before -m "not conformance" selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = __file__.removesuffix("conftest.py")
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.conformance)


@pytest.fixture(scope="session", autouse=True)
def pytorch_is_there() -> None:
    """A missing oracle fails the run: skipping would look like agreement."""
    if importlib.util.find_spec("torch") is None:
        pytest.fail("the differential tests need PyTorch: run them by `make conformance`")


@pytest.fixture(scope="session")
def tour_outputs() -> Callable[[str], dict[str, str]]:
    """What the tour prints under a framework; each framework runs once, in a process of its own."""
    outputs: dict[str, dict[str, str]] = {}

    def of(framework: str) -> dict[str, str]:
        if framework not in outputs:
            outputs[framework] = run_apart(framework, TOUR)
        return outputs[framework]

    return of
