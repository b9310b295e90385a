"""`backward` and `grad`: the checks of their arguments, and the way into the engine."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from flambeau.autograd import tape
from flambeau.autograd.engine import run_backward
from flambeau.autograd.registry import tensors
from flambeau.autograd.tape import GradientEdge

__all__ = ["backward", "grad", "tensor_backward"]


def tensor_backward(tensor: Any, gradient: Any = None, retain_graph: bool | None = None,
                    create_graph: bool = False, inputs: Any = None) -> None:
    """`Tensor.backward`: add d(tensor)/d(leaf), weighted by `gradient`, to every leaf's `.grad`."""
    if inputs is not None:
        backward(tensor, gradient, retain_graph, create_graph, inputs=inputs)
        return
    gradient = make_grad(tensor, gradient, 0)
    if retain_graph is None:
        retain_graph = create_graph
    run_backward((tensor,), (gradient,), retain_graph, create_graph)


def backward(tensors: Any, grad_tensors: Any = None, retain_graph: bool | None = None,
             create_graph: bool = False, grad_variables: Any = None, inputs: Any = None) -> None:
    """Add the gradients of `tensors` with respect to the leaves to the leaves' `.grad`.

    Args:
        tensors: a tensor or a sequence of them.
        grad_tensors: for each, the gradient to start from, of the same shape; None stands for one,
            which only a tensor with one element allows.
        retain_graph: keep the graph for another pass (default: `create_graph`).
        create_graph: record the pass, so that the gradients can be differentiated again.
        grad_variables: the old name of `grad_tensors`.
        inputs: accumulate only into these tensors.

    Raises:
        RuntimeError: a tensor needs no gradient, a shape does not fit, or the graph was freed.

    >>> x = torch.tensor([1., 2.]).requires_grad_()
    >>> torch.autograd.backward((x * x).sum())
    >>> x.grad
    tensor([2., 4.])
    """
    if grad_variables is not None:
        warnings.warn("`grad_variables` is deprecated. Use `grad_tensors` instead.",
                      FutureWarning, stacklevel=2)
        if grad_tensors is not None:
            raise RuntimeError("`grad_tensors` and `grad_variables` (deprecated) arguments both "
                               "passed to `backward()`. Please only use `grad_tensors`.")
        grad_tensors = grad_variables
    if inputs is not None:
        inputs = _sequence(inputs)
        if not inputs:
            raise RuntimeError("`inputs` argument to `backward()` cannot be empty.")
    tensors = _sequence(tensors)
    grads = make_grads(tensors, grad_tensors)
    if retain_graph is None:
        retain_graph = create_graph
    run_backward(tensors, grads, retain_graph, create_graph, inputs, True, True)


def grad(outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: bool | None = None,
         create_graph: bool = False, only_inputs: bool = True, allow_unused: bool | None = None,
         is_grads_batched: bool = False, materialize_grads: bool = False) -> tuple:
    """The gradients of `outputs` with respect to `inputs`; no `.grad` is touched.

    Args:
        outputs: a tensor or a sequence of them.
        inputs: a tensor or a sequence of them; each must require grad.
        grad_outputs: for each output, the gradient to start from, of the same shape.
        retain_graph: keep the graph for another pass (default: `create_graph`).
        create_graph: record the pass, so that the results can be differentiated again.
        only_inputs: ignored (always True), with a warning if False.
        allow_unused: give None for an input that no output depends on, instead of an error
            (default: `materialize_grads`).
        is_grads_batched: the first dimension of each of `grad_outputs` counts examples, which are
            taken back all at once; gradients get this dimension too.
        materialize_grads: give zeros instead of None.

    Returns:
        One gradient per input.

    >>> x = torch.tensor(3., requires_grad=True)
    >>> (slope,) = torch.autograd.grad(x ** 3, x, create_graph=True)
    >>> slope.item()
    27.0
    >>> torch.autograd.grad(slope, x)
    (tensor(18.),)
    """
    if materialize_grads and allow_unused is False:
        raise ValueError("Expected allow_unused to be True or not passed when "
                         f"materialize_grads=True, but got: allow_unused={allow_unused}.")
    if not only_inputs:
        warnings.warn("only_inputs argument is deprecated and is ignored now (defaults to True). "
                      "To accumulate gradient for other parts of the graph, please use "
                      "torch.autograd.backward.", FutureWarning, stacklevel=2)
    outputs, inputs = _sequence(outputs), _sequence(inputs)
    if not inputs:
        raise RuntimeError("`inputs` argument to `grad()` cannot be empty.")
    if allow_unused is None:
        allow_unused = materialize_grads
    if retain_graph is None:
        retain_graph = create_graph
    unused = allow_unused or materialize_grads
    if is_grads_batched:
        found = _over_batch(outputs, grad_outputs, retain_graph, create_graph, inputs, unused)
    else:
        grads = make_grads(outputs, grad_outputs)
        found = run_backward(outputs, grads, retain_graph, create_graph, inputs, unused, False)
    if materialize_grads:
        for index, one in enumerate(inputs):
            if found[index] is None and isinstance(one, GradientEdge):
                raise RuntimeError("materialize_grads cannot be used when the given input is a "
                                   "GradientEdge")
        found = tuple(tensors.make.zeros_like(one) if result is None else result
                      for result, one in zip(found, inputs, strict=True))
    return found


