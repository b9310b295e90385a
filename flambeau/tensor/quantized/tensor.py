"""`QuantizedTensor`: levels, which are an ordinary tensor of integers, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from flambeau.core.dtypes import DType
from flambeau.core.qschemes import (
    SCHEMES,
    per_channel_affine_float_qparams,
    per_tensor_affine,
)
from flambeau.core.shapes import infer_size, reshape_strides
from flambeau.tensor import dispatch
from flambeau.tensor.composed import Composed, composed_meta
from flambeau.tensor.display import array_body, join_suffixes
from flambeau.tensor.formats import strided
from flambeau.tensor.functions import ops
from flambeau.tensor.interop import array_of, new_view
from flambeau.tensor.meta import contiguous_meta, meta_of
from flambeau.tensor.quantized.schemes import PACKED, Quantizer, limits

__all__ = ["QuantizedTensor", "from_stored", "levels_of", "numbers_of", "packed_levels",
           "requantized", "stored_parts", "wrap"]


class QuantizedTensor(Composed):
    """A tensor whose elements are integers that stand for numbers."""

    backend = "QuantizedCPU"
    advice = "Compute with .dequantize() and quantize the result."
    _levels: Any
    _quantizer: Quantizer
    rules: ClassVar[dict[str, Callable]] = {}
    """The functions that compute ops, by name; rules.py fills them in."""

    view: ClassVar[Callable]  # type: ignore[assignment]
    """(name of a view op, its arguments) -> the view; rules.py defines it."""

    is_quantized = property(lambda self: True)

    @classmethod
    def rule(cls, name: str, form: str) -> Callable | None:
        """See `Composed.rule`."""
        return cls.rules.get(name) if form == "call" else None

    @classmethod
    def operate(cls, function: Any, form: str, args: Sequence, outs: Any = None) -> Any:
        """See `Composed.operate`. Results are written to the levels of their targets, so that views
        see them."""
        record = function.record
        rule = cls.moved(record) if record.kind == "view" else cls.rules.get(record.name)
        if rule is None or form == "mutate":
            raise cls.refusal(record.name + ("_" if form == "inplace" else ""))
        result = rule(*args)
        if form == "call":
            return result
        targets = (args[0],) if form == "inplace" else (
            outs if isinstance(outs, (tuple, list)) else (outs,))
        results = result if isinstance(result, tuple) else (result,)
        for target, one in zip(targets, results, strict=True):
            _write(target, one)
        return args[0] if form == "inplace" else outs

    moved: ClassVar[Callable]
    """(record of a view op) -> its rule; rules.py defines it."""

    # ------------------------------------------------------------------ memory: that of the levels
    _ptr = property(lambda self: self._levels._ptr)
    itemsize = property(lambda self: self._meta.dtype.itemsize)
    nbytes = property(lambda self: self._levels.nbytes)

    def data_ptr(self) -> int:
        """The address of the first level."""
        return self._levels.data_ptr()

    def stride(self, dim: int | None = None) -> Any:
        """The strides of the levels, in elements."""
        return self._levels.stride() if dim is None else self._levels.stride(dim)

    def storage_offset(self) -> int:
        """Elements from the storage's start to the first level."""
        return self._levels.storage_offset()

    def is_contiguous(self, memory_format: Any = None) -> bool:
        """Row-major without gaps?"""
        return self._levels.is_contiguous() if memory_format is None else (
            self._levels.is_contiguous(memory_format=memory_format))

    def contiguous(self, memory_format: Any = None) -> Any:
        """The same numbers, row-major."""
        if self.is_contiguous(memory_format):
            return self
        levels = self._levels.contiguous() if memory_format is None else (
            self._levels.contiguous(memory_format=memory_format))
        return wrap(levels, self._quantizer)

    def untyped_storage(self) -> Any:
        """The bytes of the levels."""
        return self._levels.untyped_storage()

    def storage(self) -> Any:
        """The levels one by one, in one dimension."""
        from flambeau.tensor.typed_storages import typed

        return typed(self.untyped_storage(), self.dtype)

    _typed_storage = storage

    def share_memory_(self) -> Any:
        """Move the levels to memory that other processes see."""
        self._levels.share_memory_()
        return self

    def is_shared(self) -> bool:
        """Do other processes see the memory?"""
        return self._levels.is_shared()

    def numpy(self, *, force: bool = False) -> Any:
        """Raises: take `int_repr()` or `dequantize()`."""
        raise TypeError(f"Got unsupported ScalarType {self.dtype.scalar_name}: NumPy has no such "
                        "dtype; take .int_repr() or .dequantize() first")

    def tolist(self) -> Any:
        """The numbers, as nested lists."""
        return numbers_of(self).tolist()

    def item(self) -> float:
        """The only element as a Python number."""
        return numbers_of(self).item()

    def type(self, dtype: Any = None, non_blocking: bool = False) -> Any:
        """The legacy type name."""
        if dtype is None:
            return f"torch.quantized.{self.dtype.legacy}"
        return self.to(dtype)

    def to(self, *args: Any, **options: Any) -> Any:
        """The tensor itself where nothing changes.

        Raises:
            RuntimeError: another dtype, which `dequantize()` leads to.
        """
        wanted = [a for a in (*args, options.pop("dtype", None)) if isinstance(a, DType)]
        args = tuple(a for a in args if not isinstance(a, DType))
        if wanted and wanted[0] is not self.dtype:
            raise RuntimeError("Creation of quantized tensor requires quantized dtype like "
                               "torch.quint8; .dequantize() gives float32")
        levels = self._levels.to(*args, **options)
        return self if levels is self._levels else wrap(levels, self._quantizer)

    def reshape(self, *shape: Any) -> Any:
        """The elements in another shape: a view if possible."""
        sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        size = infer_size(tuple(sizes), self._meta.numel)
        if reshape_strides(self.shape, self._levels.stride(), size) is not None:
            return ops.view(self, size)
        return ops._reshape_copy(self, size)

    def fill_(self, value: Any) -> Any:
        """Set every element to the number nearest to `value`."""
        return ops.fill_(self, value)

    # ------------------------------------------------------------------ parts
    def _parts_alias(self) -> QuantizedTensor:
        return wrap(self._levels, self._quantizer)

    def _take_parts(self, other: QuantizedTensor) -> None:
        self._levels, self._quantizer = other._levels, other._quantizer
        self._meta, self._storage = other._meta, other._storage

    # ------------------------------------------------------------------ Python
    def __repr__(self, *, tensor_contents: Any = None) -> str:
        numbers, quantizer = numbers_of(self), self._quantizer
        body = tensor_contents or array_body(array_of(numbers), numbers.dtype, 7)
        scale, zero = ("scale", "zero_point")
        found = [f"size={tuple(self.shape)}", f"dtype={self.dtype}",
                 f"quantization_scheme={quantizer.scheme}", f"{scale}={quantizer.scale}",
                 f"{zero}={quantizer.zero_point}"]
        if quantizer.per_channel:
            found.append(f"axis={quantizer.axis}")
        return join_suffixes("tensor(" + body, found, 7)

    def __deepcopy__(self, memo: dict) -> QuantizedTensor:
        if id(self) not in memo:
            memo[id(self)] = wrap(self._levels.__deepcopy__(memo), self._quantizer)
        return memo[id(self)]

    def __reduce_ex__(self, protocol: int) -> Any:
        quantizer = self._quantizer
        return _rebuild, (self._levels, quantizer.dtype, quantizer.scheme.name, quantizer.scale,
                          quantizer.zero_point, quantizer.axis)


