"""Random calls of single functions under PyTorch and Flambeau: differential fuzzing of arguments.

    python tests/conformance/fuzz_calls.py --seed 7 --calls 3000 --only '^torch.(add|sum)$'

Calls start from the samples of op records (or from the names of parameters), are disturbed, and run
in both frameworks. Compared: values, dtypes, shapes, strides, requires_grad, what shares memory
with the arguments, the arguments afterwards, classes of errors, gradients, second gradients,
tangents; and a second call here, which takes the warm path, with the first. Differences are
printed by kind, one example for each (function, kind). `--wrong 0` asks for sensible arguments.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import inspect
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from call_recipes import Alias, Draw, TensorRecipe, build

import flambeau
from flambeau.ops.record import REGISTRY

flambeau.Tensor  # noqa: B018 - the methods are attached when the class is first used

SPACES = ("torch", "special", "Tensor", "nn.functional", "linalg", "fft")
SKIPPED = re.compile(
    r"rand|normal|bernoulli|dropout|multinomial|poisson|binomial|geometric|cauchy|exponential|"
    r"uniform|gumbel|rrelu|empty|standard_gamma|dirichlet|seed|shuffle|_lowrank|fractional|"
    r"lobpcg|share_memory|data_ptr|storage|backward|register|apply_|map_|map2_|is_shared|"
    r"pin_memory|hook|retain_grad|cuda|xpu|ipu|mtia|numpy|tolist|save|load|thread|printoptions|default_d|"
    r"deterministic|anomaly|quant|compile|vmap|fork|warn|export|profiler|memory|grad_mode|"
    r"enable_grad|no_grad|inference|typename|get_|set_|crow|ccol|col_ind|row_ind|sparse|to_dense|"
    r"to_mkl|rename|names|align|refine|coalesce|indices$|values$|dlpack|asarray|frombuffer|"
    r"element_size|sym_|lstm|gru|rnn_|wait|jit|scaled_mm|grouped_mm|hash_tensor|^tensor$|^new$|"
    r"as_tensor|from_file|upsample|assert_|classproperty|record_stream|grid_sampler|^split$|"
    r"unify|parse|handle|import_ir|merge_type|is_pinned|^cond$|^gcd|^lcm|autocast|q_|"
    r"int_repr|qscheme|s(s|)mm$|sspaddmm|as_subclass|reinforce|"
    r"__(init|new|dir|reduce|deepcopy|setstate|class|repr|format|str|sizeof|hash|getattr|setattr|"
    r"delattr|array|dlpack|cuda|torch|subclass|doc|dict|module|weakref|iter|setitem|delitem|get)")
"""What draws at random, has its own tests, or cannot be compared by values (`lcm` of the least
int64 divides by zero inside of PyTorch)."""

TIES = {"argsort", "kthvalue", "mode", "topk", "sort", "median", "nanmedian", "msort"}
"""Of equal elements PyTorch does not say which place it gives."""

ANY_ORDER = re.compile(r"nonzero|argwhere|_scatter$|^tri[lu]$|^masked_|^index_fill")
"""The memory order of these results is nobody's promise."""

TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 1e-4, "complex64": 1e-4,
             "float64": 1e-8, "complex128": 1e-8}


# ---------------------------------------------------------------------- what is called
@dataclasses.dataclass
class Target:
    """A function in both frameworks, and the samples that calls of it start from."""

    space: str
    name: str
    samples: list | None
    parameters: list[inspect.Parameter]

    @property
    def label(self) -> str:
        return f"{self.space}.{self.name}"

    def function(self, framework: Any) -> Any:
        home = framework
        for part in self.space.split(".") if self.space != "torch" else ():
            home = getattr(home, part)
        return getattr(home, self.name)


def sample_table() -> dict[str, list]:
    """Samples by public name, aliases included."""
    table: dict[str, list] = {}
    for record in REGISTRY.values():
        if record.samples:
            for name in (record.name, record.name.split(".")[-1], *record.aliases):
                table.setdefault(name, list(record.samples()))
    return table


