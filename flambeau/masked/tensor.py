"""`MaskedTensor`: a tensor of which only the elements that a mask names count.

It is a tensor like any other, with a mask beside it: its own elements, history and gradients are
those of the data. What operations make of both stands in operations.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from flambeau.core import dtypes
from flambeau.core.arguments import kind_of
from flambeau.tensor import Tensor
from flambeau.tensor.functions import ops
from flambeau.tensor.overriding import DisableTorchFunctionSubclass

__all__ = ["MaskedTensor", "as_masked_tensor", "is_masked_tensor", "masked_tensor", "with_mask"]

_DTYPES = (dtypes.float16, dtypes.float32, dtypes.float64, dtypes.bfloat16, dtypes.bool_,
           dtypes.int8, dtypes.int16, dtypes.int32, dtypes.int64, dtypes.uint8)


def _check(data: Any, mask: Any) -> None:
    for name, part in (("data", data), ("mask", mask)):
        if not isinstance(part, Tensor):
            raise TypeError(f"{name} must be a Tensor, not {kind_of(part)}")
        if isinstance(part, MaskedTensor):
            raise TypeError(f"{name} must be a plain Tensor, not a MaskedTensor")
    if not data._meta.strided or not mask._meta.strided:
        raise NotImplementedError("masked tensors are dense here; convert data and mask with "
                                  ".to_dense() first")
    if mask.dtype is not dtypes.bool_:
        raise TypeError("mask must have dtype bool.")
    if data.dtype not in _DTYPES:
        raise TypeError(f"{data.dtype} is not supported in MaskedTensor.")
    if data.ndim != mask.ndim:
        raise ValueError("data.dim() must equal mask.dim()")
    if data.shape != mask.shape:
        raise ValueError("data.size() must equal mask.size()")


class MaskedTensor(Tensor):
    """A tensor and a mask of its shape: elements where the mask is False are as if not there.

    Args:
        data: a dense tensor of real numbers.
        mask: bools, True for what counts.
        requires_grad: whether the new tensor is a leaf that wants gradients.

    Raises:
        TypeError: no tensors, another dtype of the mask, complex data.
        ValueError: the shapes differ.
    """

    apply: ClassVar[Callable]
    """(function, args, kwargs) -> result; operations.py defines it."""

    def __new__(cls, data: Any, mask: Any, requires_grad: bool = False) -> MaskedTensor:
        _check(data, mask)
        made = with_mask(data.detach(), mask.detach())
        return made.requires_grad_() if requires_grad else made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    @classmethod
    def __torch_function__(cls, func: Callable, types: Sequence, args: Sequence = (),
                           kwargs: dict | None = None) -> Any:
        with DisableTorchFunctionSubclass():
            return MaskedTensor.apply(func, tuple(args), dict(kwargs or {}))

    def get_data(self) -> Tensor:
        """All elements, also those that do not count, with their history."""
        with DisableTorchFunctionSubclass():
            return self.as_subclass(Tensor)

    def get_mask(self) -> Tensor:
        """Which elements count."""
        return self._masked_mask

    def to_tensor(self, value: Any) -> Tensor:
        """A plain tensor with `value` where elements do not count."""
        return self.get_data().masked_fill(~self._masked_mask, value)

    def tolist(self) -> Any:
        """Raises: lists have no mask."""
        raise RuntimeError(".tolist() is not supported for tensor subclasses, got MaskedTensor; "
                           "use .to_tensor(value).tolist()")

    def numpy(self, *, force: bool = False) -> Any:
        """Raises: arrays have no mask."""
        raise RuntimeError(".numpy() is not supported for tensor subclasses; use "
                           ".to_tensor(value).numpy()")

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        data, mask = self.get_data().detach(), self._masked_mask
        if not data.ndim:
            text = _text(data.item()) if bool(mask) else "--"
            return f"MaskedTensor({text}, {bool(mask)})"
        return f"MaskedTensor(\n{_indented(_shown(data, mask))}\n)"

    def __copy__(self) -> MaskedTensor:
        return with_mask(self.get_data(), self._masked_mask)

    def __deepcopy__(self, memo: dict) -> MaskedTensor:
        if id(self) not in memo:
            made = with_mask(self.get_data().detach().clone(), self._masked_mask.clone())
            memo[id(self)] = made.requires_grad_(self.requires_grad and self.is_leaf)
        return memo[id(self)]

    def __reduce_ex__(self, protocol: int) -> tuple:
        return MaskedTensor, (self.get_data().detach(), self._masked_mask,
                              self.requires_grad and self.is_leaf)


def with_mask(data: Tensor, mask: Tensor) -> MaskedTensor:
    """The masked tensor of data, history included, and a mask."""
    with DisableTorchFunctionSubclass():
        made = data.as_subclass(MaskedTensor)
        made._masked_mask = mask
        return made


def masked_tensor(data: Tensor, mask: Tensor, requires_grad: bool = False) -> MaskedTensor:
    """A new leaf of copies of data and mask.

    >>> x = torch.masked.masked_tensor(torch.tensor([1., 9.]), torch.tensor([True, False]))
    >>> x + 1
    MaskedTensor(
      [  2.0000,       --]
    )
    """
    _check(data, mask)
    return MaskedTensor(data.detach().clone(), mask.detach().clone(), requires_grad)


def as_masked_tensor(data: Tensor, mask: Tensor) -> MaskedTensor:
    """Data with a mask; gradients go back to the data, as zeros where elements do not count.

    >>> data = torch.ones(2, requires_grad=True)
    >>> torch.masked.as_masked_tensor(data, torch.tensor([True, False])).sum().backward()
    >>> data.grad
    tensor([1., 0.])
    """
    _check(data, mask)
    return with_mask(data, mask)


def is_masked_tensor(obj: Any, /) -> bool:
    """Is it a `MaskedTensor`?

    >>> torch.masked.is_masked_tensor(torch.ones(2))
    False
    """
    return isinstance(obj, MaskedTensor)


# ---------------------------------------------------------------------- text
_WIDTH = 8


def _text(value: Any) -> str:
    return f"{value:{_WIDTH}.4f}" if isinstance(value, float) else str(value)


def _indented(text: str) -> str:
    return "\n".join("  " + line for line in text.split("\n"))


def _shown(data: Tensor, mask: Tensor) -> str:
    """Elements in brackets, `--` for those that do not count."""
    if data.ndim == 1:
        pairs = [(_text(value), counts) for value, counts in
                 zip(data.tolist(), mask.tolist(), strict=True)]
        width = max((len(text) if counts else _WIDTH for text, counts in pairs), default=0)
        return f"[{', '.join(text if counts else '--'.rjust(width) for text, counts in pairs)}]"
    rows = [_indented(_shown(d, m)) for d, m in zip(ops.unbind(data), ops.unbind(mask),
                                                   strict=True)]
    return "[\n" + ",\n".join(rows) + "\n]"
