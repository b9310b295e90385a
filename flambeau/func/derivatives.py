"""grad, vjp, jvp, linearize: derivatives of functions.

In reverse they are the ordinary tape on inputs that are entered (`tensor/entering.py`), so they
cost what `autograd.grad` costs; forwards they are a level (`tensor/tangents.py`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flambeau
from flambeau.autograd.grad_mode import (
    INFERENCE,
    RECORD,
    is_grad_enabled,
    is_recording,
    set_bits,
)
from flambeau.tensor import (
    Tensor,
    entering,
    transformed,  # noqa: F401 - dispatch meets the levels
)
from flambeau.tensor import tangents as forward
from flambeau.tensor.tangents import JvpLevel
from flambeau.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

__all__ = ["debug_unwrap", "grad", "grad_and_value", "jvp", "linearize", "vjp"]


# ---------------------------------------------------------------------- arguments
def chosen(args: Sequence, argnums: Any) -> Any:
    """The arguments at `argnums`: one, or a tuple.

    Raises:
        RuntimeError: positions that are no integers, are repeated or do not exist.
    """
    if isinstance(argnums, bool) or not isinstance(argnums, (int, tuple)):
        raise RuntimeError("argnums must be int or Tuple[int, ...], got: "
                           f"{type(argnums)}")
    if isinstance(argnums, int):
        return args[place_of(argnums, len(args))]
    if not argnums:
        raise RuntimeError("argnums must be non-empty")
    places = [place_of(n, len(args)) for n in argnums]
    if len(set(places)) != len(places):
        raise RuntimeError(f"argnums elements must be unique, got {argnums}")
    return tuple([args[n] for n in places])


def place_of(argnum: Any, count: int) -> int:
    """A position among `count` arguments, counted from the front."""
    if isinstance(argnum, bool) or not isinstance(argnum, int):
        raise RuntimeError(f"argnums must be int or Tuple[int, ...], got: {type(argnum)}")
    if not -count <= argnum < count:
        raise RuntimeError(f"Got argnum={argnum}, but only {count} positional inputs")
    return argnum % count


def replaced(args: Sequence, argnums: Any, values: Any) -> list:
    """The arguments with those at `argnums` replaced."""
    result = list(args)
    if isinstance(argnums, int):
        result[place_of(argnums, len(args))] = values
    else:
        for n, value in zip(argnums, values, strict=True):
            result[place_of(n, len(args))] = value
    return result


def tensors_of(tree: Any) -> tuple[list, Any]:
    """(leaves, structure) of something that a function is differentiated with respect to."""
    leaves, spec = tree_flatten(tree)
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise ValueError("Thing passed to transform API must be Tensor, got "
                             f"{type(leaf)}")
    return leaves, spec


def _aux(result: Any, name: str) -> tuple:
    if not (isinstance(result, tuple) and len(result) == 2):
        raise RuntimeError(f"{name}: output of function f should be a tuple: (output, aux) if "
                           "has_aux is True")
    for leaf in tree_flatten(result[1])[0]:
        if not isinstance(leaf, Tensor):
            raise RuntimeError(f"Expected tensors, got unsupported type {type(leaf)}")
    return result


@contextlib.contextmanager
def _recording() -> Iterator[None]:
    """Within the block operations are recorded, whatever the mode outside."""
    before = set_bits(RECORD | INFERENCE, RECORD)
    try:
        yield
    finally:
        set_bits(RECORD | INFERENCE, before & (RECORD | INFERENCE))


class _Taped:
    """A function's results on the tape, with respect to inputs entered for it.

    Attributes:
        inputs: what was entered.
        outside: the results depend on other tensors that require grad, so gradients must be
            recorded, and results keep their history.
        below: the same of the values of tensors inside of vmap, which have a history of their own.
    """

    def __init__(self, leaves: Sequence):
        self.recording = is_recording()
        self.start = entering.begin()
        self.inputs = [entering.entered(leaf) for leaf in leaves]
        self.outside = self.below = False

    def look(self, outputs: Sequence) -> None:
        """See what the results depend on."""
        if self.recording:
            self.outside = entering.reaches_outside(outputs, self.inputs, self.start)
            self.below = any(entering.recorded_below(out) for out in outputs)

    def released(self, tree: Any) -> Any:
        """Results as they leave."""
        if self.outside:
            return tree
        return tree_map_only(Tensor, entering.unrecorded, tree)

    def gradients(self, outputs: Sequence, weights: Sequence | None, retain: bool,
                  create: bool) -> list:
        """The gradients of the inputs, zeros for those that do not matter."""
        pairs = [(out, None if weights is None else weight) for out, weight in
                 zip(outputs, weights or outputs, strict=True) if out.requires_grad]
        if not pairs or not self.inputs:
            return [flambeau.zeros_like(entering.unrecorded(x)) for x in self.inputs]
        found = flambeau.autograd.grad(
            [out for out, _ in pairs], self.inputs, [weight for _, weight in pairs],
            retain_graph=retain, create_graph=create or self.below, allow_unused=True)
        if self.below and not create:
            found = [g if g is None else entering.unrecorded(g) for g in found]
        return [flambeau.zeros_like(entering.unrecorded(x)) if g is None else g
                for g, x in zip(found, self.inputs, strict=True)]


# ---------------------------------------------------------------------- in reverse
def grad_and_value(func: Callable, argnums: int | tuple[int, ...] = 0,
                   has_aux: bool = False) -> Callable:
    """A function that gives (gradient, value) of `func`, whose result is a single number.

    Args:
        argnums: the position(s) of the arguments to differentiate with respect to; these may be
            nested containers of tensors.
        has_aux: `func` returns (value, anything); the result is (gradient, (value, anything)).

    Raises:
        RuntimeError: `func` does not return a 0-d tensor; `argnums` are wrong.

    >>> torch.func.grad_and_value(lambda x: x ** 3)(torch.tensor(2.))
    (tensor(12.), tensor(8.))
    """

    @functools.wraps(func)
    def with_value(*args: Any, **kwargs: Any) -> Any:
        leaves, spec = tensors_of(chosen(args, argnums))
        taped = _Taped(leaves)
        with _recording():
            given = replaced(args, argnums, tree_unflatten(taped.inputs, spec))
            output = func(*given, **kwargs)
            aux = None
            if has_aux:
                output, aux = _aux(output, "grad_and_value(f)(*args)")
            if not isinstance(output, Tensor):
                raise RuntimeError("grad_and_value(f)(*args): Expected f(*args) to return a "
                                   f"Tensor, got {type(output)}")
            if output.dim() != 0:
                raise RuntimeError("grad_and_value(f)(*args): Expected f(*args) to return a scalar "
                                   f"Tensor, got tensor with {output.dim()} dims. Maybe you wanted "
                                   "to use the vjp or jacrev APIs instead?")
            kept = [leaf for leaf in tree_flatten(aux)[0] if isinstance(leaf, Tensor)]
            taped.look([output, *kept])
            grads = taped.gradients([output], None, taped.outside, taped.outside)
        result = tree_unflatten(grads, spec)
        value = taped.released(output)
        return (result, (value, taped.released(aux))) if has_aux else (result, value)

    return with_value


def grad(func: Callable, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable:
    """A function that gives the gradient of `func`, whose result is a single number.

    Arguments and errors are those of `grad_and_value`; with `has_aux` the result is (gradient,
    anything).

    >>> torch.func.grad(lambda x: x ** 3)(torch.tensor(2.))
    tensor(12.)
    >>> torch.func.grad(torch.func.grad(lambda x: x ** 3))(torch.tensor(2.))
    tensor(12.)
    """
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        result, value = both(*args, **kwargs)
        return (result, value[1]) if has_aux else result

    return gradient


def vjp(func: Callable, *primals: Any, has_aux: bool = False) -> tuple:
    """(results, function) where the function maps weights of the results to those of `primals`: the
    vector-Jacobian product.

    Returns:
        (results, vjp_fn), or (results, vjp_fn, anything) if `func` returns (results, anything) and
        `has_aux` is set. `vjp_fn` gives a tuple with one entry per primal.

    Raises:
        RuntimeError: `func` returns something else than (containers of) tensors.

    >>> y, pull = torch.func.vjp(lambda x: x ** 2, torch.tensor([1., 2.]))
    >>> pull(torch.tensor([1., 1.]))
    (tensor([2., 4.]),)
    """
    return vjp_at(func, primals, None, has_aux)


def vjp_at(func: Callable, primals: tuple, argnums: Any, has_aux: bool) -> tuple:
    """`vjp` with respect to the primals at `argnums` (None: all of them)."""
    leaves, spec = tensors_of(primals if argnums is None else chosen(primals, argnums))
    taped = _Taped(leaves)
    with _recording():
        given = tree_unflatten(taped.inputs, spec)
        results = func(*(given if argnums is None else replaced(primals, argnums, given)))
        aux = None
        if has_aux:
            results, aux = _aux(results, "vjp(f, *primals)")
        outputs, shape = tree_flatten(results)
        for out in outputs:
            if not isinstance(out, Tensor):
                raise RuntimeError("vjp(f, *primals): expected f(*primals) to return only tensors, "
                                   f"got unsupported type {type(out)}")
        kept = [leaf for leaf in tree_flatten(aux)[0] if isinstance(leaf, Tensor)]
        taped.look([*outputs, *kept])

    def vjp_fn(cotangents: Any, retain_graph: bool = True,
               create_graph: bool | None = None) -> Any:
        """The gradients of the primals for these weights of the results."""
        weights, given_shape = tree_flatten(cotangents)
        if given_shape != shape:
            raise RuntimeError("Expected pytree structure of cotangents to be the same as pytree "
                               "structure of outputs to the function. cotangents: "
                               f"{given_shape!r}, primal output: {shape!r}")
        if create_graph is None:
            create_graph = is_grad_enabled() and (taped.outside or any(
                w.requires_grad for w in weights if isinstance(w, Tensor)))
        found = taped.gradients(outputs, weights, retain_graph, create_graph)
        return tree_unflatten(found, spec)

    results = tree_unflatten([taped.released(out) for out in outputs], shape)
    return (results, vjp_fn, taped.released(aux)) if has_aux else (results, vjp_fn)


def linearize(func: Callable, *primals: Any) -> tuple[Any, Callable]:
    """(results, function) where the function maps tangents of `primals` to those of the results.

    Unlike with `jvp`, `func` runs only once, however many tangents are asked for; what it computed
    on the way is kept.

    >>> y, push = torch.func.linearize(lambda x: x ** 2, torch.tensor([1., 2.]))
    >>> push(torch.tensor([1., 0.]))
    tensor([2., 0.])
    """
    leaves, spec = tensors_of(primals)
    if not leaves:
        raise RuntimeError("linearize(f, *primals): Expected at least one primal")
    taped = _Taped(leaves)
    with _recording():
        outputs, shape = tree_flatten(func(*tree_unflatten(taped.inputs, spec)))
        _only_tensors(outputs, "linearize(f, *primals)", "the results of f")
        probes = [flambeau.zeros_like(out.detach()).requires_grad_() for out in outputs]
        first = taped.gradients(outputs, probes, True, True)
        taped.look(outputs)

    def jvp_fn(*tangents: Any) -> Any:
        """The tangents of the results for these tangents of the primals."""
        given, given_spec = tree_flatten(tangents)
        if given_spec != spec:
            raise RuntimeError("Expected the tangents to have the same structure as the primals: "
                               f"{given_spec!r}, not {spec!r}")
        for tangent, leaf in zip(given, leaves, strict=True):
            if tangent.shape != leaf.shape or tangent.dtype is not leaf.dtype:
                raise RuntimeError(f"a tangent has shape {list(tangent.shape)} and dtype "
                                   f"{tangent.dtype!r}, its primal {list(leaf.shape)} and "
                                   f"{leaf.dtype!r}")
        pairs = [(g, t) for g, t in zip(first, given, strict=True) if g.requires_grad]
        found: Sequence = [None] * len(probes)
        if pairs:
            found = flambeau.autograd.grad(
                [g for g, _ in pairs], probes, [t for _, t in pairs], retain_graph=True,
                create_graph=is_grad_enabled() and taped.outside, allow_unused=True)
        return tree_unflatten([flambeau.zeros_like(p.detach()) if g is None else g
                               for g, p in zip(found, probes, strict=True)], shape)

    return tree_unflatten([taped.released(out) for out in outputs], shape), jvp_fn


# ---------------------------------------------------------------------- forwards
def jvp(func: Callable, primals: Any, tangents: Any, *, strict: bool = False,
        has_aux: bool = False) -> tuple:
    """(results, their tangents) of `func` at `primals` moved along `tangents`: the Jacobian-vector
    product, in one run forwards.

    Args:
        primals, tangents: tuples of (containers of) tensors of equal structure and shapes.
        strict: raise if a result does not depend on the primals.
        has_aux: `func` returns (results, anything); the result is (results, tangents, anything).

    Raises:
        RuntimeError: structures or shapes do not go together; `func` returns something else than
            tensors.

    >>> torch.func.jvp(lambda x: x ** 2, (torch.tensor([1., 2.]),), (torch.tensor([1., 0.]),))
    (tensor([1., 4.]), tensor([2., 0.]))
    """
    if not isinstance(primals, tuple):
        raise RuntimeError("jvp(f, primals, tangents): Expected primals to be a tuple. E.g. it "
                           "should be valid to call f(*primals).")
    return jvp_at(func, primals, tangents, None, strict, has_aux)


def jvp_at(func: Callable, primals: tuple, tangents: Any, argnums: Any, strict: bool,
           has_aux: bool) -> tuple:
    """`jvp` with respect to the primals at `argnums` (None: all of them)."""
    leaves, spec = tree_flatten(primals if argnums is None else chosen(primals, argnums))
    moves, other = tree_flatten(tangents)
    name = "jvp(f, primals, tangents)"
    if spec != other:
        raise RuntimeError(f"{name}: Expected primals and tangents to have the same python "
                           "structure. For example, if primals is a tuple of 3 tensors, tangents "
                           f"also must be. Got primals with structure {spec!r} and tangents with "
                           f"structure {other!r}")
    _only_tensors(leaves, name, "primals")
    _only_tensors(moves, name, "tangents")
    with JvpLevel() as level:
        duals = [moved(leaf, move, level) for leaf, move in zip(leaves, moves, strict=True)]
        given = tree_unflatten(duals, spec)
        results = func(*(given if argnums is None else replaced(primals, argnums, given)))
        aux = None
        if has_aux:
            results, aux = _aux(results, name)
        outputs, shape = tree_flatten(results)
        found = []
        for out in outputs:
            if not isinstance(out, Tensor):
                raise RuntimeError(f"{name}: expected f(*primals) to return only tensors, got "
                                   f"unsupported type {type(out)}")
            tangent = forward.tangent_of(out, level)
            if tangent is None and strict:
                raise RuntimeError(f"{name}: Expected f to be differentiable with respect to the "
                                   "primals, but a result does not depend on them")
            found.append(tangent)
        values = [_still(out, level) for out in outputs]
        aux = tree_map_only(Tensor, functools.partial(_still, level=level), aux)
    found = [flambeau.zeros_like(entering.unrecorded(out)) if t is None else t
             for out, t in zip(values, found, strict=True)]
    result = tree_unflatten(values, shape), tree_unflatten(found, shape)
    return (*result, aux) if has_aux else result


def _only_tensors(leaves: Sequence, name: str, what: str) -> None:
    if not leaves:
        raise RuntimeError(f"{name}: Expected {what} to contain at least one Tensor.")
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise RuntimeError(f"{name}: Expected {what} to only contain Tensors, got "
                               f"{type(leaf)}")


def moved(leaf: Tensor, move: Tensor, level: JvpLevel) -> Tensor:
    """An input with its tangent.

    Raises:
        ValueError: one of the two is of an integer dtype.
    """
    for what, one in (("primal", leaf), ("tangent", move)):
        if one.dtype.kind not in "fc":
            raise ValueError(f"Expected {what} to be floating point or complex, but got: "
                             f"{one.dtype!r}")
    if move.dtype is not leaf.dtype:
        move = move.to(leaf.dtype)
    return forward.dual(leaf, forward.fitting(leaf, move), level)


def _still(tensor: Tensor, level: JvpLevel) -> Tensor:
    """A result as it leaves its level."""
    if tensor._tangents is not None:
        tensor._tangents.pop(level, None)
    return tensor


def debug_unwrap(tensor: Tensor, *, recurse: bool = True) -> Tensor:
    """The values of all examples that a tensor inside of `vmap` stands for; other tensors as they
    are. For looking at them only: transforms do not see what is done to the result.

    Args:
        recurse: go through all nested transforms.
    """
    while tensor._level is not None:
        tensor = tensor._value
        if not recurse:
            break
    return tensor

