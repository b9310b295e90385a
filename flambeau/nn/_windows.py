"""Functions over sliding windows whose arguments need sorting out: blocks, unpooling, random
windows, maxima with their indices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flambeau
from flambeau.tensor import Tensor, functions
from flambeau.tensor.method_docs import shown

__all__ = ["adaptive_max_pool1d_with_indices", "adaptive_max_pool2d_with_indices",
           "adaptive_max_pool3d_with_indices", "fold", "fractional_max_pool2d",
           "fractional_max_pool2d_with_indices", "fractional_max_pool3d",
           "fractional_max_pool3d_with_indices", "max_pool1d_with_indices",
           "max_pool2d_with_indices", "max_pool3d_with_indices", "max_unpool1d", "max_unpool2d",
           "max_unpool3d", "unfold"]


def unfold(input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
           stride: Any = 1) -> Tensor:
    """Sliding blocks as columns: (n, c, h, w) gives (n, c * kh * kw, blocks).

    >>> F.unfold(torch.arange(9.).reshape(1, 1, 3, 3), kernel_size=2)
    tensor([[[0., 1., 3., 4.],
             [1., 2., 4., 5.],
             [3., 4., 6., 7.],
             [4., 5., 7., 8.]]])
    """
    return functions.im2col(input, kernel_size, dilation, padding, stride)


def fold(input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
         stride: Any = 1) -> Tensor:
    """The sum of sliding blocks: (n, c * kh * kw, blocks) gives (n, c, *output_size).

    >>> F.fold(torch.ones(1, 4, 4), output_size=(3, 3), kernel_size=2)  # windows at a place
    tensor([[[[1., 2., 1.],
              [2., 4., 2.],
              [1., 2., 1.]]]])
    """
    return functions.col2im(input, output_size, kernel_size, dilation, padding, stride)


# -- maxima with indices -------------------------------------------------------------------------
def _with_indices(rank: int) -> Callable:
    pool = f"max_pool{rank}d"

    def max_pool_with_indices(input: Tensor, kernel_size: Any, stride: Any = None,
                              padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
                              return_indices: bool = False) -> tuple[Tensor, Tensor]:
        return getattr(functions, pool)(input, kernel_size, stride, padding, dilation, ceil_mode,
                                        True)

    return _named(max_pool_with_indices, f"{pool}_with_indices",
                  "The maximum of each window and where it lies.")


def _adaptive_with_indices(rank: int) -> Callable:
    pool = f"adaptive_max_pool{rank}d"

    def adaptive_max_pool_with_indices(input: Tensor, output_size: Any,
                                       return_indices: bool = False) -> tuple[Tensor, Tensor]:
        return getattr(functions, pool)(input, output_size, True)

    return _named(adaptive_max_pool_with_indices, f"{pool}_with_indices",
                  "The maximum of each bin and where it lies.")


def _named(function: Callable, name: str, doc: str) -> Callable:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = shown(f"nn.functional.{name}", doc)
    return function


max_pool1d_with_indices = _with_indices(1)
max_pool2d_with_indices = _with_indices(2)
max_pool3d_with_indices = _with_indices(3)
adaptive_max_pool1d_with_indices = _adaptive_with_indices(1)
adaptive_max_pool2d_with_indices = _adaptive_with_indices(2)
adaptive_max_pool3d_with_indices = _adaptive_with_indices(3)


# -- unpooling -----------------------------------------------------------------------------------
def _each(value: Any, rank: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,) * rank


def _unpooled_size(input: Tensor, kernel: tuple, stride: tuple, padding: tuple,
                   output_size: Sequence[int] | None) -> tuple[int, ...]:
    """The size given, if the pooling can have started from it; else the least one."""
    rank = len(kernel)
    least = tuple((size - 1) * s + k - 2 * q for size, s, k, q in
                  zip(input.shape[-rank:], stride, kernel, padding, strict=True))
    if output_size is None:
        return least
    given = tuple(output_size)
    if len(given) == rank + 2:
        given = given[2:]
    if len(given) != rank:
        raise ValueError("output_size should be a sequence containing "
                         f"{rank} or {rank + 2} elements, but it has a length of '{len(given)}'")
    for d, (size, middle, s) in enumerate(zip(given, least, stride, strict=True)):
        if not middle - s < size < middle + s:
            raise ValueError(f"invalid output_size \"{output_size}\" (dim {d} must be between "
                             f"{middle - s} and {middle + s})")
    return given


def _max_unpool(input: Tensor, indices: Tensor, kernel_size: Any, stride: Any, padding: Any,
                output_size: Sequence[int] | None, rank: int) -> Tensor:
    kernel = _each(kernel_size, rank)
    stride = kernel if stride is None or stride == () else _each(stride, rank)
    size = _unpooled_size(input, kernel, stride, _each(padding, rank), output_size)
    return functions._max_unpool(input, indices, size)


def max_unpool1d(input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None,
                 padding: Any = 0, output_size: Sequence[int] | None = None) -> Tensor:
    """Maxima of `max_pool1d` put back where they were; zero elsewhere.

    >>> F.max_unpool1d(torch.tensor([[3., 6.]]), torch.tensor([[1, 3]]), 2)
    tensor([[0., 3., 0., 6.]])
    """
    return _max_unpool(input, indices, kernel_size, stride, padding, output_size, 1)


def max_unpool2d(input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None,
                 padding: Any = 0, output_size: Sequence[int] | None = None) -> Tensor:
    """Maxima of `max_pool2d` put back where they were; zero elsewhere.

    >>> F.max_unpool2d(torch.tensor([[[5.]]]), torch.tensor([[[3]]]), 2)
    tensor([[[0., 0.],
             [0., 5.]]])
    """
    return _max_unpool(input, indices, kernel_size, stride, padding, output_size, 2)


def max_unpool3d(input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None,
                 padding: Any = 0, output_size: Sequence[int] | None = None) -> Tensor:
    """Maxima of `max_pool3d` put back where they were; zero elsewhere.

    >>> F.max_unpool3d(torch.tensor([[[[5.]]]]), torch.tensor([[[[7]]]]), 2)
    tensor([[[[0., 0.],
              [0., 0.]],
    <BLANKLINE>
             [[0., 0.],
              [0., 5.]]]])
    """
    return _max_unpool(input, indices, kernel_size, stride, padding, output_size, 3)


# -- random windows ------------------------------------------------------------------------------
def _fractional(input: Tensor, kernel_size: Any, output_size: Any, output_ratio: Any,
                samples: Tensor | None, rank: int) -> tuple[Tensor, Tensor]:
    if output_size is None and output_ratio is None:
        raise ValueError(f"fractional_max_pool{rank}d requires specifying either an output_size or "
                         "an output_ratio")
    if output_size is None:
        output_size = tuple(int(size * ratio) for size, ratio in
                            zip(input.shape[-rank:], _each(output_ratio, rank), strict=True))
    if samples is None:
        planes = (1, input.shape[0]) if input.dim() == rank + 1 else tuple(input.shape[:2])
        samples = flambeau.rand(*planes, rank, dtype=input.dtype, device=input.device)
    result, indices = functions._fractional_max_pool(
        input, samples, _each(kernel_size, rank), _each(output_size, rank))
    return result, indices


def fractional_max_pool2d_with_indices(input: Tensor, kernel_size: Any, output_size: Any = None,
                                       output_ratio: Any = None, return_indices: bool = False,
                                       _random_samples: Tensor | None = None
                                       ) -> tuple[Tensor, Tensor]:
    """Maxima over (n, c, h, w) of windows at pseudo-random steps, and their indices.

    >>> x = torch.arange(25.).reshape(1, 5, 5)
    >>> y, places = F.fractional_max_pool2d_with_indices(x, 2, output_size=2)
    >>> torch.equal(y, places.float())  # here a value is its place
    True
    """
    return _fractional(input, kernel_size, output_size, output_ratio, _random_samples, 2)


def fractional_max_pool3d_with_indices(input: Tensor, kernel_size: Any, output_size: Any = None,
                                       output_ratio: Any = None, return_indices: bool = False,
                                       _random_samples: Tensor | None = None
                                       ) -> tuple[Tensor, Tensor]:
    """Maxima over (n, c, d, h, w) of windows at pseudo-random steps, and their indices.

    >>> y, places = F.fractional_max_pool3d_with_indices(torch.ones(1, 4, 4, 4), 2, output_size=2)
    >>> places.shape
    torch.Size([1, 2, 2, 2])
    """
    return _fractional(input, kernel_size, output_size, output_ratio, _random_samples, 3)


def fractional_max_pool2d(input: Tensor, kernel_size: Any, output_size: Any = None,
                          output_ratio: Any = None, return_indices: bool = False,
                          _random_samples: Tensor | None = None) -> Any:
    """Maxima over (n, c, h, w) of windows at pseudo-random, roughly even steps (Graham 2014).

    >>> _ = torch.manual_seed(0)
    >>> F.fractional_max_pool2d(torch.arange(25.).reshape(1, 5, 5), 2, output_size=2).shape
    torch.Size([1, 2, 2])
    """
    both = _fractional(input, kernel_size, output_size, output_ratio, _random_samples, 2)
    return both if return_indices else both[0]


def fractional_max_pool3d(input: Tensor, kernel_size: Any, output_size: Any = None,
                          output_ratio: Any = None, return_indices: bool = False,
                          _random_samples: Tensor | None = None) -> Any:
    """Maxima over (n, c, d, h, w) of windows at pseudo-random, roughly even steps.

    >>> F.fractional_max_pool3d(torch.ones(1, 4, 4, 4), 2, output_size=2).shape
    torch.Size([1, 2, 2, 2])
    """
    both = _fractional(input, kernel_size, output_size, output_ratio, _random_samples, 3)
    return both if return_indices else both[0]
