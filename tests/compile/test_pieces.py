"""Long programs are planned in pieces: the same results as of one plan, and equal pieces once."""

import importlib
import itertools

import pytest

import flambeau as torch
import flambeau.nn.functional as F
from flambeau import nn
from flambeau.compiler.pieces.repeats import Stretch, repeats

joining = importlib.import_module("flambeau.compiler.pieces.joining")
program = importlib.import_module("flambeau.compiler.program")


@pytest.mark.parametrize(("items", "shortest", "found"), [
    ("", 1, []),
    ("abcabc", 1, []),  # twice is not enough
    ("abcabcabc", 1, [(0, 3, 3)]),
    ("xabcabcabcaby", 2, [(1, 3, 3)]),
    ("aaaaaaaa", 2, [(0, 2, 4)]),
    ("aaaaaaaa", 3, []),
    ("xabababyccccccz", 2, [(1, 2, 3), (8, 2, 3)]),
    ("abcdabcdabcdxdcbadcbadcba", 3, [(0, 4, 3), (13, 4, 3)]),
])
def test_repeats(items, shortest, found):
    assert repeats(items, shortest) == [Stretch(*each) for each in found]


class Block(nn.Module):
    def __init__(self, width, heads, dropout):
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)
        self.heads = heads

    def forward(self, x):
        n, length, width = x.shape
        q, k, v = self.qkv(self.before(x)).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.dropout(self.out(y.transpose(1, 2).reshape(n, length, width)))
        return x + self.down(F.gelu(self.up(self.between(x))))


class Model(nn.Module):
    def __init__(self, layers, dropout=0.0):
        super().__init__()
        self.embedding = nn.Embedding(11, 16)
        self.blocks = nn.ModuleList(Block(16, 2, dropout) for _ in range(layers))
        self.head = nn.Linear(16, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def training(layers, optimizer, dropout=0.0, clip=None, average=False):
    """(step, what it changes) of a small language model."""
    torch.manual_seed(3)
    model = Model(layers, dropout)
    optimizer = optimizer(model.parameters())
    copies = [p.detach().clone() for p in model.parameters()] if average else []

    def step(tokens):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        with torch.no_grad():
            for copy, p in zip(copies, model.parameters(), strict=False):
                copy.mul_(0.9).add_(p, alpha=0.1)
        return loss

    return step, [*model.parameters(), *copies]


RECIPES = {
    "adamw": (lambda p: torch.optim.AdamW(p, 1e-2), {}),
    "momentum, clipped": (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), {"clip": 0.5}),
    "averaged": (lambda p: torch.optim.Adam(p, 1e-2), {"average": True}),
    "dropout": (lambda p: torch.optim.SGD(p, 0.1), {"dropout": 0.2}),
}


@pytest.fixture
def divided(monkeypatch, fresh_plans):
    """How many pieces each long program had, and how many of those were planned."""
    found = []
    run = joining._Joined.run

    def counted(self, pieces):
        plan = run(self, pieces)
        found.append((len(pieces), len(self.known)))
        return plan

    monkeypatch.setattr(joining._Joined, "run", counted)
    return found


def tokens_of(count):
    torch.manual_seed(7)
    return [torch.randint(0, 11, (2, 6)) for _ in range(count)]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("recipe", RECIPES)
def test_steps_in_pieces_compute_the_same(recipe, exact, divided):
    optimizer, more = RECIPES[recipe]
    batches = tokens_of(4)
    eager, wanted = training(6, optimizer, **more)
    torch.manual_seed(1)
    losses = [eager(tokens).item() for tokens in batches]
    step, got = training(6, optimizer, **more)
    compiled = torch.compile(step, options={"exact": exact})
    torch.manual_seed(1)
    found = [compiled(tokens).item() for tokens in batches]
    assert divided
    assert all(planned < pieces for pieces, planned in divided)
    if exact:
        assert found == losses
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    else:
        torch.testing.assert_close(found, losses, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def test_the_number_of_plans_does_not_depend_on_depth(divided):
    for layers in (6, 12):
        step, _ = training(layers, RECIPES["adamw"][0])
        compiled = torch.compile(step)
        for tokens in tokens_of(2):
            compiled(tokens)
    few, many = divided[0], divided[-1]
    assert few[1] == many[1] < few[0] < many[0]


def test_explain_names_memory_of_the_whole_program(divided):
    step, _ = training(6, RECIPES["adamw"][0])
    compiled = torch.compile(step)
    for tokens in tokens_of(3):
        compiled(tokens)
    assert divided
    reports = importlib.import_module("flambeau.compile.explain").reports(compiled, False)
    kernels = reports[0].kernels
    modules = {kernel.module for kernel in kernels}
    assert all(any(f"blocks.{n}." in module for module in modules) for n in range(6))
    made = set(itertools.chain.from_iterable(kernel.makes for kernel in kernels))
    taken = set(itertools.chain.from_iterable(kernel.takes for kernel in kernels))
    assert all(name in made for name in taken if name[0] == "temp")


def test_results_that_are_equal_and_updates_that_are_read(divided):
    """Copies of what is known come last; a scatter into an input that is read again keeps the
    program whole."""
    def recipe(counted):
        torch.manual_seed(3)
        model, seen = Model(6), torch.zeros(11)

        def step(tokens):
            if counted:
                seen.index_add_(0, tokens.flatten(), torch.ones(tokens.numel()))
            loss = (model(tokens) * (seen + 1)).square().mean()
            model.zero_grad()
            loss.backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.01 * p.grad
            return loss, tokens * 2, tokens * 2, seen.clone()

        return step, [*model.parameters(), seen]

    for counted in (False, True):
        divided.clear()
        batches = tokens_of(3)
        eager, wanted = recipe(counted)
        plain, got = recipe(counted)
        compiled = torch.compile(plain, options={"exact": False})
        for tokens in batches:
            for a, b in zip(compiled(tokens), eager(tokens), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)
        assert bool(divided) is not counted
