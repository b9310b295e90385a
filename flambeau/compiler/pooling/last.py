"""Pooling of images whose channels are contiguous: lanes are channels, windows are walked one by
one, and only the taps that lie in the image. See `pooling.py`."""

from __future__ import annotations

from flambeau.compiler.emitter import Value, vector
from flambeau.compiler.frame import chunk_range
from flambeau.compiler.pooling.planes import Pool

__all__ = ["LastPool"]


class LastPool(Pool):
    """Channels are contiguous."""

    def emit(self) -> None:
        f, slot, rule = self.f, self.slot, self.spec.rule
        real = self.scalar
        self.tables = [f.gep(self.work, 0, real)]
        for d in range(2):
            self.tables.append(f.gep(self.tables[d], f.add(slot[f"out{d}"], 1), real))
        if rule in ("mean", "mean_back"):
            for d in range(3):
                self.fill_counts(self.tables[d], d, True)
        start, stop = chunk_range(f, slot["tasks"])
        rows_of = {"max_back": self._bins_back if self.spec.bins else self._back_of_max,
                   "mean_back": self._back_of_mean}.get(
            rule, self._windows)
        with f.loop(start, stop) as task:
            n, part = f.udiv(task, slot["parts"]), f.urem(task, slot["parts"])
            base = {who: f.gep(slot[who], f.mul(n, slot[f"{who}_n"]), self.memory(who))
                    for who in "xytv"}
            rows_of(base, part)

    def _beside(self, who: str, row: Value, w: Value) -> Value:
        """The address of pixel w of a row."""
        return self.f.gep(row, self.f.mul(w, self.slot[f"{who}_2"]), self.memory(who))

    def _pixel(self, who: str, base: Value, *at: Value) -> Value:
        return self._beside(who, self.row(who, base, at[0], at[1]), at[2])

    def _rows(self, sizes: str, part: Value):
        """(first, behind the last) of the rows that are this part's."""
        f, slot = self.f, self.slot
        total = f.mul(slot[f"{sizes}0"], slot[f"{sizes}1"])
        return (f.udiv(f.mul(total, part), slot["parts"]),
                f.udiv(f.mul(total, f.add(part, 1)), slot["parts"]))

    # ------------------------------------------------------------------ windows
    def _windows(self, base: dict, part: Value) -> None:
        f, slot = self.f, self.slot
        begin, end = self._rows("out", part)
        with f.loop(begin, end) as number:
            od, oh = self.split(number, "out1")
            d, h = self.taps(0, od), self.taps(1, oh)
            y = self.row("y", base["y"], od, oh)
            with f.loop(0, slot["out2"]) as ow:
                w = self.taps(2, ow)
                if self.spec.rule == "argmax":
                    self._argmax_pixel(base["x"], self._beside("y", y, ow), (d, h, w))
                else:
                    self._pool_pixel(base["x"], self._beside("y", y, ow), (od, oh, ow), (d, h, w))

    def _each_tap(self, windows, body) -> None:
        """body(place d, place h, place w) for the taps of a window that lie in the image."""
        f, slot = self.f, self.slot
        d, h, w = windows
        with self.across(d[0], d[1]) as kd, f.loop(h[0], h[1]) as kh, f.loop(w[0], w[1]) as kw:
            body(*(f.add(at[2], f.mul(k, slot[f"dil{axis}"]))
                   for axis, (at, k) in enumerate(((d, kd), (h, kh), (w, kw)))))

    def _pool_pixel(self, x: Value, y: Value, at, windows) -> None:
        f, lanes = self.f, self.lanes
        totals = [f.var(self.vector) for _ in range(self.spec.taps)]
        share = None
        if self.spec.rule == "mean":
            share = f.splat(self._product([f.load(self.scalar, table, i)
                                           for table, i in zip(self.tables, at, strict=True)]),
                            lanes)

        def block(c: Value, count: int, mask: Value | None) -> None:
            for total in totals[:count]:
                total.set(self.neutral)

            def add(*place) -> None:
                pointer = f.gep(self._pixel("x", x, *place), c, self.memory("x"))
                for i, total in enumerate(totals[:count]):
                    found = self.read("x", f.gep(pointer, i * lanes, self.memory("x")), lanes, mask)
                    total.set(self.combine(total.get(), found))

            self._each_tap(windows, add)
            for i, total in enumerate(totals[:count]):
                value = total.get() if share is None else f.fmul(total.get(), share)
                self.write(value, f.gep(y, f.add(c, i * lanes), self.memory("y")), mask)

        self.along(0, self.slot["channels"], block, self.spec.taps)

    def _product(self, factors):
        f = self.f
        return f.fmul(f.fmul(factors[0], factors[1]), factors[2])

    # ------------------------------------------------------------------ maxima
    def _flat(self, place) -> Value:
        """The number of a pixel, row-major."""
        f, slot = self.f, self.slot
        flat = place[1]
        if self.spec.deep:
            flat = f.add(f.mul(place[0], slot["size1"]), flat)
        return f.add(f.mul(flat, slot["size2"]), place[2])

    def _find(self, x: Value, windows, c: Value, mask: Value | None, best, spot, number) -> None:
        """Leave in `spot` number(place) of the pixels that hold the maxima of a window."""
        f, lanes = self.f, self.lanes
        firsts = [f.add(at[2], f.mul(at[0], self.slot[f"dil{axis}"]))
                  for axis, at in enumerate(windows)]
        best.set(self.lowest)
        spot.set(f.splat(f.cast("trunc", number(firsts), "i32"), lanes))

        def look(*place) -> None:
            pointer = f.gep(self._pixel("x", x, *place), c, self.memory("x"))
            found = self.read("x", pointer, lanes, mask)
            better = self.larger(best.get(), found)
            here = f.splat(f.cast("trunc", number(place), "i32"), lanes)
            best.set(f.select(better, found, best.get()))
            spot.set(f.select(better, here, spot.get()))

        self._each_tap(windows, look)

    def _argmax_pixel(self, x: Value, y: Value, windows) -> None:
        f, lanes = self.f, self.lanes
        best, spot = f.var(self.vector), f.var(vector(lanes, "i32"))

        def block(c: Value, count: int, mask: Value | None) -> None:
            self._find(x, windows, c, mask, best, spot, self._flat)
            self.write(spot.get(), f.gep(y, c, "i64"), mask)

        self.along(0, self.slot["channels"], block)

    def _back_of_max(self, base: dict, part: Value) -> None:
        """A task is a block of channels: all windows add to them in order."""
        f, slot, lanes = self.f, self.slot, self.lanes
        low = f.mul(part, slot["block"])
        high = f.smin(f.add(low, slot["block"]), slot["channels"])
        self.left = [f.var(vector(lanes, "i1")) for _ in range(self.spec.taps)]
        done = f.var("i64", 0)

        def clear_row(pointer: Value) -> None:
            with f.loop(0, slot["size2"]) as w:
                self.along(low, high, lambda c, count, mask: self.write(
                    f.const(0.0, vector(lanes, self.memory("t"))),
                    f.gep(self._beside("t", pointer, w), c, self.memory("t")), mask))

        with f.loop(0, f.mul(slot["out0"], slot["out1"])) as number:
            od, oh = self.split(number, "out1")
            d, h = self.taps(0, od), self.taps(1, oh)
            ends = self.window_end(0, d[2]), self.window_end(1, h[2])
            self.clear_to(base["t"], done, self.rows_needed(ends), clear_row)
            y, v = (self.row(who, base[who], od, oh) for who in "yv")
            with f.loop(0, slot["out2"]) as ow:
                windows = (d, h, self.taps(2, ow))
                pixels = self._beside("y", y, ow), self._beside("v", v, ow)

                def block(c: Value, count: int, mask: Value | None, windows=windows,
                          pixels=pixels) -> None:
                    self._give(base, windows, pixels, c, count, mask)

                self.along(low, high, block, self.spec.taps)
        self.clear_to(base["t"], done, f.mul(slot["size0"], slot["size1"]), clear_row)

    def _give(self, base: dict, windows, pixels, c: Value, count: int, mask: Value | None) -> None:
        """Add a window's gradient where its maximum lies first, for some channels."""
        f, lanes, parts = self.f, self.lanes, range(count)
        places = [f.add(c, i * lanes) for i in parts]
        g = [self.read("y", f.gep(pixels[0], at, self.memory("y")), lanes, mask) for at in places]
        top = [self.findable(self.read("v", f.gep(pixels[1], at, self.memory("v")), lanes, mask))
               for at in places]
        for i in parts:
            self.left[i].set(f.const(True, vector(lanes, "i1")) if mask is None else mask)

        def add(*place) -> None:
            x, t = self._pixel("x", base["x"], *place), self._pixel("t", base["t"], *place)
            for i, at in enumerate(places):
                found = self.read("x", f.gep(x, at, self.memory("x")), lanes, mask)
                hit = f.and_(f.cmp("ueq", found, top[i]), self.left[i].get())
                self.left[i].set(f.and_(self.left[i].get(), f.not_(hit)))
                pointer = f.gep(t, at, self.memory("t"))
                old = (f.load(g[i].type, pointer) if mask is None else
                       f.masked_load(g[i].type, pointer, mask))
                new = f.select(hit, f.fadd(old, g[i]), old)
                if mask is None:
                    f.store(new, pointer)
                else:
                    f.masked_store(new, pointer, mask)

        self._each_tap(windows, add)

    def _bins_back(self, base: dict, part: Value) -> None:
        """A task is a block of channels, whose maxima are found again, a register at a time."""
        f, slot, lanes = self.f, self.slot, self.lanes
        low = f.mul(part, slot["block"])
        high = f.smin(f.add(low, slot["block"]), slot["channels"])
        best, spot = f.var(self.vector), f.var(vector(lanes, "i32"))
        zero = f.const(0.0, vector(lanes, self.memory("t")))
        with f.loop(0, f.mul(slot["size0"], slot["size1"])) as number:
            row = self.row("t", base["t"], *self.split(number, "size1"))
            with f.loop(0, slot["size2"]) as w:
                pixel = self._beside("t", row, w)
                self.along(low, high, lambda c, count, mask: self.write(
                    zero, f.gep(pixel, c, self.memory("t")), mask))

        def number_in_t(place) -> Value:
            plane = f.mul(place[0], slot["t_0"]) if self.spec.deep else 0
            return f.add(f.add(plane, f.mul(place[1], slot["t_1"])), f.mul(place[2], slot["t_2"]))

        with f.loop(0, f.mul(slot["out0"], slot["out1"])) as number:
            od, oh = self.split(number, "out1")
            y = self.row("y", base["y"], od, oh)
            with f.loop(0, slot["out2"]) as ow:
                windows = self.taps(0, od), self.taps(1, oh), self.taps(2, ow)
                pixel = self._beside("y", y, ow)

                def give(c: Value, count: int, mask: Value | None, windows=windows,
                         pixel=pixel) -> None:
                    self._find(base["x"], windows, c, mask, best, spot, number_in_t)
                    live = f.const(True, vector(lanes, "i1")) if mask is None else mask
                    g = self.read("y", f.gep(pixel, c, self.memory("y")), lanes, mask)
                    places = f.add(f.cast("sext", spot.get(), vector(lanes, "i64")), f.iota(lanes))
                    pointers = f.gep(f.gep(base["t"], c, self.memory("t")), places,
                                     self.memory("t"))
                    f.scatter(f.fadd(f.gather(g.type, pointers, live), g), pointers, live)

                self.along(low, high, give)

    # ------------------------------------------------------------------ the gradient of a mean
    def _back_of_mean(self, base: dict, part: Value) -> None:
        f, slot = self.f, self.slot
        begin, end = self._rows("size", part)
        with f.loop(begin, end) as number:
            at = self.split(number, "size1")
            d, h = self.covering(0, at[0]), self.covering(1, at[1])
            t = self.row("t", base["t"], *at)
            with f.loop(0, slot["size2"]) as w:
                self._gradient_pixel(base["y"], self._beside("t", t, w),
                                     (d, h, self.covering(2, w)))

    def _gradient_pixel(self, y: Value, t: Value, ranges) -> None:
        f, lanes = self.f, self.lanes
        totals = [f.var(self.vector) for _ in range(self.spec.taps)]
        d, h, w = ranges

        def block(c: Value, count: int, mask: Value | None) -> None:
            for total in totals[:count]:
                total.set(0.0)
            with self.across(*d) as od, f.loop(*h) as oh, f.loop(*w) as ow:
                share = f.splat(self._product([f.load(self.scalar, table, i) for table, i in zip(
                    self.tables, (od, oh, ow), strict=True)]), lanes)
                pointer = f.gep(self._pixel("y", y, od, oh, ow), c, self.memory("y"))
                for i, total in enumerate(totals[:count]):
                    g = self.read("y", f.gep(pointer, i * lanes, self.memory("y")), lanes, mask)
                    total.set(f.fadd(total.get(), f.fmul(g, share)))
            for i, total in enumerate(totals[:count]):
                self.write(total.get(), f.gep(t, f.add(c, i * lanes), self.memory("t")), mask)

        self.along(0, self.slot["channels"], block, self.spec.taps)
