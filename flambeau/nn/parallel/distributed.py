"""`DistributedDataParallel`: for code that asks whether a module is one."""

from __future__ import annotations

from typing import Any

from flambeau.nn.modules.module import Module

__all__ = ["DistributedDataParallel"]


class DistributedDataParallel(Module):
    """A module whose gradients are averaged over processes: cannot be made yet.

    Raises:
        NotImplementedError: always; train the module itself in one process.
    """

    def __init__(self, module: Module, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("DistributedDataParallel is not implemented: processes cannot "
                                  "work together yet (torch.distributed.is_available() is False). "
                                  "Train the module itself in one process")
