"""`Library` and the functions beside it: operators from schemas in text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flambeau.core.dtypes import DType
from flambeau.library.operators import OpOverload, enter, operator_of, remove
from flambeau.library.schema import parse_schema
from flambeau.library.tags import tags_of
from flambeau.tensor import Tensor

__all__ = ["Library", "define", "fallthrough_kernel", "get_kernel", "impl", "impl_abstract",
           "register_autocast", "register_autograd", "register_fake", "register_kernel",
           "register_torch_dispatch", "register_vmap"]

_DEFINED: set[str] = set()
_KINDS = ("DEF", "IMPL", "FRAGMENT")
_ALL = ("", "default", "CompositeExplicitAutograd", "CompositeImplicitAutograd",
        "CompositeExplicitAutogradNonFunctional", "BackendSelect")


def fallthrough_kernel() -> None:
    """Stands for "leave the call to the next key".

    Raises:
        NotImplementedError: when called.
    """
    raise NotImplementedError("fallthrough_kernel() should never be called.")


class Library:
    """A namespace of operators that are defined by schemas and implemented apart from them.

    Args:
        ns: the namespace. kind: "DEF" (the only one that may define in it), "FRAGMENT" (one of
            several) or "IMPL" (implements operators of others).
        dispatch_key: for the implementations that name none ("CPU", "Meta", "Autograd", ...).

    Raises:
        ValueError: another kind, or a reserved namespace.
    """

    def __init__(self, ns: str, kind: str, dispatch_key: str = ""):
        if kind not in _KINDS:
            raise ValueError(f"Unsupported kind: {kind}; expected one of {', '.join(_KINDS)}")
        if ns == "prim" or kind != "IMPL" and ns == "aten":
            raise ValueError(f"{ns} is a reserved namespace.")
        if kind == "DEF":
            if ns in _DEFINED:
                raise RuntimeError(f"Only a single TORCH_LIBRARY can be used to register the "
                                   f"namespace {ns}; use kind 'FRAGMENT' for another")
            _DEFINED.add(ns)
        self.ns, self.kind, self.dispatch_key = ns, kind, dispatch_key
        self._names: list[str] = []

    def __repr__(self) -> str:
        return f"Library(kind={self.kind}, ns={self.ns}, dispatch_key={self.dispatch_key})>"

    def define(self, schema: str, alias_analysis: str = "", *, tags: Any = ()) -> str:
        """Declare an operator; returns its name.

        Raises:
            RuntimeError: not a schema, an operator that exists, or a library of kind "IMPL".
        """
        if self.kind == "IMPL":
            raise RuntimeError("Library(..., 'IMPL') cannot define operators: use kind 'DEF' or "
                               "'FRAGMENT'")
        parsed = parse_schema(f"{self.ns}::{schema.strip()}")
        op = OpOverload(parsed)
        enter(op)
        op.tags = tags_of(tags)
        self._names.append(op.name())
        return op.name().split("::")[1]

    def impl(self, op_name: Any, fn: Callable, dispatch_key: str = "", *,
             with_keyset: bool = False, allow_override: bool = False) -> None:
        """Implement an operator for a dispatch key."""
        if not callable(fn):
            raise TypeError("Input function is required to be a callable but found type "
                            f"{type(fn)}")
        name = op_name if isinstance(op_name, str) else operator_of(op_name).name()
        op = operator_of(name if "::" in name else f"{self.ns}::{name}")
        _implement(op, fn, dispatch_key or self.dispatch_key or "CompositeImplicitAutograd")

    def fallback(self, fn: Callable, dispatch_key: str = "", *, with_keyset: bool = False) -> None:
        """Raises: there is no fallback for all operators of a key."""
        raise NotImplementedError("Library.fallback is not implemented: implement each operator, "
                                  "or use a TorchFunctionMode to see all of them")

    def _destroy(self) -> None:
        for name in self._names:
            remove(name)
        self._names.clear()
        if self.kind == "DEF":
            _DEFINED.discard(self.ns)

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *error: Any) -> None:
        self._destroy()


_scoped_library = Library


def _implement(op: OpOverload, fn: Callable, key: str) -> None:
    """Register `fn` for a dispatch key or device type."""
    if fn is fallthrough_kernel:
        return
    if key in ("Meta", "meta"):
        op.fake = fn
    elif key.startswith("Autograd"):
        op.autograd_kernel = fn
    elif key in _ALL:
        op.kernels[""] = fn
        op.implicit = key == "CompositeImplicitAutograd"
    elif key.lower() in ("cpu", "cuda", "mps", "xpu"):
        op.kernels[key.lower()] = fn
    else:
        raise NotImplementedError(f"implementations for the dispatch key {key!r} are not "
                                  "supported: there are devices, Meta, Autograd and Composite keys")


def define(qualname: str, schema: str, *, lib: Library | None = None, tags: Any = ()) -> None:
    """Declare an operator: `define("mylib::f", "(Tensor x) -> Tensor")`.

    Raises:
        ValueError: a name without a namespace.
    """
    namespace, _, name = qualname.partition("::")
    if not name:
        raise ValueError(f"torch.library.define expected a name of the form 'namespace::name', got "
                         f"{qualname!r}")
    parsed = parse_schema(f"{namespace}::{name}{schema}")
    op = OpOverload(parsed)
    enter(op)
    op.tags = tags_of(tags)


def impl(qualname: Any, types: str | Sequence[str], func: Any = None, *,
         lib: Library | None = None) -> Any:
    """Implement an operator for device types or dispatch keys; also a decorator. The older form is
    a decorator only: `impl(library, name, dispatch_key="")`."""
    if isinstance(qualname, Library):

        def into(function: Callable) -> Callable:
            qualname.impl(types, function, func or "")
            return function

        return into
    names = [types] if isinstance(types, str) else list(types)

    def register(function: Callable) -> Callable:
        for key in names:
            _implement(operator_of(qualname), function, key)
        return function

    return register if func is None else register(func)


def register_kernel(op: Any, device_types: str | Sequence[str] | None,
                    func: Callable | None = None, /, *, lib: Library | None = None) -> Any:
    """Implement an operator for device types ("cpu"); None: all."""
    return impl(op, "default" if device_types is None else device_types, func)


def register_fake(op: Any, func: Callable | None = None, /, *, lib: Library | None = None,
                  _stacklevel: int = 1, allow_override: bool = False) -> Any:
    """Say what an operator's results look like for tensors that have no elements."""

    def register(function: Callable) -> Callable:
        operator_of(op).fake = function
        return function

    return register if func is None else register(func)


