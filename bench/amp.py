"""Training in float32 and under bfloat16 autocast, ours and PyTorch's: losses, accuracy, seconds.

    amp.py [--models digits,resnet18,bert] [--steps N] [--threads 2] [--torch PYTHON]

Every run is a process of its own and sees the same batches: handwritten digits (scikit-learn's),
drawn gratings for ResNet-18, counting sequences with masked words for BERT-small. What is printed
for each: the mean loss of each fifth of the steps, the accuracy in the last fifth, the median time
of a step, and that time relative to float32 in the same framework and mode. `--torch`: the
interpreter that has PyTorch, if it is not this one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from models import bert_model, resnet18_model

MODES = tuple((framework, compiled, low) for framework, compiled in (
    ("torch", False), ("flambeau", False), ("flambeau", True)) for low in (False, True))
STEPS = {"digits": 300, "resnet18": 40, "bert": 60}
WORDS, LENGTH, MASK = 512, 64, 0

Batches = Iterator[tuple[np.ndarray, np.ndarray]]


def digits(T):
    """(model, optimizer, batches): a small convolutional network on 8 x 8 images."""
    nn = T.nn
    model = nn.Sequential(nn.Unflatten(1, (1, 8)), nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(),
                          nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
                          nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1024, 256), nn.ReLU(),
                          nn.Linear(256, 10))
    return model, T.optim.Adam(model.parameters(), lr=1e-3), _digits()


def _digits() -> Batches:
    from sklearn.datasets import load_digits

    found = load_digits()
    images, labels = (found.images / 16).astype(np.float32), found.target.astype(np.int64)
    order = np.random.default_rng(0)
    while True:
        chosen = order.integers(0, len(images), 64)
        yield images[chosen], labels[chosen]


def resnet18(T):
    """(model, optimizer, batches): ResNet-18 on noisy gratings of ten directions, 64 x 64."""
    model = resnet18_model(T, 10)
    return model, T.optim.SGD(model.parameters(), lr=0.02, momentum=0.9), _gratings()


def _gratings() -> Batches:
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    while True:
        labels = draw.integers(0, 10, 16)
        angle, phase = labels * np.pi / 10, draw.uniform(0, 6.3, 16)
        waves = np.sin(0.5 * (x * np.cos(angle)[:, None, None] + y * np.sin(angle)[:, None, None])
                       + phase[:, None, None])
        images = waves[:, None] + draw.normal(0, 1, (16, 3, 64, 64))
        yield images.astype(np.float32), labels


def bert(T):
    """(model, optimizer, batches): BERT-small on sequences that count by a step, some words masked;
    only those are to be found."""
    model = bert_model(T, WORDS, LENGTH)
    return model, T.optim.AdamW(model.parameters(), lr=3e-4), _counting()


def _counting() -> Batches:
    draw = np.random.default_rng(0)
    while True:
        first, step = draw.integers(0, 64, (8, 1)), draw.integers(1, 3, (8, 1))
        rows = 1 + (first + step * np.arange(LENGTH)) % 64
        masked = draw.random(rows.shape) < 0.15
        yield np.where(masked, MASK, rows), np.where(masked, rows, -100).reshape(-1)


MODELS = {"digits": digits, "resnet18": resnet18, "bert": bert}


def child(framework: str, compiled: bool, low: bool, name: str, steps: int, threads: int) -> None:
    """Train in this process; print what was found as JSON."""
    import importlib

    T = importlib.import_module(framework)
    T.set_num_threads(threads)
    T.manual_seed(0)
    model, optimizer, batches = MODELS[name](T)

    def step(x, y):
        optimizer.zero_grad()
        with T.autocast("cpu", dtype=T.bfloat16, enabled=low):
            out = model(x)
            loss = T.nn.functional.cross_entropy(out, y)
        loss.backward()
        optimizer.step()
        return loss.detach(), (out.argmax(1) == y).sum()

    if compiled:
        step = T.compile(step)
    times, losses, right, asked = [], [], [], []
    for _ in range(steps):
        x, y = map(T.from_numpy, next(batches))
        start = time.perf_counter()
        loss, hits = step(x, y)
        losses.append(loss.item())
        times.append(time.perf_counter() - start)
        right.append(int(hits))
        asked.append(int((y >= 0).sum()))
    part = max(1, steps // 5)
    print(json.dumps({
        "losses": [statistics.mean(losses[i:i + part]) for i in range(0, part * 5, part)],
        "accuracy": sum(right[-part:]) / sum(asked[-part:]),
        "seconds": statistics.median(times[len(times) // 4:])}))


def main() -> int:
    """Train every model in every mode and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--torch", default=sys.executable)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        framework, compiled, low, name = options.child
        child(framework, compiled == "1", low == "1", name, options.steps, options.threads)
        return 0
    print(f"{'':34}{'loss by fifths of the steps':42}{'accuracy':>9}{'ms/step':>10}{'ratio':>8}")
    for name in options.models.split(","):
        steps, base = options.steps or STEPS[name], 0.0
        for framework, compiled, low in MODES:
            python = options.torch if framework == "torch" else sys.executable
            command = [python, __file__, "--child", framework, str(int(compiled)), str(int(low)),
                       name, "--steps", str(steps), "--threads", str(options.threads)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            label = f"{name}, {framework}{' compiled' if compiled else ''}, " + (
                "bfloat16" if low else "float32")
            if result.returncode:
                print(f"{label:34}failed: {result.stderr.strip().splitlines()[-1:]}")
                continue
            found = json.loads(result.stdout.splitlines()[-1])
            base = base if low else found["seconds"]
            curve = "  ".join(f"{loss:.4f}" for loss in found["losses"])
            print(f"{label:34}{curve:42}{found['accuracy']:9.3f}{found['seconds'] * 1e3:10.2f}"
                  f"{found['seconds'] / base:8.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
