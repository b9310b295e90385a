"""Compiled functions whose gradient is computed later.

While the function is still observed, the tape that its run has left behind is run backwards once,
from new tensors in place of the results' gradients: those launches become part of the graph, so
every rule, custom `Function` included, is taken over as it is. The joint graph is then cut
(`partition.py`): a forward program, whose results include what is kept, and a backward program over
what is kept and the gradients of the results. A replay hangs its results on one node of the tape,
whose backward is one native call.

The pass stops where the function was entered: at leaves and at nodes older than the run. There the
tape goes on as always, with its hooks and accumulation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from sys import getrefcount
from typing import Any, NamedTuple

from flambeau.autograd import engine
from flambeau.autograd import saved as saving
from flambeau.autograd.function import FunctionCtx
from flambeau.autograd.grad_mode import LEVELS, RECORD, mode, no_grad
from flambeau.autograd.registry import tensors
from flambeau.autograd.tape import (
    RELEASED,
    AccumulateGrad,
    Node,
    edge_of,
    next_order,
    node_type,
)
from flambeau.compile.capture import Capture, CaptureError, Memory, refuse
from flambeau.compile.interface import Interface
from flambeau.compile.origins import WALKS
from flambeau.compile.partition import numbered, shared, to_save, without, zeros
from flambeau.compiler.program import Plan
from flambeau.compiler.target import host
from flambeau.core import failures
from flambeau.core.errors import caller_location
from flambeau.core.shapes import dense_order
from flambeau.ir.graph import Graph, Value, sort, tensor_input
from flambeau.ops.derive import Call, _aval, substitute
from flambeau.runtime import memory, plan_cache, pool
from flambeau.runtime.executable import build_program
from flambeau.tensor import dispatch, launches, tape
from flambeau.tensor.meta import Meta, TensorBase, contiguous_meta
from flambeau.tensor.rewriting import CopySlices
from flambeau.tensor.viewing import ViewLaunch

__all__ = ["Backward", "Joint", "Part", "Pattern", "consumed", "is_alias", "leads_to",
           "spent_node", "trace_backward"]

_CALLERS = 3  # references to a tensor while it is counted: two variables, and getrefcount's own


def consumed(node: Node) -> bool:
    """Has a backward pass freed the graph of this node already?"""
    return any(getattr(each, "tape_saved", None) is RELEASED for each in _reachable(node))


def _reachable(node: Node) -> Iterator[Node]:
    seen, stack = set(), [node]
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            stack += [edge[0] for edge in node.next_edges if edge is not None]


class Joint:
    """What running the tape of a captured run backwards has shown.

    Attributes:
        roots: the results that it starts from.
        given: the placeholder of the gradient of each.
        owners: the tensors outside of the run that get gradients.
        gradients: the gradient of each; `reached`: from which roots (bits) a way leads to it.
        kept: storages of tensors that the tape has saved.
        held: id of a tensor -> how many references to it the tape has.
    """

    def __init__(self, roots: list, given: list[Value]):
        self.roots, self.given = roots, given
        self.owners: list[Any] = []
        self.gradients: list[Value] = []
        self.reached: list[int] = []
        self.kept: set[int] = set()
        self.held: Counter[int] = Counter()

    def choose(self, capture: Capture, results: Sequence) -> tuple[list[Value], list[Value]]:
        """(what the forward must keep apart from its inputs and results, all that the backward
        reads).

        Inputs and results live on anyway. But only what eager runs save may be taken as it is:
        users may write to the rest before they call backward.
        """
        free = {v for v, t in capture.inputs if id(capture._owner(t)) in self.kept
                and capture.memory_of(t).value is v}
        free |= {capture.value_of(t) for t in results if id(capture._owner(t)) in self.kept}
        if not capture.exact:
            forward = [capture.value_of(t) for t in results]
            forward += [m.value for m in capture.writes()]
            self.gradients = shared(self.gradients, forward)
        read = to_save(self.gradients, self.given, free, capture.exact)
        return [v for v in read if v not in free], read

    def alone_holds(self, tensor: Any) -> bool:
        """Does only the tape refer to a tensor (and the caller, in one variable)?"""
        return getrefcount(tensor) - _CALLERS <= self.held[id(tensor)]


# ---------------------------------------------------------------------- the pass
def trace_backward(observer: Any, capture: Capture, outputs: Sequence, leaves: Sequence,
                   reached: Sequence, entered: int) -> Joint | None:
    """Run the tape of `outputs` backwards under observation; None if they need no gradient.

    Args:
        observer: what reports to `capture`.
        leaves: the tensors among the arguments.
        reached: the tensors that the function reaches by itself.
        entered: the order of a node made when the run began.

    Raises:
        CaptureError: the backward cannot become a program.
    """
    given = {id(leaf) for leaf in leaves}
    roots = list({id(t): t for t in outputs if t._rg and id(t) not in given
                  and t.grad_fn is not None and t.grad_fn.tape_order < entered
                  and not is_alias(capture.memory_of(t), t)
                  and not consumed(t.grad_fn)}.values())
    if not roots:
        return None
    # made while nobody observes: for the capture they are older than the run, which is an input
    seeds = [tensors.make.ones_like(t) for t in roots]
    for seed in seeds:  # where they lie, memory of the run may have died
        capture.memories.pop(id(capture._owner(seed)), None)
    joint = Joint(roots, [capture.value_of(seed) for seed in seeds])
    walk = _Walk(entered)
    before = {id(m): m.value for m in capture.memories.values()}
    randoms = dict(capture.randoms)
    dispatch.observe(observer)
    try:
        with no_grad():
            for place, root in enumerate(roots):
                walk.add(root.grad_fn, root._output_nr, seeds[place], 1 << place)
            walk.run()
    except CaptureError:
        raise
    except Exception as error:  # the user's own backward will say so
        raise refuse(f"a backward that fails ({type(error).__name__}: {error})",
                     "Call the function without torch.compile.") from None
    finally:
        dispatch.unobserve(observer)
    if getattr(observer, "failure", None) is not None:
        raise observer.failure
    if capture.randoms != randoms or any(before.get(id(m)) is not m.value
                                         for m in capture.writes()):
        raise refuse("a backward that draws random numbers or writes to tensors from outside",
                     "Call backward() inside of the compiled function.")
    own = {id(t) for t in outputs}.difference(map(id, leaves), map(id, reached))
    _settle_ends(joint, walk, capture, [*leaves, *reached, *(t for _, t in capture.inputs)], own)
    _note_saved(joint, walk.nodes, capture)
    return joint


def is_alias(known: Memory, tensor: Any) -> bool:
    """Is a returned tensor memory from before the run, with no history of its own but views?"""
    root = known.tensor
    if known.initial is None or tensor._rg and not root._rg or (
            tensor._rg and tensor._grad_fn is None and not tensor._inherits):
        return False
    node, base = tensor.grad_fn, tensor._base
    return node is None or base is None or leads_to(node, base)


def leads_to(node: Any, base: Any) -> bool:
    """Is the history that ends in `node` that of views of `base`?"""
    while node is not base._grad_fn and isinstance(node, tape.OpNode) and isinstance(
            node.tape_launch, ViewLaunch):
        if node.next_edges[0] is None:
            return False
        node = node.next_edges[0][0]
    return node is base._grad_fn or isinstance(node, AccumulateGrad) and node.variable is base


class _Walk:
    """A backward pass that ends where the run began, and leaves the tape as it is.

    Attributes:
        nodes: those that ran.
        ends: (node, output number) -> [gradient or None, bits of the roots that reach it].
    """

    def __init__(self, entered: int):
        self.entered = entered
        self.nodes: list[Node] = []
        self.ends: dict[tuple[int, int], list] = {}
        self.targets: dict[int, Node] = {}
        self.waiting: dict[int, list] = {}
        self.heap: list[int] = []

    def add(self, node: Node, output_nr: int, grad: Any, bits: int) -> None:
        """A gradient (or None) for one output of a node."""
        if isinstance(node, AccumulateGrad) or node.tape_order >= self.entered:
            self.targets[id(node)] = node
            end = self.ends.setdefault((id(node), output_nr), [None, 0])
            end[1] |= bits
            if grad is not None:
                end[0] = grad if end[0] is None else end[0] + grad
            return
        entry = self.waiting.get(node.tape_order)
        if entry is None:
            entry = self.waiting[node.tape_order] = [node, [None] * len(node.output_metas), 0]
            heappush(self.heap, node.tape_order)
        entry[2] |= bits
        if grad is not None:
            held = entry[1][output_nr]
            entry[1][output_nr] = grad if held is None else held + grad

    def run(self) -> None:
        while self.heap:
            node, grads, bits = self.waiting.pop(heappop(self.heap))
            if _has_hooks(node):
                raise refuse("a hook (or retain_grad) on a value inside of the function",
                             "Return the value and put the hook on the result.")
            if any(_runs_again(item) for item in node.tape_saved):
                raise refuse("a checkpoint whose backward comes later, which runs its function "
                             "again,", "Call backward() inside of the compiled function.")
            self.nodes.append(node)
            if all(g is None for g in grads) and not node.wants_none:
                results: Sequence = (None,) * len(node.next_edges)
            else:
                results = _applied(node, grads)
            for index, edge in enumerate(node.next_edges):
                if edge is not None:
                    grad = results[index]
                    if grad is not None:
                        grad = engine.validate(node, index, grad, edge[0].output_metas[edge[1]])
                    self.add(*edge, grad, bits)


WALKS.add(_Walk.run.__code__)


def _has_hooks(node: Node) -> bool:
    hooks = node.tape_hooks
    return hooks is not None and bool(hooks.tensor or hooks.retain or hooks.pre or hooks.post) or (
        isinstance(node, FunctionCtx) and getattr(node._function, "calls_hooks", False))


def _runs_again(item: Any) -> bool:
    """Does unpacking something saved run a function of the user's, with all its effects?"""
    hook = item.unpack_hook if item.__class__ is saving.SavedTensor else None
    return getattr(getattr(hook, "__self__", None), "runs_again", False)


