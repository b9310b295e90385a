"""A progress bar: tqdm's where it is installed, else a plain one; silence in log files."""

from __future__ import annotations

import sys
from typing import Any, Protocol, TextIO

__all__ = ["Progress", "progress"]


class Progress(Protocol):
    """What the commands use of a progress bar; tqdm's bar has the same three methods."""

    def update(self, n: int = 1) -> Any:
        """Count `n` more units as done."""

    def set_postfix_str(self, s: str = "") -> Any:
        """Show `s` after the bar from the next refresh on."""

    def close(self) -> Any:
        """Remove the bar from the terminal."""


class PlainBar:
    """`label [####    ] 12/44 postfix`, redrawn in place; draws nothing off a terminal."""

    WIDTH = 30

    def __init__(self, label: str, total: int, stream: TextIO):
        self.label = label
        self.total = total
        self.done = 0
        self.postfix = ""
        self.stream = stream
        self.visible = stream.isatty()

    def update(self, n: int = 1) -> None:
        """Count `n` more units and redraw."""
        self.done += n
        filled = self.WIDTH * self.done // max(self.total, 1)
        bar = "#" * filled + " " * (self.WIDTH - filled)
        self._write(f"\r\x1b[K{self.label} [{bar}] {self.done}/{self.total} {self.postfix}")

    def set_postfix_str(self, s: str = "") -> None:
        """Show `s` from the next update on."""
        self.postfix = s

    def close(self) -> None:
        """Clear the line."""
        self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        if self.visible:
            self.stream.write(text)
            self.stream.flush()


def progress(label: str, total: int, done: int = 0) -> Progress:
    """A bar of `total` units on standard error, `done` of which lie behind it already."""
    try:
        from tqdm import tqdm
    except ImportError:
        bar = PlainBar(label, total, sys.stderr)
        if done:
            bar.update(done)
        return bar
    # disable=None: tqdm draws on terminals only, so that log files stay readable.
    return tqdm(total=total, initial=done, desc=label, leave=False, disable=None, file=sys.stderr)
