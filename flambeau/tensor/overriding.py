"""`__torch_function__`: classes and modes that take operations over.

Ordinary tensors pay nothing for it. A tensor of a class that is asked about operations shows, where
others show their layout, one that nobody has seen before (`Unseen`); so no call with it is found
among the known ones, and dispatch's general path, which everything new takes anyway, asks the
class. Within the class's answer (`DisableTorchFunctionSubclass`) the tensor shows its true layout,
and is as fast as any other. Modes stand in `ACTIVE`, which all warm paths look at.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from types import FunctionType
from typing import Any

from flambeau.core.arguments import explain
from flambeau.core.generated import define
from flambeau.tensor.meta import Meta, TensorBase

__all__ = ["ACTIVE", "LAYOUT_CLASSES", "TENSOR_CLASSES", "DisableTorchFunction",
           "DisableTorchFunctionSubclass",
           "ask", "asked", "convert", "default_torch_function", "disabled_torch_function", "door",
           "door_class", "duck", "explained", "fit_doors", "handle", "keep_class", "listen",
           "relevant", "special_names", "state"]

ACTIVE: list = []
"""Non-empty while something watches all operations (capture, autocast, modes).

Then no call takes the warm path. An unused hook costs one truth test.
"""

TENSOR_CLASSES: set[type] = set()
"""Exact classes whose instances the warm path may treat as plain tensors."""


LAYOUT_CLASSES: set[type] = set()
"""Exact classes whose instances have layouts: those, and the classes that are asked."""


class _State(threading.local):
    """What the thread does about `__torch_function__`.

    Attributes:
        subclasses: are classes of arguments asked? modes: those entered, the innermost last.
    """

    def __init__(self) -> None:
        self.subclasses = True
        self.modes: list = []


state = _State()


class DisableTorchFunctionSubclass:
    """Within the block no class of an argument is asked about operations; modes still are."""

    def __enter__(self) -> None:
        self._before = state.subclasses
        state.subclasses = False

    def __exit__(self, *error: Any) -> None:
        state.subclasses = self._before


class DisableTorchFunction(DisableTorchFunctionSubclass):
    """Within the block neither classes nor modes are asked about operations."""

    def __enter__(self) -> None:
        super().__enter__()
        self._modes, state.modes = state.modes, []

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        state.modes = self._modes


def disabled_torch_function(func: Callable, types: Sequence, args: Sequence = (),
                            kwargs: dict | None = None) -> Any:
    """As the `__torch_function__` of a class: its instances are treated as plain tensors."""
    with DisableTorchFunctionSubclass():
        return func(*args, **(kwargs or {}))


# ---------------------------------------------------------------------- layouts
class Unseen(Meta):
    """The layout `plain` of a tensor whose class is to be asked, as an object of its own."""

    __slots__ = ("plain",)

    def __init__(self, plain: Meta):
        self.plain = plain

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)  # its own slots are empty


_layout = TensorBase._meta


class _ShownLayout:
    """`_meta` of the classes that are asked: the true layout only where they are not."""

    def __get__(self, tensor: Any, owner: type | None = None) -> Any:
        if tensor is None:
            return self
        meta = _layout.__get__(tensor)
        return Unseen(meta) if state.subclasses else meta

    def __set__(self, tensor: Any, meta: Meta) -> None:
        _layout.__set__(tensor, meta.plain if meta.__class__ is Unseen else meta)


def asked(cls: type) -> bool:
    """Does a class want to be asked about operations?

    Tensors of PyTorch itself do not, although they have an answer: it calls the function again,
    asking aside for PyTorch's functions only, and so would never end.
    """
    handler = getattr(cls, "__torch_function__", None)
    return handler is not None and handler is not disabled_torch_function and not any(
        base.__name__ == "Tensor" and base.__module__ == "torch" for base in cls.__mro__)


# ---------------------------------------------------------------------- asking
_PLAIN = {bool, int, float, complex, str, bytes, type(None), slice, type(...)}


def relevant(args: Iterable) -> list:
    """The arguments whose classes are asked, one of each class, subclasses before their bases.

    Looks into lists and tuples of arguments, but no deeper.
    """
    found: list = []
    if not state.subclasses:
        return found
    for arg in args:
        cls = arg.__class__
        if cls in TENSOR_CLASSES or cls in _PLAIN:
            continue
        if isinstance(arg, (list, tuple)):
            for item in arg:
                if item.__class__ not in _PLAIN and item.__class__ not in TENSOR_CLASSES:
                    _enter(found, item)
        _enter(found, arg)
    return found


def _enter(found: list, arg: Any) -> None:
    cls = arg.__class__
    for other in found:
        if other.__class__ is cls:
            return
    if isinstance(arg, type) or not asked(cls):
        return
    place = next((i for i, other in enumerate(found) if issubclass(cls, other.__class__)),
                 len(found))
    found.insert(place, arg)


def handle(public: Callable, overloaded: Sequence, args: Sequence, kwargs: dict) -> Any:
    """The answer of the innermost mode, else of the first class that has one.

    Raises:
        TypeError: nobody knows how to do the operation.
    """
    types = tuple(arg.__class__ for arg in overloaded)
    modes = state.modes
    if modes:
        mode = modes.pop()
        try:
            result = mode.__torch_function__(public, types, tuple(args), kwargs)
        finally:
            modes.append(mode)
        if result is not NotImplemented:
            return result
    for arg in overloaded:
        result = arg.__torch_function__(public, types, tuple(args), kwargs)
        if result is not NotImplemented:
            return result
    name = f"{getattr(public, '__module__', 'torch')}.{getattr(public, '__name__', public)}"
    who = "\n".join([f"  - mode object {mode}" for mode in modes[-1:]]
                    + [f"  - tensor subclass {cls}" for cls in types])
    raise TypeError(f"Multiple dispatch failed for {name.replace('flambeau', 'torch')!r}; all "
                    f"__torch_function__ handlers returned NotImplemented:\n\n{who}\n\nMake one "
                    "of them return a result, or convert the arguments first.")


SHOWN_AS: dict[Callable, Callable] = {}
"""Functions that handlers know as another one: an operator's, which PyTorch has no name for."""