def _applied(node: Node, grads: list) -> Sequence:
    """The backward of one node, which is still there to run for the user afterwards."""
    if not isinstance(node, FunctionCtx):
        return node.apply(grads)
    kept, own = (node.tape_saved, node.tape_versions), dict(vars(node))
    try:
        return node.apply(grads)
    finally:
        node.tape_saved, node.tape_versions = kept
        vars(node).clear()
        vars(node).update(own)


def _settle_ends(joint: Joint, walk: _Walk, capture: Capture, candidates: Sequence,
                 own: set[int]) -> None:
    """Find the tensors outside of the run that the ends of the pass belong to; `own`: ids of
    results that are no such."""
    made = {id(t) for ref in capture.made if (t := ref()) is not None}
    known: dict[tuple[int, int], Any] = {}
    for tensor in candidates:
        if tensor._rg and tensor._grad_fn is not None:
            known.setdefault((id(tensor._grad_fn), tensor._output_nr), tensor)
    for (number, output_nr), (grad, bits) in walk.ends.items():
        node = walk.targets[number]
        if not isinstance(node, AccumulateGrad):
            owner = known.get((number, output_nr))
            if owner is None:
                raise refuse(f"the gradient of a tensor (of {node.name()}) that is neither an "
                             "argument nor reached by the function's variables",
                             "Make the tensor an argument.")
        elif id(node.variable) in made or id(node.variable) in own:
            if node.variable._hooks or id(node.variable) in own:
                raise refuse("requires_grad_() inside of the function", "Do it outside.")
            continue  # a leaf of the run: its gradient ends with the run
        else:
            owner = node.variable
        if grad is not None:
            joint.owners.append(owner)
            joint.gradients.append(capture.value_of(grad))
            joint.reached.append(bits)


