"""`custom_op`: an operator made of a Python function."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from flambeau.core.dtypes import DType
from flambeau.library.libraries import register_torch_dispatch
from flambeau.library.operators import OpOverload, enter
from flambeau.library.schema import infer_schema, parse_schema

__all__ = ["CustomOpDef", "custom_op", "triton_op", "wrap_triton"]


def custom_op(name: str, fn: Callable | None = None, /, *, mutates_args: str | Iterable[str],
              device_types: str | Iterable[str] | None = None, schema: str | None = None,
              tags: Any = None) -> Any:
    """Make an operator of a function: opaque to autograd and compile, which use its rules only.

    Args:
        name: "namespace::name".
        mutates_args: the arguments that the function writes to, or "unknown".
        device_types: the devices that it works on; all by default.
        schema: "(Tensor x) -> Tensor"; by default it is read off the annotations.

    Raises:
        ValueError: a name without a namespace, or annotations that make no schema.
    """

    def make(function: Callable) -> CustomOpDef:
        if name.count("::") != 1 or not all(name.split("::")):
            raise ValueError(f"expected a name of the form 'namespace::name', got {name!r}")
        text = schema or infer_schema(function, mutates_args=mutates_args)
        return CustomOpDef(name, text, function, device_types)

    return make if fn is None else make(fn)


def _types(device_types: str | Iterable[str] | None) -> list[str]:
    if device_types is None:
        return [""]
    return [device_types] if isinstance(device_types, str) else list(device_types)


class CustomOpDef:
    """A custom operator: call it like the function, register rules for it."""

    def __init__(self, name: str, schema: str, function: Callable,
                 device_types: str | Iterable[str] | None = None):
        self._namespace, self._name = name.split("::")
        self._qualname = name
        self._init_fn = function
        self._opoverload = OpOverload(parse_schema(name + schema))
        self._opoverload.opaque, self._opoverload.init_fn = True, function
        enter(self._opoverload, again=True)
        functools.update_wrapper(self, function, updated=())
        self.register_kernel(device_types)(function)

    def __repr__(self) -> str:
        return f"<CustomOpDef({self._qualname})>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._opoverload(*args, **kwargs)

    def register_kernel(self, device_types: str | Iterable[str] | None, fn: Callable | None = None,
                        /) -> Callable:
        """Let a function serve devices ("cpu", "cuda"); None: all."""

        def register(function: Callable) -> Callable:
            for device in _types(device_types):
                self._opoverload.kernels[device] = function
            return function

        return register if fn is None else register(fn)

    def register_fake(self, fn: Callable, /) -> Callable:
        """Say what the results look like (shape, dtype) for tensors that have no elements."""
        self._opoverload.fake = fn
        return fn

    def register_autograd(self, backward: Callable, /, *,
                          setup_context: Callable | None = None) -> None:
        """The gradient.

        Args:
            backward: (ctx, *gradients of the results) -> a gradient or None for each argument.
            setup_context: (ctx, inputs, output), keeps on ctx what backward needs.

        Raises:
            RuntimeError: the operator writes to its arguments or returns something else than
                tensors.
        """
        schema = self._opoverload._schema
        if schema.is_mutable:
            raise RuntimeError(f"Cannot register autograd formula for non-functional operator "
                               f"{self._qualname} with schema {schema}: it mutates arguments")
        self._opoverload.backward = backward
        self._opoverload.setup_context = setup_context
        self._opoverload.changed()

    def register_vmap(self, func: Callable | None = None) -> Callable:
        """The batching rule: (info, in_dims, *args) -> (results, out_dims)."""

        def register(function: Callable) -> Callable:
            self._opoverload.vmap = function
            self._opoverload.changed()
            return function

        return register if func is None else register(func)

    def register_autocast(self, device_type: str, cast_inputs: DType) -> None:
        """Cast floating arguments to a dtype under `autocast` of a device.

        Raises:
            ValueError: a device without autocast.
        """
        if device_type not in ("cpu", "cuda"):
            raise ValueError(f"Unknown device type: {device_type}; expected 'cpu' or 'cuda'")
        self._opoverload.casts[device_type] = cast_inputs

    def register_torch_dispatch(self, torch_dispatch_class: Any, fn: Callable | None = None, /
                                ) -> Any:
        """What a class of `TorchDispatchMode` does about the operator; see
        `torch.library.register_torch_dispatch`."""
        return register_torch_dispatch(self._opoverload, torch_dispatch_class, fn)

    def set_kernel_enabled(self, device_type: str, enabled: bool = True) -> Any:
        """Within the block, or from now on, a device's kernel is used or the operator's own
        function in its place.

        Raises:
            ValueError: there is no kernel of this device type.
        """
        return _Enabled(self._opoverload, device_type, enabled)


class _Enabled:
    """`set_kernel_enabled`: acts at once, and undoes it when a block over it ends."""

    def __init__(self, op: OpOverload, device_type: str, enabled: bool):
        self.op, self.device_type = op, device_type
        self.before = device_type in op.disabled
        self._set(not enabled)

    def _set(self, disabled: bool) -> None:
        (self.op.disabled.add if disabled else self.op.disabled.discard)(self.device_type)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        self._set(self.before)


def triton_op(name: str, fn: Callable | None = None, /, *, mutates_args: Any,
              schema: str | None = None) -> Any:
    """Raises: Triton kernels need Triton's compiler."""
    raise NotImplementedError("torch.library.triton_op: Triton kernels are not supported; write "
                              "the operator with tensors, or with custom_op around other code")


def wrap_triton(triton_kernel: Any, /) -> Any:
    """Raises: Triton kernels need Triton's compiler."""
    raise NotImplementedError("torch.library.wrap_triton: Triton kernels are not supported")
