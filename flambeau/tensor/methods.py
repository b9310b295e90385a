"""Attaches to `Tensor` the methods and operators that come from the op table."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

from flambeau.core import dtypes
from flambeau.core.arguments import refuse_foreign
from flambeau.ops.record import REGISTRY
from flambeau.tensor import (
    complex_numbers,
    compress,
    elements,
    histograms,
    indexing,
    interop,
    linalg_legacy,
    memory_methods,
    method_docs,
    norms,
    overloads,
    random,
    shape_methods,
    sorting,
    spectrograms,
    subclasses,
)
from flambeau.tensor.functions import ops
from flambeau.tensor.overriding import SHOWN_AS, asked, explained
from flambeau.tensor.sizes import shape_of
from flambeau.tensor.tensor import Tensor

__all__: list[str] = []


class _Lazy:
    """A method that is made when it is first looked up, and then takes this object's place."""

    __slots__ = ("name", "make")

    def __init__(self, name: str, make: Callable[[], Any]):
        self.name = name
        self.make = make

    def __get__(self, instance: Any, owner: type) -> Any:
        function = self.make()
        if Tensor.__dict__.get(self.name) is self:
            setattr(Tensor, self.name, function)
        return function if instance is None else function.__get__(instance, owner)


def _set(name: str, make: Callable[[], Any]) -> None:
    setattr(Tensor, name, _Lazy(name, make))


def _op_getter(name: str) -> Callable[[], Any]:
    def get() -> Any:
        return getattr(ops, name)

    return get


def _attach() -> None:
    for record in REGISTRY.values():
        short = record.name.split(".")[-1]
        if short.startswith("_"):
            continue
        for form, wanted in ((short, record.method), (short + "_", record.inplace)):
            if wanted and form not in Tensor.__dict__:
                suffix = form[len(short):]
                for name in (form, *(alias + suffix for alias in record.aliases)):
                    _set(name, _op_getter(form))


def _swapped(function: Any) -> Any:
    """A reflected operator: the tensor is the second operand."""

    def reflected(self: Tensor, other: Any) -> Any:
        if isinstance(other, _OPERANDS) or asked(other.__class__):
            return function(other, self)
        number = _reflected_number(other)
        return NotImplemented if number is None else function(number, self)

    return reflected


def _commuted(function: Any) -> Any:
    """A reflected operator whose operands may change places, or that swaps them itself (rsub)."""

    def reflected(self: Tensor, other: Any) -> Any:
        if isinstance(other, _OPERANDS) or asked(other.__class__):
            return function(self, other)
        number = _reflected_number(other)
        return NotImplemented if number is None else function(self, number)

    return reflected


def _reflected_number(other: Any) -> Any:
    """NumPy's number as Python's; None for what is no number.

    Raises:
        TypeError: an array, which NumPy leaves to the tensor, and PyTorch refuses.
    """
    import numpy as np

    if isinstance(other, np.ndarray):
        raise TypeError("unsupported operand type(s): a 'numpy.ndarray' of shape "
                        f"{list(other.shape)} and a 'Tensor'. Convert the array with "
                        "torch.from_numpy(array) (shares memory), or the tensor with "
                        "tensor.numpy()")
    if isinstance(other, np.generic):
        return other.item()
    refuse_foreign(other)
    return None


def _operator(function: Any) -> Any:
    """An operator that leaves operands it does not know to the other side."""

    def apply(self: Tensor, other: Any) -> Any:
        if other.__class__ in _FAST or isinstance(other, _OPERANDS) or asked(other.__class__):
            return function(self, other)
        return _numpy_operand(function, self, other)

    return apply


def _numpy_operand(function: Any, self: Tensor, other: Any) -> Any:
    import numpy as np

    if isinstance(other, np.generic):
        return function(self, other.item())
    if isinstance(other, np.ndarray) and function in (ops.eq, ops.ne):
        # Python would end in comparing the objects
        return function(self, interop.from_data(other)) if other.dtype.kind in "biufc" else (
            NotImplemented)
    refuse_foreign(other)
    # NumPy takes arrays up: it computes, and gives a tensor through __array_wrap__
    return NotImplemented


