"""Linear regression, third time: a module, a loss and an optimizer."""

import flambeau as torch
import flambeau.nn as nn

torch.manual_seed(0)

X = torch.tensor([[1], [2], [3], [4]], dtype=torch.float32)
Y = torch.tensor([[2], [4], [6], [8]], dtype=torch.float32)


class LinearRegression(nn.Module):
    """y = w x + b."""

    def __init__(self, features_in, features_out):
        super().__init__()
        self.lin = nn.Linear(features_in, features_out)

    def forward(self, x):
        return self.lin(x)


model = LinearRegression(X.shape[1], Y.shape[1])
print(model)
criterion = nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
test = torch.tensor([5], dtype=torch.float32)

print(f"before training: f(5) = {model(test).item():.3f}")
for epoch in range(1, 101):
    error = criterion(model(X), Y)
    error.backward()
    optimizer.step()
    optimizer.zero_grad()
    if epoch % 10 == 0:
        w, b = model.parameters()
        print(f"epoch {epoch}: w = {w[0][0].item():.3f}, loss = {error.item():.8f}")
print(f"after training: f(5) = {model(test).item():.3f}")
