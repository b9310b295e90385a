"""Steps of recurrent networks: what happens between the matrix products, in one kernel each."""

from __future__ import annotations

from flambeau.ir.graph import Value
from flambeau.ops import primitives as p
from flambeau.ops.activation import floats_only
from flambeau.ops.record import Tensor, op
from flambeau.ops.samples import Arr, sample


def _gates(x: Value, count: int) -> list[Value]:
    """(n, count * hidden) cut into its gates."""
    size = x.shape[-1] // count
    return [p.slice_dim(x, x.ndim - 1, k * size, 1, size) for k in range(count)]


@op(name="_lstm_step", method=False, out=False, public=(), returns=("hidden", "cell"),
    grad="ThnnFusedLstmCellBackward0", samples=lambda: iter([
        sample(Arr((3, 20)), Arr((3, 20)), Arr((3, 5))), sample(Arr((8,)), Arr((8,)), Arr((2,)))]))
def _lstm_step(from_input: Tensor, from_hidden: Tensor, cell: Tensor):
    """(h, c) of an LSTM (Hochreiter & Schmidhuber 1997).

    The gates are sums of (n, 4 h) from the input and the hidden state, in the order input, forget,
    cell, output: c' = f c + i g and h' = o tanh(c').
    """
    floats_only("lstm_cell", from_input)
    i, f, g, o = _gates(p.add(from_input, from_hidden), 4)
    new = p.add(p.mul(p.sigmoid(f), cell), p.mul(p.sigmoid(i), p.tanh(g)))
    return p.mul(p.sigmoid(o), p.tanh(new)), p.stop_copy(new)


@op(name="_gru_step", method=False, out=False, public=(), grad="ThnnFusedGruCellBackward0",
    samples=lambda: iter([sample(Arr((3, 15)), Arr((3, 15)), Arr((3, 5)))]))
def _gru_step(from_input: Tensor, from_hidden: Tensor, hidden: Tensor):
    """h of a GRU (Cho et al. 2014): n + z (h - n), n = tanh(n_x + r n_h).

    Both arguments hold (n, 3 h): reset gate r, update gate z, new gate n.
    """
    floats_only("gru_cell", from_input)
    (rx, zx, nx), (rh, zh, nh) = _gates(from_input, 3), _gates(from_hidden, 3)
    reset, update = p.sigmoid(p.add(rx, rh)), p.sigmoid(p.add(zx, zh))
    new = p.tanh(p.add(nx, p.mul(reset, nh)))
    return p.add(new, p.mul(update, p.sub(hidden, new)))


@op(name="_rnn_step", method=False, out=False, public=(),
    grad=lambda call: "TanhBackward0" if call._static("tanh") else "ReluBackward0",
    samples=lambda: iter([sample(Arr((3, 5)), Arr((3, 5)), True),
                          sample(Arr((3, 5)), Arr((3, 5)), False)]))
def _rnn_step(from_input: Tensor, from_hidden: Tensor, tanh: bool = True):
    """tanh (or relu) of the sum of both."""
    floats_only("rnn_cell", from_input)
    total = p.add(from_input, from_hidden)
    if tanh:
        return p.tanh(total)
    zero = p.zero_like(total)
    return p.where(p.le(total, zero), zero, total)