def _invert(self: Tensor) -> Tensor:
    """~self"""
    if not self._meta.dtype.is_integral:
        raise TypeError("~ (operator.invert) is only implemented on integer and Boolean-type "
                        f"tensors, not on {self.dtype!r}")
    return ops.bitwise_not(self)


_OPERANDS = (Tensor, bool, int, float, complex)
_FAST = {Tensor, int, float}

_BINARY = {"add": "add", "sub": "sub", "mul": "mul", "truediv": "true_divide", "pow": "pow",
           "floordiv": "floor_divide", "mod": "remainder", "eq": "eq", "ne": "ne", "lt": "lt",
           "le": "le", "gt": "gt", "ge": "ge", "and": "bitwise_and", "or": "bitwise_or",
           "xor": "bitwise_xor", "lshift": "bitwise_left_shift",
           "rshift": "bitwise_right_shift", "matmul": "matmul"}
_REFLECTED = ("sub", "truediv", "pow", "floordiv", "mod", "lshift", "rshift", "matmul")
_COMMUTING = ("add", "mul", "and", "or", "xor")
_INPLACE = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift",
            "rshift")


def _operator_getter(name: str, wrap: Callable[[Any], Any], special: str = ""
                     ) -> Callable[[], Any]:
    """`special`: the name under which handlers get the operator, if not as the function."""
    def get() -> Any:
        function = getattr(ops, name)
        if name.startswith("true_divide"):
            SHOWN_AS[function] = getattr(ops, name.replace("true_divide", "div"))
        made = wrap(function)
        if special:
            made.__name__, made.__qualname__ = special, f"Tensor.{special}"
        return made

    return get


def _attach_operators() -> None:
    for word, name in _BINARY.items():
        _set(f"__{word}__", _operator_getter(name, _operator, f"__{word}__"))
    for word in _REFLECTED:
        if word == "sub":
            _set("__rsub__", _operator_getter("rsub", _commuted, "__rsub__"))
        else:
            _set(f"__r{word}__", _operator_getter(_BINARY[word], _swapped, f"__r{word}__"))
    _set("__rdiv__", _operator_getter("true_divide", _swapped, "__rdiv__"))
    _set("__div__", _operator_getter("true_divide", _operator))
    _set("__idiv__", _operator_getter("true_divide_", _operator))
    for word in _COMMUTING:
        _set(f"__r{word}__", _operator_getter(_BINARY[word], _commuted))
    for word in _INPLACE:
        _set(f"__i{word}__", _operator_getter(_BINARY[word] + "_", _operator))
    for word, name in (("neg", "neg"), ("abs", "abs")):
        _set(f"__{word}__", _op_getter(name))
    Tensor.__invert__ = _invert


def _attach_overloads() -> None:
    for name in ("std", "var", "flatten", "allclose", "equal", "ravel", "tensor_split",
                 "is_nonzero"):
        setattr(Tensor, name, getattr(overloads, name))
    Tensor.norm = norms.norm_method
    Tensor.max, Tensor.min = overloads.max_, overloads.min_
    Tensor.nonzero, Tensor.masked_select = compress.nonzero, compress.masked_select
    Tensor.argwhere = compress.argwhere
    Tensor.stft, Tensor.istft = spectrograms.stft, spectrograms.istft
    Tensor.index_put, Tensor.index_put_ = indexing.index_put, indexing.index_put_
    for name in sorting.__all__:
        setattr(Tensor, name, getattr(sorting, name))
    Tensor.unique = sorting.unique_method
    Tensor.unique_consecutive = sorting.unique_consecutive_method
    for name in ("bincount", "histc", "histogram"):
        setattr(Tensor, name, getattr(histograms, name))
    for name in ("uniform_", "normal_", "random_", "bernoulli_", "exponential_", "log_normal_",
                 "cauchy_", "geometric_"):
        setattr(Tensor, name, getattr(random, name))
    Tensor.bernoulli, Tensor.multinomial = random.bernoulli, random.multinomial
    for name in ("empty", "zeros", "ones"):
        setattr(Tensor, f"new_{name}", overloads.new_factory(name))
    Tensor.new_full, Tensor.new_tensor = overloads.new_full, overloads.new_tensor
    Tensor.new = overloads.new


