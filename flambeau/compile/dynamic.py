"""Programs for sizes that vary: which sizes do, how they are captured, and bound to given ones.

The first call with some layouts is captured for these sizes alone. When a call comes whose
arguments differ from known ones in sizes only, it is captured with those sizes as symbols (see
`core/symbolic.py`): arguments get layouts with symbolic sizes for as long as the function runs, so
everything that the function, the tensor layer and the operations do with sizes gives expressions or
guards. What comes out serves all sizes for which the guards hold: the program is *bound* to given
sizes by evaluating the expressions, without running the function. Its plan is filled in likewise
(`compiler/template.py`).
"""

from __future__ import annotations

import copy
import functools
import gc
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.autograd.tape import Node
from flambeau.compile.capture import CaptureError, Forgiving
from flambeau.compile.differentiable import Backward
from flambeau.compile.interface import interface_of
from flambeau.compile.replay import Replay
from flambeau.compile.templates import BackwardTemplates, Templates, plain_meta
from flambeau.compile.trees import rebuild
from flambeau.core.symbolic import (
    SMALLEST,
    Environment,
    Unfit,
    Valuation,
    environment,
    hint,
    is_symbolic,
)
from flambeau.ir.settle import Settler
from flambeau.tensor import launches
from flambeau.tensor.batched import Escaped
from flambeau.tensor.composed import Composed
from flambeau.tensor.meta import Meta, TensorBase, contiguous_meta

__all__ = ["Cautious", "Shapes", "Symbols", "mark_dynamic", "mark_static"]

LIMIT = 8  # programs for varying sizes after which a function is taken to depend on each size
MOST_BOUND = 256  # sizes that a program stays bound to
TOLD = 8  # conditions that are told of a program

Shape = tuple[tuple[int, ...], ...]
"""The shapes of all arguments."""


def mark_dynamic(tensor: Any, index: int | Sequence[int], *, min: int | None = None,
                 max: int | None = None) -> None:
    """Say that dimensions of an argument will vary: the first capture is made for all sizes.

    Args:
        index: the dimension, or several.
        min, max: accepted as in PyTorch; which sizes a program serves is found out from what the
            function does with them.

    Raises:
        IndexError: there is no such dimension.
    """
    _mark(tensor, index, "_dynamic_dims", "_static_dims")


def mark_static(tensor: Any, index: int | Sequence[int] | None = None) -> None:
    """Say that dimensions of an argument (all, if None) shall have a program for each size."""
    _mark(tensor, range(tensor.ndim) if index is None else index, "_static_dims", "_dynamic_dims")


def _mark(tensor: Any, index: Any, mark: str, other: str) -> None:
    for dim in index if isinstance(index, (tuple, list, set, range)) else (index,):
        if not 0 <= dim < tensor.ndim:
            raise IndexError(f"dimension {dim} of a tensor with {tensor.ndim} dimensions cannot be "
                             "marked")
        setattr(tensor, mark, getattr(tensor, mark, frozenset()) | {dim})
        setattr(tensor, other, getattr(tensor, other, frozenset()) - {dim})


class Family:
    """Calls that differ in sizes only.

    Attributes:
        seen: the shapes of calls that were captured for themselves.
        programs: those for varying sizes.
        captures: how often one was tried.
        fixed: why no more is tried, or None.
    """

    def __init__(self) -> None:
        self.seen: list[Shape] = []
        self.programs: list[Program] = []
        self.captures = 0
        self.fixed: str | None = None

    def refuse(self, why: str) -> None:
        """From now on each size gets a program of its own."""
        self.fixed = f"each size gets a program of its own: {why}"


