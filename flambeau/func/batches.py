"""vmap: a function of one example as a function of a batch of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flambeau
from flambeau.tensor import Tensor, transformed  # noqa: F401 - dispatch meets the levels
from flambeau.tensor.batched import Batched, VmapLevel
from flambeau.utils._pytree import (
    TreeSpec,
    _broadcast_to_and_flatten,
    tree_flatten,
    tree_unflatten,
)

__all__ = ["chunked", "vmap"]


def vmap(func: Callable, in_dims: Any = 0, out_dims: Any = 0, randomness: str = "error", *,
         chunk_size: int | None = None) -> Callable:
    """A function that applies `func` to each example of a batch, all of them at once.

    Inside of `func` tensors have the shape of one example; every operation is one launch over the
    whole batch.

    Args:
        in_dims: the dimension of the inputs along which the examples lie, None for inputs that
            serve all of them; one for all inputs, or nested like them.
        out_dims: where the examples go in the outputs, likewise.
        randomness: whether random operations raise ("error"), draw for each example ("different")
            or once for all of them ("same").
        chunk_size: take so many examples at a time; all of them by default.

    Raises:
        ValueError: inputs, `in_dims` and `out_dims` do not go together, or `chunk_size` is not
            positive.
        RuntimeError: another word for `randomness`; an operation whose result depends on values in
            a way that would differ between examples.

    >>> torch.vmap(torch.dot, in_dims=(0, None))(torch.eye(2), torch.tensor([5., 6.]))
    tensor([5., 6.])
    """
    if randomness not in ("error", "different", "same"):
        raise RuntimeError("Only allowed values for randomness are 'error', 'different', or "
                           f"'same'. Got {randomness}")
    if chunk_size is not None and not chunk_size > 0:
        raise ValueError(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})")
    name = getattr(func, "__name__", repr(func))

    @functools.wraps(func)
    def over_batch(*args: Any, **kwargs: Any) -> Any:
        flat, dims, spec, size = _inputs(in_dims, args, name)
        if chunk_size is not None and size:
            return _in_chunks(func, flat, dims, spec, size, out_dims, randomness, chunk_size,
                              kwargs, name)
        return _whole(func, flat, dims, spec, size, out_dims, randomness, kwargs, name)

    return over_batch


def _inputs(in_dims: Any, args: tuple, name: str) -> tuple[list, list, TreeSpec, int]:
    """(leaves, their dimensions, structure, number of examples)."""
    if not isinstance(in_dims, (int, tuple)):
        raise ValueError(f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): expected `in_dims` to "
                         "be int or a (potentially nested) tuple matching the structure of "
                         f"inputs, got: {type(in_dims)}.")
    if not args:
        raise ValueError(f"vmap({name})(<inputs>): got no inputs. Maybe you forgot to add inputs, "
                         "or you are trying to vmap over a function with no inputs. The latter is "
                         "unsupported.")
    flat, spec = tree_flatten(args)
    dims = _broadcast_to_and_flatten(in_dims, spec)
    if dims is None:
        raise ValueError(f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): in_dims is not "
                         "compatible with the structure of `inputs`. in_dims has structure "
                         f"{tree_flatten(in_dims)[1]} but inputs has structure {spec}.")
    dims = [_dim_of(leaf, dim, in_dims, name) for leaf, dim in zip(flat, dims, strict=True)]
    sizes = [leaf.shape[dim] for leaf, dim in zip(flat, dims, strict=True) if dim is not None]
    if not sizes:
        raise ValueError("vmap: Expected at least one Tensor to vmap over")
    if any(size != sizes[0] for size in sizes):
        raise ValueError("vmap: Expected all tensors to have the same size in the mapped "
                         f"dimension, got sizes {sizes} for the mapped dimension")
    return flat, dims, spec, sizes[0]


def _dim_of(leaf: Any, dim: Any, in_dims: Any, name: str) -> int | None:
    if dim is None:
        return None
    head = f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): Got in_dim={dim} for "
    if not isinstance(dim, int):
        raise ValueError(f"{head}an input but in_dim must be either an integer dimension or None.")
    if not isinstance(leaf, Tensor):
        raise ValueError(f"{head}an input but the input is of type {type(leaf)}. We cannot vmap "
                         "over non-Tensor arguments, please use None as the respective in_dim")
    if not -leaf.dim() <= dim < leaf.dim():
        raise ValueError(f"{head}some input, but that input is a Tensor of dimensionality "
                         f"{leaf.dim()} so expected in_dim to satisfy -{leaf.dim()} <= in_dim < "
                         f"{leaf.dim()}.")
    return dim % leaf.dim()


def _whole(func: Callable, flat: Sequence, dims: Sequence, spec: TreeSpec, size: int,
           out_dims: Any, randomness: str, kwargs: dict, name: str) -> Any:
    with VmapLevel(size, randomness) as level:
        given = [leaf if dim is None else level.wrap(leaf, dim)
                 for leaf, dim in zip(flat, dims, strict=True)]
        results, shape = tree_flatten(func(*tree_unflatten(given, spec), **kwargs))
        places = _places(out_dims, results, shape, name)
        values = [_taken_out(level, r) for r in results]
    return tree_unflatten([_placed(value, dim, place, size, name)
                           for (value, dim), place in zip(values, places, strict=True)], shape)


def _places(out_dims: Any, results: Sequence, shape: TreeSpec, name: str) -> list:
    """Where the examples of each result go."""
    for leaf in tree_flatten(out_dims)[0]:
        if leaf is not None and not isinstance(leaf, int):
            raise ValueError(f"vmap({name}, ..., out_dims={out_dims}): `out_dims` must be an int, "
                             "None or a python collection of ints representing where in the "
                             "outputs the vmapped dimension should appear.")
    if shape.is_leaf() and isinstance(out_dims, tuple) and len(out_dims) == 1:
        out_dims = out_dims[0]
    places = _broadcast_to_and_flatten(out_dims, shape)
    if places is None:
        raise ValueError(f"vmap({name}, ..., out_dims={out_dims})(<inputs>): out_dims is not "
                         "compatible with the structure of `outputs`. out_dims has structure "
                         f"{tree_flatten(out_dims)[1]} but outputs has structure {shape}.")
    for result, place in zip(results, places, strict=True):
        if not isinstance(result, Tensor) and place is not None:
            raise ValueError(f"vmap({name}, ...): `{name}` must only return Tensors, got type "
                             f"{type(result)}. Did you mean to set out_dims= to None for output?")
    return places


def _taken_out(level: VmapLevel, result: Any) -> tuple[Any, int | None]:
    """(value, dimension of the examples) of a result."""
    if isinstance(result, Batched) and result._level is level:
        return result._value, result._bdim
    return result, None


def _placed(value: Any, dim: int | None, place: int | None, size: int, name: str) -> Any:
    if place is None:
        if dim is not None:
            raise ValueError(f"vmap({name}, ...): `{name}` can not return a BatchedTensor when "
                             "out_dim is None")
        return value
    if dim is None:
        value, dim = value.expand(size, *value.shape), 0
    place_ = place + value.dim() if place < 0 else place
    if not 0 <= place_ < value.dim():
        raise IndexError("Dimension out of range (expected to be in range of "
                         f"[{-value.dim()}, {value.dim() - 1}], but got {place})")
    return value if dim == place_ else value.movedim(dim, place_)


# --------------------------------------------------------------------------- chunks
def chunked(size: int, chunk_size: int) -> list[tuple[int, int]]:
    """(start, length) of the chunks of a batch."""
    return [(start, min(chunk_size, size - start)) for start in range(0, size, chunk_size)]


def _in_chunks(func: Callable, flat: Sequence, dims: Sequence, spec: TreeSpec, size: int,
               out_dims: Any, randomness: str, chunk_size: int, kwargs: dict, name: str) -> Any:
    parts, shape = [], None
    state = flambeau.get_rng_state() if randomness == "same" else None
    for start, length in chunked(size, chunk_size):
        if state is not None:
            flambeau.set_rng_state(state)
        given = [leaf if dim is None else leaf.narrow(dim, start, length)
                 for leaf, dim in zip(flat, dims, strict=True)]
        result = _whole(func, given, dims, spec, length, out_dims, randomness, kwargs, name)
        leaves, shape = tree_flatten(result)
        parts.append(leaves)
    if shape.is_leaf() and isinstance(out_dims, tuple) and len(out_dims) == 1:
        out_dims = out_dims[0]
    places = _broadcast_to_and_flatten(out_dims, shape)
    joined = [column[0] if place is None else flambeau.cat(column, place)
              for column, place in zip(zip(*parts, strict=True), places, strict=True)]
    return tree_unflatten(joined, shape)
