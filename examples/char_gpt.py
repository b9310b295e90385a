"""A character-level GPT on Python's own documentation: a decoder of 3 layers, then some text."""

from __future__ import annotations

from typing import Any

from shared import Run, curve, documentation, start

CONTEXT, WIDTH, HEADS, LAYERS, BATCH = 64, 96, 4, 3, 24


def make_model(torch: Any, vocabulary: int) -> Any:
    """The model; its result is (logits, loss or None)."""
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
            self.drop = nn.Dropout(0.1)

        def forward(self, x: Any) -> Any:
            batch, time, width = x.shape
            q, k, v = self.qkv(self.norm1(x)).split(width, dim=2)
            q, k, v = (t.view(batch, time, HEADS, width // HEADS).transpose(1, 2)
                       for t in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.drop(self.out(y.transpose(1, 2).reshape(batch, time, width)))
            return x + self.drop(self.down(F.gelu(self.up(self.norm2(x)))))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(vocabulary, WIDTH)
            self.places = nn.Embedding(CONTEXT, WIDTH)
            self.blocks = nn.ModuleList([Block() for _ in range(LAYERS)])
            self.norm = nn.LayerNorm(WIDTH)
            self.head = nn.Linear(WIDTH, vocabulary, bias=False)
            self.apply(self._begin)
            self.tokens.weight = self.head.weight

        def _begin(self, module: Any) -> None:
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

        def forward(self, ids: Any, targets: Any = None) -> tuple[Any, Any]:
            x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
            for block in self.blocks:
                x = block(x)
            logits = self.head(self.norm(x))
            if targets is None:
                return logits, None
            return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return GPT()


def write(run: Run, model: Any, ids: Any, characters: int) -> Any:
    """`ids` with more characters, each drawn from what the model expects."""
    torch = run.torch
    model.eval()
    with torch.no_grad():
        for _ in range(characters):
            logits, _ = model(ids[:, -CONTEXT:])
            likely = torch.softmax(logits[:, -1] / 0.8, dim=-1)
            ids = torch.cat([ids, torch.multinomial(likely, 1)], dim=1)
    return ids


def main() -> None:
    """Train, show a sample, draw the losses."""
    run = start(__doc__, steps=400)
    torch = run.torch
    text = documentation()
    alphabet = sorted(set(text))
    number = {character: i for i, character in enumerate(alphabet)}
    data = torch.tensor([number[character] for character in text])
    model = make_model(torch, len(alphabet))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, betas=(0.9, 0.95), weight_decay=0.1)

    def learn(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        _, loss = model(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    learn = run.compiled(learn)

    def step() -> Any:
        at = torch.randint(len(data) - CONTEXT - 1, (BATCH,))
        x = torch.stack([data[i:i + CONTEXT] for i in at.tolist()])
        y = torch.stack([data[i + 1:i + 1 + CONTEXT] for i in at.tolist()])
        return learn(x, y)

    run.train(step, "GPT")
    ids = write(run, model, torch.tensor([[number["\n"]]]), 200 if run.steps >= 100 else 10)
    print("".join(alphabet[i] for i in ids[0].tolist()))
    curve(run)


if __name__ == "__main__":
    main()
