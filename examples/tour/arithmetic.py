"""Arithmetic: operators, functions, in-place forms, broadcasting, reductions and indexing."""

import flambeau as torch

torch.manual_seed(0)

x = torch.rand(2, 2)
y = torch.rand(2, 2)
print(x + y, torch.add(x, y))
print(x - y, torch.sub(x, y))
print(x * y, torch.mul(x, y))
print(x / y, torch.div(x, y))
print(x @ y, torch.mm(x, y))

y.add_(x)                      # a trailing underscore changes the tensor itself
print(y)
y.mul_(2).sub_(1)
print(y)
y += 1
print(y, x ** 2, -x, 1 - x, 7 % torch.tensor([2, 3]), torch.tensor([7, -7]) // 2)

result = torch.empty(2, 2)
torch.add(x, y, out=result)
print(result)

rows = torch.arange(3).view(3, 1)
columns = torch.tensor([10, 20, 30, 40])
print(rows + columns)          # (3, 1) + (4,) -> (3, 4)

z = torch.rand(5, 3)
print(z[:, 0], z[1, :], z[1, 1], z[1, 1].item(), sep="\n")
print(z[z > 0.5].numel(), z[[0, 2]], z[..., -1], z[::2, 1:], sep="\n")
z[0] = 0
z[1:3, 0] = torch.tensor([5.0, 6.0])
z[z > 4] *= -1
print(z)

print(z.sum(), z.mean(), z.max(), z.min(), z.argmax(), z.std())
print(z.sum(dim=0), z.mean(dim=1, keepdim=True), z.max(dim=1), sep="\n")
print(torch.exp(x), torch.log(x), torch.sqrt(x), torch.sin(x), x.clamp(0.2, 0.5), sep="\n")
print(x > y, (x > 0).all(), torch.where(x > 0.5, x, torch.zeros(2, 2)), sep="\n")
print(torch.cat([x, y]), torch.stack([x, y], dim=1).shape, torch.softmax(x, dim=1), sep="\n")
print(1 + torch.tensor([1, 2]), 1.5 + torch.tensor([1, 2]), torch.tensor([1, 2]) / 2)
