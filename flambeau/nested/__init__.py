"""`torch.nested`: batches of tensors of different shapes. The engine is in flambeau/tensor/nested.
"""

from __future__ import annotations

from typing import Any

from flambeau.tensor.nested.construct import (
    as_nested_tensor,
    masked_select,
    narrow,
    nested_tensor,
    nested_tensor_from_jagged,
)
from flambeau.tensor.nested.tensor import NestedTensor

__all__ = ["to_padded_tensor", "as_nested_tensor", "nested_tensor", "nested_tensor_from_jagged",
           "narrow", "masked_select"]


def to_padded_tensor(input: Any, padding: float, output_size: Any = None, out: Any = None) -> Any:
    """A dense tensor with `padding` where the parts of a nested tensor have no elements.

    Args:
        output_size: of the result; by default the smallest that holds all parts.

    >>> x = torch.nested.nested_tensor([torch.tensor([1., 2.]), torch.tensor([3.])])
    >>> torch.nested.to_padded_tensor(x, 0.)
    tensor([[1., 2.],
            [3., 0.]])
    """
    if not isinstance(input, NestedTensor):
        raise RuntimeError("to_padded_tensor: expected a nested tensor, got layout "
                           f"{input.layout!r}")
    made = input.to_padded_tensor(padding, output_size)
    return made if out is None else out.resize_(tuple(made.shape)).copy_(made)
