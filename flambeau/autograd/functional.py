"""Derivatives of functions: Jacobians, Hessians and their products with vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flambeau.autograd.api import grad
from flambeau.autograd.grad_mode import enable_grad, is_grad_enabled
from flambeau.autograd.registry import tensors

__all__ = ["vjp", "jvp", "jacobian", "hessian", "hvp", "vhp"]

_OUTPUTS = "outputs of the user-provided function"


def _as_tuple(value: Any, what: str, function: str) -> tuple[tuple, bool]:
    """`value` as a tuple of tensors, and whether it was one already."""
    is_tuple = isinstance(value, tuple)
    values = value if is_tuple else (value,)
    for index, one in enumerate(values):
        if not isinstance(one, tensors.cls):
            where = f"Value at index {index}" if is_tuple else "Given value"
            raise TypeError(f"The {what} given to {function} must be either a Tensor or a tuple of "
                            f"Tensors but the {where.lower()} has type {type(one)}.")
    return values, is_tuple


def _fresh_inputs(inputs: tuple, create_graph: bool, need: bool = True) -> tuple:
    """Copies by reference of the inputs that require grad, linked to them if `create_graph`."""
    result = []
    for one in inputs:
        if create_graph:
            result.append(one.view_as(one) if one.requires_grad
                          else one.detach().requires_grad_(need))
        else:
            result.append(one.detach().requires_grad_(need))
    return tuple(result)


def _finished(results: Any, create_graph: bool) -> Any:
    """Without history unless it was asked for; tuples nest."""
    if isinstance(results, tuple):
        return tuple([_finished(one, create_graph) for one in results])
    return results if create_graph else results.detach()


def _shaped(results: Sequence, is_tuple: bool) -> Any:
    return tuple(results) if is_tuple else results[0]


_INDEPENDENT = {
    "outputs": "Output {i} of the user-provided function does not require gradients. The outputs "
               "must be computed in a differentiable manner from the input when running in strict "
               "mode.",
    "gradient": "The gradient with respect to input {i} is independent of the inputs of the "
                "user-provided function. This is not allowed in strict mode.",
    "jacobian": "While computing the hessian, found that the jacobian of the user-provided "
                "function with respect to input {i} is independent of the inputs. This is not "
                "allowed in strict mode.",
    "back": "The output of the user-provided function is independent of input {i}. This is not "
            "allowed in strict mode.",
    "back_trick": "The gradient with respect to the input is independent of entry {i} in the "
                  "grad_outputs when using the double backward trick to compute forward mode "
                  "gradients. This is not allowed in strict mode.",
    "double_back": "The jacobian of the user-provided function is independent of input {i}. This "
                   "is not allowed in strict mode.",
    "double_back_trick": "The hessian of the user-provided function is independent of entry {i} in "
                         "the grad_jacobian when using the double backward trick to compute "
                         "forward mode gradients. This is not allowed in strict mode.",
}
"""What strict mode says, by the stage at which it finds that nothing depends on something."""


def _require_graph(values: tuple, strict: bool, stage: str = "outputs") -> None:
    if strict:
        for index, one in enumerate(values):
            if not one.requires_grad:
                raise RuntimeError(_INDEPENDENT[stage].format(i=index))


def _filled(grads: Sequence, like: Sequence, strict: bool, create_graph: bool = False,
            stage: str = "back") -> tuple:
    """Zeros where a gradient is None; an error if `strict`."""
    result = []
    for index, (one, other) in enumerate(zip(grads, like, strict=True)):
        if one is None:
            if strict:
                raise RuntimeError(_INDEPENDENT[stage].format(i=index))
            one = tensors.make.zeros_like(other)
        elif strict and create_graph and not one.requires_grad:
            what = "hessian" if stage.startswith("double") else "jacobian"
            raise RuntimeError(f"The {what} of the user-provided function is independent of input "
                               f"{index}. This is not allowed in strict mode when "
                               "create_graph=True.")
        result.append(one)
    return tuple(result)


def _grads(outputs: Sequence, inputs: Sequence, weights: Any, create_graph: bool) -> tuple:
    """`autograd.grad` that leaves out the outputs without history."""
    pairs = [(output, None if weights is None else weights[index])
             for index, output in enumerate(outputs) if output.requires_grad]
    if not pairs:
        return (None,) * len(inputs)
    outputs, weights = zip(*pairs, strict=True)
    return grad(outputs, inputs, weights, retain_graph=True, create_graph=create_graph,
                allow_unused=True)


def _weights(v: Any, like: tuple, function: str) -> tuple:
    """The vector `v`, checked against what it multiplies; one if it is None and scalar."""
    if v is None:
        if len(like) != 1 or like[0].numel() != 1:
            raise RuntimeError(f"The vector v given to {function} can only be None if the "
                               "user-provided function returns a single Tensor with a single "
                               "element.")
        return (tensors.make.ones_like(like[0]),)
    values, _ = _as_tuple(v, "v", function)
    if len(values) != len(like):
        raise RuntimeError(f"v is a tuple of invalid length: should be {len(like)} but got "
                           f"{len(values)}.")
    for index, (one, other) in enumerate(zip(values, like, strict=True)):
        if tuple(one.shape) != tuple(other.shape):
            raise RuntimeError(f"Entry {index} of v has invalid size: should be "
                               f"{tuple(other.shape)} but got {tuple(one.shape)}.")
    return values


def vjp(func: Callable, inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> tuple:
    """The outputs of `func` and the product of `v` with its Jacobian.

    Args:
        func: takes tensors, returns a tensor or a tuple of them.
        inputs: a tensor or a tuple of them.
        v: shaped like the outputs; may be left out for a scalar output.
        create_graph: let the results be differentiated.
        strict: raise an error if an output does not depend on an input, instead of giving zeros.

    Returns:
        (outputs, product), the product shaped like the inputs.

    >>> x = torch.tensor([1., 2.])
    >>> torch.autograd.functional.vjp(lambda x: x ** 2, x, torch.tensor([1., 1.]))
    (tensor([1., 4.]), tensor([2., 4.]))
    """
    record = create_graph and is_grad_enabled()
    with enable_grad():
        given, many_inputs = _as_tuple(inputs, "inputs", "vjp")
        fresh = _fresh_inputs(given, create_graph)
        outputs, many_outputs = _as_tuple(func(*fresh), _OUTPUTS, "vjp")
        _require_graph(outputs, strict)
        products = _filled(_grads(outputs, fresh, _weights(v, outputs, "vjp"), record), fresh,
                           strict, create_graph)
    return (_finished(_shaped(outputs, many_outputs), create_graph),
            _finished(_shaped(products, many_inputs), create_graph))


def jvp(func: Callable, inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> tuple:
    """The outputs of `func` and the product of its Jacobian with `v`.

    The vector-Jacobian product is linear in its vector, so differentiating it a second time, with
    respect to that vector, gives this one.

    Args:
        v: shaped like the inputs; may be left out for a scalar input. The rest as in `vjp`.

    Returns:
        (outputs, product), the product shaped like the outputs.

    >>> x = torch.tensor([1., 2.])
    >>> torch.autograd.functional.jvp(lambda x: x ** 2, x, torch.tensor([1., 0.]))
    (tensor([1., 4.]), tensor([2., 0.]))
    """
    with enable_grad():
        given, _ = _as_tuple(inputs, "inputs", "jvp")
        tangents = _weights(v, given, "jvp")
        fresh = _fresh_inputs(given, create_graph)
        outputs, many_outputs = _as_tuple(func(*fresh), _OUTPUTS, "jvp")
        _require_graph(outputs, strict)
        probes = tuple([tensors.make.zeros_like(one).requires_grad_() for one in outputs])
        first = _filled(_grads(outputs, fresh, probes, True), fresh, strict)
        if create_graph:
            _require_graph(first, strict, "gradient")
        products = _filled(_grads(first, probes, tangents, create_graph), outputs, strict,
                           create_graph, "back_trick")
    return (_finished(_shaped(outputs, many_outputs), create_graph),
            _finished(_shaped(products, many_outputs), create_graph))


def jacobian(func: Callable, inputs: Any, create_graph: bool = False, strict: bool = False,
             vectorize: bool = False, strategy: str = "reverse-mode") -> Any:
    """The Jacobian of `func`: for each output and input, a tensor of shape output + input.

    Args:
        vectorize: compute all rows at once, as one batch, instead of one by one.
        strategy: "reverse-mode", or "forward-mode": column by column, always with `vectorize`.
            The rest as in `vjp`.

    Returns:
        One tensor; a tuple of them if there are several inputs or outputs; a tuple (per output)
        of tuples (per input) if there are several of both.

    >>> torch.autograd.functional.jacobian(lambda x: x * x.sum(), torch.tensor([1., 2.]))
    tensor([[4., 1.],
            [2., 5.]])
    """
    if strategy not in ("reverse-mode", "forward-mode"):
        raise AssertionError('Expected strategy to be either "forward-mode" or "reverse-mode". '
                             'Hint: If your function has more outputs than inputs, "forward-mode" '
                             'is recommended. Otherwise, prefer to use "reverse-mode".')
    name = "torch.autograd.functional.jacobian"
    if strategy == "forward-mode":
        if create_graph:
            raise NotImplementedError(f"{name}: `create_graph=True` and `strategy=\"forward-mode\"`"
                                      " are not supported together (yet). Please either set "
                                      "`create_graph=False` or `strategy=\"reverse-mode\"`.")
        return _forward_jacobian(func, inputs, strict, vectorize)
    if strict and vectorize:
        raise RuntimeError(f"{name}: `strict=True` and `vectorized=True` are not supported "
                           "together. Please either set `strict=False` or `vectorize=False`.")
    with enable_grad():
        given, many_inputs = _as_tuple(inputs, "inputs", "jacobian")
        fresh = _fresh_inputs(given, create_graph)
        outputs, many_outputs = _as_tuple(func(*fresh), _OUTPUTS, "jacobian")
        _require_graph(outputs, strict)
        rows = _batched_rows(outputs, fresh, create_graph) if vectorize else tuple(
            [_jacobian_of(output, fresh, create_graph, strict) for output in outputs])
    rows = _finished(rows, create_graph)
    if many_outputs:
        return rows if many_inputs else tuple([row[0] for row in rows])
    return rows[0] if many_inputs else rows[0][0]


def _basis(like: Sequence) -> list:
    """The unit vectors of all elements of `like` together: for each tensor its part of them, as a
    batch of tensors of its shape."""
    counts = [one.numel() for one in like]
    total, start, result = sum(counts), 0, []
    for one, count in zip(like, counts, strict=True):
        part = tensors.make.zeros((total, count), dtype=one.dtype, device=one.device)
        if count:
            part[start:start + count] = tensors.make.eye(count, dtype=one.dtype,
                                                           device=one.device)
        result.append(part.reshape((total, *one.shape)))
        start += count
    return result


def _batched_rows(outputs: tuple, inputs: tuple, create_graph: bool) -> tuple:
    """The Jacobians of all outputs, from one batch of gradients."""

    def gradients(*weights: Any) -> tuple:
        return _filled(_grads(outputs, inputs, weights, create_graph), inputs, False)

    counts = [output.numel() for output in outputs]
    parts = tensors.forward().over_batch(gradients, _basis(outputs), sum(counts))
    pieces = [part.split(counts) for part in parts]
    return tuple([tuple([pieces[i][o].reshape(tuple(output.shape) + tuple(one.shape))
                         for i, one in enumerate(inputs)]) for o, output in enumerate(outputs)])


def _forward_jacobian(func: Callable, inputs: Any, strict: bool, vectorize: bool) -> Any:
    """The Jacobian from one batch of tangents."""
    if strict:
        raise RuntimeError("torch.autograd.functional.jacobian: `strict=True` and "
                           '`strategy="forward-mode"` are not supported together (yet). Please '
                           'either set `strict=False` or `strategy="reverse-mode"`.')
    if not vectorize:
        raise NotImplementedError("Computing Jacobian using forward-AD or forward-over-reverse "
                                  "Hessian is only implemented for `vectorize=True`.")
    given, many_inputs = _as_tuple(inputs, "inputs", "jacobian")
    kept: list = []

    def pushed(*moves: Any) -> tuple:
        def checked(*values: Any) -> Any:
            results = func(*values)
            kept[:] = [_as_tuple(results, _OUTPUTS, "jacobian")[1]]
            return results

        return tensors.forward().push(checked, given, moves)[1]

    counts = [one.numel() for one in given]
    parts = tensors.forward().over_batch(pushed, _basis(given), sum(counts))
    many_outputs = kept[0]
    rows = tuple([tuple([piece.movedim(0, -1).reshape(tuple(part.shape[1:]) + tuple(one.shape))
                         for piece, one in zip(part.split(counts), given, strict=True)])
                  for part in parts])
    if many_outputs:
        return rows if many_inputs else tuple([row[0] for row in rows])
    return rows[0] if many_inputs else rows[0][0]


def _jacobian_of(output: Any, inputs: tuple, create_graph: bool, strict: bool) -> tuple:
    """The Jacobians of one output, one per input."""
    make = tensors.make
    shape = tuple(output.shape)
    columns: list[list] = [[] for _ in inputs]
    for element in output.reshape(-1).unbind(0) if output.numel() else ():
        grads = _filled(_grads((element,), inputs, None, create_graph), inputs, strict,
                        create_graph)
        for column, one in zip(columns, grads, strict=True):
            column.append(one)
    return tuple([
        tensors.forward().stacked(column).reshape(shape + tuple(one.shape)) if column
        else make.zeros(shape + tuple(one.shape), dtype=one.dtype, device=one.device)
        for column, one in zip(columns, inputs, strict=True)])


def _scalar(output: Any, function: str) -> Any:
    if not isinstance(output, tensors.cls):
        raise RuntimeError(f"The function given to {function} should return a single Tensor")
    if output.numel() != 1:
        raise RuntimeError(f"The Tensor returned by the function given to {function} should "
                           "contain a single element")
    return output.reshape(())


def hessian(func: Callable, inputs: Any, create_graph: bool = False, strict: bool = False,
            vectorize: bool = False, outer_jacobian_strategy: str = "reverse-mode") -> Any:
    """The Hessian of a function with one scalar result.

    Args:
        vectorize: compute all rows at once, as one batch.
        outer_jacobian_strategy: "reverse-mode", or "forward-mode" (forwards over reverse, always
            with `vectorize`). The rest as in `vjp`.

    Returns:
        A tensor of shape input + input; for a tuple of inputs, a tuple of tuples.

    >>> torch.autograd.functional.hessian(lambda x: (x ** 3).sum(), torch.tensor([1., 2.]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    given, many_inputs = _as_tuple(inputs, "inputs", "hessian")
    if outer_jacobian_strategy not in ("reverse-mode", "forward-mode"):
        raise AssertionError('Expected strategy to be either "forward-mode" or "reverse-mode".')

    def gradient(*args: Any) -> tuple:
        def scalar_func(*values: Any) -> Any:
            return _scalar(func(*values), "hessian")
        if outer_jacobian_strategy == "forward-mode":
            args = tuple([one.requires_grad_() for one in args])
        linked = tuple([one.view_as(one) for one in args])
        return jacobian(scalar_func, linked, create_graph=True, strict=strict)

    rows = jacobian(gradient, given, create_graph=create_graph, strict=strict,
                    vectorize=vectorize, strategy=outer_jacobian_strategy)
    return rows if many_inputs else rows[0][0]


def _gradient(func: Callable, given: tuple, create_graph: bool, strict: bool,
              function: str) -> tuple:
    """Inputs, outputs and first derivatives of a scalar function, all with history."""
    fresh = _fresh_inputs(given, create_graph)
    output = func(*fresh)
    _scalar(output, function)
    _require_graph((output,), strict)
    return fresh, output, _filled(_grads((output,), fresh, None, True), fresh, strict)


def vhp(func: Callable, inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> tuple:
    """The output of a scalar function and the product of `v` with its Hessian.

    Args:
        v: shaped like the inputs. The rest as in `vjp`.

    Returns:
        (output, product), the product shaped like the inputs.

    >>> x = torch.tensor([1., 2.])
    >>> torch.autograd.functional.vhp(lambda x: (x ** 3).sum(), x, torch.tensor([1., 0.]))
    (tensor(9.), tensor([6., 0.]))
    """
    with enable_grad():
        given, many_inputs = _as_tuple(inputs, "inputs", "vhp")
        vectors = _weights(v, given, "vhp")
        fresh, output, first = _gradient(func, given, create_graph, strict, "vhp")
        _require_graph(first, strict, "jacobian")
        products = _filled(_grads(first, fresh, vectors, create_graph), fresh, strict,
                           create_graph, "double_back")
    return (_finished(output, create_graph),
            _finished(_shaped(products, many_inputs), create_graph))


def hvp(func: Callable, inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> tuple:
    """The output of a scalar function and the product of its Hessian with `v`.

    Arguments and results are those of `vhp`; where the Hessian is symmetric the two agree, and
    `vhp` is faster.

    >>> x = torch.tensor([1., 2.])
    >>> torch.autograd.functional.hvp(lambda x: (x ** 3).sum(), x, torch.tensor([1., 0.]))
    (tensor(9.), tensor([6., 0.]))
    """
    with enable_grad():
        given, many_inputs = _as_tuple(inputs, "inputs", "hvp")
        vectors = _weights(v, given, "hvp")
        fresh, output, first = _gradient(func, given, create_graph, strict, "hvp")
        probes = tuple([tensors.make.zeros_like(one).requires_grad_() for one in first])
        _require_graph(first, strict, "jacobian")
        second = _filled(_grads(first, fresh, probes, True), fresh, strict, False, "double_back")
        products = _filled(_grads(second, probes, vectors, create_graph), fresh, strict,
                           create_graph, "double_back_trick")
    return (_finished(output, create_graph),
            _finished(_shaped(products, many_inputs), create_graph))