def ask(public: Callable | None, params: Sequence, bound: Sequence,
        named: dict | None = None) -> Any:
    """What `__torch_function__` says to a call of an op; NotImplemented if there is nobody to ask.

    Parameters that were given as their default says are left out, as if they had not been given;
    the others that have one are named, but for tensors, which handlers look for among `args`.
    """
    overloaded = relevant((*bound, *named.values()) if named else bound)
    if not overloaded and not state.modes or public is None:
        return NotImplemented
    public = SHOWN_AS.get(public, public)
    args: list = []
    kwargs: dict = {}
    by_place = [i for i, (param, arg) in enumerate(zip(params, bound, strict=True))
                if not param.keyword_only and (param.required or arg.__class__ not in _PLAIN and (
                    isinstance(arg, TensorBase) or asked(arg.__class__)))]
    last = by_place[-1] if by_place else -1
    for place, (param, arg) in enumerate(zip(params, bound, strict=True)):
        if place <= last and not param.keyword_only:
            args.append(arg)
        elif param.required or arg is not param.default:
            kwargs[param.name] = arg
    return handle(public, overloaded, args, {**kwargs, **(named or {})})


# ---------------------------------------------------------------------- doors
def door(function: Callable) -> Callable:
    """The form of a hand-written function in which users get it: asks before it runs.

    Functions that take no tensors have nobody to ask but modes. What a call ends in is explained by
    the types of its arguments, if these are the cause.
    """
    if function.__name__ in _OWN:
        return function
    params = list(inspect.signature(function).parameters.values())
    able = [p.name for p in params if p.kind in _BY_PLACE and p.annotation not in _NO_TENSORS
            and function.__name__ not in _CONVERSIONS]
    many = next((p.name for p in params if p.kind is p.VAR_POSITIONAL and p.name != "size"), None)
    unknown = "".join(f" or {name}.__class__ not in TENSORS and {name}.__class__ not in PLAIN"
                      for name in able)
    if many:
        unknown += f" or not TENSORS.issuperset([item.__class__ for item in {many}])"
    made = _explained(function, f"ACTIVE and state.modes{unknown}")
    made.__module__ = "flambeau"
    return made