def targets(spaces: Sequence[str], only: str) -> Iterator[Target]:
    """The functions that both frameworks have, in `spaces`, whose label matches `only`."""
    table, wanted = sample_table(), re.compile(only)
    for space in spaces:
        home = torch
        for part in space.split(".") if space != "torch" else ():
            home = getattr(home, part)
        for name in sorted(dir(home)):
            special = name.startswith("__") and space == "Tensor"
            if name.startswith("_") and not special or name[0].isupper() or SKIPPED.search(name):
                continue
            if not wanted.search(f"{space}.{name}") or inspect.isclass(getattr(home, name)):
                continue
            known = Target(space, name, None, [])
            with contextlib.suppress(AttributeError, NotImplementedError):
                ours = known.function(flambeau)
                if callable(ours) and callable(known.function(torch)) and comes_from_torch(home,
                                                                                          name):
                    base = name.strip("_") if special else name.rstrip("_")
                    base = base[1:] if special and base[1:] in table else base
                    own = table.get(f"{space.split('.')[-1]}.{base}")
                    yield Target(space, name, own or table.get(base), parameters(ours))


def comes_from_torch(home: Any, name: str) -> bool:
    module = getattr(getattr(home, name), "__module__", None) or ""
    return not module.startswith(("typing", "torch._", "torch.overrides", "torch.utils",
                                  "torch.serialization", "torch.autograd")) or (
        module in ("torch._C", "torch._C._nn", "torch._refs", "torch._tensor"))