def _rebuild(levels: Any, dtype: Any, scheme: str, scale: Any, zero_point: Any, axis: Any
             ) -> QuantizedTensor:
    """What `pickle` makes a quantized tensor of."""
    return wrap(levels, Quantizer(dtype, SCHEMES[scheme], scale, zero_point, axis))


def wrap(levels: Any, quantizer: Quantizer) -> QuantizedTensor:
    """A quantized tensor of these levels, whose memory it shares."""
    made = object.__new__(QuantizedTensor)
    made._adopt(composed_meta(quantizer.dtype, tuple(levels.shape), strided))
    made._levels, made._quantizer = levels, quantizer
    made._storage = levels._storage
    return made


def numbers_of(tensor: Any) -> Any:
    """The numbers as float32; a plain tensor as it is."""
    if not isinstance(tensor, QuantizedTensor):
        return tensor
    scale, zero_point = tensor._quantizer.beside(tensor._levels.ndim)
    return ops._dequantize_levels(tensor._levels, scale, zero_point)


def levels_of(numbers: Any, quantizer: Quantizer) -> Any:
    """The levels nearest to float32 numbers."""
    scale, zero_point = quantizer.beside(numbers.ndim)
    apart = quantizer.dtype in PACKED and quantizer.scheme is per_tensor_affine  # as in PyTorch
    low, high = limits(quantizer.dtype)
    return ops._quantize_levels(numbers, scale, zero_point, low, high, quantizer.dtype.carrier,
                                apart)


