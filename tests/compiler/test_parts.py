"""Parts of modules: what kernels have in common is compiled once, and changes nothing."""

from __future__ import annotations

import ctypes
import dataclasses

import pytest

from flambeau.compiler import target
from flambeau.compiler.emitter import Module
from flambeau.compiler.lanes import Lanes
from flambeau.compiler.parts import parted
from flambeau.compiler.products.gemm import GemmSpec, gemm_kernel
from flambeau.compiler.products.low import GemmLowSpec, gemm_low_kernel
from flambeau.runtime import loader


def doubled_and(constant: int, library: bool = False) -> Module:
    """2 x + constant, the doubling in a part that calls a function of its own, and floor."""
    module = Module("nounwind")
    inner = module.function("inner", [("double", "x")], "double", part="twice")
    inner.ret_value(inner.fadd(inner.args["x"], inner.args["x"]))
    twice = module.function("twice", [("double", "x")], "double", part="twice")
    x = twice.intrinsic("llvm.floor", "double", twice.args["x"])
    if library:
        module.texts["rounded"] = ("define internal double @rounded(double %x) alwaysinline {\n"
                                   "  %y = call double @llvm.rint.f64(double %x)\n"
                                   "  ret double %y\n}\n")
        module.declare("double", "llvm.rint.f64", ["double"])
        x = twice.call("double", "rounded", [x])
    twice.ret_value(twice.call("double", "inner", [x]))
    f = module.function("f", [("double", "x")], "double")
    f.ret_value(f.fadd(f.call("double", "twice", [f.args["x"]]), f.const(constant, "double")))
    return module


def call(text: str, x: float) -> float:
    return ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(loader.load_kernel("f", text))(x)


@pytest.mark.parametrize("library", [False, True])
def test_a_part_is_loaded_once(library):
    texts = [doubled_and(constant, library).text() for constant in (1, 2)]
    assert call(texts[0], 4.5) == 9.0
    before = loader.loaded()
    assert call(texts[1], 4.5) == 10.0
    assert loader.loaded() == before + 1
    assert call(texts[0], -0.5) == -1.0


def test_what_a_part_takes_with_it():
    rest, (part,) = parted(doubled_and(1, True).text())
    assert "define double @twice(double %x)" in part
    assert "declare double @llvm.floor.f64(double)" in part
    assert "define internal double @rounded" in part
    assert "declare double @llvm.rint.f64(double)" in part
    assert "declare double @twice(double)" in rest
    assert "define internal double @inner" not in rest


def test_texts_are_whole_without_parting():
    """Machines that kernels are made for elsewhere get one module."""
    text = doubled_and(1).text()
    assert text.count("define ") == 3
    assert parted("define void @f() {\n  ret void\n}\n")[1] == []


def test_equal_parts_of_unequal_products():
    """Kernels that differ in what follows, or in the other operand, have parts in common."""
    def parts_of(*spec):
        return set(parted(gemm_kernel(GemmSpec("float", *spec), target.host())[1])[1])

    assert parts_of("row", "row") & parts_of("row", "col")


def test_loops_of_products_are_shared():
    """How operands lie, and what follows, are addresses to the loops around register tiles."""
    spec = GemmLowSpec("bfloat", "along", "across")
    texts = [gemm_low_kernel(dataclasses.replace(spec, b=b), target.host())[1]
             for b in ("across", "along")]
    drives = [{part for part in parted(text)[1] if "@drive(" in part} for text in texts]
    assert drives[0] == drives[1]
    assert len(drives[0]) == 1


def test_long_functions_of_numbers_are_shared():
    """A power of a number alone is no code of its own kernel; one of a register is."""
    module = Module("nounwind")
    f = module.function("f", [("double", "x")])
    lanes, x = Lanes(f), f.args["x"]
    for _ in range(2):
        lanes.math("pow", x, x)
    lanes.math("pow", f.splat(x, 4), f.splat(x, 4))
    rest, parts = parted(module.text())
    assert len(parts) == 1
    assert rest.count("call double @pow_double(") == 2
    assert "call <4 x double> @llvm.fma.v4f64" in rest