class Shapes:
    """What a compiled function knows of the sizes of its arguments.

    Args:
        dynamic: as `torch.compile` has it: None finds out which sizes vary, True takes all to vary
            from the first call on, False none.
        exact: programs must round as eager runs do.
    """

    def __init__(self, dynamic: bool | None = None, exact: bool = False):
        self.dynamic, self.exact = dynamic, exact
        self.families: dict[Any, Family] = {}
        self.latest: deque[tuple[Any, Replay]] = deque()

    def forget(self) -> None:
        """Drop the programs."""
        self.families.clear()
        self.latest.clear()

    def explain(self) -> list[str]:
        """What programs for varying sizes depend on, and why there are no more."""
        lines = []
        for family in self.families.values():
            lines += [f"  for varying sizes: {program.explain()}" for program in family.programs]
            if family.fixed:
                lines.append(f"  {family.fixed}")
        return lines

    def _family(self, call: tuple, values: Any, leaves: Sequence) -> Family | None:
        word, tree, kinds, shared, *more = call
        fit = all(leaf._meta.contiguous for leaf in leaves)
        if self.dynamic is False or shared is not None or not leaves or not fit:
            return None
        kinds = tuple([(leaf._meta.dtype, leaf._meta.ndim, *flags)
                       for leaf, (_, *flags) in zip(leaves, kinds, strict=True)])
        key = (word, tree, kinds, *more, values)
        found = self.families.get(key)
        if found is None:
            found = self.families[key] = Family()
        return found

    def bound(self, call: tuple, values: Any, leaves: Sequence, numbers: list, owners: list
              ) -> Replay | None:
        """A program for varying sizes, bound to those of these arguments, or None.

        Args:
            call: what else decides about a program: a signature without its `values`.
            numbers, owners: what guards look at, see `Guard.holds`.
        """
        family = self._family(call, values, leaves)
        if family is None:
            return None
        shapes = _shapes(leaves)
        for program in family.programs:
            if program.guard.holds(leaves, numbers, owners):
                found = program.bind(shapes)
                if found is not None:
                    return found
        return None

    def remember(self, programs: dict, signature: Any, replay: Replay) -> None:
        """Put a bound program among the `programs`, where it is found at once, and let go of one
        that was bound long ago if there are many."""
        programs.setdefault(signature, []).insert(0, replay)
        self.latest.append((signature, replay))
        if len(self.latest) > MOST_BOUND:
            known, old = self.latest.popleft()
            if old in programs.get(known, ()):
                programs[known].remove(old)

    def begin(self, call: tuple, values: Any, leaves: Sequence) -> Symbols | None:
        """The symbols with which a call shall be captured; None: for its sizes alone."""
        family = self._family(call, values, leaves)
        if family is None:
            return None
        shapes = _shapes(leaves)
        varying = None if family.fixed else self._varying(family, leaves, shapes)
        if not varying:
            family.seen.append(shapes)
            return None
        if family.captures >= LIMIT:
            family.refuse(f"{LIMIT} programs for varying sizes did not serve all calls, since they "
                          f"depend on {_reasons(family)}")
            family.seen.append(shapes)
            return None
        family.captures += 1
        return Symbols(family, leaves, varying, self.exact)

    def _varying(self, family: Family, leaves: Sequence, shapes: Shape) -> dict:
        """{(argument, dimension): what else has the same symbol} of the sizes that vary."""
        known = family.seen + [program.shapes for program in family.programs]
        found = {}
        for i, (leaf, shape) in enumerate(zip(leaves, shapes, strict=True)):
            marked = getattr(leaf, "_dynamic_dims", ())
            static = getattr(leaf, "_static_dims", ())
            for d, size in enumerate(shape):
                before = tuple([other[i][d] for other in known])
                varies = self.dynamic or d in marked or any(n != size for n in before)
                if varies and size >= SMALLEST and d not in static:
                    found[i, d] = size, before
        return found


def _shapes(leaves: Sequence) -> Shape:
    return tuple([tuple(leaf._meta.shape) for leaf in leaves])


def _reasons(family: Family) -> str:
    """The guards that kept programs from serving other sizes."""
    told = dict.fromkeys(program.unfit for program in family.programs if program.unfit)
    return "; ".join(told) or "sizes of 0 and 1, which always have programs of their own"


