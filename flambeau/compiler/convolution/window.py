"""What windows read: the taps of a convolution along each dimension, known when code is generated.

A kernel computes a tile of neighbouring results at once. Along each dimension the tile is described
by one `Pattern`: for each of its positions the taps that contribute and the source position that
each reads, counted from the tile's first. A gradient of a strided convolution differs from a
forward one only here: its positions have different taps, and no tap ever reads an inserted zero.
"""

from __future__ import annotations

import dataclasses

from flambeau.compiler.convolution.finish import Finish
from flambeau.compiler.emitter import Function, Module, Value, Var
from flambeau.compiler.frame import Slots, kernel_function, thread_workspace
from flambeau.compiler.products.packing import Tile
from flambeau.compiler.target import Target

__all__ = ["Axis", "Frame", "GROUPED_SLOTS", "GroupedSpec", "Pattern", "grouped_tile",
           "kernel_name", "tile_height"]


@dataclasses.dataclass(frozen=True)
class Pattern:
    """The reads of `positions` neighbouring results.

    Attributes:
        reads: per position, pairs (tap, place): place counts source positions from the first one
            that the tile reads.
        extent: source positions from the first to the last that is read.
        low: what to add to the tile's own place in the source to reach the first one.
    """

    reads: tuple[tuple[tuple[int, int], ...], ...]
    extent: int
    low: int

    def at(self, place: int) -> list[tuple[int, int]]:
        """The pairs (position, tap) that read one source place."""
        return [(i, tap) for i, pairs in enumerate(self.reads) for tap, at in pairs if at == place]


