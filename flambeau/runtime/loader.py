"""Loaded kernels: IR text in, address of native code out.

Looked for in memory, then in the on-disk cache, then compiled. All objects go into one MCJIT engine
and stay for the life of the process. Exported names are made unique by the hash of their module, so
that any two modules may define the same name.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import struct
import threading
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from flambeau.compiler import llvm as compiler
from flambeau.compiler import soft_float
from flambeau.compiler import target as targets
from flambeau.compiler.parts import parted
from flambeau.core import config
from flambeau.runtime import object_cache

__all__ = ["Stored", "address_in", "compiled", "digest_of", "load_all", "load_kernel",
           "load_module", "load_stored", "loaded", "provide", "stored"]

_LOCAL = "internal|private|external|extern_weak|linkonce|available_externally"
_EXPORT = re.compile(rf"^define *+(?!{_LOCAL})[^@\n]*@([\w.$]+)|^@([\w.$]+) *= *+(?!{_LOCAL})",
                     re.MULTILINE)

_SYMBOL_TABLE = 2  # SHT_SYMTAB

_lock = threading.RLock()
# (hash of a module, target or None for the host) -> address by exported name
_modules: dict[tuple[str, targets.Target | None], dict[str, int]] = {}
_stored: dict[str, Stored] = {}  # modules in memory for the host, by the hash of their text
_provided: dict[str, int] = {}


class Stored(NamedTuple):
    """What finds a module again without its text.

    Attributes:
        digest: the hash of the text.
        key: of its object in the cache on disk.
        unique: the exported names, and what they become.
        parts: the hashes of its parts.
    """

    digest: str
    key: str
    unique: Mapping[str, str]
    parts: tuple[str, ...]


def load_kernel(name: str, ir_text: str, target: targets.Target | None = None) -> int:
    """The address of function `name` of the module `ir_text`; see `load_module`."""
    addresses = load_module(ir_text, target)
    try:
        return addresses[name]
    except KeyError:
        raise ValueError(f"the module defines no function {name!r}, only "
                         f"{sorted(addresses)}") from None


def address_in(digest: str, name: str) -> int:
    """The address of function `name` of a module that is loaded for the host."""
    return _modules[digest, None][name]


def load_module(ir_text: str, target: targets.Target | None = None) -> dict[str, int]:
    """Addresses of everything that a module exports, by name.

    The code is made for this machine, or for `target`, a narrower one whose code it can run.
    Raises compiler.LLVMError when LLVM refuses the module or a symbol that it needs is unknown.
    """
    digest = digest_of(ir_text)
    found = _modules.get((digest, target))
    if found is not None:
        return found
    with _lock:
        if (digest, target) not in _modules:
            _load([ir_text], target, config.settings().num_threads)
    return _modules[digest, target]


def compiled(ir_text: str) -> bool:
    """Is there object code of this module for the host, in memory or on disk?"""
    if (digest_of(ir_text), None) in _modules:
        return True
    cache = object_cache.default_cache()
    return all(cache.holds(module.key) for module in _waiting([ir_text], None))


def provide(name: str, address: int) -> None:
    """Let kernels refer to `name`, something of this process that the linker cannot see."""
    with _lock:
        _engine().llvm.add_symbol(name, address)
        _provided[name] = address


def loaded() -> int:
    """Number of modules loaded so far."""
    return len(_modules)


def cache_key(ir_text: str, target: targets.Target) -> str:
    """The key of a module's object: everything that its machine code depends on."""
    parts = (str(compiler.PIPELINE_VERSION), compiler.version(), target.triple, target.cpu,
             target.features, ir_text)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def load_all(ir_texts: Iterable[str], threads: int) -> None:
    """Load modules for the host; those that have to be compiled are on several threads."""
    with _lock:
        _load(ir_texts, None, threads)


def _load(ir_texts: Iterable[str], target: targets.Target | None, threads: int) -> None:
    modules, cache = _waiting(ir_texts, target), object_cache.default_cache()
    missing = [module for module in modules if not module.find(cache)]
    if missing:
        objects = compiler.compile_objects([m.text for m in missing], missing[0].target, threads)
        for module, data in zip(missing, objects, strict=True):
            module.keep(data, cache)
    for module in modules:
        _modules[module.digest, target] = module.link()
        if target is None:
            _stored[module.digest] = module.stored()


def stored(digests: Iterable[str]) -> list[Stored]:
    """How to find these loaded modules again, each after its parts."""
    found: dict[str, Stored] = {}
    for digest in digests:
        module = _stored[digest]
        found |= {part: _stored[part] for part in module.parts if part not in found}
        found[digest] = module
    return list(found.values())


def load_stored(modules: Iterable[Stored]) -> bool:
    """Load modules for the host from the cache on disk, each after its parts; False, and nothing is
    loaded, if one is not there any more."""
    with _lock:
        cache = object_cache.default_cache()
        waiting = []
        for module in modules:
            if (module.digest, None) not in _modules:
                data = cache.get(module.key)
                if data is None:
                    return False
                waiting.append((module, data))
        for module, data in waiting:
            _modules[module.digest, None] = _linked(data, module.unique)
            _stored[module.digest] = module
    return True


def _waiting(ir_texts: Iterable[str], target: targets.Target | None) -> list[_Module]:
    """The modules of these texts that are not in memory yet, each after its parts."""
    waiting: dict[str, _Module] = {}
    for text in ir_texts:
        if (digest_of(text), target) in _modules or digest_of(text) in waiting:
            continue
        module = _Module(text, target)
        for part in module.parts:
            if (part.digest, target) not in _modules:
                waiting.setdefault(part.digest, part)
        waiting[module.digest] = module
    return list(waiting.values())


