"""Loop nests as code: one idea a file, from a line's value to whole sweeps.

`access` addresses memory, `lines` gives each line of a canonical sweep its value, `sweep` runs
lanes over a loop; `maps`, `tiles`, `sums` and `scans` are the four ways of walking a domain.
Nothing here sees a size: see `codegen`, which puts sweeps together into kernels.
"""

__all__: list[str] = []
