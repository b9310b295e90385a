"""A sweep: phases in the same loops, and how lanes run over the innermost one."""

from __future__ import annotations

from flambeau.compiler.emitter import Value
from flambeau.compiler.loops.lines import Lines

__all__ = ["Sweep"]


class Sweep(Lines):
    """One sweep of a kernel."""

    def extent(self, loop: int) -> Value:
        extent, clip = self.loops[loop]
        size = self.kernel.slot(extent)
        if clip is None:
            return size
        outer_place, total = clip
        left = self.f.sub(self.kernel.slot(total), self.f.mul(self.indices[outer_place], size))
        return self.f.smin(size, left)

    def lane_loop(self, body, unroll: int = 1, start: Value | int = 0,
                  stop: Value | None = None) -> None:
        """Run `body(part)` over the lane loop, or from `start` to `stop` of it: full registers,
        then one masked tail. Where few registers hold all of it, they are written out."""
        if self.registers is not None:
            for part in range(self.registers[0]):
                last = part == self.registers[0] - 1
                self.lane_body(self.f.const(part * self.lanes, "i64"),
                               self.tail if last else None, body, part)
            return
        f, step = self.f, self.lanes * unroll
        stop = self.extent(len(self.loops) - 1) if stop is None else stop
        full = f.add(start, f.mul(f.sdiv(f.sub(stop, start), step), step))
        with f.loop(start, full, step) as i:
            for part in range(unroll):
                self.lane_body(f.add(i, part * self.lanes), None, body, part)
        if self.lanes == 1 and unroll == 1:
            return
        with f.loop(full, stop, self.lanes) as i:
            mask = None if self.lanes == 1 else f.lane_mask(self.lanes, f.sub(stop, i))
            self.lane_body(i, mask, body, 0)

    def lane_body(self, i: Value, mask: Value | None, body, part: int) -> None:
        saved = dict(self.values)
        self.indices[self.lane_place], self.k.active = i, mask
        body(part)
        self.k.active = None
        self.values = saved

    def store_lanes(self, part: int) -> None:
        self.evaluate(self.open_places(len(self.loops)), self.lanes)
        self.store_all(self.lanes)

    def store_all(self, lanes: int) -> None:
        for result in self.maps:
            self.store(result, self.k.splat(self.values[result.value], lanes), lanes)
