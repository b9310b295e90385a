"""Forward and backward hooks of modules, of one module and of all modules.

A hook table maps a handle's id to the hook. Global hooks run before the module's own.
"""

from __future__ import annotations

import functools
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from flambeau.tensor import Tensor
from flambeau.utils.hooks import RemovableHandle, add_hook

__all__ = [
    "ModuleHooks",
    "register_module_backward_hook",
    "register_module_buffer_registration_hook",
    "register_module_forward_hook",
    "register_module_forward_pre_hook",
    "register_module_full_backward_hook",
    "register_module_full_backward_pre_hook",
    "register_module_module_registration_hook",
    "register_module_parameter_registration_hook",
]


class _Tables:
    """The hooks that concern every module."""

    def __init__(self) -> None:
        self.forward: OrderedDict = OrderedDict()
        self.forward_with_kwargs: OrderedDict = OrderedDict()
        self.forward_always_called: OrderedDict = OrderedDict()
        self.forward_pre: OrderedDict = OrderedDict()
        self.backward: OrderedDict = OrderedDict()
        self.backward_pre: OrderedDict = OrderedDict()
        self.buffer_registration: OrderedDict = OrderedDict()
        self.module_registration: OrderedDict = OrderedDict()
        self.parameter_registration: OrderedDict = OrderedDict()
        # Every hook that concerns calls: empty means that a call can go straight to forward().
        self.any_call: OrderedDict = OrderedDict()


tables = _Tables()

_LEGACY = (
    "register_module_backward_hook: hooks around the last operation of every module report wrong "
    "gradients for modules of several operations and are not available; use "
    "register_module_full_backward_hook"
)
_BOTH_KINDS = ("Cannot use both regular backward hooks and full backward hooks on a single Module. "
               "Please use only one of them.")


def register_module_forward_pre_hook(hook: Callable) -> RemovableHandle:
    """Call hook(module, args) before every forward of every module.

    What it returns, unless None, replaces the positional arguments.
    """
    return add_hook(tables.forward_pre, hook, [tables.any_call])


def register_module_forward_hook(hook: Callable, *, with_kwargs: bool = False,
                                 always_call: bool = False) -> RemovableHandle:
    """Call hook(module, args, output) after every forward of every module.

    What it returns, unless None, replaces the output. With `with_kwargs` the hook gets the keyword
    arguments after `args`; with `always_call` it also runs when forward raises.
    """
    flags = [tables.any_call] + [tables.forward_with_kwargs] * with_kwargs
    flags += [tables.forward_always_called] * always_call
    return add_hook(tables.forward, hook, flags)


def register_module_full_backward_pre_hook(hook: Callable) -> RemovableHandle:
    """Call hook(module, grad_output) before the backward of every module."""
    return add_hook(tables.backward_pre, hook, [tables.any_call])


def register_module_full_backward_hook(hook: Callable) -> RemovableHandle:
    """Call hook(module, grad_input, grad_output) after the backward of every module."""
    return add_hook(tables.backward, hook, [tables.any_call])


def register_module_backward_hook(hook: Callable) -> RemovableHandle:
    """The deprecated form of `register_module_full_backward_hook`: not available."""
    raise NotImplementedError(_LEGACY)


def register_module_buffer_registration_hook(hook: Callable) -> RemovableHandle:
    """Call hook(module, name, buffer) at every `register_buffer`; it may return another buffer."""
    return add_hook(tables.buffer_registration, hook)


def register_module_module_registration_hook(hook: Callable) -> RemovableHandle:
    """Call hook(module, name, child) whenever a child is added; it may return another child."""
    return add_hook(tables.module_registration, hook)


def register_module_parameter_registration_hook(hook: Callable) -> RemovableHandle:
    """Call hook(module, name, parameter) at every registration; it may return another one."""
    return add_hook(tables.parameter_registration, hook)


