"""`autograd.Function` among the levels: its `jvp` and `vmap`, or rules made of its own parts.

On the tape of the tensors that it is given, a custom function is one node as ever. What its
`forward` does is computed by the innermost level that concerns an argument: forward mode applies it
below and asks `jvp`; vmap asks `vmap`, or applies a function below that runs `forward` and
`backward` of the original on tensors that stand for the examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from flambeau.autograd.function import Function, _wrap_outputs
from flambeau.autograd.grad_mode import is_recording, no_grad
from flambeau.autograd.registry import tensors
from flambeau.tensor import levels
from flambeau.tensor.batched import Batched, VmapLevel
from flambeau.tensor.levels import Below
from flambeau.tensor.meta import TensorBase
from flambeau.tensor.tangents import JvpLevel, set_tangent, tangent_of

__all__ = ["VmapInfo", "apply_custom"]


class VmapInfo(NamedTuple):
    """What `Function.vmap` is told: the number of examples, and `vmap`'s randomness."""

    batch_size: int
    randomness: str


def apply_custom(cls: type[Function], args: tuple) -> Any:
    """`cls.apply(*args)` inside of transforms; NotImplemented if none concerns an argument."""
    level = levels.top([a for a in args if isinstance(a, TensorBase)])
    if level is None:
        return NotImplemented
    if isinstance(level, JvpLevel):
        return _forwards(level, cls, args)[0]
    return _over_batch(level, cls, args)[0]


def _applied(cls: type[Function], args: tuple) -> tuple[Any, Any]:
    """(outputs, ctx) of a call among the levels of this thread."""
    level = levels.top([a for a in args if isinstance(a, TensorBase)])
    if isinstance(level, JvpLevel):
        return _forwards(level, cls, args)
    if level is not None:
        return _over_batch(level, cls, args)
    return cls._run(args, cls.setup_context is not Function.setup_context)


# ---------------------------------------------------------------------- forward mode
def _forwards(level: JvpLevel, cls: type[Function], args: tuple) -> tuple[Any, Any]:
    with Below(level):
        output, ctx = _applied(cls, args)
        outputs = output if isinstance(output, tuple) else (output,)
        moves = [_tangent_given(ctx, a, level) for a in args]
        ctx.saved_for_forward = ctx.kept_for_forward
        try:
            found = cls.jvp(ctx, *moves)
        finally:
            ctx.saved_for_forward = None
    found = found if isinstance(found, tuple) else (found,)
    if len(found) != len(outputs):
        raise RuntimeError(f"{cls.__name__}.jvp returned an incorrect number of tangents (expected "
                           f"{len(outputs)}, got {len(found)})")
    for out, tangent in zip(outputs, found, strict=True):
        if isinstance(out, TensorBase) and tangent is not None:
            if tangent.shape != out.shape:
                raise RuntimeError(f"{cls.__name__}.jvp returned a tangent of shape "
                                   f"{list(tangent.shape)} for an output of shape "
                                   f"{list(out.shape)}")
            set_tangent(out, level, tangent)
    return output, ctx


def _tangent_given(ctx: Any, arg: Any, level: JvpLevel) -> Any:
    if not isinstance(arg, TensorBase):
        return None
    found = tangent_of(arg, level)
    if found is None and ctx.materialize_grads and arg._meta.dtype.kind in "fc":
        return tensors.make.zeros_like(arg.detach())
    return found


