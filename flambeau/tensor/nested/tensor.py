"""`NestedTensor`: a structure and the numbers of all parts, which are an ordinary dense tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from flambeau.autograd import grad_mode
from flambeau.core.device import Device
from flambeau.core.dtypes import int64
from flambeau.core.shapes import Size
from flambeau.tensor import indexing, tape
from flambeau.tensor.composed import Composed, link, write_back
from flambeau.tensor.creation import tensor
from flambeau.tensor.devices import moved_to
from flambeau.tensor.formats import jagged
from flambeau.tensor.functions import ops
from flambeau.tensor.nested.structure import Structure

__all__ = ["NestedTensor", "numbers_of", "on_numbers", "on_parts", "wrap"]


class NestedTensor(Composed):
    """A batch of tensors of different shapes."""

    backend = "NestedTensorCPU"
    advice = "Work on the parts (.unbind()), on .values(), or on .to_padded_tensor(0)."
    _structure: Structure
    _numbers: Any
    _holes: tuple | None = None
    """Of a tensor over memory of which its parts are not all: (values, offsets, lengths). The
    numbers are a copy of the parts then."""
    rules: ClassVar[dict[str, Callable]] = {}
    """The functions that compute ops, by name; rules.py fills them in."""

    elementwise: ClassVar[Callable]
    """(function, form, args) -> result of an elementwise op; rules.py defines it."""

    is_nested = property(lambda self: True)

    @classmethod
    def rule(cls, name: str, form: str) -> Callable | None:
        """See `Composed.rule`."""
        return cls.rules.get(name) if form == "call" else None

    @classmethod
    def operate(cls, function: Any, form: str, args: Sequence, outs: Any = None) -> Any:
        """See `Composed.operate`. An elementwise op of the table needs no rule."""
        if cls.rule(function.record.name, "call") is None and form in ("call", "inplace"):
            return cls.elementwise(function, form, args)
        return super().operate(function, form, args, outs)

    # ------------------------------------------------------------------ attributes
    @property
    def shape(self) -> Size:
        """The sizes of the dimensions, ragged ones as j1, j2 ...; only in the jagged layout."""
        if self._structure.layout is not jagged:
            raise RuntimeError("Internal error: NestedTensorImpl doesn't support sizes. Please "
                               "file an issue. (A nested tensor of the strided layout has no "
                               "shape: ask for .size(dim), or look at .unbind().)")
        return self._meta.shape

    def size(self, dim: int | None = None) -> Any:
        """The shape, or one size of it."""
        if dim is None:
            return self.shape
        at = indexing.checked_dim(dim, self._meta.ndim)
        found = self._structure.shape[at]
        if self._structure.layout is not jagged and type(found) is not int:
            raise RuntimeError(f"Given dimension {dim} is irregular and does not have a size.")
        return found

    @property
    def nbytes(self) -> int:
        """numel * itemsize."""
        return self._meta.numel * self._meta.dtype.itemsize

    def stride(self, dim: int | None = None) -> Any:
        """Raises: the parts have strides."""
        raise RuntimeError("a nested tensor has no strides; look at those of .unbind() or "
                           ".values()")

    def is_contiguous(self, memory_format: Any = None) -> bool:
        """Are the numbers row-major without gaps?"""
        return self._holes is None and self._numbers.is_contiguous()

    def contiguous(self, memory_format: Any = None) -> NestedTensor:
        """Itself, with its numbers row-major."""
        if self.is_contiguous():
            return self
        return wrap(self._structure, numbers_of(self).contiguous())

    def offsets(self) -> Any:
        """Where the parts begin along the ragged dimension, and the end of the last."""
        self._need_jagged("offsets")
        found = self._structure.offsets if self._holes is None else self._holes[1]
        return moved_to(found, self.device)

    def lengths(self) -> Any:
        """How long the parts are; None if they follow one another without holes."""
        self._need_jagged("lengths")
        return None if self._holes is None else self._holes[2]

    def _need_jagged(self, name: str) -> None:
        if self._structure.layout is not jagged:
            raise AttributeError(f"only nested tensors of layout torch.jagged have {name}()")

    def jagged_values(self) -> Any:
        """The numbers of all parts; `values()` of a nested tensor."""
        found = numbers_of(self) if self._holes is None else self._holes[0]
        return found if found._rg else found.detach()

    @property
    def _values(self) -> Any:
        return numbers_of(self)

    @property
    def _max_seqlen(self) -> int:
        return max(self._structure.lengths, default=0)

    @property
    def _min_seqlen(self) -> int:
        return min(self._structure.lengths, default=0)

    def _nested_tensor_size(self) -> Any:
        """The shapes of the parts, (parts, dims) int64."""
        return tensor([list(shape) for shape in self._structure.shapes], dtype=int64)

    def _nested_tensor_strides(self) -> Any:
        """The strides of the parts, (parts, dims) int64."""
        parts = self._structure.parts(self._numbers.detach())
        return tensor([list(part.stride()) for part in parts], dtype=int64)

    def _nested_tensor_storage_offsets(self) -> Any:
        """Where the parts begin in the memory of the numbers, (parts,) int64."""
        parts = self._structure.parts(self._numbers.detach())
        return tensor([part.storage_offset() for part in parts], dtype=int64)

    def fill_(self, value: Any) -> NestedTensor:
        """Set all elements of all parts."""
        return write_back(self, wrap(self._structure, ops.fill(numbers_of(self), value)))

    def __len__(self) -> int:
        return len(self._structure.shapes)

    def __iter__(self) -> Any:
        return iter(self.unbind())

    def view(self, *size: Any) -> NestedTensor:
        """The parts in other shapes; -1 or the ragged size stands for the ragged dimension."""
        sizes = size[0] if len(size) == 1 and isinstance(size[0], (tuple, list)) else size
        return self.rules["view"](self, sizes)

    reshape = view

    def view_as(self, other: Any) -> NestedTensor:
        """The parts in the shapes of another nested tensor with the same ragged size."""
        return self.view(other.shape)

    reshape_as = view_as

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> NestedTensor:
        """The dimensions from start_dim to end_dim, no ragged one among them, as one."""
        return self.rules["flatten"](self, start_dim, end_dim)

    def expand(self, *size: Any) -> NestedTensor:
        """Dimensions of size 1 repeated; -1 or the ragged size stands for the ragged dimension."""
        sizes = size[0] if len(size) == 1 and isinstance(size[0], (tuple, list)) else size
        return self.rules["expand"](self, sizes)

    def expand_as(self, other: Any) -> NestedTensor:
        """`expand` to the sizes of another tensor."""
        return self.expand(other.shape)

    def to_padded_tensor(self, padding: Any, output_size: Any = None) -> Any:
        """A dense tensor with `padding` where parts have no elements."""
        return self.rules["to_padded_tensor"](self, padding, output_size)

    def to_padded_dense(self, dtype: Any) -> Any:
        """`to_dense` of a nested tensor."""
        raise self.refusal("to_dense")

    def numpy(self, *, force: bool = False) -> Any:
        """Raises: the parts can be arrays."""
        raise RuntimeError(".numpy() is not supported for nested tensors: take the parts, "
                           "[t.numpy() for t in nt.unbind()]")

    # ------------------------------------------------------------------ parts
    def _parts_moved(self, device: Device) -> NestedTensor:
        return wrap(self._structure, moved_to(numbers_of(self), device))

    def _parts_alias(self) -> NestedTensor:
        made = _bare(self._structure, self._numbers)
        if self._holes is not None:
            made._holes = (self._holes[0].detach(), *self._holes[1:])
        return made

    def _take_parts(self, other: NestedTensor) -> None:
        if self._holes is not None:
            raise RuntimeError("an operation in place on a nested tensor with holes would not "
                               "reach its values(): write to these, or use .contiguous()")
        if other._grad_fn is None and other._structure.matches(self._structure) and (
                other._numbers._meta is self._numbers._meta):
            self._numbers.copy_(other._numbers)
            return
        self._structure, self._numbers, self._meta = (other._structure, other._numbers,
                                                      other._meta)
        self._grad_fn, self._rg, self._output_nr = other._grad_fn, other._rg, 0

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        node = self.grad_fn
        history = f", grad_fn=<{node.name()}>" if node is not None else (
            ", requires_grad=True" if self._rg else "")
        if self._structure.layout is jagged:
            size = ", ".join(map(repr, self._structure.shape))
            return (f"NestedTensor(size=({size}), offsets={self.offsets()!r}{history}, "
                    f"contiguous={self.is_contiguous()})")
        leaf = self._rg and self._grad_fn is None
        parts = [repr(part.detach().requires_grad_(leaf))
                 for part in self._structure.parts(self._numbers.detach())]
        text = ",\n".join("\n".join("  " + line for line in part.split("\n")) for part in parts)
        return f"nested_tensor([\n{text}\n]{history})"

    def __reduce_ex__(self, protocol: int) -> Any:
        structure = self._structure
        return _rebuild, (structure.layout, structure.shapes, structure.ragged, self._numbers,
                          self._rg and self._grad_fn is None)

    def __deepcopy__(self, memo: dict) -> NestedTensor:
        if id(self) not in memo:
            if not self.is_leaf:
                raise RuntimeError("Only Tensors created explicitly by the user (graph leaves) "
                                   "support the deepcopy protocol at the moment; use .detach() "
                                   "first")
            made = memo[id(self)] = _bare(self._structure, self._numbers.clone())
            made._rg = self._rg
        return memo[id(self)]


def _rebuild(layout: Any, shapes: tuple, ragged: int, numbers: Any, requires_grad: bool
             ) -> NestedTensor:
    made = _bare(Structure(layout, shapes, ragged), numbers)
    made._rg = requires_grad
    return made


# ---------------------------------------------------------------------- histories
def _bare(structure: Structure, numbers: Any) -> NestedTensor:
    made = object.__new__(NestedTensor)
    made._adopt(structure.meta(numbers._meta.dtype, numbers._meta.device))
    made._structure, made._numbers = structure, numbers
    return made


def _read(structure: Structure, grad: Any) -> Any:
    """The gradient of the numbers."""
    if isinstance(grad, NestedTensor):
        return numbers_of(grad)
    return structure.join([grad[i][tuple(slice(0, n) for n in shape)]
                           for i, shape in enumerate(structure.shapes)])


def wrap(structure: Structure, numbers: Any) -> NestedTensor:
    """The nested tensor of a structure and numbers; its history is theirs."""
    if not numbers._rg:
        return _bare(structure, numbers)
    made = _bare(structure, numbers.detach())
    if not grad_mode.is_recording():
        return made
    return link(made, tape.edge_to(numbers), "NestedViewFromJaggedBackward0", structure, _read)


def numbers_of(tensor: NestedTensor) -> Any:
    """The numbers of a nested tensor as a dense tensor that continues its history."""
    numbers = tensor._numbers
    if not (tensor._rg and grad_mode.is_recording()):
        return numbers
    return link(tape.alias_of(numbers), tape.edge_of(tensor), "NestedGetValuesBackward0",
                tensor._structure, wrap)


def on_numbers(function: Callable, tensor: NestedTensor, *args: Any, **kwargs: Any) -> NestedTensor:
    """A function of single elements, applied to those of all parts."""
    return wrap(tensor._structure, function(numbers_of(tensor), *args, **kwargs))


def on_parts(function: Callable, tensors: Sequence[NestedTensor], **kwargs: Any) -> NestedTensor:
    """A function of tensors that keeps the ragged dimension of the first, part by part."""
    structure = tensors[0]._structure
    results = [function(*parts, **kwargs)
               for parts in zip(*(t.unbind() for t in tensors), strict=True)]
    made = Structure(structure.layout, [tuple(r.shape) for r in results], structure.ragged,
                     structure.offsets)
    return wrap(made, made.join(results))
