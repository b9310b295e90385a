"""Models that a repository publishes in its `hubconf.py`. Using one runs the repository's code."""

from __future__ import annotations

import builtins
import contextlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import types
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError

from flambeau.hub.downloads import download_url_to_file, get_dir, requested
from flambeau.hub.mapped import is_mapped, mapped_spec

__all__ = ["help", "list", "load"]

GITHUB, API = "https://github.com", "https://api.github.com"
_HUBCONF = "hubconf.py"
_WRITTEN_FOR_TORCH = (". The repository is written for PyTorch; to let its `import torch` give "
                      "flambeau, load it inside `with flambeau.hub.as_torch():`")
_TRUSTED_OWNERS = ("facebookresearch", "facebookincubator", "pytorch", "fairinternal")


class _Repository(NamedTuple):
    """A place on GitHub."""

    owner: str
    name: str
    ref: str  # branch, tag or commit

    @property
    def folder(self) -> str:
        """Its name in the cache."""
        return "_".join((self.owner, self.name, self.ref.replace("/", "_")))


# -- what users call ------------------------------------------------------------------------------

def load(repo_or_dir: str, model: str, *args: Any, source: str = "github",
         trust_repo: bool | str | None = "check", force_reload: bool = False, verbose: bool = True,
         skip_validation: bool = False, **kwargs: Any) -> Any:
    """What a function of a repository's `hubconf.py` returns: as a rule, a model.

    Args:
        repo_or_dir: "owner/name" or "owner/name:branch" on GitHub; a folder if source="local".
        model: the function's name.
        args, kwargs: what it is called with.
        source: "github" or "local".
        trust_repo: the repository's code is going to run. "check": ask, unless it is trusted
            already; False: ask always; True: add it to the trusted ones; None: warn.
        force_reload: fetch the repository even if the cache has it.
        verbose: whether to say that the cache is used.
        skip_validation: do not ask GitHub whether the branch belongs to the repository itself.

    A repository that imports torch is loaded inside of `as_torch()`, or uses PyTorch.

    Raises:
        ValueError: another source; RuntimeError: no such function, or packages are missing.
    """
    source = source.lower()
    if source not in ("github", "local"):
        raise ValueError(f'Unknown source: "{source}". Allowed values: "github" | "local".')
    if source == "github":
        repo_or_dir = _fetched(repo_or_dir, force_reload, trust_repo, "load", verbose,
                               skip_validation)
    with _hubconf(repo_or_dir) as module:
        return _function(module, model)(*args, **kwargs)


def list(github: str, force_reload: bool = False, skip_validation: bool = False,
         trust_repo: bool | str | None = "check", verbose: bool = True) -> builtins.list[str]:
    """The names of the functions in a repository's `hubconf.py`; arguments as of `load`."""
    folder = _fetched(github, force_reload, trust_repo, "list", verbose, skip_validation)
    with _hubconf(folder) as module:
        return [name for name in dir(module)
                if callable(getattr(module, name)) and not name.startswith("_")]


def help(github: str, model: str, force_reload: bool = False, skip_validation: bool = False,
         trust_repo: bool | str | None = "check") -> str | None:
    """The docstring of a function in a repository's `hubconf.py`; arguments as of `load`."""
    folder = _fetched(github, force_reload, trust_repo, "help", True, skip_validation)
    with _hubconf(folder) as module:
        return _function(module, model).__doc__


# -- hubconf.py -----------------------------------------------------------------------------------

@contextlib.contextmanager
def _hubconf(folder: str | os.PathLike) -> Iterator[types.ModuleType]:
    """The module, imported anew; its own folder can be imported from inside the block."""
    folder = os.path.abspath(os.path.expanduser(os.fspath(folder)))
    path = os.path.join(folder, _HUBCONF)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{folder} has no {_HUBCONF}, which would say what it publishes")
    sys.path.insert(0, folder)
    try:
        spec = (mapped_spec("hubconf", path, folder) if is_mapped() else
                importlib.util.spec_from_file_location("hubconf", path))
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise ModuleNotFoundError(f"{path} imports torch, which is not installed"
                                      + _WRITTEN_FOR_TORCH, name="torch") from error
        yield module
    finally:
        sys.path.remove(folder)


def _function(module: types.ModuleType, name: str) -> Callable:
    needed = getattr(module, "dependencies", None) or ()
    missing = [package for package in needed if not (package == "torch" and is_mapped())
               and importlib.util.find_spec(package) is None]
    if missing:
        raise RuntimeError(f"Missing dependencies: {', '.join(missing)}"
                           + (_WRITTEN_FOR_TORCH if "torch" in missing else ""))
    if not isinstance(name, str):
        raise ValueError("Invalid input: model should be a string of function name")
    found = getattr(module, name, None)
    if not callable(found):
        raise RuntimeError(f"Cannot find callable {name} in hubconf")
    return found


# -- GitHub ---------------------------------------------------------------------------------------

