"""Which memory a program gives, where results of a function share it.

Results may be views of one another, or of something that is not returned. Then the program gives
what they are views of, the *base*, and replays make the views.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.compile.capture import Capture, refuse
from flambeau.compile.differentiable import is_alias, leads_to
from flambeau.compile.interface import has_own_elements
from flambeau.core.shapes import dense_order
from flambeau.tensor import interop

__all__ = ["Parts"]


class Parts:
    """The results of a run that lie in memory which it has made, grouped.

    Attributes:
        outside: ids of the tensors that are older than the run.
        bases: one tensor for each piece of memory, in the order of the results.
        parts: id of a result that is none of these -> (its base, what `view_of` needs to make it).
    """

    def __init__(self, capture: Capture, results: Sequence, outside: Sequence,
                 gradients: Sequence):
        """
        Args:
            results: tensors that are returned; `outside`: those that are older than the run.
            gradients: the new gradients of leaves, which are given in any case.

        Raises:
            CaptureError: they share memory in a way that replays would not repeat.
        """
        self.capture = capture
        self.bases: list[Any] = []
        self.parts: dict[int, tuple] = {}
        self.outside = {id(t) for t in outside}
        given = {id(Capture._owner(grad)): grad for grad in gradients}
        others = self.outside.union(map(id, gradients))
        groups: dict[int, list] = {}
        for tensor in {id(t): t for t in results if id(t) not in others}.values():
            known = capture.memory_of(tensor)
            if is_alias(known, tensor):
                continue
            if known.initial is not None and (
                    tensor._grad_fn is None or leads_to(tensor.grad_fn, known.tensor)):
                raise _unlike()  # a leaf of its own, or a view of one that is a view itself
            groups.setdefault(id(Capture._owner(tensor)), []).append(tensor)
        for owner, group in groups.items():
            self._note(group, given.get(owner))

    def _note(self, group: list, base: Any) -> None:
        if base is None and len(group) == 1 and has_own_elements(group[0]._meta):
            self.bases.append(group[0])
            return
        if base is None:
            base = self._base(group)
            self.bases.append(base)
        for tensor in group:
            if tensor is not base:
                self._check(base, tensor)
                self.parts[id(tensor)] = (base, tensor._meta, tensor._ptr - base._ptr, tensor._rg,
                                          tensor._inherits)

    def _base(self, group: list) -> Any:
        """What all of them are views of."""
        candidates = [t._base for t in group if t._base is not None] + group
        whole = [t for t in candidates if self._is_whole(t)]
        if whole:
            return max(whole, key=_rank)
        if any(t._rg for t in group):
            raise _unlike()
        ptr, meta = self.capture.memory_of(group[0]).region
        return interop.new_view(group[0]._storage, ptr, meta)

    def _is_whole(self, tensor: Any) -> bool:
        known, meta = self.capture.memory_of(tensor), tensor._meta
        return (known.initial is None and tensor._ptr == known.region[0]
                and dense_order(meta.shape, meta.strides) is not None
                and meta.nbytes == known.meta.nbytes and meta.dtype is known.meta.dtype)

    def _check(self, base: Any, tensor: Any) -> None:
        """Will `view_of` make this?"""
        if not tensor._rg or tensor._inherits and tensor._base is not None:
            return
        inside = tensor._base is not None and (tensor._base is base or tensor._base is base._base)
        if not inside or not base._rg or not leads_to(tensor.grad_fn, base):
            raise _unlike()


def _rank(tensor: Any) -> tuple:
    """The one with a history, which is no view itself, is the base of the others."""
    return tensor._rg and tensor._grad_fn is not None, tensor._base is None


def _unlike() -> NotImplementedError:
    return refuse("a result that shares memory with another tensor, but is no view of it,",
                  "Return a clone of one of them.")
