"""What can go wrong with a checkpoint.

    CheckpointError             (pickle.UnpicklingError and RuntimeError: code for either works)
    ├── TruncatedError          (also EOFError) the file ends too early
    ├── CorruptError            bytes that contradict each other
    └── UnsafeError             asks for a class or function that is not allowed
    SaveError                   (OSError and RuntimeError) the checkpoint could not be written
"""

from __future__ import annotations

import pickle

__all__ = ["CheckpointError", "CorruptError", "SaveError", "TruncatedError", "UnsafeError"]


class CheckpointError(pickle.UnpicklingError, RuntimeError):
    """A file that cannot be loaded; the message names it and says what to do."""


class TruncatedError(CheckpointError, EOFError):
    """A file that ends before it should: its saving, copying or download was interrupted."""


class CorruptError(CheckpointError):
    """A file whose bytes do not fit together: damaged, or made to mislead."""


class UnsafeError(CheckpointError):
    """A file that names classes or functions which loading may not touch."""


class SaveError(OSError, RuntimeError):
    """A checkpoint that could not be written. `errno` and `filename` are the system's."""
