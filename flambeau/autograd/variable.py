"""`Variable`: the old name of the tensor."""

from __future__ import annotations

from typing import Any

from flambeau.autograd import engine
from flambeau.autograd.registry import tensors

__all__ = ["Variable"]


class _VariableMeta(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, tensors.cls)


class Variable(metaclass=_VariableMeta):
    """`isinstance(t, Variable)` holds for every tensor, and calling it makes one.

    `Variable(x, requires_grad=False)` gives a tensor with the memory of `x` and no history.
    """

    def __new__(cls, data: Any, requires_grad: bool = False, volatile: Any = None) -> Any:
        result = data.detach()
        if requires_grad:
            result.requires_grad_()
        return result


class _Engine:
    """What `Variable._execution_engine` is asked for."""

    @staticmethod
    def queue_callback(callback: Any) -> None:
        engine.queue_callback(callback)

    @staticmethod
    def run_backward(*args: Any, **kwargs: Any) -> Any:
        return engine.run_backward(*args, **kwargs)


Variable._execution_engine = _Engine()
