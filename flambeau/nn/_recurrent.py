"""Recurrent networks as functions of their weights, as PyTorch has them under `torch` itself: what
the modules of `nn.modules.rnn` compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flambeau.core.arguments import kind_of, need_tensor
from flambeau.nn import functional as F
from flambeau.nn.modules.rnn import _advance, _Direction, stacked
from flambeau.tensor.tensor import Tensor

__all__ = ["gru", "gru_cell", "lstm", "lstm_cell", "rnn_relu", "rnn_relu_cell", "rnn_tanh",
           "rnn_tanh_cell"]


# ---------------------------------------------------------------------- whole sequences
def lstm(input: Tensor, *args: Any, **kwargs: Any) -> tuple:
    """(hidden states over time, last hidden states, last cells) of the layers of an LSTM.

    `lstm(input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first)`,
    where hx is the pair of first states and params are the weights of `torch.nn.LSTM` in its order;
    or, for packed data, `lstm(data, batch_sizes, hx, params, has_biases, ..., bidirectional)`.

    >>> x, h, c = torch.ones(2, 1, 1), torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)
    >>> weights = [torch.ones(4, 1), torch.ones(4, 1)]
    >>> torch.lstm(x, (h, c), weights, False, 1, 0., False, False, False)[1]
    tensor([[[0.6505]]])
    """
    return _network("LSTM", input, args, kwargs)


def gru(input: Tensor, *args: Any, **kwargs: Any) -> tuple:
    """(hidden states over time, last hidden states) of the layers of a GRU; arguments as of `lstm`,
    with one tensor as hx.

    >>> weights = [torch.ones(3, 1), torch.ones(3, 1)]
    >>> x, h = torch.ones(1, 1, 1), torch.zeros(1, 1, 1)
    >>> torch.gru(x, h, weights, False, 1, 0., False, False, False)[1]
    tensor([[[0.2048]]])
    """
    return _network("GRU", input, args, kwargs)


def rnn_tanh(input: Tensor, *args: Any, **kwargs: Any) -> tuple:
    """(hidden states over time, last hidden states) of layers of h' = tanh(W x + U h + b);
    arguments as of `gru`.

    >>> x, h, weights = torch.ones(1, 1, 1), torch.zeros(1, 1, 1), [torch.ones(1, 1)] * 2
    >>> torch.rnn_tanh(x, h, weights, False, 1, 0., False, False, False)[1]
    tensor([[[0.7616]]])
    """
    return _network("RNN_TANH", input, args, kwargs)


def rnn_relu(input: Tensor, *args: Any, **kwargs: Any) -> tuple:
    """(hidden states over time, last hidden states) of layers of h' = relu(W x + U h + b);
    arguments as of `gru`.

    >>> x, h, weights = torch.ones(1, 1, 1), torch.zeros(1, 1, 1), [torch.ones(1, 1)] * 2
    >>> torch.rnn_relu(x, h, weights, False, 1, 0., False, False, False)[1]
    tensor([[[1.]]])
    """
    return _network("RNN_RELU", input, args, kwargs)


_SETTINGS = ("params", "has_biases", "num_layers", "dropout", "train", "bidirectional")


def _network(mode: str, input: Tensor, args: tuple, kwargs: dict) -> tuple:
    """The layers of a network, by either of the two lists of arguments."""
    name = mode.lower()
    packed = "batch_sizes" in kwargs or len(args) > 2 and not isinstance(args[2], bool)
    words = ("batch_sizes", "hx", *_SETTINGS) if packed else ("hx", *_SETTINGS, "batch_first")
    given = dict(zip(words, args, strict=False)) | kwargs
    if len(args) > len(words) or given.keys() != set(words):
        raise TypeError(f"{name}() takes a tensor and {', '.join(words)}; got {len(args) + 1} "
                        f"arguments{' and ' + ', '.join(kwargs) if kwargs else ''}")
    need_tensor(name, "input", input)
    sides = 2 if given["bidirectional"] else 1
    states = _states(mode, given["hx"])
    layers = _directions(mode, given["params"], given["num_layers"] * sides, sides,
                         given["has_biases"])
    turned = not packed and given["batch_first"]
    run = _packed_run(given["batch_sizes"].tolist()) if packed else _Direction.run
    if states[0].ndim != 3 or any(s.shape[0] != len(layers) for s in states):
        raise RuntimeError(f"{name}: Expected hx of size [{len(layers)}, batch, hidden_size], got "
                           f"{list(states[0].shape)}")
    if not input.shape[1 if turned and input.ndim > 1 else 0]:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    dropout = given["dropout"] if given["train"] else 0
    result, finals = stacked(run, layers, input, states, sides, dropout, turned)
    return (result.transpose(0, 1) if turned else result), *finals


def _states(mode: str, hx: Any) -> list[Tensor]:
    """The first states, one tensor for each kind."""
    given = list(hx) if mode == "LSTM" and isinstance(hx, (list, tuple)) else [hx]
    for state in given:
        need_tensor(mode.lower(), "hx", state)
    if len(given) != (2 if mode == "LSTM" else 1):
        raise RuntimeError("lstm expects two hidden states")
    return given


def _directions(mode: str, params: Any, count: int, sides: int, biases: bool) -> list[_Direction]:
    """The weights of every layer and direction: input, state, two biases, projection."""
    name = mode.lower()
    if not isinstance(params, (list, tuple)):
        raise TypeError(f"{name}(): argument 'params' must be tuple of Tensors, not "
                        f"{kind_of(params)}")
    for weight in params:
        need_tensor(name, "params", weight)
    plain = 4 if biases else 2
    each = len(params) // count if count else 0
    if each * count != len(params) or each != plain and not (
            mode == "LSTM" and each == plain + 1):
        raise RuntimeError(f"{name}: got an incorrect number of parameters: {len(params)} for "
                           f"{count} layers and directions of {plain}")
    groups = [list(params[i:i + each]) for i in range(0, len(params), each)]
    return [_Direction(mode, [*group[:2], *(group[2:4] if biases else (None, None)),
                              group[plain] if each > plain else None], number % sides == 1)
            for number, group in enumerate(groups)]


def _packed_run(counts: list[int]) -> Callable:
    def run(direction: _Direction, x: Tensor, state: tuple, _batch_first: bool
            ) -> tuple[Tensor, tuple]:
        return direction.run_packed(x, counts, state)

    return run


# ---------------------------------------------------------------------- single steps
def lstm_cell(input: Tensor, hx: Sequence[Tensor], w_ih: Tensor, w_hh: Tensor,
              b_ih: Tensor | None = None, b_hh: Tensor | None = None) -> tuple:
    """(hidden state, cell) of one step of an LSTM from the pair hx of those before.

    >>> h = torch.zeros(1, 1)
    >>> torch.lstm_cell(torch.ones(1, 1), (h, h), torch.ones(4, 1), torch.ones(4, 1))
    (tensor([[0.3696]]), tensor([[0.5568]]))
    """
    return _step("LSTM", input, _states("LSTM", hx), w_ih, w_hh, b_ih, b_hh)


def gru_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
             b_hh: Tensor | None = None) -> Tensor:
    """The hidden state of one step of a GRU.

    >>> torch.gru_cell(torch.ones(1, 1), torch.zeros(1, 1), torch.ones(3, 1), torch.ones(3, 1))
    tensor([[0.2048]])
    """
    return _step("GRU", input, _states("GRU", hx), w_ih, w_hh, b_ih, b_hh)[0]


def rnn_tanh_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor,
                  b_ih: Tensor | None = None, b_hh: Tensor | None = None) -> Tensor:
    """tanh(W x + U h + b): one step of a recurrent layer.

    >>> w = torch.ones(1, 1)
    >>> torch.rnn_tanh_cell(torch.ones(1, 1), torch.zeros(1, 1), w, w)
    tensor([[0.7616]])
    """
    return _step("RNN_TANH", input, _states("RNN_TANH", hx), w_ih, w_hh, b_ih, b_hh)[0]


def rnn_relu_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor,
                  b_ih: Tensor | None = None, b_hh: Tensor | None = None) -> Tensor:
    """relu(W x + U h + b): one step of a recurrent layer.

    >>> w = torch.ones(1, 1)
    >>> torch.rnn_relu_cell(torch.ones(1, 1), torch.zeros(1, 1), w, w)
    tensor([[1.]])
    """
    return _step("RNN_RELU", input, _states("RNN_RELU", hx), w_ih, w_hh, b_ih, b_hh)[0]


def _step(mode: str, input: Tensor, states: list[Tensor], w_ih: Tensor, w_hh: Tensor,
          b_ih: Tensor | None, b_hh: Tensor | None) -> tuple:
    for word, weight in (("input", input), ("w_ih", w_ih), ("w_hh", w_hh)):
        need_tensor(mode.lower() + "_cell", word, weight)
    hidden = states[0]
    if input.shape[-1] != w_ih.shape[-1]:
        raise RuntimeError(f"input has inconsistent input_size: got {input.shape[-1]} expected "
                           f"{w_ih.shape[-1]}")
    if hidden.shape[-1] != w_hh.shape[-1]:
        raise RuntimeError(f"hidden has inconsistent hidden_size: got {hidden.shape[-1]}, expected "
                           f"{w_hh.shape[-1]}")
    if input.shape[:-1] != hidden.shape[:-1]:
        raise RuntimeError(f"Input batch size {list(input.shape[:-1])} doesn't match hidden batch "
                           f"size {list(hidden.shape[:-1])}")
    return _advance(mode, F.linear(input, w_ih, b_ih), F.linear(hidden, w_hh, b_hh),
                    tuple(states))
