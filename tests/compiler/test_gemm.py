"""The matrix product generator against NumPy: layouts, edges, types, batches, chunks, machines."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from kernel_calls import (
    FOREIGN,
    LLVM_TYPES,
    address,
    call,
    guarded,
    machines,
    sample,
    strides,
    workspace,
)

from flambeau.compiler import llvm as compiler
from flambeau.compiler.gemm import GEMM_SLOTS, GemmPlan, GemmSpec, gemm_kernel, gemm_plan
from flambeau.compiler.packing import tile_for
from flambeau.compiler.target import Target, host

LAYOUTS = ("row", "col", "any")


def close(got: np.ndarray, expected: np.ndarray, terms: int = 1) -> bool:
    """Equal integers; floats within the error of a sum of `terms` products."""
    if got.dtype.kind != "f":
        return bool((got == expected).all())
    tolerance = 8 * np.finfo(got.dtype).eps * max(terms, 1) ** 0.5
    return bool(np.allclose(got, expected, rtol=tolerance, atol=4 * tolerance))


# ---------------------------------------------------------------------- running a product
@dataclasses.dataclass
class Product:
    """One call of a kernel on NumPy arrays; A and B may have one batch dimension."""

    spec: GemmSpec
    target: Target = dataclasses.field(default_factory=host)
    threads: int = 1
    nchunks: int | None = None
    plan: GemmPlan | None = None

    def __call__(self, a: np.ndarray, b: np.ndarray, bias: np.ndarray | None = None,
                 c: np.ndarray | None = None) -> np.ndarray:
        batches = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        batch, (m, k), n = (batches or (1,))[0], a.shape[-2:], b.shape[-1]
        plan = self.plan or gemm_plan(self.spec, self.target, batch, m, n, k, self.threads)
        if c is None:
            c = np.full((*batches, m, n), 99, a.dtype)
        work = workspace(plan.work_bytes)
        values = {
            "a": a.ctypes.data, "b": b.ctypes.data, "c": c.ctypes.data, "work": work.ctypes.data,
            "bias": 0 if bias is None else bias.ctypes.data, "work_stride": plan.work_stride,
            "bias_stride": 0 if bias is None else strides(bias)[0],
            "batch": batch, "m": m, "n": n, "k": k, "c_batch": m * n, "c_row": n,
            "a_batch": strides(a)[0] if a.ndim == 3 and a.shape[0] > 1 else 0,
            "b_batch": strides(b)[0] if b.ndim == 3 and b.shape[0] > 1 else 0,
            "tiles_m": plan.tiles_m, "tiles_n": plan.tiles_n}
        values["a_row"], values["a_col"] = strides(a)[-2:]
        values["b_row"], values["b_col"] = strides(b)[-2:]
        name, ir_text = gemm_kernel(self.spec, self.target)
        call(address(name, ir_text, self.target), GEMM_SLOTS, values,
             self.nchunks or plan.nchunks, self.threads)
        assert guarded(work)
        return c


def matrix(rng: np.random.Generator, rows: int, columns: int, layout: str,
           dtype: np.dtype) -> np.ndarray:
    if layout == "row":
        return sample(rng, (rows, columns + 3), dtype)[:, :columns]
    if layout == "col":
        return sample(rng, (columns, rows + 1), dtype)[:, :rows].T
    return sample(rng, (2 * rows, 3 * columns), dtype)[::2, ::3]


SHAPES = ((1, 1, 1), (3, 5, 7), (4, 33, 2), (8, 32, 16), (14, 32, 16), (16, 16, 16), (17, 33, 400),
          (29, 70, 801), (61, 131, 17), (5, 1100, 3), (2, 3, 1000))
EMPTY = ((0, 4, 4), (4, 0, 4), (4, 5, 0), (0, 0, 0))


@pytest.mark.parametrize("target", machines())
@pytest.mark.parametrize("b_layout", LAYOUTS)
@pytest.mark.parametrize("a_layout", LAYOUTS)
def test_float_layouts(a_layout, b_layout, target):
    rng, dtype = np.random.default_rng(0), np.dtype("f4")
    product = Product(GemmSpec("float", a_layout, b_layout), target)
    for m, n, k in SHAPES:
        a, b = matrix(rng, m, k, a_layout, dtype), matrix(rng, k, n, b_layout, dtype)
        assert close(product(a, b), a.astype("f8") @ b.astype("f8"), k), (m, n, k)


@pytest.mark.parametrize("target", machines())
@pytest.mark.parametrize("code", LLVM_TYPES)
def test_types(code, target):
    rng, dtype = np.random.default_rng(1), np.dtype(code)
    for a_layout, b_layout in (("row", "col"), ("col", "row"), ("any", "any")):
        product = Product(GemmSpec(LLVM_TYPES[code], a_layout, b_layout), target)
        for m, n, k in ((1, 1, 1), (7, 37, 19), (30, 65, 513)):
            a, b = matrix(rng, m, k, a_layout, dtype), matrix(rng, k, n, b_layout, dtype)
            assert close(product(a, b), a @ b, k), (m, n, k)


@pytest.mark.parametrize("shape", EMPTY)
def test_empty(shape):
    m, n, k = shape
    a, b, bias = np.ones((m, k), "f4"), np.ones((k, n), "f4"), np.arange(n, dtype="f4")
    assert (Product(GemmSpec("float"))(a, b) == np.zeros((m, n))).all()
    got = Product(GemmSpec("float", bias=True))(a, b, bias)
    assert (got == np.broadcast_to(bias, (m, n))).all()
    c = np.full((m, n), 3, "f4")
    assert (Product(GemmSpec("float", accumulate=True))(a, b, c=c) == 3).all()


@pytest.mark.parametrize("small", (False, True))
@pytest.mark.parametrize("b_layout", LAYOUTS)
def test_bias_and_accumulate(b_layout, small):
    rng, dtype = np.random.default_rng(2), np.dtype("f4")
    for m, n, k in ((1, 1, 1), (3, 33, 900), (4, 64, 384), (20, 70, 30)):
        a, b = matrix(rng, m, k, "row", dtype), matrix(rng, k, n, b_layout, dtype)
        bias, c = sample(rng, (2 * n,), dtype)[::2], sample(rng, (m, n), dtype)
        exact = a.astype("f8") @ b
        got = Product(GemmSpec("float", "row", b_layout, small, bias=True))(a, b, bias)
        assert close(got, exact + bias, k)
        got = Product(GemmSpec("float", "row", b_layout, small, True, True))(a, b, bias, c.copy())
        assert close(got, exact + bias + c, k)
        got = Product(GemmSpec("float", "row", b_layout, small, True))(a, b, c=c.copy())
        assert close(got, exact + c, k)


@pytest.mark.parametrize("target", machines())
@pytest.mark.parametrize("layouts", [(a, b) for a in LAYOUTS for b in LAYOUTS])
def test_small_m(layouts, target):
    rng, dtype = np.random.default_rng(3), np.dtype("f4")
    product = Product(GemmSpec("float", *layouts, small_m=True), target)
    for m, n, k in ((1, 1, 1), (1, 1000, 40), (2, 65, 1), (3, 31, 500), (4, 7, 1025), (1, 3, 0),
                    (9, 130, 33)):
        a, b = matrix(rng, m, k, layouts[0], dtype), matrix(rng, k, n, layouts[1], dtype)
        assert close(product(a, b), a.astype("f8") @ b.astype("f8"), k), (m, n, k)


def test_batches():
    rng, dtype = np.random.default_rng(4), np.dtype("f4")
    a, b = sample(rng, (5, 9, 12), dtype), sample(rng, (5, 12, 40), dtype)
    product = Product(GemmSpec("float"), threads=3, nchunks=4)
    assert close(product(a, b), a @ b, 12)
    assert close(product(a[:1], b), a[:1] @ b, 12)
    assert close(product(a, b[0]), a @ b[0], 12)
    assert product(a[:0], b[:0]).shape == (0, 9, 40)


@pytest.mark.parametrize("small", (False, True))
@pytest.mark.parametrize("layouts", (("row", "row"), ("row", "col"), ("col", "row")))
def test_bits_do_not_depend_on_chunks(layouts, small):
    rng, dtype = np.random.default_rng(5), np.dtype("f4")
    m, n, k = (3 if small else 45), 300, 777
    spec = GemmSpec("float", *layouts, small_m=small)
    a, b = matrix(rng, m, k, layouts[0], dtype), matrix(rng, k, n, layouts[1], dtype)
    expected = Product(spec)(a, b)
    for tiles_m, tiles_n, nchunks in ((1, 3, 3), (2, 2, 4), (3, 1, 2), (2, 5, 7)):
        stride = gemm_plan(spec, host(), 1, m, n, k, 1).work_stride
        plan = GemmPlan(tiles_m, tiles_n, nchunks, 2 * stride, stride)
        assert (Product(spec, threads=2, plan=plan)(a, b) == expected).all()
    for threads in (1, 2, 3, 8, 64):
        assert (Product(spec, threads=threads)(a, b) == expected).all()


def test_plan_cuts_by_work():
    spec = GemmSpec("float")
    assert gemm_plan(spec, host(), 1, 16, 16, 16, 8).nchunks == 1
    assert gemm_plan(spec, host(), 1, 1024, 1024, 1024, 1).nchunks == 1
    large = gemm_plan(spec, host(), 1, 1024, 1024, 1024, 8)
    assert large.nchunks >= 8 and large.work_bytes == 8 * large.work_stride
    many = gemm_plan(spec, host(), 1000, 16, 16, 16, 4)
    assert many.tiles_m == many.tiles_n == 1 and 4 <= many.nchunks < 1000


def test_nan_and_infinity_pass_through():
    a, b = np.ones((2, 3), "f4"), np.ones((3, 2), "f4")
    a[0, 1], b[2, 1] = np.nan, np.inf
    got = Product(GemmSpec("float"))(a, b)
    assert np.isnan(got[0]).all() and got[1, 0] == 3 and got[1, 1] == np.inf


@pytest.mark.parametrize("target", FOREIGN, ids=lambda target: target.triple)
def test_foreign_machines_compile(target):
    for spec in (GemmSpec("float", "row", "col", bias=True), GemmSpec("i64", "col", "row"),
                 GemmSpec("float", "row", "row", small_m=True)):
        _, ir_text = gemm_kernel(spec, target)
        assert compiler.compile_object(ir_text, target, jit=False)


def test_names_and_text_are_deterministic():
    specs = [GemmSpec(t, a, b, s) for t in ("float", "i64") for a in LAYOUTS for b in LAYOUTS
             for s in (False, True)]
    assert len({gemm_kernel(spec, host())[0] for spec in specs}) == len(specs)
    assert gemm_kernel(specs[0], host()) == gemm_kernel(specs[0], host())


def test_refused_type():
    with pytest.raises(NotImplementedError, match="half"):
        tile_for("half", host())
