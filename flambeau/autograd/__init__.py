"""The tape: graph, engine, modes, custom functions, checks. The public face of `autograd`.

Lives here: everything about recording and differentiating that needs to know no operation. The
layer sits below the tensor and never imports it; the tensor layer registers itself with
`graph.register_tensor_class`.

Names resolve at first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "backward": "api", "grad": "api", "Variable": "variable",
    "no_grad": "grad_mode", "enable_grad": "grad_mode", "set_grad_enabled": "grad_mode",
    "set_multithreading_enabled": "grad_mode", "inference_mode": "grad_mode",
    "is_grad_enabled": "grad_mode", "enforce_grad_layout_policy": "grad_mode",
    "is_inference_mode_enabled": "grad_mode",
    "Function": "function", "NestedIOFunction": "function",
    "detect_anomaly": "anomaly", "set_detect_anomaly": "anomaly",
}
_MODULES = ("anomaly", "engine", "forward_ad", "function", "functional", "grad_mode", "graph",
            "hooks", "profiler", "saved", "variable")

__all__ = ["Function", "Variable", "backward", "detect_anomaly", "enable_grad",
           "enforce_grad_layout_policy",
           "functional", "grad", "grad_mode", "gradcheck", "gradgradcheck", "graph",
           "inference_mode", "no_grad", "set_detect_anomaly", "set_grad_enabled", "variable"]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is not None:
        value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_MODULES})


# The module and the function share a name. Importing the module sets the attribute, so it must be
# imported before the function takes its place.
from flambeau.autograd.gradcheck import gradcheck, gradgradcheck  # noqa: E402
