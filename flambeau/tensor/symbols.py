"""Functions that PyTorch has for numbers that may be symbols, and control flow as a function.

Sizes are integers, or behave as they do while a function with varying sizes is captured; so these
are Python's own operations by another name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.core.arguments import kind_of
from flambeau.core.symbolic import SymFloat, SymInt
from flambeau.tensor.meta import TensorBase

__all__ = ["SymBool", "SymFloat", "SymInt", "cond", "sym_float", "sym_int", "sym_ite", "sym_max",
           "sym_min", "sym_not", "sym_sum"]


class SymBool:
    """A condition on symbols. None is ever made: conditions on symbols are decided at once, and
    what was decided guards the program. The name serves `isinstance`."""

    def __new__(cls, *args: Any) -> SymBool:
        raise TypeError("SymBool cannot be made: conditions on symbolic sizes are plain bools")


def sym_int(a: Any) -> Any:
    """A number as an integer, rounded towards zero.

    >>> torch.sym_int(3.7)
    3
    """
    return a if isinstance(a, SymInt) else int(a)


def sym_float(a: Any) -> Any:
    """A number as a float.

    >>> torch.sym_float(3)
    3.0
    """
    return a if isinstance(a, SymFloat) else float(a)


def sym_not(a: Any) -> bool:
    """Is `a` false?

    >>> torch.sym_not(True)
    False
    """
    return not a


def sym_max(a: Any, b: Any) -> Any:
    """The larger one; a float if one of them is.

    >>> torch.sym_max(1, 2.5)
    2.5
    """
    return _of_kind(a, b, a if a >= b else b)


def sym_min(a: Any, b: Any) -> Any:
    """The smaller one; a float if one of them is.

    >>> torch.sym_min(1, 2.5)
    1.0
    """
    return _of_kind(a, b, a if a <= b else b)


def _of_kind(a: Any, b: Any, chosen: Any) -> Any:
    for number in (a, b):
        if isinstance(number, float) and math.isnan(number):
            return number
    return float(chosen) if isinstance(a, float) or isinstance(b, float) else chosen


def sym_ite(b: Any, t: Any, f: Any) -> Any:
    """t if b, else f.

    >>> torch.sym_ite(True, 1, 2)
    1
    """
    if type(t) is not type(f):
        raise TypeError(f"sym_ite(): both values must have one type, got {kind_of(t)} and "
                        f"{kind_of(f)}")
    return t if b else f


def sym_sum(*args: Any) -> Any:
    """The sum of integers, given one by one or as a sequence.

    >>> torch.sym_sum([1, 2, 3])
    6
    """
    return sum(args[0] if len(args) == 1 and isinstance(args[0], (list, tuple)) else args)


def cond(pred: Any, true_fn: Callable, false_fn: Callable,
         operands: Sequence = ()) -> Any:
    """What `true_fn` makes of the operands if `pred` holds, else what `false_fn` makes of them.

    Raises:
        RuntimeError: `pred` is no condition, or a branch cannot be called.

    >>> x = torch.tensor([5.])
    >>> torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))
    tensor([6.])
    """
    if not isinstance(pred, (bool, int, float, TensorBase, SymInt)):
        raise RuntimeError(f"Expected pred to be bool or tensor, but got {kind_of(pred)}.")
    if isinstance(pred, TensorBase) and pred.numel() != 1:
        raise RuntimeError("Expected pred to be bool or single-element tensor, but got "
                           f"{pred.numel()} elements.")
    if not callable(true_fn) or not callable(false_fn):
        raise RuntimeError("Expect both branches to be callable.")
    if not isinstance(operands, (list, tuple)):
        raise RuntimeError("Expect operands to be a tuple of possibly nested dict/list/tuple that "
                           f"only consists of tensor leaves, but got {kind_of(operands)}.")
    return (true_fn if bool(pred) else false_fn)(*operands)
