"""Name the module in which an exception arose: 'in module encoder.3.fc (Linear) of Net'.

A module does not know its own path, so nothing is recorded while all goes well. When an exception
passes through `Module.__call__`, the innermost call adds a note; each enclosing call that contains
that module rewrites the note with the longer path it can see.
"""

from __future__ import annotations

from typing import Any

_MARK = "_module_note"


def note_module(module: Any, error: BaseException) -> None:
    """Add to `error`, or extend in it, the note that says where in the module tree it arose."""
    marked = error.__dict__.get(_MARK)
    if marked is None:
        origin, text = module, f"in module {type(module).__name__}"
        error.add_note(text)
        setattr(error, _MARK, (origin, text))
        return
    origin, text = marked
    path = _path(module, origin)
    if not path:
        return
    longer = f"in module {path} ({type(origin).__name__}) of {type(module).__name__}"
    notes = getattr(error, "__notes__", [])
    if text in notes:
        notes[notes.index(text)] = longer
        setattr(error, _MARK, (origin, longer))


def _path(root: Any, wanted: Any) -> str:
    """The dotted path of `wanted` below `root`; empty if it is not below it."""
    try:
        for name, module in root.named_modules():
            if module is wanted:
                return name
    except Exception:  # a broken user override must not replace the error that is being reported
        return ""
    return ""