class Cautious(Forgiving):
    """A capture with symbols, which any error ends: the run itself goes on."""

    def excused(self, error: Exception) -> CaptureError:
        if isinstance(error, CaptureError):
            return error
        return SymbolicError(f"{type(error).__name__}: {error}")


class SymbolicError(CaptureError):
    """A capture with symbols met something that wants plain sizes; one without may not."""


class Symbols:
    """A capture with symbolic sizes: a context within which the arguments have them."""

    def __init__(self, family: Family, leaves: Sequence, varying: dict, exact: bool):
        self.family = family
        self.leaves = leaves
        self.shapes = _shapes(leaves)
        self.environment = Environment(exact)
        self.places: list[list[tuple[int, int]]] = []  # of each symbol
        self.symbols = self._symbols(varying)
        self.program: Program | None = None

    def _symbols(self, varying: dict) -> dict:
        by_sizes: dict[tuple, int] = {}
        symbols = []
        found = {}
        for place, sizes in varying.items():
            if sizes not in by_sizes:
                by_sizes[sizes] = len(symbols)
                name = f"size({place[0]}, {place[1]})"
                symbols.append(self.environment.size(sizes[0], name))
                self.places.append([])
            self.places[by_sizes[sizes]].append(place)
            found[place] = symbols[by_sizes[sizes]]
        return found

    def __enter__(self) -> Symbols:
        environment.append(self.environment)
        self.plain = [leaf._meta for leaf in self.leaves]
        for i, leaf in enumerate(self.leaves):
            shape = [self.symbols.get((i, d), size) for d, size in enumerate(self.shapes[i])]
            leaf._meta = contiguous_meta(leaf._meta.dtype, shape)
        self.symbolic = [leaf._meta for leaf in self.leaves]
        late = launches.late
        self.doors = late.launch, late.checked, late.at_once
        late.launch, late.checked, late.at_once = map(_with_hints, self.doors)
        return self

    def __exit__(self, *failure: Any) -> None:
        late = launches.late
        late.launch, late.checked, late.at_once = self.doors
        environment.remove(self.environment)
        self.environment.closed = True
        for cache, key in self.environment.undo:
            cache.pop(key, None)
        for leaf, given, meta in zip(self.leaves, self.symbolic, self.plain, strict=True):
            if leaf._meta is given:  # the function may have changed its shape
                leaf._meta = meta
        self._settle_tensors()

    def _settle_tensors(self) -> None:
        """Give every tensor that is left, and the tape, plain layouts."""
        layouts = {id(meta) for meta in self.environment.metas.values()}
        settler = Settler(hint)
        for tensor in [each for each in gc.get_objects() if isinstance(each, (TensorBase, Node))]:
            if isinstance(tensor, Node):
                if any(id(meta) in layouts for meta in tensor.output_metas):
                    tensor.output_metas = tuple([
                        plain_meta(settler, meta) if id(meta) in layouts else meta
                        for meta in tensor.output_metas])
                continue
            if isinstance(tensor, (Composed, Escaped)):
                continue  # their parts are tensors of their own
            meta = getattr(tensor, "_meta", None)
            if id(meta) in layouts:
                tensor._meta = plain_meta(settler, meta)
            if is_symbolic(getattr(tensor, "_ptr", 0)):
                tensor._ptr = hint(tensor._ptr)

    def pin(self, reach: Any) -> None:
        """Plain numbers where the run has left symbolic ones in Python: it depends on them."""
        for place in reach.places:
            if place.settable and is_symbolic(now := place.now()):
                place.put(now.env.pin(now))

    def result(self, result: Any, shape: Any, outputs: list) -> Any:
        """What the function has returned, with plain numbers in place of symbolic ones."""
        plain = Settler(hint).tree(shape)
        return result if plain is shape else rebuild(plain, outputs, [])

    def note(self, recording: Any) -> None:
        """Keep what was recorded while its sizes are symbolic."""
        self.program = Program(self, recording)

    def replay(self, guard: Any) -> Replay:
        """The captured program, bound to the sizes of this run; later calls may use it too.

        Raises:
            Unfit: it cannot be bound: what was captured is of no use for other sizes.
        """
        self.program.guard = guard
        found = self.program.bind(self.shapes)
        if found is None:
            raise Unfit(self.program.unfit or "it does not serve the sizes that it was made for")
        self.family.programs.append(self.program)
        return found


