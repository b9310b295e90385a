"""Optimizer: parameter groups, state, saving and loading, hooks; and the step over parameters."""

from __future__ import annotations

import functools
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from copy import deepcopy
from itertools import chain
from typing import Any

import flambeau
from flambeau.optim._rule import Rule, apply_rule
from flambeau.tensor import Tensor
from flambeau.tensor.lists import drop_gradients
from flambeau.utils.hooks import RemovableHandle, add_hook
from flambeau.utils.naming import typename

__all__ = ["Optimizer", "register_optimizer_step_pre_hook", "register_optimizer_step_post_hook"]

_global_pre_hooks: OrderedDict = OrderedDict()
_global_post_hooks: OrderedDict = OrderedDict()


class _Required:
    """The value of a default that the user must give."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


def register_optimizer_step_pre_hook(hook: Callable) -> RemovableHandle:
    """Call hook(optimizer, args, kwargs) before every step of every optimizer."""
    return add_hook(_global_pre_hooks, hook)


def register_optimizer_step_post_hook(hook: Callable) -> RemovableHandle:
    """Call hook(optimizer, args, kwargs) after every step of every optimizer."""
    return add_hook(_global_post_hooks, hook)


def _with_hooks(step: Callable) -> Callable:
    """`step` with the hooks of the optimizer around it; it also notes that a step was taken."""
    @functools.wraps(step)
    def hooked(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        self._opt_called = True
        if not (_global_pre_hooks or _global_post_hooks or self._optimizer_step_pre_hooks
                or self._optimizer_step_post_hooks):
            return step(self, *args, **kwargs)
        args = (self, *args)  # as PyTorch's hooks get them
        for hook in chain(_global_pre_hooks.values(), self._optimizer_step_pre_hooks.values()):
            out = hook(self, args, kwargs)
            if out is None:
                continue
            if not isinstance(out, tuple) or len(out) != 2:
                raise RuntimeError(f"{hook} must return None or a tuple of (new_args, new_kwargs), "
                                   f"but got {out}.")
            args, kwargs = out
        result = step(*args, **kwargs)
        for hook in chain(self._optimizer_step_post_hooks.values(), _global_post_hooks.values()):
            hook(self, args, kwargs)
        return result

    hooked.hooked = True
    return hooked


class Optimizer:
    """Base class of optimizers.

    Args:
        params: tensors, (name, tensor) pairs, or dicts: each dict is a group with its own options.
        defaults: the options of groups that do not give their own.

    Attributes:
        param_groups: dicts with "params" and the options.
        state: per parameter, what the optimizer remembers.

    Raises:
        TypeError: `params` is a tensor, a set, or holds something else than tensors.
        ValueError: `params` is empty, holds a tensor twice or one that is no leaf.
    """

    # Options that an optimizer got after its first release, with what groups of older states mean.
    _later_options: Mapping[str, Any] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        step = cls.__dict__.get("step")
        if step is not None and not getattr(step, "hooked", False):
            cls.step = _with_hooks(step)

    def __init__(self, params: Iterable, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self._set_hook_tables()
        if isinstance(params, Tensor):
            raise TypeError("params argument given to the optimizer should be an iterable of "
                            f"Tensors or dicts, but got {typename(params)}")
        self.state: defaultdict = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def _set_hook_tables(self) -> None:
        self._optimizer_step_pre_hooks: OrderedDict = OrderedDict()
        self._optimizer_step_post_hooks: OrderedDict = OrderedDict()
        self._optimizer_state_dict_pre_hooks: OrderedDict = OrderedDict()
        self._optimizer_state_dict_post_hooks: OrderedDict = OrderedDict()
        self._optimizer_load_state_dict_pre_hooks: OrderedDict = OrderedDict()
        self._optimizer_load_state_dict_post_hooks: OrderedDict = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "_optimizer_step_pre_hooks" not in self.__dict__:
            self._set_hook_tables()
        self.defaults.setdefault("differentiable", False)
        if self._later_options:
            for group in self.param_groups:
                for name, value in self._later_options.items():
                    group.setdefault(name, value)

    def __repr__(self) -> str:
        text = type(self).__name__ + " ("
        for index, group in enumerate(self.param_groups):
            text += f"\nParameter Group {index}\n"
            for key in sorted(group):
                if key != "params":
                    text += f"    {key}: {group[key]}\n"
        return text + ")"

    # -- groups ----------------------------------------------------------------------------------
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group: a dict with "params" (and, if it likes, its own options)."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        params = param_group["params"]
        if isinstance(params, Tensor):
            param_group["params"] = [params]
        elif isinstance(params, set):
            raise TypeError("optimizer parameters need to be organized in ordered collections, but "
                            "the ordering of tensors in sets will change between runs. Please use "
                            "a list instead.")
        else:
            param_group["params"] = list(params)
        _split_names(param_group)
        for param in param_group["params"]:
            if not isinstance(param, Tensor):
                raise TypeError("optimizer can only optimize Tensors, but one of the params is "
                                + typename(param))
            if not self.defaults.get("differentiable") and not (param.is_leaf
                                                                or param.retains_grad):
                raise ValueError("can't optimize a non-leaf Tensor")
        for name, default in self.defaults.items():
            if default is required and name not in param_group:
                raise ValueError("parameter group didn't specify a value of required optimization "
                                 f"parameter {name}")
            param_group.setdefault(name, default)
        self._check_group(param_group)
        self.param_groups.append(param_group)

    def _check_group(self, param_group: dict[str, Any]) -> None:
        params = param_group["params"]
        if len(params) != len(set(params)):
            raise ValueError("optimizer contains a parameter group with duplicate parameters; see "
                             "https://github.com/pytorch/pytorch/issues/40967 for more "
                             "information")
        known = {param for group in self.param_groups for param in group["params"]}
        if not known.isdisjoint(params):
            raise ValueError("some parameters appear in more than one parameter group")
        if self.param_groups and ("param_names" in param_group) != (
                "param_names" in self.param_groups[0]):
            raise ValueError("all optimizer param groups should be with/without names. cannot add "
                             "param group " + ("with" if "param_names" in param_group
                                               else "without") + " names to the optimizer")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or fill them with zeros."""
        drop_gradients(chain.from_iterable(group["params"] for group in self.param_groups),
                       set_to_none)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters once; every subclass defines it.

        Args:
            closure: computes the loss and its gradients anew, and returns the loss.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define step()")

    # -- saving and loading ----------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """{"state": {index: {...}}, "param_groups": [...]}, with indices in place of parameters.

        The tensors share memory with the optimizer's.
        """
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        indices: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for param in group["params"]:
                indices.setdefault(id(param), len(indices))
            packed = {key: value for key, value in group.items() if key != "params"}
            packed["params"] = [indices[id(param)] for param in group["params"]]
            groups.append(packed)
        state = {(indices[id(key)] if isinstance(key, Tensor) else key): value
                 for key, value in self.state.items()}
        result = {"state": state, "param_groups": groups}
        for hook in self._optimizer_state_dict_post_hooks.values():
            out = hook(self, result)
            result = result if out is None else out
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state and the options from `state_dict`; parameters match by position.

        Raises:
            ValueError: the groups differ in number or in size.
        """
        state_dict = state_dict.copy()
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            out = hook(self, state_dict)
            state_dict = state_dict if out is None else out
        groups = self.param_groups
        saved = deepcopy(state_dict["param_groups"])
        if len(groups) != len(saved):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(len(group["params"]) != len(old["params"])
               for group, old in zip(groups, saved, strict=True)):
            raise ValueError("loaded state dict contains a parameter group that doesn't match the "
                             "size of optimizer's group")
        params = dict(zip(
            chain.from_iterable(old["params"] for old in saved),
            chain.from_iterable(group["params"] for group in groups), strict=True))
        options = {index: old for old in saved for index in old["params"]}
        state: defaultdict = defaultdict(dict)
        for key, value in state_dict["state"].items():
            if key in params:
                state[params[key]] = _fit(value, params[key], options[key])
            else:
                state[key] = value
        for group, old in zip(groups, saved, strict=True):
            old["params"] = group["params"]
            if "param_names" in group and "param_names" not in old:
                old["param_names"] = group["param_names"]
        self.__setstate__({"state": state, "param_groups": saved})
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    # -- hooks -----------------------------------------------------------------------------------
    def register_step_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Call hook(optimizer, args, kwargs) before step; it may return new (args, kwargs)."""
        return add_hook(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable) -> RemovableHandle:
        """Call hook(optimizer, args, kwargs) after step."""
        return add_hook(self._optimizer_step_post_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Callable,
                                     prepend: bool = False) -> RemovableHandle:
        """Call hook(optimizer) before `state_dict`."""
        return add_hook(self._optimizer_state_dict_pre_hooks, hook, (), prepend)

    def register_state_dict_post_hook(self, hook: Callable,
                                      prepend: bool = False) -> RemovableHandle:
        """Call hook(optimizer, state_dict) after `state_dict`; it may return another dict."""
        return add_hook(self._optimizer_state_dict_post_hooks, hook, (), prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable,
                                          prepend: bool = False) -> RemovableHandle:
        """Call hook(optimizer, state_dict) before loading; it may return another dict."""
        return add_hook(self._optimizer_load_state_dict_pre_hooks, hook, (), prepend)

    def register_load_state_dict_post_hook(self, hook: Callable,
                                           prepend: bool = False) -> RemovableHandle:
        """Call hook(optimizer) after loading."""
        return add_hook(self._optimizer_load_state_dict_post_hooks, hook, (), prepend)


class ParameterwiseOptimizer(Optimizer):
    """An optimizer that updates every parameter on its own, by one rule.

    A subclass says what the rule is, `rule(group)`, and what state it begins with, `init_single`.
    """

    _no_sparse: str | None = None

    def rule(self, group: dict[str, Any]) -> Rule:
        """What updates the parameters of a group, with its options as plain numbers."""
        raise NotImplementedError

    def init_single(self, param: Tensor, state: dict, group: dict[str, Any]) -> None:
        """Fill the empty `state` of `param`."""
        raise NotImplementedError

    def step_sparse(self, param: Tensor, grad: Tensor, state: dict, group: dict[str, Any]) -> None:
        """Update one parameter with a sparse gradient."""
        raise RuntimeError(self._no_sparse or f"{type(self).__name__} does not support sparse "
                           "gradients")

    def step_rows(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor],
                  states: list[dict]) -> None:
        """Update parameters with dense gradients, all of them at once."""
        apply_rule(self.rule(group), params, grads, states)

    def _needs_state(self, group: dict[str, Any]) -> bool:
        return True

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters once.

        Args:
            closure: computes the loss and its gradients anew, and returns the loss.
        """
        loss = None
        if closure is not None:
            with flambeau.enable_grad():
                loss = closure()
        for group in self.param_groups:
            differentiable = group.get("differentiable", False)
            with flambeau.set_grad_enabled(differentiable and flambeau.is_grad_enabled()):
                self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        stateful = self._needs_state(group)
        params, grads, states = [], [], []
        for param in group["params"]:
            grad = param._grad
            if grad is None and param.grad is None:  # a capture is to know that it was looked at
                continue
            strided = grad._meta.strided
            if not strided and self._no_sparse is not None:
                raise RuntimeError(self._no_sparse)
            state = self.state[param] if stateful else {}
            if stateful and not state:
                self.init_single(param, state, group)
            if strided:
                params.append(param)
                grads.append(grad)
                states.append(state)
            else:
                self.step_sparse(param, grad, state, group)
        if params:
            self.step_rows(group, params, grads, states)


