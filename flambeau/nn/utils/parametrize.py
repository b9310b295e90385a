"""Parametrizations: a parameter or buffer that is computed from others each time it is read.

    register_parametrization(layer, "weight", Symmetric())

`layer.weight` is then `Symmetric()(original)`; `original` is what is trained and saved. A module
gets a class of its own, in which the name is a property; several parametrizations of one name form
a chain. Assigning goes the other way, through their `right_inverse`.
"""

from __future__ import annotations

import contextlib
import copyreg
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

from flambeau.autograd.grad_mode import no_grad
from flambeau.nn.modules.container import ModuleDict, ModuleList
from flambeau.nn.modules.module import Module
from flambeau.nn.parameter import Parameter
from flambeau.tensor import Tensor

__all__ = ["ParametrizationList", "cached", "is_parametrized", "register_parametrization",
           "remove_parametrizations", "transfer_parametrizations_and_params",
           "type_before_parametrizations"]

_CLASS_PREFIX = "Parametrized"


class _Cache:
    """Values that are read more than once inside of `cached()`."""

    def __init__(self) -> None:
        self.depth = 0
        self.values: dict[tuple[int, str], Tensor] = {}


_cache = _Cache()


@contextlib.contextmanager
def cached() -> Iterator[None]:
    """Inside, each parametrized tensor is computed once, when it is first read. Useful where one is
    read often in a pass, as in recurrent networks."""
    _cache.depth += 1
    try:
        yield
    finally:
        _cache.depth -= 1
        if not _cache.depth:
            _cache.values = {}


def _check_like(what: str, given: Any, original: Tensor) -> None:
    """Is this a tensor that may stand in the place of `original`?"""
    if not isinstance(given, Tensor):
        raise ValueError(f"{what} must return a tensor. Got {type(given).__name__}. Pass "
                         "unsafe=True to do without this check.")
    if given.dtype != original.dtype:
        raise ValueError(f"{what} may not change the dtype of the tensor, unless it is registered "
                         f"with unsafe=True: it had {original.dtype}, and became {given.dtype}")
    if given.shape != original.shape:
        raise ValueError(f"{what} may not change the shape of the tensor, unless it is registered "
                         f"with unsafe=True: it had {tuple(original.shape)}, and became "
                         f"{tuple(given.shape)}")


def _register(module: Module, name: str, tensor: Tensor) -> None:
    if isinstance(tensor, Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor)


