"""Hooks: what tensors register, and how the engine calls them around a backward."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from flambeau.autograd.handles import NodeHooks, RemovableHandle, TensorHooks, add_hook
from flambeau.autograd.registry import tensors

__all__ = ["RemovableHandle", "register_tensor_hook", "enable_retain_grad", "move_retain_grad",
           "register_post_accumulate_hook", "run_tensor_hooks", "run_node_hooks",
           "run_retain_hooks"]


def _own_hooks(leaf: Any) -> TensorHooks:
    if leaf._hooks is None:
        leaf._hooks = TensorHooks()
    return leaf._hooks


def register_tensor_hook(tensor: Any, hook: Callable[[Any], Any]) -> RemovableHandle:
    """`Tensor.register_hook`: call `hook(grad)` when the gradient of `tensor` is complete.

    What the hook returns, unless None, takes the gradient's place. On a leaf the hook stays with
    the tensor; otherwise it stays with the operation that made the tensor's present value.
    """
    if not tensor.requires_grad:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    node = tensor.grad_fn
    if node is None:
        return add_hook(_own_hooks(tensor), hook)
    by_output = node._own_hooks().tensor
    return add_hook(by_output.setdefault(tensor._output_nr, OrderedDict()), hook)


def register_post_accumulate_hook(tensor: Any, hook: Callable[[Any], None]) -> RemovableHandle:
    """`Tensor.register_post_accumulate_grad_hook`: call `hook(tensor)` once `.grad` is final."""
    if not tensor.requires_grad:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    if tensor.grad_fn is not None:
        raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
    return add_hook(_own_hooks(tensor).post, hook)


def enable_retain_grad(tensor: Any) -> None:
    """`Tensor.retain_grad`: keep the gradient of a tensor that is not a leaf in `.grad`."""
    if not tensor.requires_grad:
        raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
    node = tensor.grad_fn
    if node is not None:
        node._own_hooks().retain[tensor._output_nr] = weakref.ref(tensor)
        tensor._retains_grad = True


def move_retain_grad(tensor: Any, node: Any, output_nr: int) -> None:
    """After an in-place operation: `tensor` left output `output_nr` of `node` for its new node."""
    if node is not None and node.tape_hooks is not None:
        reference = node.tape_hooks.retain.get(output_nr)
        if reference is not None and reference() is tensor:
            del node.tape_hooks.retain[output_nr]
            enable_retain_grad(tensor)


def _checked(result: Any, grad: Any, hook: Callable) -> Any:
    if not isinstance(result, tensors.cls):
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
