"""vmap's tensors: each stands for one example, and holds those of the whole batch.

A `Batched` tensor has the shape, strides and history of one example. Its value is a tensor with one
dimension more, along which the examples lie (or none, if they are all the same). A call on such
tensors becomes a `BatchedCall` on their values: one launch for all examples. The tape of a batched
tensor is that of the transforms inside of vmap; its value has its own, outside.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

from flambeau.autograd.grad_mode import INFERENCE, RECORD, mode
from flambeau.core import symbolic
from flambeau.ops.batching import BatchedCall, falls_back
from flambeau.ops.derive import Call, OpCall
from flambeau.ops.record import REGISTRY, Op
from flambeau.tensor import autocast, dispatch, launches, levels, rewriting, tape, viewing
from flambeau.tensor.dispatch import TENSOR_CLASSES
from flambeau.tensor.launches import LaunchCache
from flambeau.tensor.levels import Below, Level
from flambeau.tensor.meta import Meta, TensorBase, meta_of
from flambeau.tensor.overriding import disabled_torch_function
from flambeau.tensor.overriding import state as asked
from flambeau.tensor.tensor import Tensor

__all__ = ["Batched", "Escaped", "VmapLevel", "batch_of"]

_new = object.__new__

ESCAPED = ("Either your tensor may have escaped from inside a function being vmapped and this is a "
           "user error (see https://pytorch.org/functorch/stable/ux_limitations.html): return it "
           "from the function instead")
CONTROL_FLOW = ("vmap: It looks like you're attempting to use a Tensor in some data-dependent "
                "control flow. We don't support that yet: choose by value with torch.where.")
ITEM = ("vmap: It looks like you're calling .item() on a Tensor. We don't support vmap over "
        "calling .item() on a Tensor, please try to rewrite what you're doing with other "
        "operations: its value differs between examples.")
NO_STORAGE = ("Cannot access data pointer of Tensor that doesn't have storage: inside of vmap a "
              "tensor stands for many examples, and only operations see them")


class Batched(Tensor):
    """A tensor inside of vmap.

    Attributes:
        _value: the examples; _bdim: the dimension along which they lie, or None; _level: whose.
    """

    __torch_function__ = disabled_torch_function

    def _bare(self) -> Batched:
        """Another tensor object for the same examples, without history."""
        return self._level.wrap(self._value, self._bdim)

    def _refuse(self, message: str) -> None:
        if self._bdim is not None:
            raise RuntimeError(message)

    def _reinterpreted(self, dtype: Any) -> Tensor:
        level = self._level
        with Below(level):
            if self._bdim is None or dtype.itemsize == self._meta.dtype.itemsize:
                return level.wrap(self._value._reinterpreted(dtype), self._bdim)
            return level.wrap(_in_front(self._value, self._bdim)._reinterpreted(dtype), 0)

    def item(self) -> bool | int | float | complex:
        self._refuse(ITEM)
        return self._value.item()

    def tolist(self) -> Any:
        self._refuse(NO_STORAGE)
        return self._value.tolist()

    def __bool__(self) -> bool:
        self._refuse(CONTROL_FLOW)
        return bool(self._value)

    def numpy(self, *, force: bool = False) -> Any:
        self._refuse(NO_STORAGE)
        return self._value.numpy(force=force)

    def data_ptr(self) -> int:
        raise RuntimeError(NO_STORAGE)

    def untyped_storage(self) -> Any:
        raise RuntimeError(NO_STORAGE)

    def storage_offset(self) -> int:
        return self._value.storage_offset()

    def resize_(self, *sizes: Any) -> Tensor:
        raise RuntimeError("vmap: resize_ of a tensor is not supported; make a new one")

    def set_(self, *args: Any, **kwargs: Any) -> Tensor:
        raise RuntimeError("vmap: set_ of a tensor is not supported; make a new one")

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        if not requires_grad:
            return super().requires_grad_(False)
        raise RuntimeError("You are attempting to call Tensor.requires_grad_() (or perhaps using "
                           "torch.autograd.functional.* APIs) inside of a function being "
                           "transformed by a functorch transform. This is unsupported, please "
                           "attempt to use the functorch transforms (e.g. grad, vjp, jacrev, "
                           "jacfwd, hessian) or call requires_grad_() outside of a function being "
                           "transformed instead.")

    def backward(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("backward() called inside a functorch transform. This is not supported, "
                           "please use functorch.grad or functorch.vjp instead or call backward() "
                           "outside of functorch transforms.")

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        raise RuntimeError("vmap: assigning to .data is not supported; use the new tensor")

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        inside = repr(self._value).replace("\n", "\n    ")
        return f"BatchedTensor(lvl={self._number}, bdim={self._bdim}, value=\n    {inside}\n)"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __deepcopy__(self, memo: dict) -> Tensor:
        return self.clone()

    def __reduce_ex__(self, protocol: int) -> Any:
        raise RuntimeError(NO_STORAGE)


class Escaped(Batched):
    """A tensor whose vmap has ended: it can be looked at, but not computed with."""

    @property
    def _ptr(self) -> int:
        raise RuntimeError(ESCAPED)

    @property
    def _storage(self) -> Any:
        raise RuntimeError(ESCAPED)


_examples = LaunchCache()


def _example(meta: Meta, bdim: int | None) -> Meta:
    """The layout of one example."""
    if bdim is None:
        return meta
    found = _examples.get((meta, bdim))
    if found is None:
        shape, strides = list(meta.shape), list(meta.strides)
        del shape[bdim], strides[bdim]
        found = _examples[meta, bdim] = meta_of(meta.dtype, shape, strides, meta.device)
    return found


class VmapLevel(Level):
    """A level at which tensors stand for the examples of a batch.

    Args:
        size: how many examples there are.
        randomness: "error", "different" or "same": what random operations do.
    """

    batches = True

    def __init__(self, size: int, randomness: str = "error"):
        self.size = size
        self.randomness = randomness
        self._made: list[weakref.ref] = []

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for reference in self._made:
            tensor = reference()
            if tensor is not None:
                tensor.__class__ = Escaped
        self._made.clear()

    def wrap(self, value: Any, bdim: int | None) -> Batched:
        """The tensor that stands for the examples in `value`."""
        made = _new(Batched)
        made._storage = value._storage
        made._ptr = value._ptr
        made._meta = _example(value._meta, bdim)
        made._rg = False
        made._grad_fn = made._base = None
        made._value, made._bdim, made._level = value, bdim, self
        made._number = self.depth + 1
        self._made.append(weakref.ref(made))
        return made

    def lifted(self, tensor: Any) -> Batched:
        """A tensor of outside as one that is the same for all examples. Tangents of transforms
        inside go with it."""
        made = self.wrap(tensor, None)
        known = tensor._tangents
        if known:
            own = {level: t for level, t in known.items() if level.depth > self.depth}
            if own:
                made._tangents = own
        return made

    # ------------------------------------------------------------------ calls
    def _taken_apart(self, flat: Sequence) -> tuple[tuple, list]:
        """(dimension of the examples or None, value) of each argument."""
        dims, values = [], []
        for arg in flat:
            if arg.__class__ is Batched and arg._level is self:
                dims.append(arg._bdim)
                values.append(arg._value)
            else:
                dims.append(None)
                values.append(arg)
        return tuple(dims), values

    def compute(self, call: Call, flat: Sequence) -> list:
        key: list = []
        values: list = []
        deep = False
        for arg in flat:
            if arg.__class__ is Batched and arg._level is self:
                key.append(arg._bdim)
                arg = arg._value
            else:
                key.append(None)
            values.append(arg)
            if isinstance(arg, TensorBase):
                key.append(arg._meta)
                if arg._level is not None or arg._tangents or arg._base is not None and (
                        arg._base._tangents):
                    deep = True
            else:
                key.append(arg.__class__)
        if deep:
            return self._compute(call, flat)
        ready = call.__dict__.setdefault("ready", {}).get((self.size, *key))
        if ready is None:
            if len(call.ready) > LaunchCache.LIMIT:
                call.ready.clear()
            dims = tuple(key[::2])
            if _fallback(call) or all(dim is None for dim in dims):
                return self._compute(call, flat)
            batched = BatchedCall.of(call, dims, self.size)
            launch = tape.launch_of(batched, values)
            ready = call.ready[self.size, *key] = launch, [0 if f else None for f in batched.flags]
        launch, places = ready
        results = tape.run_launch(launch, values)
        wrap = self.wrap
        outs = [wrap(r, place) for r, place in zip(results, places)]  # noqa: B905
        if mode() & 3 == RECORD:
            wanted = self._wanted(flat)
            if True in wanted:
                levels.attach(call, flat, outs, wanted)
        return outs

    def _compute(self, call: Call, flat: Sequence) -> list:
        """`compute` whatever the values are, by way of the levels below."""
        dims, values = self._taken_apart(flat)
        with Below(self):
            if all(dim is None for dim in dims):
                outs = [self.wrap(r, None) for r in levels.run(call, values)]
            else:
                slow = _fallback(call)
                if slow and self.size > 32:
                    outs = [self.wrap(r, 0) for r in _loop(call, dims, values, self.size)]
                else:
                    batched = BatchedCall.of(call, dims, self.size)
                    outs = [self.wrap(r, 0 if flag else None) for r, flag in
                            zip(levels.run(batched, values), batched.flags, strict=True)]
        levels.attach(call, flat, outs, self._wanted(flat))
        return outs

    def _wanted(self, flat: Sequence) -> tuple[bool, ...]:
        return tuple([arg.__class__ is Batched and arg._level is self and arg._rg for arg in flat])

    def view(self, call: Call, base: Any) -> list:
        whole = call
        if base._bdim is not None:
            whole = self._strided(call, base) or BatchedCall.of(
                call, (base._bdim,), self.size)
        with Below(self):
            values = levels.run_view(whole, base._value)
        views = [self.wrap(value, None if base._bdim is None else 0) for value in values]
        for view in views:
            view._base = base if base._base is None else base._base
        self._link(call, base, views)
        return views

    def _strided(self, call: Call, base: Any) -> Call | None:
        """as_strided means the memory of each example, wherever that lies in the value's."""
        name = call.record.name if isinstance(call, OpCall) else ""
        if name not in ("as_strided", "_as_strided_within", "_as_strided_parts"):
            return None
        (_, size), (_, stride), (_, offset) = call.structure[1:4]
        meta = base._value._meta
        step, record = meta.strides[base._bdim], REGISTRY["as_strided"]
        if name == "_as_strided_parts":  # strides count numbers of the other kind
            if not meta.dtype.is_complex:
                return None
            step, record = 2 * step, call.record
        size, stride = (self.size, *size), (step, *stride)
        key = meta, size, stride, offset
        structure = [("input", 0), ("static", size), ("static", stride), ("static", offset)]
        return levels.call_of(record, key, structure, (meta,))

    def _link(self, call: Call, base: Any, views: Sequence) -> None:
        """The history of views; as `viewing.make_view` does it."""
        recording = mode() & 3 == RECORD
        version = base._storage.version
        whole = base if base._base is None else base._base
        if not recording:
            for view in views:
                view._view_no_grad = True
                if whole._rg:
                    view._rg = view._inherits = True
                    view._view_version = version
            return
        if call.record.many:
            for number, view in enumerate(views):
                view._view_of_many = f"Output {number} of {call.record.name}"
        if base._rg:
            levels.attach(call, (base,), views, (True,))
            for view in views:
                view._view_version = version
                if whole is not base and (base._view_no_grad or base._view_of_many):
                    view._view_no_grad = base._view_no_grad
                    view._view_of_many = base._view_of_many
        else:
            for view in views:
                viewing.note_view(whole, view, version)

    # ------------------------------------------------------------------ writing
    def write(self, target: Any, source: Any) -> None:
        inside = target.__class__ is Batched and target._level is self
        if not inside and source._bdim is None and not (source._rg and mode() & 3 == RECORD):
            with Below(self):
                levels.assign(target, source._value)
            return
        if not inside or target._bdim is None and _differs(source, self):
            raise RuntimeError(
                "vmap: inplace arithmetic(self, *extra_args) is not possible because there exists "
                "a Tensor `other` in extra_args that has more elements than `self`. This happened "
                "due to `other` being vmapped over but `self` not being vmapped over in a vmap. "
                "Please try to use out-of-place operators instead of inplace arithmetic, or make "
                "the tensor with zeros_like or new_zeros of one that is.")
        history = None
        source_wanted = source.__class__ is Batched and source._level is self and source._rg
        if mode() & 3 == RECORD and (target._rg or source_wanted):
            history = _history(target, source, source_wanted)
        dims, (into, values) = self._taken_apart((target, source))
        with Below(self):
            values = _in_front(values, dims[1])
            if dims[1] is None and dims[0] is not None:
                values = launches.late.ops.unsqueeze(values, 0)
            levels.assign(_in_front(into, dims[0]), values)
        if history is not None:
            history.rebase()