# ---------------------------------------------------------------------- vmap
def _over_batch(level: VmapLevel, cls: type[Function], args: tuple) -> tuple[Any, Any]:
    if cls.setup_context is Function.setup_context:
        raise RuntimeError("In order to use an autograd.Function with functorch transforms (vmap, "
                           "grad, jvp, jacrev, ...), it must override the setup_context "
                           "staticmethod: split forward(ctx, ...) into forward(...) and "
                           "setup_context(ctx, inputs, output).")
    own = cls.vmap is not Function.vmap
    if own and cls.generate_vmap_rule:
        raise RuntimeError(f"You tried to vmap over {cls.__name__}, but it has both "
                           "generate_vmap_rule=True and an overridden vmap staticmethod. Please "
                           "set generate_vmap_rule=False or delete the overridden vmap "
                           "staticmethod to avoid ambiguity.")
    if not own and not cls.generate_vmap_rule:
        raise RuntimeError(f"You tried to vmap over {cls.__name__}, but it does not have vmap "
                           "support. Please override and implement the vmap staticmethod or set "
                           "generate_vmap_rule=True.")
    dims, values = level._taken_apart(args)
    with Below(level):
        if all(dim is None for dim in dims):
            output, places = _applied(cls, tuple(values))[0], None
        elif own:
            info = VmapInfo(level.size, level.randomness)
            output, places = cls.vmap(info, dims, *values)
        else:
            made = _Vmapped.of(cls, dims, level.size, level.randomness)
            output, places = _applied(made, tuple(values))[0], 0
    output = _wrapped(level, output, places)
    ctx, record = cls._node(tuple(_own(level, a) for a in args))
    if not (record and is_recording()):
        ctx._flags = (False,) * len(args)
    with no_grad():
        cls.setup_context(ctx, args, output)
    return _wrap_outputs(ctx, args, output, record), ctx


def _own(level: VmapLevel, arg: Any) -> Any:
    """The argument as the tape of `level` knows it: others belong to tapes outside of it."""
    if isinstance(arg, TensorBase) and arg._level is not level and arg._rg:
        return arg.detach()
    return arg


def _wrapped(level: VmapLevel, output: Any, places: Any) -> Any:
    """Outputs of below as tensors of the level, given where the examples lie."""
    many = isinstance(output, tuple)
    outputs = output if many else (output,)
    if not isinstance(places, (tuple, list)):
        places = (places,) * len(outputs)
    made = tuple([level.wrap(out, place) if isinstance(out, TensorBase) else out
                  for out, place in zip(outputs, places, strict=True)])
    return made if many else made[0]


class _Context:
    """The `ctx` of the original function inside of a batch; what it saves is taken out."""

    materialize_grads = True
    saved_tensors: tuple = ()
    needs_input_grad: tuple = ()
    _forward: tuple = ()

    def save_for_backward(self, *given: Any) -> None:
        self.saved_tensors = given

    def save_for_forward(self, *given: Any) -> None:
        self._forward = given

    def mark_dirty(self, *given: Any) -> None:
        raise RuntimeError("vmap over an autograd.Function that changes its inputs (mark_dirty) is "
                           "not supported with generate_vmap_rule=True; override vmap")

    def mark_non_differentiable(self, *given: Any) -> None:
        self.constant = {id(one) for one in given}

    def set_materialize_grads(self, value: bool) -> None:
        self.materialize_grads = value


class _Vmapped:
    """Makes the function over a batch of a function with `generate_vmap_rule`."""

    @staticmethod
    def of(cls: type[Function], dims: tuple, size: int, randomness: str) -> type[Function]:
        """A function over values whose examples lie along `dims`; made once."""
        known = cls.__dict__.get("_vmapped")
        if known is None:
            known = cls._vmapped = {}
        key = dims, size, randomness
        if key not in known:
            known[key] = _vmapped(cls, *key)
        return known[key]


def _given(level: VmapLevel, values: Sequence, places: Sequence) -> list:
    """Values as tensors of the level, given where their examples lie."""
    return [value if place is None or not isinstance(value, TensorBase)
            else level.wrap(value, place) for value, place in zip(values, places, strict=True)]


def _taken(level: VmapLevel, tensor: Any) -> Any:
    """All examples along the first dimension."""
    if not isinstance(tensor, TensorBase):
        return tensor
    value, place = tensor, None
    if tensor.__class__ is Batched and tensor._level is level:
        value, place = tensor._value, tensor._bdim
    if place is None:
        return value.expand(level.size, *value.shape)
    return value if place == 0 else value.movedim(place, 0)


