"""Functions whose PyTorch signatures are overloaded: they sort out the arguments and call ops."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from flambeau.core import dtypes
from flambeau.core.arguments import kind_of, need_tensor
from flambeau.core.device import as_device
from flambeau.core.shapes import Size, infer_size, reshape_strides
from flambeau.tensor import creation, interop, launches
from flambeau.tensor.devices import moved_to
from flambeau.tensor.formats import jagged, strided
from flambeau.tensor.functions import ops
from flambeau.tensor.meta import TensorBase
from flambeau.tensor.method_docs import shown
from flambeau.tensor.sizes import shape_of

__all__ = [
    "batch_norm", "native_batch_norm", "clone", "max_", "min_", "std", "var", "std_mean",
    "var_mean", "reshape", "flatten", "where", "allclose", "equal", "is_tensor", "numel",
    "is_floating_point", "is_complex", "is_nonzero",
    "atleast_1d", "atleast_2d", "broadcast_tensors", "result_type", "can_cast",
    "meshgrid", "tile", "ravel", "tensor_split", "new_factory",
    "new", "new_full", "new_tensor",
]


def _extremum(which: str, input: Any, dim: Any, keepdim: bool, other: Any, out: Any) -> Any:
    if isinstance(dim, TensorBase):
        other, dim = dim, None
    if other is not None:
        binary = ops.maximum if which == "max" else ops.minimum
        return binary(input, other) if out is None else binary(input, other, out=out)
    if dim is None:
        whole = ops.max_all if which == "max" else ops.min_all
        return whole(input) if out is None else whole(input, out=out)
    along = ops.max_dim if which == "max" else ops.min_dim
    return along(input, dim, keepdim) if out is None else along(input, dim, keepdim, out=out)


def max_(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None,
         out: Any = None) -> Any:
    """The largest element; with `dim`, (values, indices) along it; of two tensors, the larger.

    >>> torch.max(torch.tensor([1., 5., 3.]))
    tensor(5.)
    >>> torch.max(torch.tensor([[1., 5.], [3., 2.]]), dim=1)
    torch.return_types.max(
    values=tensor([5., 3.]),
    indices=tensor([1, 0]))
    """
    return _extremum("max", input, dim, keepdim, other, out)


def min_(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None,
         out: Any = None) -> Any:
    """The smallest element; with `dim` the (values, indices) along it; with a tensor the smaller of
    two.

    >>> torch.min(torch.tensor([4., 1., 3.]))
    tensor(1.)
    >>> torch.min(torch.tensor([[1., 5.], [3., 2.]]), dim=1)
    torch.return_types.min(
    values=tensor([1., 2.]),
    indices=tensor([0, 1]))
    """
    return _extremum("min", input, dim, keepdim, other, out)


for _function in (max_, min_):
    _function.__qualname__ = _function.__name__.rstrip("_")  # as errors name it


def _moment(name: str, doc: str):
    def moment(input: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
               correction: float | None = None, out: Any = None) -> Any:
        if isinstance(dim, bool):  # var(input, unbiased)
            dim, unbiased = None, dim
        if correction is None:
            correction = 1 if unbiased is None else int(unbiased)
        dim = tuple(dim) if isinstance(dim, list) else dim
        if out is not None:
            return getattr(ops, name)(input, dim, correction=correction, keepdim=keepdim, out=out)
        return getattr(ops, name)(input, dim, correction=correction, keepdim=keepdim)

    moment.__name__, moment.__qualname__, moment.__doc__ = name, name, shown(name, doc)
    return moment


std = _moment("std", "The standard deviation over `dim` (all dimensions by default).")
var = _moment("var", "The variance over `dim` (all dimensions by default).")
std_mean = _moment("std_mean", "The standard deviation and the mean.")
var_mean = _moment("var_mean", "The variance and the mean.")


def reshape(input: Any, shape: Any) -> Any:
    """The elements in another shape: a view if the memory allows it, else a copy.

    >>> torch.reshape(torch.arange(4), (2, -1))
    tensor([[0, 1],
            [2, 3]])
    """
    need_tensor("reshape", "input", input)
    if not input._meta.strided and input.is_nested:  # its sizes are more than numbers
        return input.reshape(shape)
    if not isinstance(shape, (tuple, list)):
        raise TypeError("reshape(): argument 'shape' (position 2) must be tuple of ints, not "
                        f"{kind_of(shape)}")
    given = shape_of(shape)
    if not input._meta.strided:
        return input.reshape(given) if input.is_quantized else ops._reshape_copy(input, given)
    size = infer_size(given, input._meta.numel)
    if reshape_strides(input._meta.shape, input._meta.strides, size) is not None:
        return ops.view(input, given)
    return ops._reshape_copy(input, size)


def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Join the dimensions from start_dim to end_dim into one.

    >>> torch.flatten(torch.tensor([[[1, 2], [3, 4]]]))
    tensor([1, 2, 3, 4])
    >>> torch.flatten(torch.zeros(2, 3, 4), start_dim=1).shape
    torch.Size([2, 12])
    """
    need_tensor("flatten", "input", input)
    if not input._meta.strided and input.is_nested:
        return input.flatten(start_dim, end_dim)
    from flambeau.core.shapes import normalize_dim

    rank = input._meta.ndim
    first, last = normalize_dim(start_dim, rank), normalize_dim(end_dim, rank)
    if rank == 0:
        return reshape(input, (1,))
    if first > last:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    if first == last:
        return input
    shape = tuple(input._meta.shape)
    joined = 1
    for size in shape[first:last + 1]:
        joined *= size
    return reshape(input, shape[:first] + (joined,) + shape[last + 1:])


