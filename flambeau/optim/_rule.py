"""Update rules: which op makes the step of an optimizer, and how it runs over all parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import flambeau
from flambeau.ops.record import REGISTRY
from flambeau.tensor import Tensor
from flambeau.tensor.functions import ops
from flambeau.tensor.lists import MUTATE, over_lists

__all__ = ["Rule", "apply_rule"]


class Rule(NamedTuple):
    """One step of an optimizer: an op of ops/optim.py.

    Attributes:
        name: of the op.
        state: names of the state tensors, in the order in which the op takes them after the
            parameter and its gradient.
        options: the numbers and flags that it takes by name.
    """

    name: str
    state: tuple[str, ...]
    options: dict[str, Any]


def apply_rule(rule: Rule, params: list[Tensor], grads: list[Tensor],
               states: Sequence[dict[str, Any]]) -> None:
    """Make the step for all parameters: one launch, or recorded operations in grad mode."""
    columns = [params, grads, *[[state[name] for state in states] for name in rule.state]]
    if any(param._meta.dtype.kind == "c" for param in params):
        columns = [list(map(_real, column)) for column in columns]
    if flambeau.is_grad_enabled():
        _recorded(rule, columns)
    else:
        over_lists(rule.name, MUTATE)(*columns, **rule.options)


def _real(tensor: Tensor) -> Tensor:
    """A complex tensor as pairs of reals: updates are elementwise."""
    return flambeau.view_as_real(tensor) if tensor.is_complex() else tensor


def _recorded(rule: Rule, columns: Sequence[list[Tensor]]) -> None:
    """The step for backward (`differentiable`), which finds the old values in copies."""
    record = REGISTRY[rule.name]
    places = [[p.name for p in record.params].index(name) for name in record.mutates]
    step = getattr(ops, rule.name)
    for row in zip(*columns, strict=True):
        given = [tensor.clone() if place in places else tensor for place, tensor in enumerate(row)]
        results = step(*given, **rule.options)
        for place, new in zip(places, results, strict=True):
            row[place].copy_(new)