def _note_saved(joint: Joint, nodes: Sequence[Node], capture: Capture) -> None:
    """Which tensors the tape holds: they are no state that the run leaves behind."""
    seen: dict[int, Any] = {}

    def note(tensor: Any) -> None:
        joint.held[id(tensor)] += 1
        if id(tensor) not in seen:
            seen[id(tensor)] = tensor
            joint.kept.add(id(capture._owner(tensor)))
            if tensor._base is not None:
                joint.held[id(tensor._base)] += 1

    stack = list(nodes)
    while stack:
        node = stack.pop()
        if isinstance(node, CopySlices):
            stack.append(node.inner)
        for item in _contents(node):
            if item.__class__ is saving.SavedTensor:
                item = item.tensor
            if isinstance(item, TensorBase):
                note(item)


def _contents(node: Node) -> Iterator[Any]:
    yield from node.tape_saved
    if isinstance(node, FunctionCtx):
        for item in vars(node).values():
            yield from item if isinstance(item, (tuple, list)) else (item,)


# ---------------------------------------------------------------------- the program
Pattern = tuple
"""Which gradients a backward is asked for (None: all), and the layouts of those that it is given,
None for an absent one."""


class Part(NamedTuple):
    """What a backward computes for one pattern.

    Attributes:
        produced: for each owner, which result is its gradient, or None.
    """

    graph: Graph
    interface: Interface
    produced: tuple[int | None, ...]


