"""Module: the base of every neural network part - registries, traversal, conversion, the call."""

from __future__ import annotations

import itertools
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import flambeau
from flambeau.core.device import NO_DATA
from flambeau.nn.modules._backward import BackwardHook
from flambeau.nn.modules._hooks import (
    ModuleHooks,
    register_module_backward_hook,
    register_module_buffer_registration_hook,
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_full_backward_hook,
    register_module_full_backward_pre_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
    tables,
)
from flambeau.nn.modules._notes import note_module
from flambeau.nn.modules._state import ModuleState
from flambeau.nn.modules._text import indent
from flambeau.nn.parameter import Buffer, Parameter
from flambeau.tensor import Tensor
from flambeau.tensor.lists import drop_gradients
from flambeau.utils.naming import typename

__all__ = [
    "Module", "register_module_backward_hook", "register_module_buffer_registration_hook",
    "register_module_forward_hook", "register_module_forward_pre_hook",
    "register_module_full_backward_hook", "register_module_full_backward_pre_hook",
    "register_module_module_registration_hook", "register_module_parameter_registration_hook",
]

T = TypeVar("T", bound="Module")

_global_call_hooks = tables.any_call

_HOOK_TABLES = (
    "_backward_pre_hooks", "_backward_hooks", "_forward_hooks", "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs",
    "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


class Module(ModuleState, ModuleHooks):
    """Base class of neural network modules.

    A subclass calls `super().__init__()`, assigns parameters, buffers and child modules as
    attributes, and defines `forward`. Assigning registers: `Parameter`s go to `parameters()`,
    `Module`s to `children()`.

    Attributes:
        training: True in training mode; `train()` and `eval()` set it for the whole tree.
    """

    dump_patches = False
    _version = 1
    training: bool
    call_super_init = False
    _compiled_call_impl: Callable | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not self.call_super_init:
            if kwargs:
                raise TypeError(f"{type(self).__name__}.__init__() got an unexpected keyword "
                                f"argument '{next(iter(kwargs))}'")
            if args:
                raise TypeError(f"{type(self).__name__}.__init__() takes 1 positional argument but "
                                f"{len(args) + 1} were given")
        plain = object.__setattr__
        plain(self, "training", True)
        plain(self, "_parameters", {})
        plain(self, "_buffers", {})
        plain(self, "_non_persistent_buffers_set", set())
        plain(self, "_is_full_backward_hook", None)
        for table in _HOOK_TABLES:
            plain(self, table, OrderedDict())
        plain(self, "_modules", {})
        if self.call_super_init:
            super().__init__(*args, **kwargs)

    # -- the call --------------------------------------------------------------------------------
    def forward(self, *input: Any) -> Any:
        """What the module computes; every subclass defines it.

        Raises:
            NotImplementedError: the subclass does not.
        """
        raise NotImplementedError(
            f'Module [{type(self).__name__}] is missing the required "forward" function'
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # The attributes are read from the dict: `self.name` takes twice as long on a class that
        # defines __getattr__. The tables are read one by one because code outside may fill them.
        own = self.__dict__
        try:
            hooked = (own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"]
                      or own["_backward_pre_hooks"] or _global_call_hooks)
        except KeyError as missing:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute {missing}; does "
                                 "its __init__ call super().__init__()?") from None
        if hooked or "_compiled_call_impl" in own:
            call = self._compiled_call_impl or self._call_impl
        else:
            call = self.forward
        try:
            return call(*args, **kwargs)
        except Exception as error:
            note_module(self, error)
            raise

    def _call_impl(self, *args: Any, **kwargs: Any) -> Any:
        """forward() and all hooks around it."""
        done: set[int] = set()
        try:
            args, kwargs = self._run_forward_pre_hooks(args, kwargs)
            whole = self._is_full_backward_hook is not False
            own = self._backward_hooks.values() if whole else ()
            hooks = [*tables.backward.values(), *own]
            pre_hooks = [*tables.backward_pre.values(), *self._backward_pre_hooks.values()]
            gate = BackwardHook(self, hooks, pre_hooks) if hooks or pre_hooks else None
            if gate is not None:
                args = gate.setup_inputs(args)
            result = self.forward(*args, **kwargs)
            result = self._run_forward_hooks(args, kwargs, result, done)
            if not whole:
                self._hook_last_operation(result)
            return result if gate is None else gate.setup_outputs(result)
        except Exception:
            self._run_always_called_hooks(args, kwargs, done)
            raise

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Make later calls of this module run compiled; arguments as of `flambeau.compile`."""
        object.__setattr__(self, "_compiled_call_impl",
                           flambeau.compile(self._call_impl, *args, **kwargs))

    # -- attributes ------------------------------------------------------------------------------
    def __getattr__(self, name: str) -> Any:
        attributes = self.__dict__
        if "_parameters" in attributes:
            registry = attributes["_parameters"]
            if name in registry:
                return registry[name]
        if "_buffers" in attributes:
            registry = attributes["_buffers"]
            if name in registry:
                return registry[name]
        if "_modules" in attributes:
            registry = attributes["_modules"]
            if name in registry:
                return registry[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'",
                             name=name, obj=self)

    def __setattr__(self, name: str, value: Any) -> None:
        attributes = self.__dict__
        parameters = attributes.get("_parameters")
        is_tensor = isinstance(value, Tensor)  # cheap; the two checks by flag are not
        if is_tensor and isinstance(value, Parameter):
            if parameters is None:
                raise AttributeError("cannot assign parameters before Module.__init__() call")
            _forget(self, name, keep="_parameters")
            self.register_parameter(name, value)
        elif parameters is not None and name in parameters:
            if value is not None:
                raise TypeError(f"cannot assign '{typename(value)}' as parameter '{name}' "
                                "(torch.nn.Parameter or None expected)")
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            if attributes.get("_modules") is None:
                raise AttributeError("cannot assign module before Module.__init__() call")
            _forget(self, name, keep="_modules")
            attributes["_modules"][name] = _module_registered(self, name, value)
        elif name in attributes.get("_modules", ()):
            if value is not None:
                raise TypeError(f"cannot assign '{typename(value)}' as child module '{name}' "
                                "(torch.nn.Module or None expected)")
            attributes["_modules"][name] = _module_registered(self, name, value)
        elif name in attributes.get("_buffers", ()) or is_tensor and isinstance(value, Buffer):
            self._set_buffer(name, value)
        else:
            object.__setattr__(self, name, value)

    def _set_buffer(self, name: str, value: Any) -> None:
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(f"cannot assign '{typename(value)}' as buffer '{name}' "
                            "(torch.nn.Buffer, torch.Tensor or None expected)")
        buffers = self.__dict__.get("_buffers")
        if isinstance(value, Buffer):
            if buffers is None:
                raise AttributeError("cannot assign buffer before Module.__init__() call")
            _forget(self, name, keep="_buffers")
            self.register_buffer(name, value, value.persistent)
            return
        for hook in tables.buffer_registration.values():
            out = hook(self, name, value)
            value = value if out is None else out
        buffers[name] = value

    def __delattr__(self, name: str) -> None:
        for registry in (self._parameters, self._buffers, self._modules):
            if name in registry:
                del registry[name]
                self._non_persistent_buffers_set.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = {*dir(type(self)), *self.__dict__, *self._parameters, *self._modules,
                 *self._buffers}
        return sorted(name for name in names if not name[:1].isdigit())

    def __getstate__(self) -> dict:
        state = self.__dict__.copy()
        state.pop("_compiled_call_impl", None)
        return state

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        # A module saved by an older version may lack the newer tables.
        for table in _HOOK_TABLES:
            self.__dict__.setdefault(table, OrderedDict())
        self.__dict__.setdefault("_non_persistent_buffers_set", set())
        self.__dict__.setdefault("_is_full_backward_hook", None)

    # -- registration ----------------------------------------------------------------------------
    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is state but no parameter, such as running statistics.

        Args:
            name: the attribute under which it is found.
            tensor: the buffer, or None for one that is absent (and left out of `state_dict`).
            persistent: whether it is part of `state_dict`.
        """
        if "_buffers" not in self.__dict__:
            raise AttributeError("cannot assign buffer before Module.__init__() call")
        _check_name(self, "buffer", name, self._buffers)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"cannot assign '{typename(tensor)}' object to buffer '{name}' "
                            "(torch Tensor or None required)")
        for hook in tables.buffer_registration.values():
            out = hook(self, name, tensor)
            tensor = tensor if out is None else out
        self._buffers[name] = tensor
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter; None reserves the name."""
        if "_parameters" not in self.__dict__:
            raise AttributeError("cannot assign parameter before Module.__init__() call")
        _check_name(self, "parameter", name, self._parameters)
        if param is not None:
            if not isinstance(param, Parameter):
                raise TypeError(f"cannot assign '{typename(param)}' object to parameter '{name}' "
                                "(torch.nn.Parameter or None required)")
            if param.grad_fn is not None:
                raise ValueError(
                    f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must "
                    f"be created explicitly. To express '{name}' as a function of another Tensor, "
                    "compute the value in the forward() method."
                )
            for hook in tables.parameter_registration.values():
                out = hook(self, name, param)
                param = param if out is None else out
        self._parameters[name] = param

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child module; None reserves the name."""
        if not isinstance(module, Module) and module is not None:
            raise TypeError(f"{typename(module)} is not a Module subclass")
        if not isinstance(name, str):
            raise TypeError(f"module name should be a string. Got {typename(name)}")
        if hasattr(self, name) and name not in self._modules:
            raise KeyError(f"attribute '{name}' already exists")
        if "." in name:
            raise KeyError(f'module name can\'t contain ".", got: {name}')
        if name == "":
            raise KeyError('module name can\'t be empty string ""')
        self._modules[name] = _module_registered(self, name, module)

    def register_module(self, name: str, module: Module | None) -> None:
        """The same as `add_module`."""
        self.add_module(name, module)

    # -- look-up by path -------------------------------------------------------------------------
    def get_submodule(self, target: str) -> Module:
        """The module at the dotted path `target`; self for the empty path.

        Raises:
            AttributeError: there is nothing there, or something that is no module.
        """
        module: Any = self
        for name in target.split(".") if target else ():
            if not hasattr(module, name):
                raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
            module = getattr(module, name)
            if not isinstance(module, Module):
                raise AttributeError(f"`{name}` is not an nn.Module")
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Put `module` at the dotted path `target`; `strict` demands that one is there already."""
        if target == "":
            raise ValueError("Cannot set the submodule without a target name!")
        if not isinstance(module, Module):
            raise ValueError(f"`module` is not an nn.Module, found {type(module)}")
        path, _, name = target.rpartition(".")
        parent = self.get_submodule(path)
        if strict and not hasattr(parent, name):
            raise AttributeError(f"{parent._get_name()} has no attribute `{name}`")
        if hasattr(parent, name) and not isinstance(getattr(parent, name), Module):
            raise AttributeError(f"`{name}` is not an nn.Module")
        setattr(parent, name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at the dotted path `target`."""
        found = self._get_member(target)
        if not isinstance(found, Parameter):
            raise AttributeError(f"`{target.rpartition('.')[2]}` is not an nn.Parameter")
        return found

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at the dotted path `target`."""
        self._get_member(target)
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        if name not in owner._buffers:
            raise AttributeError(f"`{name}` is not a buffer")
        return owner._buffers[name]

    def _get_member(self, target: str) -> Any:
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        if not hasattr(owner, name):
            raise AttributeError(f"{owner._get_name()} has no attribute `{name}`")
        return getattr(owner, name)

    # -- traversal -------------------------------------------------------------------------------
    def _named_members(self, get_members_fn: Callable, prefix: str = "", recurse: bool = True,
                       remove_duplicate: bool = True) -> Iterator[tuple[str, Any]]:
        seen = set()
        modules = (self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
                   if recurse else ((prefix, self),))
        for path, module in modules:
            for name, member in get_members_fn(module):
                if member is None or member in seen:
                    continue
                if remove_duplicate:
                    seen.add(member)
                yield (f"{path}.{name}" if path else name), member

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters of the tree (of this module alone if `recurse` is False), each once."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_parameters(self, prefix: str = "", recurse: bool = True,
                         remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """(dotted path, parameter) pairs, in the order of registration."""
        yield from self._named_members(_own_parameters, prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers of the tree, each once."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def named_buffers(self, prefix: str = "", recurse: bool = True,
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        """(dotted path, buffer) pairs, in the order of registration."""
        yield from self._named_members(_own_buffers, prefix, recurse, remove_duplicate)

    def children(self) -> Iterator[Module]:
        """The direct child modules, each once."""
        for _, module in self.named_children():
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) pairs of the direct children."""
        seen = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """This module and all below it."""
        for _, module in self.named_modules(remove_duplicate=remove_duplicate):
            yield module

    def named_modules(self, memo: set | None = None, prefix: str = "",
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """(dotted path, module) pairs of this module (path "") and all below it, depth first."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                path = f"{prefix}.{name}" if prefix else name
                yield from module.named_modules(memo, path, remove_duplicate)

    # -- conversion ------------------------------------------------------------------------------
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Replace every parameter, gradient and buffer by fn(it); parameters stay the objects
        that they are."""
        if recurse:
            for module in self.children():
                module._apply(fn)
        for name, parameter in self._parameters.items():
            if parameter is not None:
                self._parameters[name] = _convert(parameter, fn)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = fn(buffer)
        return self

    def apply(self: T, fn: Callable[[Module], None]) -> T:
        """Call fn(module) for every module of the tree, children first."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def to(self: T, *args: Any, **kwargs: Any) -> T:
        """Move to a device and convert floating parameters and buffers to a dtype, in place.

        Call as `to(device, dtype, non_blocking)`, `to(dtype)`, `to(tensor)` or
        `to(memory_format=...)`.

        Raises:
            TypeError: the dtype is neither floating nor complex.
        """
        device, dtype, non_blocking, memory_format = _parse_to(*args, **kwargs)
        if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
            raise TypeError("nn.Module.to only accepts floating point or complex dtypes, but got "
                            f"desired dtype={dtype}")

        def convert(tensor: Tensor) -> Tensor:
            wanted = dtype if tensor.is_floating_point() or tensor.is_complex() else None
            options: dict[str, Any] = {}
            if wanted is not None:
                options["dtype"] = wanted
            if device is not None:
                options["device"] = device
                options["non_blocking"] = non_blocking
            if memory_format is not None and tensor.dim() in (4, 5):
                options["memory_format"] = memory_format
            try:
                return tensor.to(**options) if options else tensor
            except NotImplementedError as error:
                if str(error) != NO_DATA:
                    raise
                raise NotImplementedError(
                    f"{NO_DATA} Please use torch.nn.Module.to_empty() instead of "
                    "torch.nn.Module.to() when moving module from meta to a different "
                    "device.") from None

        return self._apply(convert)

    def to_empty(self: T, *, device: Any, recurse: bool = True) -> T:
        """Move to `device` without copying: the contents are undefined afterwards."""
        def empty_there(tensor: Tensor) -> Tensor:
            return flambeau.empty_like(tensor, device=device)
        return self._apply(empty_there, recurse=recurse)

    def cuda(self: T, device: Any = None) -> T:
        """Move parameters and buffers to a CUDA device."""
        def to_cuda(tensor: Tensor) -> Tensor:
            return tensor.cuda(device)
        return self._apply(to_cuda)

    T_destination = TypeVar("T_destination", bound=dict[str, Any])
    """The type of what `state_dict(destination=...)` fills."""

    def ipu(self: T, device: Any = None) -> T:
        """Move parameters and buffers to an IPU. Raises RuntimeError: there is none."""
        return self._to_kind("ipu", device)

    def mtia(self: T, device: Any = None) -> T:
        """Move parameters and buffers to an MTIA device. Raises RuntimeError: there is none."""
        return self._to_kind("mtia", device)

    def xpu(self: T, device: Any = None) -> T:
        """Move parameters and buffers to a GPU of Intel. Raises RuntimeError: there is none."""
        return self._to_kind("xpu", device)

    def _to_kind(self: T, kind: str, device: Any) -> T:
        return self.to(f"{kind}:{device}" if isinstance(device, int) else device or kind)

    def cpu(self: T) -> T:
        """Move parameters and buffers to the CPU."""
        def to_cpu(tensor: Tensor) -> Tensor:
            return tensor.cpu()
        return self._apply(to_cpu)

    def type(self: T, dst_type: Any) -> T:
        """Convert every parameter and buffer to `dst_type`."""
        def to_type(tensor: Tensor) -> Tensor:
            return tensor.type(dst_type)
        return self._apply(to_type)

    def float(self: T) -> T:
        """Convert floating parameters and buffers to float32."""
        return self._apply(_to_float)

    def double(self: T) -> T:
        """Convert floating parameters and buffers to float64."""
        return self._apply(_to_double)

    def half(self: T) -> T:
        """Convert floating parameters and buffers to float16."""
        return self._apply(_to_half)

    def bfloat16(self: T) -> T:
        """Convert floating parameters and buffers to bfloat16."""
        return self._apply(_to_bfloat16)

    def share_memory(self: T) -> T:
        """Move parameters and buffers to memory that other processes can map."""
        def to_shared(tensor: Tensor) -> Tensor:
            return tensor.share_memory_()
        return self._apply(to_shared)

    # -- modes and gradients ---------------------------------------------------------------------
    def train(self: T, mode: bool = True) -> T:
        """Set training mode for the whole tree (it matters to dropout and batch norm)."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self: T) -> T:
        """Set evaluation mode: the same as `train(False)`."""
        return self.train(False)

    def requires_grad_(self: T, requires_grad: bool = True) -> T:
        """Set `requires_grad` of every parameter: False freezes the module."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or fill them with zeros."""
        if getattr(self, "_is_replica", False):
            warnings.warn("Calling .zero_grad() from a module created with nn.DataParallel() has "
                          "no effect. The parameters are copied (in a differentiable manner) from "
                          "the original module.", stacklevel=2)
        drop_gradients(self.parameters(), set_to_none)

    # -- display ---------------------------------------------------------------------------------
    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What stands between the brackets of `repr`; subclasses override it."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        extra_lines = extra.split("\n") if extra else []
        child_lines = [f"({name}): {indent(repr(module), 2)}"
                       for name, module in self._modules.items()]
        name = self._get_name()
        if not child_lines and len(extra_lines) <= 1:
            return f"{name}({extra})"
        body = "\n  ".join(itertools.chain(extra_lines, child_lines))
        return f"{name}(\n  {body}\n)"


def _own_parameters(module: Module) -> Any:
    return module._parameters.items()


def _own_buffers(module: Module) -> Any:
    return module._buffers.items()


def _to_float(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _to_double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _to_half(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


def _to_bfloat16(tensor: Tensor) -> Tensor:
    return tensor.bfloat16() if tensor.is_floating_point() else tensor


def _convert(parameter: Parameter, fn: Callable[[Tensor], Tensor]) -> Parameter:
    """`parameter` with fn applied to its data and gradient; the same object wherever possible.

    Optimizers and users hold references to parameters, so identity is kept. Only to or from the
    meta device, which has no memory to swap, a new parameter replaces the old one.
    """
    with flambeau.no_grad():
        data = fn(parameter)
        gradient = None if parameter.grad is None else fn(parameter.grad)
    if data.is_meta != parameter.is_meta:
        moved = Parameter(data, parameter.requires_grad)
        if gradient is not None:
            moved.grad = gradient.requires_grad_(parameter.grad.requires_grad)
        return moved
    if data is not parameter:
        parameter.data = data
    if gradient is not None and gradient is not parameter.grad:
        parameter.grad.data = gradient
    return parameter


def _parse_to(*args: Any, **kwargs: Any) -> tuple:
    """(device, dtype, non_blocking, memory_format) from any call form of `to`."""
    names = ["device", "dtype", "non_blocking", "copy"]
    if args and isinstance(args[0], Tensor) or "tensor" in kwargs or "other" in kwargs:
        other = args[0] if args else kwargs.pop("tensor", None)
        other = kwargs.pop("other") if other is None else other
        kwargs.setdefault("device", other.device)
        kwargs.setdefault("dtype", other.dtype)
        args, names = args[1:], names[2:]
    elif args and isinstance(args[0], flambeau.dtype):
        names = names[1:]
    if len(args) > len(names):
        raise TypeError(f"to() received too many arguments ({len(args)})")
    for name, value in zip(names, args, strict=False):
        if name in kwargs:
            raise TypeError(f"to() received `{name}` twice")
        kwargs[name] = value
    device = kwargs.pop("device", None)
    dtype = kwargs.pop("dtype", None)
    non_blocking = kwargs.pop("non_blocking", False)
    kwargs.pop("copy", None)
    memory_format = kwargs.pop("memory_format", None)
    if kwargs:
        raise TypeError(f"to() received an unexpected keyword argument '{next(iter(kwargs))}'")
    if device is not None:
        if not isinstance(device, str | int | flambeau.device) or isinstance(device, bool):
            raise TypeError("to() received an invalid combination of arguments: expected a device, "
                            f"a dtype or a tensor, but got {type(device).__name__}")
        device = flambeau.device(device)
    if dtype is not None and not isinstance(dtype, flambeau.dtype):
        raise TypeError(f"to() expected a dtype, but got {type(dtype).__name__}")
    return device, dtype, non_blocking, memory_format


def _check_name(module: Module, kind: str, name: Any, registry: dict) -> None:
    if not isinstance(name, str):
        raise TypeError(f"{kind} name should be a string. Got {typename(name)}")
    if "." in name:
        raise KeyError(f'{kind} name can\'t contain "."')
    if name == "":
        raise KeyError(f'{kind} name can\'t be empty string ""')
    if hasattr(module, name) and name not in registry:
        raise KeyError(f"attribute '{name}' already exists")


def _module_registered(parent: Module, name: str, child: Module | None) -> Module | None:
    for hook in tables.module_registration.values():
        out = hook(parent, name, child)
        child = child if out is None else out
    return child


def _forget(module: Module, name: str, keep: str) -> None:
    """Remove `name` from the attributes and from every registry but `keep`."""
    attributes = module.__dict__
    attributes.pop(name, None)
    for registry in ("_parameters", "_buffers", "_modules"):
        if registry != keep and registry in attributes:
            attributes[registry].pop(name, None)
    if keep != "_buffers":
        attributes.get("_non_persistent_buffers_set", set()).discard(name)
