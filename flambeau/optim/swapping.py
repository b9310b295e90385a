"""Other parameters and another state in an optimizer, for a while."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from flambeau.optim.optimizer import Optimizer
from flambeau.tensor import Tensor

__all__ = ["swap_in_optimizer_params_and_state"]


@contextlib.contextmanager
def swap_in_optimizer_params_and_state(optimizer: Optimizer,
                                       swapin_parameters: Mapping[str, Tensor],
                                       swapin_optim_state: Mapping[str, Any]) -> Iterator[None]:
    """Inside the block, `optimizer` has these parameters and this state; its own come back after.

    Args:
        optimizer: it must have made its state already.
        swapin_parameters: tensors in the order of the optimizer's own.
        swapin_optim_state: as `optimizer.state_dict()` gives it. Its tensors are used themselves,
            so steps change them; other changes are forgotten.

    Raises:
        RuntimeError: the state is not made yet, or parameters or groups are of another number.
    """
    groups, saved = optimizer.param_groups, swapin_optim_state["param_groups"]
    given = list(swapin_parameters.values())
    if not optimizer.state:
        raise RuntimeError("swap_in_optimizer_params_and_state requires initialized optimizer "
                           "state: let the optimizer make a step first.")
    if len(given) != sum(len(group["params"]) for group in groups):
        raise RuntimeError("swap_in_optimizer_params_and_state requires the explicit parameter "
                           "state to match optimizer.param_groups ordering: it has "
                           f"{len(given)} parameters.")
    if len(saved) != len(groups) or any(
            len(one["params"]) != len(other["params"])
            for one, other in zip(saved, groups, strict=True)):
        raise RuntimeError("swapin_optim_state has a different number of parameter groups than the "
                           "live optimizer, or groups of other sizes.")
    state: defaultdict = defaultdict(dict)
    swapped, rest = [], iter(given)
    for group in saved:
        params = []
        for number in group["params"]:
            param = next(rest)
            params.append(param)
            if number in swapin_optim_state["state"]:
                state[param] = dict(swapin_optim_state["state"][number])
        swapped.append({**group, "params": params})
    before = optimizer.state, groups
    optimizer.state, optimizer.param_groups = state, swapped
    try:
        yield
    finally:
        optimizer.state, optimizer.param_groups = before
