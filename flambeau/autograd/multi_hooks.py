"""Hooks that wait for the gradients of several tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flambeau.autograd import engine
from flambeau.autograd.handles import RemovableHandle
from flambeau.autograd.hooks import register_tensor_hook
from flambeau.autograd.tape import edge_of

__all__ = ["register_multi_grad_hook"]


def register_multi_grad_hook(tensors: Sequence[Any], fn: Callable,
                             *, mode: str = "all") -> _MultiHandle:
    """Call `fn` when the gradients of several tensors are there.

    Args:
        tensors: all must require grad.
        fn: with mode "all", gets a list with one gradient per tensor, None for those that the
            backward did not reach; with mode "any", gets the first gradient that appears.
        mode: "all" or "any".

    >>> a, b = (torch.ones(1, requires_grad=True) for _ in range(2))
    >>> handle = torch.autograd.graph.register_multi_grad_hook([a, b], lambda grads: print(grads))
    >>> (2 * a + 3 * b).sum().backward()
    [tensor([2.]), tensor([3.])]
    """
    if mode not in ("all", "any"):
        raise ValueError(f"Expects mode to be one of ('all', 'any') but got {mode}")
    for tensor in tensors:
        if not tensor.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    watch = _AllHook(tensors, fn) if mode == "all" else _AnyHook(fn)
    return _MultiHandle(tuple(register_tensor_hook(tensor, watch.for_input(index))
                              for index, tensor in enumerate(tensors)))


class _MultiHandle:
    """Removes the hooks of `register_multi_grad_hook`."""

    def __init__(self, handles: tuple[RemovableHandle, ...]) -> None:
        self.handles = handles

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()

    def __enter__(self) -> _MultiHandle:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.remove()


class _AllHook:
    """Collects per backward pass; fires when every tensor that this pass reaches was seen."""

    def __init__(self, tensors: Sequence[Any], fn: Callable) -> None:
        self.nodes = [edge_of(tensor)[0] for tensor in tensors]
        self.fn = fn
        self.passes: dict[int, dict] = {}

    def for_input(self, index: int) -> Callable[[Any], None]:
        def note_gradient(grad: Any) -> None:
            self._note(index, grad)
        return note_gradient

    def _note(self, index: int, grad: Any) -> None:
        task = engine.current_pass()
        seen = self.passes.get(task.id)
        if seen is None:
            reached = engine.will_execute(task, self.nodes)
            seen = self.passes[task.id] = {"grads": [None] * len(self.nodes),
                                           "left": sum(reached)}
        seen["grads"][index] = grad
        seen["left"] -= 1
        if seen["left"] == 0:
            del self.passes[task.id]
            self.fn(seen["grads"])


class _AnyHook:
    """Fires once per backward pass."""

    def __init__(self, fn: Callable) -> None:
        self.fn = fn
        self.last_pass = -1

    def for_input(self, index: int) -> Callable[[Any], None]:
        return self.note_gradient

    def note_gradient(self, grad: Any) -> None:
        task = engine.current_pass()
        if task.id != self.last_pass:
            self.last_pass = task.id
            self.fn(grad)
