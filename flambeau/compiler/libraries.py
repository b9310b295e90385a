"""Library steps: contractions and random streams as calls of generated kernels."""

from __future__ import annotations

import dataclasses
import math

from flambeau.compiler.convolution.finish import Finish
from flambeau.compiler.convolution.geometry import Convolution, Operand
from flambeau.compiler.convolution.gradient_plan import gradient_steps
from flambeau.compiler.convolution.grouped import grouped_steps
from flambeau.compiler.convolution.low_gradient_plan import low_gradient_steps
from flambeau.compiler.convolution.low_plan import low_direct_steps
from flambeau.compiler.convolution.matrix import is_by_pixel
from flambeau.compiler.convolution.patches import patch_steps
from flambeau.compiler.convolution.plan import direct_steps
from flambeau.compiler.convolution.pointwise import pointwise_gradient_steps, pointwise_steps
from flambeau.compiler.convolution.unfolded import unfolded_steps
from flambeau.compiler.convolution.winograd_plan import winograd_steps
from flambeau.compiler.epilogue import Epilogue, epilogue_of
from flambeau.compiler.expression import Buffer
from flambeau.compiler.joint_steps import JOINT_RULES
from flambeau.compiler.nest import Address, Float, Pointer, vector_lanes
from flambeau.compiler.products import gemm
from flambeau.compiler.products import low as gemm_low
from flambeau.compiler.products.low_step import Matrix, low_step
from flambeau.compiler.schedule import batch_stride
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target
from flambeau.core import dtypes
from flambeau.core.symbolic import environment, pinned

__all__ = ["epilogue_with_slots", "steps"]


def steps(library, target: Target, threads: int) -> list[tuple[Step, int]]:
    """The kernel calls of one LibraryStep, each with its amount of work."""
    rule = _RULES.get(library.kind)
    if rule is None:
        raise NotImplementedError(f"no kernel generator for {library.kind!r}")
    found = rule(library, target, threads)
    return found if isinstance(found, list) else [found]


def _pointer(buffer: Buffer) -> Pointer:
    return Pointer(buffer.kind, buffer.number, buffer.offset * buffer.dtype.itemsize)


def _layout(rows: int, columns: int, row_stride: int, column_stride: int) -> str:
    if column_stride == 1 or columns == 1:
        return "row"
    return "col" if row_stride == 1 or rows == 1 else "any"


def _dot(library, target: Target, threads: int):
    a, b = library.sources
    if b.shape[-1] == 1 and a.shape[-2] > 1 and a.strides[-2] == 1 and a.strides[-1] != 1 \
            and not library.epilogue and library.ready is None:
        # a matrix that lies by columns, times a vector: the vector, times a matrix by rows
        library = dataclasses.replace(library, sources=(_turned(b), _turned(a)),
                                      target=_turned(library.target))
        a, b = library.sources
    if a.dtype is not library.target.dtype:
        return _narrow_dot(library, target, threads)
    if a.dtype is dtypes.float32 and gemm_low.split_spec(
            *_orders(a, b), a.shape[-2], b.shape[-1], a.shape[-1], target) is not None:
        return _narrow_dot(library, target, threads)
    spec = gemm.gemm_spec(a.dtype.llvm, *_layouts(a, b), a.shape[-2], b.shape[-1], a.shape[-1],
                          target)
    return _plain_dot(library, spec, target, threads)


def _layouts(a: Buffer, b: Buffer) -> tuple[str, str]:
    return tuple(_layout(*x.shape[-2:], *x.strides[-2:]) for x in (a, b))


def _plain_dot(library, spec: gemm.GemmSpec, target: Target, threads: int):
    """A product by the kernels of `gemm`."""
    a, b = library.sources
    batch, m, k, n = math.prod(a.shape[:-2]), *a.shape[-2:], b.shape[-1]
    cut = gemm.gemm_plan(spec, target, batch, m, n, k, threads)
    follows, more = epilogue_with_slots(library, target)
    name, text = gemm.gemm_kernel(spec, target, follows)
    values = {
        "a": _pointer(a), "b": _pointer(b), "c": _pointer(library.target),
        "work": Pointer("work", cut.work_bytes), "work_stride": cut.work_stride,
        "batch": batch, "m": m, "n": n, "k": k,
        "a_batch": batch_stride(a)[1], "a_row": a.strides[-2], "a_col": a.strides[-1],
        "b_batch": batch_stride(b)[1], "b_row": b.strides[-2], "b_col": b.strides[-1],
        "c_batch": m * n, "c_row": n,
        "tiles_m": cut.tiles_m, "tiles_n": cut.tiles_n,
    }
    slots = [values[slot] for slot in gemm.GEMM_SLOTS] + more
    return Step(name, lambda: text, slots, cut.nchunks), 2 * batch * m * n * k // 8


