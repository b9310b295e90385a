"""Launches: a traced call compiled for given layouts, ready to run.

First level: dispatch finds a `Launch` by the exact call. Second level: the kernels inside are
shared by all calls of equal structure, in memory and on disk.
"""

from __future__ import annotations

import functools
import itertools
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from flambeau.autograd.graph import node_type
from flambeau.compiler.memory_order import (
    channels_last_values,
    is_channels_last,
    strides_in_order,
)
from flambeau.compiler.program import Plan, buffers_for, plan
from flambeau.compiler.split_complex import has_complex, split_complex
from flambeau.compiler.target import host
from flambeau.core import failures
from flambeau.core.device import CPU, META, NO_DATA, Device
from flambeau.core.dtypes import DType
from flambeau.core.errors import caller_location, is_internal, note_line
from flambeau.core.generated import define
from flambeau.core.shapes import contiguous_strides
from flambeau.core.symbolic import environment, hint, is_symbolic
from flambeau.ir.graph import Graph, Value
from flambeau.ir.settle import settled
from flambeau.ops.derive import Call, OpCall, WrittenCall
from flambeau.ops.index import BEYOND
from flambeau.ops.outputs import FLAT_INPLACE
from flambeau.ops.primitives.elementwise import convert
from flambeau.ops.record import out_of_range
from flambeau.runtime import launch as launching
from flambeau.runtime import memory, pool
from flambeau.runtime.executable import build_late, build_program
from flambeau.runtime.launch import FLOAT, INTEGER, NUMBER, Program
from flambeau.tensor.layouts import moved, only_moves
from flambeau.tensor.meta import (
    Meta,
    TensorBase,
    contiguous_meta,
    hinted,
    like_order,
    meta_of,
)

__all__ = ["Launch", "LaunchCache", "BackwardPlan", "compile_call", "is_elementwise", "install",
           "plan_call"]


def look(tensor: Any, why: str) -> None:
    """Python is about to see the elements of `tensor`.

    Raises:
        NotImplementedError: it lies on the meta device, which has none.
    """
    if tensor._meta.device is META:
        raise NotImplementedError(NO_DATA)
    if late.observers:
        late.observers[-1].read(tensor)
    settle(why)


def before_fill(tensor: Any, given: bool, generator: Any) -> None:
    """A random stream, which is drawn from at once, is about to fill `tensor`, after reading
    another tensor if `given`."""
    deferred = late.deferred
    if deferred is not None:
        deferred.before_fill(tensor, given, generator)


def share(array: Any) -> None:
    """An array on a tensor's memory (None: an address) goes to the user: while it lives, nothing is
    put off."""
    deferred = late.deferred
    if deferred is not None:
        deferred.share(array)


class LaunchCache(dict):
    """Launches by key. It starts anew when it is full: a program whose shapes never repeat must not
    keep a launch for each of them. (Kernels are shared by structure and stay.)"""

    LIMIT = 4096

    def __setitem__(self, key: Any, launch: Any) -> None:
        if len(self) >= self.LIMIT:
            settle()
            self.clear()
        dict.__setitem__(self, key, launch)
        if environment:
            environment[-1].undo.append((self, key))


def _no_result(function: Any, bound: Sequence) -> None:
    """`warm` as long as there is no vmap."""


class _Late:
    """What is only known once the tensor class exists, and the doors to native code.

    Attributes:
        launch: runs a `Launch` that cannot fail; while `deferred` is set it may do so later.
        checked: runs one whose kernels may report an error.
        at_once: runs any program, never later; who calls it `settle`s first where memory is read or
            written that others may know.
        deferred: puts operations off (compile/deferral.py), or None.
        run, operate, view: run a call, a form of an op, or a view, among the transforms of the
            thread (levels.py, transformed.py).
        warm: the result of a call like an earlier one, inside of a vmap, or None (batched.py).
        aligned: the arguments of an op on one device (devices.py).
        room, room_like, fill, bernoulli_each, multinomial, draws: new memory, that for random
            numbers, and those themselves, for the examples of a vmap (examples.py).
        each: a function of one example at a time, inside of a vmap (examples.py).
    """

    tensor: type = TensorBase
    op_node: type = object
    refusing_node: type = object
    launch: Callable = None  # type: ignore[assignment]
    checked: Callable = None  # type: ignore[assignment]
    at_once: Callable = None  # type: ignore[assignment]
    deferred: Any = None
    run: Callable = None  # type: ignore[assignment]
    operate: Callable = None  # type: ignore[assignment]
    view: Callable = None  # type: ignore[assignment]
    warm: Callable = staticmethod(_no_result)
    aligned: Callable = None  # type: ignore[assignment]
    room: Callable = None  # type: ignore[assignment]
    room_like: Callable = None  # type: ignore[assignment]
    fill: Callable = None  # type: ignore[assignment]
    bernoulli_each: Callable = None  # type: ignore[assignment]
    multinomial: Callable = None  # type: ignore[assignment]
    draws: Callable = None  # type: ignore[assignment]
    each: Callable = None  # type: ignore[assignment]
    ops: Any = None
    observers: list = []


