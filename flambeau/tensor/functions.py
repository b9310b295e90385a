"""The functions that users call: one per op record, derived, plus the few whose arguments PyTorch
overloads in ways that a single signature cannot express."""

from __future__ import annotations

import importlib
from typing import Any

from flambeau.ops.record import REGISTRY
from flambeau.tensor import launches
from flambeau.tensor.forms import make_function, make_inplace, make_mutating

__all__ = ["FAMILIES", "ops"]

FAMILIES = ("elementwise", "comparison", "rounding", "views", "reduce", "matmul", "activation",
            "loss", "norm", "pool", "conv", "index", "embedding", "distance",
            "margin", "rearrange", "resample", "unpool", "attention", "recurrent",
            "recurrent_layer", "ctc", "optim", "creation", "random",
            "complex_numbers", "scan", "sort", "arithmetic", "special", "statistics",
            "products", "diagonals", "search", "histogram", "quantize", "scaled",
            "polynomials", "bessel", "linalg", "scaling", "sparse", "fft", "windows",
            "spectrogram", "incomplete_gamma", "gamma_draws")
"""The modules of flambeau.ops that define ops."""


class _Ops:
    """Every op by its short name, and its in-place form with an underscore. A function is made when
    it is first asked for: making them all would take longer than the import of the package may."""

    def __getattr__(self, name: str) -> Any:
        record = _records.get(name)
        if record is not None:
            made = make_function(record)
        elif name.endswith("_") and (record := _records.get(name[:-1])) is not None and (
                record.mutates or record.inplace):
            made = make_mutating(record) if record.mutates else make_inplace(record)
        else:
            raise AttributeError(f"there is no operation {name!r}")
        setattr(self, name, made)
        return made


for _family in FAMILIES:
    importlib.import_module(f"flambeau.ops.{_family}")
_records = {name.split(".")[-1]: record for name, record in REGISTRY.items()}
ops = launches.late.ops = _Ops()


def __getattr__(name: str) -> Any:
    """Ops are also attributes of this module; so are the hand-written functions beside them."""
    found = getattr(ops, name, None)
    if found is None and not name.startswith("__"):
        for home in ("overloads", "random", "compress", "creation"):
            module = importlib.import_module(f"flambeau.tensor.{home}")
            if name in module.__all__:
                found = getattr(module, name)
    if found is None and name.startswith("__"):
        raise AttributeError(name)
    if found is None:
        raise NotImplementedError(f"the operation {name!r} is not implemented yet")
    globals()[name] = found  # the next time it is found without this function
    return found

