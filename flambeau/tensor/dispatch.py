"""Dispatch: the one door through which every operation on tensors passes.

For each op a Python function with the op's own signature is generated (forms.py). Its warm path is:
look the exact call up by layouts and static arguments, run the launch (warm.py). Everything else
(first calls, conversions, errors, capture, `__torch_function__`) takes the general paths below.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flambeau.autograd.grad_mode import LEVELS, RECORD, check_countable, mode
from flambeau.compiler.split_complex import mixes_parts
from flambeau.core import dtypes, errors, symbolic
from flambeau.core.arguments import conversion, kind_of, renamed
from flambeau.core.dtypes import DType
from flambeau.core.followed import Followed
from flambeau.core.shapes import dense_order
from flambeau.ops.derive import OpCall, WrittenCall
from flambeau.ops.outputs import EXACT_INPLACE, EXACT_OUT, SAME_EVERYWHERE
from flambeau.ops.record import REGISTRY, Op
from flambeau.tensor import autocast, launches, rewriting, tape
from flambeau.tensor.launches import Launch, LaunchCache, compile_call, is_elementwise
from flambeau.tensor.meta import Meta, TensorBase
from flambeau.tensor.overriding import (
    ACTIVE,
    TENSOR_CLASSES,
    DisableTorchFunctionSubclass,
    ask,
    relevant,
)
from flambeau.tensor.viewing import call_view
from flambeau.tensor.warm import go_for, go_inplace, go_mutating, go_out, pattern_of

__all__ = ["ACTIVE", "COMPOSED", "TENSOR_CLASSES", "call_op", "call_inplace", "call_out",
           "call_mutating", "observe", "unobserve"]

COMPOSED: set[type] = set()
"""Classes of tensors that are made of others (composed.py) and compute by rules of their own."""

_NUMBERS = (bool, int, float, complex)
MISSING = inspect.Parameter.empty
observers = launches.late.observers


def observe(observer: Any) -> None:
    """Let `observer` see all operations: its `ran(launch, args, results)`, `viewed`, `wrote`."""
    observers.append(observer)
    ACTIVE.append(observer)


def unobserve(observer: Any) -> None:
    """The end of `observe`."""
    observers.remove(observer)
    ACTIVE.remove(observer)


def host_action(what: str) -> None:
    """Say that Python state is about to change as replaying operations would not repeat."""
    if observers:
        observers[-1].host(what)


class _TakingOver(threading.local):
    """Of a thread: who gives the results of operations. `runner(record or operator, args, run)`
    may answer `run()`, or what it knows. It must stand in `ACTIVE`."""

    runner: Callable | None = None


taking_over = _TakingOver()


class Function:
    """Everything dispatch knows of one op at run time.

    Attributes:
        cache: launches by key; a key has one entry per parameter (layout, number's type, static).
        into: launches that write into existing tensors (in-place and `out=` forms).
        warm: those of them that in-place calls may use without looking closer.
        outs: (launch, warm path) of calls with `out=` likewise; the last of the key is its layout.
        public, inplace: what users call; unwatched: the warm path without a look at `ACTIVE`.
    """

    __slots__ = ("record", "cache", "into", "warm", "outs", "public", "inplace", "unwatched")

    def __init__(self, record: Op):
        self.record = record
        self.cache, self.into, self.warm = LaunchCache(), LaunchCache(), LaunchCache()
        self.outs = LaunchCache()
        self.public: Callable | None = None
        self.inplace: Callable | None = None
        self.unwatched: Callable | None = None


def clear_caches() -> None:
    """Forget all launches: needed when the default dtype or the number of threads changes."""
    launches.settle()
    for function in FUNCTIONS.values():
        function.cache.clear()
        function.into.clear()
        function.warm.clear()
        function.outs.clear()
    tape.clear_cache()
    for holder in list(launches.resettable):
        holder.forget()


class _Functions(dict):
    """Function by the op's name, made when it is first needed."""

    def __missing__(self, name: str) -> Function:
        made = self[name] = Function(REGISTRY[name])
        return made


FUNCTIONS: dict[str, Function] = _Functions()


# ---------------------------------------------------------------------- arguments
def normalised(record: Op, bound: Sequence) -> list:
    """Arguments as dispatch keys want them: tensors, Python numbers, hashable statics.

    Raises:
        TypeError: something else; says which parameter, what was given and what is expected.
    """
    result = []
    for param, arg in zip(record.params, bound, strict=True):
        role = param.role
        if type(arg) is Followed:
            arg = arg.read() if role == "static" else arg.readings.handed(arg)
        if role == "static":
            arg = _static(arg)
            if arg.__class__ is type and param.name == "dtype":
                arg = dtypes.BY_PYTHON.get(arg, arg)
            _check_static(record, param, arg)
            result.append(arg)
        elif isinstance(arg, TensorBase):
            if role == "number":
                result.append(arg.item() if arg._meta.numel == 1 else _refuse(record, param, arg))
            elif role == "tensors":
                result.append(_refuse(record, param, arg))
            else:
                result.append(arg)
        elif arg is None and (param.default is None or "None" in param.annotation):
            result.append(None)
        elif role == "tensors":
            result.append(_sequence(record, param, arg))
        elif role in ("operand", "number") and isinstance(arg, (*_NUMBERS, np.generic)):
            arg = arg.item() if isinstance(arg, np.generic) else arg
            if arg.__class__ not in _NUMBERS:
                arg = next(kind(arg) for kind in _NUMBERS if isinstance(arg, kind))
            if arg.__class__ is int and not -UNSIGNED <= arg < UNSIGNED:
                arg = _beyond_int64(arg, record, bound)
            result.append(arg)
        else:
            result.append(_refuse(record, param, arg))
    return result


UNSIGNED = 2 ** 63
"""The first int that int64 does not hold."""


def _beyond_int64(number: int, record: Op, bound: Sequence) -> int | float:
    """What an int of 64 bits without a sign counts as: a float beside floats; beside integers it
    wraps around.

    Raises:
        OverflowError: it has more bits, or stands alone.
    """
    beside = {arg._meta.dtype.kind for param, arg in zip(record.params, bound, strict=True)
              if isinstance(arg, TensorBase) and param.role in ("tensor", "operand")}
    if not beside or not 0 <= number < 2 * UNSIGNED:
        raise OverflowError(f"int too big to convert: {number} does not fit int64")
    return float(number) if beside & {"f", "c"} else number - 2 * UNSIGNED


def _check_static(record: Op, param: Any, arg: Any) -> None:
    """Raise TypeError if `arg` does not fit the annotation of a static parameter."""
    kinds = _kinds(param.annotation)
    try:
        hash(symbolic.key_of(arg) if symbolic.environment else arg)
    except TypeError:
        _refuse(record, param, arg)
    if arg is MISSING or param.name == "dtype" and not (arg is None or isinstance(arg, DType)):
        _refuse(record, param, arg)
    if not kinds or arg is param.default or arg is None and "None" in param.annotation:
        return
    if isinstance(arg, tuple) and "tuple" in kinds:
        if "int" in kinds or not record.name.startswith("_"):  # private ops know what they pass
            for place, item in enumerate(arg):
                _check_element(record, param, item, place)
    elif not any(_FITS[kind](arg) for kind in kinds):
        _refuse(record, param, arg)
    elif arg.__class__ is int:
        _check_int64(record, param, arg)


def _check_element(record: Op, param: Any, item: Any, place: int) -> None:
    """Raise if an element of a tuple of ints is none."""
    if item.__class__ is int:
        _check_int64(record, param, item)
    elif not hasattr(item, "__index__") and not (item is None and "[int | None" in
                                                 param.annotation):
        raise TypeError(f"{record.name}(): argument {param.name!r} (position "
                        f"{record.params.index(param) + 1}) must be tuple of ints, but "
                        f"found element of type {kind_of(item)} at pos {place}")


def _check_int64(record: Op, param: Any, arg: int) -> None:
    if not -UNSIGNED <= arg < UNSIGNED:
        raise ValueError(f"{record.name}(): argument {param.name!r} (position "
                         f"{record.params.index(param) + 1}): Overflow when unpacking long long: "
                         f"int64 does not hold {arg}")


@functools.cache
def _kinds(annotation: str) -> tuple[str, ...]:
    """What a static argument may be by its annotation, apart from None; () for anything."""
    words = annotation.replace("[int | None, ...]", "").split(" | ")
    kinds = tuple(word for word in words if word != "None")
    return kinds if all(word in _FITS for word in kinds) else ()


def _is_int(arg: Any) -> bool:
    return hasattr(arg, "__index__") and not isinstance(arg, (bool, TensorBase))


def _is_real(arg: Any) -> bool:
    return hasattr(arg, "__float__") and (not isinstance(arg, TensorBase) or arg._meta.numel == 1)


def _is_bool(arg: Any) -> bool:
    return isinstance(arg, bool)


def _is_complex(arg: Any) -> bool:
    return isinstance(arg, complex)


def _is_str(arg: Any) -> bool:
    return isinstance(arg, str)


def _is_no_tuple(arg: Any) -> bool:
    return False  # tuples are looked into


_FITS = {"int": _is_int, "float": _is_real, "bool": _is_bool, "complex": _is_complex,
         "str": _is_str, "tuple": _is_no_tuple}
"""Whether a static argument is one of these; tuples are looked into."""


def _static(arg: Any) -> Any:
    if isinstance(arg, (list, tuple)):
        return tuple(_static(item) for item in arg)
    if isinstance(arg, TensorBase) and arg._meta.numel == 1 and arg._meta.dtype.kind != "f":
        return arg.item()
    if isinstance(arg, np.generic):
        return arg.item()
    return arg


def _sequence(record: Op, param: Any, arg: Any) -> tuple:
    if not isinstance(arg, (list, tuple)):
        _refuse(record, param, arg)
    for position, item in enumerate(arg):
        if not isinstance(item, TensorBase):
            raise TypeError(f"expected Tensor as element {position} in argument 0 of "
                            f"{record.name}(), but got {kind_of(item)}{conversion(item)}")
    return tuple(arg)


def _refuse(record: Op, param: Any, arg: Any) -> Any:
    position = record.params.index(param) + 1
    if arg is MISSING:
        raise TypeError(f'{record.name}() missing 1 required positional arguments: "{param.name}"')
    if param.role == "static" and param.name == "dtype":
        raise TypeError(f"{record.name}(): argument 'dtype' must be torch.dtype, not "
                        f"{kind_of(arg)}")
    if param.role == "static" and param.name == "reduction":  # PyTorch asks for its value only
        raise ValueError(f"{arg} is not a valid value for reduction: it must be a str, not "
                         f"{kind_of(arg)}")
    wanted = {"number": "Number", "operand": "Tensor or Number", "tensors": "tuple of Tensors",
              "static": param.annotation.replace("tuple", "tuple of "
                                                          "ints")}.get(param.role, "Tensor")
    hint = ""
    if param.role not in ("tensors", "static"):
        hint = conversion(arg)
    raise TypeError(f"{record.name}(): argument {param.name!r} (position {position}) must be "
                    f"{wanted}, not {kind_of(arg)}{hint}")


def key_of(record: Op, args: Sequence) -> tuple:
    """What identifies a launch: layouts, types of numbers, statics."""
    key: list = []
    for param, arg in zip(record.params, args, strict=True):
        if param.role == "static" or arg is None:
            key.append(symbolic.key_of(arg) if symbolic.environment else arg)
        elif param.role == "tensors":
            key.append(tuple(item._meta for item in arg))
        elif isinstance(arg, TensorBase):
            key.append(arg._meta)
        elif param.role == "number" and arg is param.default:
            key.append(None)
        elif arg.__class__ is complex:  # a constant of the program, signs of zeros included
            key.append(repr(arg))
        elif param.fixed:
            key.append((param.fixed.get(arg), arg.__class__))
        else:
            key.append(arg.__class__)
    return tuple(key)


def flatten(record: Op, args: Sequence) -> tuple[list, list]:
    """(structure for OpCall, flat tensors and numbers)."""
    structure: list = []
    flat: list = []
    for param, arg in zip(record.params, args, strict=True):
        if param.role == "static" or arg is None:
            structure.append(("static", arg))
        elif param.role == "tensors":
            structure.append(("inputs", tuple(range(len(flat), len(flat) + len(arg)))))
            flat += arg
        elif arg.__class__ is complex or param.fixes(arg) or (
                not isinstance(arg, TensorBase) and arg is param.default):
            structure.append(("static", arg))
        else:
            structure.append(("input", len(flat)))
            flat.append(arg)
    return structure, flat


def aval(arg: Any) -> Any:
    return (tuple(arg._meta.shape), arg._meta.dtype) if isinstance(arg, TensorBase) else (
        arg.__class__)


def metas_of(flat: Sequence) -> list:
    return [a._meta if isinstance(a, TensorBase) else a.__class__ for a in flat]


# ---------------------------------------------------------------------- the general path
def call_op(function: Function, bound: Sequence) -> Any:
    """One call of an op, by the general path. `bound` follows the op's parameters."""
    if mode() & LEVELS and (done := launches.late.warm(function, bound)) is not None:
        return done
    handled = ask(function.public, function.record.params, bound)
    if handled is not NotImplemented:
        return handled
    if ACTIVE and autocast.current().casting:
        bound = autocast.cast(function.record, bound)
        if function.unwatched is not None and taking_over.runner is None and not (
                observers or mode() & LEVELS):
            return function.unwatched(*bound)
    return call_unwatched(function, bound)


def call_unwatched(function: Function, bound: Sequence) -> Any:
    """The general path of a call that nobody takes over."""
    try:
        return _call(function, function.record, bound)
    except Exception as error:
        errors.note_line(error)
        raise


def _call(function: Function, record: Op, bound: Sequence) -> Any:
    args = normalised(record, bound)
    if COMPOSED and (cls := composed_class(args)) is not None:
        return cls.operate(function, "call", args)
    if mode() & LEVELS and (done := launches.late.operate(function, "call", args)) is not (
            NotImplemented):
        return done
    if record.kind == "view":
        return call_view(function, args)
    key = key_of(record, args)
    structure, flat = flatten(record, args)
    launch = function.cache.get(key)
    if launch is None:
        if (moved := launches.late.aligned(record, args)) is not None:
            return _call(function, record, moved)
        call = OpCall(record, structure, [aval(a) for a in flat])
        launch = compile_call(call, metas_of(flat))
        launch.go = go_for(record, args, launch)
        function.cache[key] = launch
    if ACTIVE and taking_over.runner is not None and not observers:
        results = taking_over.runner(record, args, functools.partial(launch.run, flat))
    else:
        results = launch.run(flat)
    if observers:
        observers[-1].ran(launch, flat, results)
    tape.attach(launch, flat, results)
    if record.returns:
        return named_result(record, results)
    return results[0] if len(results) == 1 else tuple(results)


def named_result(record: Op, results: Sequence) -> Any:
    from flambeau.tensor.results import result_class

    return result_class(record.name, record.returns)(results)


def composed_class(args: Sequence) -> Any:
    """The class whose rules compute this call, or None: that of the first composed argument."""
    for arg in args:
        if type(arg) in COMPOSED:
            return type(arg)
        if isinstance(arg, tuple):
            for item in arg:
                if type(item) in COMPOSED:
                    return type(item)
    return None


# ---------------------------------------------------------------------- writing into tensors
def call_inplace(function: Function, bound: Sequence) -> Any:
    """The in-place form: the first argument receives the result."""
    handled = ask(function.inplace, function.record.params, bound)
    if handled is not NotImplemented:
        return handled
    try:
        return _call_inplace(function, bound)
    except Exception as error:
        errors.note_line(error)
        raise


def _call_inplace(function: Function, bound: Sequence) -> Any:
    args = normalised(function.record, bound)
    target = args[0]
    if not isinstance(target, TensorBase):
        raise TypeError(f"{function.record.name}_(): the first argument must be a Tensor")
    if COMPOSED and (cls := composed_class(args)) is not None:
        return cls.operate(function, "inplace", args)
    if mode() & LEVELS and launches.late.operate(function, "inplace", args) is not NotImplemented:
        return target
    check_writable(target, function.record.name + "_")
    launch, flat, direct = _prepare_write(function, args, (target,))
    history = None
    if mode() & 3 == RECORD and launch.node_class is not None and any(
            a._rg for a in flat if isinstance(a, TensorBase)):
        history = rewriting.History(launch, flat, target)
    _run_write(launch, flat, (target,), direct)
    bump_version(target)
    if observers:
        observers[-1].wrote(launch, flat, (target,))
    if history is not None:
        history.rebase()
    elif not observers:
        _note_warm(function, args, launch, direct)
    return target


def bump_version(target: Any) -> None:
    """Note that the user's line has written to `target`."""
    target._storage.version += 1
    errors.note_write(target._storage, errors.caller_location(3))


def check_writable(target: Any, name: str) -> None:
    """Raise if autograd forbids to write to `target` in place."""
    check_countable(target._storage.version)
    if target._view_no_grad and mode() & 3 == RECORD and target._base is not None and (
            target._base._rg):
        raise RuntimeError("A view was created in no_grad mode and is being modified inplace with "
                           f"grad mode enabled ({name}). Make the view outside of no_grad, or "
                           "modify it inside.")
    if target._rg and mode() & 3 == RECORD:
        base = target._base
        if base is None and target._grad_fn is None:
            raise RuntimeError("a leaf Variable that requires grad is being used in an in-place "
                               f"operation ({name}). Wrap it in torch.no_grad() to change its "
                               "value, or work on x.clone().")
        if base is not None and (base._grad_fn is None or target.grad_fn is None):
            raise RuntimeError("a view of a leaf Variable that requires grad is being used in an "
                               f"in-place operation ({name}). Wrap it in torch.no_grad() or work "
                               "on a clone of the leaf.")


def call_out(function: Function, bound: Sequence, out: Any) -> Any:
    """The `out=` form: results are written to `out`, which is resized if its shape differs."""
    record = function.record
    handled = ask(function.public, record.params, bound, {"out": out})
    if handled is not NotImplemented:
        return handled
    args = normalised(record, bound)
    outs = tuple(out) if isinstance(out, (tuple, list)) else (out,)
    if COMPOSED and (cls := composed_class([*args, *outs])) is not None:
        return cls.operate(function, "out", args, out)
    if mode() & LEVELS:
        launches.late.operate(function, "out", args, outs)  # raises if it concerns a transform
    structure, flat = flatten(record, args)
    for tensor in outs:
        if not isinstance(tensor, TensorBase):
            raise TypeError(f"{record.name}(): argument 'out' must be Tensor, not "
                            f"{type(tensor).__name__}")
        check_countable(tensor._storage.version)
    if mode() & 3 == RECORD and (record.differentiable or record.no_derivative) and any(
            t._rg for t in (*outs, *flat) if isinstance(t, TensorBase)):
        raise RuntimeError(f"{record.name}(): functions with out=... arguments don't support "
                           "automatic differentiation, but one of the arguments requires grad.")
    if not _fits(function, args, flat, outs):
        _prepare_out(record, structure, flat, outs)
    launch, flat, direct = _prepare_write(function, args, outs)
    _run_write(launch, flat, outs, direct)
    for tensor in outs:
        bump_version(tensor)
    if observers:
        observers[-1].wrote(launch, flat, outs)
    elif len(outs) == 1 and not launch.checked and not ACTIVE and type(out) in TENSOR_CLASSES:
        pattern = pattern_of(record, args)
        if "L" not in pattern and all(a is not out for a in flat):
            go = go_out(pattern, launch.arena is not None)
            function.outs[(*key_of(record, args), out._meta)] = launch, go
    return named_result(record, outs) if record.returns else out


def _fits(function: Function, args: Sequence, flat: Sequence, outs: Sequence) -> bool:
    """Have outputs of these layouts been written by this call before, and need no closer look?"""
    known = function.into.get(_write_key(function.record, args, flat, outs))
    return known is not None and not known[2]


def _prepare_out(record: Op, structure: list, flat: list, outs: Sequence) -> None:
    """Check the tensors that results shall be written to, and resize those of another shape."""
    call = OpCall(record, structure, [aval(a) for a in flat])
    results = call.graph.outputs
    if len(results) != len(outs):
        raise TypeError(f"{record.name}(): 'out' must hold {len(results)} tensors, got "
                        f"{len(outs)}")
    gathers = record.apart or _gathers(call.graph)
    for tensor, value in zip(outs, results, strict=True):
        if record.name in EXACT_OUT and value.dtype is not tensor._meta.dtype:
            raise RuntimeError(f"{record.name}(): Expected out tensor to have dtype "
                               f"{value.dtype.name}, but got {tensor._meta.dtype.name} instead")
        check_castable(value.dtype, tensor._meta.dtype)
        check_no_self_overlap(tensor)
        if gathers:
            check_no_overlap(flat, tensor)
        if tuple(tensor._meta.shape) != tuple(value.shape):
            tensor.resize_(value.shape)


def _gathers(graph: Any) -> bool:
    """Does a graph read or write at places known only at run time?"""
    return any(v.prim.kind in ("lookup", "scatter") for v in graph.order())


_RANK = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3, "V": 4, "q": 4}


