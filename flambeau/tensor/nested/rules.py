"""Operations on nested tensors.

An op of the table that is elementwise is computed on the numbers of all parts at once. The others
that are here work on rows (the last dimension) or on whole parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flambeau.core.shapes import normalize_dim
from flambeau.ops.derive import OpCall
from flambeau.tensor import dispatch
from flambeau.tensor.composed import write_back
from flambeau.tensor.creation import arange, full
from flambeau.tensor.formats import jagged
from flambeau.tensor.functions import ops
from flambeau.tensor.launches import is_elementwise
from flambeau.tensor.meta import TensorBase
from flambeau.tensor.nested import shaping
from flambeau.tensor.nested.structure import Structure, ragged_dims
from flambeau.tensor.nested.tensor import NestedTensor, numbers_of, wrap

__all__: list[str] = []

_known: dict[tuple, bool] = {}


# ---------------------------------------------------------------------- elementwise
def _elementwise(function: Any, form: str, args: Sequence) -> Any:
    record = function.record
    first = next((a for a in args if isinstance(a, NestedTensor)), None)
    if first is None:  # within a list
        raise NestedTensor.refusal(record.name)
    structure = first._structure
    plain = [_numbers_for(record.name, a, structure) if isinstance(a, TensorBase) else a
             for a in args]
    key = (record.name, dispatch.key_of(record, plain))
    if key not in _known:
        _known[key] = _is_elementwise(record, plain, tuple(first._numbers.shape))
    if not _known[key]:
        raise NestedTensor.refusal(record.name)
    result = dispatch.call_op(function, plain)
    if isinstance(result, tuple):
        return type(result)(*(wrap(structure, r) for r in result)) if hasattr(
            result, "_fields") else tuple(wrap(structure, r) for r in result)
    made = wrap(structure, result)
    return write_back(args[0], made) if form == "inplace" else made


def _is_elementwise(record: Any, args: Sequence, shape: tuple) -> bool:
    if record.kind == "view":
        return record.name == "alias"
    structure, flat = dispatch.flatten(record, args)
    try:
        graph = OpCall(record, structure, [dispatch.aval(a) for a in flat]).graph
    except (RuntimeError, IndexError, ValueError):  # what it takes is not what the parts have
        return False
    return is_elementwise(graph) and all(tuple(o.shape) == shape for o in graph.outputs)


def _numbers_for(name: str, arg: Any, structure: Structure) -> Any:
    """An operand as it goes with the numbers of a nested one."""
    if isinstance(arg, NestedTensor):
        if not arg._structure.matches(structure):
            raise RuntimeError(f"cannot call binary pointwise function {name} with inputs of "
                               f"shapes {structure.shape} and {arg._structure.shape}: their parts "
                               "have different shapes")
        return numbers_of(arg)
    if arg.ndim == 0:
        return arg
    if structure.layout is not jagged:
        raise RuntimeError("Expected both self and other to be nested, but got a nested self and "
                           "non-nested other; use layout=torch.jagged")
    rank, at = len(structure.shape), structure.ragged
    sizes = (1,) * (rank - arg.ndim) + tuple(arg.shape)
    if len(sizes) > rank or sizes[at] != 1:
        raise RuntimeError(f"{name}: a dense tensor of shape {list(arg.shape)} does not broadcast "
                           f"to a nested one of shape {structure.shape}: its ragged dimension "
                           "must be 1")
    wide = arg.reshape(sizes)
    if sizes[0] == 1:
        return ops.squeeze(wide, 0)
    if at != 1:
        raise RuntimeError(f"{name}: broadcasting over parts needs the ragged dimension to be the "
                           "second one")
    return ops.index_select(ops.squeeze(wide, 1), 0, structure.rows())


# ---------------------------------------------------------------------- rows
def _rows(name: str, tensor: NestedTensor) -> Any:
    """The numbers as rows of the last dimension, which must be the same in all parts."""
    structure = tensor._structure
    if structure.ragged == len(structure.shape) - 1 or type(structure.shape[-1]) is not int:
        raise RuntimeError(f"{name}: the last dimension of a nested tensor of size "
                           f"{structure.shape} is ragged; transpose it, or work on the parts")
    numbers = numbers_of(tensor)
    return numbers if structure.layout is jagged else numbers.reshape(-1, structure.shape[-1])


def _of_rows(structure: Structure, rows: Any) -> NestedTensor:
    return wrap(structure, rows if structure.layout is jagged else rows.reshape(-1))


def _linear(input: Any, weight: Any, bias: Any = None) -> NestedTensor:
    if not isinstance(input, NestedTensor):
        raise NestedTensor.refusal("linear with a nested weight")
    rows = ops.linear(_rows("linear", input), weight, bias)
    return _of_rows(input._structure.with_last(weight.shape[0]), rows)


def _products(input: NestedTensor, other: NestedTensor) -> Any:
    """Part by part; a dense tensor where the ragged dimensions of jagged tensors are summed over.
    """
    parts = [ops.matmul(a, b) for a, b in zip(input.unbind(), other.unbind(), strict=True)]
    a, b = input._structure, other._structure
    if a.layout is not jagged or b.layout is not jagged:
        return shaping.of_parts(parts)
    if a.ragged == input.ndim - 1 and b.ragged == other.ndim - 2:
        return ops.stack(tuple(parts), 0)
    shapes = [p.shape for p in parts]
    ragged = ragged_dims(shapes)
    if len(ragged) > 1:
        return shaping.of_parts(parts)
    structure = Structure(jagged, shapes, ragged[0] if ragged else a.ragged)
    return wrap(structure, structure.join(parts))


def _embedding(input: Any, weight: Any, *rest: Any) -> NestedTensor:
    if not isinstance(input, NestedTensor):
        raise NestedTensor.refusal("embedding with a nested weight")
    structure = input._structure
    found = ops.embedding(numbers_of(input), weight, *rest)
    shapes = [(*shape, weight.shape[1]) for shape in structure.shapes]
    shape = (*structure.shape, weight.shape[1])
    made = Structure(structure.layout, shapes, structure.ragged, structure.offsets, shape)
    return wrap(made, found if structure.layout is jagged else found.reshape(-1))


def _matmul(input: Any, other: Any) -> Any:
    if isinstance(input, NestedTensor) and isinstance(other, NestedTensor):
        return _products(input, other)
    if isinstance(input, NestedTensor) and other.ndim == input.ndim and (
            other.shape[0] == len(input)):
        made = [ops.matmul(a, b) for a, b in zip(input.unbind(), ops.unbind(other), strict=True)]
        if input._structure.layout is jagged and input._structure.ragged == input.ndim - 2:
            structure = input._structure.with_last(other.shape[-1])
            return wrap(structure, structure.join(made))
        return shaping.of_parts(made)
    if not isinstance(input, NestedTensor) or other.ndim != 2:
        raise RuntimeError("matmul: expected a nested tensor and a matrix, a dense tensor with a "
                           "matrix for each part, or two nested tensors")
    rows = ops.matmul(_rows("matmul", input), other)
    return _of_rows(input._structure.with_last(other.shape[1]), rows)


def _along_last(name: str) -> Callable:
    def rule(input: NestedTensor, dim: int, *rest: Any) -> NestedTensor:
        at = normalize_dim(dim, input.ndim)
        if at != input.ndim - 1:
            if at == input._structure.ragged and at == 1:
                parts = [getattr(ops, name)(part, 0, *rest) for part in input.unbind()]
                return wrap(input._structure, input._structure.join(parts))
            if at and input._structure.layout is not jagged:
                return shaping.of_parts([getattr(ops, name)(part, at - 1, *rest)
                                         for part in input.unbind()])
            raise RuntimeError(f"{name}: a nested tensor of size {input._structure.shape} takes "
                               f"dim=-1 or the ragged dimension, got {dim}")
        rows = _rows(name, input)
        return _of_rows(input._structure, getattr(ops, name)(rows, -1, *rest))

    rule.__name__ = rule.__qualname__ = name
    return rule


def _normalised(name: str) -> Callable:
    def rule(input: NestedTensor, normalized_shape: Any, *rest: Any) -> NestedTensor:
        rows = getattr(ops, name)(_rows(name, input), normalized_shape, *rest)
        return _of_rows(input._structure, rows)

    rule.__name__ = rule.__qualname__ = name
    return rule


# ---------------------------------------------------------------------- reductions
def _reduction(name: str) -> Callable:
    def rule(input: NestedTensor, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
        kwargs = {} if dtype is None else {"dtype": dtype}
        reduce = getattr(ops, name)
        if dim is None or dim == ():
            return reduce(numbers_of(input), **kwargs)
        dims = dim if isinstance(dim, tuple) else (dim,)
        at = normalize_dim(dims[0], input.ndim)
        structure = input._structure
        places = {normalize_dim(d, input.ndim) for d in dims}
        if structure.layout is jagged and places == {0, structure.ragged}:
            return reduce(numbers_of(input), structure.ragged - 1, **kwargs)
        if len(dims) > 1 or at == 0:
            raise RuntimeError(f"{name}(): reducing along the batch dimension but not the ragged "
                               "dimension is not supported for nested tensors; use one dim above 0")
        if at == structure.ragged or structure.layout is not jagged and at < input.ndim - 1:
            parts = [reduce(part, at - 1, keepdim, **kwargs) for part in input.unbind()]
            return ops.stack(tuple(parts), 0)
        if at != input.ndim - 1:
            raise RuntimeError(f"{name}(): a nested tensor is reduced along its ragged or its last "
                               f"dimension, got dim={dim}")
        rows = reduce(_rows(name, input), -1, keepdim, **kwargs)
        return _of_rows(structure.with_last(1 if keepdim else None), rows)

    rule.__name__ = rule.__qualname__ = name
    return rule


# ---------------------------------------------------------------------- parts
def _unbind(input: NestedTensor, dim: int = 0) -> tuple:
    if normalize_dim(dim, input.ndim) != 0:
        raise RuntimeError("unbind(): only supported for NestedTensor on dim=0")
    return shaping.parts_of(input)


def _transpose(input: NestedTensor, dim0: int, dim1: int) -> NestedTensor:
    a, b = normalize_dim(dim0, input.ndim), normalize_dim(dim1, input.ndim)
    structure = input._structure
    if a == b:
        return wrap(structure, numbers_of(input))
    if 0 in (a, b):
        kind = ValueError if structure.layout is jagged else RuntimeError
        raise kind("Transpose is not supported on the batch dimension for nested tensors")

    def turned(sizes: Sequence, shift: int) -> tuple:
        found = list(sizes)
        found[a - shift], found[b - shift] = found[b - shift], found[a - shift]
        return tuple(found)

    shapes = [turned(shape, 1) for shape in structure.shapes]
    if structure.layout is jagged:
        ragged = {a: b, b: a}.get(structure.ragged, structure.ragged)
        made = Structure(jagged, shapes, ragged, structure.offsets, turned(structure.shape, 0))
        return wrap(made, ops.transpose(numbers_of(input), a - 1, b - 1))
    made = Structure(structure.layout, shapes, 0, None, turned(structure.shape, 0))
    return wrap(made, made.join([ops.transpose(p, a - 1, b - 1) for p in _unbind(input)]))


def _padded(input: NestedTensor, padding: Any, output_size: Any = None) -> Any:
    structure = input._structure
    if not structure.shapes:
        raise RuntimeError("at least one constituent tensor should have non-zero numel")
    most = [max(column) for column in zip(*structure.shapes, strict=True)]
    sizes = list(output_size or (len(structure.shapes), *most))
    if len(sizes) != len(most) + 1 or sizes[0] < len(structure.shapes) or any(
            a < b for a, b in zip(sizes[1:], most, strict=True)):
        raise RuntimeError(f"output_size {sizes} must be at least as large as the parts: "
                           f"{[len(structure.shapes), *most]}")
    if structure.ragged == 1 and sizes[2:] == most[1:] and sizes[0] == len(structure.shapes):
        return _padded_rows(input, padding, sizes)
    parts = []
    for part in _unbind(input):
        around = [n for size, have in zip(reversed(sizes[1:]), reversed(part.shape), strict=True)
                  for n in (0, size - have)]
        parts.append(ops.pad(part, tuple(around), "constant", float(padding)))
    empty = full(sizes[1:], padding, dtype=input.dtype)
    parts += [empty] * (sizes[0] - len(parts))
    return ops.stack(tuple(parts), 0)


def _padded_rows(input: NestedTensor, padding: Any, sizes: Sequence[int]) -> Any:
    """All parts at once, where only the first dimension differs."""
    structure, numbers = input._structure, numbers_of(input)
    rows = structure.rows()
    place = arange(rows.shape[0]) - structure.offsets[rows] + rows * sizes[1]
    canvas = full((sizes[0] * sizes[1], *sizes[2:]), padding, dtype=input.dtype)
    return ops.index_copy(canvas, 0, place, numbers).reshape(tuple(sizes))


def _zero(input: NestedTensor) -> NestedTensor:
    return wrap(input._structure, ops.zero(numbers_of(input)))


NestedTensor.elementwise = staticmethod(_elementwise)
NestedTensor.rules |= {
    "linear": _linear, "nn.functional.linear": _linear, "matmul": _matmul,
    "softmax": _along_last("softmax"), "log_softmax": _along_last("log_softmax"),
    "nn.functional.softmax": _along_last("softmax"), "layer_norm": _normalised("layer_norm"),
    "rms_norm": _normalised("rms_norm"), "nn.functional.rms_norm": _normalised("rms_norm"),
    "nn.functional.log_softmax": _along_last("log_softmax"),
    "nn.functional.layer_norm": _normalised("layer_norm"),
    "sum": _reduction("sum"), "mean": _reduction("mean"),
    "unbind": _unbind, "transpose": _transpose, "zero": _zero, "to_padded_tensor": _padded,
    "bmm": _matmul, "embedding": _embedding, "nn.functional.embedding": _embedding,
    "flatten": shaping.flatten, "expand": shaping.expand, "select": shaping.select,
    "cat": shaping.cat, "stack": shaping.stack,
    "unsqueeze": shaping.unsqueeze, "squeeze": shaping.squeeze, "permute": shaping.permute,
    "unflatten": shaping.unflatten, "view": shaping.resized, "_reshape_copy": shaping.resized,
    **{name: shaping.choose(name) for name in ("narrow", "slice")},
    **{name: shaping.pieces(name) for name in ("split", "chunk")},
    **{name: shaping.extremum(name) for name in (
        "max_all", "min_all", "any", "all", "amax", "amin", "argmax", "argmin", "max_dim",
        "min_dim", "prod")},
}

