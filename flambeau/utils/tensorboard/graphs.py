"""What TensorBoard draws as a graph: a module's operations, or those of an ONNX file.

A module is run once while each call of a function that takes or gives tensors is noted: what it
read, the module that it stands in, the shapes it gave and the time it took (with that of compiling
kernels at first calls). Compiled modules stay opaque: their programs call no functions.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from flambeau.autograd.grad_mode import no_grad
from flambeau.overrides import TorchFunctionMode
from flambeau.tensor import Tensor
from flambeau.utils.tensorboard.messages import message, parsed

__all__ = ["graph_of_module", "graph_of_onnx"]

_PRODUCER = 22  # the version of the format


# -- messages -------------------------------------------------------------------------------------

def _shape(sizes: Any) -> bytes:
    return message((2, [message((1, int(size))) for size in sizes]))


def node(name: str, op: str, inputs: list[str], about: str = "",
         shapes: list[tuple] | None = None) -> bytes:
    """A NodeDef; `about` is the text shown as its attributes, `shapes` those of its results."""
    attributes = [("attr", message((2, about)))]
    if shapes is not None:
        attributes.append(("_output_shapes", message((1, message((7, list(map(_shape, shapes))))))))
    entries = [message((1, key), (2, value)) for key, value in attributes]
    return message((1, name), (2, op), (3, list(inputs)), (5, entries))


def _graph(nodes: list[bytes]) -> bytes:
    return message((1, nodes), (4, message((1, _PRODUCER))))


def _statistics(times: Mapping[str, tuple[int, int]]) -> bytes:
    """RunMetadata with the microseconds of each node: (begin, length)."""
    rows = [message((1, name), (2, begin), (5, length)) for name, (begin, length) in times.items()]
    return message((1, message((1, message((1, "/device:CPU:0"), (2, rows))))))


# -- modules --------------------------------------------------------------------------------------

class _Watch(TorchFunctionMode):
    """Notes each call of a function that a thread makes, outside of other such calls."""

    def __init__(self, drawing: _Drawing) -> None:
        super().__init__()
        self.drawing = drawing

    def __torch_function__(self, func: Any, types: Any, args: tuple = (),
                           kwargs: dict | None = None) -> Any:
        begin = time.perf_counter_ns()
        result = func(*args, **(kwargs or {}))
        self.drawing.note(getattr(func, "__name__", type(func).__name__), (args, kwargs or {}),
                          result, begin, time.perf_counter_ns() - begin)
        return result


class _Drawing:
    """The nodes of a run.

    Args:
        model: the module that runs.
    """

    def __init__(self, model: Any):
        self.root = type(model).__name__
        self.paths = {id(part): path for path, part in model.named_modules()}
        self.kinds = {path: type(part).__name__ for path, part in model.named_modules()}
        self.state = {id(value): name for name, value in (*model.named_parameters(),
                                                          *model.named_buffers())}
        self.names: dict[int, str] = {}  # of the node that made a tensor
        self.kept: list[Any] = []  # tensors, so that their identity stays theirs
        self.scopes: list[str] = []
        self.used: dict[str, int] = {}
        self.nodes: list[bytes] = []
        self.times: dict[str, tuple[int, int]] = {}

    def scope_of(self, path: str) -> str:
        """A module's name in the graph: "Net/Sequential[layers]/Linear[0]"."""
        parts, at = [self.root], ""
        for part in path.split(".") if path else ():
            at = f"{at}.{part}" if at else part
            parts.append(f"{self.kinds.get(at, '')}[{part}]")
        return "/".join(parts)

    def unique(self, name: str) -> str:
        """A name that no node has."""
        count = self.used[name] = self.used.get(name, 0) + 1
        return name if count == 1 else f"{name}_{count - 1}"

    def add(self, name: str, op: str, inputs: list[str], about: str, tensors: list[Any]) -> str:
        """A node, which makes these tensors."""
        name = self.unique(name)
        shapes = [tuple(each.shape) for each in tensors] if tensors else None
        self.nodes.append(node(name, op, inputs, about, shapes))
        self.names.update((id(each), name) for each in tensors)
        self.kept += tensors
        return name

    def name_of(self, tensor: Any) -> str:
        """The node that made a tensor; state, and tensors of unknown origin, become nodes."""
        if id(tensor) not in self.names:
            name = self.state.get(id(tensor))
            if name is None:
                scope = self.scopes[-1] if self.scopes else self.root
                return self.add(f"{scope}/constant", "Constant", [], repr(tensor.dtype), [tensor])
            owner, _, short = name.rpartition(".")
            self.add(f"{self.scope_of(owner)}/{short}", "Parameter", [], repr(tensor.dtype),
                     [tensor])
        return self.names[id(tensor)]

    def note(self, name: str, arguments: Any, result: Any, begin: int, length: int) -> None:
        """A call is done."""
        results = list(_tensors(result))
        if not results:
            return
        inputs = [self.name_of(tensor) for tensor in _tensors(arguments)]
        scope = self.scopes[-1] if self.scopes else self.root
        about = ", ".join([*map(_short, arguments[0]), *(
            f"{key}={_short(value)}" for key, value in arguments[1].items())])
        made = self.add(f"{scope}/{name}", f"aten::{name}", inputs, about, results)
        self.times[made] = begin // 1000, max(length // 1000, 1)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Follow which module runs."""
        def begin(module: Any, args: Any) -> None:
            path = self.paths.get(id(module))
            self.scopes.append(self.scope_of(path) if path is not None else self.scopes[-1])

        def end(module: Any, args: Any, output: Any) -> None:
            self.scopes.pop()
        hooks = _modules()
        handles = (hooks.register_module_forward_pre_hook(begin),
                   hooks.register_module_forward_hook(end, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _modules() -> Any:
    """`flambeau.nn`'s module of modules, which itself uses this package's helpers."""
    return importlib.import_module("flambeau.nn.modules.module")


def _tensors(value: Any) -> Iterator[Any]:
    """The tensors in nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, list | tuple):
        text = f"[{', '.join(map(_short, value))}]"
    else:
        text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def graph_of_module(model: Any, inputs: Any) -> tuple[bytes, bytes, str]:
    """(GraphDef, RunMetadata, the nodes as text) of one run of a module, without gradients.

    Args:
        inputs: its argument, or a tuple of them.

    Raises:
        TypeError: no module.
    """
    if not isinstance(model, _modules().Module):
        raise TypeError(f"add_graph: a torch.nn.Module is expected, got {type(model).__name__}")
    arguments = tuple(inputs) if isinstance(inputs, list | tuple) else (inputs,)
    arguments = () if inputs is None else arguments
    drawing = _Drawing(model)
    for number, tensor in enumerate(_tensors(arguments)):
        drawing.add(f"input/{number}", "IO Node", [], repr(tensor.dtype), [tensor])
    with no_grad(), drawing.inside(), _Watch(drawing):
        result = model(*arguments)
    for number, tensor in enumerate(_tensors(result)):
        origin = drawing.name_of(tensor)
        drawing.nodes.append(node(f"output/{number}", "IO Node", [origin], repr(tensor.dtype),
                                  [tuple(tensor.shape)]))
    return _graph(drawing.nodes), _statistics(drawing.times), "\n".join(drawing.used)


# -- ONNX -----------------------------------------------------------------------------------------

def graph_of_onnx(path: str | os.PathLike) -> bytes:
    """The GraphDef of an ONNX file.

    Raises:
        ValueError: the file is no ONNX model.
    """
    with open(path, "rb") as file:
        graph = parsed(file.read()).get(7, [b""])[0]  # ModelProto.graph
    if not isinstance(graph, bytes) or not graph:
        raise ValueError(f"{os.fspath(path)} is no ONNX model: it has no graph")
    fields = parsed(graph)
    nodes = [node(*_onnx_value(value)) for value in fields.get(11, [])]
    nodes += [node(_text(parsed(tensor), 8), "Parameter", [], "", [tuple(_dimensions(tensor))])
              for tensor in fields.get(5, [])]
    for data in fields.get(1, []):
        entry = parsed(data)
        outputs = [_decoded(each) for each in entry.get(2, [])]
        names = ", ".join(_text(parsed(each), 1) for each in entry.get(5, []))
        inputs = [_decoded(each) for each in entry.get(1, []) if each]
        for output in outputs:
            nodes.append(node(output, _text(entry, 4), inputs, names))
    for value in fields.get(12, []):
        name, op, _, about, shapes = _onnx_value(value)
        nodes.append(node(f"output/{name}", op, [name], about, shapes))
    return _graph(nodes)


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _text(fields: dict, number: int) -> str:
    return _decoded(fields.get(number, [b""])[0])


def _dimensions(tensor: bytes) -> list[int]:
    """TensorProto.dims, packed or one by one."""
    found = parsed(tensor).get(1, [])
    return [size for each in found for size in (_varints(each) if isinstance(each, bytes)
                                                else [each])]


def _varints(data: bytes) -> list[int]:
    values, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            values.append(value)
            value = shift = 0
    return values


def _onnx_value(data: bytes) -> tuple[str, str, list, str, list[tuple]]:
    """(name, op, inputs, text, shapes) of a ValueInfoProto."""
    fields = parsed(data)
    kind = parsed(parsed(fields.get(2, [b""])[0]).get(1, [b""])[0])
    sizes = [parsed(dim).get(1, [-1])[0] for dim in parsed(kind.get(2, [b""])[0]).get(1, [])]
    return _text(fields, 1), "IO Node", [], f"type {kind.get(1, [0])[0]}", [tuple(sizes)]
