"""The import layers and cycles: imports go strictly downward.

`LAYERS` is the only place that defines them, from the lowest to the highest; packages that share a
layer may import one another as long as no cycle closes. An import inside a function counts like any
other, unless `LAZY` gives its reason. Imports under `if TYPE_CHECKING:` do not count: they never
run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

import grimp

PACKAGE = "flambeau"

# "" is flambeau/__init__.py, the table of public names: what users import may be written against
# it, so it may itself import nothing above tensor; it reaches further by name, when a name is asked
# for.
LAYERS: tuple[frozenset[str], ...] = tuple(map(frozenset, (
    {"core"},
    {"ir"},
    {"ops"},
    {"compiler"},
    {"runtime"},
    {"autograd"},
    {"tensor"},
    {""},
    {"nn", "optim", "utils", "compile", "serialization", "amp", "distributions", "func",
     "linalg", "masked", "special", "random", "cpu", "cuda", "accelerator", "backends",
     "testing", "types", "fft", "signal", "sparse", "storage", "nested", "multiprocessing",
     "library", "overrides", "futures", "return_types", "_C"},
    {"jit", "export", "onnx", "hub", "vision", "distributed", "profiler", "compat"},
    {"cli", "__main__"},
)))

# (importer, imported) -> why this upward import may exist. Each one should be inside a function.
LAZY: dict[tuple[str, str], str] = {
}


def part_of(module: str, package: str = PACKAGE) -> str:
    """The package below the root that a module belongs to: "flambeau.nn.functional" -> "nn"."""
    return module.removeprefix(package).lstrip(".").partition(".")[0]


def levels(layers: Iterable[frozenset[str]]) -> dict[str, int]:
    """The height of every part."""
    return {part: height for height, parts in enumerate(layers) for part in parts}


def edges(graph: grimp.ImportGraph) -> Iterator[tuple[str, str]]:
    """Every (importer, imported) pair inside the package."""
    for importer in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            yield importer, imported


def where(graph: grimp.ImportGraph, importer: str, imported: str) -> str:
    """The first line that makes the import, as a place and its text."""
    details = graph.get_import_details(importer=importer, imported=imported)
    if not details:
        return f"{importer} imports {imported}"
    return f"{importer}:{details[0]['line_number']}: {details[0]['line_contents'].strip()}"


def upward_imports(graph: grimp.ImportGraph, layers: tuple[frozenset[str], ...],
                   lazy: dict[tuple[str, str], str], package: str) -> list[str]:
    """The imports that go up, the parts without a layer, and the exceptions needed no more."""
    height = levels(layers)
    unknown = sorted({part_of(module, package) for module in graph.modules} - height.keys())
    found = [f"{package}.{part} has no layer in scripts/check_layers.py" for part in unknown]
    unused = set(lazy)
    for importer, imported in edges(graph):
        low, high = part_of(importer, package), part_of(imported, package)
        if low == high or low in unknown or high in unknown or height[low] >= height[high]:
            continue
        if (importer, imported) in lazy:
            unused.discard((importer, imported))
        else:
            found.append(f"upward: {where(graph, importer, imported)}")
    found += [f"LAZY lists {pair}, which no longer exists" for pair in sorted(unused)]
    return found


def cycles(pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    """The strongly connected components of more than one node (Tarjan 1972)."""
    successors: dict[str, list[str]] = {}
    for importer, imported in pairs:
        successors.setdefault(importer, []).append(imported)
        successors.setdefault(imported, [])
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for successor in successors[node]:
            if successor not in index:
                visit(successor)
                low[node] = min(low[node], low[successor])
            elif successor in stack:
                low[node] = min(low[node], index[successor])
        if low[node] == index[node]:
            component = stack[stack.index(node):]
            del stack[stack.index(node):]
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(successors):
        if node not in index:
            visit(node)
    return sorted(found)


def violations(package: str = PACKAGE, layers: tuple[frozenset[str], ...] = LAYERS,
               lazy: dict[tuple[str, str], str] | None = None) -> list[str]:
    """Everything wrong with the imports of `package`, one line each; it must be importable."""
    lazy = LAZY if lazy is None else lazy
    graph = grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)
    counted = [pair for pair in edges(graph) if pair not in lazy]
    found = upward_imports(graph, layers, lazy, package)
    found += [f"modules in a cycle: {', '.join(group)}" for group in cycles(counted)]
    parts = [(part_of(low, package), part_of(high, package)) for low, high in counted]
    between = [(low, high) for low, high in parts if low != high]
    found += [f"packages in a cycle: {', '.join(group)}" for group in cycles(between)]
    return found


def main() -> int:
    """Print the violations; returns 1 if there are any."""
    found = violations()
    for line in found:
        print(f"   {line}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
