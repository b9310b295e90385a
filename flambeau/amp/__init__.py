"""Automatic mixed precision: regions that compute products in 16 bits, and scaling of gradients.

Lives here: what users call. The casts themselves are part of dispatch (tensor/autocast.py), and
which op is cast how is said in ops/autocast.py.
"""

from __future__ import annotations

from flambeau.amp.autocast_mode import (
    autocast,
    custom_bwd,
    custom_fwd,
    is_autocast_available,
)
from flambeau.amp.grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]
