"""Training in float32 and under autocast, ours and PyTorch's: losses, accuracy, seconds.

    amp.py [--models digits,resnet18,bert] [--ways torch,eager,compiled]
           [--precisions float32,bfloat16] [--steps N] [--threads 2] [--torch PYTHON]

Every run is a process of its own, begins with the same weights, sees the same batches and lets the
learning rate rise and fall: the handwritten digits of scikit-learn (for ResNet-18 enlarged to
32 x 32, moved, turned and noisy), and repeated words, some masked, for BERT-small. What is
printed for each: the mean loss of each fifth of the steps, loss and accuracy on examples that were
not trained on, the median time of a step, and that time relative to float32 in the same way.
float16 trains with a GradScaler. `--torch`: the interpreter that has PyTorch, if not this one.
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

WAYS = {"torch": ("torch", False), "eager": ("flambeau", False), "compiled": ("flambeau", True)}
STEPS = {"digits": 300, "resnet18": 150, "bert": 100}
WORDS, LENGTH, MASK = 512, 64, 0
TRAINED = 1397  # digits to train on; the other 400 are for the test

Batches = Iterator[tuple[np.ndarray, np.ndarray]]


def digits(T):
    """(model, optimizer, batches, tests): a small convolutional network on 8 x 8 images."""
    nn = T.nn
    model = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(),
                          nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
                          nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1024, 256), nn.ReLU(),
                          nn.Linear(256, 10))
    images, labels = _digits()
    tests = [(images[TRAINED:], labels[TRAINED:])]
    return model, T.optim.Adam(model.parameters(), lr=1e-3), _drawn(64, None), tests


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """(1797, 1, 8, 8) images from 0 to 1 in an order of no meaning, and what they show."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(1).permutation(len(found.target))
    return (found.images[order, None] / 16).astype(np.float32), found.target[order].astype(np.int64)


def _drawn(count: int, size: int | None) -> Batches:
    """Batches of digits to train on; enlarged ones if a size is given."""
    images, labels = _digits()
    draw = np.random.default_rng(0)
    while True:
        chosen = draw.integers(0, TRAINED, count)
        yield images[chosen] if size is None else _changed(images[chosen], size, draw), (
            labels[chosen])


def _changed(images: np.ndarray, size: int, draw: np.random.Generator | None) -> np.ndarray:
    """Images of size x size by linear interpolation; with `draw` each is turned by up to 0.3,
    scaled by up to a fifth, moved by up to an eighth, and has noise."""
    count, _, side, _ = images.shape
    angle, scale, right, down = np.zeros(count), np.ones(count), np.zeros(count), np.zeros(count)
    if draw is not None:
        angle, scale = draw.uniform(-0.3, 0.3, count), draw.uniform(0.8, 1.2, count)
        right, down = draw.uniform(-1, 1, (2, count))
    y, x = (np.mgrid[:size, :size] + 0.5) * side / size - side / 2
    cos, sin = (f(angle)[:, None, None] * scale[:, None, None] for f in (np.cos, np.sin))
    middle = (side - 1) / 2
    rows = cos * y - sin * x + down[:, None, None] + middle
    columns = sin * y + cos * x + right[:, None, None] + middle
    framed = np.pad(images[:, 0], ((0, 0), (1, 1), (1, 1)))
    rows, columns = (np.clip(v + 1, 0, side + 0.999) for v in (rows, columns))
    top, left = rows.astype(int), columns.astype(int)
    low, across = rows - top, columns - left
    each = np.arange(count)[:, None, None]
    found = sum(weight * framed[each, top + i, left + j] for i, j, weight in (
        (0, 0, (1 - low) * (1 - across)), (0, 1, (1 - low) * across),
        (1, 0, low * (1 - across)), (1, 1, low * across)))
    if draw is not None:
        found = found + draw.normal(0, 0.15, found.shape)
    return found[:, None].astype(np.float32)


def resnet18(T):
    """(model, optimizer, batches, tests): ResNet-18 on digits of 32 x 32."""
    model = resnet18_model(T, 10, 1, small_images=True)
    images, labels = _digits()
    tests = [(_changed(images[i:i + 100], 32, None), labels[i:i + 100])
             for i in range(TRAINED, TRAINED + 400, 100)]
    optimizer = T.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    return model, optimizer, _drawn(16, 32), tests


