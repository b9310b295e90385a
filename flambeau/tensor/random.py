"""Random tensors: PyTorch's streams, draw for draw."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

from flambeau.autograd.grad_mode import LEVELS, mode
from flambeau.compiler.random.fills import normal_kind, plan_random, randperm_kind
from flambeau.core import dtypes
from flambeau.core.arguments import kind_of, need_number, need_tensor
from flambeau.core.device import CHOSEN, META, Device, as_device
from flambeau.core.dtypes import DType
from flambeau.core.shapes import broadcast_shapes
from flambeau.runtime.generator import Generator, default_generator
from flambeau.tensor import creation, dispatch, interop, launches
from flambeau.tensor.devices import check_same
from flambeau.tensor.fills import dense_meta, fill, plain_sizes, refill, renew
from flambeau.tensor.formats import contiguous_format, preserve_format
from flambeau.tensor.functions import ops
from flambeau.tensor.meta import TensorBase
from flambeau.tensor.tensor import Tensor

__all__ = ["manual_seed", "seed", "initial_seed", "get_rng_state", "set_rng_state", "rand", "randn",
           "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "normal",
           "dropout", "multinomial", "poisson", "binomial", "thread_safe_generator",
           "uniform_", "normal_", "random_", "bernoulli_", "exponential_", "log_normal_",
           "cauchy_", "geometric_"]


def _in_place(tensor: Any, name: str, kind: str, params: tuple, generator: Any,
              key: tuple | None = None, given: int = 0) -> Any:
    dispatch.check_writable(tensor, name)
    fill(tensor, kind, params, generator, key, given)
    dispatch.bump_version(tensor)
    return tensor


def room(made: Any) -> Any:
    """New memory about to be filled: inside of a vmap that draws for each example, for each."""
    return launches.late.room(made) if mode() & LEVELS else made


_ABSENT: Any = object()  # a bound that was not given, which None does not mean


def uniform_(self: Any, from_: float = 0.0, to: float = 1.0, *, generator: Any = None,
             **options: Any) -> Any:
    """Fill with numbers drawn uniformly from [from, to).

    >>> _ = torch.manual_seed(0)
    >>> torch.empty(3).uniform_(5, 6)
    tensor([5.4963, 5.7682, 5.0885])
    """
    from_ = options.pop("from", from_) if options else from_
    key = ("uniform_", self._meta, from_, to)
    if refill(self, key, generator):
        return self
    need_number("uniform_", "from", from_)
    need_number("uniform_", "to", to)
    if from_ > to:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={from_} "
                           f"> to={to}")
    if self.dtype.is_complex:
        uniform_(ops.view_as_real(self.detach()), from_, to, generator=generator)
        return self
    _needs_float("uniform_", self)
    return _in_place(self, "uniform_", "uniform", (float(from_), float(to)), generator, key)


def normal_(self: Any, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Any:
    """Fill with numbers drawn from the normal distribution."""
    key = ("normal_", self._meta, mean, std)
    if refill(self, key, generator):
        return self
    need_number("normal_", "mean", mean)
    need_number("normal_", "std", std)
    if std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    if self.dtype.is_complex:  # the parts share the variance
        normal_(ops.view_as_real(self.detach()), 0.0, std / math.sqrt(2), generator=generator)
        return self if mean == 0 else self.add_(mean)
    _needs_float("normal_", self)
    kind = normal_kind(self._meta.numel, self._meta.contiguous)
    return _in_place(self, "normal_", kind, (float(mean), float(std)), generator, key)


def _needs_float(name: str, tensor: Any) -> None:
    if tensor.dtype.kind != "f":
        raise NotImplementedError(f'"{name}" not implemented for '
                                  f"'{tensor.dtype.scalar_name}': "
                                  "it takes floating tensors")


def random_(self: Any, from_: Any = None, to: Any = _ABSENT, *, generator: Any = None,
            **options: Any) -> Any:
    """Fill with integers drawn from [from, to), or from [0, to) if one bound is given; up to the
    largest number of the dtype if `to` is None.

    >>> _ = torch.manual_seed(0)
    >>> torch.empty(3).random_(0, 10)
    tensor([4., 9., 3.])
    """
    from_ = options.pop("from", from_) if options else from_
    if to is _ABSENT:
        from_, to = None if from_ is None else 0, from_
    key = ("random_", self._meta, from_, from_.__class__, to, to.__class__)
    if not options and refill(self, key, generator):
        return self
    plan = plan_random(self.dtype, from_, to)
    return _in_place(self, "random_", plan.kind, plan.slots, generator,
                     None if options else key)


def bernoulli_(self: Any, p: Any = 0.5, *, generator: Any = None) -> Any:
    """Fill with 0 and 1; the probability of 1 is `p`, a number or a tensor."""
    if isinstance(p, TensorBase):
        return _bernoulli_each(self, p, generator)
    key = ("bernoulli_", self._meta, p)
    if refill(self, key, generator):
        return self
    need_number("bernoulli_", "p", p)
    if not 0 <= p <= 1:
        raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p}")
    return _in_place(self, "bernoulli_", "bernoulli", (float(p),), generator, key)


def _bernoulli_each(self: Any, p: Any, generator: Any) -> Any:
    _needs_float("bernoulli_tensor_cpu_p_", p)
    if mode() & LEVELS:
        return launches.late.bernoulli_each(self, p.detach(), generator)
    kind = "bernoulli_float64" if p.dtype is dtypes.float64 else "bernoulli_float32"
    wide = dtypes.float64 if p.dtype is dtypes.float64 else dtypes.float32
    chances = ops.expand(p.detach().to(wide), tuple(self.shape))
    meta = dense_meta(self._meta)  # the order in which they are drawn
    if chances._meta.strides != meta.strides:
        chances = creation.empty_strided(meta.shape, meta.strides, dtype=wide,
                                         device=p.device).copy_(chances)
    key = ("bernoulli", p._meta) if p._ptr == chances._ptr and p._meta is self._meta else None
    return _in_place(self, "bernoulli_", kind, (), generator, key, chances._ptr)


def exponential_(self: Any, lambd: float = 1.0, *, generator: Any = None) -> Any:
    """Fill with numbers drawn from the exponential distribution of rate `lambd`.

    >>> _ = torch.manual_seed(0)
    >>> torch.empty(3).exponential_()
    tensor([3.5083, 1.2304, 0.6150])
    """
    key = ("exponential_", self._meta, lambd)
    if refill(self, key, generator):
        return self
    need_number("exponential_", "lambd", lambd)
    if lambd <= 0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={lambd}")
    _needs_float("exponential_", self)
    return _in_place(self, "exponential_", "exponential", (float(lambd),), generator, key)


def log_normal_(self: Any, mean: float = 1.0, std: float = 2.0, *, generator: Any = None) -> Any:
    """Fill with exponentials of normal numbers.

    >>> _ = torch.manual_seed(0)
    >>> torch.empty(3).log_normal_()
    tensor([5.9263e+01, 1.5116e+00, 3.4819e-02])
    """
    key = ("log_normal_", self._meta, mean, std)
    if refill(self, key, generator):
        return self
    need_number("log_normal_", "mean", mean)
    need_number("log_normal_", "std", std)
    if std <= 0:
        raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std}")
    _needs_float("log_normal_", self)
    return _in_place(self, "log_normal_", "log_normal", (float(mean), float(std)), generator, key)


def cauchy_(self: Any, median: float = 0.0, sigma: float = 1.0, *, generator: Any = None) -> Any:
    """Fill with numbers drawn from the Cauchy distribution.

    >>> _ = torch.manual_seed(0)
    >>> torch.empty(3).cauchy_()
    tensor([10.5977,  0.7648, -0.1283])
    """
    need_number("cauchy_", "median", median)
    need_number("cauchy_", "sigma", sigma)
    if sigma <= 0:
        raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma}")
    _needs_float("cauchy_", self)
    return _in_place(self, "cauchy_", "cauchy", (float(median), float(sigma)), generator)


def geometric_(self: Any, p: float, *, generator: Any = None) -> Any:
    """Fill with the number of trials until the first success.

    >>> _ = torch.manual_seed(0)
    >>> torch.empty(3).geometric_(0.5)
    tensor([1., 1., 2.])
    """
    need_number("geometric_", "p", p)
    if not 0 < p < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p}")
    return _in_place(self, "geometric_", "geometric", (float(p),), generator)


# ---------------------------------------------------------------------- factories
def rand(*size: Any, generator: Any = None, out: Any = None, dtype: DType | None = None,
         layout: Any = None, device: Any = None, pin_memory: bool = False,
         requires_grad: bool = False, **extra: Any) -> Tensor:
    """Numbers drawn uniformly from [0, 1).

    >>> _ = torch.manual_seed(0)
    >>> torch.rand(2, 2)
    tensor([[0.4963, 0.7682],
            [0.0885, 0.1320]])
    """
    key = ("rand", plain_sizes(size), dtype)
    plain = out is None and layout is None and not extra
    if plain and device is None and not requires_grad and not CHOSEN and (
            (made := renew(key, generator)) is not None):
        return made
    creation._known("rand", extra, ("generator",))
    key = key if key[1] is not None and plain and not CHOSEN else None
    made = room(creation.empty(*_sizes(size, extra), out=out, dtype=dtype, layout=layout,
                               device=device, **extra))
    if made.dtype.is_complex or out is not None:
        return creation._finish(uniform_(made, generator=generator), requires_grad)
    _needs_float("rand", made)
    return creation._finish(fill(made, "uniform", (0.0, 1.0), generator, key), requires_grad)


def randn(*size: Any, generator: Any = None, out: Any = None, dtype: DType | None = None,
          layout: Any = None, device: Any = None, pin_memory: bool = False,
          requires_grad: bool = False, **extra: Any) -> Tensor:
    """Numbers drawn from the standard normal distribution.

    >>> _ = torch.manual_seed(0)
    >>> torch.randn(3)
    tensor([ 1.5410, -0.2934, -2.1788])
    """
    key = ("randn", plain_sizes(size), dtype)
    plain = out is None and layout is None and not extra
    if plain and device is None and not requires_grad and not CHOSEN and (
            (made := renew(key, generator)) is not None):
        return made
    creation._known("randn", extra, ("generator",))
    key = key if key[1] is not None and plain and not CHOSEN else None
    made = room(creation.empty(*_sizes(size, extra), out=out, dtype=dtype, layout=layout,
                               device=device, **extra))
    if made.dtype.is_complex or out is not None:
        return creation._finish(normal_(made, generator=generator), requires_grad)
    _needs_float("randn", made)
    kind = normal_kind(made.numel())
    return creation._finish(fill(made, kind, (0.0, 1.0), generator, key), requires_grad)


def _sizes(size: Sequence, extra: dict) -> Sequence:
    return (extra.pop("size"),) if "size" in extra else size


def randint(low: Any, high: Any = None, size: Any = None, *, generator: Any = None,
            out: Any = None, dtype: DType | None = None, layout: Any = None, device: Any = None,
            pin_memory: bool = False, requires_grad: bool = False) -> Tensor:
    """Integers drawn from [low, high), or from [0, low): `randint([low,] high, size)`.

    >>> _ = torch.manual_seed(0)
    >>> torch.randint(10, (4,))
    tensor([4, 9, 3, 0])
    """
    if size is None and high is not None and not isinstance(high, int):
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    shape = None if size is None else plain_sizes((size,))
    key = None
    if shape is not None and out is None and layout is None and device is None and not CHOSEN:
        key = ("randint", low, low.__class__, high, high.__class__, shape, dtype)
        if not requires_grad and (made := renew(key, generator)) is not None:
            return made
    if size is None or isinstance(size, int):
        raise TypeError("randint(): argument 'size' must be tuple of ints, such as (3,), not "
                        f"{kind_of(size)}")
    dtype = dtype or (dtypes.int64 if out is None else None)
    made = room(creation.empty(size, out=out, dtype=dtype, layout=layout, device=device))
    plan = plan_random(made.dtype, operator.index(low), operator.index(high))
    return creation._finish(fill(made, plan.kind, plan.slots, generator, key), requires_grad)


def randperm(n: int, *, generator: Any = None, out: Any = None, dtype: DType | None = None,
             layout: Any = None, device: Any = None, pin_memory: bool = False,
             requires_grad: bool = False) -> Tensor:
    """The numbers 0 to n - 1 in random order.

    >>> _ = torch.manual_seed(0)
    >>> torch.randperm(4)
    tensor([0, 1, 3, 2])
    """
    key = ("randperm", n, n.__class__, dtype)
    plain = layout is None and device is None and not CHOSEN
    if plain and out is None and not requires_grad and (
            (made := renew(key, generator)) is not None):
        return made
    if n < 0:
        raise RuntimeError(f"n must be non-negative, got {n}")
    _fits_randperm(n, dtype or dtypes.int64)
    made = room(creation.empty(n, dtype=dtype or dtypes.int64, layout=layout, device=device))
    made = creation._finish(fill(made, randperm_kind(n), (), generator, key if plain else None),
                            requires_grad)
    return made if out is None else out.resize_(made.shape).copy_(made)


def _fits_randperm(n: int, dtype: DType) -> None:
    """Every number below n must be one of the dtype's; PyTorch lets bfloat16 repeat some."""
    if dtype.is_floating_point:
        most = int(2 / dtypes.finfo(dtype).eps) + 1
        if n > most and dtype is not dtypes.bfloat16:
            raise RuntimeError(f"n cannot be greater than {most} for {dtype.scalar_name} type, but "
                               f"is {n}")
    elif dtype.kind in "iu" and n > dtypes.iinfo(dtype).max + 1:
        raise RuntimeError(f"value cannot be converted to type {dtype.name}_t without overflow: "
                           f"randperm's n is {n}")


