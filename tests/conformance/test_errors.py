"""The same wrong programs under Flambeau and PyTorch raise exceptions of the same class."""

from __future__ import annotations

import json
import warnings

import pytest
import torch as pytorch
from wrong_programs import RECORDED, WRONG, outcome

import flambeau


def described(error: BaseException | None) -> list[str]:
    return ["", ""] if error is None else [type(error).__name__, str(error)]


def quietly(torch, text: str) -> BaseException | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return outcome(torch, text)


@pytest.fixture(scope="module")
def theirs(request: pytest.FixtureRequest) -> dict[str, list[str]]:
    """What PyTorch says now; with --record it becomes what tests/errors expects."""
    found = {text: described(quietly(pytorch, text)) for text in WRONG}
    if request.config.getoption("--record"):
        RECORDED.write_text(json.dumps(found, indent=0) + "\n")
    return found


@pytest.mark.parametrize("text", WRONG)
def test_class(text: str, theirs: dict[str, list[str]]):
    wanted, message = theirs[text]
    assert wanted, "PyTorch accepts this program"
    ours = quietly(flambeau, text)
    assert ours is not None, f"PyTorch raises {wanted}: {message}"
    assert wanted in [cls.__name__ for cls in type(ours).__mro__], (ours, message)


def test_the_record_is_current(theirs: dict[str, list[str]]):
    kept = json.loads(RECORDED.read_text())
    assert {text: name for text, (name, _) in kept.items()} == {
        text: name for text, (name, _) in theirs.items()}
