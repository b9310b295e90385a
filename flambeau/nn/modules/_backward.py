"""Full backward hooks: two identity functions around a module see its gradients pass.

The one at the outputs meets the gradients first (`grad_output`); the one at the inputs meets them
when the module's own backward is done (`grad_input`) and then calls the user's hooks.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import flambeau
from flambeau.tensor import Tensor

__all__ = ["BackwardHook"]


@functools.cache
def _identity_function() -> type:
    """An autograd Function that returns its tensors and reports the gradients that pass it."""
    try:
        from flambeau.autograd import Function
    except ImportError as missing:
        raise NotImplementedError(
            "module backward hooks need autograd.Function, which this build does not have; "
            "register a hook on the tensors themselves with Tensor.register_hook"
        ) from missing

    class GradientGate(Function):
        """Identity forward; backward hands the gradients to `receive` and returns its answer."""

        calls_hooks = True  # so a pass that nobody shall see must not run it

        @staticmethod
        def forward(ctx: Any, receive: Callable, fill: bool, *tensors: Tensor) -> tuple:
            ctx.receive = receive
            ctx.set_materialize_grads(fill)
            ctx.mark_non_differentiable(*[t for t in tensors if not t.requires_grad])
            return tensors

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple:
            return (None, None, *ctx.receive(grads))

    return GradientGate


def _as_tuple(value: Any) -> tuple:
    return value if isinstance(value, tuple) else (value,)


class BackwardHook:
    """The hooks of one call of one module.

    Args:
        module: the module; first argument of every hook.
        hooks: full backward hooks, called with (module, grad_input, grad_output).
        pre_hooks: called with (module, grad_output) before the module's backward runs.
    """

    def __init__(self, module: Any, hooks: list[Callable], pre_hooks: list[Callable]):
        self.module = module
        self.hooks = hooks
        self.pre_hooks = pre_hooks
        self.grad_output: tuple | None = None
        self.input_slots: tuple[int, ...] | None = None
        self.input_count = 0
        self.output_slots: tuple[int, ...] = ()
        self.output_count = 0

    # -- the inputs ------------------------------------------------------------------------------
    def setup_inputs(self, args: tuple) -> tuple:
        """The positional arguments, their tensors passed through the gate."""
        if not self.hooks:
            return args
        slots = tuple(i for i, arg in enumerate(args) if isinstance(arg, Tensor))
        if not flambeau.is_grad_enabled() or not any(args[i].requires_grad for i in slots):
            return args
        self.input_slots, self.input_count = slots, len(args)
        # As in PyTorch, an input without a gradient shows zeros, an output without one None.
        gated = _identity_function().apply(self._receive_grad_input, True,
                                           *[args[i] for i in slots])
        return self._merge(args, slots, _as_tuple(gated))

    def _receive_grad_input(self, grads: tuple) -> tuple:
        if self.grad_output is None:
            # The outputs of the module took no part in this backward.
            return grads
        full = self._spread(grads, self.input_slots, self.input_count)
        full = self._run_hooks(full)
        self.grad_output = None
        return tuple(full[i] for i in self.input_slots)

    def _run_hooks(self, grad_input: tuple) -> tuple:
        for hook in self.hooks:
            out = hook(self.module, grad_input, self.grad_output)
            if out is None:
                continue
            out = _as_tuple(out)
            if len(out) != len(grad_input):
                raise RuntimeError(
                    "Backward hook returned an invalid number of grad_input, got "
                    f"{len(out)}, but expected {len(grad_input)}"
                )
            grad_input = out
        return grad_input

    # -- the outputs -----------------------------------------------------------------------------
    def setup_outputs(self, result: Any) -> Any:
        """The module's result, its tensors passed through the gate."""
        args = _as_tuple(result)
        slots = tuple(i for i, arg in enumerate(args) if isinstance(arg, Tensor))
        if not flambeau.is_grad_enabled() or not any(args[i].requires_grad for i in slots):
            if not slots:
                warnings.warn(
                    "For backward hooks to be called, module output should be a Tensor or a tuple "
                    f"of Tensors but received {type(result)}", stacklevel=4)
            return result
        self.output_slots, self.output_count = slots, len(args)
        gated = _identity_function().apply(self._receive_grad_output, False,
                                           *[args[i] for i in slots])
        merged = self._merge(args, slots, _as_tuple(gated))
        if not isinstance(result, tuple):
            return merged[0]
        return type(result)(*merged) if hasattr(result, "_fields") else merged

    def _receive_grad_output(self, grads: tuple) -> tuple:
        full = self._spread(grads, self.output_slots, self.output_count)
        for hook in self.pre_hooks:
            out = hook(self.module, full)
            if out is None:
                continue
            out = _as_tuple(out)
            if len(out) != len(full):
                raise RuntimeError(
                    "Backward pre hook returned an invalid number of grad_output, got "
                    f"{len(out)}, but expected {len(full)}"
                )
            full = out
        self.grad_output = full
        if self.input_slots is None and self.hooks:
            # No input requires a gradient: the hooks still see the output's.
            warnings.warn(
                "Full backward hook is firing when gradients are computed with respect to module "
                "outputs since no inputs require gradients. See "
                "https://docs.pytorch.org/docs/main/generated/torch.nn.Module.html#torch.nn.Module"
                ".register_full_backward_hook for more details.", stacklevel=5)
            self._run_hooks_without_input()
        return tuple(full[i] for i in self.output_slots)

    def _run_hooks_without_input(self) -> None:
        for hook in self.hooks:
            out = hook(self.module, (None,) * self.input_count, self.grad_output)
            if out is not None and any(grad is not None for grad in _as_tuple(out)):
                raise RuntimeError(
                    "Backward hook for Modules where no input requires gradient should always "
                    "return None or None for all gradients."
                )
        self.grad_output = None

    @staticmethod
    def _merge(args: tuple, slots: tuple, tensors: tuple) -> tuple:
        merged = list(args)
        for slot, tensor in zip(slots, tensors, strict=True):
            merged[slot] = tensor
        return tuple(merged)

    @staticmethod
    def _spread(grads: tuple, slots: tuple, count: int) -> tuple:
        full = [None] * count
        for slot, grad in zip(slots, grads, strict=True):
            full[slot] = grad
        return tuple(full)
