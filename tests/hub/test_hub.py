"""The hub, against a server on this machine that answers like GitHub."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import sys
import threading
import warnings
import zipfile
from urllib.error import URLError

import pytest

import flambeau as torch
from flambeau import hub
from flambeau.hub import repositories

HUBCONF = '''
dependencies = ["json"]
from helper import FACTOR

def model(width, scale=1):
    """A small model."""
    return width * scale * FACTOR

def _hidden():
    pass
'''


class Server:
    """Answers by path: bytes, or (bytes, the length it claims)."""

    def __init__(self):
        self.answers, self.asked = {}, []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                answer = server.answers.get(self.path)
                if answer is None:
                    self.send_error(404)
                    return
                data, length = answer if isinstance(answer, tuple) else (answer, len(answer))
                self.send_response(200)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server(tmp_path, monkeypatch):
    made = Server()
    monkeypatch.setattr(repositories, "GITHUB", made.url)
    monkeypatch.setattr(repositories, "API", made.url + "/api")
    before = list(hub.downloads._chosen)
    hub.set_dir(tmp_path / "hub")
    yield made
    hub.downloads._chosen[:] = before
    made.http.shutdown()
    made.http.server_close()


def checkpoint(**options):
    file = io.BytesIO()
    torch.save({"w": torch.arange(3.)}, file, **options)
    return file.getvalue()


def repository(server, files, ref="main", owner="me"):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    server.answers |= {
        f"/{owner}/repo/zipball/{ref}": packed.getvalue(), f"/{owner}/repo/tree/main/": b"",
        f"/api/repos/{owner}/repo/branches?per_page=100&page=1": json.dumps(
            [{"name": ref, "commit": {"sha": "0123abcd"}}]).encode(),
        f"/api/repos/{owner}/repo/branches?per_page=100&page=2": b"[]",
        f"/api/repos/{owner}/repo/tags?per_page=100&page=1": b"[]"}


FILES = {"me-repo-1/hubconf.py": HUBCONF, "me-repo-1/helper.py": "FACTOR = 10\n"}


# -- checkpoints ----------------------------------------------------------------------------------

def test_checkpoints_are_fetched_once(server, tmp_path):
    data = checkpoint()
    name = f"net-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    server.answers["/" + name] = data
    for _ in range(2):
        state = hub.load_state_dict_from_url(f"{server.url}/{name}", check_hash=True,
                                             progress=False)
        assert state["w"].tolist() == [0, 1, 2]
    assert server.asked == ["/" + name]
    assert os.listdir(tmp_path / "hub" / "checkpoints") == [name]
    found = hub.load_state_dict_from_url(f"{server.url}/{name}", str(tmp_path / "other"), "meta",
                                         progress=False, file_name="x.pt")
    assert found["w"].device.type == "meta" and (tmp_path / "other" / "x.pt").exists()


@pytest.mark.parametrize("progress", [True, False])
def test_nothing_is_left_of_a_bad_transfer(server, tmp_path, progress, capfd):
    server.answers |= {"/a.pth": b"abc", "/short.pth": (b"abc", 10)}
    target = tmp_path / "a.pth"
    with pytest.raises(RuntimeError, match=r"invalid hash value \(expected \"ffff\""):
        hub.download_url_to_file(f"{server.url}/a.pth", str(target), "ffff", progress)
    with pytest.raises(RuntimeError, match="3 of 10 bytes"):
        hub.download_url_to_file(f"{server.url}/short.pth", str(target), None, progress)
    with pytest.raises(URLError):
        hub.download_url_to_file(f"{server.url}/none.pth", str(target), None, progress)
    assert os.listdir(tmp_path) == []
    hub.download_url_to_file(f"{server.url}/a.pth", str(target), progress=progress)
    assert target.read_bytes() == b"abc"
    assert ("100" in capfd.readouterr().err) == progress


def test_files_on_this_machine(server, tmp_path):
    (tmp_path / "m.pt").write_bytes(checkpoint(_use_new_zipfile_serialization=False))
    with zipfile.ZipFile(tmp_path / "n.zip", "w") as archive:
        archive.write(tmp_path / "m.pt", "m.pt")
    url = (tmp_path / "n.zip").as_uri()
    with pytest.warns(FutureWarning, match="old format"):
        assert hub.load_state_dict_from_url(url, progress=False)["w"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="file_name"):
        hub.load_state_dict_from_url("http://127.0.0.1/")


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setattr(hub.downloads, "_chosen", [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCH_HOME", raising=False)
    assert hub.get_dir() == str(tmp_path / "torch" / "hub")
    monkeypatch.setenv("TORCH_HOME", "~/here")
    assert hub.get_dir() == os.path.expanduser("~/here/hub")


# -- repositories ---------------------------------------------------------------------------------

def test_folders_of_this_machine(tmp_path):
    (tmp_path / "hubconf.py").write_text(HUBCONF)
    (tmp_path / "helper.py").write_text("FACTOR = 10\n")
    assert hub.load(str(tmp_path), "model", 2, scale=3, source="local") == 60
    with pytest.raises(RuntimeError, match="Cannot find callable nothing"):
        hub.load(tmp_path, "nothing", source="local")
    with pytest.raises(ValueError, match="Unknown source"):
        hub.load(str(tmp_path), "model", source="moon")
    with pytest.raises(FileNotFoundError, match=r"hubconf\.py"):
        hub.load(str(tmp_path / "none"), "model", source="local")
    (tmp_path / "hubconf.py").write_text("dependencies = ['no_such_package']\n")
    with pytest.raises(RuntimeError, match="Missing dependencies: no_such_package"):
        hub.load(str(tmp_path), "model", source="local")


def test_repositories(server, tmp_path):
    repository(server, FILES)
    assert hub.load("me/repo", "model", 2, trust_repo=True) == 20
    assert hub.list("me/repo") == ["model"]
    assert hub.help("me/repo:main", "model") == "A small model."
    assert (tmp_path / "hub" / "trusted_list").read_text() == "me_repo\n"
    assert sorted(os.listdir(tmp_path / "hub")) == ["me_repo_main", "trusted_list"]
    FILES_2 = {**FILES, "me-repo-1/helper.py": "FACTOR = 7\n"}
    repository(server, FILES_2)
    assert hub.load("me/repo", "model", 2) == 20
    assert server.asked.count("/me/repo/zipball/main") == 1


@pytest.mark.parametrize(("answer", "trusted"), [("y", True), ("", False), ("n", False)])
def test_a_repository_that_is_not_trusted(server, tmp_path, monkeypatch, answer, trusted):
    repository(server, FILES)
    asked = []

    def answered(text):
        asked.append(text)
        return answer
    monkeypatch.setattr("builtins.input", answered)
    if trusted:
        assert hub.load("me/repo", "model", 1) == hub.load("me/repo", "model", 1) == 10
    else:
        with pytest.raises(RuntimeError, match="not trusted"):
            hub.load("me/repo", "model", 1)
        assert not (tmp_path / "hub").exists()
    assert len(asked) == 1 and "me_repo" in asked[0]


def test_nobody_is_asked_about_known_owners(server):
    repository(server, FILES, owner="pytorch")
    assert hub.load("pytorch/repo", "model", 1) == 10
    repository(server, FILES)
    with pytest.warns(UserWarning, match="not trusted"):
        assert hub.load("me/repo", "model", 1, trust_repo=None) == 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hub.load("pytorch/repo", "model", 1, trust_repo=None, verbose=False)


def test_commits_of_forks_are_refused(server):
    repository(server, FILES)
    with pytest.raises(ValueError, match="forked repo"):
        hub.load("me/repo:deadbeef", "model", 1, trust_repo=True)
    with pytest.raises(ValueError, match="owner/name"):
        hub.load("repo", "model")


def test_archives_that_reach_outside(server, tmp_path):
    for name in ("../evil.py", "/evil.py", "me-repo-1/../../evil.py"):
        repository(server, {**FILES, name: "x"})
        with pytest.raises(RuntimeError, match="outside"):
            hub.load("me/repo", "model", 1, trust_repo=True)
    repository(server, {**FILES, "other/evil.py": "x"})
    with pytest.raises(RuntimeError, match="one folder"):
        hub.load("me/repo", "model", 1, trust_repo=True)
    assert not list(tmp_path.rglob("evil.py"))


# -- repositories that import torch ----------------------------------------------------------------

FOR_TORCH = {
    "hubconf.py": """
