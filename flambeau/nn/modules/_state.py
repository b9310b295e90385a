"""state_dict and load_state_dict: a module's tensors by dotted name, and back."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flambeau
from flambeau.nn.parameter import Parameter, is_lazy
from flambeau.tensor import Tensor
from flambeau.utils.hooks import RemovableHandle, add_hook

__all__ = ["ModuleState", "EXTRA_STATE_KEY"]

EXTRA_STATE_KEY = "_extra_state"


class _IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` could not match."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return (f"_IncompatibleKeys(missing_keys={self.missing_keys}, "
                f"unexpected_keys={self.unexpected_keys})")

    __str__ = __repr__


class ModuleState:
    """The part of Module that saves and loads."""

    # -- extra state -----------------------------------------------------------------------------
    def get_extra_state(self) -> Any:
        """What to save beside parameters and buffers; a subclass overrides both or neither."""
        raise RuntimeError("get_extra_state() is called only where a subclass defines it")

    def set_extra_state(self, state: Any) -> None:
        """Restore what `get_extra_state` returned."""
        raise RuntimeError("set_extra_state() is called only where a subclass defines it")

    # -- saving ----------------------------------------------------------------------------------
    def _register_state_dict_hook(self, hook: Callable) -> RemovableHandle:
        """Call hook(module, state_dict, prefix, metadata) after saving; may return a new dict."""
        if getattr(hook, "_from_public_api", False):
            raise RuntimeError(
                "Cannot register the same function as the state dict post hook that was "
                "previously registered via register_state_dict_post_hook"
            )
        return add_hook(self._state_dict_hooks, hook)

    def register_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """Call hook(module, state_dict, prefix, local_metadata) after saving; it works in place."""
        hook._from_public_api = True
        return add_hook(self._state_dict_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Call hook(module, prefix, keep_vars) before saving."""
        return add_hook(self._state_dict_pre_hooks, hook)

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        for name, parameter in self._parameters.items():
            if parameter is not None:
                destination[prefix + name] = _kept(parameter, keep_vars)
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._non_persistent_buffers_set:
                destination[prefix + name] = _kept(buffer, keep_vars)
        if type(self).get_extra_state is not ModuleState.get_extra_state:
            destination[prefix + EXTRA_STATE_KEY] = self.get_extra_state()

    def state_dict(self, *args: Any, destination: dict | None = None, prefix: str = "",
                   keep_vars: bool = False) -> dict[str, Any]:
        """The persistent tensors of the tree by dotted name. They share memory with the module.

        Args:
            destination: the dict to fill; a new OrderedDict by default.
            prefix: put before every name.
            keep_vars: give the parameters themselves instead of detached tensors.
        """
        for value, name in zip(args, ("destination", "prefix", "keep_vars"), strict=False):
            if name == "destination" and destination is None:
                destination = value
            elif name == "prefix" and prefix == "":
                prefix = value
            elif name == "keep_vars" and keep_vars is False:
                keep_vars = value
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        local_metadata = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = local_metadata
        for hook in self._state_dict_pre_hooks.values():
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=destination, prefix=f"{prefix}{name}.",
                                  keep_vars=keep_vars)
        for hook in self._state_dict_hooks.values():
            out = hook(self, destination, prefix, local_metadata)
            if not getattr(hook, "_from_public_api", False):
                destination = destination if out is None else out
            elif out is not None:
                raise RuntimeError("state_dict post-hook must return None")
        return destination

    # -- loading ---------------------------------------------------------------------------------
    def _register_load_state_dict_pre_hook(self, hook: Callable,
                                           with_module: bool = False) -> RemovableHandle:
        return add_hook(self._load_state_dict_pre_hooks,
                        _LoadHook(hook, self if with_module else None))

    def register_load_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Call hook(module, state_dict, prefix, local_metadata, strict, missing_keys,
        unexpected_keys, error_msgs) before loading; it may change all of them in place."""
        return self._register_load_state_dict_pre_hook(hook, with_module=True)

    def register_load_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """Call hook(module, incompatible_keys) after loading; it may change the lists in place."""
        return add_hook(self._load_state_dict_post_hooks, hook)

    def _local_state(self) -> dict[str, Tensor]:
        state = {name: parameter for name, parameter in self._parameters.items()
                 if parameter is not None}
        state |= {name: buffer for name, buffer in self._buffers.items()
                  if buffer is not None and name not in self._non_persistent_buffers_set}
        return state

    def _load_from_state_dict(self, state_dict: dict, prefix: str, local_metadata: dict,
                              strict: bool, missing_keys: list[str], unexpected_keys: list[str],
                              error_msgs: list[str]) -> None:
        """Load what belongs to this module alone; problems are appended to the three lists."""
        for hook in self._load_state_dict_pre_hooks.values():
            hook(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
                 error_msgs)
        assign = local_metadata.get("assign_to_params_buffers", False)
        local_state = self._local_state()
        for name, current in local_state.items():
            key = prefix + name
            if key in state_dict:
                problem = self._load_tensor(key, name, current, state_dict[key], assign)
                if problem:
                    error_msgs.append(problem)
            elif strict:
                missing_keys.append(key)
        extra_key = prefix + EXTRA_STATE_KEY
        if type(self).set_extra_state is not ModuleState.set_extra_state:
            if extra_key in state_dict:
                self.set_extra_state(state_dict[extra_key])
            elif strict:
                missing_keys.append(extra_key)
        elif strict and extra_key in state_dict:
            unexpected_keys.append(extra_key)
        if strict:
            for key in state_dict:
                if key.startswith(prefix) and key != extra_key:
                    head, *rest = key[len(prefix):].split(".", 1)
                    known = self._modules if rest else local_state
                    if head not in known:
                        unexpected_keys.append(key)

    def _load_tensor(self, key: str, name: str, current: Tensor, value: Any,
                     assign: bool) -> str | None:
        """Copy (or assign) `value` to the parameter or buffer `name`; a message if it cannot."""
        if not isinstance(value, Tensor):
            return (f'While copying the parameter named "{key}", expected torch.Tensor or '
                    f"Tensor-like object from checkpoint but received {type(value)}")
        lazy = is_lazy(current)
        # Checkpoints of the first versions hold scalars as tensors of one element.
        if not lazy and current.dim() == 0 and value.dim() == 1 and value.shape[0] == 1:
            value = value[0]
        if not lazy and value.shape != current.shape:
            return (f"size mismatch for {key}: copying a param with shape {value.shape} from "
                    f"checkpoint, the shape in current model is {current.shape}.")
        try:
            with flambeau.no_grad():
                if assign:
                    self._assign_tensor(name, current, value)
                else:
                    current.copy_(value)
        except Exception as error:
            sizes = "" if lazy else (f", whose dimensions in the model are {current.size()} and "
                                     f"whose dimensions in the checkpoint are {value.size()}")
            action = "assigning" if assign else "copying"
            return (f'While {action} the parameter named "{key}"{sizes}, an exception occurred : '
                    f"{error.args}.")
        return None

    def _assign_tensor(self, name: str, current: Tensor, value: Tensor) -> None:
        if isinstance(current, Parameter):
            if isinstance(value, Parameter):
                value.requires_grad_(current.requires_grad)
            else:
                value = Parameter(value, requires_grad=current.requires_grad)
        setattr(self, name, value)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True,
                        assign: bool = False) -> _IncompatibleKeys:
        """Copy the tensors of `state_dict` into parameters and buffers of the same names.

        Args:
            state_dict: what `state_dict()` returned, here or elsewhere.
            strict: whether names missing on either side are an error.
            assign: put the tensors themselves in place of the parameters, instead of copying.

        Returns:
            The missing and the unexpected names.

        Raises:
            TypeError: `state_dict` is no mapping.
            RuntimeError: names (if strict) or sizes do not match; the message lists all of them.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        metadata = getattr(state_dict, "_metadata", None)
        state_dict = OrderedDict(state_dict)
        if metadata is not None:
            state_dict._metadata = metadata
        loading = _Loading(strict, assign, metadata)
        loading.load(self, state_dict, "")
        missing, unexpected, errors = loading.missing, loading.unexpected, loading.errors
        if strict:
            if unexpected:
                errors.insert(0, f"Unexpected key(s) in state_dict: {_quoted(unexpected)}. ")
            if missing:
                errors.insert(0, f"Missing key(s) in state_dict: {_quoted(missing)}. ")
        if errors:
            raise RuntimeError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t"
                               + "\n\t".join(errors))
        return _IncompatibleKeys(missing, unexpected)