def rand_like(input: Tensor, *, generator: Any = None, memory_format: Any = preserve_format,
              dtype: DType | None = None, layout: Any = None, device: Any = None,
              pin_memory: bool = False, requires_grad: bool = False) -> Tensor:
    """`rand` with the shape and dtype of `input`.

    >>> _ = torch.manual_seed(0)
    >>> torch.rand_like(torch.zeros(2))
    tensor([0.4963, 0.7682])
    """
    if input.is_nested:
        return _parts_alike(rand_like, input, generator, dtype, requires_grad)
    if _is_alike(input, memory_format, dtype, layout, device, requires_grad):
        made = renew(("uniform_", input._meta, 0.0, 1.0), generator)
        if made is not None:
            return made
    made = _alike(input, memory_format, dtype, layout, device)
    return creation._finish(uniform_(made, generator=generator), requires_grad)


def randn_like(input: Tensor, *, generator: Any = None, memory_format: Any = preserve_format,
               dtype: DType | None = None, layout: Any = None, device: Any = None,
               pin_memory: bool = False, requires_grad: bool = False) -> Tensor:
    """`randn` with the shape and dtype of `input`.

    >>> _ = torch.manual_seed(0)
    >>> torch.randn_like(torch.zeros(2))
    tensor([ 1.5410, -0.2934])
    """
    if input.is_nested:
        return _parts_alike(randn_like, input, generator, dtype, requires_grad)
    if _is_alike(input, memory_format, dtype, layout, device, requires_grad):
        made = renew(("normal_", input._meta, 0.0, 1.0), generator)
        if made is not None:
            return made
    made = _alike(input, memory_format, dtype, layout, device)
    return creation._finish(normal_(made, generator=generator), requires_grad)


