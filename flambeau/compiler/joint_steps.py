"""Joint primitives as calls of generated kernels: attention."""

from __future__ import annotations

from flambeau.compiler.attention import (
    ATTENTION_SLOTS,
    AttentionSpec,
    attention_kernel,
    attention_plan,
    kernel_name,
)
from flambeau.compiler.attention_backward import (
    BACKWARD_SLOTS,
    attention_backward_kernel,
    attention_backward_plan,
)
from flambeau.compiler.expression import Buffer
from flambeau.compiler.nest import Float, Pointer
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target

__all__ = ["JOINT_RULES"]


def _pointer(buffer: Buffer | None) -> Pointer | int:
    """The address of a buffer; 0 for a result that nobody wants."""
    if buffer is None:
        return 0
    return Pointer(buffer.kind, buffer.number, buffer.offset * buffer.dtype.itemsize)


def _attention_values(library) -> tuple[AttentionSpec, dict, tuple]:
    """(what the kernel is, the slots that both directions have, what comes after the operands)."""
    form = library.attrs[0]
    query, key, value, mask, drop, rest = form.split(library.sources)
    kind = None if mask is None else "bool" if mask.dtype.kind == "b" else "float"
    spec = AttentionSpec(query.dtype.llvm, kind, drop is not None)
    batch, heads, rows, depth = query.shape
    values = {"batch": batch, "heads": heads, "group": heads // key.shape[1], "rows": rows,
              "keys": key.shape[2], "depth": depth, "width": value.shape[3],
              "causal": int(form.causal), "scale": Float(form.scale),
              "factor": Float(form.factor)}
    for name, buffer in (("q", query), ("k", key), ("v", value), ("mask", mask), ("drop", drop)):
        values |= _operand(name, buffer)
    return spec, values, rest


def _operand(name: str, buffer: Buffer | None) -> dict:
    steps = (0, 0, 0) if buffer is None else buffer.strides[:3]
    return {name: _pointer(buffer)} | {f"{name}_{axis}": step
                                       for axis, step in zip("bhr", steps, strict=True)}


def _work(values: dict) -> int:
    return (values["batch"] * values["heads"] * values["rows"] * values["keys"]
            * (values["depth"] + values["width"])) // 4


def _attention(library, target: Target, threads: int) -> tuple[Step, int]:
    spec, values, _ = _attention_values(library)
    out, lse = library.results
    cut = attention_plan(spec, target, values["batch"] * values["heads"], values["rows"],
                         values["keys"], values["depth"], values["width"], threads)
    values |= {"out": _pointer(out), "lse": _pointer(lse),
               "work": Pointer("work", cut.work_bytes), "work_stride": cut.work_stride}
    slots = [values[slot] for slot in ATTENTION_SLOTS]
    step = Step(kernel_name("attention", spec), lambda: attention_kernel(spec, target)[1], slots,
                cut.nchunks)
    return step, _work(values)


def _attention_gradient(library, target: Target, threads: int) -> tuple[Step, int]:
    spec, values, (g, lse, delta) = _attention_values(library)
    cut = attention_backward_plan(spec, target, values["batch"] * values["heads"],
                                  values["group"], values["rows"], values["keys"],
                                  values["depth"], values["width"], threads)
    values |= _operand("g", g)
    values |= {"lse": _pointer(lse), "delta": _pointer(delta),
               "work": Pointer("work", cut.work_bytes), "work_stride": cut.work_stride,
               "key_parts": cut.key_parts, "row_parts": cut.row_parts}
    for letter, buffer in zip("qkv", library.results, strict=True):
        values |= {f"d{letter}": _pointer(buffer), f"want_{letter}": int(buffer is not None)}
    slots = [values[slot] for slot in BACKWARD_SLOTS]
    step = Step(kernel_name("attention_backward", spec),
                lambda: attention_backward_kernel(spec, target)[1], slots, cut.nchunks)
    return step, 5 * _work(values) // 2


JOINT_RULES = {"attention": _attention, "attention_gradient": _attention_gradient}
"""Kind of step -> (step, target, threads) -> (kernel call, amount of work)."""
