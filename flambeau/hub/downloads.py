"""Files by their address: fetched once, checked, and put in place in one piece."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import secrets
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import Request, urlopen

from flambeau.serialization import load

__all__ = ["download_url_to_file", "get_dir", "load_state_dict_from_url", "requested", "set_dir"]

_CHUNK = 128 << 10  # bytes read at a time
_HASH = re.compile(r"-([a-f0-9]*)\.")  # "resnet18-f37072fd.pth"
_MOST_EXPANSION = 100  # an old checkpoint inside a zip file may grow this many times
_chosen: list[str] = []  # by set_dir


def get_dir() -> str:
    """The folder of the cache: what `set_dir` chose, else `hub` in $TORCH_HOME, else in
    $XDG_CACHE_HOME/torch, by default ~/.cache/torch. It is PyTorch's, so files are shared."""
    if _chosen:
        return _chosen[-1]
    cache = os.getenv("XDG_CACHE_HOME", "~/.cache")
    home = os.getenv("TORCH_HOME", os.path.join(cache, "torch"))
    return os.path.join(os.path.expanduser(home), "hub")


def set_dir(d: str | os.PathLike) -> None:
    """Choose the folder of the cache."""
    _chosen[:] = [os.path.expanduser(os.fspath(d))]


def requested(url: str, headers: dict[str, str] | None = None) -> Any:
    """An open answer to a request: http, https, ftp or file.

    Raises:
        urllib.error.URLError: there is no answer.
    """
    return urlopen(Request(url, headers={"User-Agent": "torch.hub", **(headers or {})}))


def download_url_to_file(url: str, dst: str | os.PathLike, hash_prefix: str | None = None,
                         progress: bool = True) -> None:
    """Fetch a file; it appears under its name when it is complete and its hash is right.

    Args:
        url: of the file.
        dst: where to put it.
        hash_prefix: how its SHA-256 must begin, in hexadecimal.
        progress: whether to show how far it is.

    Raises:
        RuntimeError: the hash is another one, or the transfer ended too early.
        urllib.error.URLError: the address does not answer.
    """
    dst = os.path.expanduser(os.fspath(dst))
    partial = f"{dst}.{secrets.token_hex(4)}.partial"
    try:
        with requested(url) as answer, open(partial, "xb") as file:
            found = _copy(answer, file, progress)
        if hash_prefix and not found.startswith(hash_prefix):
            raise RuntimeError(f'invalid hash value (expected "{hash_prefix}", got "{found}"): '
                               f"{url} gives another file than expected, or a damaged one")
        os.replace(partial, dst)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)


def _copy(answer: Any, file: io.BufferedWriter, progress: bool) -> str:
    """Copy what arrives; its SHA-256."""
    length = answer.headers.get("Content-Length")
    expected = int(length) if length and length.isdigit() else None
    digest, done = hashlib.sha256(), 0
    with _shown(expected, progress) as advance:
        while data := answer.read(_CHUNK):
            file.write(data)
            digest.update(data)
            done += len(data)
            advance(len(data))
    if expected is not None and done != expected:
        raise RuntimeError(f"the transfer of {answer.url} ended after {done} of {expected} bytes; "
                           "try again")
    return digest.hexdigest()


@contextlib.contextmanager
def _shown(total: int | None, progress: bool) -> Iterator[Any]:
    """A function that is told of bytes, and shows them: tqdm's bar, else percentages."""
    try:
        from tqdm import tqdm
    except ImportError:
        percent = _Percent(total if progress else None)
        yield percent.advance
        percent.end()
        return
    with tqdm(total=total, disable=not progress, unit="B", unit_scale=True,
              unit_divisor=1024) as bar:
        yield bar.update


class _Percent:
    """Progress as a number that replaces itself."""

    def __init__(self, total: int | None):
        self.total, self.done, self.shown = total, 0, ""

    def advance(self, count: int) -> None:
        """More bytes are there."""
        self.done += count
        if self.total:
            text = f"\r{100 * self.done / self.total:.0f}%"
            if text != self.shown:
                sys.stderr.write(text)
                sys.stderr.flush()
                self.shown = text

    def end(self) -> None:
        """Finish the line."""
        if self.shown:
            sys.stderr.write("\n")


# -- checkpoints ----------------------------------------------------------------------------------

def load_state_dict_from_url(url: str, model_dir: str | None = None, map_location: Any = None,
                             progress: bool = True, check_hash: bool = False,
                             file_name: str | None = None, weights_only: bool = False) -> Any:
    """The checkpoint at an address, from the cache if it has been fetched before.

    Args:
        url: of a file that `torch.save` wrote, or a safetensors file.
        model_dir: the folder of the cache; `checkpoints` in that of `get_dir` if none is given.
        map_location, weights_only: as of `torch.load`; no code of the file is run either way.
        progress: whether to show how far the transfer is, on standard error.
        check_hash: the file's name ends in the first digits of its SHA-256, "name-0123abcd.pth",
            which have to be right.
        file_name: its name in the cache; that in the address if none is given.

    Raises:
        RuntimeError: the hash is wrong; CheckpointError: the file is no checkpoint or damaged.
    """
    if os.getenv("TORCH_MODEL_ZOO"):
        warnings.warn("TORCH_MODEL_ZOO is deprecated, please use env TORCH_HOME instead",
                      stacklevel=2)
    folder = Path(model_dir or os.path.join(get_dir(), "checkpoints"))
    folder.mkdir(parents=True, exist_ok=True)
    name = file_name or os.path.basename(urlparse(url).path)
    if not name or os.path.basename(name) != name:
        raise ValueError(f"{url} does not end in the name of a file; give file_name")
    path = folder / name
    if not path.exists():
        sys.stderr.write(f'Downloading: "{url}" to {path}\n')
        found = _HASH.search(name) if check_hash else None
        download_url_to_file(url, path, found[1] if found else None, progress)
    packed = _packed_checkpoint(path)
    return load(path if packed is None else packed, map_location, weights_only=weights_only)


def _packed_checkpoint(path: Path) -> io.BytesIO | None:
    """The only file inside of a zip file: how checkpoints were compressed before PyTorch 1.6."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) != 1 or members[0].is_dir():
            return None
        if members[0].file_size > _MOST_EXPANSION * path.stat().st_size:
            raise RuntimeError(f"{path} would grow to {members[0].file_size} bytes, which looks "
                               "like a decompression bomb")
        warnings.warn("Falling back to the old format < 1.6. Please redo torch.save() to save it "
                      "in the new zipfile format.", FutureWarning, stacklevel=3)
        return io.BytesIO(archive.read(members[0]))
