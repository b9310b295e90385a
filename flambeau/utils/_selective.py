"""Selective checkpointing: of a checkpointed function, a policy says which results are kept.

The first run asks the policy about the result of every operation; what shall be saved is kept
outside of the tape. In the second run, an operation whose result was kept is recorded as always,
but not computed. Both hang on dispatch's general path (`taking_over`); views and operations in
place are always done again, and nobody is asked about them.
"""

from __future__ import annotations

import collections
import enum
import threading
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.autograd.grad_mode import no_grad
from flambeau.library.aten import AtenOverload, AtenPacket, called, packet
from flambeau.library.operators import OpOverload, OpOverloadPacket
from flambeau.ops.record import Op
from flambeau.tensor import Tensor, dispatch, tape

__all__ = ["SAC_IGNORED_OPS", "CheckpointPolicy", "GraphExecGroup", "SelectiveCheckpointContext",
           "create_selective_checkpoint_contexts"]


class CheckpointPolicy(enum.Enum):
    """What a policy may answer about the result of an operation. MUST and PREFER are the same here;
    so are saving, and moving to the CPU, where tensors live anyway."""

    MUST_SAVE = 0
    PREFER_SAVE = 1
    MUST_RECOMPUTE = 2
    PREFER_RECOMPUTE = 3
    MUST_CPU_OFFLOAD = 4
    PREFER_CPU_OFFLOAD = 5


_COMPUTED_AGAIN = (CheckpointPolicy.MUST_RECOMPUTE, CheckpointPolicy.PREFER_RECOMPUTE)


class SelectiveCheckpointContext:
    """What a policy is told besides the operation and its arguments.

    Attributes:
        is_recompute: always False: the policy is asked in the first run only.
        op_output: the result.
    """

    def __init__(self, *, is_recompute: bool, op_output: Any = None) -> None:
        self.is_recompute, self.op_output = is_recompute, op_output


SAC_IGNORED_OPS = {found.overload("default") for found in map(packet, (
    "detach", "size", "stride", "numel", "dim", "is_contiguous", "storage_offset"))
    if found is not None}
"""Operations that no policy is asked about: they compute nothing."""


def create_selective_checkpoint_contexts(policy_fn_or_list: Any,
                                         allow_cache_entry_mutation: bool = False) -> tuple:
    """The contexts of the two runs of `checkpoint(..., context_fn=...)`, of which the second takes
    some results from the first.

    Args:
        policy_fn_or_list: policy(context, op, *args, **kwargs) that gives a CheckpointPolicy, or a
            list of the operations whose results are kept. Operations are those of
            `torch.ops.aten` and of custom operators.
        allow_cache_entry_mutation: do not raise if a result that was kept has been written to.

    Raises:
        TypeError: neither a function nor a list.
        ValueError: something in the list is no operation.
    """
    if isinstance(policy_fn_or_list, list):
        policy = _policy_of(policy_fn_or_list)
    elif callable(policy_fn_or_list):
        policy = policy_fn_or_list
    else:
        raise TypeError("policy_fn_or_list must be either a function or a list of ops.")
    kept = _Kept(allow_cache_entry_mutation)
    return _FirstRun(kept, policy), _SecondRun(kept)


def _policy_of(chosen: Sequence) -> Callable:
    ops = set()
    for op in chosen:
        if isinstance(op, (AtenPacket, OpOverloadPacket)):
            op = op.overload("default") if isinstance(op, AtenPacket) else op.default
        if not isinstance(op, (AtenOverload, OpOverload)):
            raise ValueError(f"Expected op in `op_list` to be an OpOverload but got: {op} of type "
                             f"{type(op)}. Name it as torch.ops.aten.mm.default.")
        ops.add(op)

    def policy(context: SelectiveCheckpointContext, op: Any, *args: Any, **kwargs: Any
               ) -> CheckpointPolicy:
        return (CheckpointPolicy.MUST_SAVE if op in ops else CheckpointPolicy.PREFER_RECOMPUTE)

    return policy


