"""Capture: watches a run through dispatch and writes it down as one functional program.

Memory is followed by storage: each storage has a *root* value (all of its elements, row-major) that
in-place writes replace; views are read from the root of the moment. What existed before the run
becomes an input, and what the run has written to becomes an output that overwrites it.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.autograd.grad_mode import is_recording
from flambeau.autograd.tape import next_order
from flambeau.compile.origins import Origins
from flambeau.compiler.simplify import simplify
from flambeau.core.device import META
from flambeau.core.dtypes import DType, int64
from flambeau.core.errors import user_location
from flambeau.core.shapes import dense_order
from flambeau.core.symbolic import hint, key_of
from flambeau.ir.graph import Graph, Value, constant, number_input, tensor_input
from flambeau.ops.primitives.contraction import random_fill
from flambeau.ops.primitives.elementwise import (
    add,
    boundary,
    convert,
    filled,
    mul,
    stop_gradient,
    view_as_complex,
    view_as_real,
)
from flambeau.ops.primitives.structure import (
    as_strided,
    expand,
    iota,
    permute,
    reshape,
    scatter,
    slice_,
)
from flambeau.tensor.dispatch import extent
from flambeau.tensor.interop import twin
from flambeau.tensor.meta import Meta, TensorBase

__all__ = ["Capture", "CaptureError", "Forgiving", "Memory"]


def _reinterpreted(root: Value, dtype: DType) -> Value:
    """The memory of complex numbers as reals, or the reverse."""
    if root.dtype is dtype:
        return root
    if root.dtype.is_complex:
        return view_as_real(root)
    return view_as_complex(reshape(root, (root.numel // 2, 2)))



class CaptureError(NotImplementedError):
    """Something in a compiled function cannot become part of a program."""


def refuse(what: str, rewrite: str) -> CaptureError:
    """The error for something that cannot be captured, with the user's line."""
    return CaptureError(f"compile: {what} cannot be captured\n  at {user_location()}\n  {rewrite}")


def _corner(root: Meta, part: Meta, offset: int) -> tuple[int, ...] | None:
    """Where `part` begins in `root`, along each dimension, if it is a rectangle of it."""
    if part.dtype is not root.dtype or part.strides != root.strides or 0 in part.shape:
        return None
    starts = [0] * len(root.shape)
    for d in sorted(range(len(root.shape)), key=lambda d: -root.strides[d]):
        if root.shape[d] > 1:
            starts[d], offset = divmod(offset, root.strides[d])
    fits = all(start + size <= whole for start, size, whole in zip(
        starts, part.shape, root.shape, strict=True))
    return tuple(starts) if fits and not offset else None


def _need_memory(tensor: Any) -> None:
    """Raise CaptureError for a tensor of the meta device, whose operations compute nothing."""
    if tensor._meta.device is META:
        raise refuse("an operation on tensors of the meta device", "Do it outside of the compiled "
                     "function: without torch.compile it costs its Python alone.")


class Memory:
    """One storage during a capture.

    It does not keep the storage alive: a run that is captured needs no more memory than another.

    Attributes:
        address: where the storage begins, to tell it from a later one with the same id.
        region: (address, layout) of what is known of the storage: the *root*.
        value: the elements of the root at this moment.
        initial: `value` before the run if the storage is older than the run, else None.
        views: the values of other regions of the storage, valid for the present `value`.
        recorded: the value was computed from tensors that require grad, and recorded.
        unrecorded: the same, but not recorded.
    """

    __slots__ = ("address", "region", "value", "initial", "views", "recorded", "unrecorded",
                 "_tensor")

    def __init__(self, owner: Any, tensor: Any, value: Value, initial: Value | None):
        self.address = owner.ptr
        self.region = tensor._ptr, tensor._meta
        self._tensor = weakref.ref(tensor)
        self.value = value
        self.initial = initial
        self.views: dict = {}
        self.recorded = self.unrecorded = False

    @property
    def tensor(self) -> Any:
        """The tensor that the root was first seen as, or None if it is gone."""
        return self._tensor()

    @property
    def meta(self) -> Meta:
        """The layout of the root."""
        return self.region[1]

    @property
    def has_history(self) -> bool:
        """Might a detached reading of the value give its owner a gradient?"""
        tensor = self._tensor()
        return self.recorded or self.unrecorded or tensor is not None and tensor._rg


