"""Making tensors: empty, filled, ranges, from data."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from flambeau.core import dtypes
from flambeau.core.arguments import kind_of, need_tensor, unexpected_keyword
from flambeau.core.device import CHOSEN, Device, as_device, place
from flambeau.core.dtypes import DType
from flambeau.core.shapes import contiguous_strides, required_span
from flambeau.core.symbolic import index_of
from flambeau.ops.record import dtypes_default
from flambeau.runtime import memory
from flambeau.tensor import dispatch, interop, launches
from flambeau.tensor.devices import made_on, moved_to
from flambeau.tensor.formats import (
    channels_last_strides,
    is_channels_last,
    preserve_format,
    strided,
)
from flambeau.tensor.functions import ops
from flambeau.tensor.meta import TensorBase, like_order, meta_of
from flambeau.tensor.sizes import named_shape, shape_of
from flambeau.tensor.tensor import Tensor

__all__ = ["tensor", "as_tensor", "asarray", "scalar_tensor", "empty", "zeros", "ones", "full",
           "empty_like", "zeros_like", "ones_like", "full_like", "empty_strided", "empty_permuted",
           "arange", "range_", "linspace", "logspace", "eye", "tril_indices", "triu_indices",
           "frombuffer", "checked"]


def checked(dtype: Any, device: Any, layout: Any = None) -> DType | None:
    """Validate the arguments that every factory takes; returns the dtype."""
    if dtype is not None and not isinstance(dtype, DType):
        mapped = dtypes.BY_PYTHON.get(dtype) if isinstance(dtype, type) else None
        if mapped is None:
            raise TypeError(f"argument 'dtype' must be torch.dtype, not {type(dtype).__name__}")
        dtype = mapped
    if device is not None:
        as_device(device)
    if layout is not None and layout is not strided:
        raise NotImplementedError(f"layout={layout!r} is not implemented; tensors are "
                                  "torch.strided")
    return dtype


def sizes(args: Sequence) -> tuple[int, ...]:
    """A shape given as ints or as one sequence.

    Raises:
        RuntimeError: a negative size.
    """
    if len(args) == 1 and args[0].__class__ is bool:
        raise TypeError("argument 'size' (position 1) must be tuple of ints, not bool")
    shape = shape_of(args)
    for size in shape:
        if size < 0:
            raise RuntimeError(f"Trying to create tensor with negative dimension {size}: "
                               f"{list(shape)}")
    return shape


def _finish(made: Any, requires_grad: bool) -> Any:
    return made.requires_grad_() if requires_grad else made


def tensor(data: Any, *, dtype: DType | None = None, device: Any = None,
           requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """A new leaf tensor with a copy of `data` (numbers, nested sequences, arrays).

    >>> torch.tensor([[1, 2], [3, 4]])
    tensor([[1, 2],
            [3, 4]])
    >>> torch.tensor([1., 2.], dtype=torch.float64, requires_grad=True)
    tensor([1., 2.], dtype=torch.float64, requires_grad=True)
    """
    dtype = checked(dtype, device)
    where = _place_of(data, device)
    if isinstance(data, TensorBase):
        import warnings

        warnings.warn("To copy construct from a tensor, it is recommended to use "
                      "sourceTensor.detach().clone() or "
                      "sourceTensor.detach().clone().requires_grad_(True), rather than "
                      "torch.tensor(sourceTensor).", UserWarning, stacklevel=2)
    return _finish(moved_to(interop.from_data(data, dtype), where), requires_grad)


def _place_of(data: Any, device: Any) -> Device:
    """Where a tensor is made of `data`: by default a tensor's copy lies where it does."""
    if device is None and not CHOSEN and isinstance(data, TensorBase):
        return data._meta.device
    return place(device)