def _is_alike(input: Any, memory_format: Any, dtype: Any, layout: Any, device: Any,
              requires_grad: bool) -> bool:
    """Does a `..._like` function ask for the very layout of its input?"""
    return (memory_format is preserve_format and dtype is None and layout is None
            and device is None and not requires_grad and isinstance(input, TensorBase))


def _parts_alike(draw: Any, input: Any, generator: Any, dtype: DType | None,
                 requires_grad: bool) -> Tensor:
    """Numbers drawn for all parts of a nested tensor."""
    from flambeau.tensor.nested.tensor import on_numbers

    made = on_numbers(draw, input.detach(), generator=generator, dtype=dtype)
    return creation._finish(made, requires_grad)


def _alike(input: Any, memory_format: Any, dtype: Any, layout: Any, device: Any) -> Tensor:
    return room(creation.empty_like(input, memory_format=memory_format, dtype=dtype, layout=layout,
                                    device=device))


def randint_like(input: Tensor, low: int, high: int | None = None, *, generator: Any = None,
                 memory_format: Any = preserve_format, dtype: DType | None = None,
                 layout: Any = None, device: Any = None, pin_memory: bool = False,
                 requires_grad: bool = False) -> Tensor:
    """`randint` with the shape and dtype of `input`.

    >>> _ = torch.manual_seed(0)
    >>> torch.randint_like(torch.zeros(3), 10)
    tensor([4., 9., 3.])
    """
    low, high = (0, low) if high is None else (low, high)
    made = _alike(input, memory_format, dtype, layout, device)
    return creation._finish(random_(made, low, high, generator=generator), requires_grad)


