"""Convolutions whose kernel is one pixel, as matrix products of channels with the weights.

    channels_last    result[pixel, o] = sum over c of source[pixel, c] * weight[c, o]
    row-major        result[o, pixel] = sum over c of weight[o, c] * source[c, pixel], per image
"""

from __future__ import annotations

from flambeau.compiler.convolution.finish import Finish
from flambeau.compiler.convolution.geometry import Convolution, correlation, merged
from flambeau.compiler.nest import Pointer
from flambeau.compiler.products.gemm import GEMM_SLOTS, gemm_kernel, gemm_plan, gemm_spec
from flambeau.compiler.products.low import order, split_spec
from flambeau.compiler.products.low_step import Matrix, low_step
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target

__all__ = ["pointwise_gradient_steps", "pointwise_steps"]


def pointwise_steps(c: Convolution, dtype_llvm: str, target: Target, threads: int,
                    finish: Finish | None = None) -> list[Step] | None:
    """The step of a forward convolution or a gradient with respect to the input; None where it is
    no plain product."""
    if c.groups > 1 or c.bias is not None or c.taps > 1 or c.kind == "grad_weight":
        return None
    c = merged(c)
    if len(c.stride) > 1 or max(c.stride) > 1 or max(c.padding) > 0:
        return None
    problem = correlation(c)
    source, result = problem.source, problem.result
    (batch, _, pixels), depth, lanes = source.shape, problem.channels, problem.lanes
    images = source.strides[1:], (problem.lane_step, problem.channel_step)
    (channel, pixel), (lane, k) = images
    by_pixel = result.strides[1] == 1 or lanes == 1 and result.strides[2] != 1
    if by_pixel:
        m, n, row = pixels, lanes, result.strides[2]
        a, b = (source.slot, source.strides[0], pixel, channel), (c.w.slot, 0, k, lane)
    elif result.strides[2] == 1 or pixels == 1:
        m, n, row = lanes, pixels, result.strides[1]
        a, b = (c.w.slot, 0, lane, k), (source.slot, source.strides[0], channel, pixel)
    else:
        return None
    if finish and (finish.by_pixel != by_pixel or by_pixel and batch > 1):
        return None
    if dtype_llvm == "float":
        made = Matrix(result.slot, result.strides[0], row, 1)
        step = _step_in_parts(Matrix(*a), Matrix(*b), made, (batch, m, n, depth), target, threads,
                              finish)
        if step is not None:
            return [step]
    spec = gemm_spec(dtype_llvm, _order(m, depth, *a[2:]), _order(depth, n, *b[2:]), m, n, depth,
                     target)
    cut = gemm_plan(spec, target, batch, m, n, depth, threads)
    name, text = gemm_kernel(spec, target, finish.epilogue if finish else None)
    values = {
        "c": result.slot, "c_batch": result.strides[0], "c_row": row,
        "work": Pointer("work", cut.work_bytes), "work_stride": cut.work_stride,
        "batch": batch, "m": m, "n": n, "k": depth,
        "tiles_m": cut.tiles_m, "tiles_n": cut.tiles_n}
    for word, operand in (("a", a), ("b", b)):
        values |= zip((word, f"{word}_batch", f"{word}_row", f"{word}_col"), operand, strict=True)
    slots = [values[slot] for slot in GEMM_SLOTS] + (finish.slots if finish else [])
    return [Step(name, lambda: text, slots, cut.nchunks)]


def pointwise_gradient_steps(c: Convolution, dtype_llvm: str, target: Target, threads: int
                             ) -> list[Step] | None:
    """The step of a gradient with respect to the weights, as one product over all pixels; None
    where that is not faster."""
    if dtype_llvm != "float" or c.groups > 1 or c.taps > 1:
        return None
    c = merged(c)
    pixels = c.x.shape[2]
    if len(c.stride) > 1 or max(c.stride) > 1 or max(c.padding) > 0 or c.x.shape[0] > 1 \
            or c.w.shape[1] > 1 and c.w.strides[1] != 1:
        return None
    m, n = c.w.shape[:2]
    if m * n < _WIDE:  # whose sums are shared out among threads
        return None
    a = Matrix(c.y.slot, 0, c.y.strides[1], c.y.strides[2])
    b = Matrix(c.x.slot, 0, c.x.strides[2], c.x.strides[1])
    step = _step_in_parts(a, b, Matrix(c.w.slot, 0, c.w.strides[0], 1), (1, m, n, pixels), target,
                          threads, None)
    return None if step is None else [step]


_WIDE = 1 << 14  # elements of a gradient that are enough work for many threads


def _step_in_parts(a: Matrix, b: Matrix, c: Matrix, sizes: tuple[int, int, int, int],
                   target: Target, threads: int, finish: Finish | None) -> Step | None:
    """The product where it is faster in bfloat16 parts."""
    _, m, n, k = sizes
    spec = split_spec(order(k, a.col, m, a.row), order(k, b.row, n, b.col), m, n, k, target)
    if spec is None:
        return None
    return low_step(spec, target, threads, a, b, c, sizes, finish.epilogue if finish else None,
                    finish.slots if finish else None)


def _order(rows: int, columns: int, row_step: int, column_step: int) -> str:
    """What is contiguous in a matrix: "row" (along rows), "col" or "any"."""
    if column_step == 1 or columns == 1:
        return "row"
    return "col" if row_step == 1 or rows == 1 else "any"