class ParametrizationList(ModuleList):
    """The chain of parametrizations of one tensor, and the tensors that it starts from.

    These are `original`, or `original0`, `original1`, ... where `right_inverse` of the first
    parametrization gives a sequence.

    Args:
        modules: the chain, applied in this order.
        original: the tensor that is parametrized.
        unsafe: let the chain change dtype and shape.
    """

    original: Tensor
    unsafe: bool

    def __init__(self, modules: Sequence[Module], original: Tensor | Parameter,
                 unsafe: bool = False) -> None:
        if len(modules) == 0:
            raise ValueError("ParametrizationList requires one or more modules.")
        super().__init__(modules)
        self.unsafe = unsafe
        start = self._start(original)
        self.is_tensor = isinstance(start, Tensor)
        self.ntensors = 1 if self.is_tensor else len(start)
        if self.is_tensor:
            self._keep_one(original, start)
        else:
            self._keep_several(original, start)
        if not unsafe:
            _check_like("A parametrization", self(), original)

    def _start(self, original: Tensor) -> Any:
        """What the chain must start from to give `original`."""
        start: Any = original
        with no_grad():
            for module in reversed(list(self)):
                if hasattr(module, "right_inverse"):
                    with contextlib.suppress(NotImplementedError):
                        start = module.right_inverse(start)
        if not isinstance(start, Tensor) and not isinstance(start, Sequence):
            raise ValueError("'right_inverse' must return a Tensor or a Sequence of tensors "
                             f"(list, tuple...). Got {type(start).__name__}")
        return start

    def _keep_one(self, original: Tensor, start: Tensor) -> None:
        if original.dtype != start.dtype:
            raise ValueError("When `right_inverse` returns one tensor, it may not change the "
                             f"dtype: original.dtype: {original.dtype}, "
                             f"right_inverse(original).dtype: {start.dtype}")
        with no_grad():  # it stays the object that an optimizer may know
            original.set_(start)
        _register(self, "original", original)

    def _keep_several(self, original: Tensor, start: Sequence) -> None:
        for i, tensor in enumerate(start):
            if not isinstance(tensor, Tensor):
                raise ValueError("'right_inverse' must return a Tensor or a Sequence of tensors "
                                 f"(list, tuple...). Got element {i} of the sequence with type "
                                 f"{type(tensor).__name__}.")
            kept = Parameter(tensor) if isinstance(original, Parameter) else tensor
            kept.requires_grad_(original.requires_grad)
            _register(self, f"original{i}", kept)

    def right_inverse(self, value: Tensor) -> None:
        """Let the chain start from what gives `value`: what an assignment does.

        Raises:
            RuntimeError: a parametrization has no `right_inverse`.
            ValueError: what it gives does not fit.
        """
        with no_grad():
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise RuntimeError(f"parametrization {type(module).__name__} does not "
                                       "implement right_inverse.")
                value = module.right_inverse(value)
            if self.is_tensor:
                self._assign("original", value)
                return
            if not isinstance(value, Sequence):
                raise ValueError("'right_inverse' must return a sequence of tensors. Got "
                                 f"{type(value).__name__}.")
            if len(value) != self.ntensors:
                raise ValueError("'right_inverse' must return a sequence of tensors of length "
                                 f"{self.ntensors}. Got a sequence of length {len(value)}.")
            for i, tensor in enumerate(value):
                self._assign(f"original{i}", tensor)

    def _assign(self, name: str, value: Any) -> None:
        if not isinstance(value, Tensor):
            raise ValueError(f"`right_inverse` should return a tensor. Got {type(value).__name__}")
        kept = getattr(self, name)
        if kept.dtype != value.dtype:
            raise ValueError(f"Tensor returned by `right_inverse` has dtype {value.dtype} while "
                             f"`{name}` has dtype {kept.dtype}")
        kept.set_(value)

    def forward(self) -> Tensor:
        """The parametrized tensor."""
        first, *others = self
        if self.is_tensor:
            value = first(self.original)
        else:
            value = first(*[getattr(self, f"original{i}") for i in range(self.ntensors)])
        for module in others:
            value = module(value)
        return value


# ---------------------------------------------------------------------- the class of a module
def _refuse_pickling(self: Module) -> Any:
    raise RuntimeError("Serialization of parametrized modules is only supported through "
                       "state_dict(): save that, and register the parametrizations again before "
                       "load_state_dict().")


def _deepcopy(self: Module, memo: dict) -> Module:
    found = memo.get(id(self))
    if found is not None:
        return found
    twin = self.__new__(type(self))
    memo[id(self)] = twin
    twin.__dict__ = deepcopy(self.__dict__, memo)
    for name in copyreg._slotnames(type(self)):  # type: ignore[attr-defined]
        if hasattr(self, name):
            setattr(twin, name, deepcopy(getattr(self, name), memo))
    return twin


def _give_class(module: Module) -> None:
    """Give a module a class of its own, that properties can be put on."""
    cls = type(module)
    members = {"__getstate__": _refuse_pickling}
    if not hasattr(cls, "__deepcopy__"):
        members["__deepcopy__"] = _deepcopy
    module.__class__ = type(f"{_CLASS_PREFIX}{cls.__name__}", (cls,), members)