def impl_abstract(qualname: str, func: Callable | None = None, *, lib: Library | None = None,
                  _stacklevel: int = 1) -> Any:
    """The old name of `register_fake`."""
    return register_fake(qualname, func, lib=lib)


def register_autograd(op: Any, backward: Callable, /, *, setup_context: Callable | None = None,
                      lib: Library | None = None) -> None:
    """The gradient of an operator; see `CustomOpDef.register_autograd`."""
    found = operator_of(op)
    if found._schema.is_mutable:
        raise RuntimeError(f"Cannot register autograd formula for non-functional operator "
                           f"{found.name()} with schema {found._schema}")
    found.backward, found.setup_context = backward, setup_context
    found.changed()


def register_vmap(op: Any, func: Callable | None = None, /, *, lib: Library | None = None) -> Any:
    """The batching rule of an operator: (info, in_dims, *args) -> (results, out_dims)."""

    def register(function: Callable) -> Callable:
        found = operator_of(op)
        found.vmap = function
        found.changed()
        return function

    return register if func is None else register(func)


def register_autocast(op: Any, device_type: str, cast_inputs: DType, /, *,
                      lib: Library | None = None) -> None:
    """Cast an operator's floating arguments under `autocast` of a device."""
    if device_type not in ("cpu", "cuda"):
        raise ValueError(f"Unknown device type: {device_type}; expected 'cpu' or 'cuda'")
    operator_of(op).casts[device_type] = cast_inputs


def register_torch_dispatch(op: Any, torch_dispatch_class: Any, func: Callable | None = None, /, *,
                            lib: Library | None = None) -> Any:
    """What a class of `TorchDispatchMode` does about an operator, in place of the mode's own
    answer: (mode, func, types, args, kwargs) -> results.

    Raises:
        NotImplementedError: a class of tensors: these take operations over with
            `__torch_function__`.
    """
    if isinstance(torch_dispatch_class, type) and issubclass(torch_dispatch_class, Tensor):
        raise NotImplementedError("register_torch_dispatch: tensors with __torch_dispatch__ are "
                                  "not supported, modes are; use __torch_function__")

    def register(function: Callable) -> Callable:
        operator_of(op).modes[torch_dispatch_class] = function
        return function

    return register if func is None else register(func)


def get_kernel(op: Any, dispatch_key: str) -> Callable:
    """The function that implements an operator for a device or dispatch key.

    Raises:
        RuntimeError: there is none.
    """
    found = operator_of(op)
    kernel = found.kernels.get("" if dispatch_key in _ALL else str(dispatch_key).lower())
    kernel = kernel or found.kernels.get("")
    if kernel is None:
        raise RuntimeError(f"{found.name()} has no kernel for {dispatch_key!r}")
    return kernel
