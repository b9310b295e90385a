"""Pooling as a step of a program: which layout it runs in, and what its slots hold."""

from __future__ import annotations

import dataclasses
import functools

from flambeau.compiler.emitter import Module
from flambeau.compiler.expression import Buffer
from flambeau.compiler.nest import Pointer
from flambeau.compiler.pooling.bins import PlanarBins
from flambeau.compiler.pooling.last import LastPool
from flambeau.compiler.pooling.layout import runs_last
from flambeau.compiler.pooling.planes import (
    POOL_SLOTS,
    UNROLL_TAPS,
    PlanarPool,
    PoolSpec,
    lanes_of_spec,
    pool_plan,
)
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target

__all__ = ["pool_kernel", "pool_step"]


def _group(channels: int, lanes: int) -> int:
    """Registers of channels that are worked on side by side."""
    return next((count for count in (4, 2) if channels >= count * lanes), 1)


def _three(values: tuple, fill: int) -> tuple:
    return (fill,) * (3 - len(values)) + tuple(values)


@functools.lru_cache(maxsize=64)
def pool_kernel(spec: PoolSpec, target: Target) -> tuple[str, str]:
    """(name, LLVM IR)."""
    name = (f"pool_{spec.rule}_{spec.x}_{spec.y}_{'last' if spec.last else 'planar'}"
            f"_{spec.taps}_{spec.stride}_{spec.dilation}{'_deep' if spec.deep else ''}"
            f"{'_bins' if spec.bins else ''}")
    module = Module(target.attributes)
    f = module.function(name, [("ptr noalias", "args"), ("i32", "chunk"), ("i32", "nchunks"),
                               ("i32", "thread")])
    planar = PlanarBins if spec.bins else PlanarPool
    kernel = (LastPool if spec.last else planar)(f, spec, lanes_of_spec(spec, target))
    kernel.emit()
    return name, module.text()


def pool_step(library, target: Target, threads: int) -> tuple[Step, int]:
    """(Step, work) of a pooling LibraryStep; its arrays fit one layout."""
    given, rule = library.attrs[0], library.kind.removeprefix("pool_")
    rank = len(given.out)
    windows = dataclasses.replace(given, **{
        word: _three(getattr(given, word), 0 if word == "padding" else 1)
        for word in ("size", "out", "kernel", "stride", "padding", "dilation")})
    arrays = _roles(library, rule)
    last = runs_last(library.sources[-1], rank)
    taps = windows.kernel[2] if windows.kernel[2] <= UNROLL_TAPS and not windows.bins else 0
    x, y = arrays.get("x", arrays["y"]), arrays["y"]
    lanes = target.lanes(max(4, min(8, y.dtype.itemsize)))
    spec = PoolSpec(rule, x.dtype.name, y.dtype.name, last,
                    windows.kernel[0] > 1 or windows.size[0] > 1,
                    *((taps, windows.stride[2], windows.dilation[2]) if not last else
                      (_group(y.shape[-rank - 1], lanes), 1, 1)), windows.bins)
    lead = y.shape[:-rank]
    batch, channels = (lead[0] if len(lead) == 2 else 1), lead[-1]
    cut = pool_plan(spec, target, batch, channels, windows, threads)
    values: dict = dict.fromkeys(POOL_SLOTS, 0)
    values |= {"work": Pointer("work", cut.work_bytes), "work_stride": cut.work_stride,
               "tasks": cut.tasks, "parts": cut.parts, "channels": channels, "block": cut.block,
               "beyond": int(windows.include_pad), "divisor": windows.divisor or 0,
               "reach": cut.reach}
    for word, sizes in (("size", windows.size), ("out", windows.out), ("kernel", windows.kernel),
                        ("stride", windows.stride), ("pad", windows.padding),
                        ("dil", windows.dilation)):
        values |= {f"{word}{d}": size for d, size in enumerate(sizes)}
    for who, array in arrays.items():
        values[who] = Pointer(array.kind, array.number, array.offset * array.dtype.itemsize)
        strides = (0,) * (2 - len(lead)) + array.strides[:-rank] + _three(array.strides[-rank:], 0)
        values |= {f"{who}_{axis}": step
                   for axis, step in zip(("n", "c", "0", "1", "2"), strides, strict=True)}
    name, text = pool_kernel(spec, target)
    work = y.shape[-1]
    for size in (*y.shape[:-1], *windows.kernel):
        work *= size
    return Step(name, lambda: text, [values[slot] for slot in POOL_SLOTS], cut.nchunks), work


def _roles(library, rule: str) -> dict[str, Buffer]:
    """The arrays by role: x like the input, y like the result, t the input's gradient,
    v the result beside its gradient y."""
    if rule == "max_back":
        return dict(zip("yxvt", (*library.sources, library.target), strict=True))
    if rule == "mean_back":
        return {"y": library.sources[0], "t": library.target}
    return {"x": library.sources[0], "y": library.target}
