"""Random tensors: PyTorch's streams, draw for draw."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

from flambeau.compiler.random import normal_kind, plan_random, random_kernel, randperm_kind
from flambeau.compiler.target import host
from flambeau.core import dtypes
from flambeau.core.arguments import kind_of, need_number, need_tensor
from flambeau.core.dtypes import DType
from flambeau.runtime.generator import Generator, default_generator
from flambeau.runtime.launch import FLOAT, INTEGER, Program
from flambeau.runtime.loader import load_kernel
from flambeau.tensor import creation, dispatch, interop, launches
from flambeau.tensor.functions import ops
from flambeau.tensor.meta import TensorBase, contiguous_meta
from flambeau.tensor.tensor import Tensor

__all__ = ["manual_seed", "seed", "initial_seed", "get_rng_state", "set_rng_state", "rand", "randn",
           "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "normal",
           "dropout", "multinomial", "uniform_", "normal_", "random_", "bernoulli_", "exponential_",
           "log_normal_", "cauchy_", "geometric_"]


@functools.cache
def _program(kind: str, dtype: DType, params: tuple[type, ...]) -> Program:
    address = load_kernel(*random_kernel(kind, dtype, host()))
    kinds = [INTEGER, INTEGER, INTEGER] + [FLOAT if p is float else INTEGER for p in params]
    patches = [(2 + i, i, 0) for i in range(len(kinds))]
    return Program.build([(address, 2, 1)], patches, kinds, [0] * (2 + len(kinds)))


def fill(tensor: Any, kind: str, params: Sequence, generator: Generator | None) -> Any:
    """Fill a tensor, in row-major order of its elements, from a stream."""
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(f"expected a torch.Generator, got {type(generator).__name__}")
    generator = generator or default_generator
    target = tensor
    if not tensor._meta.contiguous:
        target = launches.fresh(contiguous_meta(tensor.dtype, tuple(tensor.shape)))
    if tensor._meta.numel:
        program = _program(kind, tensor.dtype, tuple(type(p) for p in params))
        with generator.lock:
            launches.late.launch(program.address, generator.address, target._ptr,
                                 target._meta.numel, *params)
        if dispatch.observers:
            dispatch.observers[-1].randomised(kind, target, tuple(params), generator)
    if target is not tensor:
        dispatch.raw_copy(tensor, target)
    return tensor


def _in_place(tensor: Any, name: str, kind: str, params: Sequence, generator: Any) -> Any:
    dispatch.check_writable(tensor, name)
    fill(tensor, kind, params, generator)
    dispatch.bump_version(tensor)
    return tensor


def uniform_(self: Any, from_: float = 0.0, to: float = 1.0, *, generator: Any = None,
             **options: Any) -> Any:
    """Fill with numbers drawn uniformly from [from, to)."""
    from_ = options.pop("from", from_)
    need_number("uniform_", "from", from_)
    need_number("uniform_", "to", to)
    if from_ > to:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={from_} "
                           f"> to={to}")
    if self.dtype.is_complex:
        uniform_(ops.view_as_real(self.detach()), from_, to, generator=generator)
        return self
    _needs_float("uniform_", self)
    return _in_place(self, "uniform_", "uniform", (float(from_), float(to)), generator)


def normal_(self: Any, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Any:
    """Fill with numbers drawn from the normal distribution."""
    need_number("normal_", "mean", mean)
    need_number("normal_", "std", std)
    if std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    if self.dtype.is_complex:  # the parts share the variance
        normal_(ops.view_as_real(self.detach()), 0.0, std / math.sqrt(2), generator=generator)
        return self if mean == 0 else self.add_(mean)
    _needs_float("normal_", self)
    kind = normal_kind(self._meta.numel, self._meta.contiguous)
    return _in_place(self, "normal_", kind, (float(mean), float(std)), generator)


def _needs_float(name: str, tensor: Any) -> None:
    if tensor.dtype.kind != "f":
        raise NotImplementedError(f'"{name}" not implemented for '
                                  f"'{tensor.dtype.scalar_name}': "
                                  "it takes floating tensors")


def random_(self: Any, from_: int | None = None, to: int | None = None, *, generator: Any = None,
            **options: Any) -> Any:
    """Fill with integers drawn from [from, to)."""
    from_ = options.pop("from", from_)
    if from_ is not None and to is None and "to" not in options:
        from_, to = 0, from_
    plan = plan_random(self.dtype, from_, to)
    return _in_place(self, "random_", plan.kind, plan.slots, generator)


def bernoulli_(self: Any, p: Any = 0.5, *, generator: Any = None) -> Any:
    """Fill with 0 and 1; the probability of 1 is `p`, a number or a tensor."""
    if isinstance(p, TensorBase):
        return _bernoulli_each(self, p, generator)
    need_number("bernoulli_", "p", p)
    if not 0 <= p <= 1:
        raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p}")
    return _in_place(self, "bernoulli_", "bernoulli", (float(p),), generator)


def _bernoulli_each(self: Any, p: Any, generator: Any) -> Any:
    _needs_float("bernoulli_tensor_cpu_p_", p)
    kind = "bernoulli_float64" if p.dtype is dtypes.float64 else "bernoulli_float32"
    p = p.detach().to(dtypes.float64 if p.dtype is dtypes.float64 else dtypes.float32)
    p = ops.expand(p, tuple(self.shape)).contiguous()
    if p.numel() and not (p.min().item() >= 0 and p.max().item() <= 1):
        raise RuntimeError("Expected p_in >= 0 && p_in <= 1 to be true, but got false.")
    return _in_place(self, "bernoulli_", kind, (p._ptr,), generator)


def exponential_(self: Any, lambd: float = 1.0, *, generator: Any = None) -> Any:
    """Fill with numbers drawn from the exponential distribution of rate `lambd`."""
    need_number("exponential_", "lambd", lambd)
    if lambd <= 0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={lambd}")
    _needs_float("exponential_", self)
    return _in_place(self, "exponential_", "exponential", (float(lambd),), generator)


def log_normal_(self: Any, mean: float = 1.0, std: float = 2.0, *, generator: Any = None) -> Any:
    """Fill with exponentials of normal numbers."""
    need_number("log_normal_", "mean", mean)
    need_number("log_normal_", "std", std)
    if std <= 0:
        raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std}")
    _needs_float("log_normal_", self)
    return _in_place(self, "log_normal_", "log_normal", (float(mean), float(std)), generator)


def cauchy_(self: Any, median: float = 0.0, sigma: float = 1.0, *, generator: Any = None) -> Any:
    """Fill with numbers drawn from the Cauchy distribution."""
    need_number("cauchy_", "median", median)
    need_number("cauchy_", "sigma", sigma)
    if sigma <= 0:
        raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma}")
    _needs_float("cauchy_", self)
    return _in_place(self, "cauchy_", "cauchy", (float(median), float(sigma)), generator)


def geometric_(self: Any, p: float, *, generator: Any = None) -> Any:
    """Fill with the number of trials until the first success."""
    need_number("geometric_", "p", p)
    if not 0 < p < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p}")
    return _in_place(self, "geometric_", "geometric", (float(p),), generator)


# ---------------------------------------------------------------------- factories
def rand(*size: Any, generator: Any = None, requires_grad: bool = False, **options: Any) -> Tensor:
    """Numbers drawn uniformly from [0, 1)."""
    creation._known("rand", options, ("generator",))
    made = creation.empty(*_sizes(size, options), **options)
    if made.dtype.is_complex:
        return creation._finish(uniform_(made, generator=generator), requires_grad)
    _needs_float("rand", made)
    return creation._finish(fill(made, "uniform", (0.0, 1.0), generator), requires_grad)


def randn(*size: Any, generator: Any = None, requires_grad: bool = False, **options: Any) -> Tensor:
    """Numbers drawn from the standard normal distribution."""
    creation._known("randn", options, ("generator",))
    made = creation.empty(*_sizes(size, options), **options)
    if made.dtype.is_complex:
        return creation._finish(normal_(made, generator=generator), requires_grad)
    _needs_float("randn", made)
    kind = normal_kind(made.numel())
    return creation._finish(fill(made, kind, (0.0, 1.0), generator), requires_grad)


def _sizes(size: Sequence, options: dict) -> Sequence:
    return (options.pop("size"),) if "size" in options else size


def randint(low: Any, high: Any = None, size: Any = None, *, generator: Any = None,
            dtype: DType | None = None, requires_grad: bool = False, **options: Any) -> Tensor:
    """Integers drawn from [low, high), or from [0, low): `randint([low,] high, size)`."""
    if size is None and high is not None and not isinstance(high, int):
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    if size is None or isinstance(size, int):
        raise TypeError("randint(): argument 'size' must be tuple of ints, such as (3,), not "
                        f"{kind_of(size)}")
    made = creation.empty(size, dtype=dtype or dtypes.int64, **options)
    plan = plan_random(made.dtype, operator.index(low), operator.index(high))
    return creation._finish(fill(made, plan.kind, plan.slots, generator), requires_grad)


def randperm(n: int, *, generator: Any = None, out: Any = None, dtype: DType | None = None,
             requires_grad: bool = False, **options: Any) -> Tensor:
    """The numbers 0 to n - 1 in random order."""
    if n < 0:
        raise RuntimeError(f"n must be non-negative, got {n}")
    made = creation.empty(n, dtype=dtype or dtypes.int64, **options)
    made = creation._finish(fill(made, randperm_kind(n), (), generator), requires_grad)
    return made if out is None else out.resize_(made.shape).copy_(made)


def rand_like(input: Tensor, *, generator: Any = None, **options: Any) -> Tensor:
    """`rand` with the shape and dtype of `input`."""
    wants = options.pop("requires_grad", False)
    made = creation.empty_like(input, **options)
    return creation._finish(uniform_(made, generator=generator), wants)


def randn_like(input: Tensor, *, generator: Any = None, **options: Any) -> Tensor:
    """`randn` with the shape and dtype of `input`."""
    wants = options.pop("requires_grad", False)
    made = creation.empty_like(input, **options)
    return creation._finish(normal_(made, generator=generator), wants)


def randint_like(input: Tensor, low: int, high: int | None = None, **options: Any) -> Tensor:
    """`randint` with the shape and dtype of `input`."""
    low, high = (0, low) if high is None else (low, high)
    return random_(creation.empty_like(input, **options), low, high)


def bernoulli(input: Tensor, p: Any = None, *, generator: Any = None, out: Any = None) -> Tensor:
    """0 or 1 with the probabilities in `input` (or `p`)."""
    need_tensor("bernoulli", "input", input)
    made = creation.empty_like(input) if out is None else out.resize_(input.shape)
    return bernoulli_(made, input if p is None else p, generator=generator)


def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Any = None,
           out: Any = None, **options: Any) -> Tensor:
    """Normal numbers with means and standard deviations given by numbers or tensors."""
    tensors = [x for x in (mean, std) if isinstance(x, TensorBase)]
    if not tensors:
        made = creation.empty(size, **options) if out is None else out
        return normal_(made, mean, std, generator=generator)
    from flambeau.core.shapes import broadcast_shapes

    if isinstance(std, TensorBase) and std.numel() and std.detach().min().item() < 0:
        raise RuntimeError("normal expects all elements of std >= 0.0")
    shape = broadcast_shapes(*(tuple(x.shape) for x in tensors))
    made = normal_(creation.empty(shape, dtype=tensors[0].dtype), generator=generator)
    made.mul_(std).add_(mean)
    return made if out is None else out.resize_(shape).copy_(made)


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *,
                generator: Any = None, out: Any = None) -> Tensor:
    """Indices drawn with the given weights: (categories,) -> (num_samples,), or row by row.

    Raises:
        RuntimeError: weights that are negative or not finite, or too few of them.
    """
    need_tensor("multinomial", "input", input)
    if input.dtype.kind != "f":
        raise RuntimeError(f"multinomial only supports floating-point dtypes for input, got: "
                           f"{input.dtype.scalar_name}")
    if input.ndim not in (1, 2):
        raise RuntimeError("prob_dist must be 1 or 2 dim")
    if num_samples <= 0:
        raise RuntimeError("cannot sample n_sample <= 0 samples")
    weights = input.detach()
    if not replacement and num_samples > input.shape[-1]:
        raise RuntimeError("cannot sample n_sample > prob_dist.size(-1) samples without "
                           "replacement")
    if not bool(ops.all(ops.isfinite(weights))) or weights.min().item() < 0:
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
    if bool(ops.any(ops.eq(ops.sum(weights, -1), 0))):
        raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
    if not replacement or num_samples == 1:
        noise = exponential_(creation.empty_like(weights), generator=generator)
        ratio = ops.div(weights, noise)
        if num_samples == 1:
            drawn = ops.argmax(ratio, -1, True)
        else:
            drawn = ops.topk(ratio, num_samples, -1)[1]
    else:
        drawn = _drawn_with_replacement(weights, num_samples, generator)
    return drawn if out is None else out.resize_(drawn.shape).copy_(drawn)


def _drawn_with_replacement(weights: Tensor, count: int, generator: Any) -> Tensor:
    wide = weights.dtype is dtypes.float64
    rows = weights.to(dtypes.float64 if wide else dtypes.float32).contiguous()
    rows = rows.reshape(1, -1) if rows.ndim == 1 else rows
    kind = "multinomial_float64" if wide else "multinomial_float32"
    scratch = creation.empty_like(rows[0])
    drawn = creation.empty(rows.shape[0], count, dtype=dtypes.int64)
    for row, result in zip(rows.unbind(0), drawn.unbind(0), strict=True):
        fill(result, kind, (row._ptr, rows.shape[1], scratch._ptr), generator)
    return drawn.reshape(count) if weights.ndim == 1 else drawn


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero elements with probability `p` and scale the others by 1 / (1 - p), when training."""
    if not isinstance(input, TensorBase):
        raise TypeError(f"dropout(): argument 'input' (position 1) must be Tensor, not "
                        f"{kind_of(input)}")
    need_number("dropout", "p", p)
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0 or not input.numel():
        return input
    if p == 1:
        return ops.mul_(input, 0.0) if inplace else ops.mul(input, creation.zeros_like(input))
    mask = fill(creation.empty_like(input), "bernoulli", (1.0 - p,), None)
    if inplace:
        return ops.mul_(input, ops.div(mask, 1.0 - p))
    return ops._dropout(input, mask, 1.0 - p)


# ---------------------------------------------------------------------- seeds and states
def manual_seed(seed: int) -> Generator:
    """Start the default stream of `seed`."""
    return default_generator.manual_seed(int(seed))


def seed() -> int:
    """Start a stream that nobody can foresee; returns its seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of the default stream."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the default stream, as a uint8 tensor."""
    return generator_state(default_generator)


def set_rng_state(new_state: Tensor) -> None:
    """Continue the default stream from a state."""
    set_generator_state(default_generator, new_state)


def generator_state(generator: Generator) -> Tensor:
    import numpy as np

    return interop.from_numpy(np.frombuffer(generator.state_bytes(), np.uint8).copy())


def set_generator_state(generator: Generator, state: Tensor) -> Generator:
    if not isinstance(state, TensorBase) or state.dtype is not dtypes.uint8:
        raise TypeError("RNG state must be a torch.ByteTensor")
    generator.load_state_bytes(interop.read_bytes(state.contiguous()))
    return generator


Generator.get_state = generator_state
Generator.set_state = set_generator_state
