"""Methods of `Tensor` that rearrange it: in place (the tensor takes over the layout of a view of
itself), and those whose sizes may be given as separate arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flambeau.autograd.grad_mode import RECORD, mode
from flambeau.core.arguments import need_tensor
from flambeau.tensor import creation, dispatch, overloads, shaping
from flambeau.tensor.functions import ops
from flambeau.tensor.sizes import named_shape, shape_of

__all__ = ["attach"]


def take_layout(self: Any, view: Any) -> Any:
    """Let `self` be what `view`, a view of it, is: its layout, its history and its tangents."""
    if self._tangents:
        from flambeau.tensor.tangents import tangent_of

        self._tangents = {level: tangent_of(view, level) for level in self._tangents}
    self._meta, self._ptr = view._meta, view._ptr
    if view._rg and not view._inherits:
        self._rg, self._grad_fn = True, view._grad_fn
        if self._output_nr or view._output_nr:
            self._output_nr = view._output_nr
    dispatch.bump_version(self)
    return self


def _in_place(name: str, view: Callable) -> Callable:
    """The in-place form of a function that gives a view."""

    def change(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._rg and mode() & 3 == RECORD:
            dispatch.check_writable(self, name)
        return take_layout(self, view(self, *args, **kwargs))

    change.__name__ = change.__qualname__ = name
    change.__doc__ = f"In-place form of `{name[:-1]}`: the tensor itself gets the new layout."
    return change


def _varying(function: Callable, doc: str | None = None) -> Callable:
    """A method whose last argument is a list of sizes that may also be given one by one."""

    def method(self: Any, *dims: Any, **named: Any) -> Any:
        return function(self, named_shape(function.__name__, "dims", dims, named))

    method.__name__ = method.__qualname__ = function.__name__
    method.__doc__ = doc or function.__doc__
    return method


def _split_method(function: Callable) -> Callable:
    def method(self: Any, *indices: Any, **named: Any) -> Any:
        if named:
            return function(self, *indices, **named)
        if len(indices) == 1 and isinstance(indices[0], int):
            return function(self, indices[0])
        return function(self, shape_of(indices))

    method.__name__ = method.__qualname__ = function.__name__
    method.__doc__ = function.__doc__
    return method


def resize_as_(self: Any, the_template: Any, *, memory_format: Any = None) -> Any:
    """Change the shape in place to that of another tensor; new elements are uninitialised."""
    need_tensor("resize_as_", "the_template", the_template)
    return self.resize_(tuple(the_template.shape))


def new_empty_strided(self: Any, size: Any, stride: Any, *, dtype: Any = None, layout: Any = None,
                      device: Any = None, pin_memory: bool = False,
                      requires_grad: bool = False) -> Any:
    """`torch.empty_strided` with this tensor's dtype.

    >>> torch.ones(1).new_empty_strided((2, 3), (1, 2)).stride()
    (1, 2)
    """
    return creation.empty_strided(size, stride, dtype=dtype or self.dtype, layout=layout,
                                  device=device or self.device, requires_grad=requires_grad)


def polygamma(self: Any, n: int) -> Any:
    """The n-th derivative of digamma."""
    return ops.polygamma(n, self)


def polygamma_(self: Any, n: int) -> Any:
    """In-place form of `polygamma`."""
    return self.copy_(ops.polygamma(n, self))


def attach(cls: type) -> None:
    """Give the tensor class these methods."""
    cls._take_layout = take_layout
    for name in ("squeeze", "unsqueeze", "t", "transpose"):
        setattr(cls, name + "_", _in_place(name + "_", getattr(ops, name)))
    cls.swapaxes_, cls.swapdims_ = cls.transpose_, cls.transpose_
    cls.as_strided_ = _in_place("as_strided_", shaping.as_strided)
    for name in ("positive", "split_with_sizes", "unsafe_split", "unsafe_chunk",
                 "unsafe_split_with_sizes", "as_strided", "as_strided_scatter",
                 "repeat_interleave", "rot90", "sum_to_size"):
        setattr(cls, name, getattr(shaping, name))
    for name in ("hsplit", "vsplit", "dsplit"):
        setattr(cls, name, _split_method(getattr(shaping, name)))
    cls.__pos__ = shaping.positive
    cls.tile = _varying(overloads.tile)
    for function in (resize_as_, new_empty_strided, polygamma, polygamma_):
        setattr(cls, function.__name__, function)