def requantized(tensor: Any, quantizer: Quantizer) -> Any:
    """Levels by another quantizer: those that a quantized tensor has, if they mean the same."""
    if isinstance(tensor, QuantizedTensor) and tensor._quantizer.same(quantizer):
        return tensor._levels
    return levels_of(numbers_of(tensor).float(), quantizer)


# ---------------------------------------------------------------------- as they are stored
def packed_levels(tensor: QuantizedTensor) -> Any:
    """The levels as integers, those of quint4x2 and quint2x4 several to a byte, in one dimension.
    """
    each = PACKED.get(tensor.dtype)
    if each is None:
        return ops.clone(tensor._levels)
    flat = tensor._levels.reshape(-1)
    flat = ops.pad(flat, (0, -flat.shape[0] % each)).reshape(-1, each)
    packed = flat[:, 0].clone()
    for place in range(1, each):
        packed.bitwise_or_(ops.bitwise_left_shift(flat[:, place], place * (8 // each)))
    return packed


def stored_parts(tensor: QuantizedTensor) -> tuple:
    """What a checkpoint holds: (plain tensor of the quantized dtype, its shape and strides, the
    quantizer's parameters)."""
    quantizer = tensor._quantizer
    levels = packed_levels(tensor) if tensor.dtype in PACKED else tensor._levels
    meta = meta_of(tensor.dtype, tuple(levels.shape), levels.stride())
    parameters = (quantizer.scheme, quantizer.scale, quantizer.zero_point)
    if quantizer.per_channel:
        parameters = (*parameters, quantizer.axis)
    strides = contiguous_meta(tensor.dtype, tuple(tensor.shape)).strides
    strides = strides if tensor.dtype in PACKED else levels.stride()
    return (new_view(levels._storage, levels._ptr, meta), tuple(tensor.shape), tuple(strides),
            parameters)


def from_stored(plain: Any, shape: tuple, parameters: tuple) -> QuantizedTensor:
    """The quantized tensor of such parts; it keeps the memory of `plain`, unless that is packed.

    Raises:
        RuntimeError: they do not go together.
    """
    dtype = plain.dtype
    scheme, scale, zero_point, *axis = parameters
    carried = new_view(plain._storage, plain._ptr,
                       meta_of(dtype.carrier, tuple(plain.shape), plain.stride()))
    each = PACKED.get(dtype)
    if each is not None:
        bits = 8 // each
        parts = [ops.bitwise_and(ops.bitwise_right_shift(carried, place * bits), 2**bits - 1)
                 for place in range(each)]
        count = 1
        for size in shape:
            count *= size
        carried = ops.stack(parts, 1).reshape(-1)[:count].reshape(shape)
    if axis and not (0 <= axis[0] < len(shape) and tuple(scale.shape) == (shape[axis[0]],)
                     == tuple(zero_point.shape)):
        raise RuntimeError("a scale and a zero point for each channel are needed")
    if axis and zero_point.dtype.is_floating_point:  # checkpoints name the other scheme
        scheme = per_channel_affine_float_qparams
    return wrap(carried, Quantizer(dtype, scheme, scale, zero_point, *axis))


def _write(target: Any, result: Any) -> None:
    """Let `target` have the numbers of `result`."""
    if not isinstance(target, QuantizedTensor):
        target.copy_(numbers_of(result))
        return
    if tuple(target.shape) != tuple(result.shape):
        raise RuntimeError(f"output with shape {list(target.shape)} doesn't match the shape "
                           f"{list(result.shape)} of the result")
    target._levels.copy_(requantized(result, target._quantizer))
    dispatch.bump_version(target)