def check_castable(source: DType, target: DType) -> None:
    """Raise if a result of dtype `source` must not be stored as `target` (a float as an int)."""
    if _RANK[source.kind] > _RANK[target.kind]:
        raise RuntimeError(f"result type {source.scalar_name} can't be cast to the desired "
                           f"output type {target.scalar_name}")


def _prepare_write(function: Function, args: Sequence, outs: Sequence
                   ) -> tuple[Launch, list, bool]:
    """(launch that computes the op into existing tensors, its flat arguments, elementwise?)."""
    record = function.record
    structure, flat = flatten(record, args)
    key = _write_key(record, args, flat, outs)
    found = function.into.get(key)
    if found is None:
        if (moved := launches.late.aligned(record, args, outs)) is not None:
            return _prepare_write(function, moved, outs)
        call = OpCall(record, structure, [aval(a) for a in flat])
        for value, out in zip(call.graph.outputs, outs, strict=True):
            check_castable(value.dtype, out._meta.dtype)
            if record.name in EXACT_INPLACE and value.dtype is not out._meta.dtype and (
                    any(out is arg for arg in args)):
                raise RuntimeError(
                    f"{record.name}_(): the result has dtype {value.dtype.scalar_name}, but the "
                    f"tensor to change {out._meta.dtype.scalar_name}; use {record.name}() instead")
        direct = is_elementwise(call.graph) and not mixes_parts(call.graph)
        if any(value.dtype is not out._meta.dtype
               for value, out in zip(call.graph.outputs, outs, strict=True)):
            call = WrittenCall(call, [out._meta.dtype for out in outs])
        aliases = {number: j for number, j in enumerate(key[2]) if j is not None}
        found = (compile_call(call, metas_of(flat), [o._meta for o in outs], aliases), direct,
                 _gathers(call.graph))
        function.into[key] = found
    return found[0], flat, found[1]