class Backward:
    """The backward half of a compiled function: a program per pattern of gradients.

    Attributes:
        roots: which of the forward's results it starts from, by their places.
        owners: how a replay finds the tensors that get gradients.
        planned: gives the plan for a pattern where it is known already, else None.
    """

    def __init__(self, recording: Any, layouts: Sequence[Meta]):
        """`layouts` are those of the forward program's results."""
        joint, capture, kept = recording.joint, recording.capture, recording.kept
        read = set(recording.read).difference(kept)
        place = {id(t): i for i, t in enumerate(recording.results)}
        self.roots = [place[id(root)] for root in joint.roots]
        self.owners = [recording.place.get(id(t), t) for t in joint.owners]
        self.reached, self.given = joint.reached, joint.given
        self.metas = [_gradient_meta(t) for t in joint.owners]
        inputs = [(v, t._meta) for v, t, _ in recording.inputs]
        self.inputs = [i for i, (v, _) in enumerate(inputs) if v in read]
        read.difference_update(v for v, _ in inputs)
        own = {v: i for i, t in enumerate(recording.results) if (v := capture.value_of(t)) in read}
        self.outputs = list(own.values())
        stand_ins = {v: numbered(tensor_input(v.shape, v.dtype), v) for v in (*kept, *own)}
        self.gradients = substitute(joint.gradients, stand_ins, numbered=True)
        self.saved = [inputs[i] for i in self.inputs]
        metas = [*layouts[len(recording.results):], *[layouts[i] for i in self.outputs]]
        self.saved += list(zip(stand_ins.values(), metas, strict=True))
        self.numbers = self._numbers_of(recording)
        self.number_values = [recording.numbers[i][0] for i in self.numbers]
        self.programs = launches.LaunchCache()
        self.planned: Callable[[Pattern, Part], Plan | None] | None = None
        self.origins = recording.origins
        launches.resettable.add(self)

    def _numbers_of(self, recording: Any) -> list[int]:
        used = set(sort(self.gradients))
        return [i for i, n in enumerate(recording.numbers) if n[0] in used]

    def forget(self) -> None:
        """Drop the compiled programs."""
        self.programs.clear()

    def explain(self) -> str:
        """What is kept, in plain words."""
        first = len(self.inputs)
        kept = [meta.nbytes for _, meta in self.saved[first:]]
        text = (f"\n  backward: keeps {len(kept)} tensors of {sum(kept) / 1e6:.1f} MB and "
                f"{first} inputs; {len(self.owners)} gradients")
        for program in self.programs.values():
            text += (f"; {program.kernels} kernels, {program.arena_bytes / 1e6:.1f} MB of "
                     "temporaries")
        return text

    def attach(self, results: Sequence, kept: Sequence, inputs: Sequence, numbers: Sequence,
               leaves: Sequence) -> None:
        """Hang the results of a replay on the tape."""
        node = _NODE.__new__(_NODE)
        edges = []
        for spot in self.owners:
            tensor = leaves[spot] if spot.__class__ is int else spot
            edges.append(edge_of(tensor) if tensor._base is None else tape.edge_to(tensor))
        node.next_edges = tuple(edges)
        node.tape_order = next_order()
        node.tape_hooks = None
        node.tape_backward = self
        node.tape_numbers = [numbers[i] for i in self.numbers]
        outs = [results[i] for i in self.roots]
        node.output_metas = tuple([out._meta for out in outs])
        saved = [inputs[i] for i in self.inputs]
        saved += kept
        saved += [tape.alias_of(results[i]) for i in self.outputs]
        for number, out in enumerate(outs):
            out._grad_fn, out._output_nr, out._rg = node, number, True
        node.tape_saved = saved
        node.tape_versions = [+t._storage.version for t in saved]
        node.tape_where = caller_location(4)

    # ------------------------------------------------------------------ a backward
    def run(self, node: Any, grads: Sequence, saved: Sequence) -> tuple:
        """One native call: the gradients of the owners, None where there is none."""
        running = engine._CURRENT.get()
        wanted = None
        if running is not None and running.needed is not None:
            wanted = tuple([engine.should_compute(node, i) for i in range(len(self.owners))])
        given = [g for g in grads if g is not None]
        pattern = (wanted, *[None if g is None else g._meta for g in grads])
        program = self.programs.get(pattern)
        if program is None:
            part = self.part(pattern)
            planned = None if self.planned is None else self.planned(pattern, part)
            program = self.programs[pattern] = _Program(part, planned)
        if mode() & LEVELS:  # gradients may stand for many examples, or have tangents
            results = launches.late.run(program.call, [*given, *saved, *node.tape_numbers])
            return tuple([None if place is None else results[place] for place in program.produced])
        results = [launches.fresh(meta, size_class) for meta, size_class in program.pools]
        argv = [t._ptr for t in given]
        argv += [t._ptr for t in saved]
        argv += node.tape_numbers
        argv += [t._ptr for t in results]
        if program.arena is not None:
            arena = program.arena.new(program.arena_bytes)
            argv.append(arena.ptr)
        launches.settle("a compiled function")
        failure = launches.late.at_once(program.address, *argv)
        if failure is not None and failure[0] >= failures.FIRST:
            raise failures.failure(*failure)
        if failure is not None:
            raise RuntimeError("the backward of a compiled function has met an index out of range "
                               "or an integer division by zero; run the function without "
                               "torch.compile to see the operation")
        if launches.late.observers:
            launches.late.observers[-1].ran(
                program, (*given, *saved, *node.tape_numbers), results)
        return tuple([None if place is None else results[place] for place in program.produced])

    def part(self, pattern: Pattern) -> Part:
        """What is computed for gradients of these layouts (None: absent), of these owners only."""
        wanted, *layouts = pattern
        missing = [v for v, m in zip(self.given, layouts, strict=True) if m is None]
        bits = sum(1 << i for i, m in enumerate(layouts) if m is not None)
        places = [i for i in range(len(self.owners))
                  if self.reached[i] & bits and (wanted is None or wanted[i])]
        values = [self.gradients[i] for i in places]
        if missing:
            values = [zeros(old) if new is None else new for old, new in
                      zip(values, without(values, missing), strict=True)]
        sources = [(v, m) for v, m in zip(self.given, layouts, strict=True) if m is not None]
        sources += self.saved
        graph = Graph([v for v, _ in sources] + self.number_values, values)
        face = Interface([m for _, m in sources], [self.metas[i] for i in places],
                         len(self.numbers))
        position = {place: i for i, place in enumerate(places)}
        return Part(graph, face, tuple([position.get(i) for i in range(len(self.owners))]))