def as_tensor(data: Any, dtype: DType | None = None, device: Any = None) -> Tensor:
    """`data` as a tensor, sharing memory where it can.

    >>> import numpy
    >>> a = numpy.zeros(2)
    >>> torch.as_tensor(a)[0] = 7.0  # shares the memory
    >>> a
    array([7., 0.])
    """
    dtype = checked(dtype, device)
    where = _place_of(data, device)
    if isinstance(data, TensorBase):
        data = moved_to(data, where)
        return data if dtype is None or data.dtype is dtype else data.to(dtype)
    if isinstance(data, np.ndarray) and (dtype is None or data.dtype == dtype.numpy):
        return moved_to(interop.from_numpy(data), where)
    return moved_to(interop.from_data(data, dtype), where)


def asarray(obj: Any, *, dtype: DType | None = None, device: Any = None, copy: bool | None = None,
            requires_grad: bool = False) -> Tensor:
    """`obj` as a tensor; `copy` True always copies, False never, None only if it must.

    >>> torch.asarray([1, 2], dtype=torch.float32)
    tensor([1., 2.])
    """
    dtype = checked(dtype, device)
    if hasattr(obj, "__dlpack__") and not isinstance(obj, (TensorBase, np.ndarray)):
        made = moved_to(interop.from_dlpack(obj, copy=copy), place(device))
    elif isinstance(obj, (bytes, bytearray, memoryview)):
        made = moved_to(frombuffer(obj, dtype=dtype or dtypes_default()), place(device))
    else:
        made = as_tensor(obj, device=device)
    if copy is False and dtype not in (None, made.dtype):
        raise ValueError(f"can't alias tensor with dtype '{made.dtype.scalar_name}' into dtype "
                         f"'{dtype.scalar_name}'.")
    if copy is False and isinstance(obj, (list, tuple)):
        raise ValueError("can't alias arbitrary sequence into a tensor.")
    made = made if dtype is None else made.to(dtype)
    if copy and (made is obj or isinstance(obj, (np.ndarray, bytearray, memoryview))):
        made = made.clone()
    return _finish(made.detach() if requires_grad else made, requires_grad)


def scalar_tensor(s: Any, *, dtype: DType | None = None, layout: Any = None, device: Any = None,
                  pin_memory: bool = False, requires_grad: bool = False) -> Tensor:
    """A 0-d tensor, of the default dtype unless given.

    >>> torch.scalar_tensor(3)
    tensor(3.)
    """
    made = interop.from_data(s, checked(dtype, device, layout) or dtypes_default())
    return _finish(moved_to(made, _place_of(s, device)), requires_grad)


def frombuffer(buffer: Any, *, dtype: DType, count: int = -1, offset: int = 0,
               requires_grad: bool = False) -> Tensor:
    """A 1-d tensor on the memory of a buffer.

    >>> torch.frombuffer(bytearray([1, 0, 2, 0]), dtype=torch.int16)
    tensor([1, 2], dtype=torch.int16)
    """
    size = memoryview(buffer).nbytes
    if size == 0 or count == 0:
        raise ValueError(f"both buffer length ({size}) and count ({count}) must not be 0")
    if not 0 <= offset < size:
        raise ValueError(f"offset ({offset} bytes) must be non-negative and no greater than buffer "
                         f"length ({size} bytes) minus 1")
    array = np.frombuffer(buffer, dtype.numpy, count, offset)
    return _finish(interop.from_numpy(array), requires_grad)


def _known(name: str, options: dict, extra: tuple = ()) -> None:
    """Raise TypeError for an option that no factory takes."""
    for word in options:
        if word not in _OPTIONS and word not in extra:
            raise unexpected_keyword(name, word, (*_OPTIONS, *extra))


_OPTIONS = ("size", "out", "dtype", "layout", "device", "requires_grad", "pin_memory",
            "memory_format")