def _with_hints(launch: Callable) -> Callable:
    def run(address: int, *args: Any) -> Any:
        return launch(address, *map(hint, args))

    return run


class _Stand:
    """Stands for a tensor of which a replay wants to know layout and value only."""

    def __init__(self, meta: Meta, value: Any = None, wants: bool = False):
        self._meta, self.value, self._rg = meta, value, wants


class _Values:
    """Stands for the capture of a bound program: it knows what the stands stand for."""

    def __init__(self) -> None:
        self.kept: list = []

    def value_of(self, stand: _Stand) -> Any:
        """The value of a result."""
        return stand.value


class _Update:
    """Stands for memory that a program writes to."""

    def __init__(self, initial: Any):
        self.initial = initial


class Program:
    """A program for varying sizes.

    Attributes:
        shapes: of the arguments that it was captured with.
        unfit: why it has last refused other sizes.
        guard: what else must hold, whatever the sizes.
    """

    def __init__(self, symbols: Symbols, recording: Any):
        self.environment, self.places = symbols.environment, symbols.places
        self.varying = frozenset(symbols.symbols)
        self.shapes = symbols.shapes
        self.guard: Any = None
        self.guards = self.environment.guards
        self.unfit: str | None = None
        self.recording = made = copy.copy(recording)
        self.layouts = [tensor._meta for _, tensor, _ in recording.inputs]
        made.inputs = [(value, None if spot is not None else tensor, spot)
                       for value, tensor, spot in recording.inputs]
        made.results = [_Stand(t._meta, recording.capture.value_of(t)) for t in recording.results]
        made.outputs, made.gradients, made.capture = [], [], None
        self.roots: list[int] = []
        self.owners: list[tuple[Any, Any, Meta]] = []
        if recording.joint is not None:
            self._note_joint(recording)
        self.templates = Templates(self.environment, made.graph,
                                   interface_of(made, self.layouts), made.effects)
        self.backward = BackwardTemplates(self.environment, self._symbolic_backward)

    def _note_joint(self, recording: Any) -> None:
        joint = recording.joint
        place = {id(t): i for i, t in enumerate(recording.results)}
        self.roots = [place[id(root)] for root in joint.roots]
        self.owners = [(recording.place.get(id(t)), t, t._meta) for t in joint.owners]
        self.owners = [(at, t if at is None else None, meta) for at, t, meta in self.owners]
        self.recording.joint = joint = copy.copy(joint)
        joint.roots, joint.owners = [], []  # they would keep the tape of that run alive

    def explain(self) -> str:
        """What the sizes must be."""
        names = ", ".join(self.environment.names)
        guards = list(self.guards.values())
        told = "; ".join(f"{guard} (asked at {guard.where})" for guard in guards[:TOLD])
        if len(guards) > TOLD:
            told += f" and {len(guards) - TOLD} more"
        return f"{names} of {SMALLEST} and more" + (f", while {told}" if told else "")

    def bind(self, shapes: Shape) -> Replay | None:
        """The program for arguments of these shapes; None if it does not serve them."""
        sizes = self._sizes(shapes)
        if sizes is None:
            return None
        valuation = Valuation(self.environment, sizes)
        try:
            broken = valuation.check(self.guards)
            if broken is not None:
                self.unfit = f"{broken} (asked at {broken.where})"
                return None
            return self._replay(valuation)
        except Unfit as error:
            self.unfit = str(error)
            return None

    def _sizes(self, shapes: Shape) -> list[int] | None:
        """The value of each symbol, or None where the shapes differ in something else."""
        for i, (shape, own) in enumerate(zip(shapes, self.shapes, strict=True)):
            for d, (size, captured) in enumerate(zip(shape, own, strict=True)):
                if size != captured and (i, d) not in self.varying or (
                        size < SMALLEST and (i, d) in self.varying):
                    return None
        sizes = []
        for places in self.places:
            found = {shapes[i][d] for i, d in places}
            if len(found) > 1:
                return None
            sizes.append(found.pop())
        return sizes

    def _replay(self, valuation: Valuation) -> Replay:
        """The program for given sizes; planned by a template, but for the first ones."""
        env, joint = self.environment, self.recording.joint
        first = valuation.sizes == env.sizes and not self.templates.made
        planned = None if first else self.templates.plan(valuation)
        env.sealed = True
        try:
            settler = Settler(valuation.number)
            if planned is None:
                made = Replay(self._settled(settler), self.guard)
            else:
                made = Replay(self._settled(settler, joint is not None), self.guard,
                              lambda *_: planned)
        finally:
            env.sealed = False
        if joint is not None and not first:
            made.backward.planned = functools.partial(self.backward.plan, valuation)
        return made

    def _symbolic_backward(self) -> tuple[Backward, list[Meta]]:
        """The backward with symbolic sizes, and the layouts of the results that it starts from."""
        made = self._settled(Settler(_itself))
        results = interface_of(made, self.layouts).results
        return Backward(made, results), [results[i] for i in self.roots]

    def _settled(self, settler: Settler, all_values: bool = True) -> Any:
        """The recording for given sizes; without `all_values` what only a planner reads stays."""
        whole = self.recording
        made = copy.copy(whole)
        made.capture = _Values()
        made.shape = settler.tree(whole.shape)
        made.returned = [_returned(settler, one) for one in whole.returned]
        if not all_values:
            made.inputs = [
                (value, tensor if spot is None else _Stand(plain_meta(settler, meta)), spot)
                for (value, tensor, spot), meta in zip(whole.inputs, self.layouts, strict=True)]
            made.results = [_Stand(plain_meta(settler, stand._meta)) for stand in whole.results]
            return made
        made.graph = settler.graph(whole.graph)
        made.effects = settler.add(whole.effects)
        made.inputs = [
            (settler.values[value], tensor if spot is None else _Stand(plain_meta(settler, meta)),
             spot) for (value, tensor, spot), meta in zip(whole.inputs, self.layouts, strict=True)]
        made.numbers = [(settler.values[value], *source) for value, *source in whole.numbers]
        made.results = [_Stand(plain_meta(settler, stand._meta), *settler.add([stand.value]))
                        for stand in whole.results]
        made.updates = [_Update(settler.values[memory.initial]) for memory in whole.updates]
        made.kept, made.read = settler.add(whole.kept), settler.add(whole.read)
        if whole.joint is not None:
            self._settle_joint(settler, made)
        return made

    def _settle_joint(self, settler: Settler, made: Any) -> None:
        made.joint = joint = copy.copy(made.joint)
        joint.given, joint.gradients = settler.add(joint.given), settler.add(joint.gradients)
        joint.roots = [made.results[i] for i in self.roots]
        joint.owners = [t if at is None else _Stand(plain_meta(settler, meta))
                        for at, t, meta in self.owners]
        made.place = {id(stand): at for stand, (at, _, _) in
                      zip(joint.owners, self.owners, strict=True) if at is not None}


def _itself(number: Any) -> Any:
    return number


def _returned(settler: Settler, one: tuple) -> tuple:
    kind, what = one
    if kind not in ("view", "part"):
        return one
    source, meta, *rest = what
    return kind, (source, plain_meta(settler, meta), *settler.tree(tuple(rest)))