class Capture:
    """An observer of dispatch that builds a program.

    Attributes:
        inputs: (placeholder, tensor) per tensor that the program reads and that is older than it.
        numbers: (placeholder, expression) per number that is computed anew at each replay.
        randoms: the last random fill of each generator.
        exact: store the result of every operation, so that replays round exactly as eager runs do.
    """

    def __init__(self, numbers: dict[int, str], exact: bool = False):
        self.exact = exact
        self.thread = threading.get_ident()  # what other threads do meanwhile is not part of it
        self.memories: dict[int, Memory] = {}
        self.inputs: list[tuple[Value, Any]] = []
        self.numbers: list[tuple[Value, str]] = []
        self.given_numbers: dict[Value, Any] = {}  # what they are in this run
        self.sources = numbers
        self.number_values: dict[int, Value] = {}
        self.randoms: dict[int, Value] = {}
        self.roots: dict[int, Any] = {}
        self.forgotten: set[int] = set()
        self.looked_at: set[int] = set()  # tensors whose old gradients, or lack of one, was seen
        self.fleeting: list[tuple[Value, str]] = []  # constants that another run would not give
        self.produced: list = []  # leaves whose new gradients were dropped again
        self.spots: dict[int, Any] = {}
        self.kept: list = []  # what is known by its id, and might die
        self.made: list[weakref.ref] = []  # tensors of the run, to see which of them outlive it
        self.operations = 0
        self.origins = Origins()

    # ------------------------------------------------------------------ regions
    @staticmethod
    def _owner(tensor: Any) -> Any:
        storage = tensor._storage
        while type(storage.owner) is type(storage):  # `x.data` has a storage of its own
            storage = storage.owner
        return storage

    @staticmethod
    def _region(tensor: Any) -> tuple:
        return key_of(tensor._ptr), tensor._meta

    def bind(self, leaves: Sequence) -> None:
        """Say which tensors are arguments: the memory of each is known by the argument itself,
        or by one tensor that spans it where several arguments share it.

        `spots` says how a replay finds such tensors again: (place), ("base" or "grad", place).
        """
        groups: dict[int, list[int]] = {}
        for i, leaf in enumerate(leaves):
            groups.setdefault(id(self._owner(leaf)), []).append(i)
            if leaf._grad is not None:
                self.spots.setdefault(id(leaf._grad), ("grad", i))
        for owner, group in groups.items():
            candidates = [(leaves[i], i) for i in group]
            candidates += [(leaves[i]._base, ("base", i)) for i in group
                           if leaves[i]._base is not None]
            start = min(leaves[i]._ptr for i in group)
            end = max(leaves[i]._ptr + hint(extent(leaves[i])) for i in group)
            spanning = [(t, spot) for t, spot in candidates if t._meta.contiguous
                        and t._ptr <= start and end <= t._ptr + hint(t._meta.nbytes)]
            root, spot = (spanning or candidates)[0]
            self.roots[owner] = root
            self.spots.setdefault(id(root), spot)

    def memory_of(self, tensor: Any) -> Memory:
        """The storage of `tensor`; it becomes an input if the run has not made it."""
        owner = self._owner(tensor)
        found = self.memories.get(id(owner))
        if found is None or found.address != owner.ptr:
            root = self.roots.get(id(owner))
            if root is None:
                root = tensor if tensor._base is None else tensor._base
            _need_memory(root)
            placeholder = tensor_input(tuple(root._meta.shape), root._meta.dtype)
            self.inputs.append((placeholder, root))
            found = self.memories[id(owner)] = Memory(owner, root, placeholder, placeholder)
            self.kept.append(owner)
        return found

    def created(self, tensor: Any) -> None:
        """New memory with undefined content."""
        _need_memory(tensor)
        owner = self._owner(tensor)
        meta = tensor._meta
        zero = expand(constant(0, meta.dtype, number=False), meta.shape)
        self.memories[id(owner)] = Memory(owner, tensor, zero, None)
        self.made.append(weakref.ref(tensor))

    def given(self, tensor: Any) -> None:
        """New memory has got its content from Python: a constant of the program. The run may write
        to the tensor, so replays read a copy."""
        placeholder = tensor_input(tuple(tensor._meta.shape), tensor._meta.dtype)
        self.inputs.append((placeholder, twin(tensor)))
        self.memory_of(tensor).value = placeholder

    def value_of(self, tensor: Any) -> Value:
        """The elements of `tensor` at this moment."""
        memory = self.memory_of(tensor)
        region = self._region(tensor)
        if region == memory.region:
            return memory.value
        if region not in memory.views:
            memory.views[region] = self._part(memory, tensor)
        return memory.views[region]

    def _part(self, memory: Memory, tensor: Any) -> Value:
        """The elements of a view, as a rectangle of the root where it is one."""
        offset, shape = self._offset(memory, tensor), tensor._meta.shape
        starts = None if memory.meta.contiguous else _corner(memory.meta, tensor._meta, offset)
        if starts is not None:
            return slice_(memory.value, starts, (1,) * len(shape), shape)
        root = _reinterpreted(self._dense(memory), tensor._meta.dtype)
        return as_strided(root, shape, tensor._meta.strides, offset)

    def _dense(self, memory: Memory) -> Value:
        """The root's value, row-major in memory order."""
        if memory.meta.contiguous:
            return memory.value
        return permute(memory.value, self._order(memory))

    def _order(self, memory: Memory) -> tuple[int, ...]:
        """The root's dimensions in the order of memory."""
        order = dense_order(memory.meta.shape, memory.meta.strides)
        if order is None:
            raise refuse("a view of a tensor that is not contiguous",
                         "Call .contiguous() on the base first, outside of the compiled function.")
        return order

    def _offset(self, memory: Memory, tensor: Any) -> int:
        itemsize = tensor._meta.dtype.itemsize
        offset, rest = divmod(tensor._ptr - memory.region[0], itemsize)
        reach = offset + sum((n - 1) * s for n, s in zip(tensor._meta.shape, tensor._meta.strides,
                                                         strict=True))
        root = memory.meta
        parts = "c" in tensor._meta.dtype.kind + root.dtype.kind and (  # numbers and their parts
            tensor._meta.dtype.to_real() is root.dtype.to_real())
        if (rest or offset < 0 or tensor._meta.numel and (reach + 1) * itemsize > root.nbytes
                or tensor._meta.dtype is not root.dtype and not parts):
            raise refuse("memory that is used through tensors of different dtypes or extents",
                         "Use one base tensor, and views of it made inside the function.")
        return offset

    def assign(self, tensor: Any, value: Value) -> None:
        """`tensor` has been overwritten with `value`."""
        memory = self.memory_of(tensor)
        region = self._region(tensor)
        if region == memory.region:
            memory.value = value
            memory.views.clear()
            return
        root = _reinterpreted(self._dense(memory), tensor._meta.dtype)
        flat = reshape(root, (root.numel,))
        place = expand(constant(self._offset(memory, tensor), int64, number=False), value.shape)
        for d, stride in enumerate(tensor._meta.strides):
            at = iota(value.shape, d)
            place = add(place, mul(at, filled(stride, at)))
        written = reshape(scatter(flat, [place], value, "set"), root.shape)
        order = self._order(memory)
        written = reshape(_reinterpreted(written, memory.meta.dtype),
                          tuple(memory.meta.shape[d] for d in order))
        memory.value = permute(written, tuple(order.index(d) for d in range(len(order))))
        memory.views.clear()
        memory.views[region] = value

    # ------------------------------------------------------------------ what dispatch reports
    def _arguments(self, args: Sequence) -> list[Value]:
        return [self._read(a) if isinstance(a, TensorBase) else self._number(a) for a in args]

    def _read(self, tensor: Any) -> Value:
        """The elements of an operand; a detached one gives its memory's owner no gradient."""
        value = self.value_of(tensor)
        apart = not tensor._rg or tensor._inherits and tensor._grad_fn is None
        if apart and value.dtype.kind in "fc" and is_recording() \
                and self.memory_of(tensor).has_history:
            return stop_gradient(value)
        return value

    def _number(self, number: Any) -> Value:
        """A Python number: read anew at each replay if its source is known, else a constant."""
        source = self.sources.get(id(number))
        if source is None:
            return constant(number)
        if id(number) not in self.number_values:
            placeholder = number_input(type(number))
            self.number_values[id(number)] = placeholder
            self.numbers.append((placeholder, source))
            self.given_numbers[placeholder] = number
        return self.number_values[id(number)]

    def ran(self, launch: Any, args: Sequence, results: Sequence) -> None:
        """A launch has computed new tensors."""
        self.operations += 1
        values = self._results(launch, args)
        wanted = self._has_history(args)
        for tensor, value in zip(results, values, strict=True):
            self.created(tensor)
            memory = self.memories[id(self._owner(tensor))]
            memory.value = value
            memory.recorded, memory.unrecorded = wanted and is_recording(), wanted and (
                not is_recording())
        self.origins.note(launch.call.name, next_order())

    def _has_history(self, args: Sequence) -> bool:
        """Is something computed of tensors that require grad?"""
        return any(a._rg or self.memory_of(a).unrecorded for a in args
                   if isinstance(a, TensorBase))

    def wrote(self, launch: Any, args: Sequence, targets: Sequence) -> None:
        """A launch has overwritten tensors."""
        self.operations += 1
        values = self._results(launch, args)
        for tensor, value in zip(targets, values, strict=True):
            value = convert(value, tensor._meta.dtype)
            self.assign(tensor, value)
            if not is_recording() and self._has_history(args):
                self.memory_of(tensor).unrecorded = True
        self.origins.note(launch.call.name, next_order())

    def _results(self, launch: Any, args: Sequence) -> Sequence[Value]:
        given = self._arguments(args)
        values = launch.call.build(given)
        if not self.exact:
            return values
        graph, _ = simplify(Graph(tuple(given), values), ())
        return [boundary(value) for value in graph.outputs]

    def viewed(self, launch: Any, base: Any, view: Any) -> None:
        """A view was made: its value is read from the memory when it is needed."""
        self.aliased(base, view)

    def aliased(self, source: Any, alias: Any) -> None:
        """Another tensor for the same memory."""
        self.memory_of(source)
        self.made.append(weakref.ref(alias))

    def randomised(self, kind: str, target: Any, params: tuple, generator: Any) -> None:
        """A stream has filled a tensor."""
        if kind.startswith("bernoulli_float"):
            raise refuse("bernoulli with a tensor of probabilities",
                         "Use rand_like(p) < p, or draw outside of the compiled function.")
        if kind in ("gamma", "poisson", "binomial") or kind.startswith("multinomial"):
            raise refuse(f"{kind} numbers with a tensor of parameters",
                         "Draw outside of the compiled function.")
        meta = target._meta
        order = dense_order(meta.shape, meta.strides)  # the stream fills memory from end to end
        value = random_fill(kind, tuple([meta.shape[d] for d in order]), meta.dtype, params,
                            generator, self.randoms.get(id(generator)))
        self.randoms[id(generator)] = value
        self.kept.append(generator)
        if order != tuple(range(meta.ndim)):
            value = permute(value, tuple([order.index(d) for d in range(meta.ndim)]))
        self.assign(target, value)
        self.origins.note(f"random {kind}", next_order())

    def forgot(self, tensor: Any) -> None:
        """A gradient was dropped: whether there was one before the run is of no account."""
        grad = tensor._grad
        known = None if grad is None else self.memories.get(id(self._owner(grad)))
        if known is not None and known.initial is None:
            self.produced.append(tensor)
        elif all(tensor is not t for t in self.produced):
            self.forgotten.add(id(tensor))
        self.kept.append(tensor)

    def asked(self, tensor: Any) -> None:
        """Python looks at whether a tensor has a gradient."""
        grad, key = tensor._grad, id(tensor)
        if key in self.forgotten or key in self.looked_at:
            return
        known = None if grad is None else self.memories.get(id(self._owner(grad)))
        if known is None or known.initial is not None:
            self.looked_at.add(key)
            self.kept.append(tensor)

    def unforeseen(self, tensor: Any, what: str) -> None:
        """New memory holds what another run would not find there."""
        self.fleeting.append((self.value_of(tensor), what))

    def read(self, tensor: Any) -> None:
        """Python wants to see elements."""
        meta = tensor._meta
        raise refuse(f"reading a tensor's value in Python (.item(), print, bool, numpy), here of "
                     f"shape {list(meta.shape)} and dtype {meta.dtype!r},",
                     "Return the tensor and read it outside of the compiled function; choose by "
                     "value with torch.where.")

    def host(self, what: str) -> None:
        """Python state is about to change in a way that a replay would not repeat."""
        raise refuse(what, "Do it outside of the compiled function.")

    # ------------------------------------------------------------------ results
    def writes(self) -> list[Memory]:
        """The storages older than the run that it has changed."""
        return [m for m in self.memories.values()
                if m.initial is not None and m.value is not m.initial]