def empty(*size: Any, out: Any = None, dtype: DType | None = None, layout: Any = None,
          device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
          memory_format: Any = None, **named: Any) -> Tensor:
    """A tensor with uninitialised elements.

    >>> torch.empty(2, 3).shape
    torch.Size([2, 3])
    """
    if named:
        _known("empty", named)
        size = named_shape("empty", "size", size, named)
    if layout is not None and layout is not strided:
        return _of_layout(sizes(size), checked(dtype, device), layout, requires_grad, device)
    dtype = checked(dtype, device, layout)
    shape = sizes(size)
    if out is not None:
        return out.resize_(shape)
    dtype = dtype or dtypes_default()
    if dtype.kind == "q":
        construct = importlib.import_module("flambeau.tensor.quantized.construct")
        return construct._empty_affine_quantized(shape, dtype=dtype)
    if is_channels_last(memory_format):
        made = launches.fresh(meta_of(dtype, shape, channels_last_strides(shape, memory_format),
                                      place(device)))
    else:
        made = launches.fresh_dense(dtype, shape, place(device))
    return _finish(made, requires_grad)


def _of_layout(shape: Sequence[int], dtype: DType | None, layout: Any, requires_grad: bool,
               device: Any) -> Tensor:
    """A tensor of another layout, without elements: all of them are zero."""
    construct = importlib.import_module("flambeau.tensor.sparse.construct")  # at the first use
    return construct.sparse_zeros(shape, dtype or dtypes_default(), layout, requires_grad,
                                  place(device))


def zeros(*size: Any, out: Any = None, dtype: DType | None = None, layout: Any = None,
          device: Any = None, pin_memory: bool = False, requires_grad: bool = False,
          **extra: Any) -> Tensor:
    """A tensor of zeros.

    >>> torch.zeros(2, 3)
    tensor([[0., 0., 0.],
            [0., 0., 0.]])
    """
    if size and dtype is None and out is None and layout is None and device is None and not (
            CHOSEN or extra):
        made = _filled_new(launches.fresh_dense(dtypes_default(), sizes(size)), 0)
        return made.requires_grad_() if requires_grad else made
    return _filled("zeros", size, 0, out, dtype, layout, device, requires_grad, extra)


def ones(*size: Any, out: Any = None, dtype: DType | None = None, layout: Any = None,
         device: Any = None, pin_memory: bool = False, requires_grad: bool = False,
         **extra: Any) -> Tensor:
    """A tensor of ones.

    >>> torch.ones(2, dtype=torch.int64)
    tensor([1, 1])
    """
    if size and dtype is None and out is None and layout is None and device is None and not (
            CHOSEN or extra):
        made = _filled_new(launches.fresh_dense(dtypes_default(), sizes(size)), 1)
        return made.requires_grad_() if requires_grad else made
    return _filled("ones", size, 1, out, dtype, layout, device, requires_grad, extra)


def _filled(name: str, size: Sequence, value: float, out: Any, dtype: Any, layout: Any,
            device: Any, requires_grad: bool, extra: dict) -> Tensor:
    _known(name, extra)
    if not size and "size" not in extra:
        raise TypeError(f'{name}() missing 1 required positional arguments: "size"')
    if "size" in extra:
        size = (extra.pop("size"),)
    made = empty(*size, out=out, dtype=dtype, layout=layout, device=device, **extra)
    filled = _filled_new(made, value) if out is None else ops.fill_(made, value)
    return _finish(filled, requires_grad)


def _filled_new(made: Tensor, value: Any) -> Tensor:
    """`made`, new, with its first content: that is no write that anything could have missed."""
    if not made._meta.strided:
        if made.is_nested or made.is_quantized:
            return ops.fill(made, value)
        if value == 0:
            return made
        raise NotImplementedError(f"full(...) is not implemented for sparse layout {made.layout!r}"
                                  ": only zeros need not be stored (aten::fill_.Scalar)")
    launch = None if dispatch.ACTIVE else _fills.get((made._meta, value.__class__))
    if made._meta.dtype.kind == "V" and value == 0:  # zeros of any meaning
        ops.fill_(made.view(made._meta.dtype.carrier), 0)
    elif launch is None:
        first = made._storage.version
        ops.fill_(made, value)
        made._storage.version = first
    else:
        launches.late.launch(launch.address, made._ptr, value, made._ptr)
    return made


_fills = dispatch.FUNCTIONS["fill"].warm


