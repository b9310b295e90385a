"""Turning a checkpoint into a pickle that `torch.load(weights_only=True)` opens.

Python's pure pickler does containers and plain objects; this adds tensors, dtypes, sizes and
devices, and writes PyTorch's names in place of ours (`flambeau.nn...` becomes `torch.nn...`).
"""

from __future__ import annotations

import codecs
import ctypes
import dataclasses
import io
import pickle
import sys
import types
from collections import OrderedDict
from typing import Any, ClassVar

from flambeau.core.dtypes import DType, uint8
from flambeau.core.shapes import Size
from flambeau.serialization.globals import storage_kind_of
from flambeau.serialization.homes import their_name
from flambeau.serialization.tensors import TensorAdapter, TensorRecord

__all__ = ["SavedStorage", "find_path", "pickle_object"]

_SCALARS = frozenset({int, float, bool, type(None)})
_PLAIN = frozenset({str, dict, list, tuple, bytes, OrderedDict})


@dataclasses.dataclass
class SavedStorage:
    """A storage to be written beside the pickle.

    Attributes:
        key: its name in the archive.
        kind: the class that PyTorch's reader shall see, such as "FloatStorage".
        dtype: of its elements; None for untyped.
        record: keeps the memory alive until it is written.
    """

    key: str
    kind: str
    dtype: DType | None
    record: TensorRecord

    @property
    def count(self) -> int:
        """Elements (bytes if untyped)."""
        return self.record.nbytes // (self.dtype.itemsize if self.dtype else 1)

    def memory(self) -> memoryview:
        """The bytes, without a copy."""
        if not self.record.nbytes:
            return memoryview(b"")
        raw = (ctypes.c_ubyte * self.record.nbytes).from_address(self.record.ptr)
        return memoryview(raw).cast("B")


def pickle_object(value: Any, tensors: TensorAdapter, protocol: int = 2,
                  legacy: bool = False) -> tuple[bytes, list[SavedStorage]]:
    """The pickle of `value` and the storages that belong beside it.

    Args:
        protocol: 2 is the one that PyTorch's safe reader understands.
        legacy: persistent ids of the format before PyTorch 1.6.

    Raises:
        pickle.PicklingError: naming the offending object and its place inside `value`.
    """
    pickler = _Pickler(tensors, protocol, legacy)
    try:
        pickler.dump(value)
    except RecursionError:
        raise pickle.PicklingError("cannot save: the object is nested too deeply; flatten it, or "
                                   "raise sys.setrecursionlimit()") from None
    except (pickle.PicklingError, TypeError, AttributeError, ImportError) as error:
        raise pickle.PicklingError(_explain(value, pickler.failing, error)) from error
    return pickler.buffer.getvalue(), list(pickler.storages.values())


def _explain(value: Any, failing: list[Any], error: Exception) -> str:
    culprit, path = failing[0] if failing else value, None
    for candidate in failing:
        path = find_path(value, candidate)
        if path is not None:
            culprit = candidate
            break
    where = f" at checkpoint{path}" if path else ""
    return (f"cannot save the {type(culprit).__name__}{where}: {error}. Leave it out of the "
            "checkpoint, or save the numbers, strings and tensors that it is made of")


class _Name:
    """A global by its name alone: nothing has to be importable."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name

    def __call__(self, *arguments: Any) -> Any:  # the pickler insists on something callable
        raise TypeError(f"{self.module}.{self.name} is only a name")


class _StorageId:
    """What becomes the persistent id of a storage."""

    __slots__ = ("saved",)

    def __init__(self, saved: SavedStorage):
        self.saved = saved


class _Call:
    """A function and its arguments, to be pickled as the call's result."""

    __slots__ = ("arguments", "function")

    def __init__(self, function: _Name, arguments: tuple):
        self.function, self.arguments = function, arguments


