"""`gradcheck` and `gradgradcheck`: analytical derivatives against finite differences.

Complex numbers are handled as pairs. For an output element and a direction v (1, and 1j if the
output is complex) let L = Re(conj(v) * output). The backward with v must then give dL/dx for a
real input and dL/d(Re x) + 1j * dL/d(Im x) for a complex one.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from flambeau.autograd import tape
from flambeau.autograd.api import grad
from flambeau.autograd.engine import run_backward
from flambeau.autograd.registry import tensors

__all__ = ["gradcheck", "gradgradcheck", "GradcheckError"]


class GradcheckError(RuntimeError):
    """A derivative is wrong; the text shows both Jacobians."""


def gradcheck(func: Callable, inputs: Any, *, eps: float = 1e-6, atol: float = 1e-5,
              rtol: float = 1e-3, raise_exception: bool = True, nondet_tol: float = 0.0,
              check_undefined_grad: bool = True, check_grad_dtypes: bool = False,
              check_batched_grad: bool = False, check_batched_forward_grad: bool = False,
              check_forward_ad: bool = False, check_backward_ad: bool = True,
              fast_mode: bool = False, masked: bool | None = None) -> bool:
    """Check the backward of `func` at `inputs` against central differences.

    Args:
        func: takes the inputs, returns a tensor or a sequence of them.
        inputs: a tensor or a sequence; those that require grad should be float64 or complex128.
        eps: the step of the differences.
        atol, rtol: |analytical - numerical| <= atol + rtol * |numerical| must hold.
        raise_exception: raise if a check fails; else return False.
        nondet_tol: how far two runs of the same backward may differ.
        check_undefined_grad: also check that missing gradients count as zeros.
        check_grad_dtypes: also check that each gradient has its input's dtype.
        check_batched_grad: also check that a batch of gradients (vmap) is what a loop gives.
        check_backward_ad, check_forward_ad: check reverse and forward mode.
        check_batched_forward_grad: the same of forward mode over a batch.
        fast_mode: accepted; the whole Jacobian is compared all the same.
        masked: accepted for dense inputs, where it changes nothing.

    Returns:
        True if everything agrees.

    Raises:
        GradcheckError: something differs.
        ValueError: no input requires grad.

    >>> x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    >>> torch.autograd.gradcheck(torch.sin, (x,))
    True
    """
    if not (check_backward_ad or check_forward_ad):
        raise AssertionError("Expected at least one of check_forward_ad or check_backward_ad to be "
                             "True")
    if check_batched_grad and not check_backward_ad:
        raise AssertionError("Setting check_batched_grad=True requires check_backward_ad to be "
                             "True")
    if check_batched_forward_grad and not check_forward_ad:
        raise AssertionError("Setting check_batched_forward_grad=True requires check_forward_ad to "
                             "be True")
    inputs = _as_tuple(inputs)
    _check_inputs(inputs)
    try:
        if check_forward_ad:
            _check_forward(func, inputs, eps, atol, rtol, check_batched_forward_grad)
        if check_backward_ad:
            _check_backward(func, inputs, eps, atol, rtol, nondet_tol, check_grad_dtypes)
        if check_batched_grad:
            _check_batched(func, inputs, atol, rtol)
        if check_undefined_grad and check_backward_ad:
            _check_undefined(func, inputs)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(func: Callable, inputs: Any, grad_outputs: Any = None, *, eps: float = 1e-6,
                  atol: float = 1e-5, rtol: float = 1e-3,
                  gen_non_contig_grad_outputs: bool = False, raise_exception: bool = True,
                  nondet_tol: float = 0.0, check_undefined_grad: bool = True,
                  check_grad_dtypes: bool = False, check_batched_grad: bool = False,
                  check_fwd_over_rev: bool = False, check_rev_over_rev: bool = True,
                  fast_mode: bool = False, masked: bool = False) -> bool:
    """Check the second derivatives of `func`: `gradcheck` of its backward.

    Args:
        grad_outputs: where the backward is checked (they get derivatives too); random numbers
            from a fixed seed if None.
        gen_non_contig_grad_outputs: make the random ones not contiguous.
        check_fwd_over_rev: not supported. The rest as in `gradcheck`.

    >>> x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    >>> torch.autograd.gradgradcheck(torch.sin, (x,))
    True
    """
    if check_fwd_over_rev:
        raise NotImplementedError("gradgradcheck checks reverse over reverse mode only: leave out "
                                  "check_fwd_over_rev")
    if not check_rev_over_rev:
        raise AssertionError("Expected at least one check to be enabled: check_rev_over_rev")
    inputs = _as_tuple(inputs)
    _check_inputs(inputs)
    if grad_outputs is None:
        rng = np.random.default_rng(20)
        weights = tuple([_random_like(output, rng, gen_non_contig_grad_outputs)
                         for output in _differentiable(func(*inputs))])
    else:
        weights = _as_tuple(grad_outputs)
    count = len(inputs)

    def backward_of_func(*args: Any) -> tuple:
        given, weights = args[:count], args[count:]
        wanted = [one for one in given if _requires_grad(one)]
        found = grad(_differentiable(func(*given)), wanted, weights, create_graph=True,
                     allow_unused=True)
        return tuple([one for one in found if one is not None])

    return gradcheck(backward_of_func, inputs + weights, eps=eps, atol=atol, rtol=rtol,
                     raise_exception=raise_exception, nondet_tol=nondet_tol,
                     check_undefined_grad=check_undefined_grad,
                     check_grad_dtypes=check_grad_dtypes, check_batched_grad=check_batched_grad,
                     fast_mode=fast_mode, masked=masked)


def _as_tuple(values: Any) -> tuple:
    if isinstance(values, (tuple, list)):
        return tuple(values)
    return (values,)


def _requires_grad(value: Any) -> bool:
    return isinstance(value, tensors.cls) and value.requires_grad


def _differentiable(outputs: Any) -> tuple:
    return tuple([one for one in _as_tuple(outputs) if _requires_grad(one)])


def _random_like(output: Any, rng: np.random.Generator, spread: bool) -> Any:
    """Numbers in [-1, 1) with the shape, dtype and device of `output`; they require grad."""
    shape = tuple(output.shape)
    values = rng.uniform(-1, 1, (*shape, 2 if spread else 1))
    if output.dtype.is_complex:
        values = values + 1j * rng.uniform(-1, 1, values.shape)
    made = tensors.make.tensor(values.astype(output.dtype.numpy))
    if getattr(output, "device", None) is not None:
        made = made.to(output.device)
    return made[..., 0].detach().requires_grad_()


def _check_inputs(inputs: tuple) -> None:
    """At least one input must be differentiable; none may overlap itself."""
    found = False
    for index, one in enumerate(inputs):
        if not _requires_grad(one):
            continue
        found = True
        if one.dtype.name not in ("float64", "complex128"):
            warnings.warn(f"Input #{index} requires gradient and is not a double precision "
                          "floating point or complex. This check will likely fail if all the "
                          "inputs are not of double precision floating point or complex.",
                          stacklevel=3)
        layout = one._meta
        if any(stride == 0 and size > 1
               for stride, size in zip(layout.strides, layout.shape, strict=True)) and one.numel():
            raise RuntimeError(f"The {index}th input has a dimension with stride 0. gradcheck only "
                               "supports inputs that are non-overlapping to be able to compute "
                               "the numerical gradients correctly. You should call .contiguous on "
                               "the input before passing it to gradcheck.")
    if not found:
        raise ValueError("gradcheck expects at least one input tensor to require gradient, but "
                         "none of them have requires_grad=True.")


def _values(tensor: Any) -> np.ndarray:
    """A copy of the elements as a flat array of reals: pairs (Re, Im) if complex."""
    array = np.array(tensor.detach().cpu().numpy()).reshape(-1)
    if array.dtype.kind == "c":
        return array.astype(np.complex128).view(np.float64)
    return array.astype(np.float64)


def _directions(tensor: Any) -> tuple:
    return (1.0, 1j) if tensor.dtype.is_complex else (1.0,)


def _steps(tensor: Any, eps: float) -> Iterator[tuple[Any, tuple, Any]]:
    """(writable alias, index, step) for each real degree of freedom, in the order of `_values`."""
    alias = tensor.detach()
    for index in itertools.product(*map(range, tuple(tensor.shape))):
        for direction in _directions(tensor):
            yield alias, index, eps * direction


def _numerical(func: Callable, inputs: tuple, outputs_of: Callable, eps: float) -> list[list]:
    """Central differences: [output][input] -> array (input degrees, output degrees)."""
    columns = []
    for one in inputs:
        if not _requires_grad(one):
            continue
        rows = []
        version = one._storage.version
        for alias, index, step in _steps(one, eps):
            before = alias[index].item()
            alias[index] = before + step
            above = [_values(output) for output in outputs_of(func(*inputs))]
            alias[index] = before - step
            below = [_values(output) for output in outputs_of(func(*inputs))]
            alias[index] = before
            rows.append([(a - b) / (2 * eps) for a, b in zip(above, below, strict=True)])
        one._storage.version = version  # everything is as it was: graphs that saved it stay good
        columns.append(rows)
    return columns


def _jacobian_block(rows: list, output: int, degrees: int) -> np.ndarray:
    if not rows:
        return np.zeros((0, degrees))
    return np.stack([row[output] for row in rows])


def _analytical(output: Any, inputs: Sequence[Any], check_dtypes: bool) -> list[np.ndarray]:
    """The Jacobian of one output by the tape: per input, (input degrees, output degrees)."""
    columns: list[list] = [[] for _ in inputs]
    make = tensors.make
    for index in itertools.product(*map(range, tuple(output.shape))):
        for direction in _directions(output):
            weight = make.zeros_like(output.detach())
            weight[index] = direction
            found = grad((output,), inputs, (weight,), retain_graph=True, allow_unused=True)
            for column, one, result in zip(columns, inputs, found, strict=True):
                if result is None:
                    column.append(np.zeros(one.numel() * len(_directions(one))))
                    continue
                if check_dtypes and result.dtype != one.dtype:
                    raise GradcheckError(f"a gradient has dtype {result.dtype}, its input "
                                         f"{one.dtype}")
                column.append(_values(result))
    return [np.stack(column, axis=1) if column else
            np.zeros((one.numel() * len(_directions(one)), 0))
            for column, one in zip(columns, inputs, strict=True)]


def _check_backward(func: Callable, inputs: tuple, eps: float, atol: float, rtol: float,
                    nondet_tol: float, check_dtypes: bool) -> None:
    wanted = [one for one in inputs if _requires_grad(one)]
    numerical = _numerical(func, inputs, _differentiable, eps)
    outputs = _differentiable(func(*inputs))
    if not outputs:
        _check_constant(func, inputs, eps)
        return
    places = [index for index, one in enumerate(inputs) if _requires_grad(one)]
    for number, output in enumerate(outputs):
        analytical = _analytical(output, wanted, check_dtypes)
        again = _analytical(output, wanted, check_dtypes)
        degrees = output.numel() * len(_directions(output))
        for column, place in enumerate(places):
            by_tape = analytical[column]
            by_steps = _jacobian_block(numerical[column], number, degrees)
            if not np.allclose(by_tape, by_steps, rtol=rtol, atol=atol):
                raise GradcheckError(_mismatch(number, place, by_steps, by_tape, output,
                                               inputs[place]))
            if by_tape.size and np.abs(by_tape - again[column]).max() > nondet_tol:
                raise GradcheckError(
                    "Backward is not reentrant, i.e., running backward with same input and "
                    "grad_output multiple times gives different values, although analytical "
                    "gradient matches numerical gradient. The tolerance for nondeterminism was "
                    f"{nondet_tol}.")


def _floating(outputs: Any) -> list:
    return [one for one in _as_tuple(outputs) if isinstance(one, tensors.cls)
            and (one.dtype.is_floating_point or one.dtype.is_complex)]


def _check_forward(func: Callable, inputs: tuple, eps: float, atol: float, rtol: float,
                   batched: bool) -> None:
    """The tangents against differences, one degree of freedom at a time, or all as a batch."""
    numerical = _numerical(func, inputs, _floating, eps)
    places = [index for index, one in enumerate(inputs) if _requires_grad(one)]
    for column, place in enumerate(places):
        one = inputs[place].detach()

        def of_one(value: Any, place: int = place) -> tuple:
            return tuple(_floating(func(*inputs[:place], value, *inputs[place + 1:])))

        def moved(move: Any, one: Any = one, of_one: Callable = of_one) -> tuple:
            return tensors.forward().push(of_one, (one,), (move,))[1]

        outputs = of_one(one)
        moves = []
        for index, direction in itertools.product(
                itertools.product(*map(range, tuple(one.shape))), _directions(one)):
            move = tensors.make.zeros_like(one)
            move[index] = direction
            moves.append(move)
        rows = [[_values(part) for part in moved(move)] for move in moves]
        if batched and moves:
            found = tensors.forward().over_batch(moved, (tensors.forward().stacked(moves),),
                                                 len(moves))
            _compare_batch(found, rows, atol, rtol, "forward")
        for number, output in enumerate(outputs):
            degrees = output.numel() * len(_directions(output))
            by_rule, by_steps = (_jacobian_block(table, number, degrees)
                                 for table in (rows, numerical[column]))
            if not np.allclose(by_rule, by_steps, rtol=rtol, atol=atol):
                raise GradcheckError("In forward mode: " + _mismatch(
                    number, place, by_steps, by_rule, output, one))


def _check_batched(func: Callable, inputs: tuple, atol: float, rtol: float) -> None:
    """Two gradients at once against one after the other."""
    wanted = [one for one in inputs if _requires_grad(one)]
    rng = np.random.default_rng(0)
    for output in _differentiable(func(*inputs)):
        weights = [_random_like(output, rng, False).detach() for _ in range(2)]

        def gradients(weight: Any, output: Any = output) -> tuple:
            found = grad((output,), wanted, (weight,), retain_graph=True, allow_unused=True)
            return tuple([tensors.make.zeros_like(one.detach()) if g is None else g
                          for g, one in zip(found, wanted, strict=True)])

        rows = [[_values(part) for part in gradients(weight)] for weight in weights]
        found = tensors.forward().over_batch(gradients, (tensors.forward().stacked(weights),), 2)
        _compare_batch(found, rows, atol, rtol, "backward")


def _compare_batch(found: Sequence, rows: list, atol: float, rtol: float, mode: str) -> None:
    for place, part in enumerate(found):
        for one, row in zip(part.unbind(0), rows, strict=True):
            if not np.allclose(_values(one), row[place], rtol=rtol, atol=atol):
                raise GradcheckError(f"While testing batched gradients in {mode} mode: number "
                                     f"{place} of them differs under vmap from what a loop gives")


def _mismatch(number: int, place: int, numerical: np.ndarray, analytical: np.ndarray, output: Any,
              one: Any) -> str:
    """What is wrong where."""
    text = [f"Jacobian mismatch for output {number} with respect to input {place},",
            f"numerical:{numerical}", f"analytical:{analytical}"]
    error = np.abs(numerical - analytical)
    row, column = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)),
                                   error.shape)
    element = np.unravel_index(row // len(_directions(one)), tuple(one.shape) or (1,))
    result = np.unravel_index(column // len(_directions(output)), tuple(output.shape) or (1,))
    text.append(f"largest difference {error[row, column]:.3g}: d output{_index(result)} / "
                f"d input{_index(element)} is {numerical[row, column]:.6g} numerically and "
                f"{analytical[row, column]:.6g} analytically")
    if one.dtype.is_complex or output.dtype.is_complex:
        text.append("(a complex element takes two rows or columns: real, imaginary)")
    return "\n".join(text)


def _index(position: tuple) -> str:
    return str([int(one) for one in position])


def _check_constant(func: Callable, inputs: tuple, eps: float) -> None:
    """No output requires grad: then none may depend on an input either."""
    for rows in _numerical(func, inputs, _floating, eps):
        for row in rows:
            if any(np.any(np.abs(block) > 1e-12) for block in row):
                raise GradcheckError("Numerical gradient for function expected to be zero")


class _NoGradient(tape.Node):
    """Passes on that there is no gradient."""

    __slots__ = ()
    wants_none = True

    def apply(self, grads: list) -> tuple:
        return (None,)


def _check_undefined(func: Callable, inputs: tuple) -> None:
    """A backward that gets no gradient must give none, or zeros."""
    wanted = [one for one in inputs if _requires_grad(one)]
    outputs = _differentiable(func(*inputs))
    groups = [(one,) for one in range(len(outputs))]
    if len(outputs) > 1:
        groups.append(tuple(range(len(outputs))))
    for group in groups:
        fresh = _differentiable(func(*inputs))
        roots = []
        for number in group:
            edge = tape.edge_of(fresh[number])
            roots.append(tape.GradientEdge(_NoGradient((edge,), (fresh[number]._meta,)), 0))
        try:
            found = run_backward(roots, [None] * len(roots), True, False, wanted, True, False)
        except Exception as error:
            raise GradcheckError("Expected backward function to handle undefined output grads: "
                                 f"{type(error).__name__}: {error}") from error
        for result in found:
            if result is not None and np.any(_values(result)):
                raise GradcheckError("Expected all input grads to be undefined or zero when all "
                                     "output grads are undefined or zero.")