def full(size: Any, fill_value: Any, *, out: Any = None, dtype: DType | None = None,
         layout: Any = None, device: Any = None, requires_grad: bool = False,
         pin_memory: bool = False, names: Any = None) -> Tensor:
    """A tensor in which every element is `fill_value`, whose kind gives the dtype.

    >>> torch.full((2, 2), 7)
    tensor([[7, 7],
            [7, 7]])
    """
    if isinstance(fill_value, np.generic):
        fill_value = fill_value.item()
    if dtype is None and out is None:
        if isinstance(fill_value, TensorBase):
            dtype = fill_value.dtype
        else:
            dtype = {bool: dtypes.bool_, int: dtypes.int64}.get(type(fill_value), dtypes_default())
            if isinstance(fill_value, complex):
                dtype = dtypes_default().to_complex()
    if isinstance(size, (int, float)):
        raise TypeError("full(): argument 'size' (position 1) must be tuple of ints, not "
                        f"{kind_of(size)}")
    made = empty(size, out=out, dtype=dtype, layout=layout, device=device)
    fits(fill_value, made.dtype)
    if isinstance(fill_value, int) and made.dtype.kind == "f":
        fill_value = float(fill_value)  # floats hold larger ones than kernels take as ints
    filled = _filled_new if out is None else ops.fill_
    return _finish(filled(made, fill_value), requires_grad)