def where(condition: Any, input: Any = None, other: Any = None, *, out: Any = None) -> Any:
    """input where condition, other elsewhere; with one argument the indices where it is true.

    >>> torch.where(torch.tensor([True, False]), torch.tensor([1., 2.]), torch.tensor([10., 20.]))
    tensor([ 1., 20.])
    >>> torch.where(torch.tensor([0, 3, 5]) > 1)  # the places
    (tensor([1, 2]),)
    """
    if input is None and other is None:
        from flambeau.tensor.compress import nonzero

        return nonzero(condition, as_tuple=True)
    if out is not None:
        return ops.where(condition, input, other, out=out)
    return ops.where(condition, input, other)


def allclose(input: Any, other: Any, rtol: float = 1e-05, atol: float = 1e-08,
             equal_nan: bool = False) -> bool:
    """Are all elements close, in the sense of `isclose`?

    >>> torch.allclose(torch.tensor([1., 2.]), torch.tensor([1., 2. + 1e-7]))
    True
    """
    return bool(ops.all(ops.isclose(input, other, rtol, atol, equal_nan)).item())


def equal(input: Any, other: Any) -> bool:
    """Have both the same shape and elements?

    >>> a = torch.tensor([1, 2])
    >>> torch.equal(a, torch.tensor([1, 2])), torch.equal(a, torch.tensor([[1, 2]]))
    (True, False)
    """
    need_tensor("equal", "input", input)
    if not isinstance(other, TensorBase):
        raise TypeError(f"equal(): argument 'other' (position 2) must be Tensor, not "
                        f"{type(other).__name__}")
    return tuple(input.shape) == tuple(other.shape) and bool(ops.all(ops.eq(input, other)).item())


def is_tensor(obj: Any) -> bool:
    """Is this a tensor?

    >>> torch.is_tensor(torch.tensor([1])), torch.is_tensor(1)
    (True, False)
    """
    return isinstance(obj, TensorBase)


def numel(input: Any) -> int:
    """The number of elements.

    >>> torch.numel(torch.zeros(2, 3))
    6
    """
    need_tensor("numel", "input", input)
    return input._meta.numel


def is_floating_point(input: Any) -> bool:
    """Has the tensor a floating dtype?

    >>> torch.is_floating_point(torch.tensor([1.])), torch.is_floating_point(torch.tensor([1]))
    (True, False)
    """
    need_tensor("is_floating_point", "input", input)
    return input._meta.dtype.is_floating_point


def is_complex(input: Any) -> bool:
    """Has the tensor a complex dtype?

    >>> torch.is_complex(torch.tensor([1j]))
    True
    """
    need_tensor("is_complex", "input", input)
    return input._meta.dtype.is_complex


def is_nonzero(input: Any) -> bool:
    """Is the only element not zero?

    >>> torch.is_nonzero(torch.tensor([2.]))
    True
    """
    return bool(input)


def _at_least(tensor: Any, rank: int) -> Any:
    need_tensor("atleast", "tensor", tensor)
    shape = tuple(tensor.shape)
    if len(shape) >= rank:
        return tensor
    if rank == 1:
        return reshape(tensor, (1,))
    return reshape(tensor, (1, shape[0] if shape else 1))


