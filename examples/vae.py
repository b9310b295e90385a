"""A variational autoencoder (Kingma, Welling 2014) of drawn shapes; the picture: its dreams."""

from __future__ import annotations

from typing import Any

from shared import endless, save_grid, shapes, start

SIZE, HIDDEN, LATENT, BATCH = 24, 256, 8, 64


def make_model(torch: Any) -> Any:
    """Images in, (reconstruction, mean, log variance) out."""
    nn = torch.nn

    class VAE(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, HIDDEN), nn.ReLU())
            self.mean, self.log_variance = nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)
            self.decode = nn.Sequential(
                nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, SIZE * SIZE),
                nn.Sigmoid(), nn.Unflatten(1, (1, SIZE, SIZE)))

        def forward(self, x: Any) -> tuple[Any, Any, Any]:
            h = self.encode(x)
            mean, log_variance = self.mean(h), self.log_variance(h)
            z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
            return self.decode(z), mean, log_variance

    return VAE()


def main() -> None:
    """Train; draw decoded points of the latent space."""
    run = start(__doc__, steps=500)
    torch = run.torch
    images, _ = shapes(2000, SIZE, run.seed)
    data = torch.from_numpy(images.mean(1, keepdims=True)).to(torch.get_default_dtype())
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data), BATCH, shuffle=True,
                                         drop_last=True)
    model = make_model(torch)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

    def learn(x: Any) -> Any:
        optimizer.zero_grad()
        y, mean, log_variance = model(x)
        likelihood = torch.nn.functional.binary_cross_entropy(y, x, reduction="sum")
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
        loss = (likelihood + divergence) / len(x)
        loss.backward()
        optimizer.step()
        return loss

    learn = run.compiled(learn)
    batches = endless(loader)

    def step() -> Any:
        return learn(next(batches)[0])

    run.train(step, "VAE")
    with torch.no_grad():
        save_grid(run, model.decode(torch.randn(64, LATENT)), zoom=3)


if __name__ == "__main__":
    main()