def fits(value: Any, dtype: DType) -> None:
    """Raise RuntimeError if a number lies outside what `dtype` can hold."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and (
            dtype.kind in "ui" or math.isfinite(value)):
        if dtype.kind in "ui":
            info = dtypes.iinfo(dtype)
            low, high = (-info.max - 1, info.max) if dtype.kind == "u" else (info.min, info.max)
        elif dtype.kind == "f":
            low, high = dtypes.finfo(dtype).min, dtypes.finfo(dtype).max
        else:
            return
        if not low <= value <= high:
            raise RuntimeError(f"value cannot be converted to type {dtype.name} without overflow: "
                               f"{value}")


def empty_like(input: Tensor, *, dtype: DType | None = None, layout: Any = None, device: Any = None,
               requires_grad: bool = False, memory_format: Any = preserve_format,
               pin_memory: bool = False) -> Tensor:
    """An uninitialised tensor with the shape, dtype and order in memory of `input`.

    >>> torch.empty_like(torch.zeros(2, dtype=torch.int32)).dtype
    torch.int32
    """
    need_tensor("empty_like", "input", input)
    if not input._meta.strided or layout not in (None, strided):
        if layout is None:
            nothing = ops.zero(input.detach()).to(dtype or input.dtype)
            where = input._meta.device if device is None else as_device(device)
            return _finish(moved_to(nothing, where), requires_grad)
        return empty(*input.shape, dtype=dtype or input.dtype, layout=layout,
                     device=device or input.device, requires_grad=requires_grad)
    dtype = checked(dtype, device, layout) or input.dtype
    where = input._meta.device if device is None else as_device(device)
    shape = tuple(input.shape)
    if input._level is not None:
        return _finish(launches.late.room_like(input, dtype, shape), requires_grad)
    if memory_format in (preserve_format, None):
        strides = like_order(shape, [input._meta])
    elif is_channels_last(memory_format):
        strides = channels_last_strides(shape, memory_format)
    else:
        strides = contiguous_strides(shape)
    return _finish(launches.fresh(meta_of(dtype, shape, strides, where)), requires_grad)


def zeros_like(input: Tensor, *, memory_format: Any = preserve_format, dtype: DType | None = None,
               layout: Any = None, device: Any = None, pin_memory: bool = False,
               requires_grad: bool = False) -> Tensor:
    """Zeros with the shape and dtype of `input`.

    >>> torch.zeros_like(torch.ones(2, dtype=torch.int32))
    tensor([0, 0], dtype=torch.int32)
    """
    made = empty_like(input, dtype=dtype, layout=layout, device=device,
                      memory_format=memory_format)
    return _finish(_filled_new(made, 0), requires_grad)


def ones_like(input: Tensor, *, memory_format: Any = preserve_format, dtype: DType | None = None,
              layout: Any = None, device: Any = None, pin_memory: bool = False,
              requires_grad: bool = False) -> Tensor:
    """Ones with the shape and dtype of `input`.

    >>> torch.ones_like(torch.zeros(1, 2))
    tensor([[1., 1.]])
    """
    made = empty_like(input, dtype=dtype, layout=layout, device=device,
                      memory_format=memory_format)
    return _finish(_filled_new(made, 1), requires_grad)


def full_like(input: Tensor, fill_value: Any, *, memory_format: Any = preserve_format,
              dtype: DType | None = None, layout: Any = None, device: Any = None,
              pin_memory: bool = False, requires_grad: bool = False) -> Tensor:
    """A constant tensor with the shape and dtype of `input`.

    >>> torch.full_like(torch.zeros(2), 7)
    tensor([7., 7.])
    """
    made = empty_like(input, dtype=dtype, layout=layout, device=device,
                      memory_format=memory_format)
    fits(fill_value, made.dtype)
    return _finish(_filled_new(made, fill_value), requires_grad)


def empty_strided(size: Any, stride: Any, *, dtype: DType | None = None, layout: Any = None,
                  device: Any = None, requires_grad: bool = False,
                  pin_memory: bool = False) -> Tensor:
    """An uninitialised tensor with given strides.

    >>> torch.empty_strided((2, 3), (1, 2)).stride()
    (1, 2)
    """
    dtype = checked(dtype, device, layout) or dtypes_default()
    where = place(device)
    if any(step < 0 for step in stride) or any(n < 0 for n in size):
        raise RuntimeError("Storage size calculation overflowed: sizes and strides must not be "
                           f"negative, got sizes={list(size)} and strides={list(stride)}")
    span = required_span(tuple(size), tuple(stride))
    if span == math.prod(size):  # without gaps: captures can follow it
        return _finish(launches.fresh(meta_of(dtype, tuple(size), tuple(stride), where)),
                       requires_grad)
    nbytes = span * dtype.itemsize
    storage = memory.pool_on(where, nbytes).new(nbytes)
    return _finish(interop.from_storage(storage, dtype, tuple(size), tuple(stride)), requires_grad)


def empty_permuted(size: Any, physical_layout: Sequence[int], *, dtype: DType | None = None,
                   layout: Any = None, device: Any = None, requires_grad: bool = False,
                   pin_memory: bool = False) -> Tensor:
    """An uninitialised tensor without gaps whose dimensions lie in memory in the given order, the
    outermost first.

    >>> torch.empty_permuted((2, 3, 4), (0, 2, 1)).stride()
    (12, 1, 3)
    """
    shape = sizes((size,))
    order = tuple(physical_layout)
    if sorted(order) != list(range(len(shape))):
        if len(order) != len(shape):
            raise RuntimeError("Number of dimensions in size does not match the length of the "
                               f"physical_layout; i.e. len(size) = {len(shape)} is not equal to "
                               f"len(physical_layout) = {len(order)}")
        raise RuntimeError("Dimension out of range or repeated in physical_layout "
                           f"{list(order)}")
    inner = contiguous_strides([shape[d] for d in order])
    strides = [inner[order.index(d)] for d in range(len(shape))]
    return empty_strided(shape, strides, dtype=dtype, layout=layout, device=device,
                         requires_grad=requires_grad)


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, (TensorBase, np.generic)) else value


def arange(start: Any = None, end: Any = None, step: Any = 1, *, out: Any = None,
           dtype: DType | None = None, layout: Any = None, device: Any = None,
           pin_memory: bool = False, requires_grad: bool = False) -> Tensor:
    """start, start + step, ... up to but without `end`.

    >>> torch.arange(5)
    tensor([0, 1, 2, 3, 4])
    >>> torch.arange(1., 2., 0.25)
    tensor([1.0000, 1.2500, 1.5000, 1.7500])
    """
    if end is None:
        start, end = 0, start
    elif start is None:
        start = 0
    start, end, step = _number(start), _number(end), _number(step)
    for name, value in (("start", start), ("end", end), ("step", step)):
        if not isinstance(value, (int, float)):
            raise TypeError(f"arange(): argument {name!r} must be Number, not {kind_of(value)}")
    dtype = checked(dtype, device, layout)
    whole = all(isinstance(x, int) for x in (start, end, step))
    if dtype is None:
        dtype = dtypes.int64 if whole else dtypes_default()
    if dtype is dtypes.bool_:
        raise NotImplementedError('"arange_cpu" not implemented for \'Bool\': take a dtype that '
                                  "counts, and .bool()")
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if not whole and not all(math.isfinite(x) for x in (start, end)):
        raise RuntimeError(f"unsupported range: {start} -> {end}")
    if (end - start) * step < 0:
        raise RuntimeError("upper bound and lower bound inconsistent with step sign")
    if dtype.is_integral and not whole:
        start, end, step = int(start), int(end), int(step)
        whole = True
    count = -(-(end - start) // step) if whole else math.ceil((end - start) / step)
    made = made_on(place(device), "_arange", start, step, index_of(count), dtype)
    if out is not None:
        return out.resize_(made.shape).copy_(made)
    return _finish(made, requires_grad)


def range_(start: Any = 0, end: Any = None, step: Any = 1, *, out: Any = None,
           dtype: DType | None = None, layout: Any = None, device: Any = None,
           pin_memory: bool = False, requires_grad: bool = False) -> Tensor:
    """Like `arange`, but including `end` (deprecated in PyTorch).

    >>> import warnings
    >>> warnings.simplefilter("ignore")  # it is deprecated: use arange
    >>> torch.range(1, 2, 0.5)
    tensor([1.0000, 1.5000, 2.0000])
    """
    import warnings

    warnings.warn("torch.range is deprecated and will be removed in a future release because its "
                  "behavior is inconsistent with Python's range builtin. Instead, use "
                  "torch.arange, which produces values in [start, end).", UserWarning, stacklevel=2)
    if end is None:
        start, end = 0, start
    dtype = checked(dtype, device, layout) or dtypes_default()
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if (end - start) * step < 0:
        raise RuntimeError("upper bound and larger bound inconsistent with step sign")
    count = math.floor((end - start) / step) + 1
    # no default device, as in PyTorch
    made = made_on(as_device(device), "_arange", float(start), float(step), count, dtype)
    return out.resize_(made.shape).copy_(made) if out is not None else _finish(made, requires_grad)


def _ends(name: str, start: Any, end: Any) -> tuple[Any, Any]:
    """Both ends of a range of numbers as numbers."""
    dims = [value.ndim if isinstance(value, TensorBase) else 0 for value in (start, end)]
    if dims != [0, 0]:
        raise RuntimeError(f"{name} only supports 0-dimensional start and end tensors, but got "
                           f"start with {dims[0]} dimension(s) and end with {dims[1]} "
                           "dimension(s).")
    return _number(start), _number(end)


def linspace(start: Any, end: Any, steps: int, *, out: Any = None, dtype: DType | None = None,
             layout: Any = None, device: Any = None, pin_memory: bool = False,
             requires_grad: bool = False) -> Tensor:
    """`steps` evenly spaced numbers from start to end, both included.

    >>> torch.linspace(0, 1, steps=5)
    tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """
    steps = index_of(steps)
    if steps < 0:
        raise RuntimeError("number of steps must be non-negative")
    start, end = _ends("linspace", start, end)
    whole = isinstance(start, complex) or isinstance(end, complex)
    dtype = checked(dtype, device, layout) or (
        dtypes_default().to_complex() if whole else dtypes_default() if out is None else out.dtype)
    if dtype.is_complex:
        made = _complex_linspace(complex(start), complex(end), steps, dtype, place(device))
    else:
        made = made_on(place(device), "_linspace", float(start), float(end), steps, dtype)
    if out is not None:
        return out.resize_(made.shape).copy_(made)
    return _finish(made, requires_grad)


def _complex_linspace(start: complex, end: complex, steps: int, dtype: DType, where: Device
                      ) -> Tensor:
    """Both parts go evenly."""
    parts = (made_on(where, "_linspace", first, last, steps, dtype.to_real()) for first, last in
             ((start.real, end.real), (start.imag, end.imag)))
    return ops._complex(*parts)


def logspace(start: Any, end: Any, steps: int, base: float = 10.0, *, out: Any = None,
             dtype: DType | None = None, layout: Any = None, device: Any = None,
             pin_memory: bool = False, requires_grad: bool = False) -> Tensor:
    """base to the power of `linspace(start, end, steps)`; with an integer dtype, start and end are
    rounded towards zero first.

    >>> torch.logspace(0, 3, steps=4)
    tensor([   1.,   10.,  100., 1000.])
    """
    start, end = _ends("logspace", start, end)
    whole = isinstance(start, complex) or isinstance(end, complex)
    dtype = checked(dtype, device, layout) or (
        dtypes_default().to_complex() if whole else dtypes_default() if out is None else out.dtype)
    if dtype.is_integral:
        start, end = int(start), int(end)
    wide = dtypes.complex128 if dtype.is_complex else dtypes.float64
    exponents = linspace(start, end, steps, dtype=wide, device=device)
    made = ops.pow(full((), base, dtype=wide, device=device), exponents).to(dtype)
    return _finish(made, requires_grad) if out is None else out.resize_(made.shape).copy_(made)


def eye(n: int, m: int | None = None, *, out: Any = None, dtype: DType | None = None,
        layout: Any = None, device: Any = None, pin_memory: bool = False,
        requires_grad: bool = False) -> Tensor:
    """A matrix with ones on the diagonal.

    >>> torch.eye(2, 3)
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    for name, size in (("n", n), ("m", m)):
        if isinstance(size, (float, str)):
            raise TypeError(f"eye(): argument {name!r} must be int, not {kind_of(size)}")
    if n < 0 or (m is not None and m < 0):
        name, wrong = ("n", n) if n < 0 else ("m", m)
        raise RuntimeError(f"{name} must be greater or equal to 0, got {wrong}")
    dtype = checked(dtype, device, layout) or dtypes_default()
    made = made_on(place(device), "_eye", n, n if m is None else m, dtype)
    if out is not None:
        return out.resize_(made.shape).copy_(made)
    return _finish(made, requires_grad)


