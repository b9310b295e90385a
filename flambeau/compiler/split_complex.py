"""The pass that removes complex numbers: every complex value becomes a pair of real ones.

A complex argument in memory is two real buffers on the same address: strides doubled, and the
imaginary part one element further on. No kernel ever sees a complex dtype.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from flambeau.compiler import complex_math
from flambeau.compiler.complex_math import Pair
from flambeau.compiler.expression import Buffer
from flambeau.core import dtypes
from flambeau.ir.graph import Graph, Value, constant, sort, tensor_input
from flambeau.ops import primitives as p
from flambeau.ops.primitives.factors import paired

__all__ = ["has_complex", "mixes_parts", "split_complex"]

PRODUCT_LEVELS = 3  # halvings of a product that one kernel does before its result is stored


def has_complex(graph: Graph) -> bool:
    """Does any value of the graph have a complex dtype?"""
    return any(value.dtype.is_complex for value in graph.order()) or any(
        value.dtype.is_complex for value in graph.inputs)


BY_PARTS = ("add", "sub", "neg", "where", "cast", "copy", "stop_gradient", "boundary",
            "in_memory", "expand")


def mixes_parts(graph: Graph) -> bool:
    """May a real part of an elementwise result need an imaginary part of an operand, or vice versa?
    Then the result must not be written over the operand: one part is stored before the other."""
    return any(value.dtype.is_complex and value.inputs and value.prim.name not in BY_PARTS
               for value in graph.order())


def split_complex(graph: Graph, inputs: Sequence[Buffer | None], outputs: Sequence[Buffer],
                  aliases: Mapping[int, int], effects: Sequence[Value]) -> tuple:
    """The same program over real values: (graph, inputs, outputs, aliases, effects), as `plan`
    takes them.

    Raises:
        NotImplementedError: an operation that is not defined for complex numbers.
        TypeError: a Python complex number as a run-time argument.
    """
    splitter = _Splitter()
    given: list[Value] = []
    buffers: list[Buffer | None] = []
    later: list[tuple[Value, Buffer]] = []  # numbers are known by position: parts go to the end
    for value, buffer in zip(graph.inputs, inputs, strict=True):
        if not value.dtype.is_complex:
            splitter.real[value] = value
            given.append(value)
            buffers.append(buffer)
            continue
        if buffer is None:
            raise TypeError("a Python complex number cannot be an argument of a compiled program; "
                            "pass a 0-d tensor, or make it a constant of the program")
        parts = [tensor_input(value.shape, value.dtype.to_real()) for _ in range(2)]
        splitter.pairs[value] = (parts[0], parts[1])
        splitter.arguments.add(value)
        given.append(parts[0])
        buffers.append(_part(buffer, 0))
        later.append((parts[1], _part(buffer, 1)))
    for value in sort([*graph.outputs, *effects]):
        splitter.visit(value)
    results: list[Value] = []
    targets: list[Buffer] = []
    renumbered: dict[int, int] = {}
    for number, (value, buffer) in enumerate(zip(graph.outputs, outputs, strict=True)):
        first = len(results)
        if not value.dtype.is_complex:
            results.append(splitter.real[value])
            targets.append(buffer)
        else:
            pair = splitter.pairs[value]
            # each part may be computed from both parts of what it overwrites: store them first
            results += [p.boundary(part) for part in pair] if number in aliases else pair
            targets += [_part(buffer, 0), _part(buffer, 1)]
        if number in aliases:
            renumbered |= dict.fromkeys(range(first, len(results)), aliases[number])
    given += [value for value, _ in later]
    buffers += [buffer for _, buffer in later]
    done = [part for value in effects
            for part in splitter.pairs.get(value) or (splitter.real[value],)]
    return Graph(given, results), buffers, targets, renumbered, done


def _part(buffer: Buffer, which: int) -> Buffer:
    """The real (0) or imaginary (1) parts of a complex buffer."""
    return dataclasses.replace(
        buffer, dtype=buffer.dtype.to_real(), offset=2 * buffer.offset + which,
        strides=tuple(2 * stride for stride in buffer.strides))


def _moved(pair: Pair, dim: int, reverse: bool, distance: int, fill: float) -> Pair:
    """What lies `distance` places before each element (behind it if `reverse`), else `fill`."""
    size = pair[0].shape[dim]
    starts, steps = [0] * pair[0].ndim, [1] * pair[0].ndim
    starts[dim] = 0 if reverse else distance
    return tuple(p.spread(p.slice_dim(part, dim, distance if reverse else 0, 1, size - distance),
                          starts, steps, part.shape, one)
                 for part, one in zip(pair, (fill, 0.0), strict=True))


class _Splitter:
    """Rewrites values in order; `real` holds the new real ones, `pairs` the split complex ones."""

    def __init__(self) -> None:
        self.real: dict[Value, Value] = {}
        self.pairs: dict[Value, Pair] = {}
        self.arguments: set[Value] = set()
        self.interleaved: dict[Value, Value] = {}  # pairs as one value, for who reads them so

    def visit(self, value: Value) -> None:
        if value in self.real or value in self.pairs:
            return
        if not value.dtype.is_complex and not any(v.dtype.is_complex for v in value.inputs):
            self.real[value] = self._again(value)
            return
        kind = value.prim.kind
        rule = getattr(self, f"_{value.prim.name}", None) or getattr(self, f"_{kind}_kind", None)
        if rule is None:
            raise self._refusal(value)
        result = rule(value)
        if value.dtype.is_complex:
            self.pairs[value] = result
        else:
            self.real[value] = result

    def _again(self, value: Value) -> Value:
        """A real value of real inputs: itself if they did not change."""
        inputs = tuple(self.real[v] for v in value.inputs)
        if inputs == value.inputs:
            return value
        return Value(value.prim, inputs, value.attrs, value.shape, value.dtype, value.number)

    def _refusal(self, value: Value) -> NotImplementedError:
        dtype = next(v.dtype for v in (*value.inputs, value) if v.dtype.is_complex)
        name = dtype.scalar_name
        return NotImplementedError(f'"{value.prim.name}_cpu" not implemented for \'{name}\': it is '
                                   "not defined for complex numbers; work on .real, .imag, .abs() "
                                   "or .angle()")

    def _parts(self, value: Value, which: int) -> list[Value]:
        """The inputs of `value` with complex ones replaced by one of their parts."""
        return [self.pairs[v][which] if v in self.pairs else self.real[v] for v in value.inputs]

    def _both(self, value: Value) -> Pair:
        """The same primitive on the real and on the imaginary parts."""
        return (value.prim(*self._parts(value, 0), attrs=value.attrs),
                value.prim(*self._parts(value, 1), attrs=value.attrs))

    # ------------------------------------------------------------------ sources
    def _constant(self, value: Value) -> Pair:
        number = complex(value.attrs[0])
        dtype = value.dtype.to_real()
        return (constant(number.real, dtype, number=False),
                constant(number.imag, dtype, number=False))

    # ------------------------------------------------------------------ elementwise
    def _elementwise_kind(self, value: Value):
        name = value.prim.name
        operands = [self.pairs.get(v) for v in value.inputs]
        if name in complex_math.UNARY:
            return complex_math.UNARY[name](operands[0])
        if name in complex_math.BINARY:
            return complex_math.BINARY[name](*operands)
        raise self._refusal(value)

    def _abs(self, value: Value) -> Value:
        return complex_math.modulus(self.pairs[value.inputs[0]])

    def _real(self, value: Value) -> Value:
        return self.pairs[value.inputs[0]][0]

    def _imag(self, value: Value) -> Value:
        return self.pairs[value.inputs[0]][1]

    def _complex(self, value: Value) -> Pair:
        a, b = value.inputs
        return self.real[a], self.real[b]

    def _where(self, value: Value) -> Pair:
        return self._both(value)

    _stop_gradient = _copy = _boundary = _in_memory = _where

    def _eq(self, value: Value) -> Value:
        return p.logical_and(*self._compared(value))

    def _ne(self, value: Value) -> Value:
        return p.logical_or(*self._compared(value))

    def _compared(self, value: Value) -> Pair:
        a, b = (self.pairs[v] for v in value.inputs)
        return value.prim(a[0], b[0]), value.prim(a[1], b[1])

    def _cast(self, value: Value):
        """Real numbers have no imaginary part, and lose it when they are made; a truth value is
        whether any part is not zero."""
        (x,), dtype = value.inputs, value.dtype
        if not x.dtype.is_complex:
            part = p.convert(self.real[x], dtype.to_real())
            return part, p.zero_like(part)
        re, im = self.pairs[x]
        if dtype.is_complex:
            return p.convert(re, dtype.to_real()), p.convert(im, dtype.to_real())
        if dtype is dtypes.bool_:
            return p.logical_or(p.convert(re, dtype), p.convert(im, dtype))
        return p.convert(re, dtype)

    # ------------------------------------------------------------------ structure
    def _movement_kind(self, value: Value) -> Pair:
        return self._both(value)

    _fold_kind = _cat_kind = _lookup_kind = _movement_kind

    def _as_strided(self, value: Value) -> Pair:
        """What is no argument is laid out anew."""
        (x,) = value.inputs
        parts = self.pairs[x] if x in self.arguments else map(p.stop_copy, self.pairs[x])
        return tuple(value.prim(part, attrs=value.attrs) for part in parts)

    def _view_as_real(self, value: Value) -> Value:
        parts = [p.reshape(part, (*part.shape, 1)) for part in self.pairs[value.inputs[0]]]
        return p.cat(parts, len(value.shape) - 1)

    def _view_as_complex(self, value: Value) -> Pair:
        x = self.real[value.inputs[0]]
        re, im = (p.reshape(p.slice_dim(x, x.ndim - 1, part, 1, 1), value.shape)
                  for part in range(2))
        return re, im

    def _spread(self, value: Value) -> Pair:
        starts, steps, shape, fill = value.attrs
        re, im = self.pairs[value.inputs[0]]
        number = complex(fill)
        return (p.spread(re, starts, steps, shape, number.real),
                p.spread(im, starts, steps, shape, number.imag))

    def _scatter(self, value: Value) -> Pair:
        if value.attrs[1] not in ("set", "add"):
            raise self._refusal(value)
        return self._both(value)

    # ------------------------------------------------------------------ reductions, contractions
    def _reduce_sum(self, value: Value) -> Pair:
        return self._both(value)

    def _reduce_prod(self, value: Value) -> Pair:
        """By halves: the first half times the second, until one element is left."""
        dims = value.attrs[0]
        kept = [d for d in range(value.inputs[0].ndim) if d not in dims]
        count = 1
        for d in dims:
            count *= value.inputs[0].shape[d]

        def flat(part: Value) -> Value:
            return p.reshape(p.permute(part, [*kept, *dims]), (*value.shape, count))

        re, im = self.pairs[value.inputs[0]]
        pair = flat(re), flat(im)
        axis = len(value.shape)
        if count == 0:
            pair = tuple(p.expand(constant(number, re.dtype, number=False), (*value.shape, 1))
                         for number in (1, 0))
        level = 0
        while count > 1:
            half = count // 2
            low = [p.slice_dim(part, axis, 0, 1, half) for part in pair]
            high = [p.slice_dim(part, axis, half, 1, half) for part in pair]
            rest = [p.slice_dim(part, axis, 2 * half, 1, count - 2 * half) for part in pair]
            pair = complex_math.mul(low, high)
            level += 1
            if count % 2:
                pair = tuple(p.cat(halves, axis) for halves in zip(pair, rest, strict=True))
            elif level % PRODUCT_LEVELS == 0:
                pair = tuple(p.boundary(part) for part in pair)
            count = half + count % 2
        return p.reshape(pair[0], value.shape), p.reshape(pair[1], value.shape)

    def _fourier(self, value: Value):
        """One kernel gives both parts."""
        (x,), (how,) = value.inputs, value.attrs
        parts = self.pairs[x] if x.dtype.is_complex else (self.real[x],)
        made = [p.FOURIER_PARTS(*parts, attrs=(how, which)) for which in range(2)]
        return made[0] if how.kind == "c2r" else tuple(made)

    def _cumsum(self, value: Value) -> Pair:
        return self._both(value)

    def _cumprod(self, value: Value) -> Pair:
        """By doubling: each element times what lies 1, 2, 4, ... places before it."""
        dim, reverse = value.attrs
        pair, distance = self.pairs[value.inputs[0]], 1
        while distance < value.shape[dim]:
            earlier = _moved(pair, dim, reverse, distance, 1.0)
            pair = tuple(p.boundary(part) for part in complex_math.mul(pair, earlier))
            distance *= 2
        return pair

    def _recurrence(self, value: Value) -> Pair:
        """By doubling: each step is a map y -> a y + b, composed with that 1, 2, 4, ... before."""
        dim, reverse = value.attrs
        (a, b), distance = (self.pairs[v] for v in value.inputs), 1
        while distance < value.shape[dim]:
            before = complex_math.mul(a, _moved(b, dim, reverse, distance, 0.0))
            b = tuple(p.boundary(p.add(x, y)) for x, y in zip(b, before, strict=True))
            a = complex_math.mul(a, _moved(a, dim, reverse, distance, 1.0))
            a = tuple(p.boundary(part) for part in a)
            distance *= 2
        return b

    def _dot(self, value: Value) -> Pair:
        """(a + bi)(c + di) for anything bilinear; a third operand (a bias) is added to it."""
        (a, b), (c, d), *bias = (self.pairs[v] for v in value.inputs)

        def by(*operands: Value) -> Value:
            return value.prim(*operands, attrs=value.attrs)

        return (p.sub(by(a, c, *(part[0] for part in bias)), by(b, d)),
                p.add(by(a, d, *(part[1] for part in bias)), by(b, c)))

    _conv_kind = _dot

    def _factor(self, value: Value):
        """LAPACK reads complex numbers as pairs in memory."""
        form, number = value.attrs
        operands = [self._interleaved(v) if v.dtype.is_complex else self.real[v]
                    for v in value.inputs]
        made = value.prim(*operands, attrs=(paired(form), number))
        if not value.dtype.is_complex:
            return made
        return tuple(p.reshape(p.slice_dim(made, made.ndim - 1, part, 1, 1), value.shape)
                     for part in range(2))

    def _interleaved(self, value: Value) -> Value:
        if value not in self.interleaved:
            parts = [p.reshape(part, (*part.shape, 1)) for part in self.pairs[value]]
            self.interleaved[value] = p.cat(parts, value.ndim)
        return self.interleaved[value]
