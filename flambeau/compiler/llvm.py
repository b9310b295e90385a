"""LLVM: IR text to object code, with an own short pass list.

The generators write loops and vectors as they should run, so only cleaning passes run: LLVM's
vectorisers and its loop unroller stay off. llvmlite is imported at the first use, not before.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import threading
from collections.abc import Sequence
from typing import Any

from flambeau.compiler.target import Target

__all__ = ["PASSES", "PIPELINE_VERSION", "LLVMError", "compile_object",
           "compile_objects", "emit_assembly", "version"]

# In this order; each is llvmlite's `add_<name>_pass`.
PASSES = (
    "always_inliner",
    "sroa",  # stack slots of mutable variables become registers
    "simplify_cfg",
    "loop_rotate",  # test at the bottom: one branch an iteration
    "simplify_cfg",
    "instruction_combine",
    "dead_code_elimination",
    "global_dead_code_eliminate",  # library functions that were inlined away
)

# Part of every object's cache key: raise it when PASSES or the code generator's options change.
PIPELINE_VERSION = 2

# What takes long: parse, verify, run the passes, generate code.
_HEAVY = ("LLVMPY_ParseAssembly", "LLVMPY_VerifyModule", "LLVMPY_RunNewModulePassManager",
          "LLVMPY_TargetMachineEmitToMemory")
_CODEGEN_LEVEL = 2
_QUOTED_LINES = 2  # before and after the offending one

# LLVM's global context, which every module here lives in, is not safe for concurrent use.
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):  # a child must not find it held by a thread that it lacks
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release,
                        after_in_child=_lock.release)


class LLVMError(RuntimeError):
    """LLVM refused a module: a fault of a code generator, never of the user's program."""


@functools.cache
def _binding():
    """llvmlite.binding with its targets registered."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()
    return llvm


def version() -> str:
    """LLVM's version, for example "22.1.0"."""
    import llvmlite.binding as llvm

    return ".".join(map(str, llvm.llvm_version_info))


@functools.cache
def target_machine(target: Target, jit: bool = True):
    """llvmlite's TargetMachine for `target`. `jit` allows code that only runs in this process."""
    llvm = _binding()
    try:
        found = llvm.Target.from_triple(target.triple)
    except RuntimeError as error:
        raise LLVMError(f"this LLVM cannot generate code for {target.triple!r}: {error}") from None
    options = {"cpu": target.cpu, "features": target.features, "opt": _CODEGEN_LEVEL}
    if jit:
        return found.create_target_machine(jit=True, **options)
    return found.create_target_machine(reloc="pic", codemodel="default", **options)


def compile_object(ir_text: str, target: Target, jit: bool = True) -> bytes:
    """Compile one module to a relocatable object file (ELF, Mach-O, COFF or wasm by `target`).

    `jit=False` makes position-independent code for a linker instead of for this process.
    Raises LLVMError, which quotes the lines at fault.
    """
    with _lock:
        return _emit(ir_text, target, jit, "emit_object")


def compile_objects(ir_texts: Sequence[str], target: Target, threads: int) -> list[bytes]:
    """`compile_object` for each of several modules, on several threads, the longest first."""
    found: dict[int, bytes] = {}
    with _lock:
        if threads > 1 and len(ir_texts) > 1 and _native(_HEAVY[0]) is not None:
            waiting = sorted(range(len(ir_texts)), key=lambda at: len(ir_texts[at]))
            workers = [threading.Thread(target=_work, args=(waiting, ir_texts, target, found))
                       for _ in range(min(threads, len(ir_texts)) - 1)]
            for worker in workers:
                worker.start()
            _work(waiting, ir_texts, target, found)
            for worker in workers:
                worker.join()
    return [found[at] if at in found else compile_object(text, target)
            for at, text in enumerate(ir_texts)]


def _work(waiting: list[int], ir_texts: Sequence[str], target: Target,
          found: dict[int, bytes]) -> None:
    """Compile what is `waiting`, with a context of this thread's own. What fails is left out: it
    is compiled again by `compile_object`, which says why."""
    with contextlib.suppress(LLVMError, RuntimeError):
        llvm = _binding()
        machine = target_machine.__wrapped__(target)
        while waiting:
            try:
                at = waiting.pop()
            except IndexError:  # another thread was faster
                return
            with llvm.context.create_context() as context:
                found[at] = _emit_apart(ir_texts[at], machine, context)