def bernoulli(input: Tensor, p: Any = None, *, generator: Any = None, out: Any = None) -> Tensor:
    """0 or 1 with the probabilities in `input` (or `p`).

    >>> torch.bernoulli(torch.tensor([0., 1.]))
    tensor([0., 1.])
    """
    need_tensor("bernoulli", "input", input)
    if p is None and out is None:
        made = renew(("bernoulli", input._meta), generator, input._ptr)
        if made is not None:
            return made
    if out is None:
        made = room(creation.empty_like(input, memory_format=contiguous_format))
    else:
        made = out.resize_(input.shape)
    return bernoulli_(made, input if p is None else p, generator=generator)


def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Any = None,
           out: Any = None, **options: Any) -> Tensor:
    """Normal numbers with means and standard deviations given by numbers or tensors.

    >>> _ = torch.manual_seed(0)
    >>> torch.normal(10., 0.1, (3,))
    tensor([10.1541,  9.9707,  9.7821])
    """
    tensors = [x for x in (mean, std) if isinstance(x, TensorBase)]
    if not tensors:
        options["device"] = as_device(options.get("device"))  # no default device, as in PyTorch
        made = room(creation.empty(size, **options)) if out is None else out
        return normal_(made, mean, std, generator=generator)
    where = check_same(*tensors)
    if isinstance(std, TensorBase) and std.numel() and not mode() & LEVELS and (
            where is not META and std.detach().min().item() < 0):
        raise RuntimeError("normal expects all elements of std >= 0.0")
    shape = broadcast_shapes(*(tuple(x.shape) for x in tensors))
    made = creation.empty(shape, dtype=tensors[0].dtype, device=where)
    made = normal_(room(made), generator=generator)
    if mode() & LEVELS:
        return made.mul(std).add(mean)
    made.mul_(std).add_(mean)
    return made if out is None else out.resize_(shape).copy_(made)


