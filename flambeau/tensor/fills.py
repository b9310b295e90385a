"""Fills: a random stream run into the memory of tensors, new or old.

A fill of few elements costs as much as the Python around it. So whoever draws asks first for the
fill that it made for the same arguments before (`renew`, `refill`), and checks, plans and builds
only if there is none.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

from flambeau.autograd.grad_mode import LEVELS, RECORD, mode
from flambeau.compiler.random.fills import random_kernel, reports
from flambeau.compiler.target import host
from flambeau.core.device import META
from flambeau.core.errors import caller_location, note_write
from flambeau.core.shapes import Size
from flambeau.runtime import memory
from flambeau.runtime.generator import Generator, default_generator
from flambeau.runtime.launch import INTEGER, STATUS, Program
from flambeau.runtime.loader import load_kernel
from flambeau.tensor import dispatch, launches
from flambeau.tensor.dispatch import ACTIVE, TENSOR_CLASSES
from flambeau.tensor.launches import LaunchCache, late
from flambeau.tensor.meta import Meta, hinted, like_order, meta_of
from flambeau.tensor.tensor import Tensor

__all__ = ["dense_meta", "fill", "plain_sizes", "refill", "renew"]

_new = object.__new__


class _Ready:
    """A fill that can be made again at once.

    Attributes:
        program: takes the addresses of the state, of the elements and of what else is read.
        meta, pool: of the tensors that it fills.
    """

    __slots__ = ("program", "address", "meta", "pool", "nbytes")

    def __init__(self, program: Program, meta: Meta):
        self.program, self.address = program, program.address
        self.meta, self.nbytes = meta, meta.nbytes
        self.pool = memory.size_class(meta.nbytes)


class _Fills:
    """Ready fills by (name, layout or shape, ...); the default dtype may be in them unsaid."""

    __slots__ = ("__weakref__", "ready")

    def __init__(self) -> None:
        self.ready = LaunchCache()

    def forget(self) -> None:
        self.ready.clear()


_fills = _Fills()
_ready = _fills.ready
launches.resettable.add(_fills)


@functools.lru_cache(maxsize=256, typed=True)
def _program(kind: str, meta: Meta, params: tuple, given: bool) -> Program:
    """The program of one fill: the state's address, the elements' and the `given` one come at each
    launch."""
    address = load_kernel(*random_kernel(kind, meta.dtype, host()))
    patches = [(2, 0, 0), (3, 1, 0)]
    slots: list[int] = [0, 0, 0, 0, meta.numel]
    if given:
        patches.append((len(slots), 2, 0))
        slots.append(0)
    slots += [_double_bits(p) if p.__class__ is float else p for p in params]
    if reports(kind):
        patches.append((len(slots), STATUS, 0))
        slots.append(0)
    return Program.build([(address, 2, 1)], patches, [INTEGER] * 3, slots)


def _double_bits(value: float) -> int:
    return struct.unpack("<q", struct.pack("<d", value))[0]


def fill(tensor: Any, kind: str, params: tuple, generator: Generator | None,
         key: tuple | None = None, given: int = 0) -> Any:
    """Fill a tensor, in the order of its elements in memory, from a stream. With a `key`, the fill
    is ready to be asked for again. `given`: an address that the kernel takes before `params`.

    Raises:
        RuntimeError: a probability outside of [0, 1].
    """
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(f"expected a torch.Generator, got {type(generator).__name__}")
    if mode() & LEVELS:
        return late.fill(tensor, kind, params, generator, given)
    if tensor._meta.device is META:  # nothing is drawn
        return tensor
    generator = generator or default_generator
    meta = dense_meta(tensor._meta)
    target = tensor if meta is tensor._meta else launches.fresh(meta)
    if tensor._meta.numel:
        program = _program(kind, hinted(target._meta), params, bool(given))
        launches.before_fill(target, bool(given), generator)
        with generator.lock:
            failure = late.at_once(program.address, generator.address, target._ptr, given)
        if failure is not None:
            _refuse()
        if dispatch.observers:
            params = (given, *params) if given else params
            dispatch.observers[-1].randomised(kind, target, params, generator)
        elif key is not None and tensor._meta.contiguous and type(tensor) in TENSOR_CLASSES:
            _ready[key] = _Ready(program, meta)
    if target is not tensor:
        dispatch.raw_copy(tensor, target)
    return tensor


def dense_meta(meta: Meta) -> Meta:
    """The layout without gaps in which the elements follow each other as in `meta`."""
    if meta.contiguous:
        return meta
    return meta_of(meta.dtype, meta.shape, like_order(meta.shape, [meta]), meta.device)


def _refuse() -> None:
    raise RuntimeError("Expected p_in >= 0 && p_in <= 1 to be true, but got false.")


# ---------------------------------------------------------------------- warm paths
def renew(key: tuple, generator: Generator | None, given: int = 0) -> Tensor | None:
    """A new tensor, filled as the one before with this key; None if there was none.

    Keys that compare equal must mean the same: callers see to it that integers are integers.
    """
    try:
        ready = _ready.get(key)
    except TypeError:  # a list in the key
        return None
    if ready is None or ACTIVE:
        return None
    if generator is None:
        generator = default_generator
    elif generator.__class__ is not Generator:
        return None
    if given and late.deferred is not None:  # new memory itself is nobody else's
        launches.settle("random numbers with tensors of parameters")
    made = _new(Tensor)
    made._storage = storage = ready.pool.new(ready.nbytes)
    made._ptr = pointer = storage.ptr
    made._meta = ready.meta
    made._rg = False
    made._grad_fn = made._base = None
    lock = generator.lock
    lock.acquire()  # `with` costs twice as much
    try:
        failure = late.at_once(ready.address, generator.address, pointer, given)
    finally:
        lock.release()
    if failure is not None:
        _refuse()
    return made


def refill(tensor: Any, key: tuple, generator: Generator | None) -> bool:
    """Fill `tensor`, whose layout is in `key`, as one before; False if there was none or if the
    general path must look closer."""
    try:
        ready = _ready.get(key)
    except TypeError:
        return False
    if ready is None or ACTIVE or tensor.__class__ not in TENSOR_CLASSES or (
            tensor._rg or tensor._view_no_grad) and mode() & 3 == RECORD:
        return False
    if generator is None:
        generator = default_generator
    elif generator.__class__ is not Generator:
        return False
    launches.before_fill(tensor, False, generator)
    lock = generator.lock
    lock.acquire()  # `with` costs twice as much
    try:
        late.at_once(ready.address, generator.address, tensor._ptr, 0)
    finally:
        lock.release()
    storage = tensor._storage
    storage.version += 1
    note_write(storage, caller_location(3))
    return True


def plain_sizes(size: tuple) -> tuple | None:
    """The shape that a factory was given, as integers or one sequence of them; None if it must be
    looked at more closely."""
    if len(size) == 1 and size[0].__class__ in _SEQUENCES:
        size = tuple(size[0])
    for n in size:
        if type(n) is not int:
            return None
    return size


_SEQUENCES = (tuple, list, Size)