class ModuleHooks:
    """The part of Module that registers hooks and runs the forward ones."""

    def register_forward_pre_hook(self, hook: Callable, *, prepend: bool = False,
                                  with_kwargs: bool = False) -> RemovableHandle:
        """Call hook(module, args) before forward.

        What it returns, unless None, replaces the positional arguments (a single value is wrapped
        into a tuple). With `with_kwargs` it is hook(module, args, kwargs) and returns None or
        (args, kwargs). `prepend` runs it before the hooks that are there.
        """
        flags = [self._forward_pre_hooks_with_kwargs] * with_kwargs
        return add_hook(self._forward_pre_hooks, hook, flags, prepend)

    def register_forward_hook(self, hook: Callable, *, prepend: bool = False,
                              with_kwargs: bool = False,
                              always_call: bool = False) -> RemovableHandle:
        """Call hook(module, args, output) after forward.

        What it returns, unless None, replaces the output. With `with_kwargs` it is
        hook(module, args, kwargs, output). With `always_call` it runs even if forward raises, with
        None as output.
        """
        flags = [self._forward_hooks_with_kwargs] * with_kwargs
        flags += [self._forward_hooks_always_called] * always_call
        return add_hook(self._forward_hooks, hook, flags, prepend)

    def register_full_backward_pre_hook(self, hook: Callable,
                                        prepend: bool = False) -> RemovableHandle:
        """Call hook(module, grad_output) before this module's backward.

        What it returns, unless None, replaces `grad_output`.
        """
        return add_hook(self._backward_pre_hooks, hook, (), prepend)

    def register_full_backward_hook(self, hook: Callable,
                                    prepend: bool = False) -> RemovableHandle:
        """Call hook(module, grad_input, grad_output) when this module's backward is done.

        The gradients are tuples with one entry per positional argument and per output, None where
        no tensor stands. What the hook returns, unless None, replaces `grad_input`.
        """
        if self._is_full_backward_hook is False:
            raise RuntimeError(_BOTH_KINDS)
        self._is_full_backward_hook = True
        return add_hook(self._backward_hooks, hook, (), prepend)

    def register_backward_hook(self, hook: Callable) -> RemovableHandle:
        """Call hook(module, grad_input, grad_output) around this module's last operation, whose
        gradients these are; what it returns, unless None, replaces `grad_input`. Deprecated:
        `register_full_backward_hook` is about the whole module.

        Raises:
            RuntimeError: the module has hooks of the other kind.
        """
        if self._is_full_backward_hook is True:
            raise RuntimeError(_BOTH_KINDS)
        self._is_full_backward_hook = False
        return add_hook(self._backward_hooks, hook)

    def _hook_last_operation(self, result: Any) -> None:
        """Give the node of the (first) result the hooks of `register_backward_hook`."""
        while not isinstance(result, Tensor):
            if not isinstance(result, (dict, list, tuple)) or not result:
                return
            result = next(iter(result.values())) if isinstance(result, dict) else result[0]
        if result.grad_fn is not None:
            for hook in tuple(self._backward_hooks.values()):
                result.grad_fn.register_hook(functools.partial(hook, self))

    def _run_forward_pre_hooks(self, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        for hook in tuple(tables.forward_pre.values()):
            args = _new_args(hook(self, args), args)
        for key, hook in tuple(self._forward_pre_hooks.items()):
            if key not in self._forward_pre_hooks_with_kwargs:
                args = _new_args(hook(self, args), args)
                continue
            out = hook(self, args, kwargs)
            if out is None:
                continue
            if not isinstance(out, tuple) or len(out) != 2:
                raise RuntimeError("forward pre-hook must return None or a tuple of (new_args, "
                                   f"new_kwargs), but got {out}.")
            args, kwargs = out
        return args, kwargs

    def _forward_hook_rows(self) -> list[tuple[int, Callable, bool, bool]]:
        """(id, hook, wants kwargs, always called) of each forward hook in the order of calling."""
        rows = [(key, hook, key in tables.forward_with_kwargs, key in tables.forward_always_called)
                for key, hook in tables.forward.items()]
        rows += [(key, hook, key in self._forward_hooks_with_kwargs,
                  key in self._forward_hooks_always_called)
                 for key, hook in self._forward_hooks.items()]
        return rows

    def _run_forward_hooks(self, args: tuple, kwargs: dict, result: Any, done: set[int]) -> Any:
        for key, hook, with_kwargs, always in self._forward_hook_rows():
            if always:
                done.add(key)
            out = hook(self, args, kwargs, result) if with_kwargs else hook(self, args, result)
            result = result if out is None else out
        return result

    def _run_always_called_hooks(self, args: tuple, kwargs: dict, done: set[int]) -> None:
        """After an exception: the hooks that must run and have not yet; theirs only warn."""
        for key, hook, with_kwargs, always in self._forward_hook_rows():
            if not always or key in done:
                continue
            try:
                out = hook(self, args, kwargs, None) if with_kwargs else hook(self, args, None)
                del out
            except Exception as error:
                warnings.warn("module forward hook with ``always_call=True`` raised an exception "
                              "that was silenced as another error was raised in forward: "
                              f"{error}", stacklevel=2)


def _new_args(out: Any, args: tuple) -> tuple:
    if out is None:
        return args
    return out if isinstance(out, tuple) else (out,)
