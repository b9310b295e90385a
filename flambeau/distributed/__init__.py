"""`torch.distributed` where there is none: questions are answered, the rest says what is missing.

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        ...

Code that asks first runs on one process, as with builds of PyTorch without distributed support.
Names can be imported and written in annotations; calling them raises NotImplementedError. May not
live here: communication, which is not implemented.
"""

from __future__ import annotations

import datetime
import enum
import os
from typing import Any

from flambeau.core.missing import missing_class, missing_function

__all__ = ["Backend", "DistBackendError", "DistError", "DistNetworkError", "DistStoreError",
           "GroupMember", "QueueEmptyError", "ReduceOp", "default_pg_timeout", "group",
           "is_available", "is_backend_available", "is_gloo_available", "is_initialized",
           "is_mpi_available", "is_nccl_available", "is_torchelastic_launched",
           "is_ucc_available", "is_xccl_available"]

default_pg_timeout = datetime.timedelta(minutes=30)
"""How long collective operations wait for others, where there are any."""


def is_available() -> bool:
    """Can processes work together? Not yet."""
    return False


def is_initialized() -> bool:
    """Is there a process group? There never is."""
    return False


def is_backend_available(backend: str) -> bool:
    """Can processes talk by way of this backend? None is there."""
    return False


def is_gloo_available() -> bool:
    """Is Gloo there? No."""
    return False


def is_mpi_available() -> bool:
    """Is MPI there? No."""
    return False


def is_nccl_available() -> bool:
    """Is NCCL there? No."""
    return False


def is_ucc_available() -> bool:
    """Is UCC there? No."""
    return False


def is_xccl_available() -> bool:
    """Is XCCL there? No."""
    return False


def is_torchelastic_launched() -> bool:
    """Has torchrun started this process? It says so in the environment."""
    return os.environ.get("TORCHELASTIC_RUN_ID") is not None


class ReduceOp(enum.Enum):
    """How a reduction over processes combines numbers."""

    SUM = 0
    AVG = 1
    PRODUCT = 2
    MIN = 3
    MAX = 4
    BAND = 5
    BOR = 6
    BXOR = 7
    PREMUL_SUM = 8


class Backend(str):
    """The name of a backend, in lower case."""

    UNDEFINED, GLOO, NCCL, UCC, MPI, XCCL = "undefined", "gloo", "nccl", "ucc", "mpi", "xccl"

    def __new__(cls, name: str) -> Backend:
        return str.__new__(cls, name.lower())


class GroupMember:
    """Which processes a group has: WORLD is the one of all, None without a process group."""

    WORLD: Any = None
    NON_GROUP_MEMBER = -100


class group:
    """The older name of `GroupMember`."""

    WORLD: Any = None


class DistError(RuntimeError):
    """An error of working together."""


class DistBackendError(DistError):
    """An error of a backend."""


class DistNetworkError(DistError):
    """An error of the network."""


class DistStoreError(DistError):
    """An error of a store of keys and values."""


class QueueEmptyError(DistStoreError):
    """A queue of a store that nothing has been put into."""


# ---------------------------------------------------------------------- what is missing
_FUNCTIONS = frozenset((
    "all_gather", "all_gather_coalesced", "all_gather_into_tensor", "all_gather_object",
    "all_gather_single", "all_reduce", "all_reduce_coalesced", "all_to_all", "all_to_all_single",
    "barrier", "batch_isend_irecv", "breakpoint", "broadcast", "broadcast_object_list",
    "destroy_process_group", "gather", "gather_object", "get_backend", "get_backend_config",
    "get_debug_level", "get_default_backend_for_device", "get_global_rank", "get_group_rank",
    "get_node_local_rank", "get_pg_count", "get_process_group_ranks", "get_rank",
    "get_world_size", "init_device_mesh", "init_process_group", "irecv", "isend",
    "monitored_barrier", "new_group", "new_subgroups", "new_subgroups_by_enumeration", "recv",
    "recv_object_list", "reduce", "reduce_scatter", "reduce_scatter_single",
    "reduce_scatter_tensor", "register_rendezvous_handler", "rendezvous", "scatter",
    "scatter_object_list", "send", "send_object_list", "set_debug_level",
    "set_debug_level_from_env", "shrink_group", "split_group", "supports_complex"))
_CLASSES = frozenset((
    "BackendConfig", "DebugLevel", "DeviceMesh", "FileStore", "GradBucket", "HashStore", "P2POp",
    "PrefixStore", "ProcessGroup", "ProcessGroupGloo", "Store", "TCPStore", "Work"))


def _message(name: str) -> str:
    return (f"torch.distributed.{name} is not implemented: there is one process. Ask "
            "torch.distributed.is_available(), which is False, before it")


def _missing(name: str) -> Any:
    if name in _FUNCTIONS:
        return missing_function(name, __name__, _message(name),
                                "Raises NotImplementedError: processes cannot work together yet.")
    return missing_class(name, __name__, _message(name),
                         "Cannot be made: processes cannot work together yet.")


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS or name in _CLASSES:
        found = globals()[name] = _missing(name)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}: working together is not "
                         "implemented; torch.distributed.is_available() is False")


def __dir__() -> list[str]:
    return sorted({*globals(), *_FUNCTIONS, *_CLASSES})
