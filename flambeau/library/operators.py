"""Operators of users: what a call of `torch.ops.<namespace>.<name>` does."""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.autograd.function import Function
from flambeau.autograd.grad_mode import LEVELS, is_recording, mode, no_grad
from flambeau.library import aten
from flambeau.library.rules import flatten, function_of, gives_list
from flambeau.library.schema import FunctionSchema
from flambeau.library.tags import Tag
from flambeau.tensor import Tensor, autocast, dispatch
from flambeau.tensor.overriding import handle, relevant, state

__all__ = ["OPERATORS", "OpOverload", "OpOverloadPacket", "enter", "get_ctx", "operator_of", "ops",
           "remove"]

OPERATORS: dict[str, OpOverload] = {}
"""All operators of users, by qualified name ("namespace::name", "namespace::name.overload")."""


class OpOverload:
    """One operator: its schema, its kernels and its rules.

    Attributes:
        kernels: functions by device type ("cpu", ...); "" serves all devices.
        implicit: does the kernel consist of differentiable operations?
        opaque: it may be anything, so that only `fake` knows what tensors without elements give.
        disabled: device types whose kernels are set aside for `init_fn`, the first one.
        fake: makes the results for tensors without elements.
        backward, setup_context: the gradient; vmap: the batching rule; casts: dtype by device.
        modes: what classes of `TorchDispatchMode` do in place of their own answer.
        tags: what its author said of it.
    """

    def __init__(self, schema: FunctionSchema):
        self._schema = schema
        self.namespace, _, self.short = schema.name.partition("::")
        self._overloadname = schema.overload_name or "default"
        self.kernels: dict[str, Callable] = {}
        self.implicit = self.opaque = False
        self.disabled: set[str] = set()
        self.init_fn: Callable | None = None
        self.autograd_kernel: Callable | None = None
        self.fake: Callable | None = None
        self.backward: Callable | None = None
        self.setup_context: Callable | None = None
        self.vmap: Callable | None = None
        self.casts: dict[str, Any] = {}
        self.modes: dict[type, Callable] = {}
        self.tags: list[Tag] = []
        self.packet: OpOverloadPacket | None = None
        self._function: type[Function] | None = None
        self.__name__ = f"{self.short}.{self._overloadname}"
        self.__module__ = f"torch.ops.{self.namespace}"

    def name(self) -> str:
        """The qualified name, "namespace::name" or "namespace::name.overload"."""
        return self._schema.full_name

    @property
    def overloadpacket(self) -> OpOverloadPacket:
        return self.packet

    def __str__(self) -> str:
        return f"{self.namespace}.{self.short}.{self._overloadname}"

    def __repr__(self) -> str:
        return f"<OpOverload(op='{self.namespace}.{self.short}', overload='{self._overloadname}')>"

    def __hash__(self) -> int:
        return id(self)

    def changed(self) -> None:
        """A rule was registered: what was derived from the old ones is made anew."""
        self._function = None

    # -- calling ----------------------------------------------------------------------------------
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        overloaded = relevant((*args, *kwargs.values()))
        if overloaded or state.modes:
            return handle(self, overloaded, args, kwargs)
        values = self._schema.bind(args, kwargs)
        lower = self.casts.get("cpu") if self.casts and autocast.current().casting else None
        if lower is not None:
            values = [_cast(value, lower) for value in values]
        if self.implicit:
            return self.compute(values)
        tensors = list(_tensors(values))
        recorded = is_recording() and any(tensor._rg for tensor in tensors)
        if recorded and self.autograd_kernel is not None:
            return self.autograd_kernel(*self._split(values)[0], **self._split(values)[1])
        transformed = mode() & LEVELS
        if not recorded and not transformed or self._schema.is_mutable:
            with no_grad():
                return self.compute(values)
        if self._function is None:
            self._function = function_of(self)
        shape, flat = flatten(values)
        result = self._function.apply(shape, *flat)
        return list(result) if gives_list(self) else result

    def compute(self, values: Sequence) -> Any:
        """Run the kernel on bound arguments, without recording, and check what it did."""
        tensors = list(_tensors(values))
        kernel = self._kernel(tensors)
        written = [tensor for argument, value in zip(self._schema.arguments, values, strict=True)
                   if argument.mutates for tensor in _tensors([value])]
        for tensor in written:
            dispatch.check_writable(tensor, self._schema.name)
        args, kwargs = self._split(values)
        runner = dispatch.taking_over.runner
        if runner is None or written or dispatch.observers:
            result = kernel(*args, **kwargs)
        else:
            result = runner(self, values, functools.partial(kernel, *args, **kwargs))
        for tensor in written:
            dispatch.bump_version(tensor)
        if self._schema.returns == ("Tensor",) and not isinstance(result, Tensor):
            raise RuntimeError(f"Unable to cast {result!r} to Tensor: the schema of {self} says "
                               "that it returns one")
        if not self.implicit:
            _check_aliases(self, tensors, result)
        return result

    def _split(self, values: Sequence) -> tuple[list, dict]:
        pairs = list(zip(self._schema.arguments, values, strict=True))
        return ([value for argument, value in pairs if not argument.kwarg_only],
                {argument.name: value for argument, value in pairs if argument.kwarg_only})

    def _kernel(self, tensors: Sequence) -> Callable:
        device = tensors[0].device.type if tensors else "cpu"
        if device == "meta" and self.fake is not None:
            return self.fake
        if device == "meta" and self.opaque:
            raise RuntimeError(f"There was no fake impl registered for {self}: say what its "
                               "results look like with register_fake")
        if device in self.disabled:
            return self.init_fn
        kernel = self.kernels.get(device) or self.kernels.get("")
        if kernel is None:
            raise NotImplementedError(
                f"Could not run '{self.name()}' with arguments from the '{device.upper()}' "
                f"backend: it has kernels for {sorted(self.kernels) or 'no device'}. Add one with "
                f"register_kernel({device!r}).")
        return kernel


