"""A DCGAN (Radford, Metz, Chintala 2016) of drawn shapes: two networks trained in one step."""

from __future__ import annotations

from typing import Any

from shared import save_grid, shapes, start

SIZE, NOISE, FEATURES, BATCH = 32, 32, 16, 32


def make_models(torch: Any) -> tuple[Any, Any]:
    """(generator, discriminator)."""
    nn = torch.nn

    def up(inputs: int, outputs: int, stride: int, padding: int) -> list:
        return [nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False),
                nn.BatchNorm2d(outputs), nn.ReLU(True)]

    def down(inputs: int, outputs: int) -> list:
        return [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs),
                nn.LeakyReLU(0.2, inplace=True)]

    generator = nn.Sequential(
        *up(NOISE, FEATURES * 4, 1, 0), *up(FEATURES * 4, FEATURES * 2, 2, 1),
        *up(FEATURES * 2, FEATURES, 2, 1), nn.ConvTranspose2d(FEATURES, 3, 4, 2, 1), nn.Tanh())
    discriminator = nn.Sequential(
        nn.Conv2d(3, FEATURES, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True),
        *down(FEATURES, FEATURES * 2), *down(FEATURES * 2, FEATURES * 4),
        nn.Conv2d(FEATURES * 4, 1, 4), nn.Flatten(0))

    def begin(module: Any) -> None:
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)

    generator.apply(begin)
    discriminator.apply(begin)
    return generator, discriminator


def main() -> None:
    """Train; draw what the generator makes of fixed noise."""
    run = start(__doc__, steps=400)
    torch = run.torch
    images, _ = shapes(2000, SIZE, run.seed)
    data = torch.from_numpy(images).to(torch.get_default_dtype()) * 2 - 1
    generator, discriminator = make_models(torch)
    of_generator = torch.optim.Adam(generator.parameters(), lr=5e-5, betas=(0.5, 0.999))
    of_discriminator = torch.optim.Adam(discriminator.parameters(), lr=5e-5, betas=(0.5, 0.999))
    fixed = torch.randn(32, NOISE, 1, 1)
    judge = torch.nn.functional.binary_cross_entropy_with_logits

    def learn(real: Any, noise: Any) -> Any:
        fake = generator(noise)
        of_discriminator.zero_grad()
        ones, zeros = torch.ones(BATCH), torch.zeros(BATCH)
        loss = judge(discriminator(real), ones) + judge(discriminator(fake.detach()), zeros)
        loss.backward()
        of_discriminator.step()
        of_generator.zero_grad()
        deceived = judge(discriminator(fake), ones)
        deceived.backward()
        of_generator.step()
        return loss.detach() + deceived.detach()

    learn = run.compiled(learn)

    def step() -> Any:
        at = torch.randint(len(data), (BATCH,))
        return learn(data[at], torch.randn(BATCH, NOISE, 1, 1))

    run.train(step, "DCGAN")
    with torch.no_grad():
        save_grid(run, (generator(fixed) + 1) / 2, zoom=2)


if __name__ == "__main__":
    main()
