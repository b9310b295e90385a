"""Parts: functions that many kernels have in common, cut out of a module's text.

A text names its parts itself (`emitter.Module.text`), and is whole without this file:

    ; part
    define internal void @pack_a(...) ... { ... }
    define internal void @pack_a_block(...) ... { ... }
    ; end

A loader may compile each part as a module of its own, once for all kernels that have the same one:
of the kernels of a training step's products, half of the code is the same.
"""

from __future__ import annotations

import functools
import re

__all__ = ["parted"]

_BEGIN, _END = "; part\n", "; end\n"
_DEFINED = re.compile(r"^define internal ([^@\n]*)@([\w.$]+)\(([^\n]*)\) [^)\n]*\{$", re.MULTILINE)
_USED = re.compile(r"@([\w.$-]+)")
_DECLARED = re.compile(r"^declare [^@\n]*@([\w.$]+)\([^\n]*$", re.MULTILINE)
_LIBRARY = re.compile(r"^(?:define [^@\n]*@([\w.$]+)\([^\n]*\{\n.*?^\}|@([\w.$]+) = [^\n]*)$",
                      re.MULTILINE | re.DOTALL)
_METADATA = re.compile(r"^![^\n]*$", re.MULTILINE)
_ARGUMENT = re.compile(r" %[\w.$]+(?=,|$)")


def parted(text: str) -> tuple[str, list[str]]:
    """(the text without its parts, whose functions it declares instead; the texts of the parts).

    A part's functions are exported; it repeats the declarations and the library functions that it
    needs. Texts without parts are returned as they are.
    """
    rest, *pieces = text.split(_BEGIN)
    if not pieces:
        return text, []
    bodies = []
    for piece in pieces:
        body, _, after = piece.partition(_END)
        bodies.append(body)
        rest += after
    known = {found[1]: found[0] for found in _DECLARED.finditer(rest)}
    known |= {found[1] or found[2]: found[0] for found in _LIBRARY.finditer(rest)
              if " internal " in found[0] or found[2]}
    ending = "\n".join(_METADATA.findall(rest)) + "\n"
    declared, parts = [], []
    for body in bodies:
        declared += _declarations(body)
        needed = _needed(body, known)
        parts.append("\n".join([*needed, body.replace("define internal ", "define ")]) + ending)
    return "\n".join([*declared, rest]), parts


@functools.lru_cache(maxsize=256)
def _declarations(body: str) -> list[str]:
    """Of the functions that a part defines."""
    return [f"declare {ret}@{name}({_ARGUMENT.sub('', args)})"
            for ret, name, args in _DEFINED.findall(body)]


def _needed(body: str, known: dict[str, str]) -> list[str]:
    """The definitions and declarations that a part needs, in order of name."""
    found: dict[str, str] = {}
    waiting = [body]
    while waiting:
        for name in set(_USED.findall(waiting.pop())) & known.keys() - found.keys():
            found[name] = known[name]
            waiting.append(known[name])
    return [found[name] for name in sorted(found)]