def digest_of(ir_text: str) -> str:
    """What names a module."""
    return hashlib.sha256(ir_text.encode()).hexdigest()


class _Module:
    """A module on its way into memory.

    Attributes:
        digest: of the text that was given.
        parts: what it has in common with other modules (compiler/parts.py).
        unique: the exported names, and what they become.
        text: the module with those, without its parts.
        data: its object code, once it is known.
    """

    def __init__(self, ir_text: str, target: targets.Target | None):
        self.digest = digest_of(ir_text)
        suffix = self.digest[:20]
        if target is not None:
            suffix += digest_of(repr(target))[:8]
        self.target = target or targets.host()
        text, parts = parted(ir_text)
        self.parts = [_part(part, target) for part in parts]
        self.unique = {name: f"{name}_{suffix}" for name in map("".join, _EXPORT.findall(text))}
        names = dict(self.unique)
        for part in self.parts:
            names |= part.unique
        self.text = _renamed(text, names)
        self.key = cache_key(self.text, self.target)
        self.data: bytes | None = None

    def find(self, cache: object_cache.ObjectCache) -> bool:
        """Is it on disk?"""
        self.data = cache.get(self.key)
        return self.data is not None

    def keep(self, data: bytes, cache: object_cache.ObjectCache) -> None:
        """This is its object code."""
        self.data = data
        cache.put(self.key, data)

    def link(self) -> dict[str, int]:
        """Addresses by name. Its parts are in memory."""
        data, self.data = self.data, None  # parts live on
        return _linked(data, self.unique)

    def stored(self) -> Stored:
        """What finds it again."""
        return Stored(self.digest, self.key, self.unique,
                      tuple([part.digest for part in self.parts]))


def _linked(data: bytes, unique: Mapping[str, str]) -> dict[str, int]:
    engine = _engine()
    if unique.keys() != set(soft_float.NAMES):
        _check_imports(data, engine)
    return engine.add(data, unique)


@functools.lru_cache(maxsize=256)
def _part(ir_text: str, target: targets.Target | None) -> _Module:
    """A part, which many modules may have."""
    return _Module(ir_text, target)


def _renamed(ir_text: str, names: dict[str, str]) -> str:
    if not names:
        return ir_text
    pattern = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.sub(rf"@({pattern})(?![\w.$-])", lambda match: "@" + names[match[1]], ir_text)


def _check_imports(data: bytes, engine: _Engine) -> None:
    """MCJIT ends the process when a symbol is missing: look before it does."""
    needed = undefined_symbols(data)
    missing = [name for name in needed if not engine.known(name)]
    if any(name in soft_float.NAMES for name in missing):
        _provide_soft_float()
        missing = [name for name in missing if not engine.known(name)]
    if missing:
        raise compiler.LLVMError(f"the module needs {', '.join(missing)}, which this process "
                                 "does not have (runtime.loader.provide can name an address)")


def _provide_soft_float() -> None:
    for name, address in load_module(soft_float.soft_float_ir()).items():
        provide(name, address)


def undefined_symbols(data: bytes) -> list[str]:
    """Names that an object file expects others to define.

    Only ELF (64 bits, little-endian) is read; for other formats the answer is what LLVM may call
    without being told.
    """
    if data[:6] != b"\x7fELF\x02\x01":
        return list(soft_float.NAMES)
    sections_at, = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, sections_at + size * i)
                for i in range(count)]
    names = []
    for _, kind, _, _, offset, length, link, _, _, entry in sections:
        if kind != _SYMBOL_TABLE:
            continue
        strings = sections[link][4]
        for at in range(offset + entry, offset + length, entry):  # the first symbol is empty
            name, _, _, section = struct.unpack_from("<IBBH", data, at)
            if section == 0:
                start = strings + name
                names.append(data[start:data.index(b"\0", start)].decode())
    return [name for name in names if name not in ("", "_GLOBAL_OFFSET_TABLE_")]


class _Engine:
    """The one MCJIT engine of the process."""

    def __init__(self):
        import llvmlite.binding as llvm

        self.llvm = llvm
        # MCJIT owns the machine that it is given: not the one that compile_object shares.
        machine = compiler.target_machine.__wrapped__(targets.host())
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        self._known: set[str] = set()

    def known(self, name: str) -> bool:
        if name in self._known or name in _provided:
            return True
        if self.llvm.address_of_symbol(name) or _in_process(name):
            self._known.add(name)
            return True
        return False

    def add(self, data: bytes, names: Mapping[str, str]) -> dict[str, int]:
        """Link one object; the address of each of `names` (own name -> symbol)."""
        self._engine.add_object_file(self.llvm.ObjectFileRef.from_data(data))
        self._engine.finalize_object()
        self._known.update(names.values())
        addresses = {}
        for name, symbol in names.items():
            address = self._engine.get_function_address(symbol)
            if not address:
                address = self._engine.get_global_value_address(symbol)
            addresses[name] = address
        return addresses


def _in_process(name: str) -> bool:
    try:
        return bool(ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value)
    except (AttributeError, TypeError, OSError):
        return False


@functools.cache
def _engine() -> _Engine:
    with _lock:
        engine = _Engine()
        # Objects whose deallocator is JIT-made may outlive this module at the end of the process,
        # so the code must never be unmapped: one reference too many keeps it.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
    return engine


if hasattr(os, "register_at_fork"):  # a child must not find the lock held by a thread it lacks
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release,
                        after_in_child=_lock.release)