def parameters(function: Any) -> list[inspect.Parameter]:
    """The positional parameters, as far as the function says."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]


def drawn_call(target: Target, draw: Draw) -> tuple[list, dict]:
    """Recipes of the arguments of one call."""
    chance = draw.chance
    if target.samples and chance(0.93):
        base = draw.random.choice(target.samples)
        dtype = "float32" if chance(0.3) else draw.dtype() if chance(0.7) else None
        args = [draw.from_sample(a, dtype) for a in base.args]
        kwargs = {name: draw.from_sample(a, dtype) for name, a in base.kwargs.items()}
    else:
        args, kwargs = named_arguments(target, draw), {}
    for _ in range(draw.random.choice((0, 0, 1, 1, 2))):
        slots = [*range(len(args)), *kwargs]
        if slots:
            place = draw.random.choice(slots)
            held: Any = args if isinstance(place, int) else kwargs
            held[place] = draw.mutated(held[place])
    decorate(target, draw, args, kwargs)
    return args, kwargs


def named_arguments(target: Target, draw: Draw) -> list:
    """Arguments by what the parameters are called; those with defaults may be left out."""
    needed = sum(p.default is p.empty for p in target.parameters)
    if target.name.startswith("__"):
        return [draw.tensor(), draw.tensor() if draw.chance(0.6) else draw.number()][
            :max(needed, 1)]
    args: list = []
    for p in target.parameters[:max(needed, draw.random.choice((1, 2, 2, 3, 4)))]:
        first = args[0] if args and isinstance(args[0], TensorRecipe) else None
        if p.name in ("input", "self"):
            args.append(draw.tensor())
            continue
        drawn = draw.named(p.name, first, str(p.annotation))
        several = p.kind is p.VAR_POSITIONAL and isinstance(drawn, (list, tuple))
        args += drawn if several else [drawn]
    return args


def decorate(target: Target, draw: Draw, args: list, kwargs: dict) -> None:
    """Other ways to say it: keywords, memory shared between arguments, surplus arguments."""
    chance, wrong = draw.chance, draw.wrong
    if target.space == "Tensor" and not (args and isinstance(args[0], TensorRecipe)):
        args[:1] = [draw.tensor()]
    if writes(target) and isinstance(args[0], TensorRecipe) and (
            args[0].overlapping or args[0].grad and chance(0.8)):
        args[0].views = (*args[0].views, ("clone",))  # no leaf: may be written to
    if len(args) > 1 and isinstance(args[1], TensorRecipe) and chance(0.05) and isinstance(
            args[0], TensorRecipe):
        args[1] = Alias(0, args[0].views if chance(0.5) else ())
    if not target.name.startswith("__"):
        if chance(0.12):
            for place in range(len(args) - 1, 0, -1):
                if place < len(target.parameters) and chance(0.7) and (
                        target.parameters[place].kind is not inspect.Parameter.VAR_POSITIONAL):
                    kwargs[target.parameters[place].name] = args.pop(place)
                else:
                    break
        for name, share in (("dtype", 0.03), ("dim", 0.04), ("keepdim", 0.02)):
            known = any(p.name == name for p in target.parameters)
            if chance(share) and (known or chance(wrong)):
                kwargs[name] = draw.named(name, None)
        if chance(wrong * 0.1):
            kwargs["foo"] = 1
        if chance(wrong * 0.1):
            args.append(draw.number())
        elif len(args) > 1 and chance(wrong * 0.1):
            args.pop()


def writes(target: Target) -> bool:
    """Does the function change its first argument?"""
    return target.name.endswith("_") if not target.name.startswith("__") else (
        target.name.startswith("__i") and target.name not in ("__invert__", "__int__", "__index__"))


def with_out(target: Target, draw: Draw, args: list, kwargs: dict) -> None:
    """Add `out=`, mostly of the shape that the call gives."""
    try:
        result = target.function(torch)(*[build(a, torch, []) for a in args],
                                        **{k: build(a, torch, []) for k, a in kwargs.items()})
    except Exception:
        return

    def fitting(tensor: Any) -> Any:
        own = str(tensor.dtype).split(".")[-1]
        shape = tuple(tensor.shape) if draw.chance(0.7) else None
        return draw.tensor(shape, own if draw.chance(0.6) else None, grad=draw.chance(0.03))

    if isinstance(result, torch.Tensor):
        first = args[0] if args and isinstance(args[0], TensorRecipe) else None
        kwargs["out"] = Alias(0, first.views) if first and draw.chance(0.15) else fitting(result)
    elif isinstance(result, tuple) and all(isinstance(t, torch.Tensor) for t in result):
        kwargs["out"] = tuple(fitting(t) for t in result)


# ---------------------------------------------------------------------- what came of it
@dataclasses.dataclass
class Outcome:
    """What one framework did: an error, or descriptions of everything that can be seen."""

    error: BaseException | None = None
    result: Any = None
    inputs: Any = None
    shares: Any = None
    gradients: Any = None
    second: Any = None
    tangents: Any = None


class Late(Exception):
    """A call took too long."""


def ring(*_: Any) -> None:
    raise Late


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def described(value: Any, framework: Any) -> tuple:
    """A value in terms of no framework."""
    if isinstance(value, framework.Tensor):
        plain = value.detach()
        if plain.layout != framework.strided:
            return ("layout", str(plain.layout))
        if plain.dtype.is_complex and plain.is_conj():
            plain = plain.resolve_conj()
        if plain.is_neg():
            plain = plain.resolve_neg()
        dtype = str(plain.dtype).split(".")[-1]
        wide = {"bfloat16": framework.float32, "complex32": framework.complex64}.get(dtype)
        numbers = (plain.to(wide) if wide else plain).contiguous().numpy().copy()
        steps = tuple(s for n, s in zip(value.shape, value.stride(), strict=True) if n > 1)
        return ("tensor", dtype, tuple(value.shape), value.requires_grad, numbers,
                steps if value.numel() else ())
    if isinstance(value, (list, tuple)):
        return ("several", [described(item, framework) for item in value],
                tuple if isinstance(value, tuple) else list)
    if isinstance(value, framework.dtype):
        return ("dtype", str(value).split(".")[-1])
    if isinstance(value, (bool, int, float, complex, str, type(None))):
        return ("value", type(value).__name__, value)
    return ("object", type(value).__name__)


def present(tensor: Any, framework: Any) -> tuple | None:
    """A gradient in terms of no framework."""
    return None if tensor is None else described(tensor, framework)


def tensors_in(value: Any, framework: Any) -> list:
    if isinstance(value, framework.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in tensors_in(item, framework)]
    return []


def sharing(result: Any, made: Sequence, framework: Any) -> list:
    """For each result the first argument that it is, or shares memory with."""
    found = []
    for tensor in tensors_in(result, framework):
        same = [i for i, m in enumerate(made) if m[0] is tensor]
        memory = tensor.numel() and tensor.untyped_storage().data_ptr()
        near = [i for i, m in enumerate(made)
                if memory and m[1].untyped_storage().data_ptr() == memory]
        found.append(("is", same[0]) if same else ("shares", near[0]) if near else None)
    return found


def cotangent(tensor: Any, framework: Any) -> Any:
    """Numbers that depend on the shape alone."""
    numbers = np.cos(np.arange(tensor.numel(), dtype="float64")).reshape(tuple(tensor.shape))
    return framework.from_numpy(np.array(numbers)).to(tensor.dtype)


def differentiated(result: Any, leaves: Sequence, framework: Any, outcome: Outcome,
                   again: bool) -> None:
    """Fill in gradients of the results, and of those gradients; or the class of the error."""
    ends = [t for t in tensors_in(result, framework) if t.requires_grad]
    if not ends or not leaves:
        return

    def gradients(of: Sequence) -> Any:
        return framework.autograd.grad(
            of, leaves, [cotangent(t, framework) for t in of], create_graph=True,
            allow_unused=True)

    try:
        first = gradients(ends)
        outcome.gradients = [present(g, framework) for g in first]
        further = [g for g in first if g is not None and g.requires_grad]
        if further and again:
            outcome.second = [present(g, framework) for g in gradients(further)]
    except Late:
        raise
    except Exception as error:
        which = "gradients" if outcome.gradients is None else "second"
        setattr(outcome, which, ("raised", error_class(error), str(error)))


def pushed(target: Target, args: list, kwargs: dict, framework: Any) -> Any:
    """Tangents of the results, every differentiable leaf having one; or the error's class."""
    ad = framework.autograd.forward_ad
    made: list = []
    with ad.dual_level():
        def dual(recipe: Any) -> Any:
            if isinstance(recipe, TensorRecipe) and recipe.grad:
                recipe = dataclasses.replace(recipe, grad=False)
                leaf = recipe.make(framework)[1]
                leaf = ad.make_dual(leaf, cotangent(leaf, framework))
                for method, *rest in recipe.views:
                    leaf = getattr(leaf, method)(*rest)
                return leaf
            if isinstance(recipe, (list, tuple)):
                return type(recipe)(dual(item) for item in recipe)
            return build(recipe, framework, made)

        try:
            result = target.function(framework)(*[dual(a) for a in args],
                                                **{k: dual(a) for k, a in kwargs.items()})
            found = []
            for tensor in tensors_in(result, framework):
                tangent = ad.unpack_dual(tensor).tangent
                found.append(present(tangent, framework))
            return found
        except Late:
            raise
        except Exception as error:
            return ("raised", error_class(error), str(error))