def _split_names(group: dict[str, Any]) -> None:
    """Turn (name, tensor) pairs into "params" and "param_names"."""
    params = group["params"]
    named = [isinstance(param, tuple) for param in params]
    if not any(named):
        return
    if not all(named):
        raise ValueError("all optimizer params should be with/without names. Some param names are "
                         "missing")
    group["params"] = [param for _, param in params]
    group["param_names"] = [name for name, _ in params]


def _fit(value: Any, param: Tensor, options: dict[str, Any], key: Hashable = None) -> Any:
    """A loaded state value with the dtype and on the device of its parameter."""
    if isinstance(value, Tensor):
        if key == "step":
            # The counter stays float32 whatever the parameter is.
            if options.get("capturable") or options.get("fused"):
                return value.to(dtype=flambeau.float32, device=param.device)
            return value
        if param.is_floating_point():
            return value.to(dtype=param.dtype, device=param.device)
        return value.to(device=param.device)
    if isinstance(value, dict):
        return {name: _fit(item, param, options, name) for name, item in value.items()}
    if isinstance(value, list | tuple | set):
        return type(value)(_fit(item, param, options) for item in value)
    return value


# -- checks that the constructors share ----------------------------------------------------------
def check_lr(lr: Any) -> None:
    """Raise ValueError unless `lr` is a number >= 0 or a tensor of one element."""
    if isinstance(lr, Tensor):
        if lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        return
    if not lr >= 0.0:
        raise ValueError(f"Invalid learning rate: {lr}")