class OpOverloadPacket:
    """An operator by its name: `torch.ops.<namespace>.<name>`; of several overloads, a call is one
    of the first that its arguments fit."""

    def __init__(self, first: OpOverload):
        self.members: dict[str, OpOverload] = {}
        self.__name__ = first.short
        self.__module__ = f"torch.ops.{first.namespace}"
        self._qualified_op_name = first._schema.name

    @property
    def default(self) -> OpOverload:
        return self._overload("default")

    def overloads(self) -> list[str]:
        return list(self.members)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        members = list(self.members.values())
        for op in members[:-1]:
            try:
                op._schema.bind(args, kwargs)
            except RuntimeError:
                continue
            return op(*args, **kwargs)
        return members[-1](*args, **kwargs)

    def __str__(self) -> str:
        return self._qualified_op_name.replace("::", ".")

    def __repr__(self) -> str:
        return f"<OpOverloadPacket(op='{self}')>"

    def _overload(self, name: str) -> OpOverload:
        if name not in self.members:
            raise AttributeError(f"The underlying op of '{self}' has no overload name '{name}'")
        return self.members[name]

    def __getattr__(self, name: str) -> OpOverload:
        if name.startswith("__") or name == "members":
            raise AttributeError(name)
        return self._overload(name)


def _of_name(name: str) -> OpOverload | None:
    """An operator of this name, whichever overload."""
    return OPERATORS.get(name) or next(
        (op for full, op in OPERATORS.items() if full.startswith(name + ".")), None)


def enter(op: OpOverload, again: bool = False) -> None:
    """Make an operator known.

    Raises:
        RuntimeError: it is known already, unless `again`.
    """
    name = op.name()
    if name in OPERATORS and not again:
        raise RuntimeError(f"Tried to register an operator ({op._schema}) with the same name and "
                           f"overload name multiple times: {OPERATORS[name]._schema}")
    known = _of_name(op._schema.name)
    OPERATORS[name] = op
    op.packet = known.packet if known is not None else OpOverloadPacket(op)
    op.packet.members[op._overloadname] = op