def _triangle_indices(name: str, row: int, col: int, offset: int, dtype: Any, back: bool,
                      device: Any) -> Tensor:
    """The places of the lower triangle; walked `back` from the other corner, of the upper one."""
    if row < 0 or col < 0:
        wrong, value = ("row", row) if row < 0 else ("col", col)
        raise RuntimeError(f"{name}: {wrong} must be non-negative, got {value}")
    dtype = dtype or dtypes.int64
    if back:  # turned about, the upper triangle is a lower one
        offset = col - row - offset
    first = max(0, -offset)
    width = min(col, first + offset + 1)
    rows = max(row - first, 0) if width > 0 else 0
    rising = min(rows, col - width)
    count = rising * width + rising * (rising - 1) // 2 + (rows - rising) * col
    if not count:
        return empty(2, 0, dtype=dtype, device=device)
    corner = (row - 1 - first, col - 1) if back else (first, 0)
    return made_on(place(device), "_trapezoid", count, width, rising, col, *corner, back, dtype)


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: DType | None = None,
                 layout: Any = None, device: Any = None, pin_memory: bool = False,
                 requires_grad: bool = False) -> Tensor:
    """The (2, n) indices of the lower triangle.

    >>> torch.tril_indices(3, 2)
    tensor([[0, 1, 1, 2, 2],
            [0, 0, 1, 0, 1]])
    """
    return _triangle_indices("tril_indices", row, col, offset, checked(dtype, device), False,
                             device)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: DType | None = None,
                 layout: Any = None, device: Any = None, pin_memory: bool = False,
                 requires_grad: bool = False) -> Tensor:
    """The (2, n) indices of the upper triangle.

    >>> torch.triu_indices(2, 3, offset=1)
    tensor([[0, 0, 1],
            [1, 2, 2]])
    """
    return _triangle_indices("triu_indices", row, col, offset, checked(dtype, device), True, device)


