"""The tape's nodes: what one recorded operation is, and how tensors point to it.

A node is the backward of one operation. `next_edges` has one entry per *input* of the forward: the
node that receives that input's gradient and which of its outputs the input was, or None where no
gradient is wanted. `output_metas` has the layout (`.shape`, `.dtype`) of each *output* of the
forward, which is what the gradients given to `apply` must look like.

Nodes are numbered as they are made, and an edge can only lead to an older node; the engine's order
rests on that alone. So take the edges (`edge_of` may make an accumulator) before making the node
that they belong to. Tensors are duck-typed here: this layer sits below them.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple
from weakref import ref

from flambeau.autograd.accumulation import accumulate
from flambeau.autograd.handles import NodeHooks, RemovableHandle
from flambeau.autograd.registry import tensors
from flambeau.core.errors import stack_location

__all__ = ["Node", "AccumulateGrad", "GradientEdge", "RELEASED", "node_type", "next_order",
           "edge_of", "accumulator_of", "get_gradient_edge", "zeros_for", "fill_missing",
           "note_stack", "increment_version"]

Edge = tuple["Node", int]

_new = object.__new__

next_order = itertools.count(-1, -1).__next__
"""The order of the next node: negative and falling, so that a min-heap gives the newest first."""


class _Released(tuple):
    """The type of `RELEASED`: a true value, so that one test in the engine sees it."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return True


RELEASED: Any = _Released()
"""What `Node.tape_saved` is after the saved tensors were freed."""


class Node:
    """One recorded operation. A subclass (see `node_type`) says in `apply` how it differentiates.

    Attributes:
        next_edges: for each input of the forward, (node, output number) or None.
        output_metas: for each output of the forward, its layout (has `.shape` and `.dtype`).
        tape_saved: what the backward needs, see `saved.py`; empty if nothing; `RELEASED` once
            freed.
        tape_versions: for each of `tape_saved`, the version to expect; None: nothing to check.
        tape_where: the location that recorded the operation, for error messages, or None.
        tape_order: minus the sequence number, minus one.
        tape_hooks: None, or everything rare: hooks, metadata, the stack of anomaly mode.

    The prefix keeps them apart from what users set on the `ctx` of a `Function`, which is a node.
    """

    __slots__ = ("tape_order", "next_edges", "output_metas", "tape_saved", "tape_versions",
                 "tape_where", "tape_hooks", "__weakref__")

    def __init__(self, next_edges: tuple[Edge | None, ...] = (), output_metas: tuple = ()) -> None:
        self.tape_order = next_order()
        self.next_edges = next_edges
        self.output_metas = output_metas
        self.tape_saved = ()
        self.tape_versions = None
        self.tape_where = None
        self.tape_hooks: NodeHooks | None = None

    def apply(self, grads: list) -> tuple:
        """The gradients of the inputs (one per edge, None allowed) given those of the outputs.

        `grads` has a tensor or None per output; the engine does not call with all of them None
        unless `wants_none` is set.
        """
        raise NotImplementedError(f"{self.name()} defines no backward")

    wants_none = False
    """True if `apply` must run even when no gradient arrived at all."""

    def release(self) -> None:
        """Free what was saved; a second backward through this node becomes an error."""
        self.tape_saved = RELEASED
        self.tape_versions = None

    def __call__(self, *grads: Any) -> Any:
        """Run the backward of this node alone; a single gradient is returned bare."""
        results = tuple(self.apply(list(grads)))
        return results[0] if len(results) == 1 else results

    def name(self) -> str:
        """The name that PyTorch gives to this backward, for example "AddBackward0"."""
        return type(self).__name__

    @property
    def next_functions(self) -> tuple[tuple[Node | None, int], ...]:
        """`next_edges` with (None, 0) where no gradient is wanted."""
        return tuple((None, 0) if edge is None else edge for edge in self.next_edges)

    @property
    def sequence_nr(self) -> int:
        """How many nodes were made before this one."""
        return -self.tape_order - 1

    def _sequence_nr(self) -> int:
        return -self.tape_order - 1

    @property
    def _input_metadata(self) -> tuple:
        return self.output_metas

    @property
    def metadata(self) -> dict:
        """A dictionary for the user."""
        return self._own_hooks().metadata

    def _own_hooks(self) -> NodeHooks:
        if self.tape_hooks is None:
            self.tape_hooks = NodeHooks()
        return self.tape_hooks

    def register_hook(self, hook: Any) -> RemovableHandle:
        """Call `hook(grad_inputs, grad_outputs)` after each backward of this node.

        What the hook returns, unless None, replaces `grad_inputs`.
        """
        return self._own_hooks().add_post(hook)

    def register_prehook(self, hook: Any) -> RemovableHandle:
        """Call `hook(grad_outputs)` before each backward of this node.

        What the hook returns, unless None, replaces `grad_outputs`.
        """
        return self._own_hooks().add_pre(hook)

    def _register_hook_dict(self, hooks: dict) -> None:
        self._own_hooks().post = hooks

    def __repr__(self) -> str:
        return f"<{type(self).__name__} object at {id(self):#x}>"

    __str__ = __repr__


