"""Recurrent networks: a whole sequence at a time, and single steps."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import flambeau
from flambeau.nn import functional as F
from flambeau.nn import init
from flambeau.nn.modules.module import Module
from flambeau.nn.parameter import Parameter
from flambeau.nn.utils.rnn import PackedSequence
from flambeau.tensor import Tensor, functions

__all__ = ["GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNBase", "RNNCell", "RNNCellBase"]

_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def _advance(mode: str, x: Tensor, h: Tensor, state: tuple) -> tuple:
    """The next state, from the products of the weights with the input and the hidden state."""
    if mode == "LSTM":
        new, cell = functions._lstm_step(x, h, state[1])
        return new, cell
    if mode == "GRU":
        return (functions._gru_step(x, h, state[0]),)
    return (functions._rnn_step(x, h, mode == "RNN_TANH"),)


# -- whole sequences -----------------------------------------------------------------------------
def _draw(module: Any) -> None:
    """Draw all parameters of a recurrent module anew, uniform on +-1/sqrt(hidden_size)."""
    bound = 1.0 / math.sqrt(module.hidden_size) if module.hidden_size > 0 else 0
    for weight in module.parameters():
        init.uniform_(weight, -bound, bound)


class _Direction:
    """The weights of one layer in one direction, and how they run over time."""

    def __init__(self, mode: str, weights: list, reverse: bool):
        self.mode, self.reverse = mode, reverse
        self.w_ih, self.w_hh, self.b_ih, self.b_hh, self.w_hr = weights

    def step(self, x: Tensor, state: tuple) -> tuple:
        """The state after one time step; x is the input's product already."""
        state = _advance(self.mode, x, F.linear(state[0], self.w_hh, self.b_hh), state)
        if self.w_hr is not None:
            state = (F.linear(state[0], self.w_hr), *state[1:])
        return state

    def run(self, x: Tensor, state: tuple | None, batch_first: bool = False
            ) -> tuple[Tensor, tuple]:
        """(hidden states over time, last state) for x (length, n, features); time runs along the
        second dimension of x with `batch_first`. No state is a state of zeros."""
        if self.w_hr is None:
            return self._run_layer(x, state, batch_first)
        x = x.transpose(0, 1) if batch_first else x
        steps = F.linear(x, self.w_ih, self.b_ih).unbind(0)
        found = []
        for part in reversed(steps) if self.reverse else steps:
            state = self.step(part, state)
            found.append(state[0])
        return flambeau.stack(found[::-1] if self.reverse else found), state

    def _run_layer(self, x: Tensor, state: tuple | None, batch_first: bool
                   ) -> tuple[Tensor, tuple]:
        weights = (self.w_ih, self.w_hh, self.b_ih, self.b_hh)
        state = (None, None) if state is None else (*state, None)[:2]
        keep = flambeau.is_grad_enabled() and any(
            t is not None and t.requires_grad for t in (x, *weights, *state))
        hidden, last, cell, _, _ = functions._recurrent_layer(
            x, *weights, *state, mode=self.mode, backwards=self.reverse, batch_first=batch_first,
            keep=keep)
        return hidden, (last, cell) if self.mode == "LSTM" else (last,)

    def run_packed(self, data: Tensor, counts: list[int], state: tuple) -> tuple[Tensor, tuple]:
        """The same for packed data (elements, features), `counts` of them in each step."""
        parts = F.linear(data, self.w_ih, self.b_ih).split(counts)
        if self.reverse:
            return self._run_packed_back(parts, counts, state)
        found, ended = [], []
        for part, count in zip(parts, counts, strict=True):
            if count < state[0].shape[0]:  # the shortest sequences have ended
                ended.append(tuple(s[count:] for s in state))
                state = tuple(s[:count] for s in state)
            state = self.step(part, state)
            found.append(state[0])
        ended.append(state)
        last = tuple(flambeau.cat(group[::-1]) for group in zip(*ended, strict=True))
        return flambeau.cat(found), last

    def _run_packed_back(self, parts: Any, counts: list[int], initial: tuple
                         ) -> tuple[Tensor, tuple]:
        found: list[Tensor] = []
        state = tuple(s[:counts[-1]] for s in initial)
        for part, count in zip(reversed(parts), reversed(counts), strict=True):
            have = state[0].shape[0]
            if count > have:  # the next longest sequences begin
                state = tuple(flambeau.cat([s, first[have:count]])
                              for s, first in zip(state, initial, strict=True))
            state = self.step(part, state)
            found.append(state[0])
        return flambeau.cat(found[::-1]), state


