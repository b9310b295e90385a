"""`Function`: operations with a hand-written backward.

The `ctx` that `forward` and `backward` share is the node of the tape itself, of a class made once
per `Function` and named after it (`MyOp` -> `MyOpBackward`).
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.autograd import engine, registry, saved, tape
from flambeau.autograd.grad_mode import (
    ANOMALY,
    LEVELS,
    is_grad_enabled,
    is_recording,
    mode,
    no_grad,
)
from flambeau.autograd.registry import tensors
from flambeau.core.errors import caller_location

__all__ = ["Function", "FunctionCtx", "NestedIOFunction", "once_differentiable"]


class FunctionCtx(tape.Node):
    """What `forward` leaves for `backward`; also the node of the tape.

    Any attribute may be set on it. Tensors that are inputs or outputs belong into
    `save_for_backward`, which checks them and keeps no reference cycle.
    """

    wants_none = True  # missing gradients become zeros, see set_materialize_grads
    _function: Any = None
    _flags: tuple[bool, ...] = ()
    _given: tuple = ()
    materialize_grads = True
    to_save: tuple | None = None
    kept_for_forward: tuple | None = None
    saved_for_forward: tuple | None = None
    tape_freed = False
    dirty_tensors: tuple = ()
    non_differentiable: tuple = ()

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep tensors (None allowed) for `backward`; read them back from `saved_tensors`."""
        self.to_save = tensors

    def save_for_forward(self, *tensors: Any) -> None:
        """Keep tensors for `jvp`."""
        kind = registry.tensors.cls
        for tensor in tensors:
            if tensor is not None and not isinstance(tensor, kind):
                raise TypeError("save_for_forward expects all arguments to be tensors; you should "
                                "save non-tensors as attributes on ctx.")
        self.kept_for_forward = tensors

    def mark_dirty(self, *args: Any) -> None:
        """Say which inputs `forward` changed in place; each must also be returned."""
        self.dirty_tensors = args

    def mark_non_differentiable(self, *args: Any) -> None:
        """Say which outputs have no gradient."""
        self.non_differentiable = args

    def set_materialize_grads(self, value: bool) -> None:
        """If False, `backward` gets None instead of zeros for outputs without gradient."""
        self.materialize_grads = value

    @property
    def saved_tensors(self) -> tuple:
        """The tensors given to `save_for_backward`.

        Raises:
            RuntimeError: they were freed, or one was changed in place since.
        """
        if self.saved_for_forward is not None:  # in jvp
            return self.saved_for_forward
        if self.to_save is not None:  # still in forward, or the call was not recorded
            return self.to_save
        if self.tape_freed:
            raise RuntimeError(saved.BACKWARD_TWICE)
        kept = saved.unpack(self) if self.tape_saved else ()
        if self._function.clear_saved_tensors_on_access:
            self.maybe_clear_saved_tensors()
        return kept

    @property
    def saved_variables(self) -> tuple:
        """The old name of `saved_tensors`."""
        warnings.warn("'saved_variables' is deprecated; use 'saved_tensors'", DeprecationWarning,
                      stacklevel=2)
        return self.saved_tensors

    @property
    def needs_input_grad(self) -> tuple[bool, ...]:
        """For each argument of `forward`, whether its gradient is wanted."""
        if self.next_edges:
            return tuple([flag and engine.should_compute(self, index)
                          for index, flag in enumerate(self._flags)])
        return self._flags

    def maybe_clear_saved_tensors(self) -> None:
        """Free the saved tensors before `backward` returns."""
        if self.tape_saved:
            self.tape_saved = ()
            self.tape_versions = None
            self.tape_freed = True

    def release(self) -> None:
        """Only the next look at `saved_tensors` fails, not the next backward."""
        self.maybe_clear_saved_tensors()

    def apply(self, grads: list) -> tuple:
        """Call the user's `backward` and check what it returns."""
        if self.materialize_grads:
            grads = tape.fill_missing(self, grads)
        rule = self._function._backward_rule()
        if self._function.boxed_grads_call:
            results = rule(self, list(grads))
        else:
            results = rule(self, *grads)
        if not isinstance(results, (tuple, list)) or _is_tensor(results):
            results = (results,)
        return self._checked(tuple(results))

    def _checked(self, results: tuple) -> tuple:
        wanted = len(self._flags)
        if len(results) > wanted and all(one is None for one in results[wanted:]):
            results = results[:wanted]
        if len(results) != wanted:
            raise RuntimeError(f"function {self.name()} returned an incorrect number of gradients "
                               f"(expected {wanted}, got {len(results)})")
        for position, (grad, tensor_given) in enumerate(zip(results, self._given, strict=True)):
            if grad is None:
                continue
            if not tensor_given:
                raise RuntimeError(
                    f"function {self.name()} returned a gradient different than None at position "
                    f"{position + 1}, but the corresponding forward input was not a Variable")
            if not _is_tensor(grad):
                raise TypeError(f"expected Variable or None (got {type(grad).__name__})")
        return results


def _is_tensor(value: Any) -> bool:
    return isinstance(value, tensors.cls)


