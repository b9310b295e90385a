"""Saving and loading: tensors, a model's state_dict, and a checkpoint to go on from."""

import os
import tempfile

import flambeau as torch
import flambeau.nn as nn

torch.manual_seed(0)


def build():
    """A small model with four parameters."""
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


model = build()
x = torch.randn(3, 4)
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "model.pt")
    torch.save(model.state_dict(), path)
    other = build()
    print(torch.equal(other(x), model(x)))
    print(other.load_state_dict(torch.load(path)))
    other.eval()
    print(torch.equal(other(x), model(x)))
    for name, tensor in model.state_dict().items():
        print(name, tuple(tensor.size()))

    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).pow(2).mean().backward()
        optimizer.step()
    torch.save({"epoch": 3, "model": model.state_dict(), "optim": optimizer.state_dict()}, path)

    checkpoint = torch.load(path, weights_only=True)
    resumed = build()
    resumed_optimizer = torch.optim.Adam(resumed.parameters(), lr=0)
    resumed.load_state_dict(checkpoint["model"])
    resumed_optimizer.load_state_dict(checkpoint["optim"])
    print(checkpoint["epoch"], resumed_optimizer.param_groups[0]["lr"])
    for net, opt in ((model, optimizer), (resumed, resumed_optimizer)):
        opt.zero_grad()
        net(x).pow(2).mean().backward()
        opt.step()
    print([torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters())])

    shared = torch.arange(6)
    torch.save({"all": shared, "even": shared[::2], "text": "hello", "list": [1, 2.5, None]}, path)
    loaded = torch.load(path)
    loaded["all"][0] = 100               # views stay views
    print(loaded)
