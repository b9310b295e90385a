"""Modules as functions of their parameters: functional_call, stack_module_state, batch norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flambeau
from flambeau.nn.modules.batchnorm import _BatchNorm
from flambeau.nn.modules.module import Module
from flambeau.nn.utils.stateless import call_with

__all__ = ["functional_call", "replace_all_batch_norm_modules_", "stack_module_state"]


def functional_call(module: Module, parameter_and_buffer_dicts: Any, args: Any = None,
                    kwargs: dict[str, Any] | None = None, *, tie_weights: bool = True,
                    strict: bool = False) -> Any:
    """What `module(*args, **kwargs)` gives with other parameters and buffers.

    Args:
        parameter_and_buffer_dicts: tensors by dotted name, in one dict or several.
        args: a tuple of positional arguments, or the only one.
        tie_weights: what is given for one of several names of a tensor serves for all of them.
        strict: the names must be exactly those of the module.

    Raises:
        ValueError: something else than dicts, a name in several dicts, or different tensors for
            names of the same one.
        RuntimeError: other names than the module's, and `strict`.

    >>> m = torch.nn.Linear(2, 1)
    >>> state = {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}
    >>> torch.func.functional_call(m, state, torch.tensor([[1., 2.]]))
    tensor([[3.]])
    """
    given = parameter_and_buffer_dicts
    if isinstance(given, dict):
        return call_with(module, given, args, kwargs, tie_weights, strict)
    if not isinstance(given, Sequence):
        raise ValueError("Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of "
                         f"dicts, but got {type(given)}")
    if not all(isinstance(one, dict) for one in given):
        raise ValueError("Expected all elements of parameter_and_buffer_dicts to be dictionaries")
    names = [name for one in given for name in one]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{repeated} appeared in multiple dictionaries; behavior of functional "
                         "call is ambiguous")
    whole = {name: tensor for one in given for name, tensor in one.items()}
    return call_with(module, whole, args, kwargs, tie_weights, strict)


def stack_module_state(models: Sequence[Module] | flambeau.nn.ModuleList
                       ) -> tuple[dict[str, Any], dict[str, Any]]:
    """(parameters, buffers) of models of one kind, each stacked along a new first dimension: what
    `vmap` needs to run them together. The parameters are leaves.

    Raises:
        RuntimeError: no models, of several classes, or some in training mode and others not.

    >>> models = [torch.nn.Linear(2, 1) for _ in range(3)]
    >>> parameters, buffers = torch.func.stack_module_state(models)
    >>> parameters["weight"].shape
    torch.Size([3, 1, 2])
    """
    if len(models) == 0:
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    if not (all(m.training for m in models) or not any(m.training for m in models)):
        raise RuntimeError("stack_module_state: Expected all models to have the same training/eval "
                           "mode.")
    if len({type(m) for m in models}) > 1:
        raise RuntimeError("stack_module_state: Expected all models to be of the same class.")
    parameters = {name: _stacked([dict(m.named_parameters())[name] for m in models], True)
                  for name, _ in models[0].named_parameters()}
    buffers = {name: _stacked([dict(m.named_buffers())[name] for m in models], False)
               for name, _ in models[0].named_buffers()}
    return parameters, buffers


def _stacked(tensors: list, leaf: bool) -> Any:
    wanted = [tensor.requires_grad for tensor in tensors]
    if leaf and len(set(wanted)) > 1:
        raise RuntimeError("Expected "
                           "parameters from different models to have the same .requires_grad")
    with flambeau.no_grad():
        made = flambeau.stack([tensor.detach() for tensor in tensors])
    return made.requires_grad_() if leaf and wanted[0] else made


def replace_all_batch_norm_modules_(root: Module) -> Module:
    """Let no batch norm of a module keep running statistics, which `vmap` could not update: they
    use those of the batch. Changes `root`, and returns it.

    >>> m = torch.nn.BatchNorm1d(2)
    >>> torch.func.replace_all_batch_norm_modules_(m).running_mean is None
    True
    """
    for module in (root, *root.modules()):
        if isinstance(module, _BatchNorm):
            module.running_mean = None
            module.running_var = None
            module.num_batches_tracked = None
            module.track_running_stats = False
    return root