def atleast_1d(*tensors: Any) -> Any:
    """0-d tensors as vectors of one element.

    >>> torch.atleast_1d(torch.tensor(5))
    tensor([5])
    """
    return _each(tensors, 1)


def atleast_2d(*tensors: Any) -> Any:
    """0-d and 1-d tensors as matrices of one row.

    >>> torch.atleast_2d(torch.tensor([5, 6]))
    tensor([[5, 6]])
    """
    return _each(tensors, 2)


def _each(tensors: Sequence, rank: int) -> Any:
    if len(tensors) == 1 and isinstance(tensors[0], TensorBase):
        return _at_least(tensors[0], rank)
    many = tensors[0] if len(tensors) == 1 else tensors
    return tuple(_at_least(t, rank) for t in many)


def broadcast_tensors(*tensors: Any) -> tuple:
    """All tensors expanded to their common shape.

    >>> torch.broadcast_tensors(torch.tensor([[1], [2]]), torch.tensor([10, 20]))
    (tensor([[1, 1],
            [2, 2]]), tensor([[10, 20],
            [10, 20]]))
    """
    from flambeau.core.shapes import broadcast_shapes

    many = tensors[0] if len(tensors) == 1 and not isinstance(tensors[0], TensorBase) else tensors
    for position, tensor in enumerate(many):
        need_tensor("broadcast_tensors", f"tensors[{position}]", tensor)
    shape = broadcast_shapes(*(tuple(t.shape) for t in many))
    return tuple(t if tuple(t.shape) == shape else ops.expand(t, shape) for t in many)


def result_type(tensor: Any, other: Any) -> dtypes.DType:
    """The dtype that an operation on both gives.

    >>> torch.result_type(torch.tensor([1, 2]), 1.0)
    torch.float32
    """
    from flambeau.ops.record import combine_categories, dtypes_default

    groups: list = [None, None, None]
    for value in (tensor, other):
        if isinstance(value, TensorBase):
            place, dtype = (0 if value.ndim else 1), value.dtype
        else:
            place = 2
            dtype = {bool: dtypes.bool_, int: dtypes.int64}.get(type(value), dtypes_default())
            if isinstance(value, complex):
                dtype = dtypes_default().to_complex()
        seen = groups[place]
        groups[place] = dtype if seen is None else dtypes.promote_types(seen, dtype)
    return combine_categories(*groups)


def can_cast(from_: dtypes.DType, to: dtypes.DType) -> bool:
    """Is a conversion to `to` allowed by the promotion rules (float never becomes integer)?

    >>> torch.can_cast(torch.float64, torch.float32), torch.can_cast(torch.float32, torch.int64)
    (True, False)
    """
    if not (isinstance(from_, dtypes.DType) and isinstance(to, dtypes.DType)):
        raise TypeError("can_cast(): arguments 'from_' and 'to' must be torch.dtype, not "
                        f"{kind_of(from_)} and {kind_of(to)}")
    rank = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}
    return rank[from_.kind] <= rank[to.kind]


def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple:
    """Coordinate grids from vectors; `indexing` "ij" (default, rows first) or "xy".

    >>> torch.meshgrid(torch.tensor([1, 2]), torch.tensor([5, 6, 7]), indexing="ij")
    (tensor([[1, 1, 1],
            [2, 2, 2]]), tensor([[5, 6, 7],
            [5, 6, 7]]))
    """
    many = list(tensors[0] if len(tensors) == 1 and not isinstance(tensors[0], TensorBase)
                else tensors)
    if indexing is None:
        import warnings

        warnings.warn("torch.meshgrid: in an upcoming release, it will be required to pass the "
                      "indexing argument.", UserWarning, stacklevel=2)
    if indexing not in (None, "ij", "xy"):
        raise RuntimeError('torch.meshgrid: indexing must be one of "xy" or "ij", but received: '
                           f"{indexing}")
    swap = indexing == "xy" and len(many) >= 2
    if swap:
        many[0], many[1] = many[1], many[0]
    for position, tensor in enumerate(many):
        need_tensor("meshgrid", f"tensors[{position}]", tensor)
        if tensor.ndim > 1:
            raise RuntimeError("torch.meshgrid: Expected 0D or 1D tensor in the tensor list but "
                               f"got: a tensor of shape {list(tensor.shape)} at position "
                               f"{position}")
    if not many:
        raise RuntimeError("meshgrid expects a non-empty TensorList")
    if len({(t.dtype, t.device) for t in many}) > 1:
        raise RuntimeError("meshgrid expects all tensors to have the same dtype and device, got "
                           f"{[t.dtype for t in many]}")
    vectors = [reshape(t, (-1,)) for t in many]
    shape = tuple(v.shape[0] for v in vectors)
    grids = [ops.expand(reshape(v, [-1 if d == k else 1 for d in range(len(shape))]), shape)
             for k, v in enumerate(vectors)]
    if swap:
        grids[0], grids[1] = grids[1], grids[0]
    return tuple(grids)