def _write_key(record: Op, args: Sequence, flat: Sequence, outs: Sequence) -> tuple:
    """What identifies a launch into existing tensors; last, which argument each of them is."""
    same = tuple(next((j for j, a in enumerate(flat) if a is out), None) for out in outs)
    return key_of(record, args), tuple(out._meta for out in outs), same


def _run_write(launch: Launch, flat: list, outs: Sequence, direct: bool) -> None:
    record = getattr(launch.call, "record", None)
    if record is None or record.name not in SAME_EVERYWHERE:
        for out in outs:
            check_no_self_overlap(out)
    # a list: every pair is looked at, since each may raise
    safe = [a is out or no_partial_overlap(a, out, direct) for a in flat
            if isinstance(a, TensorBase) for out in outs]
    if all(safe):
        launch.run_into(flat, outs)
        return
    staged = [launches.fresh_dense(o._meta.dtype, tuple(o._meta.shape), o._meta.device)
              for o in outs]
    compile_call(launch.call, metas_of(flat), [t._meta for t in staged]).run_into(flat, staged)
    for out, result in zip(outs, staged, strict=True):
        raw_copy(out, result)


def raw_copy(target: Any, source: Any) -> None:
    """Copy elements without autograd or version."""
    copy = FUNCTIONS["copy"]
    launch, flat, direct = _prepare_write(copy, [target, source, False], (target,))
    _run_write(launch, flat, (target,), direct)