class _FunctionMeta(type):
    """Makes the class of the nodes together with the `Function`."""

    def __init__(cls, name: str, bases: tuple, body: dict) -> None:
        super().__init__(name, bases, body)
        cls._backward_cls = type(f"{name}Backward", (FunctionCtx,),
                                 {"_function": cls, "_forward_cls": cls,
                                  "__module__": "flambeau.autograd.function"})


class Function(metaclass=_FunctionMeta):
    """Base of operations with their own backward. Subclass it, then call `MyOp.apply(...)`.

    Either `forward(ctx, *args)`, or `forward(*args)` together with
    `setup_context(ctx, inputs, output)`; and `backward(ctx, *grad_outputs)`, which returns one
    gradient (or None) per argument of `forward`. If `backward` is made of differentiable
    operations, gradients of any order work.
    """

    generate_vmap_rule = False
    """Inside of `vmap`, run `forward` and `backward` on tensors that stand for the examples."""

    boxed_grads_call = False
    """Call `backward(ctx, grads)` with one list, from which it may take gradients out to free them,
    instead of `backward(ctx, *grads)`."""

    clear_saved_tensors_on_access = False
    """Forget the saved tensors when `ctx.saved_tensors` is read: each is freed when `backward` has
    no more need of it."""

    # Methods of `ctx`, under the class that documents them.
    save_for_backward = FunctionCtx.save_for_backward
    save_for_forward = FunctionCtx.save_for_forward
    mark_dirty = FunctionCtx.mark_dirty
    mark_non_differentiable = FunctionCtx.mark_non_differentiable
    set_materialize_grads = FunctionCtx.set_materialize_grads

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        warnings.warn(f"{type(self)} should not be instantiated. Methods on autograd functions are "
                      "all static, so you should invoke them on the class itself. Instantiating "
                      "an autograd function will raise an error in a future version of PyTorch.",
                      DeprecationWarning, stacklevel=2)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("Legacy autograd function with non-static forward method is deprecated. "
                           "Please use new-style autograd function with static forward method.")

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Compute the result. Runs without recording."""
        raise NotImplementedError("You must implement the forward function for custom "
                                  "autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> Any:
        """Keep what `backward` needs, if `forward` has no `ctx`."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """One gradient (or None) per argument of `forward`."""
        raise NotImplementedError("You must implement either the backward or vjp method for your "
                                  "custom autograd.Function to use it with backward mode AD.")

    vjp = backward

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Any:
        """The tangents of the outputs, given one (or None) per argument of `forward`."""
        raise NotImplementedError("You must implement the jvp function for custom "
                                  "autograd.Function to use it with forward mode AD.")

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> Any:
        """(outputs, dimensions of the examples in them) for a batch, given `info.batch_size`,
        `info.randomness` and the dimension of each argument, None for those without."""
        raise NotImplementedError("To use autograd.Function with vmap, you must either override "
                                  "the vmap staticmethod or set generate_vmap_rule=True.")

    @classmethod
    def _backward_rule(cls) -> Callable:
        own_vjp = cls.vjp is not Function.vjp
        if own_vjp and cls.backward is not Function.backward:
            raise RuntimeError("Implementing both 'backward' and 'vjp' for a custom Function is "
                               "not allowed. You should only implement one of them.")
        return cls.vjp if own_vjp else cls.backward

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run `forward` and record it, if an argument that requires grad is among `args`."""
        separate_context = cls.setup_context is not Function.setup_context
        if separate_context:
            args = _bind_defaults(cls.forward, args, kwargs)
        elif kwargs:
            raise TypeError(f"{cls.__name__}.apply() takes no keyword arguments")
        if mode() & LEVELS and (made := tensors.forward().apply_custom(cls, args)) is not (
                NotImplemented):
            return made
        return cls._run(args, separate_context)[0]

    @classmethod
    def _node(cls, args: tuple) -> tuple[Any, bool]:
        """(ctx for a call, will it be recorded?)"""
        tensor_class = tensors.cls
        given = tuple([isinstance(value, tensor_class) for value in args])
        flags = tuple([is_one and value.requires_grad
                       for value, is_one in zip(args, given)])  # noqa: B905
        record = is_recording() and True in flags
        # The edges come first: they may make accumulators, and a node must be newer than those.
        # Asking for `grad_fn` gives a view whose base was written to its history anew.
        edges = tuple([(value.grad_fn, tape.edge_of(value))[1] if flag else None
                       for value, flag in zip(args, flags)]) if record else ()  # noqa: B905
        ctx = cls._backward_cls(edges)
        ctx._flags, ctx._given = flags, given
        return ctx, record

    @classmethod
    def _run(cls, args: tuple, separate_context: bool) -> tuple[Any, Any]:
        """(outputs, ctx) of a call that no transform sees."""
        ctx, record = cls._node(args)
        with no_grad():
            if separate_context:
                output = cls.forward(*args)
                cls.setup_context(ctx, args, output)
            else:
                output = cls.forward(ctx, *args)
        return _wrap_outputs(ctx, args, output, record), ctx


