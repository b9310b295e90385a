"""Names of TorchScript's inside: what has a meaning without it, and what says that it is missing.
"""

from __future__ import annotations

import enum
from typing import Any

from flambeau.core.missing import missing_class, missing_function

__all__ = ["AVG", "SUM", "AggregationType", "ScriptClass", "ScriptFunction",
           "compiled_with_cxx11_abi", "import_ir_module", "import_ir_module_from_buffer",
           "merge_type_from_type_comment", "parse_ir", "parse_type_comment", "unify_type_list"]


class AggregationType(enum.IntEnum):
    """How numbers that several runs report are put together."""

    SUM = 0
    AVG = 1


SUM, AVG = AggregationType.SUM, AggregationType.AVG


def compiled_with_cxx11_abi() -> bool:
    """Do the strings of native libraries have C++11's form? There are none that have another.

    >>> torch.compiled_with_cxx11_abi()
    True
    """
    return True


def _message(name: str) -> str:
    return (f"torch.{name} belongs to TorchScript, which is not implemented: torch.compile and "
            "torch.export work on Python functions")


def _missing(name: str, what: str) -> Any:
    return missing_function(name, __name__, _message(name), (
        f"{what}: raises, since there is no TorchScript.\n\n>>> try:\n"
        f"...     torch.{name}()\n... except NotImplementedError:\n"
        "...     print('there is no TorchScript')\nthere is no TorchScript"))


ScriptClass, ScriptFunction = (
    missing_class(name, __name__, _message(name),
                  "Cannot be made: there is no TorchScript. For isinstance.")
    for name in ("ScriptClass", "ScriptFunction"))
import_ir_module = _missing("import_ir_module", "Load a scripted module from a file")
import_ir_module_from_buffer = _missing("import_ir_module_from_buffer",
                                        "Load a scripted module from bytes")
merge_type_from_type_comment = _missing("merge_type_from_type_comment",
                                        "Join a function with the types in a comment")
parse_ir = _missing("parse_ir", "Read a graph of TorchScript from text")
parse_type_comment = _missing("parse_type_comment", "Read the types in a comment")
unify_type_list = _missing("unify_type_list", "The type that holds values of several types")
