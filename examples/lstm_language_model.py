"""An LSTM language model of words on Python's documentation, by truncated backpropagation."""

from __future__ import annotations

import collections
import math
import re
from typing import Any

from shared import curve, documentation, start

WORDS, WIDTH, LAYERS, ROWS, TIME = 2000, 128, 2, 16, 24


def make_model(torch: Any) -> Any:
    """Words in, logits of the next words and the state out."""
    nn = torch.nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(WORDS, WIDTH)
            self.drop = nn.Dropout(0.2)
            self.lstm = nn.LSTM(WIDTH, WIDTH, LAYERS, dropout=0.2)
            self.head = nn.Linear(WIDTH, WORDS)
            self.head.weight = self.embed.weight
            nn.init.uniform_(self.embed.weight, -0.1, 0.1)

        def forward(self, words: Any, state: Any) -> tuple[Any, Any]:
            y, state = self.lstm(self.drop(self.embed(words)), state)
            return self.head(self.drop(y)), state

    return Model()


def main() -> None:
    """Train, print the perplexity, draw the losses."""
    run = start(__doc__, steps=300)
    torch = run.torch
    words = re.findall(r"[A-Za-z_]+|[^\sA-Za-z_]", documentation(600_000))
    known = [word for word, _ in collections.Counter(words).most_common(WORDS - 1)]
    number = {word: i + 1 for i, word in enumerate(known)}  # 0 stands for all others
    data = torch.tensor([number.get(word, 0) for word in words])
    columns = data[:len(data) // ROWS * ROWS].view(ROWS, -1).t().contiguous()
    model = make_model(torch)
    optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, run.steps, eta_min=1.0)
    state = tuple(torch.zeros(LAYERS, ROWS, WIDTH) for _ in range(2))
    at = 0

    def learn(x: Any, y: Any, state: Any) -> tuple[Any, Any]:
        optimizer.zero_grad()
        logits, state = model(x, state)
        loss = torch.nn.functional.cross_entropy(logits.view(-1, WORDS), y.reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        return loss, state

    learn = run.compiled(learn)

    def step() -> Any:
        nonlocal at, state
        if at + TIME + 1 > len(columns):
            at = 0
        x, y = columns[at:at + TIME], columns[at + 1:at + TIME + 1]
        at += TIME
        loss, state = learn(x, y, state)
        state = tuple(each.detach() for each in state)  # the past is not trained
        schedule.step()
        return loss

    run.train(step, "LSTM")
    last = run.losses[-20:]
    print(f"perplexity {math.exp(sum(last) / len(last)):.1f}")
    curve(run)


if __name__ == "__main__":
    main()