def error_class(error: BaseException) -> str:
    return type(error).__name__


def outcome_of(target: Target, args: list, kwargs: dict, framework: Any,
               further: bool = False) -> Outcome:
    """Make the call in a framework and describe everything that can be seen of it; `further`:
    second gradients and tangents too."""
    made: list = []
    arguments = [build(a, framework, made) for a in args]
    named = {name: build(a, framework, made) for name, a in kwargs.items()}
    try:
        with limited(20):
            result = target.function(framework)(*arguments, **named)
            outcome = Outcome(result=described(result, framework),
                              inputs=[described(m[0], framework) for m in made],
                              shares=sharing(result, made, framework))
            leaves = [leaf for _, leaf, recipe in made
                      if isinstance(recipe, TensorRecipe) and recipe.grad]
            differentiated(result, leaves, framework, outcome, further)
            if further and leaves:
                outcome.tangents = pushed(target, args, kwargs, framework)
            return outcome
    except Exception as error:
        return Outcome(error=error)


# ---------------------------------------------------------------------- comparing
def unlike(ours: Any, theirs: Any, loose: bool = False, coarse: float = 0
           ) -> tuple[str, str] | None:
    """(kind of difference, what differs) of two descriptions, or None. `loose`: places of ties may
    differ; `coarse`: a tolerance that replaces a finer one."""
    if ours is None or theirs is None or ours[0] != theirs[0]:
        return None if ours is theirs is None else ("type", f"{brief(ours)} / {brief(theirs)}")
    if ours[0] == "tensor":
        return unlike_tensors(ours, theirs, loose, coarse)
    if ours[0] == "several":
        if ours[2] is not theirs[2] or len(ours[1]) != len(theirs[1]):
            return ("type", f"{len(ours[1])} in {ours[2]} / {len(theirs[1])} in {theirs[2]}")
        found = (unlike(x, y, loose, coarse) for x, y in zip(ours[1], theirs[1], strict=True))
        return next((f for f in found if f), None)
    if ours[0] == "value":
        x, y = ours[2], theirs[2]
        with np.errstate(all="ignore"):
            same = ours[1] == theirs[1] and (x == y or isinstance(x, (float, complex)) and bool(
                np.isclose(x, y, rtol=1e-4, atol=1e-5, equal_nan=True)))
        return None if same else ("value", f"{x!r} / {y!r}")
    return None if ours == theirs else ("type", f"{ours} / {theirs}")


