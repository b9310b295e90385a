"""Parameter and Buffer: tensors that a module registers when they are assigned to it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import flambeau
from flambeau.tensor import Tensor
from flambeau.tensor.overriding import disabled_torch_function

__all__ = ["Parameter", "UninitializedParameter", "Buffer", "UninitializedBuffer", "is_lazy"]


class _FlaggedMeta(type(Tensor)):
    """`isinstance` also accepts a tensor of another subclass that carries the class's flag."""

    def __instancecheck__(cls, instance: object) -> bool:
        if type.__instancecheck__(cls, instance):
            return True
        if cls not in (Parameter, Buffer) or not isinstance(instance, Tensor):
            return False
        return getattr(instance, cls._flag, False)


def _make(cls: type, data: Any, requires_grad: bool, flag: str) -> Tensor:
    """`data` as a leaf tensor of type `cls` that shares its memory.

    A tensor of a foreign subclass keeps its type and only gets the flag.
    """
    if data is None:
        data = flambeau.empty(0)
    if type(data) is Tensor or isinstance(data, cls) and type(data) is cls:
        return Tensor._make_subclass(cls, data, requires_grad)
    made = data.detach().requires_grad_(requires_grad)
    if type(made) is not type(data):
        raise RuntimeError(
            f"Creating a {cls.__name__} from an instance of type {type(data).__name__} requires "
            "that detach() returns an instance of the same type, but return type "
            f"{type(made).__name__} was found instead. To use the type as a {cls.__name__}, "
            "please correct the detach() semantics defined by its __torch_dispatch__() "
            "implementation."
        )
    setattr(made, flag, True)
    return made


class Parameter(Tensor, metaclass=_FlaggedMeta):
    """A tensor that a Module counts among its parameters.

    Args:
        data: the tensor whose memory the parameter uses; an empty one by default.
        requires_grad: whether backward() fills `.grad` (only floating and complex dtypes can).
    """

    _flag = "_is_param"
    __torch_function__ = disabled_torch_function

    def __new__(cls, data: Any = None, requires_grad: bool = True) -> Parameter:
        return _make(cls, data, requires_grad, "_is_param")

    def __deepcopy__(self, memo: dict) -> Parameter:
        if id(self) in memo:
            return memo[id(self)]
        data = self.data.clone(memory_format=flambeau.preserve_format)
        copied = type(self)(data, self.requires_grad)
        memo[id(self)] = copied
        return copied

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()

    def __reduce_ex__(self, protocol: int) -> tuple:
        # what the tape keeps with a tensor (gradient, hooks, its node) stays behind
        state = {name: value for name, value in vars(self).items() if not hasattr(Tensor, name)}
        return _rebuild_parameter, (self.data, self.requires_grad, OrderedDict(), state)


def _rebuild_parameter(data: Tensor, requires_grad: bool, hooks: OrderedDict,
                       state: dict | None = None) -> Parameter:
    made = Parameter(data, requires_grad)
    made._backward_hooks = hooks or None
    for name, value in (state or {}).items():
        setattr(made, name, value)
    return made


class Buffer(Tensor, metaclass=_FlaggedMeta):
    """A tensor that a Module counts among its buffers: state that no gradient changes.

    Args:
        data: the tensor; an empty one by default.
        persistent: whether it is part of the module's `state_dict`.
    """

    _flag = "_is_buffer"
    __torch_function__ = disabled_torch_function

    def __new__(cls, data: Any = None, *, persistent: bool = True) -> Tensor:
        if data is None:
            data = flambeau.empty(0)
        made = data.detach().requires_grad_(data.requires_grad)
        made.persistent = persistent
        made._is_buffer = True
        return made


_CONVERSIONS = frozenset({"to", "half", "float", "double", "char", "short", "int", "long", "cuda",
                          "cpu", "bfloat16", "type"})
_QUESTIONS = frozenset({"__hash__", "size", "copy_", "is_complex", "is_floating_point",
                        "get_device", "is_inference", "detach"})


class _Uninitialized:
    """What a parameter of unknown shape can do: learn its shape, be converted, explain itself."""

    cls_to_become: type = Tensor

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (),
                           kwargs: dict | None = None) -> Any:
        name = getattr(func, "__name__", "")
        if name == "__get__" or name == "__set__" or name in _QUESTIONS:
            return disabled_torch_function(func, types, args, kwargs)
        if name not in _CONVERSIONS:
            raise ValueError(
                f"Attempted to use an uninitialized parameter in {func}. This error happens when "
                "you are using a `LazyModule` or explicitly manipulating "
                f"`torch.nn.parameter.{cls.__name__}` objects. When using LazyModules Call "
                "`forward` with a dummy batch to initialize the parameters before calling torch "
                "functions")
        made = disabled_torch_function(func, types, args, kwargs)
        return made.as_subclass(cls) if type(made) is Tensor else made

    def materialize(self, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Give it uninitialized memory of `shape`, keeping its identity."""
        self.data = flambeau.empty(shape, device=device or self.data.device,
                                   dtype=dtype or self.data.dtype)
        self.__class__ = self.cls_to_become

    def __reduce_ex__(self, protocol: int) -> tuple:
        return type(self), (self.requires_grad, self.data.device, self.data.dtype)

    def __deepcopy__(self, memo: dict) -> Any:
        if id(self) not in memo:
            memo[id(self)] = type(self)(self.requires_grad, self.data.device, self.data.dtype)
        return memo[id(self)]

    def share_memory_(self) -> Any:
        raise RuntimeError("Can't share memory on an uninitialized parameter or buffer. Call "
                           "`forward` to initialize the parameters before calling "
                           "`module.share_memory()`.")

    @property
    def shape(self) -> Any:
        raise RuntimeError(
            "Can't access the shape of an uninitialized parameter or buffer. This error usually "
            "happens in `load_state_dict` when trying to load an uninitialized parameter into an "
            "initialized one. Call `forward` to initialize the parameters before accessing their "
            "attributes."
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class UninitializedParameter(_Uninitialized, Parameter):
    """A parameter whose shape the first input decides (see LazyLinear)."""

    cls_to_become = Parameter

    def __new__(cls, requires_grad: bool = True, device: Any = None,
                dtype: Any = None) -> UninitializedParameter:
        data = flambeau.empty(0, device=device, dtype=dtype)
        return Tensor._make_subclass(cls, data, requires_grad)


class UninitializedBuffer(_Uninitialized, Tensor):
    """A buffer whose shape the first input decides."""

    cls_to_become = Tensor

    def __new__(cls, requires_grad: bool = False, device: Any = None, dtype: Any = None,
                persistent: bool = True) -> UninitializedBuffer:
        data = flambeau.empty(0, device=device, dtype=dtype)
        made = Tensor._make_subclass(cls, data, requires_grad)
        made.persistent = persistent
        made._is_buffer = True
        return made

    def __deepcopy__(self, memo: dict) -> UninitializedBuffer:
        copied = super().__deepcopy__(memo)
        copied.persistent = getattr(self, "persistent", True)
        return copied


def is_lazy(parameter: Any) -> bool:
    """Whether the shape of `parameter` is still unknown."""
    return isinstance(parameter, _Uninitialized)
