"""`torch.ops.aten`: the op table under the names that PyTorch's own operators have.

Scripts use these names to say which results shall be kept (selective checkpointing), to tell
operations apart, and to call them. PyTorch takes many functions apart into smaller operators and
has several for one purpose on different machines; here one launch computes the whole, so one
operation answers to several names: those are equal to one another. `called` says which name
PyTorch would have run for a call.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flambeau
from flambeau.ops.record import Op
from flambeau.tensor import Tensor

__all__ = ["AtenOverload", "AtenPacket", "called", "packet", "pending"]

_ATTENTION = tuple(f"_scaled_dot_product_{kind}" for kind in (
    "flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention",
    "fused_attention_overrideable"))

_FAMILIES: dict[str, tuple[str, ...]] = {
    "scaled_dot_product_attention": _ATTENTION,
    "convolution": ("_convolution", "convolution_overrideable", "mkldnn_convolution",
                    "cudnn_convolution"),
    "softmax": ("_softmax",),
    "log_softmax": ("_log_softmax",),
    "layer_norm": ("native_layer_norm",),
    "group_norm": ("native_group_norm",),
    "rms_norm": ("_fused_rms_norm",),
    "batch_norm": ("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm",
                   "_native_batch_norm_legit_functional"),
    "dropout": ("native_dropout",),
    "to": ("_to_copy",),
    "cross_entropy_loss": ("nll_loss_forward",),
    "max_pool2d": ("max_pool2d_with_indices",),
    "max_pool3d": ("max_pool3d_with_indices",),
    "lstm": ("_thnn_fused_lstm_cell",),
}
"""One operation here, by the name that stands for it, and the others that it answers to."""

_STANDS_FOR = {name: first for first, names in _FAMILIES.items() for name in names}

_CALLED = {
    "_attention": _ATTENTION[0], "softmax": "_softmax", "log_softmax": "_log_softmax",
    "layer_norm": "native_layer_norm", "group_norm": "native_group_norm",
    "rms_norm": "_fused_rms_norm", "batch_norm_train": "native_batch_norm",
    "_dropout": "native_dropout", "_reshape_copy": "clone", "_to_dtype": "_to_copy",
    "_einsum": "bmm", "cross_entropy": "cross_entropy_loss", "_recurrent_layer": "lstm",
    "true_divide": "div", "max_all": "max", "max_dim": "max", "min_all": "min", "min_dim": "min",
    "median_all": "median", "median_dim": "median",
    **{f"conv{transposed}{n}d": "convolution" for transposed in ("", "_transpose")
       for n in (1, 2, 3)},
}
"""What PyTorch runs for a record of another name."""

_OF_TWO = {"add", "sub", "mul", "div", "eq", "ne", "lt", "le", "gt", "ge", "remainder", "fmod",
           "bitwise_and", "bitwise_or", "bitwise_xor"}
_OVERLOADS = {"index": "Tensor", "where": "self", "max_dim": "dim", "min_dim": "dim",
              "median_dim": "dim"}


class AtenPacket:
    """An operation by its name: `torch.ops.aten.mm`."""

    def __init__(self, name: str, function: Callable | None):
        self._qualified_op_name = f"aten::{name}"
        self.__name__, self.__module__ = name, "torch.ops.aten"
        self._function = function
        self._known: dict[str, AtenOverload] = {}

    def overload(self, name: str) -> AtenOverload:
        """One of the operation's forms: `torch.ops.aten.mm.default`."""
        if name not in self._known:
            self._known[name] = AtenOverload(self, name)
        return self._known[name]

    def overloads(self) -> list[str]:
        """The names of forms that were asked for: here any name stands for the operation."""
        return sorted({"default", *self._known})

    def __getattr__(self, name: str) -> AtenOverload:
        if name.startswith("_"):
            raise AttributeError(f"The underlying op of '{self}' has no overload name '{name}'")
        return self.overload(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._function is None:
            raise NotImplementedError(f"torch.ops.{self} cannot be called, only named: its results "
                                      "are those of PyTorch's kernels. Call the public function.")
        return self._function(*args, **kwargs)

    def __str__(self) -> str:
        return f"aten.{self.__name__}"

    def __repr__(self) -> str:
        return f"<OpOverloadPacket(op='{self}')>"


class _Asked(threading.local):
    """The operation that somebody was asked about in this thread; see `pending`."""

    step: Any = None


_asked = _Asked()


@contextlib.contextmanager
def pending(step: Any) -> Iterator[None]:
    """Within the block, the call that `step` stands for is made by calling it."""
    before, _asked.step = _asked.step, step
    try:
        yield
    finally:
        _asked.step = before


class AtenOverload:
    """A form of an operation. Those of one operation are equal, whatever they are called."""

    def __init__(self, packet: AtenPacket, name: str):
        self.overloadpacket, self._overloadname = packet, name
        self.namespace = "aten"
        self.__name__ = f"{packet.__name__}.{name}"
        self.__module__ = "torch.ops.aten"
        self._operation = _STANDS_FOR.get(packet.__name__, packet.__name__)

    def name(self) -> str:
        """The qualified name: "aten::mm", "aten::add.Tensor"."""
        end = "" if self._overloadname == "default" else f".{self._overloadname}"
        return self.overloadpacket._qualified_op_name + end

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        step = _asked.step
        if step is not None and step.fits(self, args, kwargs):
            return step()
        return self.overloadpacket(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AtenOverload) and other._operation == self._operation

    def __hash__(self) -> int:
        return hash(self._operation)

    def __str__(self) -> str:
        return f"{self.overloadpacket}.{self._overloadname}"

    def __repr__(self) -> str:
        return f"<OpOverload(op='{self.overloadpacket}', overload='{self._overloadname}')>"


@functools.cache
def packet(name: str) -> AtenPacket | None:
    """The operation of this name, or None."""
    for home in (flambeau, flambeau.nn.functional, Tensor):
        function = getattr(home, name, None)
        if callable(function):
            return AtenPacket(name, function)
    known = name in _FAMILIES or name in _STANDS_FOR or name in _CALLED.values()
    return AtenPacket(name, None) if known else None


# ---------------------------------------------------------------------- what a call is called
def called(record: Op, args: Sequence) -> tuple[AtenOverload, tuple]:
    """(the operator that PyTorch would run for a call of a record, its tensors and other arguments,
    of which those of `linear` and `matmul` are the matrices that are multiplied)."""
    short = record.name.split(".")[-1]
    if short == "linear":
        return _linear(*args)
    if short == "matmul":
        return _matmul(*args)
    name = _CALLED.get(short, short.lstrip("_"))
    made = packet(name) or AtenPacket(name, None)
    return made.overload(_overload(short, name, args)), tuple(args)


def _overload(short: str, name: str, args: Sequence) -> str:
    second = args[1] if len(args) > 1 else None
    if name in _OF_TWO:
        return "Tensor" if isinstance(second, Tensor) else "Scalar"
    if name == "pow":
        kinds = ["Tensor" if isinstance(arg, Tensor) else "Scalar" for arg in args[:2]]
        return "Scalar" if kinds[0] == "Scalar" else "_".join(kinds)
    if name in ("sum", "mean"):
        return "default" if second in (None, ()) else "dim_IntList" if name == "sum" else "dim"
    return _OVERLOADS.get(short, _OVERLOADS.get(name, "default"))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[AtenOverload, tuple]:
    matrices = _rows(input), weight.detach().t()
    if bias is None:
        return _form("mm"), matrices
    return _form("addmm"), (bias, *matrices)


def _matmul(input: Tensor, other: Tensor) -> tuple[AtenOverload, tuple]:
    ranks = input.dim(), other.dim()
    if ranks == (1, 1):
        return _form("dot"), (input, other)
    if ranks[1] == 1:
        return _form("mv"), (_rows(input), other)
    if ranks[1] == 2:
        return _form("mm"), (_rows(input), other)
    return _form("bmm"), (input, other)


def _form(name: str) -> AtenOverload:
    found = packet(name)
    assert found is not None
    return found.overload("default")


def _rows(tensor: Tensor) -> Tensor:
    """A batch of matrices as one, where that needs no copy."""
    tensor = tensor.detach()
    if tensor.dim() < 3 or not tensor.is_contiguous():
        return tensor
    return tensor.flatten(0, -2)
