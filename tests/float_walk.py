"""Walks over all float32 numbers inside native code: the largest error of a function of one.

A kernel takes bit patterns in a row as float32 numbers, computes the function in float and a
reference in double, and keeps the largest error in units of the last place (ulp) of the float
result with the pattern that gave it. Nothing is stored, so that 2^32 numbers take seconds.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from flambeau.compiler.emitter import Function, Module, Value, lanes_of, scalar_of, vector
from flambeau.compiler.lanes import Lanes, register_type
from flambeau.compiler.target import host
from flambeau.core import dtypes
from flambeau.core.dtypes import DType
from flambeau.ir.graph import Graph
from flambeau.ops.derive import OpCall
from flambeau.ops.record import Op
from flambeau.runtime.loader import load_kernel

Emit = Callable[[Function, Value], Value]

PATTERNS = 1 << 32
_BLOCK = 1 << 20
_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int] * 3)


@dataclasses.dataclass(frozen=True)
class Worst:
    """The largest error found and the number whose result has it."""

    ulp: float
    x: float

    def __str__(self) -> str:
        return f"{self.ulp:.3f} ulp at {self.x!r}"


def walk(function: Emit, reference: Emit, step: int = 1, parts: int | None = None) -> Worst:
    """The largest error of `function`, emitted for floats, against `reference`, for doubles, over
    every `step`-th float32 (both signs, denormals, infinities and NaNs included).

    NaN must answer to NaN, and zeros must have the same sign: anything else is an error of inf.
    """
    lanes = host().lanes(4)
    run = _kernel(function, reference, lanes)
    parts = parts or len(os.sched_getaffinity(0))
    size = _BLOCK * lanes * step
    starts = range(0, PATTERNS, size)

    def block(start: int) -> tuple[float, int]:
        errors, places = np.zeros(lanes), np.zeros(lanes, np.int64)
        count = min(size, PATTERNS - start) // step // lanes * lanes
        slots = (ctypes.c_int64 * 5)(start, step, count, errors.ctypes.data, places.ctypes.data)
        run(ctypes.addressof(slots), 0, 1, 0)
        worst = int(np.argmax(errors))
        return float(errors[worst]), int(places[worst])

    with ThreadPoolExecutor(parts) as pool:
        error, pattern = max(pool.map(block, starts))
    return Worst(error, struct.unpack("<f", struct.pack("<I", pattern % PATTERNS))[0])


@functools.cache
def _kernel(function: Emit, reference: Emit, lanes: int):
    module = Module(host().attributes)
    f = module.function("walk", [("ptr", "args"), ("i32", "chunk"), ("i32", "nchunks"),
                                 ("i32", "thread")])
    args = f.args["args"]
    start, step, count = (f.load("i64", args, slot) for slot in range(3))
    worst = f.var(vector(lanes, "double"), 0.0)
    place = f.var(vector(lanes, "i64"), 0)
    within = f.mul(f.iota(lanes), f.splat(step, lanes))
    with f.loop(0, count, lanes) as i:
        pattern = f.add(f.splat(f.add(start, f.mul(i, step)), lanes), within)
        bits = f.cast("trunc", pattern, vector(lanes, "i32"))
        x = f.cast("bitcast", bits, vector(lanes, "float"))
        wide = f.cast("fpext", x, vector(lanes, "double"))
        error = _error(f, function(f, x), reference(f, wide))
        larger = f.cmp("ogt", error, worst.get())
        worst.set(f.select(larger, error, worst.get()))
        place.set(f.select(larger, pattern, place.get()))
    f.store(worst.get(), f.load("ptr", args, 3))
    f.store(place.get(), f.load("ptr", args, 4))
    return _KERNEL(load_kernel("walk", module.text()))


def _error(f: Function, got: Value, exact: Value) -> Value:
    """|got - exact| in ulp of floats at `exact`; infinity counts as 2^128."""
    infinite = f.const(float("inf"), exact.type)
    result = f.cast("fpext", got, exact.type)
    above = f.const(2.0**128, exact.type)
    a, b = (f.intrinsic("llvm.copysign", v.type, f.select(
        f.cmp("ogt", f.intrinsic("llvm.fabs", v.type, v), above), above,
        f.intrinsic("llvm.fabs", v.type, v)), v) for v in (result, exact))
    ints = vector(lanes_of(exact.type), "i64")
    exponent = f.and_(f.lshr(f.cast("bitcast", b, ints), 52), 0x7FF)
    exponent = f.smin(f.smax(exponent, 1023 - 126), 1023 + 127)
    per_ulp = f.cast("bitcast", f.shl(f.sub(2 * 1023 + 23, exponent), 52), exact.type)
    error = f.intrinsic("llvm.fabs", exact.type, f.fmul(f.fsub(a, b), per_ulp))
    near = f.cast("fptrunc", exact, got.type)
    zeros = f.and_(f.cmp("oeq", got, 0.0), f.cmp("oeq", near, 0.0))
    signs = f.xor(*(f.cast("bitcast", v, vector(lanes_of(v.type), "i32")) for v in (got, near)))
    error = f.select(f.and_(zeros, f.cmp("slt", signs, 0)), infinite, error)
    nans = [f.cmp("uno", v, v) for v in (got, exact)]
    error = f.select(f.or_(*nans), infinite, error)
    return f.select(f.and_(*nans), 0.0, error)


# ---------------------------------------------------------------------- ops of the table
def op_emitter(record: Op) -> Emit:
    """The function of one operand that an op computes with its defaults, for floats or doubles."""

    def emit(f: Function, x: Value) -> Value:
        dtype = dtypes.float64 if scalar_of(x.type) == "double" else dtypes.float32
        return evaluate(f, op_graph(record, dtype), x)

    return emit


def op_graph(record: Op, dtype: DType) -> Graph:
    """The graph of `record` on one tensor and defaults otherwise."""
    first = next(p for p in record.params if p.required)
    structure = [("input", 0) if p is first else ("static", p.default) for p in record.params]
    return OpCall(record, structure, [((64,), dtype)]).graph


def evaluate(f: Function, graph: Graph, x: Value) -> Value:
    """Emit a graph of elementwise primitives for a register `x` in place of its input."""
    k, lanes = Lanes(f), lanes_of(x.type)
    registers: dict = {graph.inputs[0]: x}
    for value in graph.order():
        if value in registers:
            continue
        name = value.prim.name
        given = [registers[v] for v in value.inputs]
        if name == "constant":
            type_ = vector(lanes, register_type(value.dtype))
            registers[value] = f.const(value.attrs[0], type_)
        elif name in ("expand", "copy"):
            registers[value] = given[0]
        elif name == "cast":
            registers[value] = k.convert(given[0], value.inputs[0].dtype, value.dtype)
        else:
            registers[value] = value.prim.emit(k, value.inputs[-1].dtype, *given)
    return registers[graph.outputs[0]]
