"""`flambeau bench`: what one small operation costs, ours against torch's where torch is installed.

Both frameworks run in one process; blocks of calls alternate, and of each call's blocks the lower
quartile counts: a busy machine adds time to some blocks, never takes any away. `bench/overhead.py`
in the repository is the same program.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from flambeau.cli.errors import UserError

__all__ = ["add_command", "run", "main", "Case", "Timing", "cases", "compare", "import_seconds"]

ROUNDS = 31
BLOCK_SECONDS = 2e-3


class Case(NamedTuple):
    """One measured call; `bound` is the largest time ratio to torch that we accept, if any."""

    name: str
    call: Callable[[], Any]
    bound: float | None


class Timing(NamedTuple):
    """Seconds a call; `theirs` is None without a peer."""

    name: str
    ours: float
    theirs: float | None
    bound: float | None

    @property
    def ratio(self) -> float | None:
        """Our time over theirs: below 1 we are faster."""
        return None if self.theirs is None else self.ours / self.theirs

    @property
    def passes_bound(self) -> bool:
        """Whether the ratio is known, bounded, and too large."""
        return self.ratio is not None and self.bound is not None and self.ratio > self.bound


def add_command(commands: Any) -> None:
    """Register `flambeau bench`."""
    parser = commands.add_parser("bench", help="what small operations cost, also in torch")
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options shared by `flambeau bench` and `bench/overhead.py`."""
    parser.add_argument("--against", default="torch", metavar="MODULE",
                        help="the peer (default torch; none: measure only Flambeau)")
    parser.add_argument("--threads", type=int, default=None, help="threads of both (default: all)")
    parser.add_argument("--rounds", type=int, default=ROUNDS,
                        help=f"blocks a case (default {ROUNDS})")
    parser.add_argument("--check", action="store_true", help="exit 1 when a ratio passes its bound")


def main() -> int:
    """The command line of `bench/overhead.py`."""
    parser = argparse.ArgumentParser(description="overhead of small operations against a peer")
    add_options(parser)
    return run(parser.parse_args())


def run(options: argparse.Namespace) -> int:
    """Measure, print a table; returns 1 only with --check and a ratio beyond its bound."""
    import flambeau

    peer = find_peer(options.against)
    for framework in filter(None, (flambeau, peer)):
        if options.threads:
            framework.set_num_threads(options.threads)
    print(heading(peer))
    timings = []
    for timing in compare(flambeau, peer, options.rounds):
        timings.append(timing)
        print(row(timing, 1e6, "us"), flush=True)
    timings.append(imports(peer))
    print(row(timings[-1], 1e3, "ms"))
    beyond = [timing.name for timing in timings if timing.passes_bound]
    if beyond:
        print(f"beyond its bound: {', '.join(beyond)}")
    return 1 if beyond and options.check else 0


def find_peer(name: str) -> ModuleType | None:
    """Import the peer; None when torch, the default, is not there.

    Raises:
        UserError: another module was asked for and is missing.
    """
    if name == "none":
        return None
    if importlib.util.find_spec(name) is None:
        if name == "torch":
            return None
        raise UserError(f"there is no module {name} to compare with", "--against none")
    return importlib.import_module(name)


def heading(peer: ModuleType | None) -> str:
    """The title line of the table."""
    if peer is None:
        return f"{'':24}{'flambeau':>12}   (torch is not installed: no comparison)"
    return f"{'':24}{'flambeau':>12}{peer.__name__:>12}{'ratio':>8}{'bound':>8}"


def row(timing: Timing, scale: float, unit: str) -> str:
    """One line of the table."""
    text = f"{timing.name:24}{timing.ours * scale:>9.2f} {unit}"
    if timing.theirs is None or timing.ratio is None:
        return text
    bound = f"{timing.bound:>8.2f}" if timing.bound else ""
    return f"{text}{timing.theirs * scale:>9.2f} {unit}{timing.ratio:>8.2f}{bound}"


def cases(torch: ModuleType) -> list[Case]:
    """The calls to measure, made with `torch`; the same list for every framework."""
    torch.manual_seed(0)
    return [*small_operations(torch), *graph_operations(torch), *blocks(torch), *steps(torch)]


def small_operations(torch: ModuleType) -> list[Case]:
    """Common operations on 16 x 16 numbers, in the forms that users write: functions, methods,
    operators, keywords, scalars, broadcasting, in place, into `out`."""
    functional = torch.nn.functional
    a, b, row = torch.randn(16, 16), torch.randn(16, 16), torch.randn(16)
    index, out = torch.randint(0, 16, (8,)), torch.empty(16, 16)
    calls: dict[str, Callable[[], Any]] = {
        "add": lambda: a + b, "add number": lambda: a + 1.5, "number minus": lambda: 1.0 - a,
        "add row": lambda: a + row, "add, alpha=": lambda: torch.add(a, b, alpha=0.5),
        "add, out=": lambda: torch.add(a, b, out=out), "mul_": lambda: out.mul_(0.5),
        "relu": lambda: torch.relu(a), "exp method": lambda: a.exp(), "mm": lambda: torch.mm(a, b),
        "matmul @": lambda: a @ b, "sum": lambda: a.sum(),
        "mean, dim=, keepdim=": lambda: a.mean(dim=-1, keepdim=True),
        "softmax, dim=": lambda: functional.softmax(a, dim=-1), "max, dim": lambda: a.max(1),
        "cat": lambda: torch.cat((a, b), dim=1), "where": lambda: torch.where(a > 0, a, b),
        "linear": lambda: functional.linear(a, b, row),
        "layer_norm": lambda: functional.layer_norm(a, (16,), row, row),
        "gelu": lambda: functional.gelu(a), "clamp, min=": lambda: a.clamp(min=0.0),
        "a[2:5]": lambda: a[2:5], "a[index]": lambda: a[index], "view": lambda: a.view(256),
        "reshape": lambda: a.reshape(4, 64), "transpose": lambda: a.transpose(0, 1),
        "zeros": lambda: torch.zeros(16, 16), "to float64": lambda: a.to(torch.float64),
        "item": lambda: row[0].item(), "compare": lambda: a > b,
    }
    return [Case(name, call, 1.0) for name, call in calls.items()]


