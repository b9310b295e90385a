"""Functions under `torch` whose names begin with an underscore and that published models call all
the same: checks that traced models keep, and the gradients of softmax for functions with a
backward of their own."""

from __future__ import annotations

from typing import Any

from flambeau.core import dtypes
from flambeau.core.dtypes import DType
from flambeau.tensor import creation
from flambeau.tensor.functions import ops
from flambeau.tensor.tensor import Tensor

__all__ = ["_assert", "_log_softmax", "_log_softmax_backward_data", "_shape_as_tensor",
           "_softmax", "_softmax_backward_data"]


def _assert(condition: Any, message: str) -> None:
    """Raise AssertionError unless the condition holds.

    >>> torch._assert(torch.tensor(True), "never shown")
    """
    if not condition:
        raise AssertionError(message)


def _shape_as_tensor(self: Tensor) -> Tensor:
    """The shape as an int64 tensor.

    >>> torch._shape_as_tensor(torch.zeros(2, 3))
    tensor([2, 3])
    """
    return creation.tensor(tuple(self.shape), dtype=dtypes.int64)


def _softmax(self: Tensor, dim: int, half_to_float: bool) -> Tensor:
    """`softmax`; `half_to_float`: of float16, with a float32 result.

    >>> torch._softmax(torch.zeros(2), 0, False)
    tensor([0.5000, 0.5000])
    """
    return ops.softmax(self, dim, dtype=_result("softmax", self, half_to_float))


def _log_softmax(self: Tensor, dim: int, half_to_float: bool) -> Tensor:
    """`log_softmax`, as `_softmax`.

    >>> torch._log_softmax(torch.zeros(2), 0, False)
    tensor([-0.6931, -0.6931])
    """
    return ops.log_softmax(self, dim, dtype=_result("log_softmax", self, half_to_float))


def _result(name: str, input: Tensor, half_to_float: bool) -> DType | None:
    if not half_to_float:
        return None
    raise RuntimeError(f"{name} with half to float conversion is not supported on CPU, got input "
                       f"{input.dtype!r}; give dtype=torch.float32 to torch.{name}")


def _softmax_backward_data(grad_output: Tensor, output: Tensor, dim: int, input_dtype: DType
                           ) -> Tensor:
    """The gradient of the input of `softmax`, given that of its output and the output.

    >>> half = torch.tensor([0.5, 0.5])
    >>> torch._softmax_backward_data(torch.tensor([1., 0.]), half, 0, torch.float32)
    tensor([ 0.2500, -0.2500])
    """
    inner = ops.sum(ops.mul(grad_output, output), dim, True)
    return ops.mul(ops.sub(grad_output, inner), output).to(input_dtype)


def _log_softmax_backward_data(grad_output: Tensor, output: Tensor, dim: int, input_dtype: DType
                               ) -> Tensor:
    """The gradient of the input of `log_softmax`, given that of its output and the output.

    >>> logs = torch.tensor([0.5, 0.5]).log()
    >>> torch._log_softmax_backward_data(torch.tensor([1., 0.]), logs, 0, torch.float32)
    tensor([ 0.5000, -0.5000])
    """
    total = ops.sum(grad_output, dim, True)
    return ops.sub(grad_output, ops.mul(ops.exp(output), total)).to(input_dtype)
