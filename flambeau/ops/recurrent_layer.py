"""Layers of recurrent networks over a whole sequence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from flambeau.ir.graph import Value, constant
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.activation import floats_only
from flambeau.ops.batching import vectorized
from flambeau.ops.checks import one_dtype
from flambeau.ops.matmul import product
from flambeau.ops.primitives.batching import into, out_of, spread_over, through
from flambeau.ops.primitives.joint import joint
from flambeau.ops.record import Tensor, op
from flambeau.ops.samples import Arr, sample

GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
SAVED = {"LSTM": 4, "GRU": 4, "RNN_TANH": 0, "RNN_RELU": 0}
HIDDEN, CELLS, KEPT, LAST_HIDDEN, LAST_CELL = range(5)
TO_INPUT, TO_PRODUCT, TO_HIDDEN, TO_CELL = range(4)


# ---------------------------------------------------------------------- the definition
@dataclasses.dataclass(frozen=True)
class _Form:
    """What a layer is besides its operands.

    Attributes:
        mode: of `GATES`.
        backwards: whether time runs from the last step to the first.
        given: which operands are there.
    """

    mode: str
    backwards: bool
    given: tuple[bool, ...]

    def split(self, operands: Sequence[Value]) -> list[Value | None]:
        """All operands, None for those that are missing."""
        rest = iter(operands)
        return [next(rest) if there else None for there in self.given]

    def times(self, steps: int) -> list[int]:
        return list(range(steps))[::-1] if self.backwards else list(range(steps))


def _at(x: Value, time: int) -> Value:
    """One step of (steps, batch, .)."""
    return p.reshape(p.slice_dim(x, 0, time, 1, 1), x.shape[1:])


def _gates(x: Value, count: int) -> list[Value]:
    size = x.shape[-1] // count
    return [p.slice_dim(x, x.ndim - 1, k * size, 1, size) for k in range(count)]


def _over_time(parts: Sequence[Value]) -> Value:
    return p.cat(tuple(p.reshape(x, (1, *x.shape)) for x in parts), 0)


def _relu(x: Value) -> Value:
    zero = p.zero_like(x)
    return p.where(p.le(x, zero), zero, x)


def _advance(mode: str, given: Value, recurrent: Value, hidden: Value, cell: Value | None
             ) -> tuple[Value, Value | None, list[Value]]:
    """(hidden, cell, what is kept) after a step, from both contributions to the gates."""
    if mode == "LSTM":
        i, f, g, o = _gates(p.add(given, recurrent), 4)
        i, f, g, o = p.sigmoid(i), p.sigmoid(f), p.tanh(g), p.sigmoid(o)
        cell = p.add(p.mul(f, cell), p.mul(i, g))
        return p.mul(o, p.tanh(cell)), cell, [i, f, g, o]
    if mode == "GRU":
        (rx, zx, nx), (rh, zh, nh) = _gates(given, 3), _gates(recurrent, 3)
        r, z = p.sigmoid(p.add(rx, rh)), p.sigmoid(p.add(zx, zh))
        n = p.tanh(p.add(nx, p.mul(r, nh)))
        return p.add(n, p.mul(z, p.sub(hidden, n))), None, [r, z, n, nh]
    total = p.add(given, recurrent)
    return (p.tanh(total) if mode == "RNN_TANH" else _relu(total)), None, []


def _zeros(like: Value, *shape: int) -> Value:
    return p.expand(constant(0.0, like.dtype, number=False), shape)


def _composite(operands: Sequence[Value], attrs: tuple) -> tuple[Value | None, ...]:
    """Hidden states, cells, what is kept, last hidden state, last cell."""
    (form,) = attrs
    given, weight, bias, hidden, cell = form.split(operands)
    steps, batch, _ = given.shape
    size = weight.shape[1]
    hidden = _zeros(given, batch, size) if hidden is None else hidden
    cell = _zeros(given, batch, size) if cell is None else cell
    found: list = [None] * steps
    for time in form.times(steps):
        recurrent = product(hidden, p.transpose(weight))
        if bias is not None:
            recurrent = p.add(recurrent, p.expand(bias, recurrent.shape))
        hidden, cell, kept = _advance(form.mode, _at(given, time), recurrent, hidden, cell)
        found[time] = hidden, cell, p.cat(tuple(kept), 1) if kept else None
    hiddens, cells, kept = (None if None in parts else _over_time(parts)
                            for parts in zip(*found, strict=True))
    return hiddens, cells, kept, hidden, cell


def _infer(inputs, attrs):
    form, which = attrs
    (steps, batch, _), size = inputs[0].shape, inputs[1].shape[1]
    lead = (batch,) if which in (LAST_HIDDEN, LAST_CELL) else (steps, batch)
    return (*lead, size * SAVED[form.mode] if which == KEPT else size), inputs[0].dtype


def _sigmoid_slope(g: Value, y: Value) -> Value:
    return p.mul(g, p.mul(y, p.sub(e.like(1, y), y)))


def _tanh_slope(g: Value, y: Value) -> Value:
    return p.mul(g, p.sub(e.like(1, y), p.mul(y, y)))


def _retreat(mode: str, g: Value, kept: Value | None, state: Value, old: Value,
             carry: Value | None) -> tuple[list[Value], list[Value], Value | None]:
    """Gradients of the input's and of the hidden state's contributions to a step's gates, and what
    goes to the step before straight away."""
    if mode == "LSTM":
        i, f, c, o = _gates(kept, 4)
        bent = p.tanh(state)
        to_cell = p.add(carry, _tanh_slope(p.mul(g, o), bent))
        gates = [_sigmoid_slope(p.mul(to_cell, c), i), _sigmoid_slope(p.mul(to_cell, old), f),
                 _tanh_slope(p.mul(to_cell, i), c), _sigmoid_slope(p.mul(g, bent), o)]
        return gates, gates, p.mul(to_cell, f)
    if mode == "GRU":
        r, z, n, nh = _gates(kept, 4)
        g = p.add(g, carry)
        to_new = _tanh_slope(p.mul(g, p.sub(e.like(1, z), z)), n)
        others = [_sigmoid_slope(p.mul(to_new, nh), r),
                  _sigmoid_slope(p.mul(g, p.sub(old, n)), z)]
        return [*others, to_new], [*others, p.mul(to_new, r)], p.mul(g, z)
    if mode == "RNN_TANH":
        gates = [_tanh_slope(g, state)]
    else:
        zero = p.zero_like(state)
        gates = [p.where(p.le(state, zero), zero, g)]
    return gates, gates, None


@dataclasses.dataclass(frozen=True)
class _GradientForm(_Form):
    """Of the gradient, whose operands are those of the op, and then those of the kernel: recurrent
    weights, states, what was kept, the state before the first, gradients of the results.

    The kernel does not read the former; they are what its results depend on.
    """

    batch_first: bool = False

    @property
    def unread(self) -> int:
        """How many operands the kernel does not read."""
        return sum(self.given[:6])


def _composite_gradients(operands: Sequence[Value], attrs: tuple) -> tuple[Value, ...]:
    """Of the input's contribution, of the hidden states' (a GRU's differs), of the first state."""
    (form,) = attrs
    x, w_ih, b_ih, b_hh, h0, c0, weight, _, _, _, g, g_hidden, g_cell = form.split(operands)
    layer = _Layer(x, w_ih, weight, b_ih, b_hh, h0, c0, form.mode, form.backwards,
                   form.batch_first)
    states, cells, kept, _, _ = _composite(layer.operands, (layer.form,))
    old = h0
    if form.mode == "LSTM":
        states, old = cells, c0
    steps, batch, size = states.shape
    nothing = _zeros(states, batch, size)
    carry = nothing if g_cell is None else g_cell
    rest = nothing if g_hidden is None else g_hidden
    to_input, to_product = [None] * steps, [None] * steps
    times = form.times(steps)[::-1]
    for number, time in enumerate(times):
        slope = rest if g is None else p.add(rest, _at(g, time))
        if number + 1 < steps:
            before = _at(states, times[number + 1])
        else:
            before = nothing if old is None else old
        first, second, carry = _retreat(form.mode, slope,
                                        None if kept is None else _at(kept, time),
                                        _at(states, time), before, carry)
        to_input[time], to_product[time] = p.cat(tuple(first), 1), p.cat(tuple(second), 1)
        rest = product(to_product[time], weight)
    if form.mode == "GRU":
        rest = p.add(rest, carry)
    return _over_time(to_input), _over_time(to_product), rest, carry


def _infer_gradient(inputs, attrs):
    form, which = attrs
    states = inputs[form.unread + 1]
    steps, batch, size = states.shape
    if which in (TO_HIDDEN, TO_CELL):
        return (batch, size), states.dtype
    return (steps, batch, size * GATES[form.mode]), states.dtype


RECURRENT = joint("recurrent", 5, _infer, _composite)
RECURRENT_GRADIENT = joint("recurrent_gradient", 4, _infer_gradient, _composite_gradients)


@RECURRENT.batch
def _recurrent_batch(node: Value, inputs: Sequence[Value], flags: Sequence[bool], size: int
                     ) -> Value:
    """Examples become a part of the batch, if the weights serve them all."""
    form, which = node.attrs
    _, weight, bias, _, _ = form.split(flags)
    if weight or bias:
        return through(vectorized)(node, inputs, flags, size)
    wide = [x if role in (1, 2) else into(spread_over(x, flag, size), 0 if role else 1)
            for x, flag, role in zip(inputs, flags, _roles(form), strict=True)]
    made = node.prim(*wide, attrs=node.attrs)
    return out_of(made, 0 if which in (LAST_HIDDEN, LAST_CELL) else 1, size)


def _roles(form: _Form) -> list[int]:
    """Which of the operands that there may be each one is."""
    return [place for place, given in enumerate(form.given) if given]


def _present(*operands: Value | None) -> tuple[list[Value], tuple[bool, ...]]:
    return [x for x in operands if x is not None], tuple(x is not None for x in operands)


# ---------------------------------------------------------------------- the op
def _samples():
    for mode, gates in GATES.items():
        bias = Arr((gates * 3,))
        cell = Arr((2, 3)) if mode == "LSTM" else None
        options = {"mode": mode, "keep": True}
        yield sample(Arr((4, 2, 5)), Arr((gates * 3, 5)), Arr((gates * 3, 3)), bias, bias,
                     Arr((2, 3)), cell, **options)
        yield sample(Arr((2, 3, 5)), Arr((gates * 2, 5)), Arr((gates * 2, 2)), backwards=True,
                     batch_first=True, **options)
        yield sample(Arr((2, 1, 1)), Arr((gates, 1)), Arr((gates, 1)), Arr((gates,)),
                     Arr((gates,)), Arr((1, 1)), Arr((1, 1)) if mode == "LSTM" else None,
                     mode=mode)
        yield sample(Arr((3, 2, 5)), Arr((gates * 3, 5)), Arr((gates * 3, 3)), bias, bias,
                     mode=mode)


def _node_name(call) -> str:
    return "MkldnnRnnLayerBackward0" if call._static("mode") == "LSTM" else "StackBackward0"


def _need_fitting(mode: str, x: Value, w_ih: Value, w_hh: Value, b_ih: Value | None,
                  b_hh: Value | None, h0: Value | None, c0: Value | None, batch: int) -> None:
    """Raise unless the operands fit together: the kernel takes their sizes from one another.

    Raises:
        RuntimeError: names what does not fit.
    """
    if w_hh.ndim != 2 or w_ih.ndim != 2 or w_ih.shape[1] != x.shape[2]:
        raise RuntimeError(f"{mode.lower()}: an input of {x.shape[2]} features needs weights of "
                           f"two dimensions and that many columns, got {list(w_ih.shape)} (and "
                           f"{list(w_hh.shape)} for the state)")
    size = w_hh.shape[1]
    rows = GATES[mode] * size
    wanted = (("w_ih", w_ih, (rows, x.shape[2])), ("w_hh", w_hh, (rows, size)),
              ("b_ih", b_ih, (rows,)), ("b_hh", b_hh, (rows,)), ("hx", h0, (batch, size)),
              ("cx", c0, (batch, size)))
    for name, value, shape in wanted:
        if value is not None and tuple(value.shape) != shape:
            raise RuntimeError(f"{mode.lower()}: Expected {name} of size {list(shape)}, got "
                               f"{list(value.shape)}")


@op(name="_recurrent_layer", method=False, out=False, public=(), samples=_samples,
    check=one_dtype("mat1 and mat2 must have the same dtype, but got {first} and {other}",
                    *range(7)),
    returns=("hidden", "last_hidden", "last_cell", "cells", "kept"), grad=_node_name)
def _recurrent_layer(input: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
                     b_hh: Tensor | None = None, h0: Tensor | None = None,
                     c0: Tensor | None = None, *, mode: str = "LSTM", backwards: bool = False,
                     batch_first: bool = False, keep: bool = False):
    """Hidden states (steps, batch, size), the last one, and the last cell, of a layer over time.

    `input` is (steps, batch, features), or (batch, steps, features) with `batch_first`. The first
    state is 0 where it is missing. With `keep`, cells and activations are given too, from which
    the gradient is computed; else, and where a mode has none, these results are empty.
    """
    floats_only(mode.lower(), input)
    if input.ndim != 3:
        raise RuntimeError(f"{mode.lower()}: Expected a 3-D input, got {input.ndim}-D")
    batch = input.shape[0 if batch_first else 1]
    _need_fitting(mode, input, w_ih, w_hh, b_ih, b_hh, h0, c0, batch)
    found = _Layer(input, w_ih, w_hh, b_ih, b_hh, h0, c0, mode, backwards, batch_first)
    none = _zeros(input, 0)
    lstm = mode == "LSTM"
    return (found.result(HIDDEN), found.result(LAST_HIDDEN),
            found.result(LAST_CELL) if lstm else none,
            found.result(CELLS) if lstm and keep else none,
            found.result(KEPT) if SAVED[mode] and keep else none)


class _Layer:
    """The operands of one layer as the primitives take them."""

    def __init__(self, input: Value, w_ih: Value, w_hh: Value, b_ih: Value | None,
                 b_hh: Value | None, h0: Value | None, c0: Value | None, mode: str,
                 backwards: bool, batch_first: bool):
        self.tensors = input, w_ih, b_ih, b_hh, h0, c0
        self.w_hh, self.h0, self.c0 = w_hh, h0, c0
        self.mode, self.backwards, self.batch_first = mode, backwards, batch_first
        rows = p.reshape(input, (input.shape[0] * input.shape[1], input.shape[2]))
        given = product(rows, p.transpose(w_ih))
        bias = b_hh
        if b_ih is not None and mode != "GRU":
            bias = p.add(b_ih, b_hh)  # one addition of vectors, in the kernel
        elif b_ih is not None:
            given = p.add(given, p.expand(b_ih, given.shape))
        given = p.reshape(given, (*input.shape[:2], given.shape[1]))
        if batch_first:
            given = p.permute(given, (1, 0, 2))
        self.operands, present = _present(given, w_hh, bias, h0, c0)
        self.form = _Form(mode, backwards, present)

    def result(self, which: int) -> Value:
        return RECURRENT(*self.operands, attrs=(self.form, which))

    def slopes(self, hidden: Value, cells: Value, kept: Value, grads: Sequence[Value | None]
               ) -> list[Value | None]:
        """The gradients of the gates and of the first state."""
        lstm = self.mode == "LSTM"
        states, old = (cells, self.c0) if lstm else (hidden, self.h0)
        operands, present = _present(*self.tensors, self.w_hh, states,
                                     kept if SAVED[self.mode] else None, old, *grads)
        form = _GradientForm(self.mode, self.backwards, present, self.batch_first)

        def slope(which: int) -> Value:
            return RECURRENT_GRADIENT(*operands, attrs=(form, which))

        to_input = slope(TO_INPUT)
        return [to_input, slope(TO_PRODUCT) if self.mode == "GRU" else to_input,
                None if self.h0 is None else slope(TO_HIDDEN),
                None if self.c0 is None else slope(TO_CELL)]

    def to_recurrent_weight(self, to_product: Value, hidden: Value) -> Value:
        """The sum over time of each step's gradients times the state before it."""
        steps, batch, size = hidden.shape
        first, rest = (steps - 1, 0) if self.backwards else (0, 1)
        total = None
        if steps > 1:
            slopes = p.slice_dim(to_product, 0, rest, 1, steps - 1)
            before = p.slice_dim(hidden, 0, 1 - rest, 1, steps - 1)
            count = (steps - 1) * batch
            total = product(p.transpose(p.reshape(slopes, (count, slopes.shape[2]))),
                            p.reshape(before, (count, size)))
        if self.h0 is not None or total is None:
            start = _zeros(hidden, batch, size) if self.h0 is None else self.h0
            begin = product(p.transpose(_at(to_product, first)), start)
            total = begin if total is None else p.add(total, begin)
        return total


@_recurrent_layer.vjp
def _recurrent_layer_vjp(g, output, input, w_ih, w_hh, b_ih, b_hh, h0, c0, mode, backwards,
                         batch_first, keep):
    """Back through time for the gates; then one product over all steps for each weight.

    Cells and what is kept only save the gradient some work: what it depends on are the inputs."""
    layer = _Layer(input, w_ih, w_hh, b_ih, b_hh, h0, c0, mode, backwards, batch_first)
    hidden, _, _, cells, kept = output
    if not keep:
        cells = layer.result(CELLS) if mode == "LSTM" else cells
        kept = layer.result(KEPT) if SAVED[mode] else kept
    to_input, to_product, to_h0, to_c0 = layer.slopes(
        hidden, cells, kept, (g[0], g[1], g[2] if mode == "LSTM" else None))
    steps, batch, width = to_input.shape
    rows = p.reshape(to_input, (steps * batch, width))
    ordered = p.permute(input, (1, 0, 2)) if batch_first else input
    ordered = p.reshape(ordered, (steps * batch, input.shape[2]))
    to_x = p.reshape(product(rows, w_ih), (steps, batch, input.shape[2]))
    if batch_first:
        to_x = p.permute(to_x, (1, 0, 2))
    sums = [p.reduce_sum(p.reshape(x, rows.shape), (0,)) if b_ih is not None else None
            for x in (to_input, to_product)]
    return [to_x, product(p.transpose(rows), ordered),
            layer.to_recurrent_weight(to_product, hidden), *sums, to_h0, to_c0]
