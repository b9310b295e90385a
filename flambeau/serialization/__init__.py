"""Checkpoints: PyTorch's files read without running code, and written so that PyTorch reads them.

Here live the container, the pickle machine and writer, and the allow-list. What a tensor is, they
learn from `tensors.py` alone. Nothing here computes on tensors.
"""

from flambeau.serialization import safetensors
from flambeau.serialization.api import get_unsafe_globals_in_checkpoint, load, save
from flambeau.serialization.errors import (
    CheckpointError,
    CorruptError,
    SaveError,
    TruncatedError,
    UnsafeError,
)
from flambeau.serialization.globals import (
    add_safe_globals,
    clear_safe_globals,
    get_safe_globals,
    safe_globals,
)
from flambeau.serialization.locations import (
    default_restore_location,
    location_tag,
    register_package,
)
from flambeau.serialization.options import (
    LoadEndianness,
    check_module_version_greater_or_equal,
    get_crc32_options,
    get_default_load_endianness,
    get_default_mmap_options,
    set_crc32_options,
    set_default_load_endianness,
    set_default_mmap_options,
    skip_data,
)
from flambeau.serialization.run import checkpoint, resume

__all__ = [
    "CheckpointError", "CorruptError", "LoadEndianness", "SaveError", "TruncatedError",
    "UnsafeError", "add_safe_globals", "check_module_version_greater_or_equal", "checkpoint",
    "clear_safe_globals", "default_restore_location", "get_crc32_options",
    "get_default_load_endianness", "get_default_mmap_options", "get_safe_globals",
    "get_unsafe_globals_in_checkpoint", "load", "location_tag", "register_package", "resume",
    "safe_globals", "safetensors", "save", "set_crc32_options", "set_default_load_endianness",
    "set_default_mmap_options", "skip_data",
]
