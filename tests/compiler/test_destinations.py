"""Results computed where they end up: reshapes of maps, lookups that are index arithmetic, and the
order in which results lie."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as fb
from flambeau.compiler.ranges import lies_inside, range_of
from flambeau.ops import primitives as p
from flambeau.tensor import launches

F = fb.nn.functional
IMAGE = np.arange(2 * 8 * 6 * 4, dtype=np.float32).reshape(2, 8, 6, 4)
NEW = np.zeros((2, 8, 13, 17), np.float32)  # no other test has seen a program for these sizes


@pytest.fixture
def arenas(monkeypatch):
    """Bytes of temporaries of every plan that is made."""
    found, plan = [], launches.plan

    def noted(*args, **kwargs):
        made = plan(*args, **kwargs)
        found.append(made.arena_bytes)
        return made

    monkeypatch.setattr(launches, "plan", noted)
    return found


@pytest.mark.parametrize("call", [
    lambda x: F.channel_shuffle(x, 4), lambda x: F.pixel_shuffle(x, 2),
    lambda x: x.repeat(1, 3, 2, 1), lambda x: x.transpose(1, 3).reshape(2, -1),
    lambda x: F.pad(x, (1, 2, 1, 0), mode="replicate"),
    lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect"),
], ids=["channel_shuffle", "pixel_shuffle", "repeat", "reshape", "replicate", "reflect"])
def test_nothing_is_stored_in_between(call, arenas):
    call(fb.tensor(NEW))
    assert arenas, "the plan was known already"
    assert not any(arenas)


@pytest.mark.parametrize(("mode", "named"), [("replicate", "edge"), ("reflect", "reflect"),
                                             ("circular", "wrap")])
def test_padding_equals_numpy(mode, named):
    wanted = np.pad(IMAGE, ((0, 0), (0, 0), (2, 1), (1, 3)), mode=named)
    for image in (fb.tensor(IMAGE), fb.tensor(IMAGE).to(memory_format=fb.channels_last)):
        assert np.array_equal(F.pad(image, (1, 3, 2, 1), mode=mode).numpy(), wanted)


def test_results_keep_the_order_of_their_input():
    x = fb.tensor(IMAGE[0, 0]).t()
    for result in (x.flip(0), F.glu(x, 0), x.diff(dim=0), fb.diagonal_scatter(x, fb.zeros(4))):
        assert result.stride(0) == 1
    image = fb.tensor(IMAGE).to(memory_format=fb.channels_last)
    assert F.pixel_shuffle(image, 2).is_contiguous(memory_format=fb.channels_last)


def test_ranges():
    place = p.iota((10,), 0)
    moved = p.sub(place, p.filled(3, place))
    assert range_of(moved) == (-3, 6)
    clamped = p.minimum(p.maximum(moved, p.filled(0, moved)), p.filled(4, moved))
    assert lies_inside(clamped, 5) and not lies_inside(clamped, 4) and not lies_inside(moved, 10)
    assert range_of(p.mul(place, place)) is None
