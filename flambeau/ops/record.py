"""The op record: one definition from which everything about an operation is derived.

    @op(promote="float", grad="ExpBackward0", inplace=True, samples=unary())
    def exp(input: Tensor):
        \"\"\"e to the power of each element.\"\"\"
        return prim.exp(input)

The body is a function over `ir.Value`s, written with primitives and other ops. Calling a record
with Values inlines its body; tensor/ derives from the record what users call. The annotations say
what a parameter is:

    Tensor            a tensor, promoted with the others if `promote` is set
    Tensor | None     the same, may be absent
    Operand           a tensor or a number
    Number            a number that may change from call to call without recompiling
    Index             a tensor that keeps its dtype (indices, masks)
    Index | None      the same, may be absent
    Tensors           a sequence of tensors
    anything else     static: a new value means a new kernel
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.core import dtypes
from flambeau.core.dtypes import DType
from flambeau.ir.graph import Value, constant
from flambeau.ops.examples import described
from flambeau.ops.primitives.elementwise import convert
from flambeau.ops.primitives.structure import iota
from flambeau.ops.stored import refusal

__all__ = ["Op", "Param", "REGISTRY", "op", "view_op", "result_type", "lift", "Tensor", "Operand",
           "Number", "Index", "Tensors", "index_space"]

Tensor = Value
Operand = Value
Number = Value
Index = Value
Tensors = Sequence[Value]

_ROLES = {"Tensor": "tensor", "Tensor | None": "tensor", "Operand": "operand", "Number": "number",
          "Index": "index", "Index | None": "index", "Tensors": "tensors",
          "Operand | None": "operand", "Number | None": "number"}

REGISTRY: dict[str, Op] = {}


class Param:
    """One parameter of an op: its role decides how dispatch passes it."""

    __slots__ = ("name", "role", "default", "keyword_only", "annotation", "fixed")

    def __init__(self, parameter: inspect.Parameter):
        self.name = parameter.name
        self.annotation = str(parameter.annotation)
        self.role = _ROLES.get(self.annotation, "static")
        self.default = parameter.default
        self.keyword_only = parameter.kind is inspect.Parameter.KEYWORD_ONLY
        self.fixed: dict = {}  # numbers (by themselves) that have kernels of their own

    def fixes(self, arg: object) -> bool:
        """Is `arg` a number that is part of the kernel?"""
        return type(arg) in (int, float) and arg in self.fixed

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


class Op:
    """The record of one operation.

    Attributes:
        name: public name; dotted for submodules ("linalg.norm").
        body: (Values and statics) -> Value or tuple of Values.
        params: in order.
        kind: "compute", or "view" (the result shares the input's memory where it can).
        promote: None; "match": tensors and operands meet in one dtype; "float": the same, and
            integers become the default floating dtype; "alike": as "match", but tensors without
            dimensions count as others (of ops that broadcast before they compute); or a function
            of the arguments that says which.
        fixed: for names of operands the numbers that get kernels of their own, as statics do.
        check: a function of the arguments before promotion, which raises if they do not go
            together.
        exact_numbers: a number beside 16-bit floats is not rounded to 16 bits before it is used.
        refuses: kinds of dtypes ("b" bool, "u", "i" integers ...) that PyTorch does not compute
            either.
        opmath: compute on 16-bit floats in float32, rounding the result once.
        float8: the same for 8-bit floats, which other ops do not compute with.
        grad: the name of the backward node ("AddBackward0"), or a function of the bound arguments.
        method, inplace, out: derived forms that PyTorch has.
        apart: `out=` must not share memory with what is read.
        returns: names of the results, if there are several.
        mutates: names of parameters that the in-place form overwrites with the results, in order;
            those that are None are left out, as are their results.
        order: how results lie in memory. None: elementwise ones like their operands, others
            row-major. "rows": all row-major. "first": those of the first tensor's rank in the order
            of its dimensions; "images": the same if it is channels_last, "all": if all tensors
            are. Or a function of the call:
            which dimension of the first tensor each dimension of the result is.
        many: the results are a plain tuple, whatever their number (split, unbind).
        differentiable: False: results never require grad; `no_derivative` too, but they do, and
            asking for the gradient raises.
        public: the namespaces that show it ("torch", "nn.functional", "linalg").
        gradient: the override of the derived gradient, or None.
        oracle: a NumPy function with the same result, for tests.
        samples: a function that yields `samples.Sample`s.
        index_error: the exception for an index out of range, a function of (the index, the call,
            its flat arguments).
    """

    def __init__(self, body: Callable, **options: Any):
        self.body = body
        self.name = options.pop("name", None) or body.__name__.rstrip("_")
        self.doc = described(self.name, inspect.getdoc(body) or "")
        signature = inspect.signature(body)
        self.params = [Param(parameter) for parameter in signature.parameters.values()]
        for name, numbers in options.pop("fixed", {}).items():
            next(p for p in self.params if p.name == name).fixed = {n: n for n in numbers}
        self.kind = options.pop("kind", "compute")
        self.promote = options.pop("promote", None)
        self.refuses = options.pop("refuses", "")
        self.check = options.pop("check", None)
        self.exact_numbers = options.pop("exact_numbers", False)
        self.opmath = options.pop("opmath", self.kind != "view")
        self.float8 = options.pop("float8", False)
        self.grad = options.pop("grad", None)
        self.method = options.pop("method", True)
        self.inplace = options.pop("inplace", False)
        self.out = options.pop("out", self.kind != "view")
        self.apart = options.pop("apart", False)
        self.returns = options.pop("returns", None)
        self.mutates = options.pop("mutates", ())
        self.order = options.pop("order", None)
        self.many = options.pop("many", False)
        self.public = options.pop("public", ("torch",))
        self.aliases = options.pop("aliases", ())
        self.samples = options.pop("samples", None)
        self.oracle = options.pop("oracle", None)
        self.index_error = options.pop("index_error", out_of_range)
        self.no_derivative = options.pop("no_derivative", False)
        self.differentiable = options.pop("differentiable", not self.no_derivative)
        self.gradient: Callable | None = None
        if options:
            raise TypeError(f"op {self.name}: unknown options {sorted(options)}")

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def vjp(self, rule: Callable) -> Callable:
        """Decorator: override the derived gradient. `rule` takes by name any of `g` (the gradient
        of the result, or a tuple), `output`, and the op's own parameters; it returns one gradient
        per tensor parameter (bare if there is one)."""
        self.gradient = rule
        return rule

    # ------------------------------------------------------------------ use over Values
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.apply(self.bind(args, kwargs))

    def bind(self, args: Sequence, kwargs: dict) -> list:
        """Arguments in the order of `params`, defaults filled in.

        Raises:
            TypeError: unknown, missing or surplus arguments, in terms of this op.
        """
        positional = [p for p in self.params if not p.keyword_only]
        if len(args) > len(positional):
            raise TypeError(f"{self.name}() takes {len(positional)} positional arguments but "
                            f"{len(args)} were given")
        names = {p.name for p in self.params}
        unknown = [name for name in kwargs if name not in names]
        if unknown:
            raise TypeError(f"{self.name}() got an unexpected keyword argument {unknown[0]!r}; it "
                            f"takes {', '.join(p.name for p in self.params)}")
        bound = []
        for position, param in enumerate(self.params):
            if not param.keyword_only and position < len(args):
                if param.name in kwargs:
                    raise TypeError(f"{self.name}() got multiple values for argument "
                                    f"{param.name!r}")
                bound.append(args[position])
            elif param.name in kwargs:
                bound.append(kwargs[param.name])
            elif param.required:
                raise TypeError(f"{self.name}() missing required argument {param.name!r} "
                                f"(position {position + 1})")
            else:
                bound.append(param.default)
        return bound

    def apply(self, bound: Sequence) -> Any:
        """Inline the body on bound arguments (Values, statics; numbers may be Python numbers)."""
        args = self.promoted([self._lifted(p, a) for p, a in zip(self.params, bound, strict=True)])
        return self.run_body(args)

    def run_body(self, args: Sequence) -> Any:
        plain = [a for p, a in zip(self.params, args, strict=True) if not p.keyword_only]
        named = {p.name: a for p, a in zip(self.params, args, strict=True) if p.keyword_only}
        return self.body(*plain, **named)

    @staticmethod
    def _lifted(param: Param, arg: Any) -> Any:
        if arg is None or param.role == "static":
            return arg
        if param.role == "tensors":
            return tuple(lift(item) for item in arg)
        return lift(arg)

    def promoted(self, args: Sequence, widen: bool = False) -> list:
        """Convert tensors and operands to their common dtype, as `promote` says.

        Args:
            widen: 16-bit floats will be computed in float32.

        Raises:
            NotImplementedError: the op refuses that dtype.
        """
        if self.check is not None:
            self.check(*args)
        promote = self.promote(*args) if callable(self.promote) else self.promote
        if promote is None and not self.refuses:
            return list(args)
        group = []
        for param, arg in zip(self.params, args, strict=True):
            if arg is not None and param.role in ("tensor", "operand"):
                group.append(arg)
            elif param.role == "tensors":
                group += arg
        if not group:  # an empty list of tensors: the body says what is wrong
            return list(args)
        if promote == "alike":
            dtype = functools.reduce(dtypes.promote_types, [item.dtype for item in group])
        else:
            dtype = result_type(group) if promote else group[0].dtype
        if dtype.kind in "Vq" and any(item.dtype is not dtype for item in group):
            raise refusal(self.name, dtype)
        if dtype.kind in self.refuses:
            raise NotImplementedError(f"\"{self.name}_cpu\" not implemented for "
                                      f"'{dtype.scalar_name}': convert the input "
                                      "first, for example with .to(torch.float32)")
        if promote is None:
            return list(args)
        if promote == "float" and dtype.is_integral:
            dtype = dtypes_default()
        exact = widen and self.exact_numbers and dtype.is_reduced
        result = []
        for param, arg in zip(self.params, args, strict=True):
            if arg is not None and param.role in ("tensor", "operand"):
                arg = convert(arg, dtype.widened if exact and arg.number else dtype)
            elif param.role == "tensors":
                arg = tuple(convert(item, dtype) for item in arg)
            result.append(arg)
        return result


def out_of_range(index: int, call: Any, args: Sequence) -> Exception:
    """An index out of range, for ops that say nothing more precise."""
    shapes = [list(aval[0]) for aval in call.avals if not isinstance(aval, type)]
    return IndexError(f"{call.name}: index {index} is out of range for the dimension it addresses "
                      f"(shapes of the arguments: {shapes})")


_default = [dtypes.float32]


def dtypes_default() -> DType:
    """The default floating dtype (`torch.get_default_dtype`)."""
    return _default[0]


def set_dtypes_default(dtype: DType) -> None:
    _default[0] = dtype


def lift(value: Any) -> Value:
    """A Value as it is; a Python number as a constant number."""
    if isinstance(value, Value):
        return value
    if isinstance(value, (bool, int, float, complex)):
        return constant(value)
    raise TypeError(f"expected a value or a number, got {type(value).__name__}")


def result_type(values: Sequence[Value]) -> DType:
    """PyTorch's promotion: tensors with dimensions decide; 0-d tensors and then Python numbers only
    raise the kind (bool < integer < float < complex)."""
    groups: list[DType | None] = [None, None, None]
    for value in values:
        place = 2 if value.number else 1 if value.ndim == 0 else 0
        dtype = value.dtype
        if value.number:
            dtype = {"f": dtypes_default(), "c": dtypes_default().to_complex()}.get(
                dtype.kind, dtype)
        seen = groups[place]
        groups[place] = dtype if seen is None else dtypes.promote_types(seen, dtype)
    return combine_categories(*groups)


_KIND_RANK = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3, "V": 4, "q": 4}


def combine_categories(dims: DType | None, zero: DType | None, number: DType | None) -> DType:
    """The dtype of an operation on tensors with dimensions, 0-d tensors and numbers."""
    result = dims
    for lower in (zero, number):
        if lower is None:
            continue
        if result is None:
            result = lower
        elif _KIND_RANK[lower.kind] > _KIND_RANK[result.kind]:
            if lower.kind == "c" and result.kind == "f":
                result = result.to_complex()
            else:
                result = dtypes.promote_types(result, lower) if result.kind == "b" else lower
    return result


def op(**options: Any) -> Callable[[Callable], Op]:
    """Decorator: define an op from its body. See `Op` for the options."""

    def define(body: Callable) -> Op:
        record = Op(body, **options)
        if record.name in REGISTRY:
            raise ValueError(f"op {record.name!r} is defined twice")
        REGISTRY[record.name] = record
        return record

    return define


def view_op(**options: Any) -> Callable[[Callable], Op]:
    """Decorator: define a view op; its body may only use movement primitives."""
    return op(kind="view", **options)


def index_space(shape: Sequence[int]) -> list[Value]:
    """One iota per dimension."""
    return [iota(shape, d) for d in range(len(shape))]
