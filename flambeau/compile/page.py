"""`compiled.graph_html()`: programs as one page that needs nothing from outside.

Kernels stand in the order in which they run; neighbours of one module and pass are a group that
opens and closes. Arcs on the left are the memory that flows from one to another, the colour of a
row is the time it takes. The page is drawn by a few lines of script from the data within it.
"""

from __future__ import annotations

import json
import os
from importlib import resources
from typing import Any

from flambeau.compile.explain import explain, reports
from flambeau.compile.report import Report
from flambeau.serialization.files import replacing

__all__ = ["page"]


def page(compiled: Any, path: str | os.PathLike | None, times: bool) -> str:
    """The page's text, which is also written to `path`, if given."""
    name = getattr(compiled.function, "__qualname__", type(compiled.function).__name__)
    data = {"name": name, "programs": [_program(report) for report in reports(compiled, times)],
            "history": explain(compiled, False).split("\n\n")[0].splitlines()[1:]}
    # "<" is written so that no text can end the script
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    template = resources.files("flambeau.compile").joinpath("page.html").read_text("utf-8")
    html = template.replace("/*DATA*/null", text)
    if path is not None:
        content = html.encode()
        with replacing(path, len(content)) as file:
            file.write(content)
    return html


def _program(report: Report) -> dict[str, Any]:
    makers: dict[tuple[str, int], int] = {}
    rows = []
    for at, kernel in enumerate(report.kernels):
        sources = sorted({makers[name] for name in kernel.takes if name in makers})
        rows.append({
            "n": kernel.number, "family": kernel.family, "title": kernel.title,
            "ops": kernel.operations, "module": kernel.module, "stage": kernel.stage,
            "lines": kernel.lines, "read": kernel.read, "written": kernel.written,
            "us": None if kernel.seconds is None else round(kernel.seconds * 1e6, 2),
            "natives": kernel.natives, "listing": kernel.listing[:24], "from": sources})
        for name in kernel.makes:
            makers[name] = at
    return {"title": report.title, "signature": report.signature, "sizes": report.sizes,
            "fullest": report.fullest, "kernels": rows,
            "memory": [[p.nbytes, p.what, p.module, p.line]
                       for p in [*report.parts, *report.kept][:40]]}