def _attach_conversions() -> None:
    table = {"float": dtypes.float32, "double": dtypes.float64, "half": dtypes.float16,
             "bfloat16": dtypes.bfloat16, "int": dtypes.int32, "long": dtypes.int64,
             "short": dtypes.int16, "char": dtypes.int8, "byte": dtypes.uint8, "bool": dtypes.bool_,
             "cfloat": dtypes.complex64, "cdouble": dtypes.complex128,
             "chalf": dtypes.complex32}
    for name, dtype in table.items():
        setattr(Tensor, name, _conversion(name, dtype))


def _conversion(name: str, dtype: dtypes.DType) -> Any:
    def convert(self: Tensor, *, memory_format: Any = None) -> Tensor:
        return self.to(dtype, memory_format=memory_format)

    convert.__name__ = name
    convert.__doc__ = f"The tensor converted to {dtype!r}."
    return convert


def _where(self: Tensor, condition: Any, other: Any) -> Tensor:
    """self where condition, other elsewhere."""
    return ops.where(condition, self, other)


def _split(self: Tensor, split_size: Any, dim: int = 0) -> tuple:
    """Pieces of `split_size` (the last one may be smaller), or of each size of a list, along
    `dim`."""
    return ops.split(self, split_size, dim)


def _swapaxes(self: Tensor, axis0: int, axis1: int) -> Tensor:
    """Swap two dimensions."""
    return ops.transpose(self, axis0, axis1)


def _unflatten(self: Tensor, dim: int, sizes: Any) -> Tensor:
    """Split dimension `dim` into `sizes`."""
    return ops.unflatten(self, dim, shape_of((sizes,)))


def _sparse_getter(name: str) -> Callable[[], Any]:
    def get() -> Any:
        from flambeau.tensor.sparse import methods

        return explained(getattr(methods, name))

    return get


def _quantized_getter(name: str) -> Callable[[], Any]:
    def get() -> Any:
        from flambeau.tensor.quantized import construct

        return getattr(construct, name)

    return get


def _attach_quantized() -> None:
    """Methods about quantized tensors; their package is imported with the first use of one."""
    for name in ("dequantize", "int_repr", "q_per_channel_axis", "q_per_channel_scales",
                 "q_per_channel_zero_points", "q_scale", "q_zero_point", "qscheme"):
        _set(name, _quantized_getter(name))


def _attach_sparse() -> None:
    """Methods about sparse tensors; their package is imported with the first use of one."""
    for name in ("to_dense", "to_sparse", "to_sparse_coo", "to_sparse_csr", "to_sparse_csc",
                 "to_sparse_bsr", "to_sparse_bsc", "indices", "values", "_indices", "_values",
                 "crow_indices", "col_indices", "ccol_indices", "row_indices", "coalesce",
                 "is_coalesced", "_coalesced_", "_nnz", "sparse_dim", "dense_dim", "_dimI",
                 "_dimV", "sparse_mask", "sparse_resize_", "sparse_resize_and_clear_",
                 "resize_as_sparse_", "smm", "sspaddmm", "hspmm", "is_same_size"):
        _set(name, _sparse_getter(name))


def _explain_errors() -> None:
    """Let hand-written methods, apart from those of the class itself, say when the type of an
    argument is wrong."""
    for name, function in list(vars(Tensor).items()):
        if isinstance(function, FunctionType) and name[0] != "_" and function.__module__ not in (
                "flambeau", __name__, Tensor.__module__):
            _set(name, functools.partial(explained, function))


_attach()
_attach_sparse()
_attach_quantized()
complex_numbers.attach(Tensor)
linalg_legacy.attach(Tensor)
elements.attach(Tensor)
_attach_operators()
_attach_overloads()
_attach_conversions()
shape_methods.attach(Tensor)
memory_methods.attach(Tensor)
subclasses.attach(Tensor)
Tensor.where, Tensor.unflatten = _where, _unflatten
Tensor.split, Tensor.swapaxes = _split, _swapaxes
for _method in (_where, _unflatten, _split, _swapaxes, _invert, norms.norm_method,
                sorting.unique_method, sorting.unique_consecutive_method):
    _method.__name__ = _method.__name__.removeprefix("_").removesuffix("_method")  # as handlers see
method_docs.attach(Tensor)
_explain_errors()
ops.reshape = overloads.reshape
