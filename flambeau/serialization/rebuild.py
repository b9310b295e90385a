"""How a checkpoint's tensors come back: storages, and the functions that PyTorch's pickles name.

Sizes, strides and offsets come from the file, so each tensor is checked to lie inside its storage
before it exists.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from flambeau.core.dtypes import DType, by_numpy, uint8
from flambeau.runtime.generator import Generator
from flambeau.serialization.errors import CheckpointError, CorruptError, UnsafeError
from flambeau.serialization.geometry import MOST_ELEMENTS, check_geometry
from flambeau.serialization.globals import StorageKind
from flambeau.serialization.pickle_reader import Rule
from flambeau.serialization.tensors import TensorAdapter

__all__ = ["Rebuilder", "parameter_rule", "storage_id"]

_MOST_COPIED = 64 << 20  # bytes that an expanded view may take when it has to be copied
_FLAGS = ("_is_buffer", "_is_param", "persistent")  # what nn.Buffer and Parameter put on tensors


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
    if type(count) is not int or not 0 <= count < MOST_ELEMENTS:
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


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise CorruptError(f"requires_grad is {value!r}")
    return value


class Rebuilder:
    """The functions of torch._utils that a checkpoint may name, over one tensor library.

    Attributes:
        swap: what brings a storage into our byte order when its first tensor names a dtype.
        meta_only: whether tensors come on the meta device, without their data.
        filled: False while storages have no content yet (the old format has it at the end). What
            looks at numbers is left out then, and `incomplete` set: the pickle is to be read again.
    """

    def __init__(self, tensors: TensorAdapter):
        self.tensors = tensors
        self.swap: Callable[[Any, DType], None] | None = None
        self.meta_only, self.filled, self.incomplete = False, True, False

    def _view(self, holder: Any, dtype: Any, offset: Any, shape: Any, strides: Any,
              requires_grad: Any) -> Any:
        parts = self.tensors.storage_parts(holder)
        if parts is None:
            raise UnsafeError(f"a tensor is built over a {type(holder).__name__}, which is no "
                              "storage")
        storage, nbytes, typed = parts
        dtype = typed or uint8 if dtype is None else dtype
        if not isinstance(dtype, DType):
            raise CheckpointError(f"a tensor has dtype {dtype}, which Flambeau does not have; cast "
                                  "it with .to(...) in PyTorch and save again")
        check_geometry(nbytes, dtype.itemsize, shape, strides, offset)
        requires_grad = _flag(requires_grad) and dtype.kind in "fc"
        if self.meta_only:
            return self.tensors.build_meta(dtype, tuple(shape), tuple(strides), requires_grad)
        if self.swap is not None:
            self.swap(storage, dtype)
        return self.tensors.build_tensor(storage, dtype, tuple(shape), tuple(strides), offset,
                                         requires_grad)

    def tensor(self, holder: Any, offset: int, shape: Any, strides: Any) -> Any:
        """PyTorch 0.3."""
        return self.tensor_v2(holder, offset, shape, strides, False, None)

    def tensor_v2(self, holder: Any, offset: int, shape: Any, strides: Any, requires_grad: bool,
                  hooks: Any, metadata: Any = None) -> Any:
        """The dtype is the storage's."""
        made = self._view(holder, None, offset, shape, strides, requires_grad)
        return self._with_metadata(made, metadata, holder)

    def tensor_v3(self, holder: Any, offset: int, shape: Any, strides: Any, requires_grad: bool,
                  hooks: Any, dtype: Any, metadata: Any = None) -> Any:
        """The dtype is given."""
        made = self._view(holder, dtype, offset, shape, strides, requires_grad)
        return self._with_metadata(made, metadata, holder)

    def _with_metadata(self, tensor: Any, metadata: Any, holder: Any) -> Any:
        if not metadata:
            return tensor
        if type(metadata) is not dict:
            raise CorruptError("a tensor's metadata is no dict")
        self._check_copy(tensor, self.tensors.storage_parts(holder)[1])
        if not self.filled:
            self.incomplete = True
            return tensor
        return self.tensors.resolve(tensor, bool(metadata.get("conj")), bool(metadata.get("neg")))

    @staticmethod
    def _check_copy(tensor: Any, most: int = 0) -> None:
        """A view may repeat its elements without end, its copy may not."""
        nbytes = math.prod(tensor.shape) * tensor.dtype.itemsize
        if nbytes > max(_MOST_COPIED, most):
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
        if function == self.jagged and type(arguments) is tuple:
            return self.jagged(*arguments)  # the state repeats the arguments
        if function not in self._by_function() or type(arguments) is not tuple:
            raise UnsafeError("a tensor with attributes is built in a way that is not allowed")
        tensor = function(*arguments)
        if not isinstance(cls, type) or not issubclass(cls, self.tensors.tensor_type):
            raise UnsafeError(f"{cls!r} is no tensor class")
        tensor = self.tensors.as_subclass(tensor, cls)
        return self._with_state(tensor, state)

    def generator(self, device: Any) -> Generator:
        """A random stream of the CPU."""
        try:
            return Generator(device)
        except NotImplementedError as error:
            raise CheckpointError(f"the checkpoint holds a random stream: {error}") from None

    def generator_state(self, generator: Generator, state: Any) -> None:
        """(seed, None, bytes) of a random stream."""
        if not self.filled:
            self.incomplete = True
            return
        try:
            generator.__setstate__(state)
        except RuntimeError as error:
            raise CorruptError(f"a generator's state makes no sense: {error}") from None

    def from_cpu_tensor(self, data: Any, dtype: Any, device: Any, requires_grad: bool) -> Any:
        """Tensors of devices without storages (XLA) were saved as a copy on the CPU."""
        if isinstance(data, np.ndarray):
            data = self._from_numpy(data)
        if not self.tensors.is_tensor(data) or not isinstance(dtype, DType):
            raise CorruptError("a device's tensor was saved in an unusual way")
        if data.dtype is not dtype:
            self._check_copy(data)
            self.incomplete |= not self.filled
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
        return self._made_of(parts[1], "sparse", self.tensors.build_sparse, layout, parts)

    def quantized(self, holder: Any, offset: Any, shape: Any, strides: Any, parameters: Any,
                  requires_grad: Any = False, hooks: Any = None) -> Any:
        """A quantized tensor of its levels and (scheme, scale, zero point) or (scheme, scales, zero
        points, axis)."""
        typed = (self.tensors.storage_parts(holder) or (None, 0, None))
        if typed[2] is None or typed[2].kind != "q" or type(parameters) is not tuple or (
                not self._are_parameters(parameters)):
            raise CorruptError("a quantized tensor was saved in an unusual way")
        if typed[2].name in ("quint4x2", "quint2x4"):  # several levels a byte, without gaps
            each = 2 if typed[2].name == "quint4x2" else 4
            check_geometry(MOST_ELEMENTS, 1, shape, strides, 0)
            count = -(-math.prod(shape) // each)
            plain = self._view(holder, None, 0, (count,), (1,), False)
        else:
            plain = self._view(holder, None, offset, shape, strides, False)
        return self._made_of(plain, "quantized", self.tensors.build_quantized, plain, tuple(shape),
                             parameters)

    def _are_parameters(self, parameters: tuple) -> bool:
        if len(parameters) == 3:
            return type(parameters[1]) is float and type(parameters[2]) is int
        return len(parameters) == 4 and type(parameters[3]) is int and all(
            map(self.tensors.is_tensor, parameters[1:3]))

    def nested(self, numbers: Any, sizes: Any, strides: Any, offsets: Any) -> Any:
        """A nested tensor of one vector and of where each part lies in it."""
        parts = numbers, sizes, strides, offsets
        if not all(map(self.tensors.is_tensor, parts)):
            raise CorruptError("a nested tensor was saved in an unusual way")
        return self._made_of(numbers, "nested", self.tensors.build_nested, *parts)

    def jagged(self, parts: Any) -> Any:
        """A nested tensor with the layout torch.jagged, of its values and offsets."""
        if type(parts) is not dict or not all(map(self.tensors.is_tensor, (
                parts.get("values"), parts.get("offsets")))):
            raise CorruptError("a nested tensor was saved in an unusual way")
        return self._made_of(parts["values"], "nested", self.tensors.build_jagged, parts)

    def _made_of(self, stand_in: Any, what: str, build: Callable[..., Any], *parts: Any) -> Any:
        """What `build` makes of parts whose numbers it checks."""
        if not self.filled:
            self.incomplete = True
            return stand_in
        try:
            return build(*parts)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise CorruptError(f"a {what} tensor's parts do not go together: {error}") from None

    def meta(self, dtype: Any, shape: Any, strides: Any, requires_grad: Any) -> Any:
        """A tensor of the meta device, which has no numbers."""
        if not isinstance(dtype, DType):
            raise CheckpointError(f"a tensor has dtype {dtype}, which Flambeau does not have")
        check_geometry(MOST_ELEMENTS * dtype.itemsize, dtype.itemsize, shape, strides, 0)
        requires_grad = _flag(requires_grad) and dtype.kind in "fc"
        return self.tensors.build_meta(dtype, tuple(shape), tuple(strides), requires_grad)

    def _from_numpy(self, array: np.ndarray) -> Any:
        array = np.ascontiguousarray(array)
        storage = self.tensors.foreign_storage(array.__array_interface__["data"][0], array.nbytes,
                                               array)
        strides = tuple(step // array.itemsize for step in array.strides)
        return self.tensors.build_tensor(storage, by_numpy(array.dtype), array.shape, strides, 0,
                                         False)

    def _by_function(self) -> set[Callable]:
        return {self.tensor, self.tensor_v2, self.tensor_v3, self.parameter,
                self.parameter_with_state, self.from_cpu_tensor, self.sparse, self.nested,
                self.meta}

    def rules(self) -> dict[str, Rule]:
        """By dotted name. Function values are looked up by identity, so each is bound once."""
        functions = {
            "torch._utils._rebuild_tensor": self.tensor,
            "torch._utils._rebuild_tensor_v2": self.tensor_v2,
            "torch._utils._rebuild_tensor_v3": self.tensor_v3,
            "torch._utils._rebuild_parameter": self.parameter,
            "torch._utils._rebuild_sparse_tensor": self.sparse,
            "torch._utils._rebuild_nested_tensor": self.nested,
            "torch._utils._rebuild_meta_tensor_no_storage": self.meta,
            "torch._utils._rebuild_qtensor": self.quantized,
            "torch.nested._internal.nested_tensor._rebuild_njt": self.jagged,
            "torch._utils._rebuild_parameter_with_state": self.parameter_with_state,
            "torch._tensor._rebuild_from_type_v2": self.from_type,
            "torch._utils._rebuild_device_tensor_from_cpu_tensor": self.from_cpu_tensor,
            "torch._utils._rebuild_device_tensor_from_numpy": self.from_cpu_tensor,
            "torch._utils._rebuild_xla_tensor": self.from_cpu_tensor,
        }
        rules = {name: Rule(function, call=function) for name, function in functions.items()}
        rules["torch._C.Generator"] = Rule(Generator, call=self.generator,
                                            build=self.generator_state)
        rules["torch.nested._internal.nested_tensor.NestedTensor"] = Rule(self.tensors.tensor_type)
        rules["torch._dynamo.decorators._DimRange"] = Rule(_Hint, new=_Hint, build=_Hint.ignore)
        for name, remedy in _UNSUPPORTED.items():
            refusal = _refusal(name, remedy)
            rules[f"torch._utils.{name}"] = Rule(refusal, call=refusal)
        return rules


class _Hint:
    """What torch.compile notes on the values of jagged tensors; nothing here uses it."""

    def ignore(self, state: Any) -> None:
        """Drop the state."""


_UNSUPPORTED = {
    "_rebuild_wrapper_subclass": "a tensor subclass without data of its own: save the tensors it "
                                 "wraps",
}


def _refusal(name: str, remedy: str) -> Callable[..., Any]:
    def refuse(*arguments: Any) -> Any:
        raise CheckpointError(f"the checkpoint holds {remedy}")
    refuse.__name__ = refuse.__qualname__ = name
    return refuse


def parameter_rule(rebuilder: Rebuilder) -> Rule:
    """nn.Parameter as a class that can be called."""
    return Rule(rebuilder.tensors.parameter_type, call=rebuilder.parameter,
                new=rebuilder.parameter)
