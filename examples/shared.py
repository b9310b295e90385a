"""What the examples share: their options, a progress bar, text and images to learn from, pictures.

Each example is a script that trains a small model on what ships with Python or what it draws:

    python examples/char_gpt.py                      # import flambeau as torch
    python examples/char_gpt.py --framework torch    # import torch: the same losses
    python examples/char_gpt.py --compile            # the step as one compiled program
    python examples/char_gpt.py --double             # in float64, where rounding hardly grows

It prints losses, shows a progress bar on a terminal, and writes a picture at the end.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from flambeau.cli.progress import progress
from flambeau.utils.tensorboard.images import grid, png

__all__ = ["Run", "curve", "documentation", "endless", "save_grid", "save_picture", "shapes",
           "start"]


class Run:
    """One run: options, and the losses so far.

    Attributes:
        torch: the framework.
        steps, seed: how long, and from which seed.
        picture: where the picture goes.
        losses: of all steps.
    """

    def __init__(self, torch: ModuleType, options: argparse.Namespace, picture: Path) -> None:
        self.torch, self.picture = torch, picture
        self.steps, self.seed, self.quiet = options.steps, options.seed, options.quiet
        self._compile = options.compile
        self.losses: list[float] = []

    def compiled(self, step: Callable) -> Callable:
        """The step as it shall run."""
        return self.torch.compile(step) if self._compile else step

    def train(self, step: Callable[[], Any], label: str) -> None:
        """Call `step()`, which gives the loss, as often as wanted."""
        bar = progress(label, self.steps)
        for number in range(1, self.steps + 1):
            loss = float(step())
            self.losses.append(loss)
            bar.set_postfix_str(f"loss {loss:.4f}")
            bar.update()
            if not self.quiet:
                print(f"step {number} loss {loss:.9g}", flush=True)
        bar.close()


def start(title: str, steps: int) -> Run:
    """Read the options of an example that trains for `steps` steps unless told otherwise."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--framework", default="flambeau", help="flambeau (default) or torch")
    parser.add_argument("--compile", action="store_true", help="run torch.compile(step)")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--double", action="store_true", help="compute in float64")
    parser.add_argument("--quiet", action="store_true", help="print no losses")
    parser.add_argument("--picture", type=Path, default=None, help="the PNG file to write")
    options = parser.parse_args()
    torch = importlib.import_module(options.framework)
    if options.double:
        torch.set_default_dtype(torch.float64)
    torch.manual_seed(options.seed)
    name = Path(importlib.import_module("__main__").__file__).stem
    return Run(torch, options, options.picture or Path(f"{name}.png"))


# ---------------------------------------------------------------------- data
def documentation(characters: int = 300_000) -> str:
    """English text: the help topics of Python, which ship with it."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))[:characters]


def shapes(count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Drawn images (count, 3, size, size) in [0, 1] and their classes: disc, square, triangle,
    cross, ring; place, size and colours vary."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    images = np.empty((count, 3, size, size), np.float32)
    kinds = rng.integers(0, 5, count)
    for i, kind in enumerate(kinds):
        radius = rng.uniform(0.2, 0.4) * size
        y, x = rng.uniform(radius, size - radius, 2)
        mask = _mask(kind, rows - y, columns - x, radius)
        ink, paper = rng.uniform(0.5, 1.0, 3), rng.uniform(0.0, 0.4, 3)
        images[i] = np.where(mask, ink[:, None, None], paper[:, None, None])
    images += rng.normal(0, 0.03, images.shape).astype(np.float32)
    return images.clip(0, 1), kinds.astype(np.int64)


def endless(loader: Iterable) -> Iterator:
    """The batches of one pass after another."""
    while True:
        yield from loader


def _mask(kind: int, dy: np.ndarray, dx: np.ndarray, radius: float) -> np.ndarray:
    distance = np.hypot(dy, dx)
    if kind == 0:
        return distance < radius
    if kind == 1:
        return np.maximum(abs(dy), abs(dx)) < radius * 0.8
    if kind == 2:
        return (dy < radius * 0.6) & (dy > 2 * abs(dx) - radius)
    if kind == 3:
        return (np.minimum(abs(dy), abs(dx)) < radius * 0.25) & (distance < radius)
    return (distance < radius) & (distance > radius * 0.6)


# ---------------------------------------------------------------------- pictures
def save_picture(run: Run, pixels: np.ndarray) -> None:
    """Write (height, width, 3) values in [0, 1]."""
    data = (np.asarray(pixels, np.float32).clip(0, 1) * 255).astype(np.uint8)
    run.picture.write_bytes(png(np.ascontiguousarray(data)))
    print(f"picture: {run.picture}")


def save_grid(run: Run, images: Any, columns: int = 8, zoom: int = 1) -> None:
    """Write images (n, 1 or 3, height, width) in [0, 1] side by side."""
    array = np.asarray(images.detach() if hasattr(images, "detach") else images, np.float32)
    array = np.broadcast_to(array, (array.shape[0], 3, *array.shape[2:])).transpose(0, 2, 3, 1)
    framed = np.pad(array, ((0, 0), (1, 1), (1, 1), (0, 0)))
    save_picture(run, np.kron(grid(framed, columns), np.ones((zoom, zoom, 1), np.float32)))


def curve(run: Run, values: Sequence[float] | None = None) -> None:
    """Write the losses (or other values) as a curve, with a running mean."""
    values = np.asarray(run.losses if values is None else values, np.float64)
    width, height, margin = 640, 360, 20
    canvas = np.ones((height, width, 3), np.float32)
    low, high = float(values.min()), float(values.max())
    window = max(1, len(values) // 20)
    mean = np.convolve(np.pad(values, (window - 1, 0), "edge"), np.ones(window) / window, "valid")
    for series, colour in ((values, (0.75, 0.8, 0.95)), (mean, (0.1, 0.25, 0.7))):
        across = np.linspace(margin, width - margin - 1, 4 * width)
        at = np.interp(across, np.linspace(margin, width - margin - 1, len(series)), series)
        down = margin + (high - at) / max(high - low, 1e-12) * (height - 2 * margin - 1)
        for shift in (0, 1):
            canvas[down.astype(int) + shift, across.astype(int)] = colour
    canvas[height - margin, margin:width - margin] = canvas[margin:height - margin, margin] = 0.3
    save_picture(run, canvas)
