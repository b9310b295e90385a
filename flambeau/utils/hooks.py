"""Handles with which a registered hook can be taken away again."""

from __future__ import annotations

import itertools
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

__all__ = ["RemovableHandle", "add_hook"]

_ids = itertools.count()


class RemovableHandle:
    """Removes one hook from the table in which it was registered.

    The table is held by a weak reference: a handle never keeps a module alive. Works as a context
    manager too, which removes the hook on exit.

    Args:
        hooks_dict: the table, keyed by `handle.id`.
        extra_dict: one table or several that hold facts about the same hook.
    """

    next_id = 0

    def __init__(self, hooks_dict: MutableMapping, *, extra_dict: Any = None):
        self.id = next(_ids)
        RemovableHandle.next_id = self.id + 1
        self.hooks_dict_ref = weakref.ref(hooks_dict)
        if extra_dict is None:
            extra: Iterable = ()
        elif isinstance(extra_dict, MutableMapping):
            extra = (extra_dict,)
        else:
            extra = extra_dict
        self.extra_dict_ref = tuple(weakref.ref(table) for table in extra)

    def remove(self) -> None:
        """Take the hook away; doing it twice is no error."""
        for reference in (self.hooks_dict_ref, *self.extra_dict_ref):
            table = reference()
            if table is not None:
                table.pop(self.id, None)

    def __getstate__(self) -> tuple:
        tables = tuple(reference() for reference in self.extra_dict_ref)
        return self.hooks_dict_ref(), self.id, tables

    def __setstate__(self, state: tuple) -> None:
        hooks, self.id, extra = state
        # A table that was gone when the handle was saved: an empty stand-in keeps remove() legal.
        self.hooks_dict_ref = weakref.ref(OrderedDict() if hooks is None else hooks)
        self.extra_dict_ref = tuple(weakref.ref(OrderedDict() if t is None else t) for t in extra)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        self.remove()


def add_hook(hooks: OrderedDict, hook: Callable, flags: Iterable[MutableMapping] = (),
             prepend: bool = False) -> RemovableHandle:
    """Put `hook` into the table `hooks`, mark it in each table of `flags`, return its handle."""
    flags = tuple(flags)
    handle = RemovableHandle(hooks, extra_dict=flags)
    hooks[handle.id] = hook
    for table in flags:
        table[handle.id] = True
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    return handle
