"""Running programs on processors that this machine is not: compiled here, linked by a cross
compiler, run under qemu's user mode.

`Recorder` notes every launch that happens while operations run on the host: the graph, the
arguments' memory, the results. `run` compiles the same graphs for another target and gives the
results that it computes.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import pathlib
import re
import shutil
import struct
import subprocess

import numpy as np

from flambeau.compiler import llvm as compiler
from flambeau.compiler.nest import Float, Number, Pointer
from flambeau.compiler.program import Plan, buffers_for, plan
from flambeau.compiler.target import Target
from flambeau.tensor import dispatch
from flambeau.tensor.meta import TensorBase

__all__ = ["AARCH64", "RISCV64", "MACHINES", "Machine", "Recorded", "Recorder", "run"]


@dataclasses.dataclass(frozen=True)
class Machine:
    """A target, and how to link and run its programs.

    Attributes:
        broken: (pattern of instructions, the first major version of the emulator that runs them).
    """

    target: Target
    linker: str
    emulator: tuple[str, ...]
    broken: tuple[str, int] = ("", 0)

    @functools.cache  # noqa: B019 - there are two machines
    def unable(self) -> str:
        """The pattern of instructions that the emulator cannot run; empty if it runs all."""
        told = subprocess.run([self.emulator[0], "--version"], capture_output=True, text=True,
                              check=True).stdout
        major = int(re.search(r"version (\d+)", told)[1])
        return self.broken[0] if major < self.broken[1] else ""

    def missing(self) -> str:
        """What is not installed, or an empty string."""
        return " and ".join(word for word in (self.linker, self.emulator[0])
                            if shutil.which(word) is None)


AARCH64 = Machine(Target("aarch64-unknown-linux-gnu", "generic", "+neon,+fp-armv8", 128, 32),
                  "aarch64-linux-gnu-gcc", ("qemu-aarch64",))
RISCV64 = Machine(Target("riscv64-unknown-linux-gnu", "generic-rv64",
                         "+m,+a,+f,+d,+c,+v,+zvl128b", 128, 32),
                  "riscv64-linux-gnu-gcc", ("qemu-riscv64", "-cpu", "rv64,v=true,vlen=128"),
                  # qemu 7 ends itself at vector conversions with a rounding mode of their own
                  (r"\bvf[wn]?cvt\.(rtz|rod)\.", 8))
MACHINES = {"aarch64": AARCH64, "riscv64": RISCV64}


@dataclasses.dataclass
class Recorded:
    """One launch: what was computed from what.

    Attributes:
        label: which operation it came from.
        inputs: memory of each tensor argument (bytes from its first element), or the number.
        results: the host's results as dense arrays' bytes; `metas` their layouts.
    """

    label: str
    graph: object
    metas: tuple
    inputs: list
    result_metas: list
    results: list[bytes]


class Recorder:
    """An observer of dispatch that keeps every launch."""

    def __init__(self) -> None:
        self.launches: list[Recorded] = []
        self.label = ""

    def __enter__(self) -> Recorder:
        dispatch.observe(self)
        return self

    def __exit__(self, *error: object) -> None:
        dispatch.unobserve(self)

    def ran(self, launch, args, results) -> None:
        if any(v.prim.kind == "random" for v in launch.call.graph.order()):
            return  # a stream continues from the generator's state in this process
        self.launches.append(Recorded(
            self.label, launch.call.graph, launch.metas,
            [_memory(a) if isinstance(a, TensorBase) else a for a in args],
            [r._meta for r in results], [_memory(r) for r in results]))

    def created(self, tensor) -> None:
        """Nothing to note."""

    viewed = wrote = read = host = asked = unforeseen = lambda self, *args: None


def _span(meta) -> int:
    if meta.numel == 0:
        return 0
    reach = sum((n - 1) * s for n, s in zip(meta.shape, meta.strides, strict=True))
    return (reach + 1) * meta.dtype.itemsize


def _memory(tensor) -> bytes:
    return ctypes.string_at(tensor._ptr, _span(tensor._meta))


class _Batch:
    """Programs that run in one process of the emulator."""

    def __init__(self, machine: Machine):
        self.machine = machine
        self.kernels: dict[str, int] = {}
        self.texts: list[str] = []
        self.stream = [b""]
        self.count = 0

    def runs(self, planned: Plan) -> bool:
        """Whether the emulator knows all instructions of a program."""
        pattern = self.machine.unable()
        return not pattern or not any(
            re.search(pattern, compiler.emit_assembly(step.text(), self.machine.target, False))
            for step in planned.steps if step.name not in self.kernels)

    def add(self, one: Recorded, planned: Plan) -> None:
        buffers: list[bytes] = []
        place: dict[tuple[str, int], int] = {}
        for number, content in enumerate(one.inputs):
            if isinstance(content, bytes):
                place["in", number] = len(buffers)
                buffers.append(content)
        for number, meta in enumerate(one.result_metas):
            place["out", number] = len(buffers)
            buffers.append(b"\xcd" * _span(meta))
        place["arena", 0] = len(buffers)
        buffers += [b"\xcd" * planned.arena_bytes, bytes(16)]
        place["status", 0] = len(buffers) - 1
        parts = [_words(len(buffers))]
        for content in buffers:
            parts += [_words(len(content)), content]
        parts.append(_words(len(planned.steps)))
        for step in planned.steps:
            if step.name not in self.kernels:
                self.kernels[step.name] = len(self.texts)
                self.texts.append(step.text())
            parts.append(_words(self.kernels[step.name], step.nchunks, len(step.slots)))
            parts += [_words(*self._slot(slot, place, one)) for slot in step.slots]
        wanted = [place["out", n] for n in range(len(one.results))] + [place["status", 0]]
        parts += [_words(len(wanted)), _words(*wanted)]
        self.stream += parts
        self.count += 1

    @staticmethod
    def _slot(slot, place: dict, one: Recorded) -> tuple[int, int]:
        if isinstance(slot, Pointer):
            number = 0 if slot.kind in ("arena", "status") else slot.number
            return place[slot.kind, number], slot.offset
        if isinstance(slot, Number):
            value = one.inputs[slot.number]
            return -1, _bits(value) if isinstance(value, float) else int(value)
        return -1, _bits(slot.value) if isinstance(slot, Float) else int(slot)

    def run(self, folder: pathlib.Path) -> bytes:
        """Link, run, and return what the harness wrote."""
        objects = []
        for number, text in enumerate(self.texts):
            path = folder / f"{number}.o"
            path.write_bytes(compiler.compile_object(text, self.machine.target, jit=False))
            objects.append(str(path))
        names = list(self.kernels)
        table = folder / "table.c"
        table.write_text("typedef void (*kernel)(void *, int, int, int);\n" + "".join(
            f"void {name}(void *, int, int, int);\n" for name in names)
            + "const kernel kernels[] = {" + ", ".join(names) + "};\n")
        program = folder / "program"
        subprocess.run([self.machine.linker, "-O1", "-static", "-o", program,
                        pathlib.Path(__file__).with_name("harness.c"), table, *objects, "-lm"],
                       check=True, capture_output=True, text=True)
        done = subprocess.run([*self.machine.emulator, str(program)], input=_words(self.count)
                              + b"".join(self.stream), capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the emulated program ended with {done.returncode}: "
                               f"{done.stderr[-300:]!r}")
        return done.stdout


def _words(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}q", *[(n + 2**63) % 2**64 - 2**63 for n in numbers])


def _bits(value: float) -> int:
    return struct.unpack("<q", struct.pack("<d", value))[0]


def run(machine: Machine, launches: list[Recorded], folder: pathlib.Path
        ) -> list[tuple[Recorded, list[bytes]]]:
    """The results of `launches`, computed by `machine`; without what its emulator cannot run."""
    batch = _Batch(machine)
    able = []
    for one in launches:
        planned = plan(one.graph, buffers_for("in", one.metas),
                       buffers_for("out", one.result_metas), machine.target, 2)
        if batch.runs(planned):
            batch.add(one, planned)
            able.append(one)
    data = batch.run(folder)
    found, at = [], 0
    for one in able:
        parts = []
        for meta in one.result_metas:
            parts.append(data[at:at + _span(meta)])
            at += _span(meta)
        at += 16
        found.append((one, parts))
    return found


def as_array(memory: bytes, meta) -> np.ndarray:
    """Memory of a tensor as an array of its shape, in double precision where that is exact."""
    flat = np.frombuffer(memory, meta.dtype.numpy)
    steps = [stride * meta.dtype.itemsize for stride in meta.strides]
    array = np.lib.stride_tricks.as_strided(flat, tuple(meta.shape), steps) if meta.numel else (
        np.zeros(tuple(meta.shape)))
    wide = {"float16": np.float32, "bfloat16": np.float32}.get(meta.dtype.name)
    return array.astype(wide) if wide else array
