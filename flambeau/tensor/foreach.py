"""`_foreach_*`: one operation on each tensor of a list, in one launch (lists.py).

`_foreach_mul(tensors, other)` is `[torch.mul(t, other) for t in tensors]` as a tuple, and
`_foreach_mul_` the same in place. Where an operation has a second operand it may be a list of
tensors, a list of numbers, one number or one tensor without dimensions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.tensor.functions import ops
from flambeau.tensor.lists import INPLACE, NEW, over_lists
from flambeau.tensor.meta import TensorBase

__all__ = ["lookup"]

_UNARY = ("abs", "acos", "asin", "atan", "ceil", "cos", "cosh", "erf", "erfc", "exp", "expm1",
          "floor", "frac", "lgamma", "log", "log10", "log1p", "log2", "neg", "reciprocal", "round",
          "rsqrt", "sigmoid", "sign", "sin", "sinh", "sqrt", "tan", "tanh", "trunc")
_BINARY = {"add": "add", "sub": "sub", "mul": "mul", "div": "div", "pow": "pow",
           "clamp_max": "clamp_max", "clamp_min": "clamp_min", "maximum": "clamp_min",
           "minimum": "clamp_max"}
_SCALED = ("add", "sub")  # with `alpha`


@functools.cache
def lookup(name: str) -> Callable | None:
    """The function of this name, or None if there is none."""
    short = name.removeprefix("_foreach_")
    base, inplace = short.removesuffix("_"), short.endswith("_")
    made = None
    if base in _UNARY:
        made = _unary(base, inplace)
    elif base in _BINARY:
        made = _binary(base, inplace)
    elif base in ("addcmul", "addcdiv"):
        made = _ternary(base, inplace)
    elif base == "lerp":
        made = _lerp(inplace)
    else:
        made = {"clone": _clone, "copy_": _copy_, "zero_": _zero_, "norm": _norm, "max": _max,
                "powsum": _powsum, "mm": _mm}.get(short)
    if made is not None:
        made.__name__ = made.__qualname__ = name
        made.__module__ = "flambeau"
    return made


# ---------------------------------------------------------------------- arguments
def _tensors(name: str, given: Any, place: int = 0) -> list:
    """A list of tensors.

    Raises:
        TypeError: it is no list or tuple, or holds something else.
        RuntimeError: it is empty.
    """
    if not isinstance(given, list | tuple):
        raise TypeError(f"_foreach_{name}() expects a list or tuple of tensors, not "
                        f"{type(given).__name__}")
    for i, item in enumerate(given):
        if not isinstance(item, TensorBase):
            raise TypeError(f"expected Tensor as element {i} in argument {place}, but got "
                            f"{type(item).__name__}")
    if not given:
        raise RuntimeError("Tensor list must have at least one tensor.")
    return list(given)


def _operand(name: str, given: Any, count: int) -> Any:
    """A list as long as the tensors', or what is the same for all of them."""
    if isinstance(given, TensorBase):
        if given.ndim:
            raise RuntimeError("scalar tensor expected to be 0 dim but it has "
                               f"{given.ndim} dimensions and {given.numel()} elements.")
        return given
    if not isinstance(given, list | tuple):
        if not isinstance(given, bool | int | float | complex):
            raise TypeError(f"_foreach_{name}(): expected a number, a tensor or a list of them, "
                            f"not {type(given).__name__}")
        return given
    numbers = not given or not isinstance(given[0], TensorBase)
    if not numbers:
        _tensors(name, given, 1)
    if len(given) != count:
        raise RuntimeError("Tensor list must have same number of elements as scalar list."
                           if numbers else "Tensor lists must have the same number of tensors, got "
                                           f"{count} and {len(given)}")
    return list(given)


def _listed(name: str, given: Any, count: int, place: int) -> list:
    found = _tensors(name, given, place)
    if len(found) != count:
        raise RuntimeError("Tensor lists must have the same number of tensors, got "
                           f"{count} and {len(found)}")
    return found


def _run(name: str, inplace: bool, self: Any, tensors: list, *rest: Any, **options: Any) -> Any:
    if inplace:
        over_lists(name, INPLACE)(tensors, *rest, **options)
        return self
    return tuple(over_lists(name, NEW)(tensors, *rest, **options))