def graph_operations(torch: ModuleType) -> list[Case]:
    """Operations that are recorded for a gradient."""
    leaf, other = torch.randn(16, 16, requires_grad=True), torch.randn(16, 16)
    calls: dict[str, Callable[[], Any]] = {
        "add": lambda: leaf + other, "mul": lambda: leaf * other, "mm": lambda: leaf @ other,
        "relu": lambda: torch.relu(leaf), "sum": lambda: leaf.sum(),
        "view": lambda: leaf.view(256),
    }
    return [Case(f"{name}, with graph", call, 1.0) for name, call in calls.items()]


def blocks(torch: ModuleType) -> list[Case]:
    """A small MLP, a transformer block and a convolution block: forward, without a graph, and
    forward with backward."""
    nn, cross_entropy = torch.nn, torch.nn.functional.cross_entropy
    x, y = torch.randn(8, 16), torch.randint(0, 10, (8,))
    mlp = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 10))
    encoder = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    words = torch.randn(2, 8, 16)
    convolution = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
                                nn.MaxPool2d(2))
    images = torch.randn(2, 3, 8, 8)
    models: dict[str, tuple[Any, Callable[[], Any]]] = {
        "MLP": (mlp, lambda: cross_entropy(mlp(x), y)),
        "transformer block": (encoder, lambda: encoder(words).sum()),
        "conv block": (convolution, lambda: convolution(images).sum()),
    }
    made = []
    for name, (model, call) in models.items():
        parameters = list(model.parameters())
        made += [Case(f"{name} forward", call, 1.0),
                 Case(f"{name}, no_grad", functools.partial(without_graph, torch, call), 1.0),
                 Case(f"{name} both ways", functools.partial(both_ways, parameters, call), 0.7)]
    return made


def without_graph(torch: ModuleType, call: Callable[[], Any]) -> Any:
    """Call without recording."""
    with torch.no_grad():
        return call()


def both_ways(parameters: list, call: Callable[[], Any]) -> None:
    """Forward, then backward into fresh gradients."""
    for parameter in parameters:
        parameter.grad = None
    call().backward()


def steps(torch: ModuleType) -> list[Case]:
    """Optimizer steps of a small MLP."""
    nn = torch.nn
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 10))
    parameters = list(model.parameters())
    both_ways(parameters, lambda: model(torch.randn(8, 16)).sum())
    sgd = torch.optim.SGD(parameters, lr=0.0, momentum=0.9)
    adam = torch.optim.Adam(parameters, lr=0.0)
    return [Case("SGD step, momentum", sgd.step, 1.0), Case("Adam step", adam.step, 1.0)]


def compare(ours: ModuleType, theirs: ModuleType | None, rounds: int = ROUNDS) -> list[Timing]:
    """Time every case in both frameworks, blocks alternating."""
    our_cases = cases(ours)
    their_cases = cases(theirs) if theirs is not None else [None] * len(our_cases)
    timings = []
    for mine, other in zip(our_cases, their_cases, strict=True):
        calls = [mine.call] if other is None else [mine.call, other.call]
        seconds = interleave(calls, rounds)
        timings.append(Timing(mine.name, seconds[0], seconds[1] if other else None, mine.bound))
    return timings


def interleave(calls: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Seconds of each call: the lower quartile of `rounds` blocks, which alternate."""
    counts = [block_length(call) for call in calls]
    samples: list[list[float]] = [[] for _ in calls]
    enabled = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds):
            order = list(range(len(calls)))
            for index in order if number % 2 else reversed(order):
                samples[index].append(time_block(calls[index], counts[index]))
            gc.collect(0)
    finally:
        if enabled:
            gc.enable()
    return [sorted(taken)[len(taken) // 4] for taken in samples]


def block_length(call: Callable[[], Any]) -> int:
    """How many calls take about `BLOCK_SECONDS`; warms the call up."""
    for _ in range(20):
        call()
    return max(1, round(BLOCK_SECONDS / max(time_block(call, 20), 1e-9)))


def time_block(call: Callable[[], Any], count: int) -> float:
    """Mean seconds of `count` calls in a row."""
    started = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - started) / count


def import_seconds(module: str, runs: int = 5) -> float:
    """The least wall time that `import module` took in `runs` fresh interpreters."""
    program = ("import time; started = time.perf_counter(); "
               f"import {module}; print(time.perf_counter() - started)")
    times = []
    for _ in range(runs):
        result = subprocess.run([sys.executable, "-c", program],
                                check=True, capture_output=True, text=True)
        times.append(float(result.stdout))
    return min(times)


def imports(peer: ModuleType | None) -> Timing:
    """The import times, which no process can measure twice."""
    theirs = import_seconds(peer.__name__, runs=3) if peer is not None else None
    return Timing("import", import_seconds("flambeau"), theirs, None)
