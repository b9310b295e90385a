"""Fetching the next piece of an image into the second-level cache while this one is computed with.

A kernel announces a region (chunks of memory at equal distances) and how often it will call
`fetch_ahead`; each call then fetches as many lines as it takes to get through in time. To fetch is
only a hint: regions need not be exact.
"""

from __future__ import annotations

from flambeau.compiler.emitter import Function, Module, Value

__all__ = ["announce", "announce_rows", "define_ahead", "fetch_ahead", "region"]

_LINE = 64  # bytes
_PLACE, _END, _STEP, _LEFT, _BYTES, _QUOTA = range(6)


def define_ahead(module: Module) -> None:
    """Define fetch_ahead(region)."""
    module.declare("void", "llvm.prefetch.p0", ["ptr", "i32", "i32", "i32"])
    f = module.function("fetch_ahead", [("ptr noalias", "region")], internal=True)
    region_ = f.args["region"]
    place, end, left = (f.var("i64", f.load("i64", region_, word))
                        for word in (_PLACE, _END, _LEFT))
    step, bytes_ = (f.load("i64", region_, word) for word in (_STEP, _BYTES))
    with f.loop(0, f.load("i64", region_, _QUOTA)), f.when(f.cmp("sgt", left.get(), 0)):
        address = f.cast("inttoptr", place.get(), "ptr")
        f.line(f"call void @llvm.prefetch.p0({address}, i32 0, i32 2, i32 1)")
        place.set(f.add(place.get(), _LINE))
        with f.when(f.cmp("sge", place.get(), end.get())):
            left.set(f.sub(left.get(), 1))
            end.set(f.add(end.get(), step))
            place.set(f.sub(end.get(), bytes_))
    for word, value in ((_PLACE, place), (_END, end), (_LEFT, left)):
        f.store(value.get(), region_, word)


def region(f: Function) -> Value:
    """Memory for a region, announced to be empty."""
    made = f.array("i64", 6)
    f.store(f.const(0, "i64"), made, _QUOTA)
    return made


def announce(f: Function, region_: Value, base: Value, chunks: Value, step: Value, bytes_: Value,
             calls: Value) -> None:
    """`chunks` times `bytes_` from `base`, `step` bytes apart, are wanted after `calls` calls."""
    lines = f.mul(chunks, f.ceil_div(bytes_, _LINE))
    place = f.cast("ptrtoint", base, "i64")
    words = {_PLACE: place, _END: f.add(place, bytes_), _STEP: step, _LEFT: chunks,
             _BYTES: bytes_, _QUOTA: f.ceil_div(lines, f.smax(calls, 1))}
    for word, value in words.items():
        f.store(value, region_, word)


def announce_rows(f: Function, region_: Value, base: Value, channels_last: bool, images: Value,
                  channels: Value, rows: tuple[Value, Value], steps: tuple, itemsize: int,
                  calls: Value, memory: str) -> None:
    """Rows first..last of some images of which `base` is the first; `steps` of images, channels
    and rows in elements."""
    first, last = rows
    step_n, step_c, step_row = steps
    count = f.mul(f.smax(f.sub(last, first), 0), step_row)
    start = f.gep(base, f.mul(first, step_row), memory)
    if channels_last:
        chunks, step = images, step_n
    else:
        chunks, step = f.mul(images, channels), step_c
    chunks = f.select(f.cmp("sgt", count, 0), chunks, 0)
    announce(f, region_, start, chunks, f.mul(step, itemsize), f.mul(count, itemsize), calls)


def fetch_ahead(f: Function, region_: Value) -> None:
    """Fetch some more of a region."""
    f.call("void", "fetch_ahead", [region_])
