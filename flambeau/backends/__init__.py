"""`torch.backends`: switches of libraries that Flambeau does not use.

They exist so that scripts run.
"""

from __future__ import annotations

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
cuda = SimpleNamespace(matmul=SimpleNamespace(allow_tf32=False), is_built=_no)
