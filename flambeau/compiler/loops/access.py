"""Addresses: how a canonical index becomes a load or a store of one lane or of a register."""

from __future__ import annotations

import functools

from flambeau.compiler.emitter import Value, lanes_of, scalar_of, vector
from flambeau.compiler.lanes import memory_type
from flambeau.compiler.loops.kernel import Kernel, Result
from flambeau.core.dtypes import DType, by_name

__all__ = ["Access"]


class Access:
    """Memory as seen from within loops.

    Attributes:
        indices: the value of each loop's variable, by place (outer loops first).
        values: what is known of each line.
        depends: for each line the places of the loops that its value changes with.
        lane_place: the place of the loop whose iterations are lanes, or None.
        block, bases: parts of indices that are computed already, and the block in which they are.
    """

    kernel: Kernel
    indices: dict[int, Value]
    values: dict[int, Value]
    depends: list[frozenset[int]]
    lane_place: int | None
    lines: tuple
    block: str
    bases: dict[tuple, Value | int]

    def offset(self, index: tuple, lanes: int) -> Value:
        """An element index in every lane, as i64."""
        base, lane_factor, dynamic = self.parts(index)
        f = self.f
        total = f.typed(base, "i64")
        if lanes == 1:
            if lane_factor is not None:
                total = f.add(total, f.mul(self.indices[self.lane_place], lane_factor))
        else:
            total = f.splat(total, lanes)
            if lane_factor is not None:
                position = f.add(f.splat(self.indices[self.lane_place], lanes), f.iota(lanes))
                scale = lane_factor if isinstance(lane_factor, int) else f.splat(lane_factor, lanes)
                total = f.add(total, f.mul(position, scale))
        for value, stride in dynamic:
            stride = stride if isinstance(stride, int) else self.k.splat(stride, lanes)
            total = f.add(total, f.mul(self.k.splat(value, lanes), stride))
        return f.typed(total, vector(lanes, "i64"))

    def parts(self, index: tuple):
        """(scalar part, factor of the lane loop or None, data-dependent terms)."""
        return self._base(index), self.lane_factor(index), [
            (self.values[line], 1 if stride is None else self.kernel.slot(stride))
            for line, stride in index[2]]

    def lane_factor(self, index: tuple) -> Value | int | None:
        """How far lanes lie apart; None if the index is the same in all of them."""
        return next((self._scale(factor) for place, factor in index[0]
                     if place == self.lane_place), None)

    def _base(self, index: tuple) -> Value | int:
        """What the other loops add up to; computed once in a block."""
        terms, const, _ = index
        f = self.f
        terms = [(self.indices[place], factor) for place, factor in terms
                 if place != self.lane_place]
        key = const, *((i.name, factor) for i, factor in terms)
        if self.block != f.block:
            self.block, self.bases = f.block, {}
        if key not in self.bases:
            base = 0 if const is None else self.kernel.slot(const)
            for i, factor in terms:
                base = f.add(base, f.mul(i, self._scale(factor)))
            self.bases[key] = base
        return self.bases[key]

    def _scale(self, factor: int | str) -> Value | int:
        known = {"unit": 1, "back": -1}.get(factor)
        return self.kernel.slot(factor) if known is None else known

    def load(self, pointer: Value, type_: str, index: tuple, conditions: list[Value],
              lanes: int) -> Value:
        f, k = self.f, self.k
        lane_factor = self.lane_factor(index)
        if lanes == 1:
            address = f.gep(pointer, self.offset(index, 1), type_)
            if conditions:
                nothing = f.var("i64", 0).pointer
                address = f.select(functools.reduce(f.and_, conditions), address, nothing)
            return f.load(type_, address)
        mask = k.active
        for condition in conditions:
            condition = k.splat(condition, lanes)
            mask = condition if mask is None else f.and_(mask, condition)
        wide = vector(lanes, type_)
        if lane_factor in (1, -1) and all(line not in self._across for line, _ in index[2]):
            address = f.gep(pointer, self._scalar_offset(index), type_)
            if lane_factor == 1:
                return f.load(wide, address) if mask is None else f.masked_load(wide, address, mask)
            return self._load_backwards(wide, address, mask)
        addresses = f.gep(pointer, self.offset(index, lanes), type_)
        full = mask if mask is not None else f.const(True, vector(lanes, "i1"))
        return f.gather(wide, addresses, full)

    def _load_backwards(self, wide: str, last: Value, mask: Value | None) -> Value:
        """Lane 0 from the address `last`, the others from before it."""
        f, lanes = self.f, lanes_of(wide)
        order = range(lanes - 1, -1, -1)
        first = f.gep(last, 1 - lanes, scalar_of(wide))
        if mask is None:
            return f.shuffle(f.load(wide, first), None, order)
        return f.shuffle(f.masked_load(wide, first, f.shuffle(mask, None, order)), None, order)

    def _is_rounded(self, result: Result, dtype: DType) -> bool:
        """Does what is stored have the precision of `dtype` already?"""
        kind, name = self.lines[result.value][:2]
        return (result.mode == "set" and result.reduce is None and kind in ("cast", "load")
                and name == dtype.name)

    def store(self, result: Result, value: Value, lanes: int) -> None:
        slot, dtype_name, index = result.where
        f, k, dtype = self.f, self.k, by_name(dtype_name)
        pointer, type_ = self.kernel.address(slot), memory_type(dtype)
        if result.mode != "set":
            old = k.widen(self.load(pointer, type_, index, [], lanes), dtype)
            mode = result.mode.removeprefix("carry_")
            value = k.combine({"add": "sum", "mul": "prod"}.get(mode, mode), dtype, old, value)
        raw = k.narrow(value, dtype, self._is_rounded(result, dtype))
        lane_factor = self.lane_factor(index)
        if lanes == 1:
            f.store(raw, f.gep(pointer, self.offset(index, 1), type_))
        elif lane_factor == -1 and not index[2]:
            order, mask = range(lanes - 1, -1, -1), k.active
            first = f.gep(f.gep(pointer, self._scalar_offset(index), type_), 1 - lanes, type_)
            if mask is None:
                f.store(f.shuffle(raw, None, order), first)
            else:
                f.masked_store(f.shuffle(raw, None, order), first, f.shuffle(mask, None, order))
        elif lane_factor == 1 and all(line not in self._across for line, _ in index[2]):
            address = f.gep(pointer, self._scalar_offset(index), type_)
            if k.active is None:
                f.store(raw, address)
            else:
                f.masked_store(raw, address, k.active)
        else:
            addresses = f.gep(pointer, self.offset(index, lanes), type_)
            mask = k.active if k.active is not None else f.const(True, vector(lanes, "i1"))
            f.scatter(raw, addresses, mask)

    @functools.cached_property
    def _across(self) -> set[int]:
        """Lines whose value differs between lanes."""
        return {n for n, places in enumerate(self.depends) if self.lane_place in places}

    def _scalar_offset(self, index: tuple) -> Value:
        """The element index of lane 0, when the data-dependent part is the same in every lane."""
        base, lane_factor, dynamic = self.parts(index)
        f = self.f
        total = f.add(base, f.mul(self.indices[self.lane_place], lane_factor))
        for value, stride in dynamic:
            total = f.add(total, f.mul(value, stride))
        return total
