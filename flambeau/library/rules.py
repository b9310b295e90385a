"""How operators of users take part in autograd and transforms: a `Function` made of their rules.

Arguments may be lists of tensors; on the tape, their tensors stand on their own. The function gets
the lengths of the lists first, and then all arguments in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flambeau
from flambeau.autograd.function import Function
from flambeau.tensor import Tensor

__all__ = ["flatten", "function_of", "gives_list"]


def flatten(values: Sequence) -> tuple[tuple, list]:
    """Arguments with the tensors of lists on their own: (lengths of lists or None, flat values)."""
    shape, flat = [], []
    for value in values:
        if isinstance(value, (list, tuple)) and any(isinstance(v, Tensor) for v in value):
            shape.append(len(value))
            flat += value
        else:
            shape.append(None)
            flat.append(value)
    return tuple(shape), flat


def _unflatten(shape: Sequence, flat: Sequence) -> list:
    values, start = [], 0
    for length in shape:
        if length is None:
            values.append(flat[start])
        else:
            values.append(list(flat[start:start + length]))
        start += 1 if length is None else length
    return values


def function_of(op: Any) -> type[Function]:
    """The differentiable form of an operator, from its rules."""

    def forward(shape: tuple, *flat: Any) -> Any:
        result = op.compute(_unflatten(shape, flat))
        return tuple(result) if isinstance(result, list) else result

    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        ctx.argument_shape = inputs[0]
        if op.setup_context is not None:
            given, named = op._split(_unflatten(inputs[0], inputs[1:]))
            extra = {"keyword_only_inputs": named} if named else {}
            op.setup_context(ctx=ctx, inputs=tuple(given), output=_result(op, output), **extra)

    def backward(ctx: Any, *grads: Any) -> tuple:
        if op.backward is None:
            raise RuntimeError(f"Trying to backward through {op} but no autograd formula was "
                               "registered. Please use register_autograd to add one.")
        given = op.backward(ctx, list(grads)) if gives_list(op) else op.backward(ctx, *grads)
        given = list(given) if isinstance(given, (tuple, list)) else [given]
        shape = ctx.argument_shape
        given += [None] * (len(shape) - len(given))
        flat: list = [None]
        for length, grad in zip(shape, given, strict=True):
            if length is None:
                flat.append(grad)
            else:
                flat += [None] * length if grad is None else list(grad)
        return tuple(flat)

    def vmap(info: Any, in_dims: tuple, shape: tuple, *flat: Any) -> tuple:
        values, dims = _unflatten(shape, flat), _unflatten(shape, in_dims[1:])
        if op.vmap is None:
            return _one_by_one(op, info.batch_size, shape, in_dims[1:], flat)
        args, named = op._split(values)
        result, places = op.vmap(info, tuple(dims), *args, **named)
        if isinstance(result, list):
            result, places = tuple(result), tuple(places) if isinstance(places, list) else places
        return result, places

    body = {"forward": forward, "setup_context": setup_context, "backward": backward, "vmap": vmap}
    return type(f"GeneratedBackwardFor_{op.namespace}_{op.short}_{op._overloadname}", (Function,),
                {name: staticmethod(rule) for name, rule in body.items()})


def gives_list(op: Any) -> bool:
    """Is the result of an operator one list of tensors?"""
    return op._schema.returns == ("Tensor[]",)


def _result(op: Any, output: Any) -> Any:
    return list(output) if isinstance(output, tuple) and gives_list(op) else output


def _one_by_one(op: Callable, size: int, shape: Sequence, dims: Sequence, flat: Sequence) -> tuple:
    """(results, places of the examples) of an operator without a batching rule."""
    if not size:
        raise RuntimeError(f"{op} has no batching rule, and there are no examples to run it on: "
                           "use register_vmap")
    rows = []
    for number in range(size):
        row = [value if dim is None else value.select(dim, number)
               for value, dim in zip(flat, dims, strict=True)]
        args, named = op._split(_unflatten(shape, row))
        rows.append(op(*args, **named))
    if not isinstance(rows[0], (tuple, list)):
        return _joined(rows), 0 if isinstance(rows[0], Tensor) else None
    return tuple([_joined(column) for column in zip(*rows, strict=True)]), 0


def _joined(column: Sequence) -> Any:
    return flambeau.stack(list(column)) if isinstance(column[0], Tensor) else column[0]