_node_types: dict[tuple[str, type], type] = {}


def node_type(name: str, base: type = Node, **attributes: Any) -> type:
    """The subclass of `base` that prints as `name`, made once; `attributes` go into the class.

    Instances have exactly the slots of `base`, so a class per operation costs nothing per node.
    """
    key = (name, base)
    found = _node_types.get(key)
    if found is None:
        body = {"__slots__": (), "__module__": "flambeau.autograd.tape", **attributes}
        found = _node_types[key] = type(name, (base,), body)
    return found


class AccumulateGrad(Node):
    """The end of every path: adds the gradient that arrives to `variable.grad`.

    The tensor holds its accumulator weakly and the graph holds it strongly, so a leaf stays alive
    while a graph leads to it, and dies by reference counting afterwards.
    """

    __slots__ = ("variable",)

    def __init__(self, variable: Any) -> None:
        Node.__init__(self, (), (variable._meta,))
        self.variable = variable

    def name(self) -> str:
        """PyTorch's name for it, which unlike the type's is qualified."""
        return "torch::autograd::AccumulateGrad"

    def apply(self, grads: list) -> tuple:
        """Accumulate outside a backward pass (`grad_fn(...)` called by hand)."""
        if grads[0] is not None:
            accumulate(self.variable, grads[0])
        return ()


def accumulator_of(leaf: Any) -> AccumulateGrad:
    """The accumulator of a leaf that requires grad; made if the last one is gone."""
    reference = leaf._accumulator
    if reference is not None:
        node = reference()
        if node is not None:
            return node
    node = _new(AccumulateGrad)  # what its __init__ does, at half the price: leaves get one a step
    node.tape_order = next_order()
    node.next_edges = node.tape_saved = ()
    node.output_metas = (leaf._meta,)
    node.tape_versions = node.tape_where = node.tape_hooks = None
    node.variable = leaf
    leaf._accumulator = ref(node)
    return node


def edge_of(tensor: Any) -> Edge | None:
    """Where the gradient of `tensor` goes: (node, output number), or None if it needs none."""
    node = tensor._grad_fn
    if node is not None:
        return node, tensor._output_nr
    if tensor._rg and not getattr(tensor, "_inherits", False):
        return accumulator_of(tensor), 0
    return None


class GradientEdge(NamedTuple):
    """One output of one node: stands for a tensor in `backward` and `grad` without keeping it."""

    node: Node
    output_nr: int


def get_gradient_edge(tensor: Any) -> GradientEdge:
    """The edge that receives the gradient of `tensor`.

    Raises:
        RuntimeError: `tensor` does not require grad.

    >>> x = torch.ones(2, requires_grad=True)
    >>> edge = torch.autograd.graph.get_gradient_edge(x.exp())
    >>> edge.output_nr
    0
    """
    if not tensor.requires_grad:
        raise RuntimeError("It is not possible to get the gradient edge for a Tensor "
                           "that does not require gradients")
    node = tensor.grad_fn
    if node is None:
        return GradientEdge(accumulator_of(tensor), 0)
    return GradientEdge(node, tensor._output_nr)


def zeros_for(layout: Any) -> Any:
    """A tensor of zeros with the shape and dtype (and device, if it has one) of a layout."""
    device = getattr(layout, "device", None)
    if device is None:
        return tensors.make.zeros(layout.shape, dtype=layout.dtype)
    return tensors.make.zeros(layout.shape, dtype=layout.dtype, device=device)


def fill_missing(node: Node, grads: list) -> list:
    """`grads` with zeros in the places of None, except where the output was no tensor."""
    return [zeros_for(layout) if grad is None and layout is not None else grad
            for grad, layout in zip(grads, node.output_metas, strict=True)]


def note_stack(node: Node) -> None:
    """Keep the stack of the forward call with `node`, and its parent; for anomaly mode."""
    hooks = node._own_hooks()
    hooks.stack = stack_location()


def increment_version(tensor: Any) -> None:
    """Say that the memory of `tensor` (or of each of several) was written behind our back.

    >>> x = torch.ones(2)
    >>> torch.autograd.graph.increment_version(x)
    >>> x._version
    1
    """
    many = tensor if isinstance(tensor, (list, tuple)) else (tensor,)
    for one in many:
        if hasattr(one, "is_inference") and one.is_inference():
            raise RuntimeError("Inference tensors do not track version counter.")
        one._storage.version += 1
