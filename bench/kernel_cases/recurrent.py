"""Recurrent layers over sequences, and single cells, forward and forward with backward."""

from __future__ import annotations

import functools

from kernel_cases import Case, normal


def build(kind: str, hidden: int, batch: int, length: int, way: str, T, variant: str):
    T.manual_seed(0)
    if kind.endswith("Cell"):
        net, x = getattr(T.nn, kind)(hidden, hidden), normal(T, batch, hidden)
    else:
        net = getattr(T.nn, kind)(hidden, hidden, batch_first=True)
        x = normal(T, batch, length, hidden)
    parameters = tuple(net.parameters())

    def forward():
        with T.no_grad():
            result = net(x)
        return result[0] if isinstance(result, tuple) else result

    def both():
        result = net(x)
        result = result[0] if isinstance(result, tuple) else result
        return T.autograd.grad(result.sum(), parameters)

    return forward if way == "forward" else both


def cases(full: bool):
    for kind in ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell"):
        for hidden in (128, 512) + (256, 1024) * full:
            for batch in (32,) + (1, 8) * full:
                for way in ("forward", "both"):
                    gates = {"L": 4, "G": 3, "R": 1}[kind[0]]
                    steps = 1 if kind.endswith("Cell") else 64
                    flops = 4.0 * batch * steps * gates * hidden * hidden
                    yield Case("recurrent", f"{kind} h={hidden} b={batch} {way}",
                               functools.partial(build, kind, hidden, batch, 64, way),
                               flops=flops * (1 if way == "forward" else 3), tolerance=1e-3)
