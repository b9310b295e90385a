"""Compare random draws with PyTorch's, kind by kind, and print the table of docs/random.md.

    .venv-conformance/bin/python tests/conformance/random_table.py [--large] [--verbose] [REGEX]

A case is a call in both libraries from the same state of the stream. It counts as `equal` if every
bit of the result is, as `2 ulp` if numbers are at most two units of the last place apart (below 1:
of the last place of 1); and the streams must stand at the same place afterwards. Cases are all
combinations of dtypes, small sizes and layouts, and each seed, generator and large size on its own.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

import flambeau

FLOATS = ("float32", "float64", "float16", "bfloat16")
COMPLEX = ("complex64", "complex128")
INTS = ("int64", "int32", "int16", "int8", "uint8")
ALL = (*FLOATS, *INTS, "bool")
SIZES = (0, 1, 15, 16, 17, 100)
LARGE = (1_000_003, 2**24 + 5)
SEEDS = (0, 1, 42, -1, -2**63, 2**32 + 7, 2**63 - 1, 2**64 - 1)
GENERATORS = ("own", "from torch", "from flambeau", "mid-pair")
LAYOUTS = ("contiguous", "permuted", "strided", "channels_last", "expanded")


def tensor(T: Any, n: int, dtype: str, layout: str) -> Any:
    """About n zeros with a layout; sizes are those of the last dimensions."""
    kind = getattr(T, dtype)
    if layout == "permuted":
        return T.zeros(n, 3, dtype=kind).t()
    if layout == "strided":
        return T.zeros(2 * n, dtype=kind)[::2]
    if layout == "channels_last":
        return T.zeros(2, 3, n, 2, dtype=kind).to(memory_format=T.channels_last)
    return T.zeros(1, dtype=kind).expand(n) if layout == "expanded" else T.zeros(n, dtype=kind)


# -- what is drawn: (dtypes, whether layouts matter, function of library, tensor, generator) ------

Draw = Callable[[Any, Any, dict], Any]
KINDS: dict[str, tuple[tuple[str, ...], bool, Draw]] = {}


def kind(name: str, dtypes: tuple[str, ...], layouts: bool = True) -> Callable[[Draw], Draw]:
    """Enter a draw under a name."""
    def enter(draw: Draw) -> Draw:
        KINDS[name] = dtypes, layouts, draw
        return draw
    return enter


def fill(name: str, dtypes: tuple[str, ...], *args: Any, label: str = "") -> None:
    """Enter an in-place draw."""
    def draw(T: Any, x: Any, options: dict) -> Any:
        return getattr(x, name)(*args, **options)
    KINDS[label or f"{name}({', '.join(map(str, args))})"] = dtypes, True, draw


fill("uniform_", (*FLOATS, *COMPLEX), label="uniform_()")
fill("uniform_", FLOATS, -0.3, 2.7)
fill("normal_", (*FLOATS, *COMPLEX), label="normal_()")
fill("normal_", FLOATS, 0.5, 3.0)
fill("exponential_", FLOATS, 1.5)
fill("geometric_", (*FLOATS, *INTS), 0.2)
fill("cauchy_", FLOATS, 1.0, 0.5)
fill("log_normal_", FLOATS, 0.5, 0.25)
fill("random_", ALL, label="random_()")
fill("random_", ALL, 2)
fill("random_", ("int64", "float64"), -2**40, 2**62)
fill("random_", ("int64",), -2**63, None)
fill("bernoulli_", ALL, 0.3)


@kind("bernoulli_(tensor)", FLOATS)
def bernoulli_each(T: Any, x: Any, options: dict) -> Any:
    chances = (T.arange(x.numel()) % 101 / 101).to(x.dtype).reshape(x.shape)
    return x.bernoulli_(chances, **options)


@kind("bernoulli(tensor)", FLOATS)
def bernoulli(T: Any, x: Any, options: dict) -> Any:
    return T.bernoulli(x + 0.4, **options)


@kind("rand", (*FLOATS, *COMPLEX), layouts=False)
def rand(T: Any, x: Any, options: dict) -> Any:
    return T.rand(x.shape, dtype=x.dtype, **options)


@kind("randn", (*FLOATS, *COMPLEX), layouts=False)
def randn(T: Any, x: Any, options: dict) -> Any:
    return T.randn(x.shape, dtype=x.dtype, **options)


@kind("randint(-7, 100)", (*FLOATS, "int64", "int32", "int16", "int8"), layouts=False)
def randint(T: Any, x: Any, options: dict) -> Any:
    return T.randint(-7, 100, x.shape, dtype=x.dtype, **options)


@kind("randint(2**40)", ("int64", "float32"), layouts=False)
def randint_wide(T: Any, x: Any, options: dict) -> Any:
    return T.randint(2**40, x.shape, dtype=x.dtype, **options)


@kind("randint(0, 2)", (*INTS, "bool"), layouts=False)
def randint_two(T: Any, x: Any, options: dict) -> Any:
    return T.randint(0, 2, x.shape, dtype=x.dtype, **options)


@kind("randperm", ("int64", "int32", "int16", "float32", "float64"), layouts=False)
def randperm(T: Any, x: Any, options: dict) -> Any:
    return T.randperm(x.numel(), dtype=x.dtype, **options)


@kind("rand_like", FLOATS)
def rand_like(T: Any, x: Any, options: dict) -> Any:
    return T.rand_like(x)


@kind("randn_like", FLOATS)
def randn_like(T: Any, x: Any, options: dict) -> Any:
    return T.randn_like(x)


@kind("randint_like", (*FLOATS, *INTS))
def randint_like(T: Any, x: Any, options: dict) -> Any:
    return T.randint_like(x, 3, 90)


@kind("normal(tensor, tensor)", ("float32", "float64"))
def normal(T: Any, x: Any, options: dict) -> Any:
    return T.normal(x + 1, x + 2, **options)


@kind("multinomial", ("float32", "float64", "float16", "bfloat16"), layouts=False)
def multinomial(T: Any, x: Any, options: dict) -> Any:
    weights = (T.arange(max(x.numel(), 4)) % 7 + 1).to(x.dtype)[:2**20]
    return T.multinomial(weights, 4, **options)


@kind("multinomial(replacement)", ("float32", "float64"), layouts=False)
def multinomial_again(T: Any, x: Any, options: dict) -> Any:
    weights = (T.arange(max(x.numel(), 4)) % 7 + 1).to(x.dtype)[:2**20]
    return T.multinomial(T.stack([weights, weights.flip(0)]), 9, True, **options)


@kind("poisson", FLOATS)
def poisson(T: Any, x: Any, options: dict) -> Any:
    rates = (T.arange(x.numel()) % 40 / 2).to(x.dtype).reshape(x.shape)
    return T.poisson(rates, **options)


@kind("binomial", ("float32", "float64"))
def binomial(T: Any, x: Any, options: dict) -> Any:
    counts = (T.arange(x.numel()) % 60).to(x.dtype).reshape(x.shape)
    return T.binomial(counts, x + 0.4, **options)


@kind("_standard_gamma", ("float32", "float64"))
def gamma(T: Any, x: Any, options: dict) -> Any:
    shapes = (T.arange(x.numel()) % 30 / 5 + 0.1).to(x.dtype).reshape(x.shape)
    return T._standard_gamma(shapes, **options)


def functional(name: str, dims: int, *args: Any, dtypes: tuple[str, ...] = FLOATS) -> None:
    """Enter a function of torch.nn.functional, on tensors of `dims` dimensions (0: any)."""
    def draw(T: Any, x: Any, options: dict) -> Any:
        data = x + 1 if not dims else (x.reshape(-1).contiguous() + 1).reshape(
            (-1, 1, *[1] * (dims - 2)) if x.numel() else (0, 3, *[1] * (dims - 2)))
        return getattr(T.nn.functional, name)(data, *args)
    KINDS[f"F.{name}"] = dtypes, not dims, draw


functional("dropout", 0, 0.3)
functional("alpha_dropout", 0, 0.3, True)
functional("dropout1d", 3, 0.3)
functional("dropout2d", 4, 0.3)
functional("dropout3d", 5, 0.3)
functional("feature_alpha_dropout", 3, 0.3, True)
functional("rrelu", 0, 0.1, 0.4, True, dtypes=("float32", "float64"))
functional("gumbel_softmax", 2, dtypes=("float32", "float64"))


@kind("F.fractional_max_pool2d", ("float32", "float64"), layouts=False)
def fractional(T: Any, x: Any, options: dict) -> Any:
    image = T.arange(2 * 3 * 9 * 9, dtype=x.dtype).reshape(2, 3, 9, 9)
    return T.nn.functional.fractional_max_pool2d(image, 2, 4)


@kind("scaled_dot_product_attention(dropout)", ("float32",), layouts=False)
def attention(T: Any, x: Any, options: dict) -> Any:
    n = min(max(x.numel(), 1), 200)
    keys = T.ones(1, 2, n, 4)
    mean = T.nn.functional.scaled_dot_product_attention(keys, keys, keys, dropout_p=0.3)
    return (mean * n * 0.7).round()  # how many keys each query has kept


def init(name: str, *args: Any, rank: int = 2) -> None:
    """Enter a function of torch.nn.init."""
    def draw(T: Any, x: Any, options: dict) -> Any:
        made = T.empty(max(x.numel() // 3, 2), 3, *[1] * (rank - 2), dtype=x.dtype)
        return getattr(T.nn.init, name)(made, *args, **options)
    KINDS[f"init.{name}"] = ("float32", "float64", "bfloat16"), False, draw


for each in ("uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "xavier_normal_",
             "kaiming_uniform_", "kaiming_normal_"):
    init(each)
init("sparse_", 0.5)


@kind("init.orthogonal_", ("float32", "float64"), layouts=False)
def orthogonal(T: Any, x: Any, options: dict) -> Any:
    return T.nn.init.orthogonal_(T.empty(min(max(x.numel(), 2), 100), 3, dtype=x.dtype), **options)


# -- comparison -----------------------------------------------------------------------------------

def cases(dtypes: tuple[str, ...], layouts: bool, large: bool) -> Iterator[tuple]:
    """(dtype, size, layout, seed, generator)."""
    for dtype in dtypes:
        used = LAYOUTS if layouts else LAYOUTS[:1]
        for n, layout in itertools.product(SIZES, used):
            yield dtype, n, layout, 1234 + n, "default"
        for seed in SEEDS:
            yield dtype, 33, "contiguous", seed, "default"
        for generator in GENERATORS:
            yield dtype, 33, "contiguous", 77, generator
        for n in LARGE if large else LARGE[:1]:
            yield dtype, n, "contiguous", 5, "default"


def prepared(seed: int, generator: str) -> dict[Any, dict]:
    """For each library the arguments that name its stream; all stand at the same place."""
    for T in (torch, flambeau):
        T.manual_seed(seed)
    if generator == "default":
        return {torch: {}, flambeau: {}}
    if generator == "mid-pair":  # of two normal numbers, one is waiting
        for T in (torch, flambeau):
            T.randn(3)
            T.randn(3, dtype=T.float64)
        return {torch: {}, flambeau: {}}
    made = {T: T.Generator().manual_seed(seed) for T in (torch, flambeau)}
    if generator != "own":
        giver, taker = (torch, flambeau) if generator == "from torch" else (flambeau, torch)
        giver.rand(700, generator=made[giver])
        giver.randn(3, generator=made[giver])
        made[taker].set_state(taker.from_numpy(made[giver].get_state().numpy().copy()))
    return {T: {"generator": one} for T, one in made.items()}


def numbers(T: Any, value: Any) -> np.ndarray:
    """The bits of a tensor, in row-major order."""
    value = T.view_as_real(value) if value.is_complex() else value
    value = value.detach().contiguous()
    return value.view(T.int16).numpy() if value.dtype is T.bfloat16 else value.numpy()


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """How many units of the last place (of numbers below 1: of 1) results are apart, at most."""
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return np.inf
    if ours.tobytes() == theirs.tobytes():
        return 0
    if ours.dtype.kind != "f":
        return np.inf
    units = np.abs(ours - theirs) / np.spacing(np.maximum(np.abs(theirs), theirs.dtype.type(1)))
    units = np.where((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)), 0, units)
    return float(np.nan_to_num(units, nan=np.inf).max())


def state(T: Any, options: dict) -> bytes:
    """Of the stream, without what a waiting normal number has below float32."""
    one = options.get("generator")
    data = bytes((one.get_state() if one is not None else T.get_rng_state()).numpy())
    return data[:5016] + data[5032:]


def compared(draw: Draw, case: tuple) -> tuple[str, float]:
    """(verdict, units of the last place) of a case."""
    dtype, n, layout, seed, generator = case
    options, found, after = prepared(seed, generator), {}, {}
    for T in (torch, flambeau):
        try:
            found[T] = numbers(T, draw(T, tensor(T, n, dtype, layout), options[T]))
        except Exception as error:
            found[T] = error
        after[T] = state(T, options[T])
    theirs, ours = found[torch], found[flambeau]
    if isinstance(theirs, Exception) or isinstance(ours, Exception):
        both = isinstance(theirs, Exception) and isinstance(ours, type(theirs))
        return ("both raise" if both else f"differs: {ours!r:.80} | {theirs!r:.80}"), 0
    if after[torch] != after[flambeau]:
        return "differs: stream", 0
    distance = apart(ours, theirs)
    verdict = "equal" if distance == 0 else "2 ulp" if distance <= 2 else "differs: values"
    return verdict, distance


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("regex", nargs="?", default="")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| draw | dtypes | cases | equal bits | within 2 ulp | both raise | differ | furthest |")
    print("|---|---|---|---|---|---|---|---|")
    total: Counter = Counter()
    for name, (dtypes, layouts, draw) in KINDS.items():
        if not re.search(options.regex, name):
            continue
        counts: Counter = Counter()
        furthest = 0.0
        for case in cases(dtypes, layouts, options.large):
            verdict, distance = compared(draw, case)
            counts[verdict.partition(":")[0]] += 1
            furthest = max(furthest, distance)
            if verdict.startswith("differs") and options.verbose:
                print(f"    {name} {case}: {verdict} {distance}", file=sys.stderr)
        print(f"| `{name}` | {len(dtypes)} | {counts.total()} | {counts['equal']} | "
              f"{counts['2 ulp']} | {counts['both raise']} | {counts['differs']} | "
              f"{f'{furthest:.3g} ulp' if furthest else ''} |", flush=True)
        total += counts
    print(f"| all | | {total.total()} | {total['equal']} | {total['2 ulp']} | "
          f"{total['both raise']} | {total['differs']} | |")
    return bool(total["differs"])


if __name__ == "__main__":
    sys.exit(main())
