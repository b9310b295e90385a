"""The kernel behind `nonzero`: writes the positions of true bytes one after the other."""

from __future__ import annotations

from flambeau.compiler.codegen import KERNEL_ARGS
from flambeau.compiler.emitter import Module
from flambeau.compiler.target import Target

__all__ = ["COMPRESS_SLOTS", "compress_kernel"]

COMPRESS_SLOTS = ("mask", "out", "n")


def compress_kernel(target: Target) -> tuple[str, str]:
    """(name, LLVM IR): out[k] = position of the k-th non-zero byte of mask[0:n]. One chunk."""
    module = Module(target.attributes)
    f = module.function("compress", KERNEL_ARGS)
    mask, out = f.load("ptr", f.args["args"]), f.load("ptr", f.gep(f.args["args"], 1, "i64"))
    n = f.load("i64", f.args["args"], 2)
    count = f.var("i64", 0)
    with f.loop(0, n) as i:
        hit = f.cmp("ne", f.load("i8", mask, i), 0)
        with f.when(hit):
            place = count.get()
            f.store(i, out, place)
            count.set(f.add(place, 1))
    return "compress", module.text()