def remove(name: str) -> None:
    """Forget an operator."""
    op = OPERATORS.pop(name, None)
    if op is not None:
        op.packet.members.pop(op._overloadname, None)


def _tensors(values: Sequence):
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _cast(value: Any, dtype: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.dtype.kind == "f" and value.dtype.itemsize != 8 else value
    if isinstance(value, (list, tuple)):
        return type(value)(_cast(item, dtype) for item in value)
    return value


def _check_aliases(op: OpOverload, tensors: Sequence, result: Any) -> None:
    seen = {id(tensor._storage) for tensor in tensors}
    for tensor in _tensors(result if isinstance(result, (list, tuple)) else [result]):
        if id(tensor._storage) in seen and tensor.numel():
            raise RuntimeError(
                f"{op.short} (of '{op.name()}'): The output of this custom operator (1) must not "
                "also be an input to this custom operator and (2) may not alias any inputs to "
                "this custom operator or other returns. Return a clone of the offending output "
                "tensor(s) (output.clone()), or name what is written to in mutates_args.")
        seen.add(id(tensor._storage))


# -- descriptions of results ----------------------------------------------------------------------
class FakeContext:
    """What a `register_fake` function may ask for.

    Attributes:
        sizes: how many sizes were asked for that only the elements decide.
    """

    sizes = 0

    def new_dynamic_size(self, *, min: int = 0, max: int | None = None) -> int:
        """A size that only the elements decide: unknown here, so the smallest."""
        self.sizes += 1
        return min

    create_unbacked_symint = new_dynamic_size


class _Faking(threading.local):
    context: FakeContext | None = None


faking = _Faking()


def get_ctx() -> FakeContext:
    """The context of the `register_fake` function that is running.

    Raises:
        RuntimeError: none is.
    """
    if faking.context is None:
        raise RuntimeError("get_ctx() can only be called inside of a function given to "
                           "register_fake")
    return faking.context


# -- torch.ops ------------------------------------------------------------------------------------
def operator_of(op: Any) -> OpOverload:
    """The operator that a name, a packet, an overload or a decorated function stands for."""
    if isinstance(op, str):
        if op not in OPERATORS:
            raise RuntimeError(f"there is no operator {op!r}; define it with torch.library.define "
                               "or custom_op")
        return OPERATORS[op]
    if isinstance(op, OpOverloadPacket):
        return op.default
    if isinstance(op, OpOverload):
        return op
    found = getattr(op, "_opoverload", None)
    if found is None:
        raise ValueError(f"expected a custom operator or its name, got {op!r}")
    return found


class _Namespace(types.ModuleType):
    """`torch.ops.<namespace>`."""

    def __init__(self, name: str):
        super().__init__(f"torch.ops.{name}")
        self.__dict__["_space"] = name

    def __getattr__(self, name: str) -> Any:
        space = self.__dict__["_space"]
        found = _of_name(f"{space}::{name}")
        if found is not None:
            return found.packet
        if space == "aten" and not name.startswith("__") and (made := aten.packet(name)):
            return made
        raise AttributeError(f"'_OpNamespace' '{space}' object has no attribute '{name}'")

    def __dir__(self) -> list[str]:
        prefix = self.__dict__["_space"] + "::"
        return sorted({name.removeprefix(prefix).split(".")[0] for name in OPERATORS
                       if name.startswith(prefix)})


class _Ops(types.ModuleType):
    """`torch.ops`: namespaces, made when they are first asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = _Namespace(name)
        setattr(self, name, made)
        return made

    def load_library(self, path: str) -> None:
        """Raises: kernels in compiled libraries belong to PyTorch's runtime."""
        raise NotImplementedError(f"torch.ops.load_library({path!r}): shared libraries with "
                                  "PyTorch kernels cannot be loaded; register a Python function "
                                  "with torch.library.custom_op instead")


ops = _Ops("torch.ops")