def _give_property(module: Module, name: str) -> None:
    """Let the name be computed when it is read."""

    def read(self: Module) -> Tensor:
        if not _cache.depth:
            return self.parametrizations[name]()
        key = id(self), name
        if key not in _cache.values:
            _cache.values[key] = self.parametrizations[name]()
        return _cache.values[key]

    def assign(self: Module, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    setattr(type(module), name, property(read, assign))


# ---------------------------------------------------------------------- what users call
def register_parametrization(module: Module, tensor_name: str, parametrization: Module, *,
                             unsafe: bool = False) -> Module:
    """Let a parameter or buffer of a module be computed by `parametrization`; gives the module.

    Args:
        tensor_name: of the parameter or buffer; a name that is parametrized gets one more.
        parametrization: a module that takes the tensor (or what its `right_inverse` gives, which
            is then called once) and gives one of the same dtype and shape.
        unsafe: it may change dtype and shape, and is not tried out.

    Raises:
        ValueError: the module has no such tensor, or the parametrization does not fit it.
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        if not unsafe:
            _try_out(parametrization, getattr(module, tensor_name))
        chain = module.parametrizations[tensor_name]
        chain.append(parametrization)
        chain.unsafe |= unsafe
    elif tensor_name in module._buffers or tensor_name in module._parameters:
        original = getattr(module, tensor_name)
        chain = ParametrizationList([parametrization], original, unsafe=unsafe)
        delattr(module, tensor_name)
        if not is_parametrized(module):
            _give_class(module)
            module.parametrizations = ModuleDict()
        _give_property(module, tensor_name)
        module.parametrizations[tensor_name] = chain
    else:
        raise ValueError(f"Module '{module}' does not have a parameter, a buffer, or a "
                         f"parametrized element with name '{tensor_name}'")
    return module


def _try_out(parametrization: Module, value: Tensor) -> None:
    """Does it fit behind others?"""
    _check_like("A parametrization", parametrization(value), value)
    if hasattr(parametrization, "right_inverse"):
        with contextlib.suppress(NotImplementedError):
            start = parametrization.right_inverse(value)
            _check_like("parametrization.right_inverse", start, value)


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Has the module a parametrized tensor (of this name)?"""
    parametrizations = getattr(module, "parametrizations", None)
    if not isinstance(parametrizations, ModuleDict):
        return False
    return len(parametrizations) > 0 if tensor_name is None else tensor_name in parametrizations


def remove_parametrizations(module: Module, tensor_name: str,
                            leave_parametrized: bool = True) -> Module:
    """Let the tensor be an ordinary parameter or buffer again; gives the module.

    Args:
        leave_parametrized: it keeps the value that it has now; else that of `original`.

    Raises:
        ValueError: it is not parametrized, or there is no single original to go back to.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    chain = module.parametrizations[tensor_name]
    if chain.is_tensor:
        kept = chain.original
        if leave_parametrized:
            with no_grad():
                value = getattr(module, tensor_name)
                if kept.dtype != value.dtype or kept.shape != value.shape:
                    kept.data = value
                else:
                    kept.set_(value)
    elif leave_parametrized:
        trained = any(p.requires_grad for p in chain.parameters(recurse=False))
        value = getattr(module, tensor_name).detach()
        kept = Parameter(value, trained) if list(chain.parameters(recurse=False)) else value
    else:
        raise ValueError("Cannot leave unparametrized (`leave_parametrized=False`) a tensor that "
                         "is parametrized in terms of a sequence of tensors.")
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    _register(module, tensor_name, kept)
    if not is_parametrized(module):
        delattr(module, "parametrizations")
        module.__class__ = type(module).__bases__[0]
    return module


def type_before_parametrizations(module: Module) -> type:
    """The class that the module had before a tensor of it was parametrized."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def transfer_parametrizations_and_params(from_module: Module, to_module: Module,
                                         tensor_name: str | None = None) -> Module:
    """Give `to_module` the parametrizations of another one, and the tensors they start from; gives
    `to_module`.

    Args:
        tensor_name: of the tensor whose parametrizations are meant; by default all.
    """
    if not is_parametrized(from_module):
        return to_module
    names = list(from_module.parametrizations) if tensor_name is None else [tensor_name]
    for name in names:
        _transfer(from_module, to_module, name)
    return to_module


def _transfer(source: Module, target: Module, name: str) -> None:
    chain = source.parametrizations[name]
    if not hasattr(target, name):
        _register(target, name, chain.original if chain.is_tensor else chain.original0)
    for parametrization in chain:
        register_parametrization(target, name, parametrization, unsafe=chain.unsafe)
    made = target.parametrizations[name]
    names = ["original"] if chain.is_tensor else [f"original{i}" for i in range(chain.ntensors)]
    for each in names:
        setattr(made, each, getattr(chain, each))
