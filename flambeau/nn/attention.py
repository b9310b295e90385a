"""`torch.nn.attention`: which implementation attention uses. There is one: nothing is chosen."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from typing import Any

__all__ = ["SDPBackend", "sdpa_kernel"]


class SDPBackend(enum.IntEnum):
    """Implementations of scaled dot product attention in PyTorch."""

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4


@contextlib.contextmanager
def sdpa_kernel(backends: list[SDPBackend] | SDPBackend, set_priority: bool = False
                ) -> Iterator[None]:
    """Accepted: attention is one kernel that never stores the scores, whatever is asked for.

    Raises:
        TypeError: no `SDPBackend`, or a list with something else.
    """
    wanted: Any = backends if isinstance(backends, (list, tuple)) else [backends]
    for each in wanted:
        if not isinstance(each, SDPBackend):
            raise TypeError(f"sdpa_kernel: expected an SDPBackend or a list of them, got {each!r}")
    yield