def _parsed(github: str) -> _Repository:
    place, _, ref = github.partition(":")
    parts = place.split("/")
    if len(parts) != 2 or not all(parts):
        raise ValueError(f'"{github}" names no repository: it should be "owner/name" or '
                         '"owner/name:branch"; for a folder, use source="local"')
    return _Repository(*parts, ref or _default_branch(*parts))


def _default_branch(owner: str, name: str) -> str:
    """main where there is one, else master; without a connection, the one in the cache."""
    try:
        with requested(f"{GITHUB}/{owner}/{name}/tree/main/"):
            return "main"
    except HTTPError as error:
        if error.code == 404:
            return "master"
        raise
    except URLError as error:
        for ref in ("main", "master"):
            if os.path.exists(os.path.join(get_dir(), _Repository(owner, name, ref).folder)):
                return ref
        raise RuntimeError("It looks like there is no internet connection and the repo could not "
                           f"be found in the cache ({get_dir()})") from error


def _fetched(github: str, force_reload: bool, trust_repo: bool | str | None, caller: str,
             verbose: bool, skip_validation: bool) -> str:
    """The folder of a repository in the cache, fetched if it is not there."""
    repository = _parsed(github)
    folder = os.path.join(get_dir(), repository.folder)
    _check_trust(repository, trust_repo, caller)
    if not force_reload and os.path.exists(folder):
        if verbose:
            sys.stderr.write(f"Using cache found in {folder}\n")
        return folder
    if not skip_validation:
        _check_ref(repository)
    os.makedirs(get_dir(), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=get_dir()) as room:
        packed = os.path.join(room, "repository.zip")
        url = f"{GITHUB}/{repository.owner}/{repository.name}/zipball/{repository.ref}"
        sys.stderr.write(f'Downloading: "{url}" to {folder}\n')
        try:
            download_url_to_file(url, packed, progress=False)
        except HTTPError as error:
            if error.code != 300:
                raise
            raise RuntimeError(f"{repository.ref!r} is both a branch and a tag; write "
                               "refs/heads/... or refs/tags/...") from error
        unpacked = _unpacked(packed, os.path.join(room, "unpacked"))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unpacked, folder)
    return folder


def _unpacked(packed: str, room: str) -> str:
    """The only folder of a zip file, unpacked; nothing is written outside of it."""
    with zipfile.ZipFile(packed) as archive:
        names = archive.namelist()
        tops = {name.partition("/")[0] for name in names}
        for name in names:
            if name.startswith(("/", "\\")) or ".." in Path(name).parts or ":" in name.split(
                    "/")[0]:
                raise RuntimeError(f"the archive has a file {name!r}, which lies outside of it")
        if len(tops) != 1:
            raise RuntimeError(f"the archive should have one folder, but has {sorted(tops)[:5]}")
        archive.extractall(room)
    return os.path.join(room, tops.pop())


def _check_ref(repository: _Repository) -> None:
    """GitHub gives commits of forks under the original's name: only its own are taken."""
    owner, name, ref = repository
    token = os.environ.get("GITHUB_TOKEN")
    headers = {"Accept": "application/vnd.github.v3+json",
               **({"Authorization": f"token {token}"} if token else {})}
    for kind in ("branches", "tags"):
        page = 1
        while True:
            url = f"{API}/repos/{owner}/{name}/{kind}?per_page=100&page={page}"
            with requested(url, headers) as answer:
                found = json.loads(answer.read())
            if not found:
                break
            for entry in found:
                if entry["name"] == ref or entry["commit"]["sha"].startswith(ref):
                    return
            page += 1
    raise ValueError(f"Cannot find {ref} in {GITHUB}/{owner}/{name}. If it's a commit from a "
                     "forked repo, please call hub.load() with forked repo directly.")


# -- trust ----------------------------------------------------------------------------------------

def _check_trust(repository: _Repository, trust: bool | str | None, caller: str) -> None:
    """Its code is going to run: has the user agreed?"""
    known = os.path.join(get_dir(), "trusted_list")
    entry = f"{repository.owner}_{repository.name}"
    names = Path(known).read_text().split() if os.path.exists(known) else []
    trusted = entry in names or repository.owner in _TRUSTED_OWNERS
    if trust is None:
        if not trusted:
            warnings.warn(f"You are about to run code of {entry}, which is not trusted yet. Pass "
                          f"{caller}(..., trust_repo=True) if you trust it, or "
                          "trust_repo='check' to be asked", stacklevel=4)
        return
    asks = trust is False or trust == "check" and not trusted
    if asks:
        answer = input(f"The repository {entry} is not in the list of trusted repositories, and "
                       "its code is going to run. Do you trust it and want to add it to the list "
                       "(y/N)? ")
        if answer.strip().lower() not in ("y", "yes"):
            raise RuntimeError(f"The repository {entry} is not trusted: nothing was run")
    elif trust not in (True, "check"):
        raise ValueError(f"trust_repo should be True, False, 'check' or None, not {trust!r}")
    if entry not in names and (asks or trust is True):
        os.makedirs(get_dir(), exist_ok=True)
        with open(known, "a") as file:
            file.write(f"{entry}\n")
