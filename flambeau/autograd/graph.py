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

__all__ = ["region_activation_memory_budget", "set_override_stale_capture_stream",
           "set_warn_on_accumulate_grad_stream_mismatch", "Node", "AccumulateGrad",
           "GradientEdge", "RELEASED", "node_type", "next_order", "edge_of", "accumulator_of",
           "get_gradient_edge", "register_tensor_class", "tensors", "zeros_for", "fill_missing",
           "note_stack", "increment_version", "saved_tensors_hooks", "save_on_cpu",
           "disable_saved_tensors_hooks", "allow_mutation_on_saved_tensors",
           "register_multi_grad_hook"]


def set_warn_on_accumulate_grad_stream_mismatch(enabled: bool) -> None:
    """Accepted: streams belong to accelerators, so no two can differ.

    >>> torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    """


def set_override_stale_capture_stream(enabled: bool) -> None:
    """Accepted: streams belong to accelerators, so none can be stale.

    >>> torch.autograd.graph.set_override_stale_capture_stream(True)
    """


def region_activation_memory_budget(budget: float) -> None:
    """A part of a compiled function that shall keep less for its gradient.

    Args:
        budget: 0 for what checkpointing keeps, up to 1 for all that is worth it.

    Raises:
        ValueError: another budget.
        NotImplementedError: else; `torch.utils.checkpoint.checkpoint` works in compiled functions.

    >>> try:
    ...     torch.autograd.graph.region_activation_memory_budget(1.5)
    ... except ValueError as error:
    ...     print(error)
    expected a budget between 0 and 1, got 1.5
    """
    if not 0 <= budget <= 1:
        raise ValueError(f"expected a budget between 0 and 1, got {budget}")
    raise NotImplementedError("region_activation_memory_budget is not implemented; wrap the part "
                              "in torch.utils.checkpoint.checkpoint")
