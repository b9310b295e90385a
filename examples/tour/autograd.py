"""Gradients: backward, vector-Jacobian products, and the ways to stop tracking."""

import flambeau as torch

torch.manual_seed(0)

x = torch.randn(3, requires_grad=True)
y = x + 2
print(x, y.requires_grad, y.grad_fn is not None, x.is_leaf, y.is_leaf)
z = y * y * 3
z = z.mean()
z.backward()                   # dz/dx = 6 (x + 2) / 3
print(z, x.grad)

x = torch.randn(3, requires_grad=True)
y = x * 2
while y.detach().norm() < 1000:
    y = y * 2
v = torch.tensor([0.1, 1.0, 0.0001])
y.backward(v)                  # the product of v with the Jacobian
print(y, x.grad)

# Three ways to stop tracking.
a = torch.randn(2, 2, requires_grad=True)
a.requires_grad_(False)
print(a.requires_grad)
a.requires_grad_()
b = a.detach()
print(a.requires_grad, b.requires_grad, b.data_ptr() == a.data_ptr())
with torch.no_grad():
    print((a * 2).requires_grad)
print((a * 2).requires_grad)

# Gradients accumulate, so each round empties them.
weights = torch.ones(4, requires_grad=True)
for epoch in range(3):
    output = (weights * 3).sum()
    output.backward()
    print(weights.grad)
    with torch.no_grad():
        weights -= 0.1 * weights.grad
    weights.grad.zero_()
print(weights)

# Second derivatives.
t = torch.tensor([1.0, 2.0], requires_grad=True)
(first,) = torch.autograd.grad((t ** 3).sum(), t, create_graph=True)
(second,) = torch.autograd.grad(first.sum(), t)
print(first.detach(), second)

try:
    output.backward()
except RuntimeError:
    print("the graph is freed after the first backward")