late = _Late()


def settle(why: str = "") -> None:
    """Run what has been put off: memory is about to be looked at, or changed, otherwise than by
    launches. `why` says so to the user."""
    deferred = late.deferred  # another thread may end it
    if deferred is not None:
        deferred.settle(why)


def install(tensor: type, op_node: type, refusing_node: type) -> None:
    """Called once by the tensor layer."""
    late.tensor, late.op_node, late.refusing_node = tensor, op_node, refusing_node


def run_native(address: int, *args):
    """`launch`, built at the first call: loading LLVM takes 80 ms."""
    late.launch = late.checked = late.at_once = launching.launcher()
    return late.launch(address, *args)


late.launch = late.checked = late.at_once = run_native


resettable: weakref.WeakSet = weakref.WeakSet()
"""What keeps compiled programs outside of dispatch's caches, and `forget()`s them when asked.

A program's workspaces are made for the number of threads that it was compiled for.
"""


class BackwardPlan:
    """How one call is differentiated with respect to some of its inputs."""

    __slots__ = ("__weakref__", "call", "saved_inputs", "saved_outputs", "produced", "launches",
                 "save", "moves", "views")

    def __init__(self, call, metas: Sequence[Meta | type]):
        self.call = call
        self.saved_inputs = call.saved_inputs
        self.saved_outputs = call.saved_outputs
        self.save = saver_for(tuple(call.saved_inputs), len(call.saved_outputs), "".join(
            "N" if isinstance(m, type) else "T" for m in metas))
        self.produced = call.produced
        self.moves = not call.saved_inputs and not call.saved_outputs and only_moves(call.graph)
        self.views: dict = {}
        self.launches = LaunchCache()
        resettable.add(self)

    def views_of(self, meta: Meta) -> list[tuple[Meta, int]] | None:
        """Where gradients that are only moved lie in the memory of the one that they are made
        of."""
        if meta not in self.views:
            if len(self.views) >= LaunchCache.LIMIT:
                self.views.clear()
            found = moved(self.call.graph, meta)
            if found is not None and not environment:  # the tape may be that of a capture
                found = [(hinted(part), hint(offset)) for part, offset in found]
            self.views[meta] = found
        return self.views[meta]

    def forget(self) -> None:
        """Drop the compiled programs."""
        self.launches.clear()


by_address: weakref.WeakValueDictionary[int, Launch] = weakref.WeakValueDictionary()
"""The launches by the address of their program, which is all that `late.launch` sees of them."""


