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
from flambeau.compiler.products.gemm import (
    GEMM_SLOTS,
    GemmPlan,
    GemmSpec,
    gemm_kernel,
    gemm_plan,
    gemm_spec,
)
from flambeau.compiler.products.packing import tile_for
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

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        batches = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        batch, (m, k), n = (batches or (1,))[0], a.shape[-2:], b.shape[-1]
        plan = self.plan or gemm_plan(self.spec, self.target, batch, m, n, k, self.threads)
        result = np.dtype("f4") if a.dtype == "f2" else a.dtype
        c = np.full((*batches, m + 1, n), 99, result)  # a line more, which must stay as it is
        work = workspace(plan.work_bytes)
        values = {
            "a": a.ctypes.data, "b": b.ctypes.data, "c": c.ctypes.data, "work": work.ctypes.data,
            "work_stride": plan.work_stride, "batch": batch, "m": m, "n": n, "k": k,
            "c_batch": (m + 1) * n, "c_row": n,
            "a_batch": strides(a)[0] if a.ndim == 3 and a.shape[0] > 1 else 0,
            "b_batch": strides(b)[0] if b.ndim == 3 and b.shape[0] > 1 else 0,
            "tiles_m": plan.tiles_m, "tiles_n": plan.tiles_n}
        values["a_row"], values["a_col"] = strides(a)[-2:]
        values["b_row"], values["b_col"] = strides(b)[-2:]
        name, ir_text = gemm_kernel(self.spec, self.target)
        call(address(name, ir_text, self.target), GEMM_SLOTS, values,
             self.nchunks or plan.nchunks, self.threads)
        assert guarded(work) and (c[..., m, :] == 99).all()
        return c[..., :m, :]


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
    a, b = np.ones((m, k), "f4"), np.ones((k, n), "f4")
    for method, a_layout, b_layout in CASES:
        spec = GemmSpec("float", a_layout, b_layout, method)
        assert (Product(spec)(a, b) == np.zeros((m, n))).all(), spec


METHODS = {  # method: layouts of A and B that it takes
    "packed": [(a, b) for a in LAYOUTS for b in LAYOUTS],
    "direct": [(a, "row") for a in LAYOUTS],
    "few": [(a, "row") for a in LAYOUTS],
    "dots_a": [(a, "col") for a in LAYOUTS],
    "dots_b": [("row", b) for b in LAYOUTS],
}
CASES = [(method, *layouts) for method, found in METHODS.items() for layouts in found]


@pytest.mark.parametrize("target", machines())
@pytest.mark.parametrize("case", CASES[9:], ids="-".join)
def test_methods_for_few_lines(case, target):
    rng, dtype = np.random.default_rng(3), np.dtype("f4")
    method, a_layout, b_layout = case
    product = Product(GemmSpec("float", a_layout, b_layout, method), target)
    for m, n, k in ((1, 1, 1), (1, 1000, 40), (2, 65, 1), (3, 31, 500), (4, 7, 1025), (1, 3, 0),
                    (9, 130, 33), (33, 17, 70), (300, 5, 64), (19, 11, 2100)):
        a, b = matrix(rng, m, k, a_layout, dtype), matrix(rng, k, n, b_layout, dtype)
        assert close(product(a, b), a.astype("f8") @ b.astype("f8"), k), (m, n, k)


@pytest.mark.parametrize("target", machines())
@pytest.mark.parametrize("code", LLVM_TYPES)
def test_types_of_other_methods(code, target):
    rng, dtype = np.random.default_rng(6), np.dtype(code)
    for case in CASES[9::2]:
        method, a_layout, b_layout = case
        if method in ("direct", "few") and dtype.kind == "i" and dtype.itemsize < 4:
            continue
        product = Product(GemmSpec(LLVM_TYPES[code], a_layout, b_layout, method), target)
        for m, n, k in ((2, 37, 19), (18, 9, 100)):
            a, b = matrix(rng, m, k, a_layout, dtype), matrix(rng, k, n, b_layout, dtype)
            assert close(product(a, b), a @ b, k), (case, m, n, k)


@pytest.mark.parametrize("case", [case for case in CASES if case[0].startswith("dots")],
                         ids="-".join)
def test_dot_products_of_16_bit_floats(case):
    rng = np.random.default_rng(7)
    method, a_layout, b_layout = case
    for m, n, k in ((1, 70, 33), (5, 3, 1100), (40, 9, 16), (2, 2, 0)):
        a, b = (matrix(rng, *shape, layout, np.dtype("f2"))
                for shape, layout in (((m, k), a_layout), ((k, n), b_layout)))
        got = Product(GemmSpec("half", a_layout, b_layout, method))(a, b)
        assert got.dtype == np.float32 and close(got, a.astype("f8") @ b.astype("f8"), k)


@pytest.mark.parametrize("a_layout", LAYOUTS)
@pytest.mark.parametrize("b_layout", LAYOUTS)
def test_chosen_methods_take_their_operands(a_layout, b_layout):
    for m, n in ((1, 1), (1, 900), (3, 9), (20, 300), (900, 5), (900, 1), (64, 64), (700, 800)):
        spec = gemm_spec("float", a_layout, b_layout, m, n, 64, host())
        assert (spec.a, spec.b) in METHODS[spec.method]


def test_batches():
    rng, dtype = np.random.default_rng(4), np.dtype("f4")
    a, b = sample(rng, (5, 9, 12), dtype), sample(rng, (5, 12, 40), dtype)
    product = Product(GemmSpec("float"), threads=3, nchunks=4)
    assert close(product(a, b), a @ b, 12)
    assert close(product(a[:1], b), a[:1] @ b, 12)
    assert close(product(a, b[0]), a @ b[0], 12)
    assert product(a[:0], b[:0]).shape == (0, 9, 40)


@pytest.mark.parametrize("case", [case for case in CASES if "any" not in case], ids="-".join)
@pytest.mark.parametrize("code", ("f4", "f8"))
def test_bits_do_not_depend_on_chunks(case, code):
    rng, dtype = np.random.default_rng(5), np.dtype(code)
    method, *layouts = case
    m, n, k = {"few": (3, 300, 777), "dots_b": (203, 11, 777)}.get(method, (45, 300, 777))
    spec = GemmSpec(LLVM_TYPES[code], *layouts, method)
    a, b = matrix(rng, m, k, layouts[0], dtype), matrix(rng, k, n, layouts[1], dtype)
    expected = Product(spec)(a, b)
    cuts = ((1, 3, 3), (2, 2, 4), (3, 1, 2), (2, 5, 7))
    for tiles_m, tiles_n, nchunks in cuts if method == "packed" else ():
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
    for spec in (GemmSpec("float", "row", "col"), GemmSpec("i64", "col", "row"),
                 GemmSpec("float", "row", "row", "few"), GemmSpec("float", "row", "col", "dots_a"),
                 GemmSpec("double", "row", "row", "dots_b")):
        _, ir_text = gemm_kernel(spec, target)
        assert compiler.compile_object(ir_text, target, jit=False)


def test_names_and_text_are_deterministic():
    specs = [GemmSpec(t, a, b, method) for t in ("float", "i64") for method, a, b in CASES]
    assert len({gemm_kernel(spec, host())[0] for spec in specs}) == len(specs)
    assert gemm_kernel(specs[0], host()) == gemm_kernel(specs[0], host())


def test_refused_type():
    with pytest.raises(NotImplementedError, match="half"):
        tile_for("half", host())