def listen(function: FunctionType) -> None:
    """Let a function ask modes before it runs, from now on: the same object with other code, since
    handlers may have noted it. Nothing is done to functions with closures."""
    if function.__closure__ or function.__code__ in _LISTENING:
        return
    kept = FunctionType(function.__code__, function.__globals__, function.__name__,
                        function.__defaults__)
    kept.__kwdefaults__ = function.__kwdefaults__
    number = len(_LISTENING)
    space: dict = {}
    declared, passed = _spelled(inspect.signature(function).parameters.values(), space)
    source = (f"def {function.__name__}({', '.join(declared)}):\n"
              f"    if _asking_.ACTIVE and _asking_.state.modes:\n"
              f"        return _asking_.answered({number}, locals())\n"
              f"    return _asking_.KEPT[{number}]({', '.join(passed)})\n")
    name = f"<flambeau listening {function.__module__}.{function.__qualname__}>"
    made = define(function.__name__, source, name, space)
    KEPT.append(kept)
    _HEARD.append(function)
    _LISTENING.add(made.__code__)
    function.__globals__["_asking_"] = sys.modules[__name__]
    function.__code__ = made.__code__


KEPT: list[FunctionType] = []
_HEARD: list[FunctionType] = []
_LISTENING: set = set()


def answered(number: int, given: dict) -> Any:
    """The answer to a call of a function that listens."""
    return _answer(_HEARD[number], KEPT[number], given)


def explained(method: Callable) -> Callable:
    """A hand-written method, whose errors are explained as those of functions with a door are."""
    return _explained(method, "")


def _explained(function: Callable, asking: str) -> Callable:
    """`function`, which asks first if the condition `asking` holds (never, if it is empty).

    Where any keyword is taken, they go on as they came: to spell them out takes longer than to make
    a small tensor.
    """
    params = list(inspect.signature(function).parameters.values())
    if not params and not asking:
        return function
    space: dict = {"ACTIVE": ACTIVE, "TENSORS": TENSOR_CLASSES, "PLAIN": _PLAIN, "answer": _answer,
                   "function": function, "explain": _explanation(function), "params": params,
                   "state": state, "by_name": _by_name}
    anything = next((p.name for p in params if p.kind is p.VAR_KEYWORD), None)
    given = f"by_name(params, locals(), {anything!r})" if anything else "locals()"
    declared, passed = _spelled([p for p in params if p.kind is not p.KEYWORD_ONLY]
                                if anything else params, space)
    asks = (f"    if {asking}:\n"
            f"        return answer(public, function, {given})\n") if asking else ""
    source = (f"def {function.__name__}({', '.join(declared)}):\n"
              f"{asks}"
              f"    try:\n"
              f"        return function({', '.join(passed)})\n"
              f"    except Exception as error_:\n"
              f"        explain(error_, {function.__name__.rstrip('_')!r}, params, {given})\n"
              f"        raise\n")
    name = f"<flambeau door {function.__module__}.{function.__name__}>"
    made = define(function.__name__, source, name, space)
    functools.update_wrapper(made, function)
    space["public"] = made
    return made


def _by_name(params: Sequence[inspect.Parameter], given: dict, anything: str) -> dict:
    """The values of all parameters, where those for keywords came among `anything` else."""
    others = dict(given[anything])
    named = {p.name: others.pop(p.name, p.default) for p in params if p.kind is p.KEYWORD_ONLY}
    return {**given, **named, anything: others}


