"""What `torch.compile` returns: chooses a program for a call, or captures a new one."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flambeau.autograd.grad_mode import mode
from flambeau.autograd.tape import next_order
from flambeau.compile.capture import Capture, CaptureError, Forgiving, refuse
from flambeau.compile.deferral import deferring, possible
from flambeau.compile.differentiable import trace_backward
from flambeau.compile.dynamic import Cautious, Shapes, SymbolicError
from flambeau.compile.first_call import FirstCall, detached
from flambeau.compile.guards import Following, Guard, Sharing
from flambeau.compile.origins import BEGINS
from flambeau.compile.reach import Reach
from flambeau.compile.recording import Gradients, Marks, Recording
from flambeau.compile.replay import Replay
from flambeau.compile.results import Parts
from flambeau.compile.segments import Segments
from flambeau.compile.stance import stance
from flambeau.compile.surroundings import backward_within, reporting
from flambeau.compile.trees import (
    Computed,
    Passed,
    containers,
    flatten,
    is_container,
    objects_in,
    rebuild,
    values_key,
    with_passed,
    without_passed,
    written_back,
)
from flambeau.core.symbolic import Unfit
from flambeau.nn.modules._hooks import tables
from flambeau.runtime import memory
from flambeau.tensor import autocast, dispatch, launches

__all__ = ["AMBIENT", "Compiled"]

ATTEMPTS = 4  # runs that may leave new state behind before a function is taken to be unsteady
MUCH = 1 << 24  # bytes of temporaries for which freed memory goes back to the system first
LIMIT = 8  # programs for arguments of the same layouts; more would be compiled for ever

AMBIENT: list[Callable[[], Any]] = [autocast.setting]
"""Functions that tell hashable state of the thread which decides what operations do."""


class Compiled:
    """A function with its captured programs.

    Attributes:
        function: what is compiled.
        programs: those for each signature, the latest first.
        eager: signatures under which the function cannot be captured whole.
        segments: runs it in captured parts then.
        shapes: which sizes of its arguments vary, and the programs for all of them.
        history: what happened, in plain words.
    """

    def __init__(self, function: Any, exact: bool = False, fullgraph: bool = False,
                 dynamic: bool | None = None):
        self.function = function
        self.shapes = Shapes(dynamic, exact)
        self.dynamic = dynamic
        self.exact = exact
        self.fullgraph = fullgraph
        functools.update_wrapper(self, function, updated=())
        launches.resettable.add(self)
        self.eager: set = set()
        self.segments = Segments(exact)
        self.programs: dict[Any, list[Replay]] = {}
        self.history: list[str] = []
        self.recordings: list[Recording] | None = None  # filled where somebody wants them
        self._called = False
        self._attempts: dict[Any, int] = {}
        self._counts: dict[Any, int] = {}  # programs for the same layouts
        self._moving: set[tuple] = set()  # places whose numbers have been seen to change
        self._loose: dict[Any, set[int]] = {}  # which numbers among the arguments change
        self._met: dict[Any, tuple] = {}  # the numbers of the latest call, by what else there was

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if dispatch.observers or deferring():  # inside another capture: become part of it
            return self.function(*args, **kwargs)
        taken = stance()
        if taken and taken[-1] == "force_eager":
            return self.function(*args, **kwargs)
        leaves: list = []
        numbers: list = []
        key = flatten((args, kwargs), leaves, numbers)
        owners = [id(Capture._owner(t)) for t in leaves]
        shared = sharing(leaves, owners)
        word = mode()
        if shared is MIXED or word > 3:  # anomaly mode, hooks on what is saved; see `sharing`
            return self.function(*args, **kwargs)
        rest = (word, key, tuple([(t._meta, t._rg, t._grad is None, t.__class__,
                                   t._hooks and id(t._hooks)) for t in leaves]),
                shared, *[tell() for tell in AMBIENT])
        signature = (rest, values_key(numbers, self._loose.get(rest, ()))) if numbers else rest
        programs = self.programs.get(signature)
        if programs is not None:
            for program in programs:
                if program.guard.holds(leaves, numbers, owners):
                    return self._replayed(program, leaves, numbers, args, kwargs)
        if signature in self.eager or len(self.eager) >= LIMIT:
            return self.segments.run(self.function, args, kwargs)
        values = signature[1] if numbers else ()
        bound = self.shapes.bound(rest, values, leaves, numbers, owners)
        if bound is not None:
            self.shapes.remember(self.programs, signature, bound)
            return self._replayed(bound, leaves, numbers, args, kwargs)
        run = _Run(self, rest, key, leaves, numbers, (args, kwargs))
        if taken and self._stands(taken[-1], run):
            return self.function(*args, **kwargs)
        return run.capture()

    def _replayed(self, program: Replay, leaves: list, numbers: list, args: tuple, kwargs: dict
                  ) -> Any:
        """What a program gives. If one of its kernels reports an error, the function itself says
        which operation that was; but not where memory may have been overwritten."""
        try:
            found = program.run(leaves, numbers)
        except Exception as error:
            if not (getattr(error, "of_kernel", False) and program.repeatable):
                raise
        else:
            return without_passed(found, (args, kwargs)) if program.passes else found
        return self.function(*args, **kwargs)

    def _stands(self, taken: str, run: _Run) -> bool:
        """Does the stance of the thread forbid to capture this call?"""
        if taken == "fail_on_recompile":
            raise RuntimeError("torch.compile: a call that no program serves, while "
                               "set_stance(\"fail_on_recompile\") is in force: "
                               + run.explained_reason())
        first, self._called = not self._called, True
        return taken == "eager_on_recompile" or first and taken.endswith("eager_then_compile")

    def forget(self) -> None:
        """Drop the programs; the next calls are captured again."""
        self.programs.clear()
        self.shapes.forget()
        self.segments.forget()
        self.eager.clear()
        self._attempts.clear()
        self._counts.clear()
        self._met.clear()

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __deepcopy__(self, memo: dict) -> Compiled:
        return type(self)(copy.deepcopy(self.function, memo), self.exact, self.fullgraph,
                          self.dynamic)

    def __copy__(self) -> Compiled:
        return type(self)(self.function, self.exact, self.fullgraph, self.dynamic)

    def __reduce__(self) -> Any:
        name = getattr(self, "__qualname__", "")
        if getattr(sys.modules.get(getattr(self, "__module__", "")), name, None) is self:
            return name  # found under its name, as any function
        raise TypeError(f"a compiled function ({self.function!r}) cannot be pickled: its programs "
                        "are native code of this process. Pickle the function itself (`._orig`) "
                        "and compile it again.")

    @property
    def _orig(self) -> Any:
        """The function as it was given."""
        return self.function

    _torchdynamo_orig_callable = _orig  # as third-party code asks for it

    def explain(self, times: bool = True) -> str:
        """What became of the calls, and of what kernels and memory the programs consist, in plain
        words.

        Args:
            times: run each kernel by itself, on memory of its own, and say how long it takes.
        """
        from flambeau.compile.explain import explain

        return explain(self, times)

    def graph_html(self, path: Any = None, times: bool = True) -> str:
        """The programs as one self-contained HTML page: kernels in order and what flows between
        them, coloured by time. It is also written to `path`, if given."""
        from flambeau.compile.page import page

        return page(self, path, times)


class _Run:
    """One call that is captured."""

    def __init__(self, owner: Compiled, rest: Any, key: Any, leaves: list, numbers: list,
                 given: tuple[tuple, dict]):
        self.owner, self.given = owner, given
        self.rest, self.key, self.leaves, self.numbers = rest, key, leaves, numbers
        self.loose = self._loosen()
        values = values_key(numbers, self.loose)
        self.signature = (rest, values) if numbers else rest
        self.following = Following()
        self.symbols = owner.shapes.begin(rest, values, leaves)
        self.finished: tuple[Capture, Recording] | None = None
        self.first: FirstCall | None = None
        self.left_behind: Recording | None = None  # with what the run has left behind in it

    def _loosen(self) -> set[int]:
        """Which numbers among the arguments have changed from call to call: those are followed."""
        owner, loose = self.owner, self.owner._loose.setdefault(self.rest, set())
        before = owner._met.get(self.rest)
        if before is not None and all(
                type(a) is type(b) for a, b in zip(before, self.numbers, strict=True)):
            loose |= {i for i, (a, b) in enumerate(zip(before, self.numbers, strict=True))
                      if a != b}
        owner._met[self.rest] = tuple(self.numbers)
        return loose

    def capture(self) -> Any:
        """Run the function for real and keep what it did as a program, if that is possible."""
        try:
            with self.symbols or contextlib.nullcontext():
                result = self._record()
            if self.finished is not None:
                with collector_paused():
                    self._keep(*self.finished)
            elif self.left_behind is not None:
                with collector_paused():
                    self._compute(self.left_behind, Replay(self.left_behind, None))
        finally:
            if self.first is not None:
                self.first.close()
        return result

    def _compute(self, recording: Recording, replay: Replay) -> None:
        """Let the program compute this very call, if nothing has been computed so far."""
        self.grads.before.clear()  # gradients that the run has dropped make room
        if self.first is not None and self.first.fits(recording):
            self.first.compute(recording, replay, self.leaves)

    def _record(self) -> Any:
        """The function's result; `finished` is set if the run can be kept."""
        owner = self.owner
        self.reason = self.explained_reason()
        args, kwargs = self._arguments()
        self.reach = Reach(("", owner.function), ("hooks of all modules", tables.any_call),
                           *objects_in(self.key))
        failure = self._hopeless()
        if failure is not None:
            self._give_up(failure, None)
            return owner.segments.run(owner.function, args, kwargs)
        outside = [*self.reach.tensors, *self.leaves]
        self.grads, marks = Gradients(outside), Marks(outside)
        self._follow()
        capture = Capture(self.following.readings.sources, owner.exact)
        capture.bind(self.leaves)
        for leaf, grad in self.grads.before.values():
            if grad is not None:
                capture.spots.setdefault(id(grad), ("grad", leaf))
        observer = Cautious(capture) if self.symbols is not None else (
            capture if owner.fullgraph else Forgiving(capture))
        entered = next_order()
        if self.symbols is None:
            self.first = FirstCall.begin(capture)
        with backward_within(entered):
            result, shape, outputs = self._observed(observer, args, kwargs)
        if isinstance(observer, Forgiving) and observer.failure is not None:
            return self._give_up(observer.failure, result)
        failure = self._refusal(capture, marks)
        if failure is not None:
            return self._give_up(failure, result)
        changes = self.grads.changes(capture)
        gradients = [grad for _, grad in changes]
        mark = self.first and self.first.mark()
        try:
            parts = Parts(capture, outputs, outside, gradients)
            with self.reach.undisturbed("a backward that changes Python state"):
                joint = trace_backward(observer, capture, [*parts.bases, *gradients], self.leaves,
                                       self.reach.tensors, entered)
            finished = Recording(capture, self.leaves, outputs, shape, changes, parts, joint)
        except CaptureError as error:
            if self.first is not None:
                self.first.forget_since(mark)
            return self._give_up(error, result)
        escaped = finished.escaped()
        left = self._state_left(escaped, changes)
        if left:
            if self.first is not None and joint is None and detached(escaped) \
                    and self.first.worthwhile():
                both = [*outputs, *escaped]
                self.left_behind = Recording(capture, self.leaves, both, shape, changes,
                                             Parts(capture, both, outside, gradients))
            return self._unsteady(left, result)
        if self.symbols is not None:
            self.symbols.note(finished)
        self.finished = capture, finished
        return result

    def _hopeless(self) -> CaptureError | None:
        """Why there is no point in a capture, if so."""
        for path, what in self.reach.unrepeatable:
            return refuse(f"{what} ({path})", "Do it outside of the compiled function, and pass "
                          "what it gives as an argument.")
        for leaf in self.leaves:
            if not leaf._meta.strided:
                return refuse(f"an argument of layout {leaf.layout!r}, which has no memory of its "
                              "own", "Pass its parts, and put it together in the function.")
        if self.owner._counts.get(self.rest, 0) >= LIMIT:
            return refuse(f"more than {LIMIT} programs for arguments of the same layouts "
                          f"({self.reason})", "Let fewer Python values change, or make tensors of "
                          "them.")
        return None

    def _observed(self, observer: Any, args: tuple, kwargs: dict) -> tuple[Any, Any, list]:
        """(the function's result, its structure, its tensors)."""
        dispatch.observe(observer)
        try:
            with reporting(self.reach.places) as shown, autocast.own_casts():
                result = self.owner.function(*args, **kwargs)
        except BaseException:
            self._write_back(args, kwargs)
            self.following.restore()
            if self.symbols is not None:
                self.symbols.pin(self.reach)
            self.following.settle(self.reach)  # no followed number is left behind
            raise
        finally:
            dispatch.unobserve(observer)
        self._write_back(args, kwargs)
        self.following.restore()
        outputs: list = []
        passed = {id(item): Passed(item) for _, item in self.reach.objects if is_container(item)}
        passed |= {id(item): Passed(path=path) for item, path in containers(self.given)
                   if len(path) > 1}
        shape = flatten(with_passed(result, passed), outputs)
        computed = _computed(shape)
        if self.symbols is not None:
            self.symbols.pin(self.reach)
            result = self.symbols.result(result, shape, outputs)
        self.lost = [*self.following.settle(self.reach), *shown]
        if computed:
            result = rebuild(shape, outputs, {text: text.value for text in computed})
        return result, shape, outputs

    def _arguments(self) -> tuple[tuple, dict]:
        if not self.loose:
            return self.given
        numbers: list = list(self.numbers)
        for i in self.loose:
            numbers[i] = self.following.argument(i, numbers[i])
        return rebuild(self.key, self.leaves, numbers)

    def _write_back(self, args: tuple, kwargs: dict) -> None:
        """Do to the containers among the arguments what the function has done to copies of them
        that hold followed numbers."""
        if self.loose:
            for given, copied in zip(self.given[0], args, strict=True):
                written_back(given, copied)
            for name, given in self.given[1].items():
                written_back(given, kwargs[name])

    def _follow(self) -> None:
        """Put followed numbers in places that are known to change: learning rates, and what has
        changed before."""
        moving = self.owner._moving
        groups = {id(group) for _, item in self.reach.objects
                  for group in _groups(item)}
        for place in self.reach.places:
            kind = type(place.before)
            if (place.identity in moving and kind in (int, float) or kind is float
                    and place.key == "lr" and id(place.owner) in groups) and place.settable:
                self.following.substitute(place)

    def _refusal(self, capture: Capture, marks: Marks) -> CaptureError | None:
        """Why the run cannot become a program, if so."""
        changed = marks.changed()
        if changed is not None:
            return refuse(f"changing {changed} of a tensor from outside",
                          "Do it outside of the compiled function.")
        if any(m.tensor is not None and m.tensor._grad_fn is not None for m in capture.writes()):
            return refuse("an in-place operation that autograd records, on a tensor from outside",
                          "Write to a clone and return it.")
        if any(type(t) not in dispatch.TENSOR_CLASSES for t in self.leaves):
            return refuse("an argument whose class has a __torch_function__",
                          "Pass a plain tensor (x.as_subclass(torch.Tensor)).")
        leaves: list = []
        numbers: list = []
        if flatten(self.given, leaves, numbers) != self.key or numbers != self.numbers or (
                list(map(id, leaves)) != list(map(id, self.leaves))):
            return refuse("a change of the containers that are arguments",
                          "Return a new list or dict instead.")
        return None

    def _state_left(self, escaped: list, changes: list) -> list[str]:
        """What the run has left behind in Python that a replay would not repeat."""
        left = [f"a tensor of shape {list(tensor._meta.shape)}" for tensor in escaped]
        left += map(repr, self.lost)
        if self.grads.replaced(changes):
            left.append("a gradient that was assigned")
        return left

    def _unsteady(self, left: list[str], result: Any) -> Any:
        owner = self.owner
        count = owner._attempts[self.signature] = owner._attempts.get(self.signature, 0) + 1
        shown = ", ".join(left[:8]) + (f" and {len(left) - 8} more" if len(left) > 8 else "")
        if count >= ATTEMPTS:
            return self._give_up(refuse(
                f"a function that leaves new state behind in every call ({shown})",
                "Return what is new, or write it into tensors that exist."), result)
        owner.history.append(f"captured ({self.reason}), not kept: the run left new state behind: "
                             f"{shown}; the next call is captured again")
        return result

    def _keep(self, capture: Capture, finished: Recording) -> None:
        owner, following = self.owner, self.following
        owners = {id(Capture._owner(t)) for _, t, _ in finished.inputs}
        used = {id(t) for t in self.reach.tensors if id(Capture._owner(t)) in owners}
        used.update(map(id, finished.passed_on()))
        held = self.grads.held(capture, [leaf for leaf, _ in finished.gradients])
        computed = list(dict.fromkeys(map(str, _computed(finished.shape))))
        guard = Guard(following, self.reach.places, [text for _, text in finished.numbers],
                      computed, [(t, spot, t._meta) for _, t, spot in finished.inputs],
                      self._sharing(), used, held,
                      [t for t in self.reach.tensors if t._rg and t._grad_fn is None])
        try:
            replay = Replay(finished, guard) if self.symbols is None else self.symbols.replay(guard)
        except Unfit as error:
            self.symbols.family.refuse(str(error))
            owner.history.append(f"not kept: {error}")
            return
        if self.symbols is not None:
            self.reason += ", for varying sizes"
        if replay.plan.arena_bytes > MUCH:  # the blocks of the run that was captured make room
            memory.empty_cache()
        at = {id(leaf): i for i, leaf in enumerate(self.leaves)}
        replay.dropped = [at.get(id(t), t) for t in self.grads.dropped(capture)]
        if self.symbols is None:
            replay.prepare()
            self._compute(finished, replay)
        owner.programs.setdefault(self.signature, []).insert(0, replay)
        owner._counts[self.rest] = owner._counts.get(self.rest, 0) + 1
        if owner.recordings is not None:
            owner.recordings.append(finished)
        owner.history.append(f"captured ({self.reason}): {capture.operations} operations in "
                             f"{len(replay.plan.steps)} kernels")

    def _sharing(self) -> Sharing:
        """Which arguments lie in memory that the function also reaches by itself."""
        own = {id(owner): owner for owner in map(Capture._owner, self.reach.tensors)}
        owners = [Capture._owner(leaf) for leaf in self.leaves]
        pinned = [(i, owner, self.leaves[i]._ptr - owner.ptr)
                  for i, owner in enumerate(owners) if id(owner) in own]
        apart = [i for i, owner in enumerate(owners) if id(owner) not in own]
        return Sharing(list(own.values()), pinned, apart)

    def explained_reason(self) -> str:
        """Why no program serves the call."""
        programs = self.owner.programs.get(self.signature, ())
        if not programs:
            return "a number that changes" if self.loose else "first call with these layouts"
        reason, places = programs[0].guard.changed(self.leaves, self.numbers)
        for program in programs:
            places += program.guard.changed(self.leaves, self.numbers)[1]
        self.owner._moving |= {place.identity for place in places}
        return f"{reason} has changed"

    def _give_up(self, failure: CaptureError, result: Any) -> Any:
        """Run in captured parts from now on for these arguments; eagerly, and say so once, where
        that is not possible."""
        owner = self.owner
        if isinstance(failure, SymbolicError):
            self.symbols.family.refuse(str(failure))
            owner.history.append(f"not kept: {failure}")
            return result
        owner.eager.add(self.signature)
        owner.history.append(f"runs {'in parts' if possible() else 'eagerly'}: {failure}")
        if owner.fullgraph:
            raise failure
        if possible():
            return result
        warnings.warn(f"{failure}\n  So this function runs eagerly, as without torch.compile; with "
                      "fullgraph=True this is an error.", UserWarning, stacklevel=5)
        return result


