"""Forward mode by hand: `dual_level`, `make_dual`, `unpack_dual`.

    with fwAD.dual_level():
        y = f(fwAD.make_dual(x, tangent))
        value, derivative = fwAD.unpack_dual(y)
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from flambeau.autograd.grad_mode import ContextDecorator
from flambeau.autograd.registry import tensors

__all__ = ["UnpackedDualTensor", "dual_level", "enter_dual_level", "exit_dual_level", "make_dual",
           "unpack_dual"]



def _levels() -> Any:
    """The tensor layer's part of forward mode, which registers itself (this layer lies below)."""
    if tensors.forward is None:  # nobody has made a tensor yet
        importlib.import_module("flambeau.tensor")
    return tensors.forward()


class UnpackedDualTensor(NamedTuple):
    """What `unpack_dual` gives: the value, and its derivative or None."""

    primal: Any
    tangent: Any


def enter_dual_level() -> int:
    """Begin a level, in which tensors may have tangents; gives its number.

    Raises:
        RuntimeError: there is one already: they do not nest.

    >>> fwAD = torch.autograd.forward_ad
    >>> level = fwAD.enter_dual_level()
    >>> x = fwAD.make_dual(torch.tensor(2.), torch.tensor(1.))
    >>> fwAD.unpack_dual(x ** 3).tangent
    tensor(12.)
    >>> fwAD.exit_dual_level(level=level)
    """
    forward = _levels()
    if forward.named() is not None:
        raise RuntimeError("Nested forward mode AD is not supported at the moment: leave the "
                           "dual_level first, or use torch.func.jvp, which nests")
    forward.enter()
    return 0


def exit_dual_level(*, level: int | None = None) -> None:
    """End the level; its tangents are gone.

    Raises:
        RuntimeError: it is not the last one that was entered.

    >>> fwAD = torch.autograd.forward_ad
    >>> level = fwAD.enter_dual_level()
    >>> fwAD.exit_dual_level(level=level)
    """
    forward = _levels()
    if forward.named() is None:
        raise RuntimeError("Trying to exit a forward AD level that was not entered")
    if level not in (None, 0, -1):
        raise RuntimeError("Trying to exit a forward AD level that was not the last one that was "
                           "created. This is not supported.")
    forward.leave()


class dual_level(ContextDecorator):
    """A block in which tensors may have tangents. Yields the number of its level.

    >>> fwAD = torch.autograd.forward_ad
    >>> with fwAD.dual_level():
    ...     x = fwAD.make_dual(torch.tensor(0.), torch.tensor(2.))
    ...     print(fwAD.unpack_dual(x.sin()).tangent)
    tensor(2.)
    """

    def clone(self) -> dual_level:
        return type(self)()

    def __enter__(self) -> int:
        return enter_dual_level()

    def __exit__(self, *exc_info: object) -> None:
        exit_dual_level()


def make_dual(tensor: Any, tangent: Any, *, level: int | None = None) -> Any:
    """A view of `tensor` with a tangent: what is computed with it has a tangent too.

    Raises:
        RuntimeError: no level was entered, or the shapes differ.
        ValueError: the tensors are not of floating or complex dtypes.

    >>> fwAD = torch.autograd.forward_ad
    >>> with fwAD.dual_level():
    ...     x = fwAD.make_dual(torch.tensor(2.), torch.tensor(1.))
    ...     print(fwAD.unpack_dual(x ** 3).tangent)
    tensor(12.)
    """
    level = _open_level(level, "make_dual")
    if not (tensor.is_floating_point() or tensor.is_complex()):
        raise ValueError(f"Expected primal to be floating point or complex, but got: "
                         f"{tensor.dtype}")
    if not (tangent.is_floating_point() or tangent.is_complex()):
        raise ValueError(f"Expected tangent to be floating point or complex, but got: "
                         f"{tangent.dtype}")
    return _levels().dual(tensor, tangent, level)


def unpack_dual(tensor: Any, *, level: int | None = None) -> UnpackedDualTensor:
    """(value, tangent) of a tensor; the tangent is None if it has none.

    >>> fwAD = torch.autograd.forward_ad
    >>> with fwAD.dual_level():
    ...     x = fwAD.make_dual(torch.tensor(2.), torch.tensor(1.))
    ...     print(fwAD.unpack_dual(torch.exp(x)))
    UnpackedDualTensor(primal=tensor(7.3891), tangent=tensor(7.3891))
    """
    forward = _levels()
    if level is None and forward.named() is None:
        return UnpackedDualTensor(tensor, None)
    if level is not None and level < 0:
        return UnpackedDualTensor(tensor, None)
    return UnpackedDualTensor(*forward.unpack(tensor, _open_level(level, "unpack_dual")))


def _open_level(level: int | None, name: str) -> Any:
    found = _levels().named()
    if found is None or level is not None and level < 0:
        raise RuntimeError("Trying to create a dual Tensor for forward AD but no level exists, "
                           f"make sure to enter_dual_level() first, around {name}().")
    return found


class _set_fwd_grad_enabled:
    """Switch forward mode on or off inside of a level; as a context manager, put it back at the
    end. What is computed while it is off has no tangent."""

    def __init__(self, mode: bool) -> None:
        self._variable = _levels().moving()
        self._before = self._variable.get()
        self._variable.set(mode)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> None:
        self._variable.set(self._before)