def _spelled(params: Iterable[inspect.Parameter], space: dict) -> tuple[list[str], list[str]]:
    """(parameters as a `def` has them, arguments of a call); their defaults go into `space`."""
    declared: list[str] = []
    passed: list[str] = []
    positional = False
    for p in params:
        default = "" if p.default is p.empty else f"=_default_{p.name}"
        space[f"_default_{p.name}"] = p.default
        if positional and p.kind is not p.POSITIONAL_ONLY:
            declared.append("/")
        positional = p.kind is p.POSITIONAL_ONLY
        if p.kind is p.KEYWORD_ONLY and not any("*" in one for one in declared):
            declared.append("*")
        star = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        declared.append(star + p.name + default)
        passed.append(f"{p.name}={p.name}" if p.kind is p.KEYWORD_ONLY else star + p.name)
    return [*declared, "/"] if positional else declared, passed


def fit_doors(namespace: dict, names: Iterable[str]) -> None:
    """Put doors before the hand-written functions of a module; ops have theirs."""
    for name in names:
        function = namespace.get(name)
        if inspect.isfunction(function) and function.__module__ != "flambeau":
            namespace[name] = door(function)
            namespace[name].__module__ = namespace["__name__"]  # where pickle finds it


_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NO_TENSORS = {"int", "float", "bool", "str", "Sequence[int]", "DType", "DType | None",
               "int | None", "float | None", "bool | None", "str | None"}


def _answer(public: Callable, function: Callable, given: dict) -> Any:
    """The answer to a call of a hand-written function with these values of its parameters."""
    args: list = []
    kwargs: dict = {}
    for p in inspect.signature(function).parameters.values():
        value = given[p.name]
        if p.kind is p.VAR_POSITIONAL:
            args += value
        elif p.kind is p.VAR_KEYWORD:
            kwargs |= value
        elif p.default is p.empty and p.kind is not p.KEYWORD_ONLY:
            args.append(value)
        elif value is not p.default:
            kwargs[p.name] = value
    overloaded = relevant((*args, *kwargs.values()))
    if overloaded or state.modes:
        return handle(public, overloaded, args, kwargs)
    try:
        return function(*args, **kwargs)
    except Exception as error:
        _explanation(function)(error, function.__name__.rstrip("_"),
                               list(inspect.signature(function).parameters.values()), given)
        raise


def _explanation(function: Callable) -> Callable:
    """What explains errors of a function: nothing for those that PyTorch has in Python, too, and
    whose errors it tells as they are."""
    return _as_it_is if function.__module__ == "flambeau.nn.init" else explain


def _as_it_is(error: Exception, name: str, params: Sequence, given: dict) -> None:
    pass


class _Attribute:
    """An attribute of Tensor, as tensors of classes that are asked have it."""

    __slots__ = ("name", "base")

    def __init__(self, name: str, base: type):
        self.name, self.base = name, base

    def __get__(self, tensor: Any, owner: type | None = None) -> Any:
        if tensor is None:
            return getattr(self.base, self.name)
        known = self.base.__dict__[self.name]
        if not isinstance(known, property):
            if self.name in tensor.__dict__:
                return tensor.__dict__[self.name]
            known = getattr(self.base, self.name)
            if not callable(known):
                return known
            if not state.subclasses:
                return known.__get__(tensor)
            return functools.partial(_method, known, tensor)
        overloaded = relevant((tensor,))
        if not overloaded:
            return known.__get__(tensor)
        return handle(known.__get__, overloaded, (tensor,), {})

    def __set__(self, tensor: Any, value: Any) -> None:
        known = self.base.__dict__[self.name]
        if not isinstance(known, property):
            tensor.__dict__[self.name] = value
        elif overloaded := relevant((tensor, value)):
            handle(known.__set__, overloaded, (tensor, value), {})
        else:
            known.__set__(tensor, value)

    def __delete__(self, tensor: Any) -> None:
        self.base.__dict__[self.name].__delete__(tensor)


