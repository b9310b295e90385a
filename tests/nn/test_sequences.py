"""Modules over sequences: recurrent networks, attention, CTC; modules that learn their sizes."""

from __future__ import annotations

import copy
import itertools
import math
import pickle

import numpy as np
import pytest

import flambeau as torch
from flambeau import nn
from flambeau.nn import functional as F
from flambeau.nn.utils import rnn


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("both", [False, True])
def test_packed_sequences_are_run_alone(kind, both):
    net = getattr(torch.nn, kind)(3, 4, num_layers=2, bidirectional=both)
    many = [torch.randn(size, 3) for size in (2, 5, 3)]
    packed, last = net(rnn.pack_sequence(many, enforce_sorted=False))
    padded, sizes = rnn.pad_packed_sequence(packed)
    assert sizes.tolist() == [2, 5, 3]
    last = last[0] if kind == "LSTM" else last
    for k, x in enumerate(many):
        alone, state = net(x)
        state = state[0] if kind == "LSTM" else state
        assert torch.allclose(padded[:len(x), k], alone, atol=1e-6)
        assert torch.allclose(last[:, k], state, atol=1e-6)
    assert not bool(padded[2:, 0].any())


def test_cells_are_steps_of_the_network():
    net, cell = torch.nn.LSTM(3, 4), torch.nn.LSTMCell(3, 4)
    for name, value in cell.named_parameters():
        value.data.copy_(getattr(net, name + "_l0").detach())
    x, state = torch.randn(5, 2, 3), None
    for t in range(5):
        state = cell(x[t], state)
    _, (h, c) = net(x)
    assert torch.allclose(state[0], h[0], atol=1e-6)
    assert torch.allclose(state[1], c[0], atol=1e-6)


def test_attention_masks():
    q, k, v = (torch.randn(2, 3, 4, 5) for _ in range(3))
    causal = torch.ones(4, 4).tril().to(torch.bool)
    a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert torch.allclose(a, F.scaled_dot_product_attention(q, k, v, causal), atol=1e-6)
    none = F.scaled_dot_product_attention(q, k, v, torch.zeros(4, 4).to(torch.bool))
    assert not bool(none.any())  # a row that sees nothing is 0, not NaN


def test_attention_with_and_without_weights_agree():
    net = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    x, padding = torch.randn(3, 5, 8), torch.tensor([[False] * 4 + [True]] * 3)
    shown, weights = net(x, x, x, key_padding_mask=padding)
    hidden, nothing = net(x, x, x, key_padding_mask=padding, need_weights=False)
    assert torch.allclose(shown, hidden, atol=1e-6) and nothing is None
    assert weights.shape == (3, 5, 5) and not bool(weights[:, :, 4].any())


def test_ctc_sums_over_all_alignments():
    log_probs = F.log_softmax(torch.randn(4, 1, 3, dtype=torch.float64), -1)
    p, label = log_probs.exp().numpy()[:, 0], [1, 1]
    total = 0.0
    for path in itertools.product(range(3), repeat=4):
        if [c for c, _ in itertools.groupby(path) if c] == label:
            total += np.prod([p[t, c] for t, c in enumerate(path)])
    loss = F.ctc_loss(log_probs, torch.tensor([label]), [4], [2], reduction="none")
    assert loss.item() == pytest.approx(-math.log(total))
    short = F.ctc_loss(log_probs, torch.tensor([label]), [2], [2], reduction="none")
    assert short.item() == math.inf  # two equal labels need a blank between them


@pytest.mark.parametrize("make, shape, name", [
    (lambda: torch.nn.LazyLinear(4), (2, 3), "Linear"),
    (lambda: torch.nn.LazyConv2d(4, 3), (2, 3, 5, 5), "Conv2d"),
    (lambda: torch.nn.LazyConvTranspose1d(4, 3), (2, 3, 5), "ConvTranspose1d"),
    (lambda: torch.nn.LazyBatchNorm1d(), (5, 3), "BatchNorm1d")])
def test_lazy_modules_become_plain(make, shape, name):
    net = make()
    assert net.has_uninitialized_params()
    net(torch.randn(*shape))
    assert type(net) is getattr(torch.nn, name)
    fresh = make()
    fresh.load_state_dict(net.state_dict())
    assert [x.shape for x in fresh.parameters()] == [x.shape for x in net.parameters()]


def test_transformer_is_causal():
    net = torch.nn.Transformer(8, 2, 1, 1, 16, dropout=0.0)
    mask = net.generate_square_subsequent_mask(4)
    source, target = torch.randn(3, 2, 8), torch.randn(4, 2, 8)
    first = net(source, target, tgt_mask=mask)
    changed = target.clone()
    changed[3] += 1.0
    second = net(source, changed, tgt_mask=mask)
    assert torch.allclose(first[:3], second[:3], atol=1e-5)
    assert not torch.allclose(first[3], second[3], atol=1e-3)


# -- lazy modules ----------------------------------------------------------------------------------

def _lazy():
    return nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d(), nn.LazyLinear(2, bias=False))


def test_lazy_modules_are_converted_copied_and_pickled_before_their_first_input():
    whole = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.Linear(3, 2, bias=False))
    lazy = _lazy()
    for found in (copy.deepcopy(lazy), pickle.loads(pickle.dumps(lazy)), lazy):
        found = found.half().to("cpu").double()
        assert all(nn.parameter.is_lazy(p) and p.dtype == torch.float64
                   for p in (*found.parameters(), found[1].running_mean))
        assert found(torch.ones(4, 5, dtype=torch.float64)).dtype == torch.float64
        assert type(found[0]) is nn.Linear and found[1].running_var.shape == (3,)
        assert [type(p) for p in found.parameters()] == [nn.Parameter] * 5
    loaded = _lazy()
    loaded.load_state_dict(whole.state_dict())
    x = torch.randn(4, 5)
    assert torch.equal(loaded.eval()(x), whole.eval()(x))


def test_nothing_is_computed_with_a_parameter_without_a_shape():
    lazy = _lazy()
    for use in (lambda: lazy[0].weight + 1, lambda: nn.init.ones_(lazy[0].weight),
                lambda: lazy[1].running_mean.mul(2), lambda: sum(p.numel() for p in
                                                                 lazy.parameters())):
        with pytest.raises(ValueError, match="Attempted to use an uninitialized parameter"):
            use()
    with pytest.raises(RuntimeError, match="shape of an uninitialized"):
        _ = lazy[0].weight.shape
    with pytest.raises(RuntimeError, match="share memory on an uninitialized"):
        lazy.share_memory()
