"""Gangs: kernels whose threads work through steps together, each on its own part of every step.

A kernel with steps that depend on one another would need a launch each, or a barrier. A barrier
among the chunks of one launch may wait for ever, as nothing says that all chunks run at once. Here
work is claimed instead: part p of step s is run by whoever raises `claimed[p]` from s to s + 1, and
nobody starts on a step before the last one is done. A chunk takes its own part of each step; when
it has waited in vain for a while for the others, it takes theirs. So a single thread that runs
chunk after chunk gets through all the same, and one that comes late joins in.

The words that threads share lie in the kernel's slots, of which every launch has its own copy: they
are 0 when it begins. Each has a cache line of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from flambeau.compiler.emitter import Function, Value

__all__ = ["Gang", "gang_slots"]

_LINE = 8  # slots of 64 bits in a cache line
_PATIENCE = 400  # looks at what others do before their work is taken


def gang_slots(parts: int, groups: int) -> list[int]:
    """The contents of the last slots of a kernel with a `Gang`."""
    return [0] * (_LINE * (1 + parts + groups))


class Gang:
    """Emits the loop over steps into a kernel.

    Args:
        f: the kernel function.
        first: number of the first of `gang_slots`.
        groups, members: values; parts are numbered group * members + member. Members of a group
            wait for one another after every step; after step 0 all parts do.
        triple: of the target.
    """

    def __init__(self, f: Function, first: int, groups: Value, members: Value, triple: str):
        self.f, self.first, self.triple = f, first, triple
        self.members, self.parts = members, f.mul(groups, members)

    def run(self, steps: Value, work: Callable[[Value, Value], None]) -> None:
        """Steps 0 .. `steps` - 1; `work(part, step)` emits one part of one step, and is called
        once."""
        f = self.f
        own = f.cast("sext", f.args["chunk"], "i64")
        group = f.udiv(own, self.members)
        part, waited = f.var("i64"), f.var("i64")
        patience = f.var("i64", _PATIENCE)
        with f.loop(0, steps) as step:
            common = f.cmp("eq", step, 0)
            counter = self._word(f.select(common, 0, f.add(f.add(self.parts, group), 1)))
            wanted = f.select(common, self.parts, f.mul(self.members, step))
            begin = f.select(common, 0, f.mul(group, self.members))
            end = f.add(begin, f.select(common, self.parts, self.members))
            part.set(own)
            waited.set(0)
            take, check, finished = f.label("take"), f.label("check"), f.label("finished")
            f.branch(take)
            f.at(take)
            stolen = f.cmp("ne", part.get(), own)
            with f.when_else(self._claim(part.get(), step)) as otherwise:
                work(part.get(), step)
                f.emit("i64", f"atomicrmw add {counter}, i64 1 acq_rel")
                with f.when(stolen):
                    patience.set(0)  # the others are not there
                otherwise()
                with f.when(stolen):
                    self._yield()  # they are there, but perhaps not running
                    patience.set(_PATIENCE)
                    waited.set(0)
            f.branch(check)
            f.at(check)
            done = f.emit("i64", f"load atomic i64, {counter} acquire, align 8")
            wait, impatient = f.label("wait"), f.label("impatient")
            f.branch_if(f.cmp("sge", done, wanted), finished, wait)
            f.at(wait)
            self._pause()
            waited.set(f.add(waited.get(), 1))
            f.branch_if(f.cmp("sgt", waited.get(), patience.get()), impatient, check)
            f.at(impatient)
            following = f.add(part.get(), 1)
            part.set(f.select(f.cmp("slt", following, end), following, begin))
            f.branch(take)
            f.at(finished)

    def _word(self, line: Value) -> Value:
        """The address of a shared word."""
        f = self.f
        return f.gep(f.args["args"], f.add(f.mul(line, _LINE), self.first), "i64")

    def _claim(self, part: Value, step: Value) -> Value:
        """Whether a part was free at `step`, and is ours now."""
        f = self.f
        word, following = self._word(f.add(part, 1)), f.add(step, 1)
        pair = f.emit("{ i64, i1 }", f"cmpxchg {word}, {step}, {following} acq_rel acquire")
        return f.emit("i1", f"extractvalue {pair}, 1")

    def _pause(self) -> None:
        """Tell the processor that this is a loop that waits."""
        if self.triple.startswith(("x86_64", "i686", "i386")):
            self.f.call("void", "llvm.x86.sse2.pause", [])
        elif self.triple.startswith("aarch64"):
            self.f.call("void", "llvm.aarch64.hint", [self.f.const(1, "i32")])

    def _yield(self) -> None:
        """Let another thread have the processor, where kernels run on several threads."""
        if "linux" in self.triple:
            self.f.call("i32", "sched_yield", [])
