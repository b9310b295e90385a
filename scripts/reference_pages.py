"""The pages of docs/reference: what each operation does, its forms, its facts, an example."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Sequence

from entries import TOGETHER, Entry, entries, examples
from op_facts import GROUPS, facts
from op_signatures import signature

__all__ = ["anchor", "pages"]

HEAD = """# Reference

Every public operation, from the docstrings and records of the code: `scripts/make_docs.py` writes
these pages, do not edit them. `help(torch.sort)` shows the same text. The examples are run by
`tests/test_reference.py`, and `tests/conformance` runs them under PyTorch, which prints the same.

    import flambeau as torch
    F = torch.nn.functional

Each operation of the table (`docs/ops.md`) works inside of `torch.compile` and on tensors of any
layout; *derivatives* says how often it can be differentiated backwards, *tangents* whether forward
mode knows it, *vmap* whether a batch of calls is one call. Functions without these lines are made
of operations of the table.
"""

TITLES = {
    "bessel": "Bessel and error functions", "comparison": "Comparison, logic, bits",
    "conv": "Convolution and padding", "diagonals": "Diagonals, copies, scatters, joins",
    "distance": "Distances", "elementwise": "Elementwise mathematics", "index":
    "Indexing, gathering, scattering", "histogram": "Histograms", "loss": "Losses",
    "margin": "Losses with margins", "matmul": "Matrix products", "norm": "Normalization",
    "pool": "Pooling", "products": "Products of tensors", "quantize": "Quantization",
    "rearrange": "Channels and places", "reduce": "Reductions", "resample": "Resampling",
    "scan": "Cumulative operations", "sort": "Sorting and ranks", "special": "Special functions",
    "spectrogram": "Short-time Fourier transforms", "unpool": "Power pooling", "views": "Views",
    "activation": "Activations", "search": "Searching",
    "autocast": "Mixed precision", "autograd": "Gradients", "autograd_forward_ad": "Forward mode",
    "autograd_functional": "Gradients of functions", "autograd_graph": "The tape",
    "creation": "Creation of tensors", "dropout": "Dropout",
    "dtypes": "Types, devices, layouts", "fft": "Fourier transforms", "func": "Transforms",
    "legacy": "Native names", "linalg": "Linear algebra", "masked": "Masked operations",
    "nested": "Nested tensors", "serialization": "Runs that go on", "settings":
    "Settings, saving, compiling", "shaping": "Shapes, joins and pieces", "signal_windows":
    "Windows of torch.signal", "sparse": "Sparse tensors", "symbols": "Symbols and control flow",
    "tensor": "Methods and attributes of Tensor", "random": "Random numbers",
    "nn": "Recurrent layers as functions", "library": "Schemas and what TorchScript would need",
}
SECTION = re.compile(r"(Args|Raises|Returns|Attributes|Yields):$")


def pages() -> dict[str, str]:
    """The text of each page by its name."""
    found: dict[str, list[Entry]] = {}
    everything = entries()
    for entry in everything:
        found.setdefault(entry.page, []).append(entry)
    texts = {name: _page(name, found[name]) for name in sorted(found)}
    return {"README": _index(everything, found), **texts}


def anchor(title: str) -> str:
    """What Markdown makes of a heading."""
    return re.sub(r"[^\w-]", "", title.lower())


def _heading(page: str) -> str:
    if page in TITLES:
        return TITLES[page]
    words = page.replace("_", " ")
    return words[:1].upper() + words[1:]


def _page(name: str, found: Sequence[Entry]) -> str:
    known = name in {entry.record.body.__module__.rpartition(".")[2] for entry in found
                     if entry.record is not None}
    about = importlib.import_module(f"flambeau.ops.{name}").__doc__ if known else ""
    parts = [f"# {_heading(name)}"]
    if about:
        parts.append(_plain(inspect.cleandoc(about).split("\n\n")[0]))
    parts.append(" · ".join(f"[`{entry.name}`](#{anchor(entry.title)})" for entry in found))
    return "\n\n".join(parts + [_entry(entry) for entry in found]) + "\n"


def _entry(entry: Entry) -> str:
    said = entry.doc
    cut = said.find(">>> ")
    example = said[cut:] if examples(said) else ""
    said = said[:cut].strip() if example else said
    parts = [f"## {entry.title}", f"```python\n{_call(entry)}\n```", "\n".join(_markdown(said)),
             "  \n".join(_lines(entry))]
    if example:
        shown = example.replace("<BLANKLINE>", "")
        parts.append(f"```python\n{shown.rstrip()}\n```")
    return "\n\n".join(part for part in parts if part)


def _call(entry: Entry) -> str:
    """The operation's name as it is called."""
    shown, name = entry.forms[entry.title], entry.title
    if isinstance(shown, property):
        return name
    code = getattr(entry.function, "__code__", None)
    if entry.record is not None and code and code.co_filename.startswith("<flambeau op"):
        words = signature(entry.record, out=True)
        return f"{name}({words.partition(', ')[2] if name.startswith('Tensor.') else words})"
    try:
        params = list(inspect.signature(entry.function).parameters.values())
    except (TypeError, ValueError):
        return f"{name}(...)"
    if name.startswith("Tensor."):
        params = params[1:]
    bare = [p.replace(annotation=p.empty) for p in params]
    text = re.sub(r"<function (\w+) at 0x\w+>", r"\1", str(inspect.Signature(bare)))
    return name + re.sub(r"<[\w. ]+ at 0x\w+>", "...", text)  # a default that is only a mark