class _Kept:
    """Results of the first run by (operation, how many calls of it came before)."""

    def __init__(self, mutable: bool) -> None:
        self.mutable = mutable
        self.results: dict[tuple, tuple | None] = {}  # None: taken out

    def put(self, key: tuple, results: Any) -> None:
        many = isinstance(results, (list, tuple))
        tensors = [tape.alias_of(x) if isinstance(x, Tensor) else x
                   for x in (results if many else [results])]
        versions = [x._storage.version if isinstance(x, Tensor) else None for x in tensors]
        self.results[key] = tensors, versions, type(results) if many else None

    def take(self, key: tuple) -> Any:
        """The results, which are let go here.

        Raises:
            RuntimeError: they are gone, or have been written to.
        """
        entry = self.results[key]
        if entry is None:
            raise RuntimeError(
                "Trying to backward an extra time. You are only allowed to backward once on any "
                "region computed under selective activation checkpoint.")
        self.results[key] = None
        tensors, versions, kind = entry
        if not self.mutable and versions != [
                x._storage.version if isinstance(x, Tensor) else None for x in tensors]:
            raise RuntimeError(
                "Tensor cached during selective activation checkpoint has been mutated: the result "
                f"of {key[0]} was written to in place. Clone it before, or pass "
                "allow_cache_entry_mutation=True.")
        return tensors[0] if kind is None else kind(tensors)


class _Run:
    """A run of the function, in which operations are taken over."""

    def __init__(self, kept: _Kept) -> None:
        self.kept = kept
        self.before: list = []
        self.counts: collections.Counter = collections.Counter()

    def __enter__(self) -> None:
        self.counts.clear()
        self.before.append(dispatch.taking_over.runner)
        dispatch.taking_over.runner = self.answer
        dispatch.ACTIVE.append(self)

    def __exit__(self, *error: Any) -> None:
        dispatch.ACTIVE.remove(self)
        dispatch.taking_over.runner = self.before.pop()

    def answer(self, what: Any, args: Sequence, run: Callable[[], Any]) -> Any:
        """The result of an operation; what it does itself is not looked at."""
        dispatch.taking_over.runner = None
        try:
            with no_grad():
                op, shown = called(what, args) if isinstance(what, Op) else (what, tuple(args))
                if op in SAC_IGNORED_OPS:
                    return run()
                key = op, self.counts[op]
                self.counts[op] += 1
                return self.result(key, shown, run)
        finally:
            dispatch.taking_over.runner = self.answer

    def result(self, key: tuple, args: tuple, run: Callable[[], Any]) -> Any:
        """The result of the operation with this key."""
        raise NotImplementedError


class _FirstRun(_Run):
    def __init__(self, kept: _Kept, policy: Callable) -> None:
        super().__init__(kept)
        self.policy = policy

    def result(self, key: tuple, args: tuple, run: Callable[[], Any]) -> Any:
        found = run()
        single = isinstance(found, list) and len(found) == 1
        shown = found[0] if single else tuple(found) if isinstance(found, list) else found
        context = SelectiveCheckpointContext(is_recompute=False, op_output=shown)
        verdict = self.policy(context, key[0], *args)
        if isinstance(verdict, bool):
            verdict = (CheckpointPolicy.MUST_SAVE if verdict
                       else CheckpointPolicy.PREFER_RECOMPUTE)
        if not isinstance(verdict, CheckpointPolicy):
            raise TypeError("a checkpoint policy must return a CheckpointPolicy, got "
                            f"{type(verdict).__name__} for {key[0]}")
        if verdict not in _COMPUTED_AGAIN:
            self.kept.put(key, found)
        return found


class _SecondRun(_Run):
    def result(self, key: tuple, args: tuple, run: Callable[[], Any]) -> Any:
        return self.kept.take(key) if key in self.kept.results else run()


# ---------------------------------------------------------------------- several backwards
class _Group(threading.local):
    current: GraphExecGroup | None = None


_group = _Group()


class GraphExecGroup:
    """Several backwards inside of the block, over different parts of a checkpointed function, make
    it run again at most once. Here they always do: what the second run has found waits for them.

    Raises:
        RuntimeError: when it is entered inside of another.
    """

    def __enter__(self) -> None:
        if _group.current is not None:
            raise RuntimeError("GraphExecGroup contexts do not support nested usage. Please ensure "
                               "that the previous group is exited before entering a new one.")
        _group.current = self

    def __exit__(self, *error: object) -> None:
        _group.current = None

    @classmethod
    def _get_current_group(cls) -> GraphExecGroup | None:
        """The block that the thread is in."""
        return _group.current
