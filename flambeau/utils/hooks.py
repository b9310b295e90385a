"""Tables of hooks: each hook gets a handle with which it can be taken away again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, MutableMapping

from flambeau.autograd.handles import RemovableHandle

__all__ = ["RemovableHandle", "add_hook", "unserializable_hook"]


def unserializable_hook(f: Callable) -> Callable:
    """Mark a hook as one that is left behind when its tensor is saved, without a warning."""
    f.__torch_unserializable__ = True
    return f


def add_hook(hooks: OrderedDict, hook: Callable, flags: Iterable[MutableMapping] = (),
             prepend: bool = False) -> RemovableHandle:
    """Put `hook` into the table `hooks`, mark it in each table of `flags`, return its handle."""
    flags = list(flags)
    handle = RemovableHandle(hooks, extra_dict=flags)
    hooks[handle.id] = hook
    for table in flags:
        table[handle.id] = True
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    return handle
