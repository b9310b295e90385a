"""Hooks: what nodes and leaves call around a backward, and the handles that remove them."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from flambeau.autograd import graph

__all__ = ["RemovableHandle", "NodeHooks", "TensorHooks", "register_hook", "retain_grad",
           "retains_grad", "move_retain_grad", "register_post_accumulate_grad_hook",
           "register_multi_grad_hook", "run_tensor_hooks", "run_node_hooks"]


class RemovableHandle:
    """Removes a hook again: by `remove()`, or at the end of a `with` block.

    Args:
        hooks: the dictionary that the hook is in.
        extra: other dictionaries keyed by the same id, cleared together with it.
    """

    _next_id = count().__next__

    def __init__(self, hooks: dict, *, extra: Any = None) -> None:
        self.id = RemovableHandle._next_id()
        self.hooks_dict_ref = weakref.ref(hooks)
        extras = () if extra is None else extra if isinstance(extra, (list, tuple)) else (extra,)
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


def _add(hooks: dict, hook: Callable) -> RemovableHandle:
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
        return _add(self.pre, hook)

    def add_post(self, hook: Callable) -> RemovableHandle:
        if self.post is None:
            self.post = OrderedDict()
        return _add(self.post, hook)


class TensorHooks(OrderedDict):
    """The hooks of a leaf (`Tensor._hooks`): on its gradient, and after it was accumulated."""

    def __init__(self) -> None:
        super().__init__()
        self.post: OrderedDict = OrderedDict()


def _own_hooks(leaf: Any) -> TensorHooks:
    if leaf._hooks is None:
        leaf._hooks = TensorHooks()
    return leaf._hooks


def register_hook(tensor: Any, hook: Callable[[Any], Any]) -> RemovableHandle:
    """`Tensor.register_hook`: call `hook(grad)` when the gradient of `tensor` is complete.

    What the hook returns, unless None, takes the gradient's place. On a leaf the hook stays with
    the tensor; otherwise it stays with the operation that made the tensor's present value.
    """
    if not tensor.requires_grad:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    node = tensor.grad_fn
    if node is None:
        return _add(_own_hooks(tensor), hook)
    by_output = node._own_hooks().tensor
    return _add(by_output.setdefault(tensor._output_nr, OrderedDict()), hook)


def register_post_accumulate_grad_hook(tensor: Any, hook: Callable[[Any], None]) -> RemovableHandle:
    """`Tensor.register_post_accumulate_grad_hook`: call `hook(tensor)` once `.grad` is final."""
    if not tensor.requires_grad:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    if tensor.grad_fn is not None:
        raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
    return _add(_own_hooks(tensor).post, hook)


def retain_grad(tensor: Any) -> None:
    """`Tensor.retain_grad`: keep the gradient of a tensor that is not a leaf in `.grad`."""
    if not tensor.requires_grad:
        raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
    node = tensor.grad_fn
    if node is not None:
        node._own_hooks().retain[tensor._output_nr] = weakref.ref(tensor)


def retains_grad(tensor: Any) -> bool:
    """True if `tensor` is not a leaf and its gradient will be kept."""
    node = tensor.grad_fn
    if node is None or node.hooks is None:
        return False
    reference = node.hooks.retain.get(tensor._output_nr)
    return reference is not None and reference() is tensor


def move_retain_grad(tensor: Any, node: Any, output_nr: int) -> None:
    """After an in-place operation: `tensor` left output `output_nr` of `node` for its new node."""
    if node is not None and node.hooks is not None:
        reference = node.hooks.retain.pop(output_nr, None)
        if reference is not None:
            retain_grad(tensor)


def _checked(result: Any, grad: Any, hook: Callable) -> Any:
    if not isinstance(result, graph.tensors.cls):
        raise TypeError(f"expected Variable, but hook returned {type(result).__name__!r}")
    if grad is not None:
        name = getattr(hook, "__name__", repr(hook))
        if result.dtype != grad.dtype:
            raise RuntimeError(f"hook {name!r} has changed the type of value "
                               f"(was {grad.dtype} got {result.dtype})")
        if tuple(result.shape) != tuple(grad.shape):
            raise RuntimeError(f"hook {name!r} has changed the size of value "
                               f"(was {list(grad.shape)} got {list(result.shape)})")
    return result


def run_tensor_hooks(hooks: dict, grad: Any) -> Any:
    """`grad` after every hook of one tensor had its say."""
    for hook in tuple(hooks.values()):
        result = hook(grad)
        if result is not None:
            grad = _checked(result, grad, hook)
    return grad


def run_retain_hooks(hooks: NodeHooks, grads: list) -> None:
    """Store the gradients of the tensors that asked for it."""
    for output_nr, reference in tuple(hooks.retain.items()):
        tensor, grad = reference(), grads[output_nr]
        if tensor is None or grad is None:
            continue
        if tensor._grad is None:
            tensor._grad = grad.clone()
        else:
            tensor._grad = tensor._grad + grad


def run_node_hooks(hooks: dict, values: Any, *others: Any) -> tuple | list:
    """`values` (one per input, or output) after every pre- or post-hook of a node."""
    for hook in tuple(hooks.values()):
        result = hook(tuple(values), *others)
        if result is None:
            continue
        if not isinstance(result, (tuple, list)):
            result = (result,)
        if len(result) != len(values):
            name = getattr(hook, "__name__", repr(hook))
            raise RuntimeError(f"hook {name!r} has returned an incorrect number of values "
                               f"(got {len(result)}, but expected {len(values)})")
        values = result
    return values


def register_multi_grad_hook(tensors: Sequence[Any], fn: Callable,
                             *, mode: str = "all") -> _MultiHandle:
    """Call `fn` when the gradients of several tensors are there.

    Args:
        tensors: all must require grad.
        fn: with mode "all", gets a list with one gradient per tensor, None for those that the
            backward did not reach; with mode "any", gets the first gradient that appears.
        mode: "all" or "any".
    """
    if mode not in ("all", "any"):
        raise ValueError(f"Expects mode to be one of ('all', 'any') but got {mode}")
    for tensor in tensors:
        if not tensor.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    watch = _AllHook(tensors, fn) if mode == "all" else _AnyHook(fn)
    return _MultiHandle(tuple(register_hook(tensor, watch.for_input(index))
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
        self.nodes = [graph.edge_of(tensor)[0] for tensor in tensors]
        self.fn = fn
        self.passes: dict[int, dict] = {}

    def for_input(self, index: int) -> Callable[[Any], None]:
        def note_gradient(grad: Any) -> None:
            self._note(index, grad)
        return note_gradient

    def _note(self, index: int, grad: Any) -> None:
        from flambeau.autograd import engine
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
        from flambeau.autograd import engine
        task = engine.current_pass()
        if task.id != self.last_pass:
            self.last_pass = task.id
            self.fn(grad)
