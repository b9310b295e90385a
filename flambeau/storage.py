"""`torch.storage`: the classes of storages. The engine is in flambeau/tensor/storages.py."""

from flambeau.tensor.storages import UntypedStorage
from flambeau.tensor.typed_storages import TypedStorage

__all__ = ["TypedStorage", "UntypedStorage"]