def poisson(input: Tensor, generator: Any = None) -> Tensor:
    """How many events happen where `input` many are expected.

    >>> torch.poisson(torch.tensor([0., 0.]))
    tensor([0., 0.])
    """
    need_tensor("poisson", "input", input)
    _needs_float("poisson_cpu", input)
    if mode() & LEVELS:
        return launches.late.draws(functools.partial(poisson, generator=generator), input)
    rates = input.detach().to(dtypes.float64).contiguous()
    made = creation.empty(tuple(input.shape), dtype=dtypes.float64, device=input.device)
    try:
        fill(made, "poisson", (), generator, given=rates._ptr)
    except RuntimeError:
        raise RuntimeError("invalid Poisson rate, expected rate to be non-negative") from None
    return made.to(input.dtype)


def binomial(count: Tensor, prob: Tensor, generator: Any = None) -> Tensor:
    """How many of `count` trials succeed, if each does with probability `prob` (both broadcast);
    none of a negative count, and all with a probability above 1.

    >>> torch.binomial(torch.tensor([10., 10.]), torch.tensor([0., 1.]))
    tensor([ 0., 10.])
    """
    need_tensor("binomial", "count", count)
    need_tensor("binomial", "prob", prob)
    if count.dtype.kind != "f":
        raise ValueError("binomial only supports floating-point dtypes for count, got: "
                         f"{count.dtype.scalar_name}; convert it with .float()")
    if prob.dtype is not count.dtype:
        raise RuntimeError(f"expected scalar type {count.dtype.scalar_name} but found "
                           f"{prob.dtype.scalar_name}: convert one with .to(dtype)")
    if mode() & LEVELS:
        return launches.late.draws(functools.partial(binomial, generator=generator), count, prob)
    where = check_same(count, prob)
    shape = broadcast_shapes(tuple(count.shape), tuple(prob.shape))
    trials = ops.stack([ops.expand(x.detach(), shape) for x in (count, prob)], -1)
    made = creation.empty(tuple(trials.shape[:-1]), dtype=dtypes.float64, device=where)
    trials = trials.to(dtypes.float64).contiguous()
    fill(made, "binomial", (), generator, given=trials._ptr)
    return made.to(count.dtype)