def _differs(tensor: Any, level: VmapLevel) -> bool:
    return tensor.__class__ is Batched and tensor._level is level and tensor._bdim is not None


def _in_front(value: Any, bdim: int | None) -> Any:
    """A view of the value with the examples along its first dimension."""
    if not bdim:
        return value
    return launches.late.ops.permute(value, (bdim, *[d for d in range(value._meta.ndim)
                                                     if d != bdim]))


def _history(target: Any, source: Any, source_wanted: bool) -> rewriting.History:
    """What copying `source` over `target` does on the tape."""
    record = REGISTRY["copy"]
    metas = target._meta, source._meta
    call = levels.call_of(record, metas, [("input", 0), ("input", 1), ("static", False)], metas)
    stand_in = levels.recorded(call, (target, source), (target,))
    return rewriting.History(stand_in, (target, source), target, (target._rg, source_wanted))


# ---------------------------------------------------------------------- calls like earlier ones
class _Ready(NamedTuple):
    """What a call at a vmap level comes down to.

    Attributes:
        launch: for all examples; places: where they lie in each result, or None.
        call: for one example; picked: which arguments it takes; single: is there one bare result?
    """

    launch: launches.Launch
    places: list
    call: Call
    picked: tuple[int, ...]
    single: bool


_ready = LaunchCache()