dependencies = ["torch"]
import torch, torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torch import Tensor
from parts.layers import Twice, library

def model(width):
    return nn.Sequential(nn.Linear(width, 2), Twice())

def libraries():
    import torch.optim
    from parts import late
    return torch.__name__, library(), late.NAME, torch.optim.SGD.__module__, F.relu.__module__
""",
    "parts/__init__.py": "import torch\n",
    "parts/layers.py": """
import torch
from .deeper import NAME

class Twice(torch.nn.Module):
    def forward(self, x):
        import torch as again
        return again.cat([x, x]) * 2

def library():
    return NAME
""",
    "parts/deeper.py": "import torch\nNAME = torch.__name__\n",
    "parts/late.py": "import torch.nn as nn\nNAME = nn.__name__\n",
}


@pytest.fixture
def for_torch(tmp_path):
    for name, text in FOR_TORCH.items():
        path = tmp_path / "repository" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    yield str(tmp_path / "repository")
    for name in [name for name in sys.modules if name.split(".")[0] == "parts"]:
        del sys.modules[name]


def test_code_written_for_torch(for_torch):
    before = {name: module for name, module in sys.modules.items() if name.startswith("torch")}
    with torch.hub.as_torch():
        model = torch.hub.load(for_torch, "model", 3, source="local")
        found = torch.hub.load(for_torch, "libraries", source="local")
    assert found[:3] == ("flambeau", "flambeau", "flambeau.nn")
    assert all(name.startswith("flambeau") for name in found[3:])
    assert model(torch.ones(4, 3)).shape == (8, 2)  # its forward imports torch once more
    assert {n: m for n, m in sys.modules.items() if n.startswith("torch")} == before
    assert torch.nn.__spec__.name == "flambeau.nn"


def test_code_written_for_torch_without_being_told(for_torch):
    class NoTorch:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "torch":
                raise ModuleNotFoundError("No module named 'torch'", name="torch")

    sys.meta_path.insert(0, finder := NoTorch())
    hidden = {n: sys.modules.pop(n) for n in list(sys.modules) if n.partition(".")[0] == "torch"}
    try:
        with pytest.raises(ModuleNotFoundError, match=r"inside `with flambeau\.hub\.as_torch"):
            torch.hub.load(for_torch, "model", 3, source="local")
        with torch.hub.as_torch():
            torch.hub.load(for_torch, "model", 3, source="local")
    finally:
        sys.meta_path.remove(finder)
        sys.modules.update(hidden)
