"""Every wrong program gets an exception of the class that PyTorch raises, in the user's terms."""

from __future__ import annotations

import warnings

import pytest
from wrong_programs import WRONG, outcome, recorded

RECORD = recorded()


@pytest.mark.parametrize("text", WRONG)
def test_class_and_text(torch, text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        error = outcome(torch, text)
    wanted, message = RECORD[text]
    assert error is not None, f"PyTorch raises {wanted}: {message}"
    assert wanted in [cls.__name__ for cls in type(error).__mro__], (error, message)
    assert str(error).strip()
    for ours in ("LLVM", "llvmlite", "_meta", "_ptr", "_storage", "NoneType' object has no"):
        assert ours not in str(error)
    context = error.__context__
    while context is not None:  # "During handling of the above exception ..." shows no look-up
        assert error.__suppress_context__ or not isinstance(context, KeyError) or (
            isinstance(error, KeyError)), context
        error, context = context, context.__context__


def test_every_program_is_recorded():
    assert list(RECORD) == WRONG
