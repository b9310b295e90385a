"""`flambeau cache`."""

from __future__ import annotations

import pytest

from flambeau.cli.main import main
from flambeau.runtime import object_cache
from flambeau.runtime.object_cache import ObjectCache


@pytest.fixture
def cache(tmp_path, monkeypatch):
    made = ObjectCache(tmp_path / "objects")
    made.put("ab" * 32, b"code")
    monkeypatch.setattr(object_cache, "_default", made)
    return made


def test_life_of_a_cache(cache, tmp_path, capsys):
    archive = str(tmp_path / "kernels.zip")
    assert main(["cache", "info"]) == 0
    assert main(["cache", "pack", archive]) == 0
    assert main(["cache", "clear"]) == 0
    assert cache.get("ab" * 32) is None
    assert main(["cache", "unpack", archive]) == 0
    assert cache.get("ab" * 32) == b"code"
    said = capsys.readouterr().out
    for words in (str(cache.folder), "packed 1 kernels", "deleted 1 kernels", "unpacked 1 kernels"):
        assert words in said


def test_mistakes(cache, tmp_path, capsys):
    assert main(["cache", "unpack", str(tmp_path / "missing")]) == 1
    assert "missing" in capsys.readouterr().err
    assert main(["cache", "pack", str(tmp_path / "no" / "folder")]) == 1
    assert "cannot write" in capsys.readouterr().err
    cache.folder = None
    assert main(["cache", "clear"]) == 1
    assert "FLAMBEAU_NO_CACHE" in capsys.readouterr().err


def test_plans_are_told_apart_from_kernels(cache, tmp_path, capsys):
    cache.put("cd" * 32, b"plan", object_cache.PLAN)
    archive = str(tmp_path / "kernels.zip")
    for command in (["info"], ["pack", archive], ["clear"]):
        assert main(["cache", *command]) == 0
    said = capsys.readouterr().out
    for words in ("cached: 1 kernels, 1 plans of programs", "packed 1 kernels",
                  "deleted 1 kernels, 1 plans of programs"):
        assert words in said
    assert cache.stats()["files"] == 0
