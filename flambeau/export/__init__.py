"""`torch.export`: a module's forward as one program, with its state as inputs.

`program.py` holds what an export gives, `shapes.py` what users say about sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flambeau.export.program import ExportedProgram, ExportGraphSignature, build
from flambeau.export.shapes import Dim, dims
from flambeau.nn.modules.module import Module

__all__ = ["Dim", "ExportGraphSignature", "ExportedProgram", "dims", "export",
           "export_for_training", "load", "save"]


def export(mod: Module, args: tuple, kwargs: Mapping[str, Any] | None = None, *,
           dynamic_shapes: Any = None, strict: bool = False,
           preserve_module_call_signature: tuple[str, ...] = (),
           prefer_deferred_runtime_asserts_over_guards: bool = False) -> ExportedProgram:
    """The program that `mod(*args, **kwargs)` runs.

    The module is run once, without recording; what cannot be part of a program raises.

    Args:
        mod: the module; the program shares its parameters and buffers.
        args: example arguments, as a tuple; kwargs: by name.
        dynamic_shapes: which sizes may vary: for each argument, by name or by position, a dict
            {dimension: Dim} or a sequence of them (`Dim("batch")`, `Dim.AUTO`, None for fixed).
        strict, prefer_deferred_runtime_asserts_over_guards: accepted; there is one way to capture.
        preserve_module_call_signature: must be empty.

    Raises:
        CaptureError: names the line that cannot be part of a program, and a rewrite.
        ValueError: `mod` is no module, or `dynamic_shapes` does not fit the arguments.
    """
    if not isinstance(mod, Module):
        raise ValueError("Expected `mod` to be an instance of `torch.nn.Module`, got "
                         f"{type(mod)}.")
    if not isinstance(args, tuple):
        raise ValueError("Expecting `args` to be a tuple of example positional inputs, got "
                         f"{type(args)}")
    if preserve_module_call_signature:
        raise NotImplementedError(
            "torch.export.export(preserve_module_call_signature=...): programs have no inner "
            "modules to preserve. Export the inner module by itself.")
    return build(mod, args, dict(kwargs or {}), dynamic_shapes)


export_for_training = export


def save(ep: ExportedProgram, f: Any, **unused: Any) -> None:
    """Not possible yet."""
    raise NotImplementedError("torch.export.save: programs cannot be written to files yet. Save "
                              "`ep.state_dict` with torch.save, and export again after loading it.")


def load(f: Any, **unused: Any) -> ExportedProgram:
    """Not possible yet."""
    raise NotImplementedError("torch.export.load: programs cannot be read from files yet. Load a "
                              "state_dict into the module with torch.load, and export it.")