class Forgiving:
    """A capture that gives up instead of interrupting the run: what the function has done so far
    must not be lost because it cannot be captured.

    Attributes:
        failure: why the capture was given up, or None.
    """

    def __init__(self, capture: Capture):
        self.capture = capture
        self.exact = capture.exact
        self.failure: CaptureError | None = None

    def excused(self, error: Exception) -> CaptureError:
        """What to give up with when a report fails; raises what is a fault of its own."""
        if isinstance(error, CaptureError):
            return error
        raise error


def _forgiving(name: str) -> Any:
    def report(self: Forgiving, *args: Any) -> None:
        if self.failure is None:
            try:
                getattr(self.capture, name)(*args)
            except Exception as error:
                self.failure = self.excused(error)

    report.__name__ = name
    return report


def _on_own_thread(event: Callable) -> Callable:
    @functools.wraps(event)
    def report(self: Capture, *args: Any) -> None:
        if threading.get_ident() == self.thread:
            event(self, *args)

    return report


for _name in ("created", "given", "ran", "wrote", "viewed", "aliased", "randomised", "read",
              "forgot", "asked", "unforeseen", "host"):
    setattr(Capture, _name, _on_own_thread(getattr(Capture, _name)))
    setattr(Forgiving, _name, _forgiving(_name))
