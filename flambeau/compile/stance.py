"""What compiled functions do in this thread (`torch.compiler.set_stance`, `disable`)."""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ["STANCES", "current", "enter", "leave", "stance"]

STANCES = ("default", "force_eager", "eager_on_recompile", "fail_on_recompile",
           "eager_then_compile", "aot_eager_then_compile")

_STACK: ContextVar[tuple[str, ...]] = ContextVar("flambeau_compile_stance", default=())
stance = _STACK.get
"""The stances that are in force, the innermost last."""


def current() -> str:
    """The stance in force."""
    return (stance() or ("default",))[-1]


def enter(name: str) -> None:
    """Take a stance."""
    _STACK.set((*stance(), name))


def leave() -> None:
    """Back to the one before."""
    _STACK.set(stance()[:-1])
