"""Turning a checkpoint into a pickle that `torch.load(weights_only=True)` opens.

Python's pure pickler does containers and plain objects; this adds tensors, dtypes, sizes and
devices, and names of PyTorch in place of ours (`flambeau.nn...` is written as `torch.nn...`).
"""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from flambeau.core.dtypes import DType
from flambeau.core.shapes import Size
from flambeau.serialization.globals import storage_kind_of
from flambeau.serialization.tensors import TensorAdapter, TensorRecord

__all__ = ["PickleWriter", "SavedStorage"]


@dataclasses.dataclass
class SavedStorage:
    """A storage to be written beside the pickle.

    Attributes:
        key: its name in the archive.
        kind: the class PyTorch's reader shall see, such as "FloatStorage".
        dtype: of its elements; None for untyped.
        record: keeps the memory alive while it is written.
    """

    key: str
    kind: str
    dtype: DType | None
    record: TensorRecord

    @property
    def count(self) -> int:
        """Elements."""
        return self.record.nbytes // (self.dtype.itemsize if self.dtype else 1)


class _Name:
    """A global by its name alone: nothing has to be importable."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name

    def __call__(self, *arguments: Any) -> Any:  # pickle insists that what it reduces to can be called
        raise TypeError(f"{self.module}.{self.name} is only a name")


class _StorageId:
    """What becomes the persistent id of a storage."""

    __slots__ = ("saved",)

    def __init__(self, saved: SavedStorage):
        self.saved = saved


class PickleWriter(pickle._Pickler):
    """Pickles one object; `storages` then holds what is to be written beside it.

    The C pickler is no choice: it imports each global before it writes its name, and PyTorch's are
    not there.

    Args:
        tensors: the tensor library.
        protocol: 2 is what PyTorch's safe reader understands.
        legacy: persistent ids of PyTorch's old format, and no untyped storages.
    """

    def __init__(self, tensors: TensorAdapter, protocol: int = 2, legacy: bool = False):
        self.buffer = io.BytesIO()
        super().__init__(self.buffer, protocol)
        self.tensors, self.legacy = tensors, legacy
        self.storages: dict[int, SavedStorage] = {}
        self._names: dict[tuple[str, str], _Name] = {}
        self._sizes = (Size,)
        self.failed: Any = None  # the innermost object that could not be pickled

    def write(self, value: Any) -> bytes:
        """The pickle of `value`.

        Raises:
            pickle.PicklingError: naming the place inside `value` and the offending object.
        """
        try:
            self.dump(value)
        except RecursionError:
            raise pickle.PicklingError("cannot save: the object is nested too deeply; flatten it, "
                                       "or raise sys.setrecursionlimit()") from None
        except (pickle.PicklingError, TypeError, AttributeError, ImportError) as error:
            place = find_path(value, self.failed)
            where = f" at checkpoint{place}" if place else ""
            raise pickle.PicklingError(
                f"cannot save the {type(self.failed).__name__}{where}: {error}. Leave it out of "
                "the checkpoint, or save its data (numbers, strings, tensors) instead"
            ) from error
        return self.buffer.getvalue()

    # -- pickle's hooks ------------------------------------------------------------------------

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        try:
            if type(obj) is _Name:
                self._save_name(obj)
            else:
                super().save(obj, save_persistent_id)
        except Exception:
            if self.failed is None:
                self.failed = obj
            raise

    def persistent_id(self, obj: Any) -> tuple | None:
        if type(obj) is not _StorageId:
            return None
        saved = obj.saved
        module = "torch.storage" if saved.dtype is None else "torch"
        kind = self._name(module, saved.kind)
        ident = ("storage", kind, saved.key, "cpu", saved.count)
        return (*ident, None) if self.legacy else ident

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is DType:
            # A string in place of a tuple would be looked up in obj's module.
            return _plain_global, (obj,)
        if self.tensors.is_tensor(obj):
            return self._reduce_tensor(obj)
        if kind in self._sizes:
            return self._name("torch", "Size"), (tuple(obj),)
        if kind.__name__ == "device" and kind.__module__.partition(".")[0] == "flambeau":
            index = () if obj.index is None else (obj.index,)
            return self._name("torch", "device"), (obj.type, *index)
        if self.tensors.is_storage(obj):
            raise pickle.PicklingError("a bare storage has no dtype; save a tensor that uses it")
        return NotImplemented

    # -- names -----------------------------------------------------------------------------------

    def _name(self, module: str, name: str) -> _Name:
        return self._names.setdefault((module, name), _Name(module, name))

    def _save_name(self, obj: _Name) -> None:
        known = self.memo.get(id(obj))
        if known is not None:
            super().write_get(known) if hasattr(self, "write_get") else None
        if known is None:
            pass

    # -- tensors ---------------------------------------------------------------------------------

    def _storage_of(self, record: TensorRecord) -> SavedStorage:
        """The storage of a tensor, registered at its first use with that tensor's dtype."""
        saved = self.storages.get(id(record.storage))
        if saved is None:
            kind, dtype = storage_kind_of(record.dtype), record.dtype
            if kind is None or record.nbytes % dtype.itemsize:
                kind, dtype = "UntypedStorage", None
            saved = SavedStorage(str(len(self.storages)), kind, dtype, record)
            self.storages[id(record.storage)] = saved
        return saved