def _orders(a: Buffer, b: Buffer) -> tuple[str, str]:
    """How operands lie along the sum."""
    (m, k), n = a.shape[-2:], b.shape[-1]
    return (gemm_low.order(k, a.strides[-1], m, a.strides[-2]),
            gemm_low.order(k, b.strides[-2], n, b.strides[-1]))


def _narrow_dot(library, target: Target, threads: int):
    """A product of 8- or 16-bit elements, or of 16-bit parts, whose sums have 32 bits."""
    a, b = library.sources
    batch, m, k, n = math.prod(a.shape[:-2]), *a.shape[-2:], b.shape[-1]
    short = gemm_low.short_spec(a.dtype.llvm, *_layouts(a, b), m, n, k, target)
    if short is not None:
        return _plain_dot(library, short, target, threads)
    unsigned = "a" if a.dtype.kind == "u" else ""
    spec = gemm_low.GemmLowSpec("i8" if a.dtype.itemsize == 1 else a.dtype.llvm,
                                *_orders(a, b), unsigned, stored=not library.private)
    place = 0 if library.private else _pointer(library.target)
    matrices = (Matrix(_pointer(x), batch_stride(x)[1], *x.strides[-2:]) for x in (a, b))
    step = low_step(spec, target, threads, *matrices, Matrix(place, m * n, n, 1),
                    (batch, m, n, k), *epilogue_with_slots(library, target))
    return step, batch * m * n * k // (16 if a.dtype.itemsize < 4 else 6)


def _turned(buffer: Buffer) -> Buffer:
    """With the last two dimensions swapped."""
    *shape, rows, columns = buffer.shape
    *strides, row, column = buffer.strides
    return dataclasses.replace(buffer, shape=(*shape, columns, rows),
                               strides=(*strides, column, row))


def epilogue_with_slots(library, target: Target) -> tuple[Epilogue | None, list]:
    """(what follows the product in its kernel, the contents of its slots)."""
    if library.ready is not None:
        return library.ready
    if not library.epilogue:
        return None, []
    follows, slots = epilogue_of(library.epilogue, min(
        vector_lanes(p, target) for p in library.epilogue))
    return dataclasses.replace(follows, key=pinned(follows.key)) if environment else follows, slots


def _random(library, target: Target, threads: int):
    """A stream is sequential: one chunk. The generator's state is where it always is."""
    from flambeau.compiler.random.fills import random_kernel

    kind, _, dtype, params, generator = library.attrs
    name, text = random_kernel(kind, dtype, target)
    count = 1
    for size in library.target.shape:
        count *= size
    slots = [Address(generator.address, generator), _pointer(library.target), count,
             *(Float(p) if isinstance(p, float) else p for p in params)]
    return Step(name, lambda: text, slots, 1), 20 * count


_CONV_ROLES = {  # kind; then which of input, weight, output the sources and the target are
    "conv": ("forward", "input", "weight", "output"),
    "conv_grad_input": ("grad_input", "output", "weight", "input"),
    "conv_grad_weight": ("grad_weight", "output", "input", "weight"),
}


