"""Runs the examples of a docstring and compares what they print. Takes the framework as argument.
"""

from __future__ import annotations

import contextlib
import doctest
import io
from collections.abc import Iterator
from types import ModuleType

__all__ = ["Shown"]


class Shown:
    """The examples in a docstring.

    Args:
        title: whose they are, for messages.
    """

    def __init__(self, title: str, doc: str):
        self.title = title
        self.examples = doctest.DocTestParser().get_examples(doc)

    def prints(self, torch: ModuleType) -> Iterator[tuple[doctest.Example, str]]:
        """Each example and what it prints there."""
        names = {"torch": torch, "F": torch.nn.functional, "__name__": "__main__"}
        for example in self.examples:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(example.source, f"<example of {self.title}>", "single"), names)
            yield example, printed.getvalue()

    def failures(self, torch: ModuleType) -> list[str]:
        """What differs from the docstring, or raises."""
        found = []
        checker = doctest.OutputChecker()
        try:
            for example, printed in self.prints(torch):
                if not checker.check_output(example.want, printed, 0):
                    found.append(f"{self.title}: {example.source.strip()}\nshows\n{example.want}"
                                 f"prints\n{printed}")
        except Exception as error:
            found.append(f"{self.title}: {type(error).__name__}: {error}")
        return found
