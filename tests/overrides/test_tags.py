"""`torch.Tag` and the default backend of `torch.compile`."""

from __future__ import annotations

import pytest

import flambeau as torch


def test_operators_keep_their_tags():
    torch.library.define("tests_tags::one", "(Tensor x) -> Tensor", tags=torch.Tag.pointwise)
    assert torch.ops.tests_tags.one.default.tags == [torch.Tag.pointwise]
    lib = torch.library.Library("tests_tags", "FRAGMENT")
    lib.define("two(Tensor x) -> Tensor", tags=(torch.Tag.core, torch.Tag.reduction))
    assert torch.ops.tests_tags.two.default.tags == [torch.Tag.core, torch.Tag.reduction]
    lib.define("three(Tensor x) -> Tensor")
    assert torch.ops.tests_tags.three.default.tags == []
    with pytest.raises(TypeError, match=r"expected torch\.Tag"):
        torch.library.define("tests_tags::four", "(Tensor x) -> Tensor", tags="pointwise")


def test_the_default_backend_is_what_compile_takes():
    assert torch.compiler.get_default_backend() == "inductor"
    torch.compiler.set_default_backend("eager")
    try:
        ran = []
        function = torch.compile(lambda x: ran.append(1) or x + 1)
        for _ in range(3):
            assert function(torch.ones(1)).item() == 2.0
        assert len(ran) == 3  # in Python each time
    finally:
        torch.compiler.set_default_backend(None)
    assert torch.compiler.get_default_backend() == "inductor"
    with pytest.raises(RuntimeError, match="Invalid backend"):
        torch.compiler.set_default_backend("nonsense")