def _vmapped(cls: type[Function], dims: tuple, size: int, randomness: str) -> type[Function]:
    """Runs the parts of `cls` on tensors that stand for the examples."""

    def forward(*values: Any) -> Any:
        with VmapLevel(size, randomness) as level:
            output = cls.forward(*_given(level, values, dims))
            outs = output if isinstance(output, tuple) else (output,)
            with Below(level):
                outs = tuple([_taken(level, out) for out in outs])
        return outs if isinstance(output, tuple) else outs[0]

    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        with VmapLevel(size, randomness) as level:
            inner = _Context()
            inner.needs_input_grad = ctx.needs_input_grad
            outs = _given(level, outputs, (0,) * len(outputs))
            args = _given(level, inputs, dims)
            cls.setup_context(inner, tuple(args), tuple(outs) if isinstance(output, tuple)
                              else outs[0])
            values = [_unwrapped(level, t, (inputs, args), (outputs, outs))
                      for t in (*inner.saved_tensors, *inner._forward)]
        count = len(inner.saved_tensors)
        ctx.save_for_backward(*[value for value, _ in values[:count]])
        ctx.save_for_forward(*[value for value, _ in values[count:]])
        ctx.places = [place for _, place in values]
        ctx.inner = {k: v for k, v in inner.__dict__.items()
                     if k not in ("saved_tensors", "_forward")}
        ctx.set_materialize_grads(inner.materialize_grads)

    def inside(ctx: Any, level: VmapLevel, saved: Sequence, places: Sequence) -> _Context:
        inner = _Context()
        inner.__dict__.update(ctx.inner)
        inner.saved_tensors = tuple(_given(level, saved, places))
        return inner

    def backward(ctx: Any, *grads: Any) -> tuple:
        saved = ctx.saved_tensors
        with VmapLevel(size, randomness) as level:
            inner = inside(ctx, level, saved, ctx.places[:len(saved)])
            found = cls._backward_rule()(inner, *_given(level, grads, (0,) * len(grads)))
            found = found if isinstance(found, (tuple, list)) else (found,)
            with Below(level):
                rows = [_taken(level, grad) for grad in found]
                return tuple([
                    None if row is None else row.sum(0) if place is None else
                    row if place == 0 else row.movedim(0, place)
                    for row, place in zip(rows, dims, strict=False)])

    def jvp(ctx: Any, *tangents: Any) -> Any:
        saved = ctx.saved_tensors
        with VmapLevel(size, randomness) as level:
            inner = inside(ctx, level, saved, ctx.places[len(ctx.places) - len(saved):])
            found = cls.jvp(inner, *_given(level, tangents, dims))
            with Below(level):
                if isinstance(found, tuple):
                    return tuple([_taken(level, t) for t in found])
                return _taken(level, found)

    body = {"forward": staticmethod(forward), "setup_context": staticmethod(setup_context),
            "backward": staticmethod(backward), "generate_vmap_rule": True}
    if cls.jvp is not Function.jvp:
        body["jvp"] = staticmethod(jvp)
    return type(f"Vmapped{cls.__name__}", (Function,), body)


def _unwrapped(level: VmapLevel, tensor: Any, inputs: tuple, outputs: tuple
               ) -> tuple[Any, int | None]:
    """(value, dimension of the examples) of a saved tensor; inputs and outputs as they came."""
    for plain, wrapped in (inputs, outputs):
        for value, one in zip(plain, wrapped, strict=True):
            if one is tensor:
                return value, tensor._bdim if tensor.__class__ is Batched and (
                    tensor._level is level) else None
    if tensor.__class__ is Batched and tensor._level is level:
        return tensor._value, tensor._bdim
    return tensor, None