def check_not_negative(**values: float) -> None:
    """Raise ValueError for a negative value; the keyword says how the message names it."""
    for name, value in values.items():
        if not value >= 0.0:
            raise ValueError(f"Invalid {name} value: {value}")


def check_betas(betas: Any) -> None:
    """Raise ValueError unless both betas lie in [0, 1)."""
    for index, beta in enumerate(betas):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"Invalid beta parameter at index {index}: {beta}")


def check_fused(fused: bool | None, foreach: bool | None, differentiable: bool) -> None:
    """Raise RuntimeError for flags that exclude each other.

    The flags choose between implementations elsewhere; here one launch updates all parameters.
    """
    if fused:
        if differentiable:
            raise RuntimeError("`fused` does not support `differentiable`")
        if foreach:
            raise RuntimeError("`fused` and `foreach` cannot be `True` together.")


def number(value: Any) -> Any:
    """A hyperparameter as a plain number; a tensor of one element is read."""
    return value.item() if isinstance(value, Tensor) else value


def new_step(param: Tensor) -> Tensor:
    """A step counter beside the parameter: a float32 scalar, as checkpoints have it."""
    return flambeau.tensor(0.0, dtype=flambeau.float32, device=param.device)


def zeros_for(param: Tensor) -> Tensor:
    """State of zeros in the layout of the parameter."""
    return flambeau.zeros_like(param, memory_format=flambeau.preserve_format)