def check_no_self_overlap(out: Any) -> None:
    """Raise if two elements of `out` share memory."""
    meta = out._meta
    if meta.numel and any(stride == 0 and size > 1 for size, stride in
                          zip(meta.shape, meta.strides, strict=True)):
        raise RuntimeError("unsupported operation: more than one element of the written-to tensor "
                           "refers to a single memory location. Please clone() the tensor before "
                           "performing the operation.")


def check_no_overlap(args: Sequence, out: Any) -> None:
    """Raise if `out` shares memory with a tensor read at positions known only at run time."""
    for a in args:
        if isinstance(a, TensorBase) and a._storage is out._storage and a._meta.numel and (
                out._meta.numel and not _apart(a, out)):
            raise RuntimeError("unsupported operation: some elements of the input tensor and the "
                               "written-to tensor refer to a single memory location. Please "
                               "clone() the tensor before performing the operation.")


def no_partial_overlap(a: Any, out: Any, direct: bool) -> bool:
    """May the op read `a` while it writes `out`? An elementwise op may if both are the same
    elements.

    Raises:
        RuntimeError: they overlap, but are not the same, in an elementwise op (as in PyTorch).
    """
    if a._meta.numel == 0 or out._meta.numel == 0 or a._storage is not out._storage and (
            _apart(a, out)):
        return True
    if symbolic.hint(a._ptr) == symbolic.hint(out._ptr) and a._meta is out._meta:
        return direct
    if _apart(a, out):
        return True
    if direct and _interleaved(a._meta) and _interleaved(out._meta):
        raise RuntimeError("unsupported operation: some elements of the input tensor and the "
                           "written-to tensor refer to a single memory location. Please clone() "
                           "the tensor before performing the operation.")
    return False