def bert(T):
    """(model, optimizer, batches, tests): BERT-small on sequences that repeat one word of 64, a few
    masked; those are to be found."""
    model = bert_model(T, WORDS, LENGTH)
    tests = [pair for _, pair in zip(range(4), _repeated(1), strict=False)]
    return model, T.optim.AdamW(model.parameters(), lr=1e-4), _repeated(0), tests


def _repeated(seed: int) -> Batches:
    draw = np.random.default_rng(seed)
    while True:
        rows = np.repeat(draw.integers(1, 65, (8, 1)), LENGTH, axis=1)
        masked = draw.random(rows.shape) < 0.15
        yield np.where(masked, MASK, rows), np.where(masked, rows, -100).reshape(-1)


MODELS = {"digits": digits, "resnet18": resnet18, "bert": bert}


def child(way: str, precision: str, name: str, steps: int, threads: int) -> None:
    """Train in this process; print what was found as JSON."""
    import importlib

    framework, compiled = WAYS[way]
    T = importlib.import_module(framework)
    T.set_num_threads(threads)
    T.manual_seed(0)
    model, optimizer, batches, tests = MODELS[name](T)
    low = precision != "float32"
    scaler = T.amp.GradScaler("cpu", enabled=precision == "float16")
    rate = T.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: min(1, 0.02 + 10 * done / steps, 1.02 - done / steps))

    def loss_of(x, y):
        with T.autocast("cpu", dtype=getattr(T, precision) if low else T.bfloat16, enabled=low):
            out = model(x)
            return out, T.nn.functional.cross_entropy(out, y)

    def step(x, y):
        optimizer.zero_grad()
        loss = loss_of(x, y)[1]
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    run = T.compile(step) if compiled else step
    times, losses = [], []
    for _ in range(steps):
        x, y = map(T.from_numpy, next(batches))
        start = time.perf_counter()
        losses.append(run(x, y).item())
        times.append(time.perf_counter() - start)
        rate.step()
    part = max(1, steps // 5)
    print(json.dumps({
        "losses": [statistics.mean(losses[i:i + part]) for i in range(0, part * 5, part)],
        **_tested(T, model, loss_of, tests), "scale": scaler.get_scale(),
        "seconds": statistics.median(times[len(times) // 4:])}))


def _tested(T, model, loss_of, tests: list) -> dict[str, float]:
    """Loss and accuracy on what was not trained on, in the same precision."""
    model.eval()
    losses, right, asked = [], 0, 0
    with T.no_grad():
        for x, y in tests:
            y = T.from_numpy(y)
            out, loss = loss_of(T.from_numpy(x), y)
            losses.append(loss.item())
            right += int((out.argmax(1) == y).sum())
            asked += int((y >= 0).sum())
    return {"test_loss": statistics.mean(losses), "test_accuracy": right / asked}


def main() -> int:
    """Train every model in every way and precision, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--precisions", default="float32,bfloat16")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--torch", default=sys.executable)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child, options.steps, options.threads)
        return 0
    print(f"{'':32}{'loss by fifths of the steps':42}{'test loss':>10}{'accuracy':>9}"
          f"{'ms/step':>9}{'ratio':>7}")
    for name in options.models.split(","):
        for way in options.ways.split(","):
            base = 0.0
            for precision in options.precisions.split(","):
                found = _trained(name, way, precision, options)
                if found is not None:
                    base = base or found["seconds"]
                    _show(f"{name}, {way}, {precision}", found, base)
    return 0


def _trained(name: str, way: str, precision: str, options: argparse.Namespace) -> dict | None:
    """What a child process has found; None if it failed."""
    python = options.torch if way == "torch" else sys.executable
    command = [python, __file__, "--child", way, precision, name,
               "--steps", str(options.steps or STEPS[name]), "--threads", str(options.threads)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        print(f"{name}, {way}, {precision}: failed: {result.stderr.strip().splitlines()[-1:]}")
        return None
    return json.loads(result.stdout.splitlines()[-1])


def _show(label: str, found: dict, base: float) -> None:
    curve = "  ".join(f"{loss:.4f}" for loss in found["losses"])
    scale = f"  scale {found['scale']:g}" if found["scale"] != 1 else ""
    print(f"{label:32}{curve:42}{found['test_loss']:10.4f}{found['test_accuracy']:9.4f}"
          f"{found['seconds'] * 1e3:9.2f}{found['seconds'] / base:7.2f}{scale}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