def warm(function: Any, bound: Sequence) -> Any:
    """The result of a call that only the innermost level, a vmap, concerns and that was made with
    the same layouts before; None: take the general path.

    The key has an entry or two per parameter: the dimension of the examples and the layout of their
    value, the type of a number, a static argument.
    """
    level = levels.current()[-1]
    if level.__class__ is not VmapLevel or asked.modes or symbolic.environment or (
            autocast.current().casting):
        return None
    key: list = [function, level.size]
    values: list = []
    recorded = False
    for param, arg in zip(function.record.params, bound):  # noqa: B905 - bound to them
        cls = arg.__class__
        if cls is Batched and arg._level is level:
            recorded = recorded or arg._rg
            key.append(arg._bdim)
            arg = arg._value
            cls = arg.__class__
        elif cls in _NUMBERS and not _constant(param, arg):
            key.append(cls)
            values.append(arg)
            continue
        if cls in TENSOR_CLASSES:
            base = arg._base
            if arg._level is not None or arg._tangents or base is not None and base._tangents:
                return None
            recorded = recorded or arg._rg
            key.append(arg._meta)
            values.append(arg)
        elif isinstance(arg, TensorBase):
            return None
        else:
            key.append((arg, cls))
    try:
        ready = _ready.get(tuple(key))
    except TypeError:  # a list: tensors, or sizes
        return None
    if ready is None:
        ready = _ready[tuple(key)] = _prepared(function.record, bound, level) or False
    if ready is False:
        return None
    word = mode()
    if recorded or word & INFERENCE or launches.late.observers:
        results = tape.run_launch(ready.launch, values)
    else:
        results = ready.launch.runner(ready.launch, *values)
    wrap = level.wrap
    if ready.single and not recorded:
        return wrap(results[0], ready.places[0])
    outs = [wrap(r, place) for r, place in zip(results, ready.places)]  # noqa: B905
    if recorded and word & 3 == RECORD:
        flat = [bound[n] for n in ready.picked]
        wanted = level._wanted(flat)
        if True in wanted:
            levels.attach(ready.call, flat, outs, wanted)
    return outs[0] if ready.single else tuple(outs)