# ---------------------------------------------------------------------- families
def _unary(name: str, inplace: bool) -> Callable:
    def foreach(self: Sequence) -> Any:
        return _run(name, inplace, self, _tensors(name, self))

    foreach.__doc__ = f"`{name}{'_' if inplace else ''}` of each tensor."
    return foreach


def _binary(name: str, inplace: bool) -> Callable:
    def foreach(self: Any, other: Any, *, alpha: Any = 1) -> Any:
        if name == "pow" and not inplace and not isinstance(self, list | tuple):
            return tuple([ops.pow(self, exponent) for exponent in _tensors(name, other, 1)])
        tensors = _tensors(name, self)
        second = _operand(name, other, len(tensors))
        scaled = {} if alpha.__class__ is int and alpha == 1 else {"alpha": alpha}
        if scaled and name not in _SCALED:
            raise TypeError(f"_foreach_{name}() has no argument 'alpha'")
        return _run(_BINARY[name], inplace, self, tensors, second, **scaled)

    foreach.__doc__ = f"`{name}{'_' if inplace else ''}` of each tensor and its operand."
    return foreach


def _ternary(name: str, inplace: bool) -> Callable:
    def foreach(self: Sequence, tensor1: Sequence, tensor2: Sequence, value: Any = 1, *,
                scalars: Any = None) -> Any:
        tensors = _tensors(name, self)
        count = len(tensors)
        value = value if scalars is None else scalars
        if isinstance(value, TensorBase):
            if value.numel() != count:
                raise RuntimeError(f"Expected length of scalars to match input of length {count} "
                                   f"but got {value.numel()} instead.")
            value = value.tolist()
        return _run(name, inplace, self, tensors, _listed(name, tensor1, count, 1),
                    _listed(name, tensor2, count, 2), _operand(name, value, count))

    foreach.__doc__ = f"`{name}{'_' if inplace else ''}` of each tensor and its operands."
    return foreach


def _lerp(inplace: bool) -> Callable:
    def foreach(self: Sequence, tensors1: Sequence, weights: Any) -> Any:
        """self + weight * (tensor - self) for each tensor."""
        tensors = _tensors("lerp", self)
        return _run("lerp", inplace, self, tensors, _listed("lerp", tensors1, len(tensors), 1),
                    _operand("lerp", weights, len(tensors)))

    return foreach


# ---------------------------------------------------------------------- the others
def _clone(self: Sequence, *, memory_format: Any = None) -> Any:
    """A copy of each tensor."""
    tensors = _tensors("clone", self)
    if memory_format is not None:
        return tuple([t.clone(memory_format=memory_format) for t in tensors])
    return _run("clone", False, self, tensors)


def _copy_(self: Sequence, src: Sequence, non_blocking: bool = False) -> Any:
    """Copy the elements of each tensor of `src`."""
    tensors = _tensors("copy_", self)
    return _run("copy", True, self, tensors, _listed("copy_", src, len(tensors), 1))


def _zero_(self: Sequence) -> Any:
    """Fill each tensor with zeros."""
    return _run("zero", True, self, _tensors("zero_", self))


def _norm(self: Sequence, ord: float = 2, dtype: Any = None) -> Any:
    """The vector norm of each tensor, over all of its elements."""
    return _run("vector_norm", False, self, _tensors("norm", self), float(ord), dtype=dtype)


def _powsum(self: Sequence, ord: float = 2, dtype: Any = None) -> Any:
    """The sum of |x|^ord of each tensor."""
    sizes = _run("abs", False, self, _tensors("powsum", self))
    return tuple([ops.sum(each, dtype=dtype) for each in _run(
        "pow", False, sizes, list(sizes), float(ord))])


def _max(self: Sequence) -> Any:
    """The greatest element of each tensor."""
    return _run("amax", False, self, _tensors("max", self))


def _mm(self: Sequence, mat2: Sequence) -> Any:
    """The product of each matrix with its partner."""
    tensors = _tensors("mm", self)
    return _run("mm", False, self, tensors, _listed("mm", mat2, len(tensors), 1))
