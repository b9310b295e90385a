"""Every public operation, with the names it goes by: what the reference and its gate are made of.

An entry gathers the forms of one operation: `torch.exp`, `Tensor.exp`, `Tensor.exp_`, and
`torch.nn.functional.relu` beside `torch.relu`. Its description and example are the docstring of
the form that comes first.
"""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from op_signatures import family, registry, short_name

__all__ = ["Entry", "entries", "examples"]

ROOT = Path(__file__).resolve().parents[1]

# Functions of these are one operation where their names are equal; everywhere else a name is an
# operation of its own.
TOGETHER = ("torch", "torch.nn.functional", "torch.special", "Tensor")
NAMESPACES = (*TOGETHER, "torch.linalg", "torch.fft", "torch.func", "torch.autograd",
              "torch.autograd.functional", "torch.autograd.forward_ad", "torch.autograd.graph",
              "torch.sparse", "torch.nested", "torch.masked", "torch.signal.windows",
              "torch.random", "torch.futures", "torch.testing", "torch.nn.init",
              "torch.distributions")

# What the engine of the tape lists beside PyTorch's names; what only raises, for want of a device.
INTERNAL = {"accumulator_of", "edge_of", "fill_missing", "node_type", "note_stack",
            "register_tensor_class", "zeros_for", "debug_unwrap",
            "ipu", "mtia", "xpu", "to_sparse_semi_structured"}
# Here the classes are what users call; elsewhere only those with names in lower case (`no_grad`).
CLASSES = ("torch.distributions", "torch.futures")
# One name, two operations.
APART = {"unfold"}

# Where hand-written functions are described, by name or by the module that holds them; a package's
# functions have a page of their own name.
HOMES = {
    "activation": ("nn.functional",),
    "attention": ("nn._attention",),
    "autocast": ("amp.autocast_mode",),
    "autograd": ("autograd.grad_mode",),
    "complex_numbers": ("tensor.complex_numbers",),
    "creation": ("tensor.interop",),
    "dropout": ("nn._dropout",),
    "dtypes": ("core.device", "core.dtypes", "core.qschemes", "core.shapes"),
    "func": ("func.batches",),
    "histogram": ("tensor.histograms",),
    "index": ("tensor.compress", "tensor.indexing"),
    "legacy": ("nn._native",),
    "linalg": ("tensor.linalg_legacy", "tensor.linalg_spectral", "tensor.linalg_systems",
               "tensor.low_rank", "tensor.norms", "tensor.vandermonde"),
    "loss": ("nn._ctc", "nn._linear_loss"),
    "margin": ("torch.nn.functional.triplet_margin_with_distance_loss",),
    "matmul": ("nn._scaled",),
    "pool": ("nn._windows",),
    "quantize": ("tensor.quantized.construct",),
    "random": ("tensor.gamma",),
    "resample": ("nn._resize",),
    "settings": ("compile", "serialization.api", "tensor.display"),
    "shaping": ("tensor.overloads",),
    "sort": ("tensor.sorting",),
    "sparse": ("tensor.sparse.construct", "tensor.sparse.methods", "tensor.sparse.products"),
    "spectrogram": ("tensor.spectrograms",),
    "symbols": ("tensor.symbols",),
    "tensor": ("tensor.elements", "tensor.formats", "tensor.memory_methods", "tensor.methods",
               "tensor.shape_methods", "tensor.storages", "tensor.typed_storages"),
    "windows": ("tensor.windows",),
}
PAGES = {module: page for page, modules in HOMES.items() for module in modules}


@dataclasses.dataclass
class Entry:
    """One operation.

    Attributes:
        name: its short name ("sort"); page: the page that describes it.
        record: its record in the op table, if it has one.
        function: the form whose docstring describes it.
        forms: every public name ("torch.sort", "Tensor.sort") and what it is.
    """

    name: str
    page: str = ""
    record: Any = None
    function: Any = None
    forms: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def doc(self) -> str:
        shown = self.forms[self.title]
        return (inspect.getdoc(shown if isinstance(shown, property) else self.function)
                or "").strip()

    @property
    def title(self) -> str:
        """The name that it is found by."""
        return next(iter(self.forms))


def examples(doc: str) -> list[doctest.Example]:
    """The examples in a docstring."""
    return doctest.DocTestParser().get_examples(doc)