class _LoadHook:
    """A load_state_dict pre-hook that gets the module or not, as it was registered. Its state is
    that of PyTorch's `_WrappedHook`, which knows the module; here the caller says which it is."""

    def __init__(self, hook: Callable, module: Any = None):
        self.hook = hook
        self.with_module = module is not None
        self._module = None if module is None else weakref.ref(module)

    def __call__(self, module: Any, *args: Any) -> Any:
        return self.hook(module, *args) if self.with_module else self.hook(*args)

    def __getstate__(self) -> dict:
        state = {"hook": self.hook, "with_module": self.with_module}
        return state | {"module": self._module()} if self.with_module else state

    def __setstate__(self, state: dict) -> None:
        self.hook, self.with_module = state["hook"], state["with_module"]
        module = state.get("module")
        self._module = None if module is None else weakref.ref(module)


class _Loading:
    """One load_state_dict: the walk over the tree and what it could not match."""

    def __init__(self, strict: bool, assign: bool, metadata: Mapping | None):
        self.strict = strict
        self.assign = assign
        self.metadata = metadata
        self.missing: list[str] = []
        self.unexpected: list[str] = []
        self.errors: list[str] = []

    def load(self, module: Any, state_dict: dict, prefix: str) -> None:
        local_metadata = {} if self.metadata is None else self.metadata.get(prefix[:-1], {})
        if self.assign:
            local_metadata["assign_to_params_buffers"] = True
        # Every module is asked strictly: without `strict` the lists are simply returned.
        module._load_from_state_dict(state_dict, prefix, local_metadata, True, self.missing,
                                     self.unexpected, self.errors)
        for name, child in module._modules.items():
            if child is not None:
                child_prefix = f"{prefix}{name}."
                below = OrderedDict((key, value) for key, value in state_dict.items()
                                    if key.startswith(child_prefix))
                self.load(child, below, child_prefix)
        keys = _IncompatibleKeys(self.missing, self.unexpected)
        for hook in module._load_state_dict_post_hooks.values():
            if hook(module, keys) is not None:
                raise AssertionError(
                    "Hooks registered with ``register_load_state_dict_post_hook`` are not expected "
                    "to return new values, if incompatible_keys need to be modified, it should be "
                    "done inplace."
                )


def _kept(tensor: Tensor, keep_vars: bool) -> Tensor:
    return tensor if keep_vars else tensor.detach()


def _quoted(keys: list[str]) -> str:
    return ", ".join(f'"{key}"' for key in keys)
