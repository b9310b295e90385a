"""Gradient accumulation: four small batches give the gradient of one large batch."""

import flambeau as torch
import flambeau.nn as nn

torch.manual_seed(0)

model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
loss_fn = nn.MSELoss()
x, y = torch.randn(16, 8), torch.randn(16, 1)

loss_fn(model(x), y).backward()
whole = [parameter.grad.clone() for parameter in model.parameters()]

model.zero_grad()
accumulation_steps = 4
for part_x, part_y in zip(x.chunk(accumulation_steps), y.chunk(accumulation_steps)):
    loss = loss_fn(model(part_x), part_y) / accumulation_steps
    loss.backward()                      # adds to .grad
parts = [parameter.grad for parameter in model.parameters()]
print([torch.allclose(a, b, atol=1e-6) for a, b in zip(whole, parts)])

optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
optimizer.zero_grad()
for step in range(12):
    picked = torch.arange(4) + 4 * (step % 4)
    loss = loss_fn(model(x[picked]), y[picked]) / accumulation_steps
    loss.backward()
    if (step + 1) % accumulation_steps == 0:
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step + 1}: loss = {loss_fn(model(x), y).item():.4f}")
