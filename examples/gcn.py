"""A graph convolutional network (Kipf, Welling 2017) that finds communities from a few labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from shared import Run, save_picture, start

NODES, GROUPS, HIDDEN, LABELLED = 240, 4, 16, 3


def make_graph(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(edges (2, m) in both directions, groups, places to draw the nodes at): nodes of one group
    are linked more often."""
    rng = np.random.default_rng(seed)
    groups = np.arange(NODES) % GROUPS
    alike = groups[:, None] == groups
    linked = np.triu(rng.random((NODES, NODES)) < np.where(alike, 0.08, 0.008), 1)
    edges = np.stack(np.nonzero(linked | linked.T))
    angle = 2 * np.pi * groups / GROUPS
    places = np.stack([np.cos(angle), np.sin(angle)], 1) + rng.normal(0, 0.25, (NODES, 2))
    return edges, groups, places


def make_model(torch: Any, features: int) -> Any:
    """Two layers; the graph is a sparse matrix."""
    nn = torch.nn

    class GCN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(features, HIDDEN, bias=False)
            self.second = nn.Linear(HIDDEN, GROUPS, bias=False)
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Any, graph: Any) -> Any:
            x = torch.relu(torch.sparse.mm(graph, self.first(x)))
            return torch.sparse.mm(graph, self.second(self.drop(x)))

    return GCN()


def normalized(torch: Any, edges: np.ndarray) -> Any:
    """D^-1/2 (A + I) D^-1/2 as a sparse matrix."""
    index = np.concatenate([edges, np.tile(np.arange(NODES), (2, 1))], 1)
    degree = np.bincount(index[0], minlength=NODES)
    weight = 1 / np.sqrt(degree[index[0]] * degree[index[1]])
    return torch.sparse_coo_tensor(torch.from_numpy(index),
                                   torch.from_numpy(weight).to(torch.get_default_dtype()),
                                   (NODES, NODES)).coalesce()


def draw(run: Run, edges: np.ndarray, groups: np.ndarray, places: np.ndarray) -> None:
    """The graph with its nodes in the colours of the groups."""
    size = 480
    at = ((places - places.min(0)) / np.ptp(places, 0) * (size - 40) + 20).astype(int)
    canvas = np.ones((size, size, 3), np.float32)
    for a, b in edges.T:
        line = np.linspace(at[a], at[b], 2 * size).astype(int)
        canvas[line[:, 1], line[:, 0]] = 0.85
    colours = [(0.85, 0.2, 0.2), (0.2, 0.6, 0.2), (0.2, 0.3, 0.85), (0.9, 0.6, 0.1)]
    for (x, y), group in zip(at, groups, strict=True):
        canvas[y - 3:y + 4, x - 3:x + 4] = colours[group]
    save_picture(run, canvas)


def main() -> None:
    """Train on a few labels; print the share of right answers on all other nodes."""
    run = start(__doc__, steps=200)
    torch = run.torch
    edges, groups, places = make_graph(run.seed)
    graph, labels = normalized(torch, edges), torch.from_numpy(groups)
    x = torch.eye(NODES)
    seen = torch.arange(GROUPS * LABELLED)
    model = make_model(torch, NODES)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)

    def step() -> Any:
        model.train()
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x, graph)[seen], labels[seen])
        loss.backward()
        optimizer.step()
        return loss

    run.train(run.compiled(step), "GCN")
    model.eval()
    with torch.no_grad():
        found = model(x, graph).argmax(1)
    right = (found == labels)[len(seen):].float().mean()
    print(f"{float(right):.3f} of the unlabelled nodes are right")
    draw(run, edges, found.numpy(), places)


if __name__ == "__main__":
    main()
