"""The forms of an op that users call, generated from its record: functional, in-place, mutating."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flambeau.core.generated import define
from flambeau.ops.record import Op
from flambeau.tensor.dispatch import (
    ACTIVE,
    FUNCTIONS,
    MISSING,
    call_inplace,
    call_mutating,
    call_op,
    call_out,
    call_renamed,
    call_unwatched,
)
from flambeau.tensor.overriding import LAYOUT_CLASSES
from flambeau.tensor.viewing import make_view

__all__ = ["make_function", "make_inplace", "make_mutating"]


def make_function(record: Op) -> Callable:
    """The public function of an op."""
    function = FUNCTIONS[record.name]
    short = record.name.split(".")[-1]
    out = ["out=None"] if record.out else []
    lenient = any(p.role == "static" and p.name in ("dim", "dims") for p in record.params)
    positional = [_parameter(p, lenient) for p in record.params if not p.keyword_only]
    named = [_parameter(p) for p in record.params if p.keyword_only] + out
    signature = ", ".join(positional + (["*", *named] if named else []))
    everything = ", ".join(p.name for p in record.params)
    lines = [f"def {short}({signature}{', **extra' if lenient else ''}):"]
    if lenient:
        lines += ["    if extra:",
                  f"        return call_renamed(function, ({everything},), "
                  f"{'out' if record.out else 'None'}, extra)"]
    if record.out:
        key = _key_source(record).rstrip(",")
        lines += ["    if out is not None:",
                  "        if not ACTIVE:",
                  "            try:",
                  f"                launch, go = outs[{key}, out._meta]",
                  f"                if go(launch, {everything}, out):",
                  "                    return out",
                  "            except (KeyError, AttributeError, TypeError):",
                  "                pass",
                  f"        return call_out(function, ({everything},), out)"]
    warm = _warm_lines(record, everything)
    if warm:
        lines += ["    if ACTIVE:", f"        return call_op(function, ({everything},))", *warm]
    else:
        lines.append(f"    return call_op(function, ({everything},))")
    space = {"function": function, "cache": function.cache, "call_op": call_op,
             "call_renamed": call_renamed, "MISSING": MISSING,
             "call_out": call_out, "outs": function.outs, "ACTIVE": ACTIVE,
             "TENSORS": LAYOUT_CLASSES, **_fixed(record),
             "make_view": make_view}
    space |= {f"_default_{p.name}": p.default for p in record.params if not p.required}
    made = define(short, "\n".join(lines), f"<flambeau op {record.name}>", space)
    if warm:
        function.unwatched = define(short, "\n".join([f"def {short}({everything}):", *warm]),
                                    f"<flambeau op {record.name}, unwatched>",
                                    {**space, "call_op": call_unwatched})
    made.__doc__ = record.doc
    made.__module__ = "flambeau"
    function.public = made
    return made


def _warm_lines(record: Op, everything: str) -> list[str]:
    """The look-up of a known call, and the way on if there is none."""
    if record.kind == "view" and record.many:
        return []
    if record.kind == "view":
        look_up = [f"        plan, = cache[{_key_source(record)}]",
                   "    except (KeyError, AttributeError, TypeError, ValueError):",
                   "        plan = None",  # an error must not look like one of this look-up
                   "    if plan is None:"]
        found = f"make_view({record.params[0].name}, plan)"
    else:
        look_up = [f"        launch = cache[{_key_source(record)}]",
                   "        go = launch.go",
                   "    except (KeyError, AttributeError, TypeError):",
                   "        go = None",
                   "    if go is None:"]
        found = f"go(launch, {everything})"
    general = f"        return call_op(function, ({everything},))"
    run = [f"    return {found}"]
    if any(p.role in ("operand", "number") for p in record.params):
        run = ["    try:", f"    {run[0]}", "    except OverflowError:", general]  # an int is huge
    return ["    try:", *look_up, general, *run]


def make_inplace(record: Op) -> Callable:
    """The in-place form `name_`. Its warm path serves calls that autograd does not watch, on memory
    that belongs to tensors alone (so that equal storages are the only overlap)."""
    function = FUNCTIONS[record.name]
    short = record.name.split(".")[-1]
    first = record.params[0].name
    everything = ", ".join(p.name for p in record.params)
    source = (f"def {short}_({_signature(record)}):\n"
              "    if not ACTIVE:\n"
              "        try:\n"
              f"            launch = warm[{_key_source(record)}]\n"
              "        except (KeyError, AttributeError, TypeError):\n"
              "            launch = None\n"
              "        try:\n"
              f"            if launch is not None and launch.go(launch, {everything}):\n"
              f"                return {first}\n"
              "        except OverflowError:\n"
              "            pass\n"  # an int is huge: the general path knows
              f"    return call_inplace(function, ({everything},))\n")
    space = {"function": function, "call_inplace": call_inplace, "ACTIVE": ACTIVE,
             "warm": function.warm, "TENSORS": LAYOUT_CLASSES, **_fixed(record)}
    function.inplace = _derived(record, short, source, space)
    return function.inplace


def make_mutating(record: Op) -> Callable:
    """The in-place form of an op with several results."""
    function = FUNCTIONS[record.name]
    short = record.name.split(".")[-1]
    everything = ", ".join(p.name for p in record.params)
    source = (f"def {short}_({_signature(record)}):\n"
              "    if not ACTIVE:\n"
              "        try:\n"
              f"            launch = warm[{_key_source(record)}]\n"
              "        except (KeyError, AttributeError, TypeError):\n"
              "            launch = None\n"
              f"        if launch is not None and launch.go(launch, {everything}):\n"
              "            return\n"
              f"    call_mutating(function, ({everything},))\n")
    return _derived(record, short, source,
                    {"function": function, "call_mutating": call_mutating, "ACTIVE": ACTIVE,
                     "warm": function.warm, "TENSORS": LAYOUT_CLASSES})


def _signature(record: Op) -> str:
    positional = [_parameter(p) for p in record.params if not p.keyword_only]
    named = [_parameter(p) for p in record.params if p.keyword_only]
    return ", ".join(positional + (["*", *named] if named else []))


def _parameter(param: Any, lenient: bool = False) -> str:
    if param.required:
        return f"{param.name}=MISSING" if lenient else param.name
    return f"{param.name}=_default_{param.name}"


def _fixed(record: Op) -> dict:
    """The numbers with kernels of their own, by the names that keys have for them."""
    return {f"_fixed_{p.name}": p.fixed for p in record.params if p.fixed}


def _key_source(record: Op) -> str:
    parts = []
    for param in record.params:
        name = param.name
        if param.role == "static":
            parts.append(name)
        elif param.role == "tensors":
            parts.append(f"tuple([t._meta for t in {name}])")
        elif param.role == "number":
            absent = "" if param.required else f"None if {name} is _default_{name} else "
            parts.append(f"({absent}{name}.__class__)")
        else:
            optional = f"None if {name} is None else " if not param.required else ""
            if param.fixed:
                parts.append(f"({name}._meta if {name}.__class__ in TENSORS else "
                             f"(_fixed_{name}.get({name}), {name}.__class__))")
            elif param.role == "operand":
                parts.append(f"({optional}{name}._meta if {name}.__class__ in TENSORS "
                             f"else {name}.__class__)")
            else:
                parts.append(f"({optional}{name}._meta)" if optional else f"{name}._meta")
    return ", ".join(parts) + ("," if len(parts) == 1 else "")


def _derived(record: Op, short: str, source: str, space: dict) -> Callable:
    space |= {f"_default_{p.name}": p.default for p in record.params if not p.required}
    made = define(short + "_", source, f"<flambeau op {record.name}_>", space)
    made.__doc__ = f"In-place form of `{record.name}`: {record.doc}"
    made.__module__ = "flambeau"
    return made
