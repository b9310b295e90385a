"""`torch.backends`: switches of libraries that Flambeau does not use.

They exist so that scripts run.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from types import SimpleNamespace

__all__ = ["cudnn", "mkl", "mkldnn", "mps", "openmp", "cuda"]


def _no() -> bool:
    return False


cudnn = SimpleNamespace(is_available=_no, enabled=False, benchmark=False, deterministic=True,
                        allow_tf32=False)
mkl = SimpleNamespace(is_available=_no)
mkldnn = SimpleNamespace(is_available=_no, enabled=False)
mps = SimpleNamespace(is_available=_no, is_built=_no)
openmp = SimpleNamespace(is_available=_no)


class _Attention:
    """Whether an implementation of attention may be used: kept, and without effect."""

    def __init__(self) -> None:
        self.allowed = {"flash": True, "math": True, "mem_efficient": True, "cudnn": True}

    def functions(self) -> dict[str, Callable]:
        """The functions that set and tell it, by their names."""
        found: dict[str, Callable] = {}
        for name in self.allowed:
            found[f"enable_{name}_sdp"] = functools.partial(self.allowed.__setitem__, name)
            found[f"{name}_sdp_enabled"] = functools.partial(self.allowed.__getitem__, name)
        return found

    @contextlib.contextmanager
    def sdp_kernel(self, enable_flash: bool = True, enable_math: bool = True,
                   enable_mem_efficient: bool = True, enable_cudnn: bool = True) -> Iterator[None]:
        """Set all four for a block."""
        before = dict(self.allowed)
        self.allowed.update(flash=enable_flash, math=enable_math,
                            mem_efficient=enable_mem_efficient, cudnn=enable_cudnn)
        try:
            yield
        finally:
            self.allowed.update(before)


_attention = _Attention()
cuda = SimpleNamespace(matmul=SimpleNamespace(allow_tf32=False), is_built=_no,
                       is_flash_attention_available=_no, sdp_kernel=_attention.sdp_kernel,
                       **_attention.functions())
