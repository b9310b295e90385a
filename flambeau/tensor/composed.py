"""Tensors made of other tensors (sparse, nested): what they share, and how operations reach them.

A composed tensor has a shape, a dtype and a history like any other, but no memory of its own: no
kernel may see it. Its layout (`ComposedMeta`) is in no cache of launches, so every operation on it
leaves the warm path by itself; the general path of dispatch then asks the tensor's class
(`operate`), whose rules compute on the parts. Dense tensors pay nothing for this.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.autograd.graph import Node, node_type
from flambeau.core.device import CPU, Device
from flambeau.core.dtypes import DType
from flambeau.core.shapes import Size
from flambeau.runtime import memory
from flambeau.tensor import dispatch
from flambeau.tensor.formats import Layout
from flambeau.tensor.meta import Meta
from flambeau.tensor.overriding import disabled_torch_function
from flambeau.tensor.tensor import Tensor

__all__ = ["Composed", "ComposedMeta", "PartsNode", "composed_meta", "link", "unsupported",
           "write_back", "write_out"]


class ComposedMeta(Meta):
    """Shape, dtype and layout of a composed tensor; equal ones are one object."""

    __slots__ = ("layout",)
    strided = False

    def __init__(self, dtype: DType, shape: tuple, layout: Layout, device: Device = CPU):
        self.dtype, self.shape, self.layout = dtype, Size(shape), layout
        self.ndim, self.contiguous = len(shape), False
        self.numel = self.shape.numel()
        self.nbytes, self.device = 0, device

    @property
    def strides(self) -> tuple:
        raise NotImplementedError(f"tensors of layout {self.layout!r} have no strides; convert "
                                  "with .to_dense() first")

    def __repr__(self) -> str:
        return f"<{self.dtype.name}{list(self.shape)} {self.layout!r}>"


_interned: weakref.WeakValueDictionary[tuple, ComposedMeta] = weakref.WeakValueDictionary()


def composed_meta(dtype: DType, shape: Sequence[int], layout: Layout, device: Device = CPU
                  ) -> ComposedMeta:
    """The one layout with these properties."""
    key = (dtype, tuple(shape), layout, device)
    found = _interned.get(key)
    if found is None:
        found = _interned[key] = ComposedMeta(*key)
    return found


def unsupported(name: str, backend: str, advice: str) -> NotImplementedError:
    """The error for an operation without a rule for a kind of composed tensors."""
    return NotImplementedError(
        f"Could not run 'aten::{name}' with arguments from the '{backend}' backend: there is no "
        f"rule for it. {advice}")


# ---------------------------------------------------------------------- histories
class PartsNode(Node):
    """Stands between a composed tensor and the dense tensor that carries its numbers: the gradient
    of one is made of the other's by a rule (pattern, gradient) -> gradient."""

    __slots__ = ("pattern", "rule")

    def apply(self, grads: list) -> tuple:
        return (self.rule(self.pattern, grads[0]),)


def link(made: Any, edge: Any, name: str, pattern: Any, rule: Callable) -> Any:
    """Give `made` a history: what `edge` leads to, through a node of this name."""
    node = node_type(name, PartsNode)((edge,), (made._meta,))
    node.pattern, node.rule = pattern, rule
    made._grad_fn, made._rg = node, True
    return made


