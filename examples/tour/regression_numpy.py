"""Linear regression, first time: by hand in NumPy; only the check at the end uses tensors."""

import flambeau as torch
import numpy as np

X = np.array([1, 2, 3, 4], dtype=np.float32)
Y = np.array([2, 4, 6, 8], dtype=np.float32)
w = np.float32(0.0)


def forward(x):
    """The model: y = w x."""
    return w * x


def loss(y, predicted):
    """Mean squared error."""
    return ((predicted - y) ** 2).mean()


def gradient(x, y, predicted):
    """d loss / d w = mean(2 x (w x - y))."""
    return np.mean(2 * x * (predicted - y))


print(f"before training: f(5) = {forward(5):.3f}")
for epoch in range(1, 21):
    predicted = forward(X)
    error = loss(Y, predicted)
    w = w - np.float32(0.01) * gradient(X, Y, predicted)
    if epoch % 2 == 0:
        print(f"epoch {epoch}: w = {w:.3f}, loss = {error:.6f}")
print(f"after training: f(5) = {forward(5):.3f}")
print(torch.nn.functional.mse_loss(torch.from_numpy(w * X), torch.from_numpy(Y)))
