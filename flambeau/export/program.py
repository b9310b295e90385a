"""`ExportedProgram`: a captured forward, its state and its signature."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import flambeau
from flambeau.compile.compiled import Compiled
from flambeau.compile.recording import Recording
from flambeau.compile.stance import enter, leave
from flambeau.compile.trees import flatten
from flambeau.export.shapes import Dim, Size, check, spread
from flambeau.ir.graph import Graph
from flambeau.nn.modules.module import Module

__all__ = ["ExportGraphSignature", "ExportedProgram", "build"]


@dataclass
class ExportGraphSignature:
    """What the inputs and results of a program are.

    Attributes:
        inputs: for each input of the graph: "parameter weight", "buffer mean", "input 0",
            "constant 0".
        parameters, buffers: names of those that the program reads or writes.
        user_inputs: numbers of the tensors among the arguments that it reads.
        user_outputs: how many tensors it returns.
        buffers_to_mutate: names of the buffers that it writes to.
    """

    inputs: list[str]
    parameters: list[str] = field(default_factory=list)
    buffers: list[str] = field(default_factory=list)
    user_inputs: list[int] = field(default_factory=list)
    user_outputs: int = 0
    buffers_to_mutate: list[str] = field(default_factory=list)


class ExportedModule(Module):
    """`ExportedProgram.module()`: runs the program. Its parameters and buffers are those of the
    module that was exported, under the same names."""

    def __init__(self, program: ExportedProgram, module: Module):
        super().__init__()
        for table in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            self.__dict__[table] = module.__dict__[table]
        self.__dict__["_program"] = program

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the exported module computes, for arguments that fit the export."""
        return self.__dict__["_program"].run(args, kwargs)

    def train(self, mode: bool = True) -> ExportedModule:
        """Not possible: the program was captured in one of the modes."""
        raise NotImplementedError("Calling train() or eval() is not supported for an exported "
                                  "program: call it on the module before the export.")

    def eval(self) -> ExportedModule:
        """See `train`."""
        return self.train(False)


class ExportedProgram:
    """What `torch.export.export` gives.

    Other sizes, where `dynamic_shapes` allows them, run the module's own code again to be captured.

    Attributes:
        graph: the operations; `print` shows them.
        graph_signature: what its inputs and results are.
        example_inputs: (args, kwargs) of the export.
        range_constraints: (min, max) of every named size that may vary.
    """

    def __init__(self, module: Module, compiled: Compiled, recording: Recording, example: tuple,
                 sizes: list[list[Size]]):
        self._module, self._compiled, self._sizes = module, compiled, sizes
        self._leaves: list = []
        self._key = flatten(example, self._leaves)
        self.graph: Graph = recording.graph
        self.graph_signature = _signature(module, recording)
        self.example_inputs = example
        self.range_constraints = {
            size.rule.name: (size.rule.min, size.rule.max)
            for rules in sizes for size in rules if isinstance(size.rule, Dim)}

    def module(self, check_guards: bool = True) -> ExportedModule:
        """A module that runs the program."""
        return ExportedModule(self, self._module)

    def run(self, args: tuple, kwargs: dict) -> Any:
        """The result for arguments that fit the export; RuntimeError for others."""
        leaves: list = []
        if flatten((args, kwargs), leaves) != self._key:
            raise RuntimeError("the arguments differ from the exported ones in their structure, or "
                               "in a value that is no tensor")
        check(self._sizes, leaves, self._leaves)
        enter("export")  # where it is captured again, Python takes the same ways
        try:
            return self._compiled(*args, **kwargs)
        finally:
            leave()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("Unable to call ExportedProgram directly. You should use "
                           "`exported_program.module()` instead.")

    def explain(self) -> str:
        """The compiled programs, in plain words."""
        return self._compiled.explain()

    @property
    def state_dict(self) -> dict[str, Any]:
        """The parameters and persistent buffers, by name."""
        return self._module.state_dict()

    def parameters(self) -> Iterator[Any]:
        """The parameters of the module."""
        return self._module.parameters()

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        """The parameters of the module with their names."""
        return self._module.named_parameters()

    def buffers(self) -> Iterator[Any]:
        """The buffers of the module."""
        return self._module.buffers()

    def named_buffers(self) -> Iterator[tuple[str, Any]]:
        """The buffers of the module with their names."""
        return self._module.named_buffers()

    @property
    def graph_module(self) -> Any:
        raise NotImplementedError("ExportedProgram.graph_module: there is no torch.fx. Print "
                                  "`ep.graph` to read the operations, call `ep.module()` to run "
                                  "them.")

    def run_decompositions(self, decomp_table: Any = None) -> ExportedProgram:
        """Itself: a graph holds primitives only."""
        return self

    def __str__(self) -> str:
        signature = self.graph_signature
        lines = [f"ExportedProgram of {type(self._module).__name__}"]
        lines += [f"  %{i}: {name}" for i, name in enumerate(signature.inputs)]
        return "\n".join([*lines, str(self.graph)])


def build(module: Module, args: tuple, kwargs: dict, dynamic_shapes: Any) -> ExportedProgram:
    """Capture the module's forward."""
    sizes = spread(module.forward, args, kwargs, dynamic_shapes)
    moving = any(size.rule is not None for rules in sizes for size in rules)
    compiled = Compiled(module, fullgraph=True, dynamic=moving)
    compiled.recordings = recordings = []
    enter("export")
    try:
        with flambeau.no_grad():
            compiled(*args, **kwargs)
            if not recordings:  # the first run made state, as lazy modules do
                compiled(*args, **kwargs)
    finally:
        leave()
        compiled.recordings = None
    if not recordings:
        raise RuntimeError("torch.export.export: the module leaves new state behind in every call\n"
                           + compiled.explain())
    return ExportedProgram(module, compiled, recordings[-1], (args, kwargs), sizes)


def _signature(module: Module, recording: Recording) -> ExportGraphSignature:
    parameters = {id(p): name for name, p in module.named_parameters()}
    buffers = {id(b): name for name, b in module.named_buffers()}
    signature = ExportGraphSignature([], user_outputs=len(recording.outputs))
    constants = 0
    written = {memory.initial for memory in recording.updates}
    for value, tensor, spot in recording.inputs:
        if spot.__class__ is int:
            signature.inputs.append(f"input {spot}")
            signature.user_inputs.append(spot)
        elif id(tensor) in parameters:
            signature.parameters.append(parameters[id(tensor)])
            signature.inputs.append(f"parameter {parameters[id(tensor)]}")
        elif id(tensor) in buffers:
            name = buffers[id(tensor)]
            signature.buffers.append(name)
            signature.inputs.append(f"buffer {name}")
            if value in written:
                signature.buffers_to_mutate.append(name)
        else:
            signature.inputs.append(f"constant {constants}")
            constants += 1
    return signature
