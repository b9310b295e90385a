"""The memory in use over the time of a profile, as numbers or drawn."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence

__all__ = ["write_timeline"]

# As PyTorch's files have it: parameters, optimizer state, inputs, temporaries, activations,
# gradients, autograd's own, and the rest, after a column that is 0. The ledger tells totals alone.
_COLUMNS, _REST = 9, 8
_WIDTH, _HEIGHT, _MARGIN = 1000, 400, 60  # pixels


def write_timeline(path: str, points: Sequence[tuple[int, int]]) -> None:
    """Write what was in use after each operation.

    Args:
        path: .html is drawn; .raw.json.gz has [nanoseconds, bytes] of each operation; others (.gz
            compressed) have [microseconds, rows], a row of bytes by category for each moment.
        points: (nanoseconds, bytes).
    """
    if path.endswith(".html"):
        _write(path, _page(points).encode())
    elif path.endswith(".raw.json.gz"):
        _write(path, gzip.compress(json.dumps([list(point) for point in points]).encode()))
    else:
        rows = [[0] * _COLUMNS for _ in points]
        for row, (_, nbytes) in zip(rows, points, strict=True):
            row[_REST] = nbytes
        data = json.dumps([[at // 1000 for at, _ in points], rows]).encode()
        _write(path, gzip.compress(data) if path.endswith(".gz") else data)


def _write(path: str, data: bytes) -> None:
    """Replace a file in one piece."""
    with open(path + ".partial", "wb") as file:
        file.write(data)
    os.replace(path + ".partial", path)


def _page(points: Sequence[tuple[int, int]]) -> str:
    """A page with a curve of steps; the largest value is named."""
    points = points or [(0, 0)]
    first, last = points[0][0], points[-1][0]
    peak = max(nbytes for _, nbytes in points)
    corners = [f"{_MARGIN},{_HEIGHT}"]
    y = _HEIGHT
    for at, nbytes in points:
        x = _MARGIN + (at - first) / max(last - first, 1) * (_WIDTH - _MARGIN)
        corners.append(f"{x:.1f},{y:.1f}")
        y = _HEIGHT - nbytes / max(peak, 1) * (_HEIGHT - 20)
        corners.append(f"{x:.1f},{y:.1f}")
    corners += [f"{_WIDTH},{y:.1f}", f"{_WIDTH},{_HEIGHT}"]
    return f"""<!doctype html>
<html><head><meta charset="utf-8"><title>Memory in use</title></head><body>
<h1>Memory in use: at most {peak / 2**20:.2f} MiB in {(last - first) / 1e6:.2f} ms</h1>
<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 30}" font-family="sans-serif" font-size="12">
<polygon points="{' '.join(corners)}" fill="#4c78a8"/>
<text x="0" y="30">{peak / 2**20:.2f} MiB</text><text x="0" y="{_HEIGHT}">0</text>
<text x="{_MARGIN}" y="{_HEIGHT + 20}">0 ms</text>
<text x="{_WIDTH - 60}" y="{_HEIGHT + 20}">{(last - first) / 1e6:.2f} ms</text>
</svg></body></html>
"""