class _Pickler(pickle._Pickler):
    """The C pickler is no choice: it imports every global, and PyTorch's are not there."""

    def __init__(self, tensors: TensorAdapter, protocol: int, legacy: bool):
        self.buffer = io.BytesIO()
        super().__init__(self.buffer, protocol)
        self.tensors, self.legacy = tensors, legacy
        self.storages: dict[int, SavedStorage] = {}
        self.failing: list[Any] = []  # the objects being pickled when it failed, innermost first
        self._names: dict[tuple[str, str], _Name] = {}

    # -- pickle's hooks ------------------------------------------------------------------------

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        kind = type(obj)
        if kind in _SCALARS:  # never memoized nor reduced: straight to their opcode
            self.dispatch[kind](self, obj)
            return
        try:
            if kind is DType:
                self._save_name(self._name("torch", obj.name))
            elif kind is _Name:
                self._save_name(obj)
            elif kind.__name__ in ("MemoryFormat", "QScheme") and _is_ours(kind.__module__):
                self._save_name(self._name("torch", obj.name))
            else:
                super().save(obj, save_persistent_id)
        except Exception:
            self.failing.append(obj)
            raise

    def persistent_id(self, obj: Any) -> tuple | None:
        if type(obj) is _StorageId:
            saved = obj.saved
        elif type(obj) not in _PLAIN and (parts := self.tensors.storage_parts(obj)) is not None:
            saved = self._bare_storage(*parts)
        else:
            return None
        kind = self._name("torch.storage" if saved.dtype is None else "torch", saved.kind)
        ident = ("storage", kind, saved.key, "cpu", saved.count)
        return (*ident, None) if self.legacy else ident

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind in _PLAIN:
            return NotImplemented
        if kind is _Call:
            return obj.function, obj.arguments
        if self.tensors.is_tensor(obj):
            composed = self.tensors.composed_parts(obj)
            if composed is not None:
                made = self._reduce_composed(*composed)
                if not isinstance(obj, self.tensors.parameter_type):
                    return made
                return (self._name("torch._utils", "_rebuild_parameter"),
                        (_Call(*made), obj.requires_grad, OrderedDict()))
            return self._reduce_tensor(self.tensors.describe(obj))
        if kind is Size:
            return self._name("torch", "Size"), (tuple(obj),)
        return self._reduce_constant(obj, kind.__name__) if _is_ours(kind.__module__) else (
            NotImplemented)

    def _reduce_constant(self, obj: Any, kind: str) -> Any:
        """Devices and layouts as PyTorch writes them."""
        if kind in ("device", "Device"):
            index = () if obj.index is None else (obj.index,)
            return self._name("torch", "device"), (obj.type, *index)
        if kind == "Layout":
            return self._name("torch.serialization", "_get_layout"), (f"torch.{obj.name}",)
        return NotImplemented

    # -- names -----------------------------------------------------------------------------------

    def _name(self, module: str, name: str) -> _Name:
        return self._names.setdefault((module, name), _Name(module, name))

    def _save_name(self, obj: _Name) -> None:
        known = self.memo.get(id(obj))
        if known is not None:
            self.write(self.get(known[0]))
            return
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        self.memoize(obj)

    def save_global(self, obj: Any, name: str | None = None) -> None:
        """Classes and functions of ours get PyTorch's module; nested ones a dotted name."""
        name = name or getattr(obj, "__qualname__", None) or obj.__name__
        module = pickle.whichmodule(obj, name)
        if module == "flambeau" and getattr(_functional(), name, None) is obj:
            module = "flambeau.nn.functional"
        if _is_ours(module) or ("." in name and "<" not in name):
            _check_importable(obj, module, name)
            known = self.memo.get(id(obj))
            if known is None:
                module, name = their_name(module, name)
                self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
                self.memoize(obj)
            return
        super().save_global(obj, name)

    def save_bytes(self, obj: bytes) -> None:
        """Protocol 2 writes b"" as a call of `bytes`, which PyTorch's reader does not allow."""
        if not obj and self.proto < 3:
            self.save_reduce(codecs.encode, ("", "latin1"), obj=obj)
        else:
            pickle._Pickler.save_bytes(self, obj)

    # The base class's table calls its own save_global for functions.
    dispatch: ClassVar[dict] = {**pickle._Pickler.dispatch, types.FunctionType: save_global,
                                bytes: save_bytes}

    # -- tensors ---------------------------------------------------------------------------------

    def _bare_storage(self, storage: Any, nbytes: int, dtype: DType | None) -> SavedStorage:
        """A storage that is saved for its own sake."""
        saved = self._storage_of(TensorRecord(storage, storage.ptr, nbytes, dtype, (), (), 0))
        if dtype is not None and saved.dtype is not dtype:
            raise pickle.PicklingError(f"a typed storage of {dtype} shares its memory with one of "
                                       f"{saved.dtype or 'bytes'}; save a clone of it")
        return saved

    def _storage_of(self, record: TensorRecord) -> SavedStorage:
        """The storage of a tensor, registered at its first use with that tensor's dtype."""
        saved = self.storages.get(id(record.storage))
        if saved is None:
            dtype = record.dtype
            kind = None if dtype is None else storage_kind_of(dtype)
            if kind is None or record.nbytes % dtype.itemsize:
                # The old format has no untyped storages; bytes serve as well.
                kind, dtype = ("ByteStorage", uint8) if self.legacy else ("UntypedStorage", None)
            saved = SavedStorage(str(len(self.storages)), kind, dtype, record)
            self.storages[id(record.storage)] = saved
        return saved

    def _view(self, record: TensorRecord, requires_grad: bool) -> _Call:
        """_rebuild_tensor_v2 where the storage has the tensor's dtype, else _v3, which names it."""
        saved = self._storage_of(record)
        arguments = (_StorageId(saved), record.offset, tuple(record.shape), tuple(record.strides),
                     requires_grad, OrderedDict())
        function = "_rebuild_tensor_v2"
        if saved.dtype is not record.dtype:
            function, arguments = "_rebuild_tensor_v3", (*arguments, record.dtype)
        if record.conj or record.neg:
            bits = {"conj": record.conj, "neg": record.neg}
            arguments = (*arguments, {name: True for name, bit in bits.items() if bit})
        return _Call(self._name("torch._utils", function), arguments)

    def _reduce_tensor(self, record: TensorRecord) -> tuple:
        attributes = dict(record.attributes)
        if record.is_parameter:
            arguments = (self._view(record, False), record.requires_grad, OrderedDict())
            if not attributes:
                return self._name("torch._utils", "_rebuild_parameter"), arguments
            name = self._name("torch._utils", "_rebuild_parameter_with_state")
            return name, (*arguments, attributes)
        view = self._view(record, record.requires_grad)
        if record.subclass is None and not attributes:
            return view.function, view.arguments
        cls = record.subclass or self._name("torch", "Tensor")
        return (self._name("torch._tensor", "_rebuild_from_type_v2"),
                (view.function, cls, view.arguments, attributes))

    def _reduce_composed(self, layout: str, parts: Any) -> tuple:
        """Sparse, nested and quantized tensors are their parts.

        Whether sparse ones require grad is not kept, as in PyTorch.
        """
        if layout == "quantized":
            plain, shape, strides, parameters = parts
            storage, offset = self._view(self.tensors.describe(plain), False).arguments[:2]
            return (self._name("torch._utils", "_rebuild_qtensor"),
                    (storage, offset, shape, strides, parameters, False, OrderedDict()))
        if layout == "meta":
            return self._name("torch._utils", "_rebuild_meta_tensor_no_storage"), parts
        if layout == "strided":
            return self._name("torch._utils", "_rebuild_nested_tensor"), parts
        if layout == "jagged":
            return self._name("torch.nested._internal.nested_tensor", "_rebuild_njt"), (parts,)
        name = _Call(self._name("torch.serialization", "_get_layout"), (f"torch.{layout}",))
        return self._name("torch._utils", "_rebuild_sparse_tensor"), (name, parts)


def _is_ours(module: str) -> bool:
    return module == "flambeau" or module.startswith("flambeau.")


def _functional() -> Any:
    return sys.modules.get("flambeau.nn.functional")


def _check_importable(obj: Any, module: str, name: str) -> None:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not obj:
        raise pickle.PicklingError(f"{module}.{name} is not importable under that name")


def find_path(root: Any, wanted: Any) -> str | None:
    """Where `wanted` sits inside `root`: "['optimizer']['hooks'][0]"; None if not found."""
    waiting: list[tuple[Any, str]] = [(root, "")]
    seen: set[int] = set()
    while waiting:
        here, path = waiting.pop(0)
        if here is wanted:
            return path
        if id(here) in seen or len(seen) > 100_000:
            continue
        seen.add(id(here))
        if isinstance(here, dict):
            waiting += [(value, f"{path}[{key!r}]") for key, value in here.items()]
        elif isinstance(here, list | tuple):
            waiting += [(value, f"{path}[{index}]") for index, value in enumerate(here)]
        elif isinstance(getattr(here, "__dict__", None), dict) and not isinstance(
                here, type | types.FunctionType | types.ModuleType):
            waiting += [(value, f"{path}.{name}") for name, value in vars(here).items()]
    return None
