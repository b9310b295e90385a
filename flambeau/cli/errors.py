"""How commands end early: the exception that becomes a message, the status after Ctrl-C."""

from __future__ import annotations

__all__ = ["INTERRUPTED", "UserError"]

# Shells report 128 + SIGINT for a process that Ctrl-C ended.
INTERRUPTED = 130


class UserError(Exception):
    """A mistake of the user's, or of their machine: what is wrong, and what to do about it.

    Attributes:
        problem: one sentence without a full stop.
        remedy: what to type or change; may be empty.
    """

    def __init__(self, problem: str, remedy: str = ""):
        super().__init__(problem if not remedy else f"{problem}\n  try: {remedy}")
        self.problem = problem
        self.remedy = remedy