def entries() -> list[Entry]:
    """All of them, by page and name."""
    records = registry()
    found: dict[Any, Entry] = {}
    for namespace in NAMESPACES:
        for name, value in _public(namespace):
            record = _record_of(value, records)
            key = _key(namespace, name, value, record, found)
            entry = found.setdefault(key, Entry(name, function=value))
            entry.record = entry.record or record
            entry.forms[f"{namespace}.{name}"] = value
    for entry in found.values():
        _settle(entry, records)
    return sorted(found.values(), key=_place)


def _place(entry: Entry) -> tuple[str, str]:
    return entry.page, entry.title.rpartition(".")[2]


def _public(namespace: str) -> Iterator[tuple[str, Any]]:
    """The functions of a namespace; of Tensor the methods and properties too."""
    flambeau = importlib.import_module("flambeau")
    home: Any = flambeau.Tensor
    if namespace != "Tensor":
        home = importlib.import_module(namespace.replace("torch", "flambeau", 1))
    names = set(dir(home) if namespace in ("torch", "Tensor") else home.__all__)
    names |= {"tensor", "compile"} if namespace == "torch" else set()  # folders have these names
    for name in sorted(names - INTERNAL):
        value = inspect.getattr_static(home, name) if namespace == "Tensor" else None
        if not isinstance(value, property):
            value = getattr(home, name)
        kind = callable(value) or isinstance(value, property)
        if name[0] == "_" or not kind or isinstance(value, types.ModuleType):
            continue
        if namespace == "torch.nn.init" and name + "_" in names:  # the deprecated name
            continue
        if not isinstance(value, property) and not hasattr(value, "__name__"):  # an object
            continue
        if isinstance(value, type) and name[0].isupper() and namespace not in CLASSES:
            continue
        if _module(value).startswith("flambeau"):
            yield name, value


def _module(value: Any) -> str:
    function = value.fget if isinstance(value, property) else value
    return getattr(function, "__module__", None) or ""


def _unwrapped(value: Any) -> Any:
    value = value.fget if isinstance(value, property) else value
    return inspect.unwrap(value)


def _op_file(value: Any) -> str:
    """The op and form that a generated function belongs to ("add", "add_"), else ""."""
    code = getattr(_unwrapped(value), "__code__", None)
    found = re.match(r"<flambeau op ([\w.]+)", code.co_filename if code else "")
    return found[1] if found else ""


def _record_of(value: Any, records: Any) -> Any:
    name = _op_file(value)
    return records.get(name) or records.get(name.rstrip("_"))


def _key(namespace: str, name: str, value: Any, record: Any, found: dict) -> Any:
    """What the forms of one operation have in common."""
    if namespace not in TOGETHER:
        same = record and short_name(record) or name
        known = found.get(same)
        if known and _unwrapped(value) in map(_unwrapped, known.forms.values()):
            return same
        return namespace, name
    if isinstance(value, type) or name in APART:
        return (namespace, name) if name in APART else name
    if record is not None:
        return short_name(record)
    if name in found and isinstance(found[name].function, type):
        return namespace, name  # Tensor.dtype is not torch.dtype
    base = name.rstrip("_")
    return base if name != base and base in found else name


def _settle(entry: Entry, records: Any) -> None:
    """Find the describing form and the page."""
    plain = [form for form in entry.forms if not form.endswith("_")]
    own = [form for form in plain if entry.record is not None and
           form.rpartition(".")[2] == short_name(entry.record)]
    first = (own or plain or list(entry.forms))[0]
    entry.forms = {first: entry.forms[first], **entry.forms}
    entry.function = _unwrapped(entry.forms[first])
    namespace, _, entry.name = entry.title.rpartition(".")
    if namespace not in TOGETHER:
        entry.page = namespace.removeprefix("torch.").replace(".", "_")
        return
    if entry.record is None and not isinstance(entry.function, type):
        record = records.get(entry.name)
        entry.record = record if record is not None and record.public else None
    module = _home(entry.function)
    parts = module.split(".")
    last = parts[-1] if parts[0] == "tensor" else parts[0]
    hand_written = PAGES.get(entry.title) or PAGES.get(module, last)
    entry.page = family(entry.record) if entry.record else hand_written


def _home(function: Any) -> str:
    """The module inside the package that a function is written in."""
    code = getattr(function, "__code__", None)
    if code is not None and code.co_filename.startswith(str(ROOT)):
        path = Path(code.co_filename).relative_to(ROOT / "flambeau").with_suffix("")
        return ".".join(part for part in path.parts if part != "__init__")
    return str(getattr(function, "__module__", "")).removeprefix("flambeau.")