class Composed(Tensor):
    """Base of tensors that are made of others. Subclasses implement `operate` and `_with_alias`."""

    backend = "Composed"
    advice = "Convert with .to_dense() first."
    __torch_function__ = disabled_torch_function

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dispatch.COMPOSED.add(cls)

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def _adopt(self, meta: ComposedMeta) -> None:
        """Become a tensor of this layout, without history; the parts are the subclass's."""
        self._meta = meta
        self._storage = memory.foreign(0, 0, None)  # for its version
        self._rg, self._grad_fn, self._base = False, None, None

    @classmethod
    def operate(cls, function: Any, form: str, args: Sequence, outs: Any = None) -> Any:
        """Run an operation that has a tensor of this class among its arguments.

        Args:
            function: what dispatch knows of the op.
            form: "call", "inplace", "out" or "mutate".
            args: the arguments, in the order of the op's parameters.
            outs: the tensors to write to.
        """
        rule = cls.rule(function.record.name, form)
        if rule is not None:
            return rule(*args)
        functional = cls.rule(function.record.name, "call")
        if functional is None or form == "mutate":
            raise cls.refusal(function.record.name + ("_" if form == "inplace" else ""))
        result = functional(*args)
        if form == "inplace":
            return write_back(args[0], result)
        if form == "out":
            return write_out(outs, result)
        return result

    @classmethod
    def rule(cls, name: str, form: str) -> Callable | None:
        """The function that computes an op for tensors of this class, or None."""
        raise NotImplementedError(f"{cls.__name__} has no rules")

    @classmethod
    def refusal(cls, name: str) -> Exception:
        """The error for an op without a rule."""
        return unsupported(name, cls.backend, cls.advice)

    # ------------------------------------------------------------------ what has no meaning here
    @property
    def _ptr(self) -> int:
        raise self.refusal("data_ptr")

    def data_ptr(self) -> int:
        """Raises: there is no memory of its own."""
        raise RuntimeError("Cannot access data pointer of Tensor that doesn't have storage")

    def untyped_storage(self) -> Any:
        """Raises: there is no memory of its own."""
        raise NotImplementedError(f"Cannot access storage of {self.backend} tensors; take that of "
                                  "their parts")

    storage = _typed_storage = untyped_storage

    def tolist(self) -> Any:
        """Raises: convert to a dense tensor first."""
        raise RuntimeError("Cannot access data pointer of Tensor that doesn't have storage: "
                           "tolist() needs .to_dense() first")

    def numpy(self, *, force: bool = False) -> Any:
        """Raises: convert to a dense tensor first."""
        raise TypeError(f"can't convert {self._layout_name} layout tensor to numpy. Use "
                        "Tensor.to_dense() first.")

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError(f"can't export {self._layout_name} layout tensors; use to_dense() first")

    def resize_(self, *sizes: Any) -> Any:
        """Raises: composed tensors have methods of their own for this."""
        raise self.refusal("resize_")

    def set_(self, *args: Any, **kwargs: Any) -> Any:
        """Raises: composed tensors have no memory to take over."""
        raise self.refusal("set_")

    def fill_(self, value: Any) -> Any:
        """Raises: a filled tensor is dense."""
        raise self.refusal("fill_.Scalar")

    def as_strided(self, size: Any, stride: Any, storage_offset: Any = None) -> Any:
        """Raises: there is no memory of its own."""
        raise self.refusal("as_strided")

    def share_memory_(self) -> Any:
        """Raises: there is no memory of its own."""
        raise NotImplementedError(f"Cannot access storage of {self.backend} tensors: share that of "
                                  "their parts")

    def as_subclass(self, cls: type) -> Any:
        """Only its own class: a subclass of Tensor would not know the parts."""
        if cls in (type(self), Tensor):
            return self
        raise self.refusal(f"as_subclass({cls.__name__})")

    # ------------------------------------------------------------------ attributes
    @property
    def layout(self) -> Layout:
        return self._meta.layout

    @property
    def _layout_name(self) -> str:
        return self.layout.title

    def is_contiguous(self, memory_format: Any = None) -> bool:
        """False: there is no memory."""
        return False

    def contiguous(self, memory_format: Any = None) -> Any:
        """Raises: there is no memory."""
        raise RuntimeError("unsupported memory format option Contiguous")

    def storage_offset(self) -> int:
        """0: there is no memory."""
        return 0

    # ------------------------------------------------------------------ the parts
    def _parts_moved(self, device: Device) -> Any:
        """The tensor with its parts on another device; its history goes on."""
        raise NotImplementedError(f"a {type(self).__name__} cannot be moved to {device}")

    def _parts_alias(self) -> Any:
        """Another tensor of the same parts, without history."""
        raise NotImplementedError(f"{type(self).__name__}._parts_alias")

    def _take_parts(self, other: Any) -> None:
        """Become what `other` is, history included."""
        raise NotImplementedError(f"{type(self).__name__}._take_parts")

    def detach(self) -> Any:
        """The same parts outside of the graph."""
        return self._parts_alias()

    @property
    def data(self) -> Any:
        """The same parts outside of the graph."""
        return self._parts_alias()

    @data.setter
    def data(self, value: Any) -> None:
        if type(value) is not type(self):
            raise RuntimeError("Attempted to call `variable.set_data(tensor)`, but `variable` and "
                               "`tensor` have incompatible tensor type.")
        self._take_parts(value.detach())

    def __copy__(self) -> Any:
        made = self._parts_alias()
        made._rg = self._rg and self._grad_fn is None
        return made

    def item(self) -> Any:
        """The only element as a Python number."""
        if self._meta.numel != 1:
            raise RuntimeError(f"a Tensor with {self._meta.numel} elements cannot be converted to "
                               "Scalar")
        return self.to_dense().item()


def write_back(target: Any, result: Any) -> Any:
    """The end of an operation in place."""
    if type(target) is Tensor or not isinstance(target, Composed):
        return target.copy_(result.to_dense() if isinstance(result, Composed) else result)
    dispatch.check_writable(target, "in-place operation on a composed tensor")
    if type(result) is not type(target) or result._meta.shape != target._meta.shape:
        raise RuntimeError(f"the result of layout {result.layout!r} and shape "
                           f"{list(result.shape)} cannot be written to a tensor of layout "
                           f"{target.layout!r} and shape {list(target.shape)}")
    target._take_parts(result)
    dispatch.bump_version(target)
    return target


def write_out(outs: Any, result: Any) -> Any:
    """The end of an operation with `out=`."""
    if isinstance(result, tuple):
        for out, one in zip(outs, result, strict=True):
            write_out(out, one)
        return outs
    out = outs[0] if isinstance(outs, (tuple, list)) else outs
    if isinstance(out, Composed):
        if type(result) is not type(out):
            raise RuntimeError(f"expected out of layout {result.layout!r}, got {out.layout!r}")
        out._take_parts(result.detach())
        dispatch.bump_version(out)
        return out
    if isinstance(result, Composed):
        raise RuntimeError(f"expected out of layout {result.layout!r}, got {out.layout!r}")
    if tuple(out.shape) != tuple(result.shape):
        out.resize_(tuple(result.shape))
    return out.copy_(result)
