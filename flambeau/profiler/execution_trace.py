"""Execution traces: every launch with the tensors it read and made, as a JSON file of a graph.

The form is PyTorch's ("schema 1.1.1"): nodes with a name, the node that they lie in, and their
inputs and outputs by value, shape, type and strides. A tensor is [id, storage id, offset, elements,
bytes of an element, device]; here both ids follow from its address, so that who reads what was
made where can be told. Views compute nothing and are no nodes; a compiled program is one node.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import time
import warnings
from typing import Any

from flambeau.profiler.collecting import Collector, Raw
from flambeau.tensor import launches

__all__ = ["ExecutionTraceObserver"]

SCHEMA = "1.1.1-chakra.0.0.4"
_TYPES = {"float32": "float", "float64": "double", "float16": "c10::Half", "int64": "long int",
          "bfloat16": "c10::BFloat16", "int32": "int", "int16": "short int", "int8": "signed char",
          "uint8": "unsigned char", "bool": "bool", "complex64": "c10::complex<float>",
          "complex128": "c10::complex<double>"}
_SCOPES = {"cpu_op": 0, "user_annotation": 7}


class ExecutionTraceObserver:
    """Writes what runs between `start` and `stop` to a file.

        observer = ExecutionTraceObserver().register_callback("trace.json")
        observer.start()
        step()
        observer.stop()
        observer.unregister_callback()  # the file is complete

    `profile(execution_trace_observer=observer)` starts and stops it with the profile's steps.
    """

    def __init__(self) -> None:
        self.output_file_path = ""
        self.extra_resources_collection = False
        self._registered = False
        self._collector: Collector | None = None
        self._nodes: list[dict[str, Any]] = []
        self._times = [0, 0]

    def __del__(self) -> None:
        self.unregister_callback()

    @staticmethod
    def build_execution_trace_obs_from_env() -> ExecutionTraceObserver | None:
        """An observer that writes to a new temporary file, if ENABLE_PYTORCH_EXECUTION_TRACE is 1;
        else None."""
        if os.environ.get("ENABLE_PYTORCH_EXECUTION_TRACE", "0") != "1":
            return None
        handle, path = tempfile.mkstemp(suffix=".et.json")
        os.close(handle)
        made = ExecutionTraceObserver().register_callback(path)
        made.set_extra_resource_collection(
            os.environ.get("ENABLE_PYTORCH_EXECUTION_TRACE_EXTRAS", "0") == "1")
        return made

    def set_extra_resource_collection(self, val: bool) -> None:
        """Accepted: there are no other resources, kernels are made from the program alone."""
        self.extra_resources_collection = val

    def get_resources_dir(self, can_create: bool = False) -> str | None:
        """Where other resources are: nowhere."""
        return None

    def register_callback(self, output_file_path: str) -> ExecutionTraceObserver:
        """Choose the file (compressed if its name ends in .gz). Itself."""
        if not self._registered:
            self.output_file_path = os.fspath(output_file_path)
            self._registered = True
        return self

    def unregister_callback(self) -> None:
        """Write the file; nothing is watched any more."""
        if not getattr(self, "_registered", False):
            return
        self.stop()
        self._registered = False
        opened = gzip.open if self.output_file_path.endswith(".gz") else open
        try:
            with opened(self.output_file_path, "wt", encoding="utf-8") as file:
                json.dump(self._trace(), file, indent=1)
        except OSError as error:
            warnings.warn(f"the execution trace could not be written: {error}", stacklevel=2)

    cleanup = unregister_callback

    @property
    def is_registered(self) -> bool:
        """Has it a file?"""
        return self._registered

    def is_running(self) -> bool:
        """Does it watch?"""
        return self._collector is not None

    def get_output_file_path(self) -> str | None:
        """The file; None if there is none."""
        return self.output_file_path or None

    def start(self) -> None:
        """Begin to watch, if there is a file to write to."""
        if self._registered and self._collector is None:
            self._collector = Collector(with_arguments=True)
            self._collector.start()

    def stop(self) -> None:
        """Stop watching for now."""
        collector, self._collector = self._collector, None
        if collector is not None:
            collector.stop()
            self._times = [self._times[0] or collector.began, collector.ended]
            self._nodes += _nodes_of(collector.raw, len(self._nodes) + 2)

    def _trace(self) -> dict[str, Any]:
        process = {"id": 1, "name": "[pytorch|profiler|execution_trace|process]", "ctrl_deps": 1,
                   "inputs": _described([]), "outputs": _described([]), "attrs": []}
        return {"schema": SCHEMA, "pid": os.getpid(),
                "time": time.strftime("%Y-%m-%d %H:%M:%S"), "start_ts": self._times[0] // 1000,
                "nodes": [process, *self._nodes], "finish_ts": self._times[1] // 1000}


def _nodes_of(raw: list[Raw], first: int) -> list[dict[str, Any]]:
    """A node for each range and launch, numbered from `first`; it stands in the range that it lies
    in, or in the process (1)."""
    parents = [1] * len(raw)
    around: list[int] = []
    for place in sorted(range(len(raw)), key=lambda i: (raw[i].thread, raw[i].start, -raw[i].end)):
        while around and (raw[around[-1]].thread != raw[place].thread
                          or raw[around[-1]].end < raw[place].end):
            around.pop()
        if around:
            parents[place] = first + around[-1]
        if raw[place].kind == "user_annotation":
            around.append(place)
    return [_node(item, first + place, parents[place]) for place, item in enumerate(raw)]


def _node(item: Raw, number: int, parent: int) -> dict[str, Any]:
    launch = item.detail if isinstance(item.detail, launches.Launch) else None
    inputs, outputs = [], []
    if launch is not None:
        inputs = list(zip(item.given, launch.metas, strict=False))
        outputs = list(zip(item.given[len(launch.metas):], launch.metas_out, strict=False))
    values = {"rf_id": number, "fw_parent": 0, "seq_id": -1, "scope": _SCOPES[item.kind],
              "tid": item.thread, "fw_tid": 0, "start_ns": item.start, "end_ns": item.end}
    attrs = [{"name": name, "type": "int64" if name == "seq_id" else "uint64", "value": value}
             for name, value in values.items()]
    attrs.append({"name": "op_schema", "type": "string", "value": ""})
    name = item.name if item.kind == "user_annotation" else f"aten::{item.name}"
    return {"id": number, "name": name, "ctrl_deps": parent, "inputs": _described(inputs),
            "outputs": _described(outputs), "attrs": attrs}


def _described(arguments: list) -> dict[str, list]:
    """(value, layout or type of a number) pairs as four lists."""
    found: dict[str, list] = {"values": [], "shapes": [], "types": [], "strides": []}
    for value, meta in arguments:
        number = isinstance(meta, type)
        size = 0 if number else meta.dtype.itemsize
        found["values"].append(value if number else [value, value, 0, meta.numel, size,
                                                     str(meta.device)])
        found["shapes"].append([] if number else list(meta.shape))
        found["strides"].append([] if number else list(meta.strides))
        found["types"].append(
            {float: "Double", bool: "Bool"}.get(meta, "Int") if number else
            f"Tensor({_TYPES.get(meta.dtype.name, meta.dtype.name)})")
    return found