def _bind_defaults(forward: Callable, args: tuple, kwargs: dict) -> tuple:
    signature = inspect.signature(forward)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.args


def _wrap_outputs(ctx: FunctionCtx, args: tuple, output: Any, record: bool) -> Any:
    """Give the outputs their place on the tape."""
    many = isinstance(output, tuple)
    outputs = list(output) if many else [output]
    inputs = {id(value): value for value, given in zip(args, ctx._given, strict=True) if given}
    dirty = {id(tensor) for tensor in ctx.dirty_tensors}
    if not dirty <= {id(value) for value in outputs}:
        raise RuntimeError("Some elements marked as dirty during the forward method were not "
                           "returned as output. The inputs that are modified inplace must all be "
                           "outputs of the Function.")
    for tensor in ctx.dirty_tensors:
        tensor._storage.version += 1
    constant = {id(tensor) for tensor in ctx.non_differentiable}
    if record:
        ctx.tape_where = caller_location(3)
        if mode() & ANOMALY:
            tape.note_stack(ctx)
    saved_outputs: dict[int, Any] = {}
    metas = []
    for index, value in enumerate(outputs):
        if not _is_tensor(value):
            metas.append(None)
            continue
        key = id(value)
        wrapped = _wrap_output(ctx, index, value, key in inputs, key in dirty,
                               record and key not in constant and _can_have_grad(value))
        outputs[index] = saved_outputs[key] = wrapped
        metas.append(wrapped._meta)
    ctx.output_metas = tuple(metas)
    if record:
        _keep(ctx, saved_outputs)
    return tuple(outputs) if many else outputs[0]


def _can_have_grad(tensor: Any) -> bool:
    return tensor.dtype.is_floating_point or tensor.dtype.is_complex


def _wrap_output(ctx: FunctionCtx, index: int, value: Any, is_input: bool, is_dirty: bool,
                 differentiable: bool) -> Any:
    """One output tensor: with history if it is differentiable, without if not."""
    if not differentiable:
        if value.requires_grad and not is_dirty:
            with no_grad():
                return value.detach()
        if is_input and not is_dirty:
            with no_grad():
                return value.detach()
        return value
    if is_dirty:
        if value.is_leaf and value.requires_grad:
            raise RuntimeError("a leaf Variable that requires grad has been used in an in-place "
                               "operation.")
        rebase = getattr(value, "_rebase_history", None)
        if rebase is not None:  # a view: its base gets new history as well
            rebase(ctx, index)
            return value
    elif is_input:  # never change the history of the caller's own tensor
        with no_grad():
            value = value.detach()
    value._grad_fn = ctx
    value._output_nr = index
    value._rg = True
    return value


def _keep(ctx: FunctionCtx, saved_outputs: dict[int, Any]) -> None:
    """Move what `save_for_backward` was given onto the tape."""
    if ctx.to_save is None:
        return
    tensors = []
    for index, value in enumerate(ctx.to_save):
        if value is not None and not _is_tensor(value):
            raise TypeError("save_for_backward can only save variables, but argument "
                            f"{index} is of type {type(value).__name__}")
        tensors.append(saved_outputs.get(id(value), value))
    ctx.to_save = None
    if not any(value is not None and value._grad_fn is ctx for value in tensors):
        saved.save(ctx, tensors, 0, ctx.tape_where)
        return
    ctx.tape_saved = tuple([
        value if value is None else
        saved.SavedTensor(value, value._grad_fn is ctx, None, ctx.tape_where)
        for value in tensors])
    ctx.tape_versions = (None,) * len(tensors)


class _Undifferentiable(tape.Node):
    """Stands where a second derivative would go through `once_differentiable`."""

    __slots__ = ()
    wants_none = True

    def apply(self, grads: list) -> tuple:
        raise RuntimeError("trying to differentiate twice a function that was marked with "
                           "@once_differentiable")


def once_differentiable(backward: Callable) -> Callable:
    """Decorates a `backward` that cannot itself be differentiated."""

    @functools.wraps(backward)
    def backward_once(ctx: Any, *grads: Any) -> Any:
        with no_grad():
            results = backward(ctx, *grads)
        if not is_grad_enabled():
            return results
        tensors = [grad for grad in grads if _is_tensor(grad) and grad.requires_grad]
        if not tensors:
            return results
        if not isinstance(results, tuple):
            return _undifferentiable(results, tensors)
        return tuple([_undifferentiable(one, tensors) for one in results])

    return backward_once


def _undifferentiable(value: Any, inputs: Sequence[Any]) -> Any:
    if not _is_tensor(value) or not _can_have_grad(value):
        return value
    with no_grad():
        result = value.detach()
    node = tape.node_type("DelayedError", _Undifferentiable)(
        tuple([tape.edge_of(tensor) for tensor in inputs]), (result._meta,))
    result._grad_fn, result._output_nr, result._rg = node, 0, True
    return result


class NestedIOFunction(Function):
    """Kept for its name: `Function` whose inputs and outputs nest."""

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("NestedIOFunction is not supported: flatten the arguments and "
                                  "use autograd.Function")
