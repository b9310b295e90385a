"""`torch.multiprocessing`: Python's multiprocessing, with tensors sent as shared memory.

Everything that Python's module has is here under its name. Importing this one teaches its pickler
that a tensor is a mapping of memory (reductions.py): sender and receiver see the same elements.
"""

from __future__ import annotations

import multiprocessing as _python
from multiprocessing import *  # noqa: F403
from multiprocessing import current_process, get_context, parent_process, reduction  # noqa: F401

from flambeau.multiprocessing.pool import Pool
from flambeau.multiprocessing.reductions import init_reductions
from flambeau.multiprocessing.spawn import (
    ENV_VAR_PARALLEL_START,
    ProcessContext,
    ProcessException,
    ProcessExitedException,
    ProcessRaisedException,
    SpawnContext,
    spawn,
    start_processes,
)
from flambeau.runtime import shared as _shared

__all__ = ["set_sharing_strategy", "get_sharing_strategy", "get_all_sharing_strategies"]
__all__ += _python.__all__
__all__ += ["ENV_VAR_PARALLEL_START", "Pool", "ProcessContext", "ProcessException",
            "ProcessExitedException", "ProcessRaisedException", "SpawnContext", "spawn",
            "start_processes"]
__all__ = list(dict.fromkeys(__all__))


def set_sharing_strategy(new_strategy: str) -> None:
    """How tensors that are shared from now on get to other processes.

    Args:
        new_strategy: "file_descriptor" (the default) or "file_system", which needs no open files
            but leaves behind what is sent and never received.
    """
    if new_strategy not in _shared.STRATEGIES:
        raise AssertionError(f"there is no sharing strategy {new_strategy!r}; there are "
                             f"{sorted(_shared.STRATEGIES)}")
    _shared.set_strategy(new_strategy)


def get_sharing_strategy() -> str:
    """How tensors that are shared from now on get to other processes."""
    return _shared.strategy()


def get_all_sharing_strategies() -> set[str]:
    """The strategies that there are."""
    return set(_shared.STRATEGIES)


init_reductions()
