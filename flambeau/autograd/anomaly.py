"""Anomaly mode: find the forward call whose backward fails or makes NaN."""

from __future__ import annotations

import warnings
from typing import Any

from flambeau.autograd import grad_mode
from flambeau.autograd.grad_mode import ANOMALY, NAN_CHECK, mode, set_bits
from flambeau.core.errors import describe_stack

__all__ = ["detect_anomaly", "set_detect_anomaly", "is_anomaly_enabled",
           "is_anomaly_check_nan_enabled", "set_anomaly_enabled", "apply"]

_BITS = ANOMALY | NAN_CHECK


def _bits_for(enabled: bool, check_nan: bool) -> int:
    # Without the NaN check the slow path of the engine is still wanted, for the traceback.
    if not enabled:
        return 0
    return ANOMALY | (NAN_CHECK if check_nan else 0)


def is_anomaly_enabled() -> bool:
    """True if anomaly mode is on in this thread.

    >>> torch.is_anomaly_enabled()
    False
    """
    return bool(mode() & ANOMALY)


def is_anomaly_check_nan_enabled() -> bool:
    """True if anomaly mode looks for NaN; where it is off, it would.

    >>> torch.is_anomaly_check_nan_enabled()
    True
    """
    return not is_anomaly_enabled() or bool(mode() & NAN_CHECK)


def set_anomaly_enabled(mode: bool, check_nan: bool = True) -> None:
    """Turn anomaly mode on or off in this thread.

    >>> torch.set_anomaly_enabled(True)
    >>> torch.is_anomaly_enabled()
    True
    >>> torch.set_anomaly_enabled(False)
    """
    set_bits(_BITS, _bits_for(mode, check_nan))


class detect_anomaly:
    """Within the block, a failing backward shows the forward call that made it.

    Args:
        check_nan: raise an error where a backward returns NaN.

    >>> x = torch.tensor([-1.]).requires_grad_()
    >>> with torch.autograd.detect_anomaly(check_nan=False):
    ...     x.sqrt().backward()
    >>> x.grad
    tensor([nan])
    """

    def __init__(self, check_nan: bool = True) -> None:
        self.check_nan = check_nan
        warnings.warn("Anomaly Detection has been enabled. This mode will increase the runtime and "
                      "should only be enabled for debugging.", stacklevel=2)

    def __enter__(self) -> None:
        self._before = set_bits(_BITS, _bits_for(True, self.check_nan))

    def __exit__(self, *exc_info: object) -> None:
        set_bits(_BITS, self._before & _BITS)


class set_detect_anomaly:
    """Turn anomaly mode on or off at once; as a context manager, put it back at the end.

    Args:
        mode: True to turn it on.
        check_nan: raise an error where a backward returns NaN.

    >>> x = torch.tensor([2.]).requires_grad_()
    >>> with torch.autograd.set_detect_anomaly(True):
    ...     (x * x).backward()
    >>> x.grad
    tensor([4.])
    """

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self._before = set_bits(_BITS, _bits_for(mode, check_nan))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> None:
        set_bits(_BITS, self._before & _BITS)


def _forward_call(node: Any) -> str:
    if node.tape_hooks is None or not node.tape_hooks.stack:
        return ("No forward pass information available. Enable detect anomaly during forward pass "
                "for more information.")
    return ("Traceback of forward call that caused the error:\n"
            + describe_stack(node.tape_hooks.stack))


def apply(node: Any, grads: list) -> tuple:
    """Run a node's backward; on failure or NaN, tell where its forward was called."""
    try:
        results = tuple(node.apply(grads))
    except Exception:
        warnings.warn(f"Error detected in {node.name()}. {_forward_call(node)}", stacklevel=2)
        raise
    if grad_mode.mode() & NAN_CHECK:
        for index, grad in enumerate(results):
            if grad is not None and _has_nan(grad):
                warnings.warn(f"Error detected in {node.name()}. {_forward_call(node)}",
                              stacklevel=2)
                raise RuntimeError(f"Function '{node.name()}' returned nan values in its "
                                   f"{index}th output.")
    return results


def _has_nan(tensor: Any) -> bool:
    return not tensor.is_meta and bool((tensor != tensor).any())
