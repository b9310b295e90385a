"""A small BERT (Devlin et al. 2019): words of Python's documentation, some of them masked."""

from __future__ import annotations

import collections
import re
from typing import Any

from shared import curve, documentation, start

WORDS, WIDTH, HEADS, LAYERS, TIME, BATCH = 1500, 96, 4, 2, 32, 16
MASK, OTHER = 0, 1


def make_model(torch: Any) -> Any:
    """Words in, logits of all words out."""
    nn = torch.nn

    class BERT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(TIME, WIDTH)
            self.norm = nn.LayerNorm(WIDTH)
            layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.1, "gelu",
                                               batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
            self.head = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.LayerNorm(WIDTH),
                                      nn.Linear(WIDTH, WORDS))

        def forward(self, ids: Any) -> Any:
            x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
            return self.head(self.encoder(self.norm(x)))

    return BERT()


def main() -> None:
    """Train, print how often a masked word is found, draw the losses."""
    run = start(__doc__, steps=400)
    torch = run.torch
    words = re.findall(r"[A-Za-z_]+|[^\sA-Za-z_]", documentation(600_000))
    known = [word for word, _ in collections.Counter(words).most_common(WORDS - 2)]
    number = {word: i + 2 for i, word in enumerate(known)}
    data = torch.tensor([number.get(word, OTHER) for word in words])
    rows = data[:len(data) // TIME * TIME].view(-1, TIME)
    model = make_model(torch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 40))
    right = 0.0

    def learn(ids: Any, masked: Any, randomised: Any, drawn: Any) -> tuple[Any, Any]:
        shown = torch.where(masked, torch.full_like(ids, MASK), ids)
        shown = torch.where(randomised, drawn, shown)
        wanted = torch.where(masked, ids, torch.full_like(ids, -100))
        optimizer.zero_grad()
        logits = model(shown)
        loss = torch.nn.functional.cross_entropy(logits.view(-1, WORDS), wanted.view(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss, ((logits.argmax(-1) == ids) & masked).sum() / masked.sum()

    learn = run.compiled(learn)

    def step() -> Any:
        nonlocal right
        ids = rows[torch.randint(len(rows), (BATCH,))]
        masked = torch.rand(ids.shape) < 0.15
        randomised = masked & (torch.rand(ids.shape) < 0.1)
        loss, share = learn(ids, masked, randomised, torch.randint(2, WORDS, ids.shape))
        schedule.step()
        right = 0.9 * right + 0.1 * float(share)
        return loss

    run.train(step, "BERT")
    print(f"{right:.3f} of the masked words are found")
    curve(run)


if __name__ == "__main__":
    main()
