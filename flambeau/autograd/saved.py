"""Saved tensors: what a node keeps for its backward, and the check that it did not change.

The usual case costs next to nothing: `node.tape_saved` holds the tensors themselves and
`node.tape_versions` the version each storage had. Only what needs more (outputs of the node itself,
which would make a reference cycle, and tensors that `saved_tensors_hooks` packs) goes into a box, a
`SavedTensor`.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from flambeau.autograd import tape
from flambeau.autograd.grad_mode import (
    INSIDE,
    SAVED_HOOKS,
    is_recording,
    mode,
    no_grad,
    set_bits,
)
from flambeau.autograd.registry import tensors
from flambeau.core import errors
from flambeau.core.errors import Location

__all__ = ["SavedTensor", "save", "unpack", "saved_tensors_hooks", "save_on_cpu",
           "disable_saved_tensors_hooks", "allow_mutation_on_saved_tensors", "BACKWARD_TWICE"]

BACKWARD_TWICE = (
    "Trying to backward through the graph a second time (or directly access saved tensors after "
    "they have already been freed). Saved intermediate values of the graph are freed when you "
    "call .backward() or autograd.grad(). Specify retain_graph=True if you need to backward "
    "through the graph a second time or if you need to access saved tensors after calling "
    "backward.")


def save(node: Any, tensors: Sequence[Any], outputs: int = 0,
         where: Location | None = None) -> None:
    """Keep `tensors` (None allowed) with `node`; the last `outputs` of them are its own outputs."""
    inputs = len(tensors) - outputs
    if outputs or mode() & SAVED_HOOKS:
        node.tape_saved = tuple(
            None if tensor is None else
            tensor if index < inputs and not mode() & SAVED_HOOKS else
            SavedTensor(tensor, index >= inputs, None, where)
            for index, tensor in enumerate(tensors))
        node.tape_versions = tuple(
            None if kept is None or kept.__class__ is SavedTensor else +kept._storage.version
            for kept in node.tape_saved)
    else:
        node.tape_saved = tuple(tensors)
        node.tape_versions = tuple([None if tensor is None else +tensor._storage.version
                               for tensor in tensors])
    node.tape_where = where


def unpack(node: Any) -> tuple:
    """The tensors that `node` saved, after checking that none was changed since.

    Raises:
        RuntimeError: one was written in place; or they were freed by an earlier backward.
    """
    saved = node.tape_saved
    if saved is tape.RELEASED:
        raise RuntimeError(BACKWARD_TWICE)
    for tensor, version in zip(saved, node.tape_versions):  # noqa: B905
        if version is None:
            if tensor is not None:
                return _unpack_boxes(node)
        elif tensor._storage.version != version:
            raise _changed_error(tensor, version, node.tape_where)
    return saved


def _unpack_boxes(node: Any) -> tuple:
    result = []
    for kept, version in zip(node.tape_saved, node.tape_versions, strict=True):
        if kept.__class__ is SavedTensor:
            kept = kept.unpack(node)
        elif version is not None and kept._storage.version != version:
            raise _changed_error(kept, version, node.tape_where)
        result.append(kept)
    return tuple(result)


class SavedTensor:
    """One tensor kept for a backward, in full generality.

    Args:
        tensor: what to keep.
        is_output: True if `tensor` is an output of the node that keeps it. Then only an alias
            without history is kept, and `unpack(node)` gives the history back.
        version: the version to expect; the present one if None.
        where: the location that records the operation, for the error message.
    """

    __slots__ = ("tensor", "version", "where", "output_nr", "requires_grad", "grad_fn",
                 "packed", "unpack_hook")

    def __init__(self, tensor: Any, is_output: bool, version: int | None = None,
                 where: Location | None = None) -> None:
        self.where = where
        self.version = +tensor._storage.version if version is None else version
        self.output_nr = None
        self.unpack_hook = None
        self.packed = None
        self.grad_fn = None
        self.requires_grad = tensor._rg
        if is_output:
            self.output_nr = tensor._output_nr
            with no_grad():
                self.tensor = tensor.detach()
            if mode() & INSIDE:  # tangents that it is about to be given
                if tensor._tangents is None:
                    tensor._tangents = {}
                self.tensor._tangents = tensor._tangents
        else:
            self.tensor = tensor
        if mode() & SAVED_HOOKS:
            pair = _HOOKS.get()[-1]
            if pair is not None:
                self._pack(*pair)

    def register_hooks(self, pack: Callable[[Any], Any], unpack: Callable[[Any], Any]) -> None:
        """Let this one tensor pass through a pair of hooks (`grad_fn._raw_saved_self`)."""
        if self.unpack_hook is not None:
            raise RuntimeError("Calling register_hooks on a saved tensor whose hooks have already "
                               "been set. Hint: only one pair of hooks is allowed at a time.")
        self._pack(pack, unpack)

    def _pack(self, pack: Callable[[Any], Any], unpack: Callable[[Any], Any]) -> None:
        tensor = self.tensor
        if self.output_nr is None:
            self.grad_fn = tape.edge_of(tensor)
        with no_grad():
            # an argument itself: hooks may look whether it is a parameter, or a leaf
            given = tensor if self.output_nr is None else tensor.detach()
            version = +given._storage.version
            self.packed = pack(given)
        if given._storage.version != version:
            raise RuntimeError("A saved tensor pack hook is modifying its input in place. Tensors "
                               "provided as input to pack hook can not be modified by in-place "
                               "operations as this can lead to unexpected side-effects. Please "
                               "open an issue if you need to perform in-place operations on the "
                               "input to a pack hook.")
        self.unpack_hook = unpack
        self.tensor = None

    def unpack(self, node: Any = None) -> Any:
        """The tensor, with its history if recording is on; `node` is the keeper."""
        tensor = self.tensor
        if self.unpack_hook is not None:
            tensor = self.unpack_hook(self.packed)
            if not isinstance(tensor, tensors.cls):
                raise TypeError("Output of saved tensor unpack_hook expected to be a Tensor but "
                                f"got result of type {type(tensor).__name__}")
        elif tensor._storage.version != self.version:
            raise _changed_error(tensor, self.version, self.where, node, self.output_nr)
        elif self.output_nr is None:
            return tensor
        if not is_recording() or not self.requires_grad:
            return tensor
        edge = (node, self.output_nr) if self.output_nr is not None else self.grad_fn
        return _with_history(tensor, edge)


def _with_history(tensor: Any, edge: tuple[Any, int]) -> Any:
    """An alias of `tensor` that hangs on `edge`."""
    node, output_nr = edge
    with no_grad():
        alias = tensor.detach()
    if mode() & INSIDE:
        alias._tangents = tensor._tangents
    alias._rg = True
    if isinstance(node, tape.AccumulateGrad):  # a leaf: gradients go where the leaf's go
        alias._accumulator = _Constant(node)
    else:
        alias._grad_fn = node
        alias._output_nr = output_nr
    return alias


class _Constant:
    """Calls like a weak reference, but keeps its object."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self) -> Any:
        return self.value