def stacked(run: Callable, layers: list[_Direction], x: Tensor, states: list[Tensor] | None,
            sides: int, dropout: float, batch_first: bool) -> tuple[Tensor, list]:
    """(the last layer's hidden states, all final states stacked) of layers of `sides` directions
    each; dropout between them."""
    finals: list[tuple] = []
    for first in range(0, len(layers), sides):
        found = []
        for number in range(first, first + sides):
            state = None if states is None else tuple(s[number] for s in states)
            result, last = run(layers[number], x, state, batch_first and first == 0)
            found.append(result)
            finals.append(last)
        x = found[0] if len(found) == 1 else flambeau.cat(found, -1)
        if dropout and first + sides < len(layers):
            x = F.dropout(x, dropout, True)
    return x, [flambeau.stack(group) for group in zip(*finals, strict=True)]


class RNNBase(Module):
    """What RNN, LSTM and GRU share.

    Args:
        mode: "RNN_TANH", "RNN_RELU", "LSTM" or "GRU".
        input_size: features of the input.
        hidden_size: features of the hidden state.
        num_layers: how many layers are stacked.
        bias: whether there are biases.
        batch_first: whether inputs are (batch, length, features) rather than (length, batch, ...).
        dropout: how likely an element between layers is dropped, in training.
        bidirectional: whether each layer also runs backwards; results are joined.
        proj_size: features that an LSTM's hidden state is projected to, if not 0.
        device: where the parameters live.
        dtype: of the parameters.

    Attributes:
        weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, weight_hr_l0, weight_ih_l0_reverse, ...:
            uniform on +-1/sqrt(hidden_size).
    """

    __constants__ = ["mode", "input_size", "hidden_size", "num_layers", "bias", "batch_first",
                     "dropout", "bidirectional", "proj_size"]

    def __init__(self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1,
                 bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
                 bidirectional: bool = False, proj_size: int = 0, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self._check_options(dropout)
        self._make_weights({"device": device, "dtype": dtype})
        self.reset_parameters()

    def _check_options(self, dropout: Any) -> None:
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not (
                0 <= dropout <= 1):
            raise ValueError("dropout should be a number in range [0, 1] representing the "
                             "probability of an element being zeroed")
        if dropout > 0 and self.num_layers == 1:
            warnings.warn("dropout option adds dropout after all but last recurrent layer, so "
                          f"non-zero dropout expects num_layers greater than 1, but got "
                          f"dropout={dropout} and num_layers={self.num_layers}", stacklevel=4)
        if not isinstance(self.hidden_size, int):
            raise TypeError("hidden_size should be of type int, got: "
                            f"{type(self.hidden_size).__name__}")
        if self.hidden_size <= 0:
            raise ValueError("hidden_size must be greater than zero")
        if self.num_layers <= 0:
            raise ValueError("num_layers must be greater than zero")
        if self.proj_size < 0:
            raise ValueError("proj_size should be a positive integer or zero to disable "
                             "projections")
        if self.proj_size >= self.hidden_size:
            raise ValueError("proj_size has to be smaller than hidden_size")
        if self.mode not in _GATES:
            raise ValueError("Unrecognized RNN mode: " + self.mode)

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def _state_size(self) -> int:
        return self.proj_size or self.hidden_size

    def _make_weights(self, made: dict) -> None:
        gates = _GATES[self.mode] * self.hidden_size
        self._weight_names: list[list[str]] = []
        for layer in range(self.num_layers):
            width = self.input_size if layer == 0 else self._state_size * self._directions
            for direction in range(self._directions):
                end = f"_l{layer}{'_reverse' if direction else ''}"
                shapes = {"weight_ih": (gates, width), "weight_hh": (gates, self._state_size)}
                if self.bias:
                    shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
                if self.proj_size:
                    shapes["weight_hr"] = (self.proj_size, self.hidden_size)
                for name, shape in shapes.items():
                    setattr(self, name + end, Parameter(flambeau.empty(shape, **made)))
                self._weight_names.append([name + end for name in shapes])

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        _draw(self)

    def flatten_parameters(self) -> None:
        """Does nothing: weights need not lie side by side."""

    def __getstate__(self) -> dict:
        """As PyTorch's modules have it, which keep the parameters in one list, too."""
        state = super().__getstate__()
        names = state.pop("_weight_names")
        flat = [name for layer in names for name in layer]
        state.update(_all_weights=[list(layer) for layer in names], _flat_weights_names=flat,
                     _flat_weights=[getattr(self, name, None) for name in flat])
        return state

    def __setstate__(self, state: dict) -> None:
        state = {"proj_size": 0, **state}
        if "_all_weights" in state:
            state["_weight_names"] = [list(names) for names in state.pop("_all_weights")]
        for derived in ("_flat_weights", "_flat_weights_names", "_flat_weight_refs"):
            state.pop(derived, None)
        super().__setstate__(state)

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters, by layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._weight_names]

    def _direction(self, number: int) -> _Direction:
        names = {name.rpartition("_l")[0]: name for name in self._weight_names[number]}
        weights = [getattr(self, names[kind]) if kind in names else None for kind in
                   ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")]
        return _Direction(self.mode, weights, number % self._directions == 1)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.proj_size != 0:
            text += f", proj_size={self.proj_size}"
        if self.num_layers != 1:
            text += f", num_layers={self.num_layers}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        if self.batch_first is not False:
            text += f", batch_first={self.batch_first}"
        if self.dropout != 0:
            text += f", dropout={self.dropout}"
        if self.bidirectional is not False:
            text += f", bidirectional={self.bidirectional}"
        return text

    # -- running -----------------------------------------------------------------------------
    def _check_input(self, input: Tensor, batched_rank: int, packed: bool) -> bool:
        """Is the input batched?"""
        name = type(self).__name__
        if not packed and input.dim() not in (2, 3):
            raise ValueError(f"{name}: Expected input to be 2D or 3D, got {input.dim()}D instead")
        if input.size(-1) != self.input_size:
            raise RuntimeError("input.size(-1) must be equal to input_size. Expected "
                               f"{self.input_size}, got {input.size(-1)}")
        weight = getattr(self, self._weight_names[0][0])
        if input.dtype is not weight.dtype:
            raise ValueError(f"RNN input dtype ({input.dtype}) does not match weight dtype "
                             f"({weight.dtype}). Convert input: input.to({weight.dtype}), or "
                             f"convert model: model.to({input.dtype})")
        return packed or input.dim() == batched_rank

    def _state_shapes(self, batch: int) -> list[tuple[int, int, int]]:
        count = self.num_layers * self._directions
        shapes = [(count, batch, self._state_size)]
        return [*shapes, (count, batch, self.hidden_size)] if self.mode == "LSTM" else shapes

    def _initial(self, hx: Any, batch: int, batched: bool, like: Tensor,
                 order: Tensor | None, needed: bool) -> list[Tensor] | None:
        """The state to begin with: (layers * directions, batch, size) each; None for zeros, unless
        they are `needed`."""
        shapes = self._state_shapes(batch)
        if hx is None and not needed:
            return None
        if hx is None:
            return [flambeau.zeros(shape, dtype=like.dtype, device=like.device)
                    for shape in shapes]
        given = list(hx) if self.mode == "LSTM" else [hx]
        names = ("hx", "cx") if self.mode == "LSTM" else ("hx",)
        for name, state in zip(names, given, strict=True):
            if state.dim() != (3 if batched else 2):
                raise RuntimeError(f"For {'batched 3-D' if batched else 'unbatched 2-D'} input, "
                                   f"{name} should also be {3 if batched else 2}-D but got "
                                   f"{state.dim()}-D tensor")
        given = given if batched else [state.unsqueeze(1) for state in given]
        words = ("hidden[0]", "hidden[1]") if self.mode == "LSTM" else ("hidden",)
        for word, state, shape in zip(words, given, shapes, strict=True):
            if tuple(state.shape) != shape:
                raise RuntimeError(f"Expected {word} size {shape}, got {list(state.shape)}")
        if order is not None:
            given = [state.index_select(1, order) for state in given]
        return given

    def _layers(self, run: Callable, x: Tensor, states: list[Tensor] | None,
                batch_first: bool = False) -> tuple[Tensor, list]:
        """(the last layer's hidden states, all final states stacked)."""
        layers = [self._direction(number) for number in range(len(self._weight_names))]
        dropout = self.dropout if self.training else 0
        return stacked(run, layers, x, states, self._directions, dropout, batch_first)

    def _result(self, finals: list[Tensor]) -> Any:
        return tuple(finals) if self.mode == "LSTM" else finals[0]

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """(hidden states of the last layer over time, final state of every layer).

        Args:
            input: (length, batch, input_size), or batch first, without batch, or a PackedSequence.
            hx: the first state, (layers * directions, batch, hidden_size), zeros by default; for
                an LSTM the pair of hidden and cell state.
        """
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        batched = self._check_input(input, 3, False)
        x = input if batched else input.unsqueeze(1)
        turned = batched and self.batch_first
        steps, batch = x.shape[1::-1] if turned else x.shape[:2]
        if steps == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        states = self._initial(hx, batch, batched, x, None, bool(self.proj_size))
        result, finals = self._layers(_Direction.run, x, states, turned)
        if not batched:
            return result.squeeze(1), self._result([state.squeeze(1) for state in finals])
        return (result.transpose(0, 1) if turned else result), self._result(finals)

    def _forward_packed(self, packed: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        counts = packed.batch_sizes.tolist()
        self._check_input(packed.data, 2, True)
        states = self._initial(hx, counts[0], True, packed.data, packed.sorted_indices, True)

        def run(direction: _Direction, x: Tensor, state: tuple, _batch_first: bool
                ) -> tuple[Tensor, tuple]:
            return direction.run_packed(x, counts, state)

        data, finals = self._layers(run, packed.data, states)
        if packed.unsorted_indices is not None:
            finals = [state.index_select(1, packed.unsorted_indices) for state in finals]
        return packed._with(data), self._result(finals)


class RNN(RNNBase):
    """Layers of h' = tanh(W x + b + U h + c) (Elman 1990).

    Args:
        input_size: features of the input.
        hidden_size: features of the hidden state.
        num_layers: how many layers are stacked.
        nonlinearity: "tanh" or "relu".
        bias, batch_first, dropout, bidirectional, device, dtype: see `RNNBase`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        if len(args) > 3:
            self.nonlinearity = args[3]
            args = args[:3] + args[4:]
        else:
            self.nonlinearity = kwargs.pop("nonlinearity", "tanh")
        if self.nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{self.nonlinearity}'. Select from 'tanh' or "
                             "'relu'.")
        super().__init__(f"RNN_{self.nonlinearity.upper()}", *args, **kwargs)


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter & Schmidhuber 1997); arguments as of `RNNBase`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)


class GRU(RNNBase):
    """Gated recurrent units (Cho et al. 2014); arguments as of `RNNBase`, without proj_size."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        super().__init__("GRU", *args, **kwargs)


# -- single steps --------------------------------------------------------------------------------
class RNNCellBase(Module):
    """What the cells share.

    Args:
        input_size: features of the input.
        hidden_size: features of the hidden state.
        bias: whether there are biases.
        num_chunks: number of gates.
        device: where the parameters live.
        dtype: of the parameters.
    """

    __constants__ = ["input_size", "hidden_size", "bias"]
    _mode = "RNN_TANH"

    def __init__(self, input_size: int, hidden_size: int, bias: bool, num_chunks: int,
                 device: Any = None, dtype: Any = None) -> None:
        made = {"device": device, "dtype": dtype}
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        gates = num_chunks * hidden_size
        self.weight_ih = Parameter(flambeau.empty((gates, input_size), **made))
        self.weight_hh = Parameter(flambeau.empty((gates, hidden_size), **made))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(flambeau.empty(gates, **made)) if bias
                                    else None)
        self.reset_parameters()

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        if getattr(self, "nonlinearity", "tanh") != "tanh":
            text += f", nonlinearity={self.nonlinearity}"
        return text

    def reset_parameters(self) -> None:
        """Draw all parameters anew, uniform on +-1/sqrt(hidden_size)."""
        _draw(self)

    def _next(self, input: Tensor, given: tuple | None) -> tuple:
        """The next state, in the shape of the input's batch."""
        name = type(self).__name__
        if input.dim() not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        if input.size(-1) != self.input_size:
            raise RuntimeError(f"input has inconsistent input_size: got {input.size(-1)} expected "
                               f"{self.input_size}")
        for state in given or ():
            if state.dim() not in (1, 2):
                raise ValueError(f"{name}: Expected hidden to be 1D or 2D, got {state.dim()}D "
                                 "instead")
            if state.size(-1) != self.hidden_size or state.shape[:-1] != input.shape[:-1]:
                raise RuntimeError(f"hidden has inconsistent hidden_size or batch: got "
                                   f"{list(state.shape)} for input {list(input.shape)} and "
                                   f"hidden_size {self.hidden_size}")
        if given is None:
            zero = flambeau.zeros((*input.shape[:-1], self.hidden_size), dtype=input.dtype,
                                  device=input.device)
            given = (zero, zero)
        x = F.linear(input, self.weight_ih, self.bias_ih)
        return _advance(self._mode, x, F.linear(given[0], self.weight_hh, self.bias_hh), given)


class RNNCell(RNNCellBase):
    """One step of an RNN: h' = tanh(W x + b + U h + c).

    Args:
        input_size: features of the input.
        hidden_size: features of the hidden state.
        bias: whether there are biases.
        nonlinearity: "tanh" or "relu".
        device: where the parameters live.
        dtype: of the parameters.
    """

    __constants__ = ["input_size", "hidden_size", "bias", "nonlinearity"]

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True,
                 nonlinearity: str = "tanh", device: Any = None, dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next hidden state (n, hidden_size), from zeros by default."""
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        self._mode = f"RNN_{self.nonlinearity.upper()}"
        return self._next(input, None if hx is None else (hx,))[0]


class LSTMCell(RNNCellBase):
    """One step of an LSTM; arguments as of `RNNCell`, without nonlinearity."""

    _mode = "LSTM"

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor,
                hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """The next hidden and cell state (n, hidden_size), from zeros by default."""
        return self._next(input, None if hx is None else tuple(hx))


class GRUCell(RNNCellBase):
    """One step of a GRU; arguments as of `RNNCell`, without nonlinearity."""

    _mode = "GRU"

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next hidden state (n, hidden_size), from zeros by default."""
        return self._next(input, None if hx is None else (hx,))[0]