MOST_CATEGORIES = 1 << 24  # float32 counts no further


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *,
                generator: Any = None, out: Any = None) -> Tensor:
    """Indices drawn with the given weights: (categories,) -> (num_samples,), or row by row.

    Raises:
        RuntimeError: weights that are negative or not finite, or too few of them.

    >>> torch.multinomial(torch.tensor([0., 3., 0.]), 4, replacement=True)
    tensor([1, 1, 1, 1])
    """
    need_tensor("multinomial", "input", input)
    if out is not None and out.dtype is not dtypes.int64:
        raise RuntimeError(f"multinomial expects Long tensor out, got: {out.dtype.scalar_name}")
    if input.dtype.kind != "f":
        raise RuntimeError(f"multinomial only supports floating-point dtypes for input, got: "
                           f"{input.dtype.scalar_name}")
    if input.ndim not in (1, 2):
        raise RuntimeError("prob_dist must be 1 or 2 dim")
    if num_samples <= 0:
        raise RuntimeError("cannot sample n_sample <= 0 samples")
    weights = input.detach()
    if mode() & LEVELS:
        return launches.late.multinomial(weights, num_samples, replacement, generator)
    if not replacement and num_samples > input.shape[-1]:
        raise RuntimeError("cannot sample n_sample > prob_dist.size(-1) samples without "
                           "replacement")
    if input.shape[-1] > MOST_CATEGORIES:
        raise RuntimeError(f"multinomial: number of categories cannot exceed 2^24, got "
                           f"{input.shape[-1]}")
    if input.device is META:
        drawn = creation.empty(*input.shape[:-1], num_samples, dtype=dtypes.int64, device=META)
        return drawn if out is None else out.resize_(drawn.shape).copy_(drawn)
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
    drawn = creation.empty(rows.shape[0], count, dtype=dtypes.int64, device=rows.device)
    for row, result in zip(rows.unbind(0), drawn.unbind(0), strict=True):
        fill(result, kind, (rows.shape[1], scratch._ptr), generator, given=row._ptr)
    return drawn.reshape(count) if weights.ndim == 1 else drawn


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero elements with probability `p` and scale the others by 1 / (1 - p), when training.

    >>> F.dropout(torch.ones(4), p=0.5, training=False)
    tensor([1., 1., 1., 1.])
    """
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
    key = ("bernoulli_", input._meta, 1.0 - p)
    mask = renew(key, None)
    if mask is None:
        mask = fill(room(creation.empty_like(input)), "bernoulli", (1.0 - p,), None, key)
    if inplace:
        return ops.mul_(input, ops.div(mask, 1.0 - p))
    return ops._dropout(input, mask, 1.0 - p)


# ---------------------------------------------------------------------- seeds and states
def manual_seed(seed: Any) -> Generator:
    """Start the default stream of `seed`.

    >>> _ = torch.manual_seed(0)
    >>> torch.rand(2)
    tensor([0.4963, 0.7682])
    """
    return default_generator.manual_seed(int(seed))


def seed() -> int:
    """Start a stream that nobody can foresee; returns its seed.

    >>> type(torch.seed())
    <class 'int'>
    """
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of the default stream.

    >>> _ = torch.manual_seed(7)
    >>> torch.initial_seed()
    7
    """
    dispatch.host_action("asking for the seed of a random stream")
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the default stream, as a uint8 tensor.

    >>> state = torch.get_rng_state()
    >>> a = torch.rand(2)
    >>> torch.set_rng_state(state)
    >>> torch.equal(a, torch.rand(2))
    True
    """
    return generator_state(default_generator)


def set_rng_state(new_state: Tensor) -> None:
    """Continue the default stream from a state.

    >>> state = torch.get_rng_state()
    >>> torch.set_rng_state(state)
    """
    set_generator_state(default_generator, new_state)


def thread_safe_generator() -> Generator | None:
    """The generator of this thread, if it is a worker of a DataLoader that has its own; here there
    is none: a generator locks itself while it is drawn from.

    >>> torch.thread_safe_generator() is None  # outside of a DataLoader's workers
    True
    """
    return None


def generator_state(generator: Generator) -> Tensor:
    import numpy as np

    state = interop.from_numpy(np.frombuffer(generator.state_bytes(), np.uint8).copy())
    if dispatch.observers:
        dispatch.observers[-1].unforeseen(state, "the state of a random stream")
    return state


def set_generator_state(self: Generator, new_state: Tensor) -> Generator:
    """Go on where a generator was when its `get_state` gave `new_state`."""
    if not isinstance(new_state, TensorBase) or new_state.dtype is not dtypes.uint8:
        raise TypeError("RNG state must be a torch.ByteTensor")
    self.load_state_bytes(interop.read_bytes(new_state.contiguous()))
    return self


def _adopt(self: Generator, state: Generator) -> Generator:
    """Go on where the generator `state` is."""
    self.load_state_bytes(state.state_bytes())
    return self


def _reduce_generator(self: Generator) -> tuple:
    """A new generator that is given the state: as PyTorch's are pickled."""
    return Generator, (Device(str(self.device)),), (self.initial_seed(), None, self.get_state())


def _set_pickled_state(self: Generator, state: tuple) -> None:
    """Go on where the generator was that was pickled."""
    if type(state) is not tuple or len(state) != 3:
        raise TypeError("the state of a torch.Generator is (seed, offset, bytes)")
    self.set_state(state[2])


Generator.get_state = generator_state
Generator.__reduce__ = _reduce_generator
Generator.__setstate__ = _set_pickled_state
Generator.set_state = set_generator_state
Generator.graphsafe_get_state = Generator.clone_state
Generator.graphsafe_set_state = _adopt
