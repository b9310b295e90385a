"""The one exception that the command line turns into a message instead of a traceback."""

from __future__ import annotations

__all__ = ["UserError"]


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
