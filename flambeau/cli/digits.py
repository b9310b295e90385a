"""The handwritten-digits recipe: data, model and training step, for any PyTorch-like module.

Every function takes the framework as its first argument, `torch`: Flambeau itself in `flambeau
train digits`, and either of the two in `examples/digits.py` and in the conformance tests, which
compare the losses step by step. So nothing here imports a framework, and the recipe exists once.

Data: the 1797 images of 8x8 pixels that ship inside scikit-learn (E. Alpaydin, C. Kaynak, UCI
1998).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

from flambeau.cli.errors import UserError

__all__ = ["TRAIN_IMAGES", "Recipe", "Split", "Training", "load_split", "build_model", "set_up",
           "batches", "make_train_step", "accuracy"]

# 22 batches of 64 or 44 of 32: the default batch sizes leave no remainder. 389 images are held out.
TRAIN_IMAGES = 1408


class Recipe(NamedTuple):
    """What determines a run: two runs with equal recipes give equal losses."""

    epochs: int = 12
    batch_size: int = 64
    lr: float = 2e-3
    seed: int = 0


class Split(NamedTuple):
    """Images are float32 (N, 1, 8, 8) in [0, 1]; labels are int64 (N,) in 0..9."""

    train_x: Any
    train_y: Any
    test_x: Any
    test_y: Any


class Training(NamedTuple):
    """Everything that a run changes, and the data it reads."""

    model: Any
    optimizer: Any
    scheduler: Any
    generator: Any
    loader: Any
    split: Split


def load_split(torch: ModuleType, seed: int = 0) -> Split:
    """The digits, divided by a seeded permutation into `TRAIN_IMAGES` and the rest, held out.

    Raises:
        UserError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError("the digits ship inside scikit-learn, which is not installed",
                        "pip install 'flambeau[demo]'") from error
    digits = load_digits()
    images = torch.from_numpy(digits.images.astype("float32") / 16.0).unsqueeze(1)
    labels = torch.from_numpy(digits.target.astype("int64"))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    train, test = order[:TRAIN_IMAGES], order[TRAIN_IMAGES:]
    return Split(images[train], labels[train], images[test], labels[test])


def build_model(torch: ModuleType) -> Any:
    """A small CNN: (N, 1, 8, 8) -> (N, 10) logits, 151 402 parameters.

    It is smooth on purpose. ReLU and max pooling have kinks: where a value lies within rounding of
    one, two correct programs take different sides, and torch itself departs from its own losses by
    1e-2 within 50 steps when only its convolution algorithm is exchanged. With GELU and average
    pooling the losses are comparable (1e-5).
    """
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.GELU(),   # 8 x 8
        nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.GELU(),
        nn.AvgPool2d(2), nn.Flatten(),                                               # 64 * 4 * 4
        nn.Linear(1024, 128), nn.GELU(),
        nn.Linear(128, 10),
    )


def set_up(torch: ModuleType, recipe: Recipe) -> Training:
    """Seed, then make data, model, optimizer, scheduler and loader in this fixed order."""
    from importlib import import_module

    data = import_module(torch.__name__ + ".utils.data")
    split = load_split(torch, recipe.seed)
    torch.manual_seed(recipe.seed)
    model = build_model(torch)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs)
    generator = torch.Generator().manual_seed(recipe.seed)
    loader = data.DataLoader(data.TensorDataset(split.train_x, split.train_y),
                             batch_size=recipe.batch_size, shuffle=True, generator=generator)
    return Training(model, optimizer, scheduler, generator, loader, split)


def batches(training: Training, skip: int = 0) -> Iterator[tuple[Any, Any]]:
    """One epoch's (x, y) batches but the first `skip`, for a run resumed inside an epoch."""
    for index, (x, y) in enumerate(training.loader):
        if index >= skip:
            yield x, y


def make_train_step(torch: ModuleType, training: Training) -> Callable[[Any, Any], Any]:
    """The whole step as one function of a batch, so that `torch.compile` can capture all of it."""
    model, optimizer = training.model, training.optimizer
    cross_entropy = torch.nn.functional.cross_entropy

    def train_step(x: Any, y: Any) -> Any:
        """Forward, backward and update on one batch; returns the loss before the update."""
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return train_step


def accuracy(torch: ModuleType, training: Training) -> float:
    """The share of held-out images whose largest logit is the right one, in 0..1."""
    model = training.model
    model.eval()
    with torch.no_grad():
        predicted = model(training.split.test_x).argmax(dim=1)
    model.train()
    return (predicted == training.split.test_y).float().mean().item()
