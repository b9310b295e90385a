"""Linear regression, second time: the gradient comes from autograd."""

import flambeau as torch

X = torch.tensor([1, 2, 3, 4], dtype=torch.float32)
Y = torch.tensor([2, 4, 6, 8], dtype=torch.float32)
w = torch.tensor(0.0, dtype=torch.float32, requires_grad=True)


def forward(x):
    """The model: y = w x."""
    return w * x


def loss(y, predicted):
    """Mean squared error."""
    return ((predicted - y) ** 2).mean()


print(f"before training: f(5) = {forward(5).item():.3f}")
for epoch in range(1, 101):
    error = loss(Y, forward(X))
    error.backward()
    with torch.no_grad():
        w -= 0.01 * w.grad
    w.grad.zero_()
    if epoch % 10 == 0:
        print(f"epoch {epoch}: w = {w.item():.3f}, loss = {error.item():.8f}")
print(f"after training: f(5) = {forward(5).item():.3f}")
