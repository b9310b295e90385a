"""How tensors and storages get from one process to another: by what their memory is a mapping of.

Memory that is not shared yet moves to shared memory when it is sent, in place: the sender's tensor
sees what the receiver writes. A leaf that requires grad does so on the other side, too.
"""

from __future__ import annotations

from multiprocessing import reduction
from typing import Any

from flambeau.core.dtypes import by_name
from flambeau.nn.parameter import Buffer, Parameter
from flambeau.runtime import shared
from flambeau.tensor import Tensor, interop
from flambeau.tensor.storages import UntypedStorage, handle_of, move_to_shared
from flambeau.tensor.typed_storages import TypedStorage, typed

__all__ = ["init_reductions", "reduce_storage", "reduce_tensor"]


def init_reductions() -> None:
    """Teach Python's pickler for processes about tensors and storages."""
    register = reduction.ForkingPickler.register
    for cls in (Tensor, Parameter, Buffer):
        register(cls, reduce_tensor)
    register(UntypedStorage, reduce_storage)
    register(TypedStorage, reduce_typed_storage)


def _sent(storage: Any) -> tuple:
    """How the memory of a runtime's storage is found by the receiver: (rule, argument, bytes,
    offset of the storage in the mapping)."""
    mapping = move_to_shared(storage)
    offset = storage.ptr - mapping.ptr
    if mapping.name is not None:
        shared.announce(mapping)
        return "name", mapping.name, mapping.nbytes, offset
    return "descriptor", reduction.DupFd(mapping.fd), mapping.nbytes, offset


def _received(how: str, what: Any, nbytes: int) -> shared.Mapping:
    if how == "name":
        return shared.adopt_name(what, nbytes)
    return shared.adopt_descriptor(what.detach(), nbytes)


# ---------------------------------------------------------------------- tensors
def reduce_tensor(tensor: Any) -> tuple:
    """What the pickler sends of a tensor.

    Raises:
        RuntimeError: the result of an operation that requires grad: its history stays here.
    """
    if tensor.requires_grad and not tensor.is_leaf:
        raise RuntimeError("Cowardly refusing to serialize non-leaf tensor which requires_grad, "
                           "since autograd does not support crossing process boundaries.  If you "
                           "just want to transfer the data, call detach() on the tensor before "
                           "serializing (e.g., putting it on the queue).")
    source = _sent(tensor._storage)
    offset = tensor._ptr - tensor._storage.ptr
    state = {name: value for name, value in tensor.__dict__.items() if not name.startswith("_")}
    layout = (tensor.dtype.name, tuple(tensor.shape), tuple(tensor.stride()), offset)
    return rebuild_tensor, (type(tensor), source, layout, tensor.requires_grad, state)


def rebuild_tensor(cls: type, source: tuple, layout: tuple, requires_grad: bool,
                   state: dict) -> Any:
    """The tensor that `reduce_tensor` described, on the same memory."""
    how, what, nbytes, start = source
    name, shape, strides, offset = layout
    dtype = by_name(name)
    mapping = _received(how, what, nbytes)
    made = interop.from_storage(mapping.storage(), dtype, shape, strides,
                                (start + offset) // dtype.itemsize)
    if issubclass(cls, Parameter):
        made = Parameter(made, requires_grad)
    elif cls is not Tensor:
        made = made.as_subclass(cls)
        made._rg = requires_grad
    elif requires_grad:
        made = made.requires_grad_()
    made.__dict__.update(state)
    return made


# ---------------------------------------------------------------------- storages
def reduce_storage(storage: UntypedStorage) -> tuple:
    """What the pickler sends of a storage."""
    return rebuild_storage, (_sent(storage._memory), len(storage))


def rebuild_storage(source: tuple, nbytes: int) -> UntypedStorage:
    """The storage that `reduce_storage` described."""
    how, what, size, start = source
    mapping = _received(how, what, size)
    if start == 0 and nbytes == mapping.nbytes:
        return handle_of(mapping.storage())
    return handle_of(mapping.storage())[start:start + nbytes]


def reduce_typed_storage(storage: TypedStorage) -> tuple:
    """What the pickler sends of a storage of elements."""
    return rebuild_typed_storage, (storage.untyped(), storage.dtype.name)


def rebuild_typed_storage(storage: UntypedStorage, name: str) -> TypedStorage:
    """The storage that `reduce_typed_storage` described."""
    return typed(storage, by_name(name))