def _changed_error(tensor: Any, version: int, where: Location | None, node: Any = None,
                   output_nr: int | None = None) -> RuntimeError:
    """The error for a saved tensor that is no longer at `version`."""
    node = tensor._grad_fn if output_nr is None else node
    kind = getattr(tensor.dtype, "legacy", tensor.dtype)
    text = ["one of the variables needed for gradient computation has been modified by an inplace "
            f"operation: [torch.{kind} {list(tensor.shape)}]"]
    if node is not None:
        text.append(f", which is output {output_nr or tensor._output_nr or 0} of {node.name()},")
    now = tensor._storage.version
    text.append(f" is at version {now}; expected version {version} instead.")
    if where is not None:
        text.append(f"\n  needed by  {errors.describe(where)}")
    writer = errors.last_write(tensor._storage)
    if writer is not None:
        text.append(f"\n  changed by {writer}")
    if where is None and writer is None:
        text.append(" Hint: enable anomaly detection to find the operation that failed to compute "
                    "its gradient, with torch.autograd.set_detect_anomaly(True).")
    return RuntimeError("".join(text))


# The stack of (pack, unpack) pairs of this thread; None is a level where hooks are off.
_HOOKS: ContextVar[tuple] = ContextVar("flambeau_saved_hooks", default=())
_DISABLED: ContextVar[str | None] = ContextVar("flambeau_saved_hooks_disabled", default=None)


