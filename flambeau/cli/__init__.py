"""The `flambeau` command: argument parsing, messages, and the demo recipe. No engine lives here.

The highest layer: it may import everything, nothing may import it. Modules import the framework
inside functions, so that `flambeau --help` and a mistyped option answer at once.
"""

from __future__ import annotations

__all__: list[str] = []
