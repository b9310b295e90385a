"""Python functions and types whose bodies are JIT-made native code.

Only what every CPython from 3.11 on has in common is relied upon: the C API's functions, and the
first two words of an object (reference count, type). `allowed` tells where that holds.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import sysconfig
from collections.abc import Sequence

from flambeau.core import config
from flambeau.runtime import loader

__all__ = ["FASTCALL", "NOARGS", "ONE", "Member", "allowed", "function", "heap_type", "provide"]

# METH_ flags: how CPython passes arguments.
NOARGS, ONE, FASTCALL = 0x04, 0x08, 0x80

# Types of a Member; READONLY is a flag.
OBJECT, OBJECT_EX, LONGLONG = 6, 16, 17
READONLY = 1

_TP_DEALLOC, _TP_METHODS, _TP_MEMBERS, _TP_DOC = 52, 64, 72, 56
_FLAG_DEFAULT, _FLAG_NO_INSTANCES = 1 << 18, 1 << 7


@functools.cache
def allowed() -> bool:
    """Whether JIT-made code may touch Python objects: CPython with its GIL on a 64-bit
    little-endian machine, not a debugging build (whose objects have further fields)."""
    return (config.settings().native and sys.implementation.name == "cpython"
            and os.name == "posix" and ctypes.sizeof(ctypes.c_void_p) == 8
            and sys.byteorder == "little" and not hasattr(sys, "getobjects")
            and not hasattr(sys, "gettotalrefcount")
            and not sysconfig.get_config_var("Py_GIL_DISABLED"))


class MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = [("name", ctypes.c_char_p), ("function", ctypes.c_void_p),
                ("flags", ctypes.c_int), ("doc", ctypes.c_char_p)]


class Member(ctypes.Structure):
    """CPython's PyMemberDef: an attribute that lies in the object's own memory."""

    _fields_ = [("name", ctypes.c_char_p), ("type", ctypes.c_int), ("offset", ctypes.c_ssize_t),
                ("flags", ctypes.c_int), ("doc", ctypes.c_char_p)]


class _Slot(ctypes.Structure):
    _fields_ = [("slot", ctypes.c_int), ("value", ctypes.c_void_p)]


class _Spec(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("basicsize", ctypes.c_int), ("itemsize", ctypes.c_int),
                ("flags", ctypes.c_uint), ("slots", ctypes.POINTER(_Slot))]


def immortal(item):
    """Keep `item` for the life of the process, beyond the interpreter's own end: native code or
    CPython holds its address."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(item))
    return item


def provide(names: Sequence[str]) -> None:
    """Make parts of CPython's C API known to kernels."""
    for name in names:
        loader.provide(name, ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, name)))


def function(address: int, name: str, flags: int, doc: str):
    """A Python function of the C function at `address`; `flags`: NOARGS, ONE or FASTCALL."""
    definition = immortal(MethodDef(name.encode(), address, flags, doc.encode()))
    make = ctypes.pythonapi.PyCMethod_New
    make.restype = ctypes.py_object
    make.argtypes = [ctypes.POINTER(MethodDef), ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    return make(ctypes.byref(definition), None, None, None)


def heap_type(name: str, basicsize: int, members: Sequence[Member], methods: Sequence[MethodDef],
              dealloc: int, doc: str, instances: bool) -> type:
    """A Python type made of native parts; `instances`: calling it makes (zeroed) objects."""
    member_array = immortal((Member * (len(members) + 1))(*members))
    method_array = immortal((MethodDef * (len(methods) + 1))(*methods))
    text = immortal(ctypes.c_char_p(doc.encode()))
    slots = [(_TP_MEMBERS, ctypes.addressof(member_array)),
             (_TP_METHODS, ctypes.addressof(method_array)),
             (_TP_DOC, ctypes.cast(text, ctypes.c_void_p).value)]
    if dealloc:
        slots.append((_TP_DEALLOC, dealloc))
    slot_array = immortal((_Slot * (len(slots) + 1))(*slots))
    flags = _FLAG_DEFAULT | (0 if instances else _FLAG_NO_INSTANCES)
    spec = immortal(_Spec(name.encode(), basicsize, 0, flags, slot_array))
    make = ctypes.pythonapi.PyType_FromSpec
    make.restype = ctypes.py_object
    make.argtypes = [ctypes.POINTER(_Spec)]
    return immortal(make(ctypes.byref(spec)))