BEGINS.add(_Run._observed.__code__)


def _groups(item: Any) -> list:
    groups = getattr(item, "param_groups", None) if not isinstance(item, type) else None
    return groups if isinstance(groups, list) else []


def _computed(shape: Any) -> list[Computed]:
    """The expressions in a result."""
    if isinstance(shape, Computed):
        return [shape]
    return [text for part in shape for text in _computed(part)] if isinstance(shape, tuple) else []


MIXED = "mixed"


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """No search for cycles meanwhile: planning makes very many objects and no garbage in cycles,
    and a quarter of its time would go into looking for some. Nor is what it has made looked through
    afterwards: it counts as old."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def sharing(leaves: Sequence, owners: Sequence[int]) -> Any:
    """Which arguments lie in the same memory, and where; None if each has its own."""
    pattern = [None if t._meta.contiguous or t._base is None else
               (t._base._meta, t._ptr - t._base._ptr) for t in leaves]
    if len(set(owners)) == len(leaves):
        return tuple(pattern) if any(pattern) else None
    for i, leaf in enumerate(leaves):
        if leaf._rg is not leaves[owners.index(owners[i])]._rg:
            return MIXED
        first = leaves[owners.index(owners[i])]
        base = None if leaf._base is None else (leaf._base._meta, leaf._ptr - leaf._base._ptr)
        pattern[i] = (owners.index(owners[i]), leaf._ptr - first._ptr, base,
                      next(j for j, other in enumerate(leaves) if other is leaf))
    return tuple(pattern)