def _over_batch(outputs: Sequence, grads: Any, retain_graph: bool, create_graph: bool,
                inputs: Sequence, unused: bool) -> tuple:
    """The gradients for each example of weights whose first dimension counts the examples."""
    grads = (None,) * len(outputs) if grads is None else _sequence(grads)
    if len(grads) != len(outputs):
        raise RuntimeError(f"got {len(outputs)} tensors and {len(grads)} gradients")
    rows = [g for g in grads if g is not None]
    if not rows:
        raise ValueError("is_grads_batched=True needs grad_outputs: their first dimension counts "
                         "the examples")
    for index, (output, grad) in enumerate(zip(outputs, grads, strict=True)):
        if grad is not None and not isinstance(output, GradientEdge) and (
                grad.shape[1:] != output.shape or not grad.dim()):
            raise RuntimeError(
                "If `is_grads_batched=True`, we interpret the first dimension of each grad_output "
                "as the batch dimension. The sizes of the remaining dimensions are expected to "
                f"match the shape of corresponding output, but grad_output[{index}] has a shape of "
                f"{grad.shape} and output[{index}] has a shape of {output.shape}.")
    sizes = [row.shape[0] for row in rows]
    if len(set(sizes)) > 1:
        raise ValueError(f"the grad_outputs hold {sizes} examples, which must be as many for each")
    places: list = []

    def gradients(*weights: Any) -> list:
        given = iter(weights)
        full = make_grads(outputs, [None if g is None else next(given) for g in grads])
        found = run_backward(outputs, full, retain_graph, create_graph, inputs, unused, False)
        places[:] = [g is not None for g in found]
        return [g for g in found if g is not None]

    found = iter(tensors.forward().over_batch(gradients, rows, sizes[0]))
    return tuple([next(found) if there else None for there in places])


def _sequence(value: Any) -> tuple:
    if isinstance(value, GradientEdge) or hasattr(value, "requires_grad"):
        return (value,)
    return tuple(value)


def make_grads(outputs: Sequence[Any], grads: Any) -> tuple:
    """The gradients to start from, one per output; None where an output needs none."""
    if grads is None:
        grads = (None,) * len(outputs)
    elif hasattr(grads, "requires_grad"):
        grads = (grads,)
    else:
        grads = tuple(grads)
    if len(grads) != len(outputs):
        raise RuntimeError(f"got {len(outputs)} tensors and {len(grads)} gradients")
    return tuple([make_grad(output, grad, index)
                  for index, (output, grad) in enumerate(zip(outputs, grads, strict=True))])


def make_grad(output: Any, grad: Any, index: int) -> Any:
    """The gradient to start from at one output: `grad` if it fits, one if it is None."""
    if isinstance(output, GradientEdge):
        if grad is None and isinstance(output.node.output_metas, tuple):
            layout = output.node.output_metas[output.output_nr]
            if any(size != 1 for size in layout.shape):
                raise RuntimeError("grad can be implicitly created only for scalar outputs")
            return tape.zeros_for(layout) + 1
        return grad
    if grad is None:
        if not output.requires_grad:
            return None
        if output.numel() != 1:
            raise RuntimeError("grad can be implicitly created only for scalar outputs")
        if not output.dtype.is_floating_point:
            raise RuntimeError("grad can be implicitly created only for real scalar outputs but "
                               f"got {output.dtype}")
        return tensors.make.ones_like(output)
    if not isinstance(grad, tensors.cls):
        raise TypeError("gradients can be either Tensors or None, but got " + type(grad).__name__)
    if grad._meta is not output._meta:
        _check_grad(output, grad, index)
    return grad


def _check_grad(output: Any, grad: Any, index: int) -> None:
    if tuple(grad.shape) != tuple(output.shape):
        raise RuntimeError(f"Mismatch in shape: grad_output[{index}] has a shape of {grad.shape} "
                           f"and output[{index}] has a shape of {output.shape}.")
    if output.dtype.is_complex != grad.dtype.is_complex:
        raise RuntimeError("For complex Tensors, both grad_output and output are required to have "
                           f"the same dtype. Mismatch in dtype: grad_output[{index}] has a dtype "
                           f"of {grad.dtype} and output[{index}] has a dtype of {output.dtype}.")
