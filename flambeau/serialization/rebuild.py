"""How a checkpoint's tensors come back: storages, and the functions that PyTorch's pickles name.

Sizes, strides and offsets come from the file, so each tensor is checked to lie inside its storage
before it exists.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from flambeau.core.dtypes import DType, by_numpy
from flambeau.serialization.errors import CheckpointError, CorruptError, UnsafeError
from flambeau.serialization.globals import StorageKind
from flambeau.serialization.pickle_reader import Rule
from flambeau.serialization.tensors import TensorAdapter

__all__ = ["StorageRef", "aligned_buffer", "check_geometry", "parameter_rule",
           "rebuild_rules", "storage_id"]

_MOST_DIMS = 64
_MOST_ELEMENTS = 2**62
_MOST_COPIED = 64 << 20  # bytes that an expanded view may take when it has to be copied
_FLAGS = ("_is_buffer", "_is_param", "persistent")  # what nn.Buffer and Parameter put on tensors


def aligned_buffer(nbytes: int, alignment: int = 64) -> np.ndarray:
    """Uninitialized bytes whose address is a multiple of `alignment`."""
    raw = np.empty(nbytes + alignment, np.uint8)
    start = -raw.__array_interface__["data"][0] % alignment
    return raw[start:start + nbytes]


class StorageRef:
    """A storage as a pickle sees it: memory together with the dtype it was saved as.

    Attributes:
        storage: the tensor library's object, the same for all views.
        nbytes: its size.
        dtype: None for quantized storages.
    """

    __slots__ = ("dtype", "nbytes", "storage")

    def __init__(self, storage: Any, nbytes: int, dtype: DType | None):
        self.storage, self.nbytes, self.dtype = storage, nbytes, dtype


def storage_id(saved: Any, parts: int) -> tuple[StorageKind, str, str, int]:
    """(kind, key, location, elements) of a persistent id, checked.

    Args:
        saved: the id as pickled, a tuple that starts with "storage".
        parts: its length in this format.
    """
    if type(saved) is not tuple or len(saved) != parts:
        raise CorruptError(f"a persistent id is {type(saved).__name__}, not a storage's")
    tag, kind, key, location, count = saved[:5]
    tag, key, location = (_text(value) for value in (tag, key, location))
    if tag != "storage" or not isinstance(kind, StorageKind):
        raise UnsafeError(f"a persistent id asks for a {tag!r}; only storages are allowed")
    if type(count) is not int or not 0 <= count < _MOST_ELEMENTS:
        raise CorruptError(f"storage {key!r} has {count!r} elements")
    return kind, key, location, count


def _text(value: Any) -> str:
    """Python 2 wrote bytes where Python 3 writes strings."""
    if type(value) is bytes:
        return value.decode("ascii")
    if type(value) is int:
        return str(value)
    if type(value) is not str:
        raise CorruptError(f"part of a storage's id is a {type(value).__name__}")
    return value


def check_geometry(nbytes: int, itemsize: int, shape: Any, strides: Any, offset: Any) -> None:
    """The tensor must lie inside its storage of `nbytes` bytes."""
    sizes = (*_integers(shape, "size"), *_integers(strides, "stride"), *_integers((offset,),
                                                                               "offset"))
    if len(shape) != len(strides) or len(shape) > _MOST_DIMS:
        raise CorruptError(f"a tensor has {len(shape)} sizes and {len(strides)} strides")
    if max(sizes) >= _MOST_ELEMENTS or math.prod(shape) >= _MOST_ELEMENTS:
        raise CorruptError(f"a tensor of shape {tuple(shape)} cannot exist")
    if 0 in shape:
        return
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if (last + 1) * itemsize > nbytes:
        raise CorruptError(
            f"a tensor of shape {tuple(shape)}, strides {tuple(strides)} and offset {offset} needs "
            f"{(last + 1) * itemsize} bytes, but its storage has {nbytes}"
        )


def _integers(values: Any, what: str) -> tuple[int, ...]:
    if not isinstance(values, tuple | list):
        raise CorruptError(f"a tensor's {what} is a {type(values).__name__}")
    for value in values:
        if type(value) is not int or value < 0:
            raise CorruptError(f"a tensor's {what} is {value!r}")
    return tuple(values)


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise CorruptError(f"requires_grad is {value!r}")
    return value


class _Rebuilder:
    """The functions of torch._utils that a checkpoint may name, over one tensor library."""

    def __init__(self, tensors: TensorAdapter):
        self.tensors = tensors

    def _view(self, ref: Any, dtype: Any, offset: Any, shape: Any, strides: Any,
              requires_grad: Any) -> Any:
        if not isinstance(ref, StorageRef):
            raise UnsafeError(f"a tensor is built over a {type(ref).__name__}, which is no storage")
        if not isinstance(dtype, DType):
            raise CheckpointError(f"a tensor has dtype {dtype}, which Flambeau does not have; cast "
                                  "it with .to(...) in PyTorch and save again")
        check_geometry(ref.nbytes, dtype.itemsize, shape, strides, offset)
        requires_grad = _flag(requires_grad) and dtype.kind in "fc"
        return self.tensors.build_tensor(ref.storage, dtype, tuple(shape), tuple(strides), offset,
                                         requires_grad)

    def tensor(self, ref: Any, offset: int, shape: Any, strides: Any) -> Any:
        """PyTorch 0.3."""
        return self.tensor_v2(ref, offset, shape, strides, False, None)

    def tensor_v2(self, ref: Any, offset: int, shape: Any, strides: Any, requires_grad: bool,
                  hooks: Any, metadata: Any = None) -> Any:
        """The dtype is the storage's."""
        dtype = getattr(ref, "dtype", None)
        made = self._view(ref, dtype, offset, shape, strides, requires_grad)
        return self._with_metadata(made, metadata, ref)

    def tensor_v3(self, ref: Any, offset: int, shape: Any, strides: Any, requires_grad: bool,
                  hooks: Any, dtype: Any, metadata: Any = None) -> Any:
        """The dtype is given."""
        made = self._view(ref, dtype, offset, shape, strides, requires_grad)
        return self._with_metadata(made, metadata, ref)

    def _with_metadata(self, tensor: Any, metadata: Any, ref: StorageRef) -> Any:
        if not metadata:
            return tensor
        if type(metadata) is not dict:
            raise CorruptError("a tensor's metadata is no dict")
        self._check_copy(tensor, ref)
        return self.tensors.resolve(tensor, bool(metadata.get("conj")), bool(metadata.get("neg")))

    @staticmethod
    def _check_copy(tensor: Any, ref: StorageRef) -> None:
        """A view may repeat its elements without end, its copy may not."""
        nbytes = math.prod(tensor.shape) * tensor.dtype.itemsize
        if nbytes > max(_MOST_COPIED, ref.nbytes):
            raise CorruptError(f"an expanded tensor of shape {tuple(tensor.shape)} would have to "
                               f"be copied, to {nbytes} bytes")

    def parameter(self, data: Any, requires_grad: bool = True, hooks: Any = None) -> Any:
        if not self.tensors.is_tensor(data):
            raise CorruptError(f"a parameter is made from a {type(data).__name__}")
        return self.tensors.build_parameter(data, _flag(requires_grad))

    def parameter_with_state(self, data: Any, requires_grad: bool, hooks: Any, state: Any) -> Any:
        return self._with_state(self.parameter(data, requires_grad, hooks), state)

    def _with_state(self, tensor: Any, state: Any) -> Any:
        """Set what user code had put on the tensor.

        What tensors have themselves may not be replaced: a forged storage would open all memory.
        """
        internal = set(getattr(tensor, "__dict__", ()))
        plain, slots = state if type(state) is tuple and len(state) == 2 else (state, None)
        for part in (plain, slots):
            for name, value in (part or {}).items():
                if type(name) is not str or name.startswith("__"):
                    raise UnsafeError(f"a tensor's attribute is called {name!r}")
                if (name in internal or self._is_taken(tensor, name)) and not (
                        name in _FLAGS and type(value) is bool):
                    raise UnsafeError(f"a tensor's attribute would replace its own {name!r}")
                setattr(tensor, name, value)
        return tensor

    def _is_taken(self, tensor: Any, name: str) -> bool:
        """Whether plain tensors or parameters have `name`, or the subclass has such a method."""
        bases = (self.tensors.tensor_type, self.tensors.parameter_type)
        return any(hasattr(base, name) for base in bases) or callable(
            getattr(type(tensor), name, None))

    def from_type(self, function: Any, cls: Any, arguments: Any, state: Any) -> Any:
        """A tensor of a subclass, or one with attributes."""
        allowed = self._by_function()
        if function not in allowed or type(arguments) is not tuple:
            raise UnsafeError("a tensor with attributes is built in a way that is not allowed")
        tensor = function(*arguments)
        if not isinstance(cls, type) or not issubclass(cls, self.tensors.tensor_type):
            raise UnsafeError(f"{cls!r} is no tensor class")
        tensor = self.tensors.as_subclass(tensor, cls)
        return self._with_state(tensor, state)

    def from_cpu_tensor(self, data: Any, dtype: Any, device: Any, requires_grad: bool) -> Any:
        """Tensors of devices without storages (XLA) were saved as a copy on the CPU."""
        if isinstance(data, np.ndarray):
            data = self._from_numpy(data)
        if not self.tensors.is_tensor(data) or not isinstance(dtype, DType):
            raise CorruptError("a device's tensor was saved in an unusual way")
        if data.dtype is not dtype:
            self._check_copy(data, StorageRef(None, 0, None))
            data = data.to(dtype)
        return data.requires_grad_() if _flag(requires_grad) else data

    def sparse(self, layout: Any, parts: Any) -> Any:
        """A sparse tensor of its indices, values and shape, which are checked as a user's are."""
        if not str(getattr(layout, "name", "")).startswith("sparse_"):
            raise CorruptError(f"a sparse tensor has the layout {layout!r}")
        count = 2 if layout.name == "sparse_coo" else 3  # tensors; then the shape and a flag
        if type(parts) is not tuple or not count < len(parts) <= 4 or not all(
                map(self.tensors.is_tensor, parts[:count])):
            raise CorruptError("a sparse tensor was saved in an unusual way")
        try:
            return self.tensors.build_sparse(layout, parts)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise CorruptError(f"a sparse tensor's parts do not go together: {error}") from None

    def _from_numpy(self, array: np.ndarray) -> Any:
        array = np.ascontiguousarray(array)
        storage = self.tensors.foreign_storage(array.__array_interface__["data"][0], array.nbytes,
                                               array)
        strides = tuple(step // array.itemsize for step in array.strides)
        return self.tensors.build_tensor(storage, by_numpy(array.dtype), array.shape, strides, 0,
                                         False)

    def _by_function(self) -> set[Callable]:
        return {self.tensor, self.tensor_v2, self.tensor_v3, self.parameter,
                self.parameter_with_state, self.from_cpu_tensor, self.sparse}

    def rules(self) -> dict[str, Rule]:
        """By dotted name. Function values are looked up by identity, so each is bound once."""
        functions = {
            "torch._utils._rebuild_tensor": self.tensor,
            "torch._utils._rebuild_tensor_v2": self.tensor_v2,
            "torch._utils._rebuild_tensor_v3": self.tensor_v3,
            "torch._utils._rebuild_parameter": self.parameter,
            "torch._utils._rebuild_sparse_tensor": self.sparse,
            "torch._utils._rebuild_parameter_with_state": self.parameter_with_state,
            "torch._tensor._rebuild_from_type_v2": self.from_type,
            "torch._utils._rebuild_device_tensor_from_cpu_tensor": self.from_cpu_tensor,
            "torch._utils._rebuild_device_tensor_from_numpy": self.from_cpu_tensor,
            "torch._utils._rebuild_xla_tensor": self.from_cpu_tensor,
        }
        rules = {name: Rule(function, call=function) for name, function in functions.items()}
        for name, remedy in _UNSUPPORTED.items():
            refusal = _refusal(name, remedy)
            rules[f"torch._utils.{name}"] = Rule(refusal, call=refusal)
        return rules


_UNSUPPORTED = {
    "_rebuild_qtensor": "a quantized tensor: save its .dequantize()",
    "_rebuild_nested_tensor": "a nested tensor: save the list of its parts (.unbind())",
    "_rebuild_meta_tensor_no_storage": "a tensor on the meta device, which has no data: save a "
                                       "materialized one",
    "_rebuild_wrapper_subclass": "a tensor subclass without data of its own: save the tensors it "
                                 "wraps",
}


def _refusal(name: str, remedy: str) -> Callable[..., Any]:
    def refuse(*arguments: Any) -> Any:
        raise CheckpointError(f"the checkpoint holds {remedy}")
    refuse.__name__ = refuse.__qualname__ = name
    return refuse


def rebuild_rules(tensors: TensorAdapter) -> dict[str, Rule]:
    """What PyTorch's functions that rebuild tensors stand for, by dotted name."""
    return _Rebuilder(tensors).rules()


def parameter_rule(tensors: TensorAdapter) -> Rule:
    """nn.Parameter as a class that can be called."""
    make = _Rebuilder(tensors).parameter
    return Rule(tensors.parameter_type, call=make, new=make)
