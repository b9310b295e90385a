"""Operations on tensors that a transform of the thread concerns: how dispatch meets the levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.autograd.grad_mode import RECORD, mode
from flambeau.ops.record import Op
from flambeau.tensor import dispatch, entering, launches, levels
from flambeau.tensor import examples as _examples  # noqa: F401 - registers itself
from flambeau.tensor.launches import LaunchCache
from flambeau.tensor.meta import TensorBase

__all__ = ["operate", "view"]


def operate(function: Any, form: str, args: Sequence, outs: Sequence = ()) -> Any:
    """One call in the form "call", "inplace", "mutate" or "out"; NotImplemented if no level
    concerns an argument."""
    level = levels.concerned((*args, *outs) if outs else args)
    if level is None:
        return NotImplemented
    record = function.record
    if form == "call":
        if record.kind == "view":
            return view(function, args)
        results = _results(record, args, level)
        if len(results) == 1 and not record.many and not record.returns:
            return results[0]
        return dispatch.named_result(record, results) if record.returns else tuple(results)
    if form == "inplace":
        _write(record, args, (args[0],))
        return args[0]
    if form == "mutate":
        names = [p.name for p in record.params]
        _write(record, args, [args[names.index(name)] for name in record.mutates])
        return None
    raise RuntimeError(f"{record.name}(): out= is not supported inside of a transform (vmap, jvp, "
                       "forward mode) that concerns one of the tensors; use the result instead")


def view(function: Any, args: Sequence) -> Any:
    """A view op on a tensor that a level concerns; NotImplemented if none does."""
    base = args[0]
    if levels.top((base,)) is None:
        return NotImplemented
    record = function.record
    structure = [("input", 0)] + [("static", a) for a in args[1:]]
    call = levels.call_of(record, (base._meta, *args[1:]), structure, (base,))
    views = levels.run_view(call, base)
    return tuple(views) if record.many else views[0]


_calls = LaunchCache()


def _results(record: Op, args: Sequence, level: levels.Level | None) -> list:
    key = dispatch.key_of(record, args)
    known = _calls.get((record, key))
    if known is None:
        structure, flat = dispatch.flatten(record, args)
        call = levels.call_of(record, key, structure, flat)
        many = any(kind == "inputs" for kind, _ in structure)
        picked = None if many else [n for n, (kind, _) in enumerate(structure) if kind == "input"]
        _calls[record, key] = call, picked
    else:
        call, picked = known
        flat = dispatch.flatten(record, args)[1] if picked is None else [args[n] for n in picked]
    return levels.run(call, flat) if level is None else level.compute(call, flat)


def _write(record: Op, args: Sequence, targets: Sequence) -> None:
    """Results replace their targets: computed first, and then copied."""
    for target in targets:
        dispatch.check_writable(target, record.name + "_")
    if record.name == "copy":
        results = [args[1]]
    else:
        results = _results(record, _without_targets(args, targets), None)
    for target, result in zip(targets, results, strict=True):
        if not isinstance(result, TensorBase):
            result = launches.late.ops.mul(target.detach(), 0).add(result)
        if record.name != "copy":
            dispatch.check_castable(result._meta.dtype, target._meta.dtype)
            if result._meta.shape != target._meta.shape:
                raise RuntimeError(f"output with shape {list(target._meta.shape)} doesn't match "
                                   f"the broadcast shape {list(result._meta.shape)}")
        levels.assign(target, result)


def _without_targets(args: Sequence, targets: Sequence) -> Sequence:
    """The arguments with copies of the targets, which are about to be overwritten, if a gradient
    may need them."""
    if mode() & 3 != RECORD or not any(
            a._rg or entering.recorded_below(a) for a in args if isinstance(a, TensorBase)):
        return args
    copies = {id(target): target.clone() for target in targets}
    return [copies.get(id(a), a) for a in args]


launches.late.operate, launches.late.view = operate, view
