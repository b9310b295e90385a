"""Tensors of users' classes made by hand: `Tensor._make_subclass` and what goes with it."""

from __future__ import annotations

from typing import Any

from flambeau.core.arguments import kind_of
from flambeau.tensor.tensor import Tensor, _may_require_grad

__all__ = ["attach"]

_NO_DISPATCH = ("{} has __torch_dispatch__: tensors that are made of others below autograd are not "
                "supported. Take operations over with __torch_function__, on instances made by "
                "data.as_subclass(cls); torch.utils._python_dispatch.TorchDispatchMode is asked "
                "about what is run.")


def _make_subclass(cls: type, data: Tensor, require_grad: bool = False) -> Any:
    """`data`, without its history, as an instance of a subclass of Tensor.

    Raises:
        TypeError: no tensor, or no such class.
        NotImplementedError: the class has `__torch_dispatch__`.
    """
    if not isinstance(data, Tensor):
        raise TypeError("_make_subclass(): argument 'data' (position 2) must be Tensor, not "
                        f"{kind_of(data)}")
    if not (isinstance(cls, type) and issubclass(cls, Tensor)):
        raise TypeError(f"_make_subclass(): cls must be a subclass of Tensor, not {cls!r}")
    if getattr(cls, "__torch_dispatch__", None) is not None:
        raise NotImplementedError(_NO_DISPATCH.format(cls.__name__))
    if require_grad:
        _may_require_grad(data)
    made = data.detach().as_subclass(cls)
    made._rg = bool(require_grad)
    return made


def _make_wrapper_subclass(cls: type, size: Any, **options: Any) -> Any:
    """Raises: tensors without memory of their own, which `__torch_dispatch__` computes with."""
    if not (isinstance(cls, type) and issubclass(cls, Tensor)):
        raise TypeError(f"_make_wrapper_subclass(): cls must be a subclass of Tensor, not {cls!r}")
    if getattr(cls, "__torch_dispatch__", None) is None:
        raise RuntimeError(f"{cls.__name__} does not define __torch_dispatch__, without which "
                           "tensors that have no memory can do nothing")
    raise NotImplementedError(_NO_DISPATCH.format(cls.__name__))


def attach(tensor: type) -> None:
    """Give Tensor these functions."""
    tensor._make_subclass = staticmethod(_make_subclass)
    tensor._make_wrapper_subclass = staticmethod(_make_wrapper_subclass)
