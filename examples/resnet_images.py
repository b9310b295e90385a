"""A small ResNet (He et al. 2016) that tells drawn shapes apart; wrong answers get a red frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from shared import endless, save_grid, shapes, start

SIZE, BATCH, TRAIN = 32, 48, 1920


def make_model(torch: Any) -> Any:
    """Three stages of two blocks."""
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
            self.shortcut = nn.Identity() if stride == 1 and inputs == outputs else nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

        def forward(self, x: Any) -> Any:
            y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
            return F.relu(y + self.shortcut(x))

    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        Block(16, 16, 1), Block(16, 16, 1), Block(16, 32, 2), Block(32, 32, 1),
        Block(32, 64, 2), Block(64, 64, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(64, 5))


def main() -> None:
    """Train with turned and shifted images; draw some that were held out, and the answers."""
    run = start(__doc__, steps=200)
    torch = run.torch
    images, kinds = shapes(TRAIN + 480, SIZE, run.seed)
    x = torch.from_numpy(images).to(torch.get_default_dtype())
    y = torch.from_numpy(kinds)
    held_x, held_y = x[TRAIN:], y[TRAIN:]
    dataset = torch.utils.data.TensorDataset(x[:TRAIN], y[:TRAIN])
    loader = torch.utils.data.DataLoader(dataset, BATCH, shuffle=True)
    model = make_model(torch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9, weight_decay=5e-4,
                                nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.005, total_steps=run.steps + 1)

    def learn(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y, label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        return loss

    learn = run.compiled(learn)
    batches = endless(loader)

    def step() -> Any:
        x, y = next(batches)
        if torch.rand(()) < 0.5:
            x = x.flip(3)
        x = torch.roll(x, tuple(torch.randint(-2, 3, (2,)).tolist()), (2, 3))
        loss = learn(x, y)
        schedule.step()
        return loss

    run.train(step, "ResNet")
    model.eval()
    with torch.no_grad():
        right = model(held_x).argmax(1) == held_y
    print(f"{float(right.float().mean()):.3f} of the held-out images are right")
    shown = held_x[:64].numpy().copy()
    frame = np.where(right[:64].numpy()[:, None], [[0.1, 0.8, 0.1]], [[0.9, 0.1, 0.1]])
    for edge in (np.s_[:, :, :2], np.s_[:, :, -2:], np.s_[:, :, :, :2], np.s_[:, :, :, -2:]):
        shown[edge] = frame[:, :, None, None]
    save_grid(run, shown, zoom=2)


if __name__ == "__main__":
    main()