def _lines(entry: Entry) -> Iterator[str]:
    """The forms and the facts."""
    others = [form for form in entry.forms if form != entry.title]
    if others:
        yield "*also* " + ", ".join(f"`{form}`" for form in others)
    record = entry.record
    if record is None:
        return
    found = facts(record)
    if found.dtypes:
        everything = len(found.dtypes) == len(GROUPS) and set(found.dtypes) == set(GROUPS)
        yield "*dtypes* " + ("all" if everything else ", ".join(found.dtypes))
    orders = {0: "none", 1: "once", 2: "of any order"}[found.orders]
    shares = "; the result shares memory where it can" if record.kind == "view" else ""
    vmap = {"": "no", "yes": "yes", "one by one": "one by one"}[found.vmap]
    yield (f"*derivatives* {orders} · *tangents* {'yes' if found.forward else 'no'} · "
           f"*vmap* {vmap}{shares}")


def _markdown(text: str) -> Iterator[str]:
    """A docstring: its sections become lists."""
    inside = False
    for line in text.split("\n"):
        indent = len(line) - len(line.lstrip())
        if SECTION.match(line):
            inside = True
            yield f"**{line[:-1]}**\n"
        elif inside and line and indent == 0:
            inside = False
            yield "\n" + _plain(line)
        elif inside and indent == 4:
            name, colon, rest = line.strip().partition(": ")
            listed = colon and re.fullmatch(r"[\w*, ]+", name)
            yield f"- `{name}`: {_plain(rest)}" if listed else f"- {_plain(line.strip())}"
        elif indent >= 4 and not inside:
            yield line  # code
        else:
            yield ("  " if inside else "") + _plain(line.strip())


def _plain(text: str) -> str:
    """Text with what Markdown would take for its own escaped, outside of `code`."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*<])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def _index(everything: Sequence[Entry], found: dict[str, list[Entry]]) -> str:
    """All pages, then all names by namespace."""
    parts = [HEAD, "| page | operations |\n|---|---|\n" + "\n".join(
        f"| [{_heading(name)}]({name}.md) | {len(found[name])} |" for name in sorted(
            found, key=_heading))]
    names: dict[str, dict[str, str]] = {}
    for entry in everything:
        for form in entry.forms:
            namespace, _, name = form.rpartition(".")
            names.setdefault(namespace, {})[name] = f"{entry.page}.md#{anchor(entry.title)}"
    rest = sorted(set(names) - set(TOGETHER))
    for namespace in (*TOGETHER, *rest):
        listed = names[namespace]
        links = [f"[`{name}`]({listed[name]})" for name in sorted(listed)]
        parts.append(f"## {namespace}\n\n" + " · ".join(links))
    return "\n\n".join(parts) + "\n"
