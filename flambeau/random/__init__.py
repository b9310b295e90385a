"""`torch.random`: seeds and states of the default stream."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from flambeau.core.device import Device
from flambeau.tensor.random import (
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
    thread_safe_generator,
)

__all__ = ["fork_rng", "get_rng_state", "initial_seed", "manual_seed", "seed", "set_rng_state",
           "thread_safe_generator"]


@contextlib.contextmanager
def fork_rng(devices: Any = None, enabled: bool = True, _caller: str = "fork_rng",
             _devices_kw: str = "devices", device_type: str | None = None) -> Iterator[None]:
    """Restore the state of the default stream when the block ends.

    Args:
        devices, device_type: of accelerators whose streams would be restored, too.
        enabled: False does nothing.

    >>> _ = torch.manual_seed(0)
    >>> with torch.random.fork_rng():
    ...     a = torch.rand(2)
    >>> torch.equal(a, torch.rand(2))  # what was drawn inside does not count
    True
    """
    if device_type is not None:
        Device(device_type)  # an unknown one raises
    state = get_rng_state() if enabled else None
    try:
        yield
    finally:
        if state is not None:
            set_rng_state(state)
