"""A model from an address: fetched once, checked before it is kept, and no half of one ever left behind."""

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dragon_core.errors import ModelError
from dragon_runtime.models import resolve_model
from dragon_runtime.settings import ModelSettings

pytestmark = pytest.mark.integration

CONTENT = b"GGUF" + bytes(range(256)) * 12_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
OTHER_DIGEST = "0" * 64


class _Handler(BaseHTTPRequestHandler):
    """`/model` is whole, `/moved` leads to it, `/dies` and `/dies-unannounced` end in the middle."""

    def do_GET(self) -> None:
        assert isinstance(self.server, ModelServer)
        self.server.requested.append(self.path)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/model")
            self.end_headers()
            return
        if self.path not in ("/model", "/dies", "/dies-unannounced"):
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/dies-unannounced":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT if self.path == "/model" else CONTENT[: len(CONTENT) // 2])
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Tests are quiet."""


class ModelServer(ThreadingHTTPServer):
    """On a free port of this machine."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requested: list[str] = []

    def settings(self, path: str, *, sha256: str = DIGEST) -> ModelSettings:
        return ModelSettings(url=f"http://127.0.0.1:{self.server_address[1]}{path}", sha256=sha256)


def names_in(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/model", "/moved"])
async def test_a_model_is_fetched_once_and_kept(server: ModelServer, tmp_path: Path, path: str) -> None:
    folder = tmp_path / "models"
    progress: list[tuple[int, int | None]] = []
    settings = server.settings(path)
    found = await resolve_model(settings, folder, progress=lambda done, total: progress.append((done, total)))
    assert found.read_bytes() == CONTENT
    assert names_in(folder) == [found.name]
    assert progress[-1] == (len(CONTENT), len(CONTENT))
    assert progress == sorted(progress)
    num_requests = len(server.requested)
    assert await resolve_model(settings, folder) == found
    assert len(server.requested) == num_requests


@pytest.mark.parametrize(
    ("path", "digest", "reasons"),
    [
        ("/model", OTHER_DIGEST, [DIGEST, OTHER_DIGEST, "fix model.sha256"]),
        ("/dies", DIGEST, ["cannot be fetched", "try again, or set model.path"]),
        ("/dies-unannounced", DIGEST, [DIGEST, hashlib.sha256(CONTENT[: len(CONTENT) // 2]).hexdigest()]),
        ("/absent", DIGEST, ["cannot be fetched", "404"]),
    ],
)
async def test_what_is_not_the_whole_model_is_not_kept(
    server: ModelServer, tmp_path: Path, path: str, digest: str, reasons: list[str]
) -> None:
    settings = server.settings(path, sha256=digest)
    with pytest.raises(ModelError) as refusal:
        await resolve_model(settings, tmp_path)
    assert str(settings.url) in str(refusal.value)
    for reason in reasons:
        assert reason in str(refusal.value)
    assert names_in(tmp_path) == []
    assert (await resolve_model(server.settings("/model"), tmp_path)).read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/model", "http://127.0.0.1:port/model"])
async def test_an_address_where_nothing_is_says_so(tmp_path: Path, url: str) -> None:
    with pytest.raises(ModelError, match=r"cannot be fetched from .*: .+; try again, or set model.path"):
        await resolve_model(ModelSettings(url=url, sha256=DIGEST), tmp_path)
    assert names_in(tmp_path) == []


def test_the_command_links_the_model_or_says_why_it_cannot(server: ModelServer, tmp_path: Path) -> None:
    def fetch(path: str, digest: str) -> "subprocess.CompletedProcess[str]":
        url = server.settings(path).url
        command = [sys.executable, "-m", "dragon_runtime.models", "--url", str(url), "--sha256", digest]
        return subprocess.run(
            [*command, "--folder", str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
        )

    for _ in range(2):
        fetched = fetch("/model", DIGEST)
        assert (fetched.returncode, fetched.stderr) == (0, "")
        assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert server.requested == ["/model"]
    refusals = {("/model", OTHER_DIGEST): OTHER_DIGEST, ("/gone", "1" * 64): "404", ("/model", "x"): "sha256"}
    for (path, digest), reason in refusals.items():
        refused = fetch(path, digest)
        assert refused.returncode == 1
        assert reason in refused.stderr
        assert refused.stderr.startswith("models: ")
        assert "Traceback" not in refused.stderr
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