def tile(input: Any, dims: Any) -> Any:
    """Repeat the tensor; missing dimensions count as 1.

    >>> torch.tile(torch.tensor([1, 2]), (2, 2))
    tensor([[1, 2, 1, 2],
            [1, 2, 1, 2]])
    """
    dims = shape_of((dims,))
    return ops.repeat(input, (1,) * (input.ndim - len(dims)) + dims)


def ravel(input: Any) -> Any:
    """All elements as a contiguous vector.

    >>> torch.ravel(torch.tensor([[1, 2], [3, 4]]))
    tensor([1, 2, 3, 4])
    """
    return reshape(input, (-1,)).contiguous()


def tensor_split(input: Any, sections: Any = None, dim: int = 0, *, indices: Any = None,
                 tensor_indices_or_sections: Any = None) -> tuple:
    """Cut into a number of nearly equal parts (`sections`), or at given positions (`indices`);
    either may be given first.

    >>> torch.tensor_split(torch.arange(5), 3)
    (tensor([0, 1]), tensor([2, 3]), tensor([4]))
    >>> torch.tensor_split(torch.arange(5), (1, 4))
    (tensor([0]), tensor([1, 2, 3]), tensor([4]))
    """
    need_tensor("tensor_split", "input", input)
    given = [x for x in (sections, indices, tensor_indices_or_sections) if x is not None]
    if len(given) != 1:
        raise TypeError("tensor_split(): expected either 'sections' or 'indices', got "
                        f"{len(given)} of them")
    indices_or_sections = given[0]
    if isinstance(indices_or_sections, TensorBase):
        if indices_or_sections.dtype is not dtypes.int64 or indices_or_sections.ndim > 1:
            raise RuntimeError("tensor_split expected tensor_indices_or_sections to be a "
                               "zero-dimensional or one-dimensional tensor of dtype long, but got "
                               f"{indices_or_sections.ndim} dims and "
                               f"{indices_or_sections.dtype!r}")
        indices_or_sections = indices_or_sections.tolist()
    if not input.ndim:
        raise RuntimeError("tensor_split expected at least a 1-dimensional tensor, but got a "
                           "tensor with 0 dims")
    size = input.size(dim)
    if isinstance(indices_or_sections, int):
        n = indices_or_sections
        if n <= 0:
            raise RuntimeError(f"number of sections must be larger than 0, got {n}")
        cuts = [size // n * k + min(k, size % n) for k in range(1, n)]
    else:
        cuts = [min(max(c + size if c < 0 else c, 0), size) for c in indices_or_sections]
    edges = [0, *cuts, size]
    return tuple(ops.slice(input, dim, a, max(a, b), 1) for a, b in itertools.pairwise(edges))


def new_factory(name: str):
    """`tensor.new_zeros(...)` and the like: dtype and device from the tensor."""

    def make(self: Any, *size: Any, dtype: Any = None, layout: Any = None, device: Any = None,
             pin_memory: bool = False, requires_grad: bool = False, **options: Any) -> Any:
        if self._level is not None:
            size = (options.pop("size"),) if "size" in options else size
            room = launches.late.room_like(self, dtype or self.dtype, creation.sizes(size))
            return room if name == "empty" else ops.fill_(room, 0 if name == "zeros" else 1)
        if layout is None and not self._meta.strided and name != "ones" and (
                self.layout not in (strided, jagged)):
            layout = self.layout  # a sparse tensor without entries
        return getattr(creation, name)(*size, dtype=dtype or self.dtype, layout=layout,
                                       device=self.device if device is None else device,
                                       requires_grad=requires_grad, **options)

    make.__name__ = f"new_{name}"
    make.__doc__ = f"`torch.{name}` with this tensor's dtype and device."
    return make


def new_full(self: Any, size: Any, fill_value: Any, *, dtype: Any = None, layout: Any = None,
             device: Any = None, pin_memory: bool = False, requires_grad: bool = False) -> Any:
    """`torch.full` with this tensor's dtype and device.

    >>> torch.ones(1, dtype=torch.int32).new_full((2,), 7)
    tensor([7, 7], dtype=torch.int32)
    """
    if self._level is not None:
        return ops.fill_(launches.late.room_like(self, dtype or self.dtype, tuple(size)),
                         fill_value)
    return creation.full(size, fill_value, dtype=dtype or self.dtype, layout=layout,
                         device=self.device if device is None else device,
                         requires_grad=requires_grad)


def new_tensor(self: Any, data: Any, *, dtype: Any = None, device: Any = None,
               requires_grad: bool = False, pin_memory: bool = False) -> Any:
    """`torch.tensor` with this tensor's dtype and device.

    >>> torch.ones(1, dtype=torch.float64).new_tensor([1, 2])
    tensor([1., 2.], dtype=torch.float64)
    """
    made = interop.from_data(data, dtype or self.dtype)
    made = moved_to(made, self.device if device is None else as_device(device))
    return made.requires_grad_() if requires_grad else made


def new(self: Any, *args: Any, device: Any = None) -> Any:
    """The old form of `new_empty` (of sizes) and `new_tensor` (of data).

    >>> torch.tensor([1.5]).new([1, 2])
    tensor([1., 2.])
    """
    if not args or isinstance(args[0], (int, Size)) and not isinstance(args[0], bool):
        return self.new_empty(*(args or (0,)), device=device)
    return self.new_tensor(args[0], device=device)


def clone(input: Any, *, memory_format: Any = None) -> Any:
    """A copy with its own memory.

    >>> x = torch.zeros(2)
    >>> y = torch.clone(x).add_(1)  # x keeps its values
    >>> x, y
    (tensor([0., 0.]), tensor([1., 1.]))
    """
    if not isinstance(input, TensorBase):
        return ops.clone(input)  # raises, naming the argument
    return input.clone(memory_format=memory_format)



def native_batch_norm(input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any,
                      training: bool, momentum: float, eps: float) -> tuple:
    """`batch_norm`, and the batch's mean and 1 / standard deviation (empty if not training).

    >>> x = torch.tensor([[1.], [3.]])
    >>> y, mean, rstd = torch.native_batch_norm(x, None, None, None, None, True, 0.1, 0.)
    >>> mean
    tensor([2.])
    """
    if not training:
        none = creation.empty(0, dtype=input.dtype, device=input.device)
        result = batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        return result, none, none.clone()
    result, mean, var = ops.batch_norm_train(input, weight, bias, eps)
    _move_statistics(input, running_mean, running_var, mean, var, momentum)
    return result, mean, ops.rsqrt(var + eps)


def _move_statistics(input: Any, running_mean: Any, running_var: Any, mean: Any, var: Any,
                     momentum: float) -> None:
    """The running statistics towards those of the batch, in place."""
    if running_mean is not None and running_var is not None:
        count = input.numel() // max(1, input.shape[1])
        ops._running_statistics_(running_mean, running_var, mean.detach(), var.detach(), count,
                                 momentum)


def _empty_batch(input: Any, weight: Any, bias: Any) -> Any:
    """Nothing to normalise, but the parameters belong to the history (their gradients are zero)."""
    result = input.clone()
    if weight is not None:
        result = result * weight[:1]
    return result if bias is None else result + bias[:1]


def batch_norm(input: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None,
               bias: Any = None, training: bool = False, momentum: float = 0.1,
               eps: float = 1e-5) -> Any:
    """Normalise each channel: by the batch's statistics in training (moving the running ones
    towards them), by the running statistics otherwise.

    >>> x = torch.tensor([[1., 0.], [3., 8.]])
    >>> F.batch_norm(x, torch.zeros(2), torch.ones(2), training=True)
    tensor([[-1.0000, -1.0000],
            [ 1.0000,  1.0000]])
    """
    if input.numel() == 0:
        return _empty_batch(input, weight, bias)
    if not training:
        if running_mean is None or running_var is None:
            raise RuntimeError("Expected running_mean and running_var to be defined when "
                               "training=False")
        return ops.batch_norm_eval(input, running_mean, running_var, weight, bias, eps)
    result, mean, var = ops.batch_norm_train(input, weight, bias, eps)
    _move_statistics(input, running_mean, running_var, mean, var, momentum)
    return result