_NUMBERS = frozenset((bool, int, float))


def _constant(param: Any, arg: Any) -> bool:
    """Is this number a part of the program?"""
    return param.role == "static" or arg is param.default or param.fixes(arg)


def _prepared(record: Op, bound: Sequence, level: VmapLevel) -> _Ready | None:
    """What `warm` keeps of a call, or None for those that the general path must make."""
    if record.kind == "view" or record.returns or any(p.role == "tensors" for p in record.params):
        return None
    try:
        args = dispatch.normalised(record, bound)
        structure, flat = dispatch.flatten(record, args)
        taken = [n for n, (param, arg) in enumerate(zip(record.params, bound, strict=True))
                 if isinstance(arg, TensorBase)
                 or arg.__class__ in _NUMBERS and not _constant(param, arg)]
        picked = [n for n, (kind, _) in enumerate(structure) if kind == "input"]
        if picked != taken or any(a is not b for a, b in zip(flat, (bound[n] for n in picked),
                                                             strict=True)):
            return None
        call = levels.call_of(record, dispatch.key_of(record, args), structure, flat)
        dims, values = level._taken_apart(flat)
        if all(dim is None for dim in dims) or _fallback(call):
            return None
        batched = BatchedCall.of(call, dims, level.size)
        launch = tape.launch_of(batched, values)
    except Exception:  # the general path raises it in the user's terms
        return None
    return _Ready(launch, [0 if flag else None for flag in batched.flags], call, tuple(picked),
                  len(batched.flags) == 1 and not record.many)


launches.late.warm = warm


# ---------------------------------------------------------------------- what has no rule
def _fallback(call: Call) -> bool:
    """Does a call need a loop over the examples? Says so, once for each call."""
    found = call.__dict__.get("loops")
    if found is None:
        names = falls_back(call)
        found = call.loops = bool(names)
    if found:
        warnings.warn("There is a performance drop because we have not yet implemented the "
                      f"batching rule for {', '.join(falls_back(call))} (in {call.name}). Please "
                      "file us an issue on GitHub so that we can prioritize its implementation.",
                      UserWarning, stacklevel=6)
    return found


def _loop(call: Call, dims: Sequence, values: Sequence, size: int) -> list:
    ops = launches.late.ops
    rows = [levels.run(call, [v if d is None else ops.select(v, d, place)
                              for v, d in zip(values, dims, strict=True)])
            for place in range(size)]
    return [ops.stack(column, 0) for column in zip(*rows, strict=True)]


def batch_of(tensors: Sequence) -> VmapLevel | None:
    """The innermost vmap of the thread that one of the tensors belongs to, or None."""
    level = levels.top([t for t in tensors if t._level is not None])
    return level if isinstance(level, VmapLevel) else None


