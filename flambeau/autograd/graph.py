"""The public face of the tape (`torch.autograd.graph`), and what other layers need of it."""

from __future__ import annotations

from flambeau.autograd.multi_hooks import register_multi_grad_hook
from flambeau.autograd.registry import register_tensor_class, tensors
from flambeau.autograd.saved import (
    allow_mutation_on_saved_tensors,
    disable_saved_tensors_hooks,
    save_on_cpu,
    saved_tensors_hooks,
)
from flambeau.autograd.tape import (
    RELEASED,
    AccumulateGrad,
    GradientEdge,
    Node,
    accumulator_of,
    edge_of,
    fill_missing,
    get_gradient_edge,
    increment_version,
    next_order,
    node_type,
    note_stack,
    zeros_for,
)

__all__ = ["Node", "AccumulateGrad", "GradientEdge", "RELEASED", "node_type", "next_order",
           "edge_of", "accumulator_of", "get_gradient_edge", "register_tensor_class", "tensors",
           "zeros_for", "fill_missing", "note_stack", "increment_version", "saved_tensors_hooks",
           "save_on_cpu", "disable_saved_tensors_hooks", "allow_mutation_on_saved_tensors",
           "register_multi_grad_hook"]