@dataclasses.dataclass(frozen=True)
class Axis:
    """One dimension of a convolution.

    Attributes:
        kernel, stride, dilation: as in PyTorch.
        backward: results are the input's gradient: position y reads (y + padding - tap * dilation)
            / stride where that is whole, instead of y * stride - padding + tap * dilation.
        residue: padding modulo stride, if backward.
    """

    kernel: int
    stride: int
    dilation: int
    backward: bool = False
    residue: int = 0

    @property
    def unit(self) -> int:
        """Tiles of results begin at multiples of this."""
        return self.stride if self.backward else 1

    def pattern(self, positions: int) -> Pattern:
        """The reads of a tile of `positions` results (a multiple of `unit`)."""
        reads = []
        for i in range(positions):
            pairs = []
            for tap in range(self.kernel):
                if not self.backward:
                    pairs.append((tap, i * self.stride + tap * self.dilation))
                    continue
                place = i + self.residue - tap * self.dilation
                if place % self.stride == 0:
                    pairs.append((tap, place // self.stride))
            reads.append(pairs)
        places = [place for pairs in reads for _, place in pairs] or [0]
        low = min(places)
        moved = tuple(tuple((tap, place - low) for tap, place in pairs) for pairs in reads)
        return Pattern(moved, max(places) - low + 1, low)

    def base(self, padding: int, low: int) -> int:
        """Source position of a tile at 0: to this comes its own position, scaled by `scaled`."""
        return low + (padding // self.stride if self.backward else -padding)


# ---------------------------------------------------------------------- kernels of windows
_POINTERS = ("source", "weight", "result", "bias", "work")
GROUPED_SLOTS = (
    *_POINTERS, "work_stride", "n", "channels", "source_channels",
    "source_n", "source_c", "source_y", "source_x", "result_n", "result_c", "result_y", "result_x",
    "weight_group", "weight_result", "weight_source", "weight_y", "weight_x", "bias_stride",
    "in_y", "in_x", "out_y", "out_x", "base_y", "base_x", "bands", "band", "segments", "segment")


@dataclasses.dataclass(frozen=True)
class GroupedSpec:
    """What is fixed when a kernel is compiled.

    Attributes:
        dtype_llvm: "float" or "double".
        lanes: "channels" or "columns".
        weights: the weight's gradient is wanted: `result` is then the output's gradient, read, and
            `weight` is written. Else `result` is written (output, or gradient of the input).
        rows, columns: the window's two dimensions.
        inner: channels of the source in each group; `outer`: of the result.
        bias: the result gets bias[channel] added.
        narrow: for fewer channels of the result than lanes.
        height: rows of a tile of columns.
    """

    dtype_llvm: str
    lanes: str
    weights: bool
    rows: Axis
    columns: Axis
    inner: int = 1
    outer: int = 1
    bias: bool = False
    narrow: bool = False
    height: int = 4

    @property
    def name(self) -> str:
        axes = "_".join(f"{a.kernel}s{a.stride}d{a.dilation}" + (f"r{a.residue}" if a.backward
                                                                else "")
                        for a in (self.rows, self.columns))
        kind = "weights" if self.weights else "input" if self.rows.backward else "forward"
        return (f"conv_{self.lanes}_{kind}_{self.dtype_llvm}_{axes}_{self.inner}to{self.outer}"
                + "_bias" * self.bias
                + "_narrow" * self.narrow + f"_{self.height}")


def kernel_name(spec: GroupedSpec, finish: Finish | None) -> str:
    """The kernel's name; `finish` is what it does with its results."""
    return spec.name if finish is None else f"{spec.name}_{finish.epilogue.name}"


def grouped_tile(spec: GroupedSpec, target: Target) -> tuple[int, int]:
    """(rows, columns or vectors of columns) of the tile of results in registers."""
    wide = target.registers >= 32
    y, x = spec.rows.unit, spec.columns.unit
    flat = spec.rows.kernel == 1 and spec.rows.stride == 1  # rows share nothing: a signal, perhaps
    if spec.lanes == "columns":
        rows = 1 if flat else spec.height if wide else 2
        if x > 1 or spec.outer > 1 and not spec.weights:
            rows = min(rows, 2)
        return -(-rows // y) * y, x
    rows = 1 if flat else 2
    columns = (8 if flat else 4) if wide else 2
    if spec.inner * spec.rows.kernel * spec.columns.kernel > 100:
        columns = max(1, columns // 2)
    return -(-rows // y) * y, -(-columns // x) * x


def tile_height(rows: int, axis: Axis) -> int:
    """Rows of a tile of columns: the least work for images of `rows`, by what is loaded and
    multiplied. A window's rows are loaded once for the tile."""
    def work(height: int) -> float:
        loads = (height - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1
        return -(-rows // height) * (loads + height * axis.kernel / 2 + 2)

    return min((4, 5, 6, 7, 8), key=work)


class Frame:
    """What the functions of one kernel have in common: module, sizes of the tile, its reads."""

    def __init__(self, module: Module, tile: Tile, spec: GroupedSpec, rows: int, columns: int,
                 target: Target, finish: Finish | None = None):
        self.finish = finish
        self.module, self.tile, self.spec, self.target = module, tile, spec, target
        self.rows, self.columns = rows, columns
        self.y, self.x = spec.rows.pattern(rows), spec.columns.pattern(columns)
        self.taps = spec.rows.kernel * spec.columns.kernel

    def kernel(self) -> tuple[Function, Slots, Value]:
        """Open the kernel: (function, slots, this thread's workspace)."""
        f = kernel_function(self.module, kernel_name(self.spec, self.finish))
        slot = Slots(f, GROUPED_SLOTS, _POINTERS)
        return f, slot, thread_workspace(f, slot["work"], slot["work_stride"])

    def helper(self, name: str, args: list[tuple[str, str]]) -> tuple[Function, dict[str, Value]]:
        """Open a function of the kernel; its first argument is `args`, the slots, which it reads
        before anything else: what is stored later cannot change them."""
        f = self.module.function(name, [("ptr noalias", "args"), *args], internal=True)
        slot = Slots(f, GROUPED_SLOTS, _POINTERS)
        return f, {name: slot[name] for name in GROUPED_SLOTS}

    def scaled(self, f: Function, axis: Axis, place: Value) -> Value:
        """Where the tile at `place` begins in the source, but for the base."""
        if axis.backward:
            return f.udiv(place, axis.stride)
        return f.mul(place, axis.stride)

    def settle(self, f: Function, sums: list[Var]) -> None:
        """Let all of these sums be up to date here: no code, but a line that LLVM's scheduler does
        not carry multiplications across. Else it finishes one sum after the other, each waiting
        for its own last step, and the machine's window is too small to see the next one."""
        register = _register_letter(self.target)
        if register is None or len(sums) < 2:
            return
        type_ = sums[0].type
        given = ", ".join(str(total.get()) for total in sums)
        ties = ",".join([f"={register}"] * len(sums) + [str(i) for i in range(len(sums))])
        results = f"{{ {', '.join([type_] * len(sums))} }}"
        value = f.emit(results, f'call {results} asm "", "{ties}"({given})')
        for number, total in enumerate(sums):
            total.set(f.emit(type_, f"extractvalue {results} {value.name}, {number}"))


def _register_letter(target: Target) -> str | None:
    """How inline assembly asks for a vector register."""
    if target.triple.startswith(("x86_64", "i686", "i386")):
        return "v" if target.vector_bits == 512 else "x"
    return "w" if target.triple.startswith("aarch64") else None