def _emit_apart(ir_text: str, machine: Any, context: Any) -> bytes:
    """The object of a module. The calls that take long are made past llvmlite's lock, which lets
    one thread at a time into LLVM: other threads have contexts and machines of their own."""
    from llvmlite.binding import ffi

    llvm = _binding()
    parse, verify, run, emit = map(_native, _HEAVY)
    with contextlib.ExitStack() as stack:  # disposed of here, in this order, whoever keeps a frame
        with ffi.OutputString() as message:
            module = stack.enter_context(llvm.ModuleRef(
                parse(context, ir_text.encode(), message), context))
            if message:
                raise LLVMError(str(message))
        module.triple = machine.triple
        module.data_layout = str(machine.target_data)
        with ffi.OutputString() as message:
            if verify(module, message):
                raise LLVMError(str(message))
        builder, manager = _passes(machine)
        run(manager, module, builder)
        with ffi.OutputString() as message:
            buffer = emit(machine, module, 1, message)
            if not buffer:
                raise LLVMError(str(message))
    try:
        return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(buffer),
                                ffi.lib.LLVMPY_GetBufferSize(buffer))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


def _native(name: str) -> Any:
    """A function of llvmlite's library without its lock, or None if this llvmlite has it not."""
    from llvmlite.binding import ffi

    return getattr(getattr(ffi.lib, name, None), "_cfn", None)


def emit_assembly(ir_text: str, target: Target, jit: bool = True) -> str:
    """The assembly text that `compile_object` would assemble; for reading."""
    with _lock:
        return _emit(ir_text, target, jit, "emit_assembly")


def optimised_ir(ir_text: str, target: Target) -> str:
    """The IR text after the pass list; for reading."""
    with _lock:
        return _print(ir_text, target)


# These are functions of their own so that LLVM's objects, which their frames hold, are disposed of
# while the lock is held: disposing takes llvmlite's own lock, which a fork must not find taken.
def _emit(ir_text: str, target: Target, jit: bool, method: str):
    return getattr(target_machine(target, jit), method)(_optimised(ir_text, target, jit))


def _print(ir_text: str, target: Target) -> str:
    return str(_optimised(ir_text, target, True))


def _optimised(ir_text: str, target: Target, jit: bool):
    llvm = _binding()
    machine = target_machine(target, jit)
    try:
        module = llvm.parse_assembly(ir_text)
    except RuntimeError as error:
        raise LLVMError(_quote(str(error), ir_text)) from None
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    try:
        module.verify()
    except RuntimeError as error:
        raise LLVMError(f"LLVM's verifier refused the module\n{error}"
                        f"{_instruction_context(str(error), ir_text)}") from None
    builder, manager = _passes(machine)
    manager.run(module, builder)
    return module


def _passes(machine: Any) -> tuple[Any, Any]:
    """(llvmlite's pass builder for a machine, a manager of the passes)."""
    llvm = _binding()
    tuning = llvm.create_pipeline_tuning_options(speed_level=_CODEGEN_LEVEL)
    tuning.loop_vectorization = tuning.slp_vectorization = False
    manager = llvm.create_new_module_pass_manager()
    for name in PASSES:
        getattr(manager, f"add_{name}_pass")()
    return llvm.create_pass_builder(machine, tuning), manager


def _quote(message: str, ir_text: str) -> str:
    """LLVM's parse error with the lines around the fault."""
    found = re.search(r":(\d+):(\d+): (?:error: )?(.*)", message)
    if found is None:
        return f"LLVM cannot parse the module: {message.strip()}"
    at, column = int(found[1]), int(found[2])
    return (f"LLVM cannot parse the module, line {at}: {found[3].strip()}\n"
            + _excerpt(ir_text.splitlines(), at, column))


def _excerpt(lines: list[str], at: int, column: int | None = None) -> str:
    """Lines around line `at` (from 1), numbered, with a caret under `column` (from 1)."""
    shown = []
    for number in range(max(1, at - _QUOTED_LINES), min(len(lines), at + _QUOTED_LINES) + 1):
        mark = ">" if number == at else " "
        shown.append(f"{mark} {number:5d} | {lines[number - 1]}")
        if number == at and column is not None:
            shown.append(" " * 8 + "| " + " " * (column - 1) + "^")
    return "\n".join(shown)


def _instruction_context(message: str, ir_text: str) -> str:
    """Where the instruction that the verifier printed stands in the text, if it can be found."""
    lines = ir_text.splitlines()
    for printed in message.splitlines():
        wanted = printed.strip()
        if not wanted.startswith(("%", "store ", "br ", "ret ", "call ")):
            continue
        for number, line in enumerate(lines, 1):
            if line.strip() == wanted:
                return "\n" + _excerpt(lines, number)
    return ""
