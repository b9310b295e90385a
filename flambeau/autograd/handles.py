"""Where hooks are kept, and the handles that remove them."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from typing import Any

__all__ = ["RemovableHandle", "NodeHooks", "TensorHooks", "add_hook"]


class RemovableHandle:
    """Removes a hook again: by `remove()`, or at the end of a `with` block.

    Args:
        hooks_dict: the dictionary that the hook is in.
        extra_dict: other dictionaries keyed by the same id, cleared together with it.
    """

    _next_id = count().__next__

    def __init__(self, hooks_dict: dict, *, extra_dict: Any = None) -> None:
        self.id = RemovableHandle._next_id()
        self.hooks_dict_ref = weakref.ref(hooks_dict)
        many = isinstance(extra_dict, (list, tuple))
        extras = () if extra_dict is None else extra_dict if many else (extra_dict,)
        self.extra_dict_ref = tuple(weakref.ref(one) for one in extras)

    def remove(self) -> None:
        """Take the hook out; a second call does nothing."""
        for reference in (self.hooks_dict_ref, *self.extra_dict_ref):
            hooks = reference()
            if hooks is not None:
                hooks.pop(self.id, None)

    def __getstate__(self) -> tuple:
        return self.hooks_dict_ref(), self.id

    def __setstate__(self, state: tuple) -> None:
        hooks, self.id = state
        self.hooks_dict_ref = weakref.ref(OrderedDict() if hooks is None else hooks)
        self.extra_dict_ref = ()

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.remove()


def add_hook(hooks: dict, hook: Callable) -> RemovableHandle:
    """Put `hook` into the dictionary `hooks`."""
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    return handle


class NodeHooks:
    """Everything rare about a node.

    Attributes:
        tensor: output number -> hooks of the tensor that this output is.
        retain: output number -> weak reference to the tensor whose `.grad` is to be kept.
        pre, post: the hooks of the node itself.
        metadata: the user's dictionary.
        stack: the stack of the forward call, in anomaly mode.
    """

    __slots__ = ("tensor", "retain", "pre", "post", "metadata", "stack")

    def __init__(self) -> None:
        self.tensor: dict[int, OrderedDict] = {}
        self.retain: dict[int, weakref.ref] = {}
        self.pre: dict | None = None
        self.post: dict | None = None
        self.metadata: dict = {}
        self.stack: tuple = ()

    def add_pre(self, hook: Callable) -> RemovableHandle:
        if self.pre is None:
            self.pre = OrderedDict()
        return add_hook(self.pre, hook)

    def add_post(self, hook: Callable) -> RemovableHandle:
        if self.post is None:
            self.post = OrderedDict()
        return add_hook(self.post, hook)


class TensorHooks(OrderedDict):
    """The hooks of a leaf (`Tensor._hooks`): on its gradient, and after it was accumulated."""

    def __init__(self) -> None:
        super().__init__()
        self.post: OrderedDict = OrderedDict()