def _apart(a: Any, b: Any) -> bool:
    """Does all of one tensor lie before the other? (Addresses mean nothing to a later run.)"""
    start, other = symbolic.hint(a._ptr), symbolic.hint(b._ptr)
    return (start + symbolic.hint(extent(a)) <= other
            or other + symbolic.hint(extent(b)) <= start)


def _interleaved(meta: Meta) -> bool:
    """Dense tensors: for others PyTorch does not look closely."""
    return meta.contiguous or dense_order(meta.shape, meta.strides) is not None


def extent(tensor: Any) -> int:
    """Bytes from the first to one past the last element."""
    meta = tensor._meta
    reach = sum((size - 1) * stride for size, stride in zip(meta.shape, meta.strides, strict=True))
    return (reach + 1) * meta.dtype.itemsize


def _note_warm(function: Function, args: Sequence, launch: Launch, direct: bool) -> None:
    """Let the next in-place call of this kind take the warm path, if it is plain elementwise."""
    record, target = function.record, args[0]
    pattern = pattern_of(record, args)
    if direct and launch.arena is None and not launch.checked and "L" not in pattern and (
            type(target) in TENSOR_CLASSES):
        launch.go = go_inplace(pattern)
        function.warm[key_of(record, args)] = launch


def call_mutating(function: Function, bound: Sequence) -> None:
    """The in-place form of an op with several results: each replaces its namesake parameter."""
    if relevant(bound):
        with DisableTorchFunctionSubclass():
            call_mutating(function, bound)
        return
    record = function.record
    args = normalised(record, bound)
    if COMPOSED and (cls := composed_class(args)) is not None:
        cls.operate(function, "mutate", args)
        return
    if mode() & LEVELS and launches.late.operate(function, "mutate", args) is not NotImplemented:
        return
    names = [p.name for p in record.params]
    targets = [args[names.index(name)] for name in record.mutates]
    for target in targets:
        check_writable(target, record.name + "_")
    launch, flat, direct = _prepare_write(function, args, targets)
    _run_write(launch, flat, targets, direct)
    for target in targets:
        bump_version(target)
    if observers:
        observers[-1].wrote(launch, flat, targets)
    elif not launch.checked:
        places = tuple(names.index(name) for name in record.mutates)
        launch.go = go_mutating(pattern_of(record, args), places, launch.arena is not None)
        function.warm[key_of(record, args)] = launch


def call_renamed(function: Function, bound: Sequence, out: Any, extra: dict) -> Any:
    """A call with keywords that the op does not have: NumPy's names for its own, or mistakes."""
    params = function.record.params
    given = {param.name: arg for param, arg in zip(params, bound, strict=True)}
    unset = {p.name: p.default for p in params}
    renamed(function.record.name, extra, given, unset)
    bound = tuple(given.values())
    return call_op(function, bound) if out is None else call_out(function, bound, out)
