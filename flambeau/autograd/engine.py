"""The engine: runs the nodes of the tape backwards.

A node may run once everything newer that leads to it has run. Edges lead only to older nodes, so
the newest node that holds a gradient is always ready: a heap of node numbers is the whole
scheduler, and no dependency is ever counted. Accumulators are made just before the first use of
their leaf, so a leaf's gradient is complete, and its hooks run, as soon as its last contribution
is there.

The loop in `_Pass.run` is the hot path: an edge costs a dictionary look-up and a comparison of
interned layouts. Hooks, captures and anomaly mode are in `_Pass.apply_watched`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any

from flambeau.autograd import anomaly, tape
from flambeau.autograd.accumulation import accumulate
from flambeau.autograd.grad_mode import ANOMALY, LEVELS, RECORD, mode, set_mode
from flambeau.autograd.hooks import (
    enable_retain_grad,
    run_node_hooks,
    run_retain_hooks,
    run_tensor_hooks,
)
from flambeau.autograd.saved import BACKWARD_TWICE
from flambeau.autograd.tape import RELEASED, AccumulateGrad, GradientEdge, Node

__all__ = ["run_backward", "accumulate", "should_compute", "current_pass", "will_execute",
           "queue_callback"]


def validate(node: Node, index: int, grad: Any, layout: Any) -> Any:
    """`grad` made to fit `layout`: summed over broadcast dimensions, cast to its dtype.

    Args:
        node: the node that returned `grad`, at position `index`.
    """
    found = grad._meta
    if found.shape == layout.shape and found.dtype is layout.dtype:
        return grad  # only the strides differ
    if tuple(grad.shape) != tuple(layout.shape):
        if not _expands_to(layout.shape, grad.shape):
            raise RuntimeError(
                f"Function {node.name()} returned an invalid gradient at index {index} - got "
                f"{list(grad.shape)} but expected shape compatible with {list(layout.shape)}")
        grad = grad.sum_to_size(tuple(layout.shape))
    if grad.dtype is not layout.dtype and grad.dtype != layout.dtype:
        if grad.dtype.is_complex and not layout.dtype.is_complex:
            grad = grad.real
        grad = grad.to(layout.dtype)
    return grad


def _expands_to(small: Sequence[int], large: Sequence[int]) -> bool:
    if len(small) > len(large):
        return False
    return all(a == b or a == 1 for a, b in zip(reversed(small), reversed(large)))  # noqa: B905


_pass_ids = count().__next__
listeners: list[Callable[[Node], None]] = []
"""The last of them is called with each node that a pass runs."""

_CURRENT: ContextVar[_Pass | None] = ContextVar("flambeau_backward_pass", default=None)


class _Pass:
    """One backward pass.

    Attributes:
        id: different for each pass.
        heap: the orders of the nodes that hold gradients, a min-heap (newest first).
        waiting: order -> [node, gradients by output, bits of those that the engine itself made].
        retain: keep the saved tensors.
        record: record the backward itself.
        wanted: None, or for each requested (order, output number) its places in `captured`.
        needed: None, or the orders of the nodes to run.
        ends: with `needed`, the orders of the nodes whose gradients were asked for.
        captured: the requested gradients.
        watched: True if every node takes the slow path.
        callbacks: None, or what to call at the end.
        outer: the pass inside which this one runs, or None.
        roots: the nodes that it starts from.
    """

    __slots__ = ("id", "heap", "waiting", "retain", "record", "wanted", "needed", "ends",
                 "captured", "watched", "callbacks", "outer", "roots")

    def __init__(self, retain: bool, record: bool) -> None:
        self.id = _pass_ids()
        self.heap: list[int] = []
        self.waiting: dict[int, list] = {}
        self.retain = retain
        self.record = record
        self.wanted: dict[tuple[int, int], list[int]] | None = None
        self.needed: set[int] | None = None
        self.captured: list = []
        self.watched = bool(mode() & ANOMALY)
        self.callbacks: list | None = None

    def add_root(self, node: Node, output_nr: int, grad: Any) -> None:
        entry = self.waiting.get(node.tape_order)
        if entry is None:
            entry = self.waiting[node.tape_order] = [node, [None] * len(node.output_metas), 0]
        grads = entry[1]
        grads[output_nr] = grad if grads[output_nr] is None else grads[output_nr] + grad

    def run(self) -> None:
        """Run everything that is reachable from the roots."""
        heap, waiting = self.heap, self.waiting
        retain, record, watched = self.retain, self.record, self.watched
        told = listeners[-1] if listeners else None
        heap.extend(waiting)
        heapify(heap)
        while heap:
            node, grads, made = waiting.pop(heappop(heap))
            if told is not None:
                told(node)
            if watched or node.tape_hooks is not None:
                results = self.apply_watched(node, grads)
            elif node.__class__ is AccumulateGrad:
                variable = node.variable
                if variable._hooks is not None:
                    self.accumulate_watched(variable, grads)
                elif grads[0] is not None:
                    accumulate(variable, grads.pop(), made)
                continue
            elif grads[0] is None and not node.wants_none and _all_none(grads):
                results = (None,) * len(node.next_edges)
            elif node.tape_saved:
                if node.tape_saved is RELEASED:
                    raise RuntimeError(BACKWARD_TWICE)
                results = node.apply(grads)
                if not retain:
                    node.release()
            else:
                results = node.apply(grads)
            grads = None
            # To the inputs. The names are cleared so that no gradient outlives its use.
            for edge, grad in zip(node.next_edges, results):  # noqa: B905
                if edge is not None:
                    target, output_nr = edge
                    layouts = target.output_metas
                    if grad is not None and grad._meta is not layouts[output_nr]:
                        grad = validate(node, node.next_edges.index(edge), grad, layouts[output_nr])
                    order = target.tape_order
                    entry = waiting.get(order)
                    if entry is None:
                        if len(layouts) == 1:
                            waiting[order] = [target, [grad], 0]
                        else:
                            buffer = [None] * len(layouts)
                            buffer[output_nr] = grad
                            waiting[order] = [target, buffer, 0]
                            buffer = None
                        heappush(heap, order)
                    elif grad is not None:
                        _add(entry, output_nr, grad, record)
                    entry = None
            results = grad = None

    def apply_watched(self, node: Node, grads: list) -> tuple:
        """The gradients that `node` returns, with hooks, captures and checks; () if it is not run.

        The order is PyTorch's: hooks of the tensors, retained gradients, pre-hooks of the node,
        its backward, its post-hooks. What is captured is the gradient after the tensors' hooks,
        but before them if the node has to run as well.
        """
        hooks = node.tape_hooks
        needed = self.needed is None or node.tape_order in self.needed
        if self.needed is not None and needed:
            self._capture(node, grads)
        leaf = isinstance(node, AccumulateGrad)
        if leaf:
            if node.variable._hooks is not None and grads[0] is not None:
                grads[0] = run_tensor_hooks(node.variable._hooks, grads[0])
        elif hooks is not None:
            for output_nr, of_tensor in hooks.tensor.items():
                if grads[output_nr] is not None:
                    grads[output_nr] = run_tensor_hooks(of_tensor, grads[output_nr])
            run_retain_hooks(hooks, grads)
        if not needed:
            self._capture(node, grads)
            return ()
        if hooks is not None and hooks.pre:
            grads = list(run_node_hooks(hooks.pre, grads))
        if leaf:
            if grads[0] is not None:
                accumulate(node.variable, grads[0])
                _run_post_accumulate(node.variable)
            results: Any = ()
        elif _all_none(grads) and not node.wants_none:
            results = (None,) * len(node.next_edges)
        else:
            if node.tape_saved is RELEASED:
                raise RuntimeError(BACKWARD_TWICE)
            results = anomaly.apply(node, grads) if mode() & ANOMALY else node.apply(grads)
            if node.tape_saved and not self.retain:
                node.release()
        if hooks is not None and hooks.post:
            results = run_node_hooks(hooks.post, results, tuple(grads))
        return results

    def accumulate_watched(self, variable: Any, grads: list) -> None:
        """The end of a path whose leaf has hooks."""
        grad = grads.pop()
        if grad is None:
            return
        grad = run_tensor_hooks(variable._hooks, grad)
        accumulate(variable, grad)
        _run_post_accumulate(variable)

    def _capture(self, node: Node, grads: list) -> None:
        for output_nr, grad in enumerate(grads):
            for place in self.wanted.get((node.tape_order, output_nr), ()):
                self.captured[place] = grad

    def restrict(self, inputs: Sequence[tuple[Node, int]], accumulating: bool) -> None:
        """Run only what leads to `inputs`, and capture their gradients (or accumulate them)."""
        self.watched = True
        self.wanted = {}
        self.captured = [None] * len(inputs)
        self.ends = ends = {node.tape_order for node, _ in inputs}
        for place, (node, output_nr) in enumerate(inputs):
            if not accumulating:
                self.wanted.setdefault((node.tape_order, output_nr), []).append(place)
        self.needed = _leading_to(ends, [entry[0] for entry in self.waiting.values()])
        if accumulating:
            self.needed.update(node.tape_order for node, _ in inputs
                               if isinstance(node, AccumulateGrad))


def _all_none(grads: list) -> bool:
    return all(grad is None for grad in grads)


def _add(entry: list, output_nr: int, grad: Any, record: bool) -> None:
    """Add `grad` to what waits at one output of a node.

    The first sum is a new tensor that only the engine knows, so the next ones go in place.
    """
    grads = entry[1]
    held = grads[output_nr]
    bit = 1 << output_nr
    if held is None:
        grads[output_nr] = grad
    elif not held._meta.strided and grad._meta.strided:
        grads[output_nr] = grad + held  # a sparse gradient and a dense one make a dense one
    elif record:
        grads[output_nr] = held + grad
    elif entry[2] & bit:
        held.add_(grad)
    else:
        grads[output_nr] = held + grad
        entry[2] |= bit


def _run_post_accumulate(variable: Any) -> None:
    hooks = variable._hooks
    if hooks is not None and hooks.post:
        for hook in tuple(hooks.post.values()):
            result = hook(variable)
            if result is not None:
                raise RuntimeError("Tensor post accumulate grad hooks should return None.")


def _leading_to(ends: set[int], roots: Sequence[Node]) -> set[int]:
    """The orders of the nodes, reachable from `roots`, that have an edge on a path to `ends`."""
    oldest = max(ends, default=0)
    seen: dict[int, Node] = {}
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node.tape_order in seen or node.tape_order > oldest:
            continue  # nothing older than every end can lead to one
        seen[node.tape_order] = node
        stack.extend(edge[0] for edge in node.next_edges if edge is not None)
    needed: set[int] = set()
    for order in sorted(seen, reverse=True):  # oldest first
        for edge in seen[order].next_edges:
            if edge is not None and (edge[0].tape_order in ends or edge[0].tape_order in needed):
                needed.add(order)
                break
    return needed


def should_compute(node: Node, index: int) -> bool:
    """True if the running pass wants the gradient of input `index` of `node`.

    A backward rule may leave out what nobody asked for (`autograd.grad(loss, inputs)`).
    """
    edge = node.next_edges[index]
    if edge is None:
        return False
    running = _CURRENT.get()
    if running is None or running.needed is None or node.tape_order not in running.needed:
        return True  # a node that is not of this pass knows nothing of its wishes
    return edge[0].tape_order in running.needed or edge[0].tape_order in running.ends


def current_pass() -> _Pass:
    """The backward pass that is running in this thread.

    Raises:
        RuntimeError: none is.
    """
    running = _CURRENT.get()
    if running is None:
        raise RuntimeError("Final callbacks can only be installed during backward pass.")
    return running


def will_execute(running: _Pass, nodes: Sequence[Node]) -> list[bool]:
    """For each node, whether the pass reaches it (has run it or will)."""
    reached: set[int] = set()
    stack = list(running.roots)
    while stack:
        node = stack.pop()
        if node.tape_order not in reached:
            reached.add(node.tape_order)
            stack.extend(edge[0] for edge in node.next_edges if edge is not None)
    if running.needed is not None:
        reached &= running.needed | running.ends
    return [node.tape_order in reached for node in nodes]


def queue_callback(callback: Callable[[], None]) -> None:
    """Call `callback` at the end of the outermost running backward pass."""
    running = current_pass()
    while running.outer is not None:
        running = running.outer
    if running.callbacks is None:
        running.callbacks = []
    running.callbacks.append(callback)


def _root_edge(root: Any, index: int) -> tuple[Node, int]:
    if isinstance(root, GradientEdge):
        return root
    node = root.grad_fn  # the property: a view may have to renew its history first
    if node is not None:
        return node, root._output_nr
    if root._rg:
        return tape.accumulator_of(root), 0
    raise RuntimeError(f"element {index} of tensors does not require grad and does not have a "
                       "grad_fn")


def _input_edge(target: Any, accumulating: bool) -> tuple[Node, int]:
    if isinstance(target, GradientEdge):
        return target
    if not target.requires_grad:
        raise RuntimeError("One of the differentiated Tensors does not require grad")
    if accumulating:
        enable_retain_grad(target)
    return _root_edge(target, 0)


def run_backward(roots: Sequence[Any], grads: Sequence[Any], retain_graph: bool = False,
                 create_graph: bool = False, inputs: Sequence[Any] | None = None,
                 allow_unused: bool = False, accumulate_grad: bool = True) -> tuple | None:
    """One backward pass from `roots` with the gradients `grads`.

    Args:
        roots: tensors (or `GradientEdge`s) to differentiate.
        grads: their gradients, of the roots' shapes and dtypes (checked by the caller).
        retain_graph: keep the saved tensors for another pass.
        create_graph: record the pass, so that its results can be differentiated.
        inputs: None for every leaf, or the tensors whose gradients are wanted.
        allow_unused: give None for an input that the roots do not depend on.
        accumulate_grad: add to `.grad` of the inputs; if False, return their gradients.

    Raises:
        RuntimeError: a root needs no gradient; the graph was freed; a rule returned a gradient
            that does not fit; an input is not reached and `allow_unused` is False.
    """
    # among transforms a sum may have examples or tangents that its first part has not
    running = _Pass(retain_graph, create_graph or bool(mode() & LEVELS))
    for index, root in enumerate(roots):
        node, output_nr = _root_edge(root, index)
        grad = grads[index]
        if grad is not None and grad._meta is not node.output_metas[output_nr]:
            grad = validate(node, index, grad, node.output_metas[output_nr])
        running.add_root(node, output_nr, grad)
        grad = None
    grads = ()
    # Only a hook that asks for the whole graph reads this; the nodes live as long as the roots.
    running.roots = [entry[0] for entry in running.waiting.values()]
    if inputs is not None:
        edges = [_input_edge(target, accumulate_grad) for target in inputs]
        running.restrict(edges, accumulate_grad)
    running.outer = _CURRENT.get()
    _CURRENT.set(running)
    before = mode()
    set_mode(before | RECORD if create_graph else before & ~RECORD)
    try:
        running.run()
        if running.callbacks is not None:
            for callback in running.callbacks:
                callback()
    finally:
        set_mode(before)
        _CURRENT.set(running.outer)
    if inputs is None or accumulate_grad:
        return None
    if not allow_unused:
        for index, grad in enumerate(running.captured):
            if grad is None:
                raise RuntimeError(
                    f"The differentiated Tensor at index {index} appears to not have been used in "
                    "the graph. Set allow_unused=True if this is the desired behavior.")
    return tuple(running.captured)
