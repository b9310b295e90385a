"""Scheduling: a graph of primitives -> a list of steps over buffers.

Elementwise and movement primitives are inlined into the loop nests that read them. Reductions,
contractions, scatters and concatenations get buffers of their own, and so does what several nests
read and would be dear to compute twice. The result is concrete: `program.py` turns it into kernels.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence

from flambeau.compiler.convolution.low import dot_engine
from flambeau.compiler.convolution.matrix import fits_low, pixel_strides
from flambeau.compiler.expression import Buffer, Expr, Index, loop_index
from flambeau.compiler.factorizations.placing import place_factor
from flambeau.compiler.memory_order import (
    channels_last_values,
    reordered_values,
    strides_in_order,
)
from flambeau.compiler.narrow import narrow_images, narrow_operands
from flambeau.compiler.nest import Loop, Phase, normalise, walk
from flambeau.compiler.pooling.layout import fits_pool, pool_strides, runs_last
from flambeau.compiler.ranges import lies_inside
from flambeau.compiler.reshapes import only_unit_dims, seen_through, split_index
from flambeau.compiler.rewriting import rewritten
from flambeau.compiler.shared_values import LARGE, has_buffer, shared_values
from flambeau.compiler.target import Target
from flambeau.core import dtypes
from flambeau.core.dtypes import DType
from flambeau.core.shapes import contiguous_strides, dense_order, is_contiguous, one_stride
from flambeau.ir.graph import Graph, Value, constant, sort
from flambeau.ops.primitives.structure import coordinates, expand

__all__ = ["Choices", "LibraryStep", "Schedule", "choices_of", "schedule"]


@dataclasses.dataclass
class LibraryStep:
    """A contraction done by a generated library kernel.

    Attributes:
        kind: "dot", "conv", "conv_grad_input", "conv_grad_weight", "argsort", or a random stream.
        attrs: the primitive's static attributes.
        sources: operand buffers; `target`: the result's buffer.
        epilogue: elementwise phases that run on each finished part of the result (`fusing.py`).
        private: whether only the epilogue reads the result: it need not be stored at all.
        results: of a joint primitive: all results by number, None for those that nobody wants.
        ready: the epilogue as a kernel takes it, with its slots, if that is known.
    """

    kind: str
    attrs: tuple
    sources: tuple[Buffer, ...]
    target: Buffer
    epilogue: tuple[Phase, ...] = ()
    private: bool = False
    results: tuple[Buffer | None, ...] = ()
    ready: tuple | None = None


@dataclasses.dataclass
class Schedule:
    """Steps in order, the temporaries they need, and what buffers hold, by (kind, number)."""

    steps: list[Phase | LibraryStep]
    temps: list[Buffer]
    values: dict[tuple[str, int], Value] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Choices:
    """What is decided by looking at a whole program.

    Attributes:
        graph: the program.
        order: its values, as it was written down: a gradient's products follow what they are
            computed from, so that little is alive at any time.
        channels_last: images that are stored pixel by pixel.
        reordered: strides of elementwise values that are not row-major, wherever they are stored.
        shared: inlined values that are stored; `readers`: the numbers of the stored values that are
            computed from each value.
        dots: are there instructions for bfloat16?
    """

    graph: Graph
    order: list[Value]
    channels_last: set[Value]
    reordered: dict[Value, tuple[int, ...]]
    shared: set[Value]
    readers: dict[Value, set[int]]
    dots: bool

    def strides(self, value: Value) -> tuple[int, ...]:
        """How a value lies in memory of its own."""
        last = value in self.channels_last or self.is_low(value) and value.ndim == 4
        if not last and value in self.reordered:
            return self.reordered[value]
        return strides_in_order(value.shape, last)

    def is_low(self, value: Value) -> bool:
        """Is it a convolution whose kernel reads bfloat16 itself?"""
        return self.dots and value.prim.kind == "conv" and narrow_images(value) is not None


def choices_of(graph: Graph, inputs: Sequence[Buffer | None], effects: Sequence[Value],
               target: Target | None) -> Choices:
    """The choices for a program; arguments as of `schedule`."""
    order = sort([*graph.outputs, *effects])
    strides = {value: buffer.strides for value, buffer in zip(graph.inputs, inputs, strict=True)
               if buffer is not None}
    last = channels_last_values(order, strides)
    shared, readers = shared_values(order, graph.outputs, last)
    dots = target is not None and dot_engine(target) is not None
    return Choices(graph, order, last, reordered_values(order, strides), shared, readers, dots)


def schedule(graph: Graph, inputs: Sequence[Buffer | None], outputs: Sequence[Buffer],
             aliases: Mapping[int, int] | None = None, effects: Sequence[Value] = (),
             target: Target | None = None, choices: Choices | None = None) -> Schedule:
    """Schedule `graph`; `inputs` binds placeholders (None: a number), `outputs` the results.

    `aliases` maps the number of an output to that of the input whose memory it overwrites. Such
    outputs are stored last, and through a temporary where something still has to read the input.
    `effects` are values that must be computed even if nobody reads them (random streams move on).
    `target` tells whether there are instructions for bfloat16; without it there are none.
    `choices` are those for the program that `graph` is, or is a piece of.
    """
    choices = choices or choices_of(graph, inputs, effects, target)
    return _Scheduler(graph, inputs, effects, choices).run(outputs, aliases or {})


class _Scheduler:
    def __init__(self, graph: Graph, inputs: Sequence[Buffer | None],
                 effects: Sequence[Value], choices: Choices):
        self.graph, self.choices = graph, choices
        self.whole = graph is choices.graph
        self.order = choices.order if self.whole else sort([*graph.outputs, *effects], graph.inputs)
        self.placed: dict[Value, Buffer] = {}
        self.numbers: dict[Value, int] = {}
        for position, (value, buffer) in enumerate(zip(graph.inputs, inputs, strict=True)):
            if buffer is None:
                self.numbers[value] = position
            else:
                self.placed[value] = buffer
        self.steps: list[Phase | LibraryStep] = []
        self.temps: list[Buffer] = []
        self.vars = 0
        self.memo: dict = {}
        self.readers = choices.readers
        self.joint: dict[tuple, list[Value]] = defaultdict(list)  # results of the same kernels
        for value in self.order:
            if value.prim.kind == "joint":
                self.joint[value.prim, value.inputs].append(value)

    # ------------------------------------------------------------------ what gets a buffer
    def _bring_into_order(self) -> None:
        """Copy images that several phases read beside images of the other memory format: each of
        those would have to go across the lanes."""
        images = [value for value in self.graph.inputs if value in self.placed and value.ndim == 4
                  and value.numel >= LARGE and len(self.readers.get(value, ())) > 1]
        channels_last = self.choices.channels_last
        last = {value.shape for value in images if value in channels_last}
        for value in images:
            buffer = self.placed[value]
            if value.shape in last and value not in channels_last \
                    and buffer.strides == contiguous_strides(value.shape):
                copy = self._ordered(value, strides_in_order(value.shape, True))
                self._copy(buffer, copy)
                self.placed[value] = copy
                channels_last.add(value)

    def run(self, outputs: Sequence[Buffer], aliases: Mapping[int, int]) -> Schedule:
        if not aliases and self.whole:
            self._bring_into_order()
        pairs = list(zip(self.graph.outputs, outputs, strict=True))
        early = [pair for number, pair in enumerate(pairs) if number not in aliases]
        self.final: dict[Value, Buffer] = {}
        for value, buffer in early:
            if value not in self.final and value not in self.placed and value not in self.numbers:
                self.final[value] = buffer
        known = {*self.final, *self.placed, *self.numbers}
        self.final |= seen_through(self.final, known)
        self.rewritten = rewritten(pairs, aliases, self.placed)
        waiting = self._waiting({pairs[number][0] for number in aliases})
        for value in self.order:
            if value not in self.placed and (value in self.final or self._is_stored(value)
                                             and value not in waiting):
                self.place(value)
        for value, buffer in early:
            if self.final.get(value) is not buffer:
                self._emit_map(value, buffer)  # an input, or one result in two places
        self._store_late([(*pairs[number], source) for number, source in aliases.items()])
        values = {(b.kind, b.number): value for value, b in self.placed.items()}
        values |= {("out", buffer.number): value for value, buffer in pairs}
        return Schedule(self.steps, self.temps, values)

    def _waiting(self, updates: set[Value]) -> set[Value]:
        """The updates of inputs that need no memory but the input's: nobody reads them except other
        updates, which come after everything else."""
        serials = {-1 - value.serial for value in updates}
        return {value for value in updates if value in self.rewritten or not has_buffer(value)
                and self.readers.get(value, set()) <= serials}

    def _store_late(self, updates: list[tuple[Value, Buffer, int]]) -> None:
        """Overwrite inputs, after everything else.

        An update that would read an input which another one has overwritten, or its own at another
        place, is computed into a temporary before them all.
        """
        before = len(self.steps), dict(self.placed), dict(self.final), len(self.temps)
        staged: list[int] = []
        while True:
            conflict = self._try_updates(updates, staged)
            if conflict is None:
                return
            staged.append(conflict)
            steps, self.placed, self.final, temps = (before[0], dict(before[1]), dict(before[2]),
                                                     before[3])
            del self.steps[steps:]
            del self.temps[temps:]
            self.memo.clear()

    def _try_updates(self, updates: list[tuple[Value, Buffer, int]], staged: list[int]
                     ) -> int | None:
        """Emit the updates, `staged` ones through temporaries; gives the first that conflicts."""
        copies = []
        for number in staged:
            value, buffer, _ = updates[number]
            if value in self.rewritten:
                self.place(value)
            temp = self.temporary(value)
            self._emit_map(value, temp, root=value not in self.placed
                           and value not in self.numbers)
            self.placed.setdefault(value, temp)
            copies.append((temp, buffer))
        overwritten: set[int] = set()
        for number, (value, buffer, source) in enumerate(updates):
            if number in staged:
                continue
            first = len(self.steps)
            if value in self.placed or value in self.numbers:
                self._emit_map(value, buffer)
            else:
                self.final[value] = buffer
                self.place(value)
            known = overwritten | {source} if value in self.rewritten else overwritten
            if any(_conflicts(step, source, known) for step in self.steps[first:]):
                return number
            overwritten.add(source)
        for temp, buffer in copies:
            self._copy(temp, buffer)
        return None

    def _is_stored(self, value: Value) -> bool:
        return has_buffer(value) or value in self.choices.shared

    def new_var(self) -> int:
        self.vars += 1
        return self.vars

    def temporary(self, value: Value) -> Buffer:
        return self._ordered(value, contiguous_strides(value.shape))

    def place(self, value: Value) -> Buffer:
        """The buffer that holds `value`, computing it if need be."""
        if value in self.placed:
            return self.placed[value]
        buffer = self.final.get(value) or self._ordered(value, self.choices.strides(value))
        rule = getattr(self, f"_place_{value.prim.kind}", self._place_map)
        rule(value, buffer)
        self.placed[value] = buffer
        return buffer

    def view(self, value: Value) -> Buffer:
        """`value` as a strided buffer: a view of one that exists if possible."""
        found = self._try_view(value)
        if found is not None:
            return found
        if value.prim.kind == "movement":
            base = value
            while base.prim.kind == "movement":
                base = base.inputs[0]
            if base.prim.kind != "source":
                self.place(base)
                found = self._try_view(value)
                if found is not None:
                    return found
        return self.place(value)

    def _try_view(self, value: Value) -> Buffer | None:
        if value in self.placed:
            return self.placed[value]
        if value.prim.kind != "movement":
            return None
        base = self._try_view(value.inputs[0])
        if base is None:
            return None
        if value.prim.name == "as_strided":  # it counts the elements of its base
            evenly = (0, 1) if 0 in base.shape else one_stride(base.shape, base.strides)
            return None if evenly is None else _strided(base, value, evenly[1])
        found = value.prim.layout(base.shape, base.strides, base.offset, value.attrs, value.shape)
        if found is None:
            return None
        strides, offset = found
        return base.seen_as(value.shape, strides, offset)

    # ------------------------------------------------------------------ phases
    def _loops(self, shape: Sequence[int]) -> list[Loop]:
        return [Loop(self.new_var(), size) for size in shape]

    def _phase(self, kept: list[Loop], reduced: list[Loop], value: Expr, target: Buffer,
               where: Index, **more) -> None:
        if any(loop.extent == 0 for loop in kept):
            return
        phase = Phase([], [], None, value, target, where, **more)
        self.steps.append(normalise(kept, reduced, phase))

    def _place_map(self, value: Value, buffer: Buffer) -> None:
        self._emit_map(value, buffer, root=True)

    def _emit_map(self, value: Value, buffer: Buffer, root: bool = False) -> None:
        loops = self._loops(value.shape)
        index = tuple(loop_index(loop.var) for loop in loops)
        expr = self.compute(value, index, ()) if root else self.read(value, index, ())
        self._phase(loops, [], expr, buffer, buffer.index(index))

    _place_elementwise = _place_spread = _place_source = _place_map

    def _place_movement(self, value: Value, buffer: Buffer) -> None:
        shown = self.final.get(value.inputs[0])
        if shown is None or (shown.kind, shown.number) != (buffer.kind, buffer.number):
            self._place_map(value, buffer)
        else:
            self.place(value.inputs[0])  # its elements end up there: see seen_through

    def _place_reduce(self, value: Value, buffer: Buffer) -> None:
        (x,), dims = value.inputs, value.attrs[0]
        loops = self._loops(x.shape)
        index = tuple(loop_index(loop.var) for loop in loops)
        kept = [loop for d, loop in enumerate(loops) if d not in dims]
        reduced = [loop for d, loop in enumerate(loops) if d in dims]
        rule = value.prim.name.removeprefix("reduce_")
        position = None
        if rule.startswith("arg"):
            spot, step = Index({}), 1
            for loop in reversed(reduced):
                spot = spot.plus(loop_index(loop.var).scaled(step))
                step *= loop.extent
            position = Expr("index", dtypes.int64, (), spot)
        where = buffer.index(loop_index(loop.var) for loop in kept)
        self._phase(kept, reduced, self.read(x, index, ()), buffer, where, reduce=rule,
                    position=position)

    def _place_scan(self, value: Value, buffer: Buffer) -> None:
        *factors, x = value.inputs
        dim, reverse = value.attrs
        if not x.numel:
            return
        loops = self._loops(x.shape)
        index = [loop_index(loop.var) for loop in loops]
        if reverse:
            index[dim] = index[dim].scaled(-1).shifted(x.shape[dim] - 1)
        rule = value.prim.name.removeprefix("cum")
        position = Expr("index", dtypes.int64, (), index[dim]) if rule.startswith("arg") else None
        if factors:
            position = self.read(factors[0], tuple(index), ())
        kept = loops[:dim] + loops[dim + 1:]
        self._phase(kept, [loops[dim]], self.read(x, tuple(index), ()), buffer, buffer.index(index),
                    reduce=f"scan_{rule}", position=position)

    def _place_fold(self, value: Value, buffer: Buffer) -> None:
        kernel, stride, dilation, shape = value.attrs
        rank = len(kernel)
        if all(k <= s and d == 1 for k, s, d in zip(kernel, stride, dilation, strict=True)):
            self._fold_apart(value, buffer)
            return
        classes = [_residues(*axis) for axis in zip(kernel, stride, dilation, strict=True)]
        lead = self._loops(shape[:-rank])
        for axes in itertools.product(*classes):
            self._fold_residue(value, buffer, lead, axes)

    def _fold_apart(self, value: Value, buffer: Buffer) -> None:
        """Windows that do not overlap: every element has its own place, the rest is 0."""
        (x,), (kernel, stride, _, shape) = value.inputs, value.attrs
        rank = len(kernel)
        blocks = x.shape[-2 * rank:-rank]
        if kernel != stride or any(o * s != size for o, s, size in zip(
                blocks, stride, shape[-rank:], strict=True)):
            self._emit_map(expand(constant(0, value.dtype, number=False), shape), buffer)
        loops = self._loops(x.shape)
        index = tuple(loop_index(loop.var) for loop in loops)
        lead = len(index) - 2 * rank
        place = [index[lead + d].scaled(stride[d]).plus(index[lead + rank + d])
                 for d in range(rank)]
        self._phase(loops, [], self.read(x, index, ()), buffer,
                    buffer.index([*index[:lead], *place]))

    def _fold_residue(self, value: Value, buffer: Buffer, lead: list[Loop], axes) -> None:
        """The places q * stride + residue of a fold: a fixed set of taps reaches them, tap j from
        window q - first - j * step."""
        (x,), (kernel, stride, _, shape) = value.inputs, value.attrs
        rank = len(kernel)
        sizes = [max(0, -(-(size - axis.residue) // s)) for size, axis, s in zip(
            shape[-rank:], axes, stride, strict=True)]
        kept, reduced = self._loops(sizes), self._loops([axis.count for axis in axes])
        places, taps, blocks, conditions = [], [], [], []
        for d, axis in enumerate(axes):
            q, j = loop_index(kept[d].var), loop_index(reduced[d].var)
            places.append(q.scaled(stride[d]).shifted(axis.residue))
            taps.append(j.scaled(axis.tap_step).shifted(axis.tap))
            block = q.shifted(-axis.first).plus(j.scaled(-axis.step))
            blocks.append(block)
            conditions.append(Expr("inside", dtypes.bool_, (), (block, x.shape[d - 2 * rank])))
        front = [loop_index(loop.var) for loop in lead]
        where = buffer.index([*front, *places])
        if not all(axis.count for axis in axes):
            self._phase(lead + kept, [], Expr("const", value.dtype, (), 0), buffer, where)
            return
        inside = tuple(conditions)
        expr = self._where(inside, self.read(x, (*front, *blocks, *taps), inside), 0)
        self._phase(lead + kept, reduced, expr, buffer, where, reduce="sum")

    def _place_cat(self, value: Value, buffer: Buffer) -> None:
        dim, start = value.attrs[0], 0
        for part in value.inputs:
            piece = buffer.seen_as(part.shape, buffer.strides,
                                   buffer.offset + start * buffer.strides[dim])
            start += part.shape[dim]
            self._emit_map(part, piece)

    def _place_scatter(self, value: Value, buffer: Buffer) -> None:
        base, source, *indices = value.inputs
        pattern, mode = value.attrs
        if self.rewritten.get(value) is not buffer:
            self._emit_map(base, buffer)
        if not base.numel:
            buffer = self._stand_in(base)
        loops = self._loops(source.shape)
        index = tuple(loop_index(loop.var) for loop in loops)
        place = self._coordinates(pattern, indices, base.shape, index, ())
        free = frozenset(loops[coord].var for coord in pattern if coord is not None)
        self._phase(loops, [], self.read(source, index, ()), buffer, buffer.index(place), mode=mode,
                    free=free)

    def _stand_in(self, value: Value) -> Buffer:
        """Memory for accesses to an empty `value`: every index is an error, which the kernel only
        reports when it is through."""
        return self._scratch(value.dtype, [max(1, size) for size in value.shape])

    def _scratch(self, dtype: DType, shape: Sequence[int]) -> Buffer:
        """Memory for a while, row-major."""
        buffer = Buffer("temp", len(self.temps), dtype, tuple(shape), contiguous_strides(shape))
        self.temps.append(buffer)
        return buffer

    def _place_dot(self, value: Value, buffer: Buffer) -> None:
        operands = narrow_operands(value) or value.inputs
        self._library(value, tuple(self._matrix(operand) for operand in operands), buffer)

    def _place_random(self, value: Value, buffer: Buffer) -> None:
        self._library(value, tuple(self.view(operand) for operand in value.inputs), buffer)

    def _place_conv(self, value: Value, buffer: Buffer) -> None:
        if not self.choices.is_low(value):
            self._place_random(value, buffer)
            return
        sources = [self.view(operand) for operand in narrow_images(value)]
        weights = value.prim.name == "conv_grad_weight"
        for number, source in enumerate(sources[:2]):
            if not fits_low(source.shape, source.strides, number == 1 and not weights):
                sources[number] = self._ordered(value.inputs[number], pixel_strides(source.shape),
                                                source.dtype)
                self._copy(source, sources[number])
        target = buffer
        if not fits_low(buffer.shape, buffer.strides, False):
            target = self._ordered(value, pixel_strides(value.shape))
        self._library(value, tuple(sources), target)
        if target is not buffer:
            self._copy(target, buffer)

    def _place_sort(self, value: Value, buffer: Buffer) -> None:
        if value.prim.name != "argsort" or not self._sorted_once(value, buffer):
            self._library(value, tuple(self._dense(operand) for operand in value.inputs), buffer)

    def _sorted_once(self, value: Value, buffer: Buffer) -> bool:
        """Sort what an expanded operand repeats: equal rows once, rows of one element not at
        all. False if nothing is repeated."""
        (x,), (_, _, first) = value.inputs, value.attrs
        source = self.view(x)
        again = [type(step) is int and step == 0 and (type(size) is not int or size > 1)
                 for size, step in zip(source.shape, source.strides, strict=True)]
        if again[-1]:
            loops = self._loops(value.shape)
            index = [loop_index(loop.var) for loop in loops]
            place = Expr("index", dtypes.int64, (), index[-1].shifted(first))
            self._phase(loops, [], place, buffer, buffer.index(index))
        elif any(again):
            shape = [1 if same else size for size, same in zip(source.shape, again, strict=True)]
            rows = self._made_dense(source.seen_as(shape, source.strides, source.offset))
            found = self._scratch(value.dtype, [*shape[:-1], value.shape[-1]])
            self.steps.append(LibraryStep("argsort", value.attrs, (rows,), found))
            steps = [0 if same else step for step, same in zip(found.strides, again, strict=True)]
            self._copy(found.seen_as(value.shape, steps, 0), buffer)
        return any(again)

    def _dense(self, value: Value) -> Buffer:
        """An operand in row-major order."""
        return self._made_dense(self.view(value))

    def _made_dense(self, source: Buffer) -> Buffer:
        if is_contiguous(source.shape, source.strides):
            return source
        dense = self._scratch(source.dtype, source.shape)
        self._copy(source, dense)
        return dense

    def _place_joint(self, value: Value, buffer: Buffer) -> None:
        """All wanted results of one kernel. Its operands have contiguous rows, unless it takes
        all strides."""
        found: dict[int, tuple[Value, Buffer]] = {value.attrs[-1]: (value, buffer)}
        for other in self.joint[value.prim, value.inputs]:
            if other.attrs[:-1] == value.attrs[:-1] and other.attrs[-1] not in found:
                where = self.final.get(other) or self.temporary(other)
                found[other.attrs[-1]] = other, where
        read = value.inputs[getattr(value.attrs[0], "unread", 0):]
        laid_out = self.view if value.prim.any_order else self._rows
        strided = len(read) - value.prim.dense
        sources = (*map(laid_out, read[:strided]), *map(self._dense, read[strided:]))
        results: list[Buffer | None] = [None] * value.prim.results
        for number, (member, where) in found.items():
            dense = where.strides == contiguous_strides(where.shape)
            results[number] = where if dense else self.temporary(member)
        self.steps.append(LibraryStep(value.prim.name, value.attrs, sources,
                                      results[value.attrs[-1]], results=tuple(results)))
        for number, (member, where) in found.items():
            if results[number] is not where:
                self._copy(results[number], where)
            self.placed[member] = where

    def _place_fourier(self, value: Value, buffer: Buffer) -> None:
        from flambeau.compiler.fourier.placing import place_fourier

        place_fourier(self, value, buffer, LibraryStep)

    def _place_factor(self, value: Value, buffer: Buffer) -> None:
        place_factor(self, value, buffer, LibraryStep)

    def _rows(self, value: Value) -> Buffer:
        """`value` as a buffer with contiguous rows."""
        buffer = self.view(value)
        if buffer.strides[-1:] == (1,) or buffer.shape[-1:] in ((), (1,)):
            return buffer
        dense = self.temporary(value)
        self._copy(buffer, dense)
        return dense

    def _place_pool(self, value: Value, buffer: Buffer) -> None:
        """All images of a pooling kernel have contiguous rows, or contiguous channels."""
        self._place_images(value, buffer, len(value.attrs[0].out), len(value.inputs))

    def _place_resize(self, value: Value, buffer: Buffer) -> None:
        self._place_images(value, buffer, 2, 1)

    def _place_images(self, value: Value, buffer: Buffer, rank: int, images: int) -> None:
        """A kernel whose first `images` operands and result have `rank` dimensions that slide;
        the other operands are tables."""
        if not value.numel:
            return
        given = list(value.inputs)
        if not value.prim.name.endswith("_back"):
            given[:images] = [self._unwidened(v) for v in given[:images]]
        sources = [self.view(v) for v in given]
        last = runs_last(sources[images - 1], rank)
        for number, source in enumerate(sources):
            order = contiguous_strides(source.shape) if number >= images else (
                source.strides if fits_pool(source, rank, last) else
                pool_strides(source.shape, rank, last))
            if source.strides != order:
                sources[number] = self._ordered(given[number], order)
                self._copy(source, sources[number])
        order = pool_strides(value.shape, rank, last)
        target = buffer if fits_pool(buffer, rank, last) else self._ordered(value, order)
        self.steps.append(LibraryStep(value.prim.name, value.attrs, tuple(sources), target))
        if target is not buffer:
            self._copy(target, buffer)

    def _unwidened(self, value: Value) -> Value:
        """What a kernel that widens 16-bit floats itself may read in place of `value`."""
        narrow = value.prim.name == "cast" and value.inputs[0].dtype.is_reduced
        if narrow and value.dtype is dtypes.float32 and value not in self.placed:
            return value.inputs[0]
        return value

    def _ordered(self, value: Value, strides: Sequence[int], dtype: DType | None = None) -> Buffer:
        buffer = Buffer("temp", len(self.temps), dtype or value.dtype, value.shape, tuple(strides))
        self.temps.append(buffer)
        return buffer

    def _library(self, value: Value, sources: tuple[Buffer, ...], buffer: Buffer) -> None:
        if not value.numel:
            return
        dense = buffer.strides == contiguous_strides(buffer.shape)
        if value.prim.kind == "conv":
            dense = dense_order(buffer.shape, buffer.strides) is not None
        target = buffer if dense else self.temporary(value)
        self.steps.append(LibraryStep(value.prim.name, value.attrs, sources, target))
        if not dense:
            self._copy(target, buffer)

    def _matrix(self, value: Value) -> Buffer:
        """An operand of `dot`: its batch dimensions must collapse into one."""
        buffer = self.view(value)
        if batch_stride(buffer) is not None:
            return buffer
        copy = self.temporary(value)
        loops = self._loops(value.shape)
        index = tuple(loop_index(loop.var) for loop in loops)
        load = Expr("load", buffer.dtype, (), (buffer, buffer.index(index), ()))
        self._phase(loops, [], load, copy, copy.index(index))
        return copy

    # ------------------------------------------------------------------ expressions
    def read(self, value: Value, index: tuple[Index, ...], conditions: tuple[Expr, ...]) -> Expr:
        """`value` at `index`: from its buffer if it has one, else computed in place."""
        buffer = self._try_view(value)
        if buffer is None and self._is_stored(value):
            buffer = self.place(value)
        if buffer is not None:
            return Expr("load", buffer.dtype, (), (buffer, buffer.index(index), conditions))
        return self.compute(value, index, conditions)

    def compute(self, value: Value, index: tuple[Index, ...], conditions: tuple[Expr, ...]) -> Expr:
        key = (value, index, conditions)
        if key not in self.memo:
            rule = getattr(self, f"_compute_{value.prim.kind}")
            self.memo[key] = rule(value, index, conditions)
        return self.memo[key]

    def _compute_elementwise(self, value: Value, index, conditions) -> Expr:
        args = tuple(self.read(operand, index, conditions) for operand in value.inputs)
        if conditions and value.prim.name in ("idiv", "irem"):
            args = args[0], self._where(conditions, args[1], 1)  # what is not there is no error
        if value.prim.name == "cast":
            return Expr("cast", value.dtype, args)
        if value.prim.name in ("stop_gradient", "copy", "boundary", "in_memory"):
            return args[0]
        return Expr("op", value.dtype, args, value.prim)

    def _compute_source(self, value: Value, index, conditions) -> Expr:
        if value.prim.name == "constant":
            return Expr("const", value.dtype, (), value.attrs[0])
        if value.prim.name == "iota":
            return Expr("index", value.dtype, (), index[value.attrs[1]])
        if value in self.numbers:
            return Expr("number", value.dtype, (), (self.numbers[value], value.dtype.name))
        raise AssertionError(f"{value!r} is not bound to a buffer")

    def _compute_movement(self, value: Value, index, conditions) -> Expr:
        if value.prim.name == "reshape":
            split = split_index(value, index)
            if split is not None:
                return self.read(value.inputs[0], split, conditions)
        if value.prim.name == "as_strided" or (
                value.prim.name == "reshape" and not only_unit_dims(value)):
            buffer = self.view(value.inputs[0])
            if self._try_view(value) is None:  # the base is strided: make it contiguous
                base = value.inputs[0]
                self.placed.pop(base, None)
                copy = self.temporary(base)
                self._copy(buffer, copy)
                self.placed[base] = copy
            return self.read(value, index, conditions)
        (x,) = value.inputs
        if not index and value.prim.name == "reshape":  # one element: no index to start from
            return self.read(x, (Index({}),) * x.ndim, conditions)
        return self.read(x, tuple(value.prim.index_map(value, index)), conditions)

    def _copy(self, source: Buffer, target: Buffer) -> None:
        loops = self._loops(source.shape)
        index = tuple(loop_index(loop.var) for loop in loops)
        load = Expr("load", source.dtype, (), (source, source.index(index), ()))
        self._phase(loops, [], load, target, target.index(index))

    def _compute_spread(self, value: Value, index, conditions) -> Expr:
        if not value.inputs[0].numel:
            return Expr("const", value.dtype, (), value.attrs[3])
        position, inside = value.prim.index_map(value, index)
        both = conditions + tuple(inside)
        inner = self.read(value.inputs[0], tuple(position), both)
        return self._where(tuple(inside), inner, value.attrs[3])

    def _where(self, conditions: tuple[Expr, ...], value: Expr, fill: float) -> Expr:
        from flambeau.ops.primitives.elementwise import bitwise_and, where

        if not conditions:
            return value
        both = functools.reduce(
            lambda a, b: Expr("op", dtypes.bool_, (a, b), bitwise_and), conditions)
        other = Expr("const", value.dtype, (), fill)
        return Expr("op", value.dtype, (both, value, other), where)

    def _compute_lookup(self, value: Value, index, conditions) -> Expr:
        x, *indices = value.inputs
        buffer = self.view(x)
        if not x.numel:
            buffer = self._stand_in(x)
        place = self._coordinates(value.attrs[0], indices, x.shape, index, conditions)
        return Expr("load", buffer.dtype, (), (buffer, buffer.index(place), conditions))

    _place_lookup = _place_map

    def _coordinates(self, pattern, indices, shape, index, conditions) -> list[Index]:
        place = []
        for d, coord in enumerate(coordinates(pattern, indices)):
            if isinstance(coord, int):
                place.append(index[coord])
                continue
            safe = raw = self.read(coord, index, conditions)
            if not lies_inside(coord, shape[d]):
                safe = Expr("wrap", dtypes.int64, (raw,), shape[d])
            place.append(Index({}, 0, ((safe, 1),)))
        return place


def _strided(base: Buffer, value: Value, step: int) -> Buffer:
    """A view by numbers of elements, which lie `step` apart."""
    shape, strides, offset = value.attrs
    return base.seen_as(shape, [step * stride for stride in strides], base.offset + step * offset)


def _conflicts(step: Phase | LibraryStep, own: int, overwritten: set[int]) -> bool:
    """Does `step` read an overwritten input: by an earlier update, or by itself elsewhere?"""
    if isinstance(step, LibraryStep):
        return any(b.kind == "in" and b.number in overwritten | {own} for b in step.sources)
    for expr in walk(step.roots()):
        if expr.kind != "load" or expr.data[0].kind != "in":
            continue
        number, index = expr.data[0].number, expr.data[1]
        if number in overwritten:
            return True
        if number == own and (index != step.where or step.reduce or step.mode != "set"):
            return True
    return False


@dataclasses.dataclass(frozen=True)
class _Residue:
    """The taps of a window that reach the places q * stride + residue along one dimension.

    Attributes:
        tap, tap_step, count: the taps, an arithmetic progression.
        first, step: tap number j comes from window q - first - j * step.
    """

    residue: int
    tap: int
    tap_step: int
    count: int
    first: int
    step: int


def _residues(kernel: int, stride: int, dilation: int) -> list[_Residue]:
    result = []
    for residue in range(stride):
        taps = [k for k in range(kernel) if (k * dilation - residue) % stride == 0]
        gap = taps[1] - taps[0] if len(taps) > 1 else 1
        first = (taps[0] * dilation - residue) // stride if taps else 0
        result.append(_Residue(residue, taps[0] if taps else 0, gap, len(taps), first,
                               gap * dilation // stride if len(taps) > 1 else 0))
    return result


def batch_stride(buffer: Buffer) -> tuple[int, int] | None:
    """(count, stride) of the leading dimensions but the last two, if one loop walks them all."""
    return one_stride(buffer.shape[:-2], buffer.strides[:-2])
