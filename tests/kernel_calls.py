"""Calling native kernels on NumPy arrays, compiled for the host or for a narrower machine."""

from __future__ import annotations

import ctypes
import functools
import platform

import numpy as np
import pytest

from flambeau.compiler import llvm as compiler
from flambeau.compiler.target import Target, host
from flambeau.runtime.loader import load_kernel

LLVM_TYPES = {"f4": "float", "f8": "double", "i1": "i8", "i2": "i16", "i4": "i32", "i8": "i64"}
KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int)


def machines() -> list:
    """The host, and narrower x86 machines where the host can run their code."""
    found = [pytest.param(host(), id="host")]
    if platform.machine() in ("x86_64", "AMD64") and host().vector_bits >= 256:
        avx2 = "+avx,+avx2,+fma,+sse4.2"
        found.append(pytest.param(Target(host().triple, "haswell", avx2, 256, 16), id="avx2"))
        found.append(pytest.param(Target(host().triple, "nehalem", "+sse4.2", 128, 16), id="sse"))
    return found


FOREIGN = (Target("aarch64-unknown-linux-gnu", "generic", "+neon", 128, 32),
           Target("wasm32-unknown-unknown", "generic", "+simd128", 128, 16))


@functools.cache
def address(name: str, ir_text: str, target: Target) -> int:
    """Native code of a kernel compiled for `target`, in this process."""
    if target == host():
        return load_kernel(name, ir_text)
    import llvmlite.binding as llvm

    code = llvm.ObjectFileRef.from_data(compiler.compile_object(ir_text, target))
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), compiler.target_machine(host()))
    engine.add_object_file(code)
    engine.finalize_object()
    ENGINES.append(engine)
    return engine.get_function_address(name)


ENGINES: list = []


def workspace(size: int) -> np.ndarray:
    """Bytes aligned to 64, full of NaNs, followed by a guard that `guarded` checks."""
    memory = np.full(size + 128, 0xFF, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start:start + size + 64]


def guarded(memory: np.ndarray) -> bool:
    return bool((memory[-64:] == 0xFF).all())


def call(kernel: int, names: tuple[str, ...], values: dict, nchunks: int, threads: int = 1) -> None:
    slots = (ctypes.c_int64 * len(names))(*[values[name] for name in names])
    run = KERNEL(kernel)
    for chunk in range(nchunks):
        run(ctypes.addressof(slots), chunk, nchunks, chunk % threads)


def sample(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(-100, 100, shape).astype(dtype)


def strides(array: np.ndarray) -> list[int]:
    """Strides in elements."""
    return [stride // array.itemsize for stride in array.strides]