def _conv(library, target: Target, threads: int):
    """A convolution: several kernels."""
    kind, *roles = _CONV_ROLES[library.kind]
    buffers = (*library.sources[:2], library.target)
    part = {role: Operand(_pointer(b), b.shape, b.strides)
            for role, b in zip(roles, buffers, strict=True)}
    bias = None
    if len(library.sources) == 3:
        b = library.sources[2]
        bias = Operand(_pointer(b), b.shape, b.strides)
    problem = Convolution(kind, part["input"], part["weight"], part["output"], bias,
                          *library.attrs[:4])
    kernel_type = library.target.dtype.llvm
    common = kernel_type, target, threads
    if buffers[0].dtype.itemsize == 2 and kernel_type == "float":
        found = _low_conv(library, problem, target, threads)
    elif kind == "grad_weight":
        rules = grouped_steps, pointwise_gradient_steps, gradient_steps
        found = next(steps for make in rules if (steps := make(problem, *common)))
    else:
        follows, more = epilogue_with_slots(library, target)
        by_pixel = is_by_pixel(library.target.shape, library.target.strides)
        finish = Finish(follows, more, by_pixel) if follows else None
        rules = (grouped_steps, pointwise_steps, winograd_steps, unfolded_steps, patch_steps,
                 direct_steps)
        found = next(steps for make in rules
                     if (steps := make(problem, *common, finish)) is not None)
    return [(step, int(problem.flops) // 8) for step in found]


def _low_conv(library, problem: Convolution, target: Target, threads: int) -> list[Step]:
    """A convolution of bfloat16 images with float32 sums."""
    if problem.kind == "grad_weight":
        return low_gradient_steps(problem, target, threads)
    follows, more = epilogue_with_slots(library, target)
    finish = Finish(follows, more, True) if follows else None
    return low_direct_steps(problem, target, threads, finish, not library.private)


def _argsort(library, target: Target, threads: int):
    from flambeau.compiler.sorting import SORT_SLOTS, sort_kernel, sort_plan

    (x,), (descending, limit, first) = library.sources, library.attrs
    n, rows = x.shape[-1], 1
    for size in x.shape[:-1]:
        rows *= size
    cut = sort_plan(x.dtype, rows, n, limit, threads, first)
    name, text = sort_kernel(x.dtype, descending, cut.method, target)
    values = {"x": _pointer(x), "out": _pointer(library.target),
              "work": Pointer("work", cut.work_bytes), "work_stride": cut.work_stride,
              "rows": rows, "n": n, "limit": limit, "first": first}
    slots = [values[slot] for slot in SORT_SLOTS]
    return Step(name, lambda: text, slots, cut.nchunks), 30 * rows * n


def _search(library, target: Target, threads: int):
    from flambeau.compiler import searching

    ordered, values = library.sources
    n, m = ordered.shape[-1], values.shape[-1] if values.shape else 1
    if len(ordered.shape) == 1:  # one row for all
        rows, m, row_stride = 1, math.prod(values.shape), 0
    else:
        rows, row_stride = math.prod(values.shape[:-1]), n
    name, text = searching.search_kernel(ordered.dtype, library.attrs[0], n < 1 << 31, target)
    blocks = -(-m // searching.BLOCK)
    found = {"ordered": _pointer(ordered), "values": _pointer(values),
             "out": _pointer(library.target), "items": rows * blocks, "blocks": blocks, "n": n,
             "m": m, "row_stride": row_stride, "steps": int(n).bit_length()}
    slots = [found[slot] for slot in searching.SEARCH_SLOTS]
    nchunks = searching.search_chunks(rows * blocks, threads)
    return Step(name, lambda: text, slots, nchunks), rows * m * int(n).bit_length()


def _pool(library, target: Target, threads: int):
    from flambeau.compiler.pooling.step import pool_step

    return pool_step(library, target, threads)


def _factor(library, target: Target, threads: int):
    from flambeau.compiler.factorizations.step import factorization_steps

    return factorization_steps(library, target, threads)


def _resize(library, target: Target, threads: int):
    from flambeau.compiler.pooling.resizing_step import resize_step

    return resize_step(library, target, threads)


def _fourier(library, target: Target, threads: int):
    from flambeau.compiler.fourier.step import fourier_steps

    return fourier_steps(library, target, threads)


_RULES = ({"argsort": _argsort, "fourier": _fourier, "search": _search, "random": _random,
           "dot": _dot, "factor": _factor}
          | dict.fromkeys(_CONV_ROLES, _conv)
          | dict.fromkeys(("pool_max", "pool_argmax", "pool_max_back", "pool_mean",
                           "pool_mean_back"), _pool)
          | dict.fromkeys(("resize", "resize_back"), _resize) | JOINT_RULES)
