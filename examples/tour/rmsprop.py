"""RMSprop on a two-layer network, after the old tutorial that fits random data."""

import flambeau as torch

torch.manual_seed(0)

N, D_in, H, D_out = 64, 100, 50, 10
x = torch.randn(N, D_in)
y = torch.randn(N, D_out)

model = torch.nn.Sequential(
    torch.nn.Linear(D_in, H),
    torch.nn.ReLU(),
    torch.nn.Linear(H, D_out),
)
loss_fn = torch.nn.MSELoss(reduction="sum")
optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
print(optimizer)

for t in range(30):
    loss = loss_fn(model(x), y)
    if t % 5 == 0:
        print(t, f"{loss.item():.4f}")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(sorted(optimizer.state_dict()["state"][0]), len(optimizer.state))
