"""Sequences of different lengths in one tensor: padded, or packed time step by time step."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import flambeau
from flambeau.tensor import Tensor

__all__ = ["PackedSequence", "invert_permutation", "pack_padded_sequence", "pack_sequence",
           "pad_packed_sequence", "pad_sequence", "unpack_sequence", "unpad_sequence"]


class _Packed(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes the given one."""
    if permutation is None:
        return None
    inverse = flambeau.empty_like(permutation)
    return inverse.scatter_(0, permutation,
                            flambeau.arange(permutation.numel(), device=permutation.device))


class PackedSequence(_Packed):
    """Sequences, longest first, time step by time step.

    Attributes:
        data: (all elements, *): first the first elements of all sequences, then the second ones ...
        batch_sizes: int64, how many sequences reach each step.
        sorted_indices: which sequence of the batch each of the sorted ones is, or None.
        unsorted_indices: the inverse.
    """

    def __new__(cls, data: Tensor, batch_sizes: Tensor | None = None,
                sorted_indices: Tensor | None = None,
                unsorted_indices: Tensor | None = None) -> PackedSequence:
        if batch_sizes is None:
            data, batch_sizes = data
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The same with `data.to(...)`."""
        data = self.data.to(*args, **kwargs)
        return self if data is self.data else self._with(data)

    def _with(self, data: Tensor) -> PackedSequence:
        return type(self)(data, self.batch_sizes, self.sorted_indices, self.unsorted_indices)

    def cpu(self) -> PackedSequence:
        """The same on the CPU."""
        return self.to(device="cpu")

    def double(self) -> PackedSequence:
        """The same in float64."""
        return self.to(dtype=flambeau.float64)

    def float(self) -> PackedSequence:
        """The same in float32."""
        return self.to(dtype=flambeau.float32)

    def half(self) -> PackedSequence:
        """The same in float16."""
        return self.to(dtype=flambeau.float16)

    @property
    def is_cuda(self) -> bool:
        """Is the data on a GPU?"""
        return self.data.is_cuda

    def is_pinned(self) -> bool:
        """Is the data in pinned memory?"""
        return self.data.is_pinned()


def _as_lengths(lengths: Any) -> Tensor:
    if isinstance(lengths, Tensor):
        return lengths.to(flambeau.int64)
    return flambeau.tensor([int(n) for n in lengths], dtype=flambeau.int64, device="cpu")


def pack_padded_sequence(input: Tensor, lengths: Tensor | Sequence[int],
                         batch_first: bool = False,
                         enforce_sorted: bool = True) -> PackedSequence:
    """Pack (length, n, *) (or batch first) sequences of the given lengths.

    Raises:
        RuntimeError: lengths that are not positive, or not decreasing with `enforce_sorted`.
    """
    sizes = _as_lengths(lengths)
    order = None
    if not enforce_sorted:
        sizes, order = flambeau.sort(sizes, descending=True)
        input = input.index_select(0 if batch_first else 1, order)
    if batch_first:
        input = input.transpose(0, 1)
    wanted = sizes.tolist()
    if len(wanted) != input.shape[1]:
        raise RuntimeError(f"Expected `len(lengths)` to be equal to batch_size, but got "
                           f"{len(wanted)} (batch_size={input.shape[1]})")
    if not wanted or min(wanted) <= 0:
        raise RuntimeError("Length of all samples has to be greater than 0, but found an element "
                           "in 'lengths' that is <= 0")
    if any(a < b for a, b in itertools.pairwise(wanted)):
        raise RuntimeError("`lengths` array must be sorted in decreasing order when "
                           "`enforce_sorted` is True. You can pass `enforce_sorted=False` to "
                           "pack_padded_sequence and/or pack_sequence to sidestep this requirement")
    if wanted[0] > input.shape[0]:
        raise RuntimeError(f"Expected lengths of at most {input.shape[0]}, got {wanted[0]}")
    counts = [sum(1 for n in wanted if n > t) for t in range(wanted[0])]
    data = flambeau.cat([input[t, :count] for t, count in enumerate(counts)])
    sizes = flambeau.tensor(counts, dtype=flambeau.int64, device="cpu")
    return PackedSequence(data, sizes, order, None)


def pad_packed_sequence(sequence: PackedSequence, batch_first: bool = False,
                        padding_value: float = 0.0,
                        total_length: int | None = None) -> tuple[Tensor, Tensor]:
    """(padded sequences (length, n, *) or batch first, their lengths)."""
    counts = sequence.batch_sizes.tolist()
    steps, batch = len(counts), counts[0]
    if total_length is not None and total_length < steps:
        raise ValueError("Expected total_length to be at least the length of the longest sequence "
                         f"in input, but got total_length={total_length} and max sequence length "
                         f"being {steps}")
    length = steps if total_length is None else total_length
    data, rest = sequence.data, tuple(sequence.data.shape[1:])
    rows, start = [], 0
    for t in range(length):
        count = counts[t] if t < steps else 0
        row = data[start:start + count]
        if count < batch:
            fill = flambeau.full((batch - count, *rest), padding_value, dtype=data.dtype,
                                 device=data.device)
            row = flambeau.cat([row, fill])
        rows.append(row)
        start += count
    padded = flambeau.stack(rows)
    lengths = flambeau.tensor([sum(1 for count in counts if count > k) for k in range(batch)],
                              dtype=flambeau.int64)
    if sequence.unsorted_indices is not None:
        padded = padded.index_select(1, sequence.unsorted_indices)
        lengths = lengths[sequence.unsorted_indices]
    return (padded.transpose(0, 1) if batch_first else padded), lengths


def pad_sequence(sequences: Tensor | Iterable[Tensor], batch_first: bool = False,
                 padding_value: float = 0.0, padding_side: str = "right") -> Tensor:
    """Sequences (length, *) of different lengths as one tensor (longest, n, *), or batch first."""
    if padding_side not in ("left", "right"):
        raise RuntimeError(f"padding_side must be 'left' or 'right', got {padding_side}")
    if isinstance(sequences, Tensor):
        sequences = sequences.unbind(0)
    elif not isinstance(sequences, Iterable):
        raise RuntimeError("pad_sequence: Expected iterable for input sequences, but got arg of "
                           f"type: {type(sequences)}")
    many = list(sequences)
    if not many:
        raise RuntimeError("received an empty list of sequences")
    length, rest = max(x.shape[0] for x in many), tuple(many[0].shape[1:])
    rows = []
    for x in many:
        missing = length - x.shape[0]
        if missing:
            fill = flambeau.full((missing, *rest), padding_value, dtype=x.dtype, device=x.device)
            x = flambeau.cat([x, fill] if padding_side == "right" else [fill, x])
        rows.append(x)
    return flambeau.stack(rows, 0 if batch_first else 1)


def unpad_sequence(padded_sequences: Tensor, lengths: Tensor,
                   batch_first: bool = False) -> list[Tensor]:
    """The sequences of a padded tensor, each at its own length."""
    rows = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [row[:size] for row, size in zip(rows.unbind(0), _as_lengths(lengths).tolist(),
                                            strict=True)]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Pack sequences (length, *)."""
    lengths = [x.shape[0] for x in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences of a packed one."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
