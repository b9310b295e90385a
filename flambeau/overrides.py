"""`torch.overrides`: classes and modes that take operations over through `__torch_function__`.

A class with `__torch_function__(cls, func, types, args=(), kwargs=None)` is asked whenever one of
its instances is an argument of a public function; a `TorchFunctionMode` is asked about all of them.
Here is what their authors use; the asking is done in tensor/overriding.py.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import flambeau
from flambeau.tensor import Tensor, creation, overriding
from flambeau.tensor.overriding import ACTIVE, asked, handle, relevant, state

__all__ = ["get_ignored_functions", "get_overridable_functions", "get_testing_overrides",
           "handle_torch_function", "has_torch_function", "resolve_name", "is_tensor_like",
           "is_tensor_method_or_property", "wrap_torch_function", "enable_reentrant_dispatch",
           "redispatch_function", "TorchFunctionMode", "BaseTorchFunctionMode"]


# -- asking ---------------------------------------------------------------------------------------
def has_torch_function(relevant_args: Iterable[Any]) -> bool:
    """Must one of the arguments, or a mode, be asked before an operation is done with them?"""
    return bool(state.modes) or bool(relevant(relevant_args))


def has_torch_function_unary(argument: Any) -> bool:
    """`has_torch_function` of one argument."""
    return has_torch_function((argument,))


def has_torch_function_variadic(*arguments: Any) -> bool:
    """`has_torch_function` of several arguments."""
    return has_torch_function(arguments)


def handle_torch_function(public_api: Callable, relevant_args: Iterable[Any], *args: Any,
                          **kwargs: Any) -> Any:
    """Ask the modes and the classes of `relevant_args` about a call of `public_api`.

    Args:
        public_api: the function as users know it, handed on to the handlers.
        relevant_args: the arguments whose classes are asked.
        args, kwargs: of the call.

    Raises:
        TypeError: all of them returned NotImplemented.
    """
    return handle(public_api, relevant(relevant_args), args, kwargs)


def redispatch_function(func: Callable, types: Sequence[type], args: Sequence = (),
                        kwargs: dict | None = None) -> Any:
    """Ask the classes `types`, in order, about a call, as if it were made now."""
    kwargs = kwargs or {}
    for cls in types:
        if asked(cls):
            result = cls.__torch_function__(func, tuple(types), tuple(args), kwargs)
            if result is not NotImplemented:
                return result
    raise TypeError(f"no class among {list(types)} implements {resolve_name(func) or func}")


def wrap_torch_function(dispatcher: Callable[..., Iterable[Any]]) -> Callable:
    """Let a function of one's own be taken over like those of torch.

    Args:
        dispatcher: takes the function's arguments and returns those whose classes are asked.
    """

    def wrapper(function: Callable) -> Callable:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            arguments = tuple(dispatcher(*args, **kwargs))
            if has_torch_function(arguments):
                return handle_torch_function(wrapped, arguments, *args, **kwargs)
            return function(*args, **kwargs)

        return wrapped

    return wrapper


def is_tensor_like(inp: Any) -> bool:
    """Is it a tensor, or of a class with `__torch_function__`?"""
    return type(inp) is Tensor or hasattr(inp, "__torch_function__")


# -- modes ----------------------------------------------------------------------------------------
class TorchFunctionMode:
    """A context in which `__torch_function__(self, func, types, args, kwargs)` is asked about all
    functions of this thread; while it answers, it is not asked itself."""

    def __init__(self) -> None:
        pass

    def __torch_function__(self, func: Callable, types: Sequence[type], args: Sequence = (),
                           kwargs: dict | None = None) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define __torch_function__")

    def __enter__(self) -> TorchFunctionMode:
        _listen()
        state.modes.append(self)
        ACTIVE.append(self)
        return self

    def __exit__(self, *error: Any) -> None:
        state.modes.pop()
        for place in range(len(ACTIVE) - 1, -1, -1):
            if ACTIVE[place] is self:
                del ACTIVE[place]
                break

    @classmethod
    def push(cls, *args: Any, **kwargs: Any) -> TorchFunctionMode:
        """An instance, to be entered."""
        return cls(*args, **kwargs)


class BaseTorchFunctionMode(TorchFunctionMode):
    """A mode that does what would be done without it."""

    def __torch_function__(self, func: Callable, types: Sequence[type], args: Sequence = (),
                           kwargs: dict | None = None) -> Any:
        return func(*args, **(kwargs or {}))


@functools.cache
def _listen() -> None:
    """From the first mode on, the fast methods of Tensor ask too."""
    for name, method in vars(Tensor).items():
        if inspect.isfunction(method) and method.__module__ == Tensor.__module__ and (
                name[0] != "_" or name in overriding.special_names()):
            overriding.listen(method)
    overriding.listen(creation.tensor)


@contextlib.contextmanager
def enable_reentrant_dispatch() -> Iterator[None]:
    """Within the block classes are asked again, as outside of a `__torch_function__`."""
    before, state.subclasses = state.subclasses, True
    try:
        yield
    finally:
        state.subclasses = before


def _get_current_function_mode() -> TorchFunctionMode | None:
    return state.modes[-1] if state.modes else None


def _get_current_function_mode_stack() -> list[TorchFunctionMode]:
    return list(state.modes)


# -- what can be taken over -----------------------------------------------------------------------
_NAMESPACES = ("nn.functional", "linalg", "special", "fft", "nn.init")


@functools.cache
def get_ignored_functions() -> set[Callable]:
    """Public functions that nobody is asked about: they take no tensors, or only change
    settings."""
    names = ("is_tensor", "get_default_dtype", "set_default_dtype", "set_printoptions",
             "set_num_threads", "get_num_threads", "manual_seed", "seed", "initial_seed",
             "get_rng_state", "set_rng_state", "from_numpy", "from_dlpack", "empty", "zeros",
             "ones", "full", "arange", "linspace", "logspace", "eye", "rand", "randn", "randint",
             "randperm", "tensor", "as_tensor", "asarray", "scalar_tensor", "frombuffer",
             "tril_indices", "triu_indices", "empty_strided", "empty_permuted", "range",
             "save", "load", "compile", "can_cast", "promote_types", "is_grad_enabled",
             "broadcast_shapes", "set_grad_enabled", "is_inference_mode_enabled",
             "use_deterministic_algorithms", "are_deterministic_algorithms_enabled",
             "set_default_device", "get_default_device", "set_float32_matmul_precision",
             "get_float32_matmul_precision")
    found = {getattr(flambeau, name, None) for name in names}
    found |= {Tensor.as_subclass, Tensor.__new__, Tensor.__init__, Tensor.__hash__}
    return {item for item in found if callable(item)}


@functools.cache
def get_overridable_functions() -> dict[Any, list[Callable]]:
    """The functions that classes can take over, by the namespace (module or class) they are in."""
    ignored = get_ignored_functions()
    spaces: list = [flambeau]
    for name in _NAMESPACES:
        space: Any = flambeau
        for part in name.split("."):
            space = getattr(space, part, None)
        if space is not None:
            spaces.append(space)
    table = {space: [function for _, function in _functions(space) if function not in ignored]
             for space in spaces}
    members = [getattr(Tensor, name) for name in vars(Tensor) if not name.startswith("_")
               or name in overriding.special_names()]
    table[Tensor] = [member.__get__ if isinstance(member, property) else member
                     for member in members if isinstance(member, property)
                     or callable(member) and member not in ignored]
    return table


def _functions(space: Any) -> Iterator[tuple[str, Callable]]:
    """The public functions of a module."""
    for name in sorted(set(dir(space))):
        if name.startswith("_"):
            continue
        try:
            found = getattr(space, name)
        except (AttributeError, NotImplementedError):
            continue
        home = getattr(found, "__module__", None) or ""
        if inspect.isfunction(found) and home.split(".")[0] == "flambeau":
            yield name, found


@functools.cache
def get_testing_overrides() -> dict[Callable, Callable]:
    """For each overridable function one with its signature that returns -1."""
    made: dict[Callable, Callable] = {}
    for functions in get_overridable_functions().values():
        for function in functions:
            if function not in made:
                made[function] = _stand_in(function)
    return made


def _stand_in(function: Callable) -> Callable:
    def stand_in(*args: Any, **kwargs: Any) -> int:
        return -1

    with contextlib.suppress(TypeError, ValueError):
        stand_in.__signature__ = inspect.signature(function)
    stand_in.__name__ = getattr(function, "__name__", "stand_in")
    return stand_in


@functools.cache
def _names() -> dict[Callable, str]:
    named: dict[Callable, str] = {}
    for space in get_overridable_functions():
        if space is not Tensor:
            prefix = space.__name__.replace("flambeau", "torch")
            for name, function in _functions(space):
                named.setdefault(function, f"{prefix}.{name}")
    for name, member in vars(Tensor).items():
        if isinstance(member, property):
            named[member.__get__] = f"torch.Tensor.{name}.__get__"
        elif callable(getattr(Tensor, name)):
            named.setdefault(getattr(Tensor, name), f"torch.Tensor.{name}")
    return named


def resolve_name(f: Any) -> str | None:
    """The public name of a function that was handed to `__torch_function__`, or None."""
    return _names().get(f)


@functools.cache
def _methods() -> set[Callable]:
    return set(get_overridable_functions()[Tensor])


def get_default_nowrap_functions() -> set[Callable]:
    """The functions whose results the default answer gives as they are: `grad` is a tensor of its
    own, and keeps its class."""
    return {member.__get__ for member in vars(Tensor).values()
            if isinstance(member, property) and member.fget in overriding.KEEPING}


def is_tensor_method_or_property(func: Callable) -> bool:
    """Is it a method of Tensor, or the `__get__` of one of its attributes?

    A function that is also a method (`torch.add` is `Tensor.add`) counts as one.
    """
    return func in _methods() or getattr(func, "__name__", "") == "__get__"
