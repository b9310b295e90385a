"""Parts of modules: what kernels have in common is compiled once, and changes nothing."""

from __future__ import annotations

import ctypes

import pytest

from flambeau.compiler import target
from flambeau.compiler.emitter import Module
from flambeau.compiler.parts import parted
from flambeau.compiler.products.gemm import GemmSpec, gemm_kernel
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
