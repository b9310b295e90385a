"""Loaded kernels: IR text in, address of native code out.

Looked for in memory, then in the on-disk cache, then compiled. All objects go into one MCJIT engine
and stay for the life of the process. Exported names are made unique by the hash of their module, so
that any two modules may define the same name.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import re
import threading

from flambeau.compiler import llvm as compiler
from flambeau.compiler import target as targets
from flambeau.runtime import object_cache

__all__ = ["load_kernel", "load_module", "loaded", "provide"]

_LOCAL = "internal|private|external|extern_weak|linkonce|available_externally"
_EXPORT = re.compile(rf"^define *+(?!{_LOCAL})[^@\n]*@([\w.$]+)|^@([\w.$]+) *= *+(?!{_LOCAL})",
                     re.MULTILINE)
_IMPORT = re.compile(r"^(?:declare[^@\n]*@(?!llvm\.)|@(?=[\w.$]+ *= *external))([\w.$]+)",
                     re.MULTILINE)

_lock = threading.RLock()
_modules: dict[str, dict[str, int]] = {}  # key of the module -> address by exported name
_provided: dict[str, int] = {}


def load_kernel(name: str, ir_text: str) -> int:
    """The address of function `name` of the module `ir_text`, compiled for this machine."""
    addresses = load_module(ir_text)
    try:
        return addresses[name]
    except KeyError:
        raise ValueError(f"the module defines no function {name!r}, only "
                         f"{sorted(addresses)}") from None


def load_module(ir_text: str) -> dict[str, int]:
    """Addresses of everything that a module exports, by name.

    Raises compiler.LLVMError when LLVM refuses the module or a symbol that it needs is unknown.
    """
    digest = hashlib.sha256(ir_text.encode()).hexdigest()
    found = _modules.get(digest)
    if found is not None:
        return found
    with _lock:
        found = _modules.get(digest)
        if found is None:
            found = _modules[digest] = _load(ir_text, digest)
    return found


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


def _load(ir_text: str, digest: str) -> dict[str, int]:
    engine = _engine()
    _check_imports(ir_text, engine)
    unique = {name: f"{name}_{digest[:20]}" for name in map("".join, _EXPORT.findall(ir_text))}
    target = targets.host()
    cache = object_cache.default_cache()
    text = _renamed(ir_text, unique)
    key = cache_key(text, target)
    data = cache.get(key)
    if data is None:
        data = compiler.compile_object(text, target)
        cache.put(key, data)
    return engine.add(data, unique)


def _renamed(ir_text: str, names: dict[str, str]) -> str:
    if not names:
        return ir_text
    pattern = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.sub(rf"@({pattern})(?![\w.$-])", lambda match: "@" + names[match[1]], ir_text)


def _check_imports(ir_text: str, engine: _Engine) -> None:
    """MCJIT ends the process when a symbol is missing: look before it does."""
    missing = [name for name in _IMPORT.findall(ir_text)
               if name not in _provided and not engine.known(name)]
    if missing:
        raise compiler.LLVMError(f"the module needs {', '.join(missing)}, which this process "
                                 "does not have (runtime.loader.provide can name an address)")


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
        if name in self._known:
            return True
        if self.llvm.address_of_symbol(name) or _in_process(name):
            self._known.add(name)
            return True
        return False

    def add(self, data: bytes, names: dict[str, str]) -> dict[str, int]:
        """Link one object; the address of each of `names` (own name -> symbol)."""
        self._engine.add_object_file(self.llvm.ObjectFileRef.from_data(data))
        self._engine.finalize_object()
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