class Launch:
    """A call compiled for exact layouts.

    Attributes:
        address: of the program; kept alive by `program`.
        outs: (meta, pool) per result that the launch allocates.
        pool, nbytes, meta: of the only result, if there is one.
        arena: pool of the scratch memory, or None.
        plans: gradient plans by (which inputs want one).
        node_class: the tape's node type, or None if nothing is differentiable.
    """

    __slots__ = ("call", "program", "address", "outs", "pool", "nbytes", "meta", "arena",
                 "arena_bytes", "checked", "plans", "node_class", "go", "metas", "metas_out",
                 "runner", "__weakref__")

    def __init__(self, call: Call, metas: Sequence[Meta | type], program, out_metas: Sequence[Meta],
                 arena_bytes: int, checked: bool):
        self.call = call
        self.metas = tuple(metas)
        self.program = program
        self.address = program.address
        by_address[self.address] = self
        deferred = late.deferred
        if deferred is not None:
            deferred.keep(self)
        self.outs = [(meta, memory.pool_on(meta.device, meta.nbytes)) for meta in out_metas]
        self.arena = memory.size_class(arena_bytes) if arena_bytes else None
        self.arena_bytes = arena_bytes
        self.checked = checked
        self.plans: dict = {}
        self.metas_out = tuple(out_metas)
        self.meta, self.pool = self.outs[0] if len(self.outs) == 1 else (None, None)
        self.nbytes = self.meta.nbytes if self.meta is not None else 0
        self.go = None
        self.runner = runner_for("".join("N" if isinstance(m, type) else "T" for m in metas),
                                 len(self.outs), self.arena is not None, checked)
        floating = any(meta.dtype.kind in "fc" for meta in out_metas)
        inputs = any(not isinstance(m, type) and m.dtype.kind in "fc" for m in metas)
        record = getattr(call, "record", None)
        refusing = record is not None and record.no_derivative
        able = floating and inputs and (record is None or record.differentiable or refusing
                                        or isinstance(call, WrittenCall)
                                        and record.name in FLAT_INPLACE)
        base = late.refusing_node if refusing else late.op_node
        self.node_class = node_type(call.grad_name, base) if able else None

    def plan_for(self, wanted: tuple[bool, ...], given: tuple[bool, ...]) -> BackwardPlan:
        key = (wanted, given)
        found = self.plans.get(key)
        if found is None:
            able = tuple(w and not isinstance(m, type) and m.dtype.kind in "fc"
                         for w, m in zip(wanted, self.metas, strict=True))
            found = self.plans[key] = BackwardPlan(self.call.backward(able, given),
                                                       self.metas)
        return found

    def run(self, args: Sequence) -> list:
        """Run on flat arguments (tensors and numbers); returns new tensors."""
        return self.runner(self, *args)

    def run_into(self, args: Sequence, outs: Sequence) -> None:
        """Run on flat arguments, writing into existing tensors of the layouts compiled for."""
        argv = [a._ptr if isinstance(a, TensorBase) else a for a in args]
        argv += [out._ptr for out in outs]
        if self.checked:
            settle("an operation that checks its arguments' values")
        self._finish(argv, args)

    def _finish(self, argv: list, args: Sequence) -> None:
        arena = None
        if self.arena is not None:
            arena = self.arena.new(self.arena_bytes)
            argv.append(arena.ptr)
        if not self.checked:
            late.launch(self.address, *argv)
            return
        failure = late.checked(self.address, *argv)
        if failure is not None:
            raise_failure(self, failure, args)


@functools.cache
def saver_for(inputs: tuple[int, ...], outputs: int, letters: str) -> Callable | None:
    """A function of (node, flat arguments, result) that lets `node` keep what a gradient needs,
    generated once for each choice; None if that is nothing, or several results.

    A kept result loses its history: the node must not keep itself alive.
    """
    if not inputs and not outputs or outputs > 1:
        return None
    lines = ["def save(node, flat, out):"]
    kept, versions = [], []
    for i in inputs:
        tensor = letters[i] == "T"
        lines.append(f"    k{i} = flat[{i}]")
        kept.append(f"k{i}")
        versions.append(f"+k{i}._storage.version" if tensor else "None")
    if outputs:
        lines += ["    alias = new(Tensor)",
                  "    alias._storage = storage = out._storage",
                  "    alias._ptr = out._ptr",
                  "    alias._meta = out._meta",
                  "    alias._rg = False",
                  "    alias._grad_fn = alias._base = None"]
        kept.append("alias")
        versions.append("storage.version")
    lines += [f"    node.tape_saved = ({', '.join(kept)},)",
              f"    node.tape_versions = ({', '.join(versions)},)",
              "    frame = getframe(3)",  # caller_location, without another call
              "    code = frame.f_code",
              "    node.tape_where = (caller_location(4) if internal[code.co_filename] else",
              "                       (code, frame.f_lasti))"]
    space = {"new": object.__new__, "Tensor": late.tensor, "caller_location": caller_location,
             "getframe": sys._getframe, "internal": is_internal}
    return define("save", "\n".join(lines), f"<flambeau save {inputs} {outputs} {letters}>", space)


_RUNNERS: dict[tuple, Callable] = {}


def runner_for(pattern: str, results: int, arena: bool, checked: bool) -> Callable:
    """A function of (launch, *flat arguments) that makes the results and runs the launch, generated
    once for each pattern of arguments (T tensor, N number)."""
    key = (pattern, results, arena, checked)
    if key not in _RUNNERS:
        _RUNNERS[key] = _compile_runner(*key)
    return _RUNNERS[key]