def _method(function: Callable, tensor: Any, *args: Any, **kwargs: Any) -> Any:
    overloaded = relevant((tensor, *args, *kwargs.values()))
    if not overloaded:
        return function(tensor, *args, **kwargs)
    return handle(function, overloaded, (tensor, *args), kwargs)


_OWN = {"as_subclass", "is_tensor"}
"""Methods that no class takes over."""

_CONVERSIONS = {"as_tensor", "asarray", "from_dlpack", "from_numpy"}
"""Functions that make tensors of foreign objects, by what these offer for it."""

_SPECIAL = {"__getitem__", "__setitem__", "__len__", "__contains__", "__bool__",
            "__float__", "__int__", "__index__", "__complex__", "__repr__", "__format__",
            "__array__", "__dlpack__", "__deepcopy__", "__copy__"}
"""Special methods that classes take over. Operators come to the same as functions of the table."""


def duck(function: Callable, args: Sequence, kwargs: dict | None = None) -> Any:
    """The answer of classes that are no tensors but are asked, to a call that can come to nothing
    without one; NotImplemented if there is none among the arguments."""
    kwargs = kwargs or {}
    found = relevant((*args, *kwargs.values()))
    return handle(function, found, args, kwargs) if found else NotImplemented


def special_names() -> set[str]:
    """The special methods of Tensor that classes can take over."""
    return _SPECIAL


def door_class(cls: type, base: type) -> None:
    """Make a new subclass of Tensor (`base`) one that is asked about operations, or is not."""
    LAYOUT_CLASSES.add(cls)
    if not asked(cls):
        TENSOR_CLASSES.add(cls)
        cls._meta = _layout
        return
    cls._meta = _ShownLayout()
    for name in base.__dict__:
        if name in _OWN or name[0] == "_" and name not in _SPECIAL:
            continue
        owner = next(c for c in cls.__mro__ if name in c.__dict__)
        if owner is base:
            setattr(cls, name, _attribute(name, base))


@functools.cache
def _attribute(name: str, base: type) -> _Attribute:
    return _Attribute(name, base)


# ---------------------------------------------------------------------- the default answer
def default_torch_function(cls: type, func: Callable, types: Sequence, args: Sequence = (),
                           kwargs: dict | None = None) -> Any:
    """Compute, and give results the class of the argument; do nothing for unrelated classes."""
    if not all(issubclass(cls, other) for other in types) or _of_pytorch(func):
        return NotImplemented
    with DisableTorchFunctionSubclass():
        result = func(*args, **(kwargs or {}))
        if getattr(getattr(func, "__self__", None), "fget", None) in KEEPING:
            return result
        return convert(result, cls)


def _of_pytorch(func: Callable) -> bool:
    """Is this a function of PyTorch itself, which would ask the same class again, without end?"""
    home = getattr(func, "__module__", None) or getattr(
        getattr(func, "__objclass__", None), "__module__", None) or ""
    return home.split(".")[0] == "torch" and home.split(".")[:2] != ["torch", "ops"]


KEEPING: set[Callable] = set()
"""What gives the attributes whose tensors keep their class."""


def keep_class(attribute: property) -> None:
    """Let an attribute's tensors keep their class: a gradient is not made of its tensor."""
    KEEPING.add(attribute.fget)


def convert(result: Any, cls: type) -> Any:
    """`result` with its tensors, also those in a tuple or list, as instances of `cls`."""
    if isinstance(result, TensorBase):
        return result if isinstance(result, cls) else result.as_subclass(cls)
    if isinstance(result, (tuple, list)) and any(
            isinstance(item, (TensorBase, tuple, list)) for item in result):
        items = [convert(item, cls) for item in result]
        return result._make(items) if hasattr(result, "_make") else type(result)(items)
    return result