def brief(value: Any) -> str:
    return str(value[:4] if isinstance(value, tuple) else value)[:120]


def unlike_tensors(ours: tuple, theirs: tuple, loose: bool, coarse: float
                   ) -> tuple[str, str] | None:
    for place, kind in ((1, "dtype"), (2, "shape"), (3, "requires_grad")):
        if ours[place] != theirs[place]:
            return kind, f"{ours[place]} / {theirs[place]}"
    tolerance = max(TOLERANCE[ours[1]], coarse) if ours[1] in TOLERANCE else None
    same = alike(ours[4], theirs[4], tolerance)
    if not (loose and ours[1] == "int64") and not np.all(same):
        wrong = np.flatnonzero(~np.atleast_1d(same))[:5]
        return "value", (f"{np.ravel(ours[4])[wrong]} / {np.ravel(theirs[4])[wrong]} at {wrong} "
                         f"of {ours[1]}{list(ours[2])}")
    return ("strides", f"{ours[5]} / {theirs[5]}") if ours[5] != theirs[5] else None


def alike(x: np.ndarray, y: np.ndarray, tolerance: float | None) -> np.ndarray:
    """Where two arrays agree, up to a tolerance relative to the largest number (None: exactly)."""
    if tolerance is None:
        return x == y
    x, y = (a.astype("complex128" if a.dtype.kind == "c" else "float64") for a in (x, y))
    with np.errstate(all="ignore"):
        finite = np.abs(y[np.isfinite(y)])
        bound = tolerance * max(float(np.max(finite, initial=0)), 1e-3)
        if not np.isfinite(bound):
            bound = 0.0

        def near(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return np.isclose(a, b, rtol=tolerance, atol=bound, equal_nan=True)

        if x.dtype.kind == "c":
            return near(x.real, y.real) & near(x.imag, y.imag) | np.isnan(x) & np.isnan(y)
        return near(x, y)


def difference(ours: Outcome, theirs: Outcome, loose: bool) -> tuple[str, str] | None:
    """(kind, text) of the first thing in which two outcomes differ."""
    if ours.error or theirs.error:
        return unlike_errors(ours, theirs)
    found = unlike(ours.result, theirs.result, loose)
    if found:
        return found
    for x, y in zip(ours.inputs, theirs.inputs, strict=True):
        if found := unlike(x, y, loose):
            return "argument " + found[0], found[1]
    if ours.shares != theirs.shares:
        return "sharing", f"{ours.shares} / {theirs.shares}"
    # a gradient is rounded wherever it passes a tensor of few bits
    coarse = max((TOLERANCE.get(x[1], 0) for x in theirs.inputs if x[0] == "tensor"), default=0)
    for kind in ("gradients", "second", "tangents"):
        if found := unlike_gradients(getattr(ours, kind), getattr(theirs, kind), coarse):
            return f"{kind} {found[0]}", found[1]
    return None


def unlike_errors(ours: Outcome, theirs: Outcome) -> tuple[str, str] | None:
    text = f"{message(ours)} / {message(theirs)}"
    if theirs.result == ("object", "NotImplementedType"):
        return None  # the other operand is asked, or Python raises
    if not theirs.error:
        return "raises", text
    if not ours.error:
        return "accepts", text
    same = isinstance(ours.error, type(theirs.error)) or any(
        cls.__name__ == error_class(theirs.error) for cls in type(ours.error).__mro__)
    return None if same else ("error", text)


def message(outcome: Outcome) -> str:
    if outcome.error is None:
        return brief(outcome.result)
    lines = str(outcome.error).splitlines() or [""]
    return f"{error_class(outcome.error)}: {lines[0][:150]}"


def unlike_gradients(ours: Any, theirs: Any, coarse: float) -> tuple[str, str] | None:
    """Gradients that are absent are as good as zeros."""
    if isinstance(theirs, tuple) and (theirs[1] == "NotImplementedError"
                                      or "not implemented" in theirs[2]):
        return None  # what PyTorch cannot do is no measure
    if isinstance(ours, tuple) or isinstance(theirs, tuple):
        same = isinstance(ours, tuple) and isinstance(theirs, tuple) and ours[1] == theirs[1]
        return None if same else ("error", f"{str(ours)[:150]} / {str(theirs)[:150]}")
    for x, y in zip(ours or [None] * len(theirs or ()), theirs or [None] * len(ours or ()),
                    strict=True):
        if (x is None) != (y is None) or x and y and x[0] != y[0]:
            given = x or y
            if given[0] == "tensor" and not given[4].any():
                continue
            return "presence", f"{brief(x)} / {brief(y)}"
        found = x and unlike(x, y, coarse=coarse)
        if found and found[0] not in ("strides", "requires_grad"):
            return found
    return None


# ---------------------------------------------------------------------- the run
@dataclasses.dataclass
class Report:
    """Counts, and an example of each difference."""

    calls: int = 0
    fine: int = 0
    examples: dict = dataclasses.field(default_factory=dict)
    kinds: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def note(self, target: Target, found: tuple[str, str], call: str) -> None:
        self.kinds[found[0]] += 1
        example = self.examples.setdefault((found[0], target.label, found[1][:24]), [0, ""])
        example[0] += 1
        example[1] = example[1] or f"{call}\n      {found[1]}"

    def show(self, width: int) -> None:
        for (kind, label, _), (count, text) in sorted(self.examples.items()):
            print(f"[{kind}] {count} {label}{text[:width]}")
        total = sum(self.kinds.values())
        print(f"{self.calls} calls, {self.fine} without error, {total} differ "
              f"({1000 * total / max(self.calls, 1):.1f} of 1000):",
              ", ".join(f"{kind} {count}" for kind, count in self.kinds.most_common()))


def shown_call(args: list, kwargs: dict) -> str:
    parts = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
    return f"({', '.join(parts)})"


def one_call(target: Target, draw: Draw, report: Report, trace: bool = False) -> None:
    """Draw a call, make it in both frameworks, note how they differ."""
    args, kwargs = drawn_call(target, draw)
    if target.space in ("torch", "special") and draw.chance(0.08):
        with_out(target, draw, args, kwargs)
    text = shown_call(args, kwargs)
    if trace:
        print(target.label + text, flush=True)
    further = draw.chance(0.3)
    try:
        theirs = outcome_of(target, args, kwargs, torch, further)
        ours = outcome_of(target, args, kwargs, flambeau, further)
    except Exception as error:  # views that one of them cannot make
        report.kinds["not built"] += 1
        report.examples.setdefault(("not built", target.label, ""), [1, f"{text}\n      {error!r}"])
        return
    if isinstance(theirs.error, Late):
        return
    report.calls += 1
    report.fine += theirs.error is None
    loose = target.name.strip("_") in TIES
    found = difference(ours, theirs, loose)
    if found and not (found[0] == "strides" and ANY_ORDER.search(target.name)):
        report.note(target, found, text)
    elif ours.error is None and draw.chance(0.3):
        again = outcome_of(target, args, kwargs, flambeau)
        if found := difference(again, dataclasses.replace(ours, second=None, tangents=None), False):
            report.note(target, ("warm " + found[0], found[1]), text)


def run(seed: int, calls: int, spaces: Sequence[str], only: str, wrong: float,
        trace: bool = False) -> Report:
    """Make `calls` random calls; every one of them depends on (seed, its number) alone."""
    signal.signal(signal.SIGALRM, ring)
    known, report = list(targets(spaces, only)), Report()
    for number in range(calls):
        draw = Draw(f"{seed}/{number}", wrong)
        one_call(draw.random.choice(known), draw, report, trace)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--spaces", default="torch,special,Tensor", help=", ".join(SPACES))
    parser.add_argument("--only", default="", help="a regular expression for 'space.name'")
    parser.add_argument("--wrong", type=float, default=0.1)
    parser.add_argument("--width", type=int, default=600)
    parser.add_argument("--trace", action="store_true", help="print every call before it is made")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    torch.set_num_threads(1)
    start = time.time()
    report = run(options.seed, options.calls, options.spaces.split(","), options.only,
                 options.wrong, options.trace)
    report.show(options.width)
    print(f"seed {options.seed}, {time.time() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
