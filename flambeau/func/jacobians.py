"""jacrev, jacfwd, hessian: all derivatives of a function, one batch of products."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flambeau
from flambeau.func.batches import chunked, vmap
from flambeau.func.derivatives import chosen, jvp_at, tensors_of, vjp_at
from flambeau.tensor import Tensor
from flambeau.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

__all__ = ["hessian", "jacfwd", "jacrev"]


def jacrev(func: Callable, argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False,
           chunk_size: int | None = None, _preallocate_and_copy: bool = False) -> Callable:
    """A function that gives the Jacobian of `func` with respect to the arguments at `argnums`, row
    by row in reverse: best where there are fewer results than arguments.

    The result is shaped like the results of `func`, each leaf like the arguments, each of whose
    leaves has the shapes of both behind each other.

    Args:
        has_aux: `func` returns (results, anything); so does the new function.
        chunk_size: compute so many rows at a time; all at once by default.

    Raises:
        ValueError: `chunk_size` is not positive.
        RuntimeError: results that are not tensors of floating or complex dtypes.

    >>> torch.func.jacrev(lambda x: x * x.sum())(torch.tensor([1., 2.]))
    tensor([[4., 1.],
            [2., 5.]])
    """
    if chunk_size is not None and not chunk_size > 0:
        raise ValueError("jacrev: `chunk_size` should be greater than 0.")

    @functools.wraps(func)
    def jacobian(*args: Any) -> Any:
        _only_real(tensors_of(chosen(args, argnums))[0], "jacrev")
        found = vjp_at(func, args, argnums, has_aux)
        results, vjp_fn = found[:2]
        outputs, shape = tree_flatten(results)
        _check(outputs, "vjp(f, ...): All outputs")
        inputs, spec = tensors_of(chosen(args, argnums))

        def rows(*weights: Tensor) -> tuple:
            return tuple(tree_flatten(vjp_fn(tree_unflatten(weights, shape)))[0])

        parts = _products(rows, outputs, chunk_size)
        columns = [[_shaped(part, (*out.shape, *one.shape)) for one, part in
                    zip(inputs, row, strict=True)]
                   for out, row in zip(outputs, _split(parts, outputs), strict=True)]
        result = tree_unflatten([tree_unflatten(row, spec) for row in columns], shape)
        return (result, found[2]) if has_aux else result

    return jacobian


def jacfwd(func: Callable, argnums: int | tuple[int, ...] = 0, has_aux: bool = False, *,
           randomness: str = "error") -> Callable:
    """A function that gives the Jacobian of `func` with respect to the arguments at `argnums`,
    column by column in forward mode: best where there are fewer arguments than results.

    Results and errors are those of `jacrev`.

    Args:
        randomness: of `vmap`.

    >>> torch.func.jacfwd(lambda x: x * x.sum())(torch.tensor([1., 2.]))
    tensor([[4., 1.],
            [2., 5.]])
    """

    @functools.wraps(func)
    def jacobian(*args: Any) -> Any:
        inputs, spec = tensors_of(chosen(args, argnums))
        _only_real(inputs, "jacfwd")
        shapes: list[TreeSpec] = []
        kept: list = []

        def column(*moves: Tensor) -> tuple:
            found = jvp_at(func, args, tree_unflatten(moves, spec), argnums, False, has_aux)
            outputs, shape = tree_flatten(found[0])
            _check(outputs, "jacfwd(f, ...): All outputs")
            shapes[:] = [shape]
            kept[:] = [tree_flatten(found[2] if has_aux else ())]
            return (*tree_flatten(found[1])[0], *kept[0][0])

        bases = _basis(inputs, 0, sum(one.numel() for one in inputs))
        parts = vmap(column, randomness=randomness)(*bases)
        shape, (_, aux_shape) = shapes[0], kept[0]
        count = shape.num_leaves
        columns = [_columns(part, inputs) for part in parts[:count]]
        result = tree_unflatten([tree_unflatten(row, spec) for row in columns], shape)
        if not has_aux:
            return result
        return result, tree_unflatten([part[0] for part in parts[count:]], aux_shape)

    return jacobian


def hessian(func: Callable, argnums: int | tuple[int, ...] = 0) -> Callable:
    """A function that gives the second derivatives of `func` with respect to the arguments at
    `argnums`: forwards over reverse.

    >>> torch.func.hessian(lambda x: (x ** 3).sum())(torch.tensor([1., 2.]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    return jacfwd(jacrev(func, argnums), argnums)


# --------------------------------------------------------------------------- rows and columns
def _check(outputs: Sequence, what: str) -> None:
    for out in outputs:
        if not isinstance(out, Tensor):
            raise RuntimeError(f"{what} of f must be Tensors, got {type(out)}")
        if not (out.is_floating_point() or out.is_complex()):
            raise RuntimeError(f"{what} of f must be floating-point or complex Tensors, got Tensor "
                               f"with dtype {out.dtype!r}")


def _only_real(inputs: Sequence[Tensor], name: str) -> None:
    for index, one in enumerate(inputs):
        if one.is_complex():
            raise RuntimeError(f"{name}: Expected all inputs to be real but received complex "
                               f"tensor at flattened input idx: {index}")


def _basis(tensors: Sequence[Tensor], start: int, length: int) -> list[Tensor]:
    """Of the unit vectors of all elements of `tensors` together, those from `start` on, each part
    as a batch of tensors like the one it belongs to."""
    result, before = [], 0
    for one in tensors:
        count = one.numel()
        rows = flambeau.arange(start, start + length, device=one.device).reshape(-1, 1)
        places = flambeau.arange(before, before + count, device=one.device).reshape(1, -1)
        result.append((rows == places).to(one.dtype).reshape(length, *one.shape))
        before += count
    return result


def _products(rows: Callable, outputs: Sequence[Tensor], chunk_size: int | None) -> list[Tensor]:
    """The gradients of all elements of the outputs, for each input as one batch."""
    total = sum(out.numel() for out in outputs)
    sizes = chunked(total, chunk_size or max(total, 1)) or [(0, 0)]
    found = [vmap(rows)(*_basis(outputs, start, length)) for start, length in sizes]
    return [column[0] if len(column) == 1 else flambeau.cat(column)
            for column in zip(*found, strict=True)]


def _split(parts: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[list[Tensor]]:
    """For each output its part of each batch."""
    sizes = [out.numel() for out in outputs]
    if len(sizes) == 1:
        return [list(parts)]
    return [list(row) for row in zip(*(part.split(sizes) for part in parts), strict=True)]


def _columns(part: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The derivatives of one output, its batch along the elements of all inputs, for each input."""
    sizes = [one.numel() for one in inputs]
    pieces = part.split(sizes) if len(sizes) > 1 else (part,)
    return [_shaped(piece.movedim(0, -1), (*part.shape[1:], *one.shape))
            for piece, one in zip(pieces, inputs, strict=True)]


def _shaped(part: Tensor, shape: Sequence[int]) -> Tensor:
    return part.reshape(tuple(shape))