class _Program:
    """A backward, compiled for some layouts; planned here unless a plan is given.

    Attributes:
        call: what it computes, for those who observe.
        pools: (layout, pool) of each result.
    """

    def __init__(self, part: Part, planned: Plan | None):
        graph, face, self.produced = part
        self.call = _Call(graph)
        if planned is None:
            planned = plan_cache.planned(graph, face.inputs, face.outputs, host(),
                                         pool.get_num_threads())
        kinds = [None] * len(face.given) + [float] * face.numbers
        self.native = build_program(planned, kinds, len(face.results))
        self.plan, self.interface = planned, face
        self.address, self.kernels = self.native.address, len(planned.steps)
        self.pools = [(meta, memory.size_class(meta.nbytes)) for meta in face.results]
        self.arena_bytes = planned.arena_bytes
        self.arena = memory.size_class(planned.arena_bytes) if planned.arena_bytes else None


class _Call(Call):
    """A program as part of a larger one."""

    name = "compiled_backward"

    def __init__(self, graph: Graph):
        super().__init__([_aval(v) for v in graph.inputs])
        self.graph = graph

    def build(self, values: Sequence[Value]) -> list[Value]:
        """The results for these arguments."""
        return substitute(self.graph.outputs, dict(zip(self.graph.inputs, values, strict=True)))


def _gradient_meta(owner: Any) -> Meta:
    """The layout of a gradient that can become the owner's `.grad` as it is."""
    meta = owner._meta
    if meta.contiguous or not dense_order(meta.shape, meta.strides):
        return contiguous_meta(meta.dtype, meta.shape)
    return meta


class _CompiledNode(Node):
    """Stands on the tape for one call of a compiled function."""

    __slots__ = ("tape_backward", "tape_numbers")

    def apply(self, grads: list) -> tuple:
        if mode() & 3 == RECORD:
            raise RuntimeError(
                "The gradient of a compiled function cannot be differentiated again "
                "(create_graph=True): its backward is one program. Compute the first gradient "
                "inside of the compiled function, or call the function without torch.compile.")
        return self.tape_backward.run(self, grads, saving.unpack(self))


_NODE = node_type("CompiledFunctionBackward", _CompiledNode)


def spent_node(name: str, metas: Sequence[Meta]) -> Node:
    """A node whose graph was freed by a backward inside of the function."""
    node = node_type(name)((), tuple(metas))
    node.release()
    return node