def _compile_runner(pattern: str, results: int, arena: bool, checked: bool) -> Callable:
    names = [f"a{i}" for i in range(len(pattern))]
    argv = [f"{n}._ptr" if c == "T" else n for n, c in zip(names, pattern, strict=True)]
    lines = [f"def run({', '.join(['launch', *names])}):"]
    if results:
        made = ", ".join(f"(m{i}, p{i})" for i in range(results))
        lines.append(f"    {made}{',' if results == 1 else ''} = launch.outs")
    for i in range(results):
        lines += [f"    r{i} = new(Tensor)",
                  f"    r{i}._storage = storage = p{i}.new(m{i}.nbytes)",
                  f"    r{i}._ptr = storage.ptr",
                  f"    r{i}._meta = m{i}",
                  f"    r{i}._rg = False",
                  f"    r{i}._grad_fn = r{i}._base = None"]
        argv.append(f"r{i}._ptr")
    if arena:
        lines.append("    arena = launch.arena.new(launch.arena_bytes)")
        argv.append("arena.ptr")
    door = "checked" if checked else "launch"
    call = f"late.{door}({', '.join(['launch.address', *argv])})"
    if checked:
        given = f"({', '.join(names)}{',' if names else ''})"
        lines += [f"    failure = {call}",
                  "    if failure is not None:",
                  f"        raise_failure(launch, failure, {given})"]
    else:
        lines.append(f"    {call}")
    lines.append(f"    return [{', '.join(f'r{i}' for i in range(results))}]")
    space = {"new": object.__new__, "Tensor": late.tensor, "late": late,
             "raise_failure": raise_failure}
    name = f"<flambeau run {pattern} {results}{'a' if arena else ''}{'c' if checked else ''}>"
    return define("run", "\n".join(lines), name, space)


def raise_failure(launch: Launch, failure: tuple[int, int], args: Sequence) -> None:
    """Turn a kernel's status into an exception in the user's terms."""
    code, value = failure
    call = getattr(launch.call, "original", launch.call)
    record = getattr(call, "record", None)
    if code == 1:
        index = value + BEYOND if value < -BEYOND // 2 else value
        error = (out_of_range if record is None else record.index_error)(
            index, call, args)
    elif code >= failures.FIRST:
        error = failures.failure(code, value)
    else:
        shapes = [list(a.shape) for a in args if isinstance(a, TensorBase)]
        error = RuntimeError(f"ZeroDivisionError: {call.name}: integer division or "
                             f"remainder by zero (shapes of the arguments: {shapes})")
    note_line(error)
    raise error


def fresh(meta: Meta, size_class=None) -> Any:
    """A new tensor with uninitialised memory."""
    storage = (size_class or memory.pool_on(meta.device, meta.nbytes)).new(meta.nbytes)
    tensor = late.tensor.__new__(late.tensor)
    tensor._storage = storage
    tensor._ptr = storage.ptr
    tensor._meta = meta
    tensor._rg = False
    tensor._grad_fn = None
    tensor._base = None
    if late.observers:
        late.observers[-1].created(tensor)
    return tensor


def fresh_dense(dtype: DType, shape: tuple[int, ...], device: Device = CPU) -> Any:
    """A new row-major tensor with uninitialised memory."""
    if environment or device is not CPU:
        return fresh(contiguous_meta(dtype, shape, device))
    found = _dense.get((dtype, shape))
    if found is None:
        meta = contiguous_meta(dtype, shape)
        found = _dense[dtype, shape] = meta, memory.size_class(meta.nbytes)
    return fresh(*found)


_dense = LaunchCache()


def is_elementwise(graph: Graph) -> bool:
    """Does every result element depend only on the input elements at the same (broadcast) place?"""
    return all(v.prim.kind in ("elementwise", "source") or v.prim.name == "expand"
               for v in graph.order())


def result_metas(call: Call, graph: Graph, metas: Sequence[Meta | type]) -> list[Meta]:
    """The layouts of the results: elementwise ones follow their operands, convolutions of
    channels_last images are channels_last, others are as the record's `order` says."""
    tensors = [m for m in metas if not isinstance(m, type)]
    device = tensors[0].device if tensors else CPU
    order = getattr(getattr(call, "record", None), "order", None)
    if callable(order) and not isinstance(call, OpCall):  # it asks for the op's own arguments
        order = None
    if order == "rows" or order == "all" and not all(
            m.ndim in (4, 5) and is_channels_last(m.shape, m.strides) for m in tensors):
        tensors = []
    elif order is not None and tensors and (callable(order) or not tensors[0].contiguous):
        return [meta_of(o.dtype, o.shape, _order_kept(order, call, o, tensors[0]), device)
                for o in graph.outputs]
    if len(tensors) and not all(m.contiguous for m in tensors) and is_elementwise(graph):
        return [meta_of(o.dtype, o.shape, like_order(o.shape, tensors), device)
                for o in graph.outputs]
    strides = {v: m.strides for v, m in zip(graph.inputs, metas, strict=True)
               if not isinstance(m, type)}
    last = channels_last_values(graph.order(), strides) if tensors else ()
    return [meta_of(o.dtype, o.shape, strides_in_order(o.shape, True), device) if o in last
            else contiguous_meta(o.dtype, o.shape, device) for o in graph.outputs]


