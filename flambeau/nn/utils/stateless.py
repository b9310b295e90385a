"""Calls of modules with other parameters and buffers than their own."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from flambeau.nn.modules.module import Module

__all__ = ["functional_call", "replaced_tensors"]

_MISSING: Any = object()


def functional_call(module: Module, parameters_and_buffers: dict[str, Any], args: Any = None,
                    kwargs: dict[str, Any] | None = None, *, tie_weights: bool = True,
                    strict: bool = False) -> Any:
    """The old home of `torch.func.functional_call`.

    Args:
        args: a tuple of positional arguments, or the only one.
    """
    warnings.warn("`torch.nn.utils.stateless.functional_call` is deprecated as of PyTorch 2.0 and "
                  "will be removed in a future version of PyTorch. Please use "
                  "`torch.func.functional_call` instead which is a drop-in replacement.",
                  FutureWarning, stacklevel=2)
    return call_with(module, parameters_and_buffers, args, kwargs, tie_weights, strict)


def call_with(module: Module, tensors: dict[str, Any], args: Any, kwargs: dict[str, Any] | None,
              tie_weights: bool, strict: bool) -> Any:
    """Call a module with some of its tensors replaced; what it assigns to them meanwhile goes into
    `tensors`."""
    if args is None:
        args = ()
    elif not isinstance(args, tuple):
        args = (args,)
    with replaced_tensors(module, tensors, tie_weights, strict):
        return module(*args, **(kwargs or {}))


@contextlib.contextmanager
def replaced_tensors(module: Module, tensors: dict[str, Any], tie_weights: bool = True,
                     strict: bool = False) -> Iterator[None]:
    """Within the block, `module` has the given tensors for parameters and buffers of these names.

    Raises:
        RuntimeError: names are missing or unknown, and `strict`.
        ValueError: two different tensors for the same, tied one.
        AttributeError: a name leads to a module that there is not.
    """
    wanted = _with_tied(module, tensors) if tie_weights else dict(tensors)
    if strict:
        _check_names(module, wanted)
    before: dict[str, Any] = {}
    try:
        for name, tensor in wanted.items():
            before[name] = _swap(module, name, tensor)
        yield
    finally:
        for name, own in before.items():
            left = _swap(module, name, own)
            if name in tensors and left is not _MISSING:
                tensors[name] = left


def _check_names(module: Module, wanted: dict[str, Any]) -> None:
    known = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    known |= {name for name, _ in module.named_buffers(remove_duplicate=False)}
    text = ""
    if unexpected := sorted(wanted.keys() - known):
        text += f"\n\tUnexpected key(s): {', '.join(map(repr, unexpected))}."
    if missing := sorted(known - wanted.keys()):
        text += f"\n\tMissing key(s): {', '.join(map(repr, missing))}."
    if text:
        raise RuntimeError(f"Error(s) in reparametrizing for {type(module).__name__}:{text}")


def _with_tied(module: Module, tensors: dict[str, Any]) -> dict[str, Any]:
    """`tensors`, and for each its twins: other names of the same parameter or buffer."""
    names: dict[Any, list[str]] = {}
    for members in (module.named_parameters, module.named_buffers):
        for name, tensor in members(remove_duplicate=False):
            names.setdefault(id(tensor), []).append(name)
    result = dict(tensors)
    for group in names.values():
        given = [name for name in group if name in tensors]
        if len({id(tensors[name]) for name in given}) > 1:
            raise ValueError(f"functional_call got multiple values for keys {sorted(given)}, which "
                             "are tied. Consider using tie_weights=False")
        if given:
            result |= dict.fromkeys(group, tensors[given[0]])
    return result


def _swap(module: Module, path: str, tensor: Any) -> Any:
    """Put `tensor` in the place of what a dotted name stands for; gives that back."""
    owner_path, _, name = path.rpartition(".")
    owner = module
    for part in owner_path.split(".") if owner_path else ():
        try:
            owner = getattr(owner, part)
        except AttributeError:
            raise AttributeError(f"{type(owner).__name__} has no attribute `{part}`") from None
        if not isinstance(owner, Module):
            raise TypeError(f"{path}: `{part}` is not an nn.Module")
    for registry in (owner._parameters, owner._buffers):
        if name in registry:
            old = registry[name]
            registry[name] = tensor
            return old
    old = owner.__dict__.get(name, _MISSING)
    if tensor is _MISSING:
        owner.__dict__.pop(name, None)
    else:
        owner.__dict__[name] = tensor
    return old