class saved_tensors_hooks:
    """Within the block, every tensor saved for a backward is replaced by `pack_hook(tensor)`.

    The backward calls `unpack_hook(packed)`, which must give a tensor with the same content.
    Blocks nest; the innermost one acts.

    >>> x = torch.tensor([2.]).requires_grad_()
    >>> with torch.autograd.graph.saved_tensors_hooks(lambda t: t.numpy(), torch.from_numpy):
    ...     y = x * x
    >>> y.backward()
    >>> x.grad
    tensor([4.])
    """

    def __init__(self, pack_hook: Callable[[Any], Any], unpack_hook: Callable[[Any], Any]) -> None:
        self.pack_hook = pack_hook
        self.unpack_hook = unpack_hook

    def __enter__(self) -> None:
        message = _DISABLED.get()
        if message is not None:
            raise RuntimeError(message)
        _HOOKS.set((*_HOOKS.get(), (self.pack_hook, self.unpack_hook)))
        set_bits(SAVED_HOOKS, SAVED_HOOKS)

    def __exit__(self, *exc_info: object) -> None:
        _HOOKS.set(_HOOKS.get()[:-1])
        set_bits(SAVED_HOOKS, SAVED_HOOKS if _HOOKS.get() else 0)


class save_on_cpu(saved_tensors_hooks):
    """Within the block, saved tensors wait in CPU memory.

    Args:
        pin_memory: keep them in pinned memory, for faster and asynchronous copies.
        device_type: the type of device to move from.

    >>> x = torch.ones(2, requires_grad=True)
    >>> with torch.autograd.graph.save_on_cpu():
    ...     y = x.exp().sum()
    >>> y.backward()
    >>> x.grad
    tensor([2.7183, 2.7183])
    """

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        def pack_to_cpu(tensor: Any) -> tuple[Any, Any]:
            copy = tensor.to("cpu")
            if pin_memory and copy is not tensor:
                copy = copy.pin_memory()
            return tensor.device, copy

        def unpack_from_cpu(packed: tuple[Any, Any]) -> Any:
            device, copy = packed
            return copy.to(device, non_blocking=pin_memory)

        super().__init__(pack_to_cpu, unpack_from_cpu)


class allow_mutation_on_saved_tensors(saved_tensors_hooks):
    """Within the block, what a backward needs may be written to: copies are kept, made when an
    operation saves its tensors (PyTorch makes them when they are written to). They are given up at
    the end of the block, so the backward runs inside.

    >>> x = torch.ones(2, requires_grad=True)
    >>> with torch.autograd.graph.allow_mutation_on_saved_tensors():
    ...     y = 3 * x
    ...     z = (y ** 2).sum()
    ...     _ = y.zero_()
    ...     z.backward()
    >>> x.grad
    tensor([18., 18.])
    """

    def __init__(self) -> None:
        self.copies: dict[object, Any] = {}
        super().__init__(self._keep, self._copy)

    def _keep(self, tensor: Any) -> object:
        ticket = _Ticket()
        self.copies[id(ticket)] = tensor.clone()
        weakref.finalize(ticket, self.copies.pop, id(ticket), None)
        return ticket

    def _copy(self, ticket: object) -> Any:
        if id(ticket) not in self.copies:
            raise AssertionError("Trying to backward outside of the "
                                 "'allow_mutation_on_saved_tensors' context in which the graph was "
                                 "originally recorded.")
        return self.copies[id(ticket)]

    def clear(self) -> None:
        """Give up the copies."""
        self.copies.clear()

    def __enter__(self) -> allow_mutation_on_saved_tensors:
        super().__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        self.clear()


class _Ticket:
    """Stands for a copy; the copy goes with it."""

    __slots__ = ("__weakref__",)


class disable_saved_tensors_hooks:
    """Within the block, entering `saved_tensors_hooks` raises RuntimeError(`error_message`).

    >>> with torch.autograd.graph.disable_saved_tensors_hooks("no hooks here"):
    ...     y = torch.ones(2, requires_grad=True).exp()
    >>> y
    tensor([2.7183, 2.7183], grad_fn=<ExpBackward0>)
    """

    def __init__(self, error_message: str) -> None:
        self.error_message = error_message

    def __enter__(self) -> None:
        self._before = _DISABLED.get()
        _DISABLED.set(self.error_message)

    def __exit__(self, *exc_info: object) -> None:
        _DISABLED.set(self._before)

    def __call__(self, func: Callable) -> Callable:
        @functools.wraps(func)
        def without_hooks(*args: Any, **kwargs: Any) -> Any:
            with disable_saved_tensors_hooks(self.error_message):
                return func(*args, **kwargs)

        return without_hooks