def _order_kept(order: str | Callable, call: Call, result: Value, first: Meta) -> tuple[int, ...]:
    """Strides of a result that lies in the order of the first operand; see `Op.order`."""
    shape = result.shape
    if len(shape) != first.ndim:
        return contiguous_strides(shape)
    if order in ("images", "all"):
        return strides_in_order(shape, len(shape) in (4, 5) and is_channels_last(first.shape,
                                                                                 first.strides))
    places = order(call) if callable(order) else range(len(shape))
    strides = [first.strides[place] for place in places]
    return like_order(shape, [meta_of(result.dtype, shape, strides)])


def compile_call(call: Call, metas: Sequence[Meta | type],
                 into: Sequence[Meta] | None = None,
                 aliases: Mapping[int, int] | None = None) -> Launch:
    """Compile `call` for inputs of these layouts, with new results or for writing `into` others;
    `aliases`: which result overwrites which input."""
    graph, outs = _graph_and_results(call, metas, into)
    if not environment and any(map(is_symbolic, sizes_of(graph))):  # a capture's tape, later
        graph, outs = settled(graph, hint), list(map(hinted, outs))
        metas = [m if isinstance(m, type) else hinted(m) for m in metas]
    if common_device([*metas, *outs]) is META:
        if has_complex(graph):  # raises for what complex numbers do not have
            split_complex(graph, buffers_for("in", metas), buffers_for("out", outs), {}, ())
        program = _nothing([m if isinstance(m, type) else Meta for m in (*metas, *outs)])
        return Launch(call, metas, program, outs, 0, False)
    given, made = metas, outs
    if environment:  # what runs now runs for the sizes of this run
        graph = settled(graph, hint)
        given = [m if isinstance(m, type) else hinted(m) for m in metas]
        made = [hinted(m) for m in outs]
    planned = plan(graph, buffers_for("in", given), buffers_for("out", made), host(),
                   pool.get_num_threads(), aliases,
                   together=into is None)  # what is written into may overlap operands
    kinds = [m if isinstance(m, type) else None for m in metas]
    deferred = late.deferred
    build = build_program if deferred is None or not deferred.late_kernels else build_late
    program = build(planned, kinds, len(outs))
    return Launch(call, metas, program, outs, planned.arena_bytes, planned.checked)


def sizes_of(graph: Graph) -> Iterator[int]:
    """The sizes of what goes into a program and of what comes out."""
    return itertools.chain.from_iterable(v.shape for v in (*graph.inputs, *graph.outputs))


def _graph_and_results(call: Call, metas: Sequence[Meta | type], into: Sequence[Meta] | None
                       ) -> tuple[Graph, list[Meta]]:
    graph = call.graph
    if into is None:
        return graph, result_metas(call, graph, metas)
    return Graph(graph.inputs, [_fitted(o, m.dtype, m.shape) for o, m in
                                zip(graph.outputs, into, strict=True)]), list(into)


def plan_call(call: Call, metas: Sequence[Meta | type], into: Sequence[Meta] | None,
              aliases: Mapping[int, int] | None) -> tuple[Plan, list[Meta]]:
    """(plan, layouts of the results) of a call that runs for tensors on the CPU beside others; see
    `compile_call`."""
    graph, outs = _graph_and_results(call, metas, into)
    return plan(graph, buffers_for("in", metas), buffers_for("out", outs), host(),
                pool.get_num_threads(), aliases, together=False), outs


def common_device(metas: Iterable[Meta | type]) -> Device:
    """The device of the tensors among these layouts; the CPU if there are none.

    Raises:
        RuntimeError: there are several.
    """
    found = None
    for meta in metas:
        if not isinstance(meta, type) and meta.device is not found:
            if found is not None:
                raise RuntimeError("Expected all tensors to be on the same device, but found at "
                                   f"least two devices, {found} and {meta.device}! Move them with "
                                   ".to(device).")
            found = meta.device
    return found or CPU


def _nothing(arguments: Sequence[type]) -> Program:
    """A program that takes arguments and does nothing. Each launch has one of its own, since
    launches are known by the addresses of their programs."""
    kinds = [{float: FLOAT, int: NUMBER}.get(kind, INTEGER) for kind in arguments]
    return Program.build((), (), kinds, (0, 0))


def _fitted(output: Value, dtype: DType, shape: Sequence[int]) -> Value:
    """`output` converted to the dtype of the tensor it is written into."""
    if tuple(output.shape) != tuple(shape):
        raise RuntimeError(f"output with shape {list(shape)} doesn't match the broadcast shape "
                           f"{list(output.shape)}")
    return convert(output, dtype)
