"""A model from an address: fetched once, checked before it is kept, and no half of one ever left behind."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dragon_core.errors import ModelError
from dragon_runtime.models.resolving import resolve_model
from dragon_runtime.settings import ModelSettings
from tests.servers.bucket import BUCKET, KEY_ID, REGION, SECRET_KEY, is_signed
from tests.servers.registry import PASSWORD, USER, Registry

pytestmark = pytest.mark.integration

CONTENT = b"GGUF" + bytes(range(256)) * 12_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
OTHER_DIGEST = "0" * 64
TOKEN = "token-of-the-hub"
IN_BUCKET = "q4/small%20model.gguf"
BLOB = f"/v2/m/blobs/sha256:{DIGEST}"


class _Handler(BaseHTTPRequestHandler):
    """`/model` is whole, `/moved` leads to it, `/dies` and `/dies-unannounced` end in the middle.

    `/private` wants a token. `/signed` leads to an address whose query is a secret. The blob wants a token of `/token`.
    In the bucket is one file, for whoever signs the address.
    """

    def do_GET(self) -> None:
        assert isinstance(self.server, ModelServer)
        self.server.requested.append(self.path)
        if self.path in ("/moved", "/signed"):
            self.send_response(302)
            self.send_header("Location", "/model" if self.path == "/moved" else "/absent?signature=secret")
            self.end_headers()
            return
        if self.path.startswith(f"/{BUCKET}/"):
            self._answer_as_bucket()
            return
        if self.path == "/private" and self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.send_error(401)
            return
        if self.path.startswith("/token?"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"token": TOKEN}).encode())
            return
        if self.path == BLOB and self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.send_response(401)
            realm = f'realm="http://127.0.0.1:{self.server.server_port}/token"'
            self.send_header("WWW-Authenticate", f'Bearer {realm},service="tests",scope="repository:m:pull"')
            self.end_headers()
            return
        if self.path not in ("/model", "/private", "/dies", "/dies-unannounced", BLOB):
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/dies-unannounced":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT if self.path in ("/model", "/private", BLOB) else CONTENT[: len(CONTENT) // 2])
        self.close_connection = True

    def _answer_as_bucket(self) -> None:
        if not is_signed(self.path, host=self.headers["Host"]):
            self.send_error(403)
        elif not self.path.startswith(f"/{BUCKET}/{IN_BUCKET}?"):
            self.send_error(404)
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT)

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


def command(*arguments: str, folder: Path, token: str = "") -> "subprocess.CompletedProcess[str]":
    """The first step of a container."""
    return subprocess.run(
        [sys.executable, "-m", "dragon_runtime.models", *arguments, "--folder", str(folder)],
        env={**os.environ, "MODEL_TOKEN": token},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refusal(*arguments: str, folder: Path, token: str = "") -> str:
    refused = command(*arguments, folder=folder, token=token)
    assert refused.returncode == 1
    assert refused.stderr.startswith("models: ")
    assert "Traceback" not in refused.stderr
    return refused.stderr


def test_the_command_links_the_model_or_says_why_it_cannot(server: ModelServer, tmp_path: Path) -> None:
    def source(path: str, digest: str) -> list[str]:
        return ["--url", str(server.settings(path).url), "--sha256", digest]

    for said in (f"the model: {len(CONTENT) / 1e6:.1f} MB of {len(CONTENT) / 1e6:.1f} (100%)", "is there and right"):
        fetched = command(*source("/model", DIGEST), folder=tmp_path)
        assert (fetched.returncode, fetched.stderr) == (0, "")
        assert said in fetched.stdout
        assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert server.requested == ["/model"]
    for path, digest, reason in (
        ("/model", OTHER_DIGEST, OTHER_DIGEST),
        ("/gone", "1" * 64, "404"),
        ("/model", "x", "sha256"),
    ):
        assert reason in refusal(*source(path, digest), folder=tmp_path)
    assert "sha256" in refusal("--url", str(server.settings("/model").url), folder=tmp_path)
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT


def test_a_damaged_model_is_fetched_again_and_one_that_is_not_used_goes(server: ModelServer, tmp_path: Path) -> None:
    source = ["--url", str(server.settings("/model").url), "--sha256", DIGEST]
    assert command(*source, folder=tmp_path).returncode == 0
    (tmp_path / f"{DIGEST}.gguf").write_bytes(CONTENT[:-1])
    (tmp_path / f"{OTHER_DIGEST}.gguf").write_bytes(b"of long ago")
    (tmp_path / "kept.gguf").write_bytes(b"of somebody else")
    stale = tmp_path / f"{OTHER_DIGEST}.gguf.other-host-7.part"
    stale.write_bytes(b"half")
    os.utime(stale, (0, 0))
    assert "it is fetched again" in command(*source, folder=tmp_path).stdout
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert sorted(names_in(tmp_path)) == sorted([f"{DIGEST}.gguf", "kept.gguf", "model.gguf"])


def test_a_model_on_a_volume_is_linked_where_it_is(tmp_path: Path) -> None:
    model, folder = tmp_path / "volume" / "some.gguf", tmp_path / "models"
    assert "is it on the volume?" in refusal("--path", str(model), folder=folder)
    model.parent.mkdir()
    model.write_bytes(b"no model")
    assert "no GGUF file" in refusal("--path", str(model), folder=folder)
    model.write_bytes(CONTENT)
    assert DIGEST in refusal("--path", str(model), "--sha256", OTHER_DIGEST, folder=folder)
    for digest in ([], ["--sha256", DIGEST]):
        assert command("--path", str(model), *digest, folder=folder).returncode == 0
        assert (folder / "model.gguf").readlink() == model


def test_a_token_opens_a_private_address_and_is_never_shown(server: ModelServer, tmp_path: Path) -> None:
    source = ["--url", str(server.settings("/private").url), "--sha256", DIGEST]
    folder, token_file = tmp_path / "models", tmp_path / "token"
    assert "HTTP 401 (a token that may read it is needed)" in refusal(*source, folder=folder)
    refused = refusal(*source, folder=folder, token="another")
    assert "HTTP 401 (the token may not read it)" in refused
    assert "another" not in refused
    token_file.write_text(f"{TOKEN}\n")
    fetched = command(*source, "--token-file", str(token_file), folder=folder)
    assert fetched.returncode == 0
    assert TOKEN not in fetched.stdout + fetched.stderr
    assert "cannot read" in refusal(*source, "--token-file", str(tmp_path / "none"), folder=folder)
    elsewhere = ["--url", "http://models.invalid/private", "--sha256", OTHER_DIGEST]
    assert "use an https address" in refusal(*elsewhere, folder=folder, token=TOKEN)
    signed = ["--url", str(server.settings("/signed").url), "--sha256", OTHER_DIGEST]
    assert "secret" not in refusal(*signed, folder=folder)


def test_a_model_comes_from_a_registry(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        registry.push("org/models", CONTENT, DIGEST)
        source = ["--url", f"oci://{registry.host}/org/models", "--sha256"]
        assert command(*source, DIGEST, folder=tmp_path / "models").returncode == 0
        assert "there is no such file" in refusal(*source, OTHER_DIGEST, folder=tmp_path / "models")
    assert (tmp_path / "models" / "model.gguf").read_bytes() == CONTENT


def test_a_private_registry_wants_a_login(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry", is_private=True) as registry:
        registry.push("m", CONTENT, DIGEST)
        source, folder = ["--url", f"oci://{registry.host}/m", "--sha256", DIGEST], tmp_path / "models"
        assert "HTTP 401 (a token that may read it is needed)" in refusal(*source, folder=folder)
        assert "HTTP 401 (the token may not read it)" in refusal(*source, folder=folder, token=f"{USER}:wrong")
        assert "USER:PASSWORD" in refusal(*source, folder=folder, token=PASSWORD)
        fetched = command(*source, folder=folder, token=f"{USER}:{PASSWORD}")
        assert (fetched.returncode, fetched.stderr) == (0, "")
    assert (folder / "model.gguf").read_bytes() == CONTENT


def test_a_registrys_token_server_is_asked_for_what_it_says(server: ModelServer, tmp_path: Path) -> None:
    source = ["--url", f"oci://127.0.0.1:{server.server_port}/m", "--sha256", DIGEST]
    assert command(*source, folder=tmp_path).returncode == 0
    assert server.requested == [BLOB, "/token?service=tests&scope=repository%3Am%3Apull", BLOB]
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT


def test_a_model_comes_from_a_bucket(server: ModelServer, tmp_path: Path) -> None:
    where = f"?endpoint=http://127.0.0.1:{server.server_port}&region={REGION}"
    source = ["--url", f"s3://{BUCKET}/{IN_BUCKET}{where}", "--sha256", DIGEST]
    refused = refusal(*source, folder=tmp_path, token=f"{KEY_ID}:wrong")
    assert "HTTP 403 (the token may not read it)" in refused
    assert "Signature" not in refused
    absent = ["--url", f"s3://{BUCKET}/none{where}", "--sha256", DIGEST]
    assert "there is no such file" in refusal(*absent, folder=tmp_path, token=f"{KEY_ID}:{SECRET_KEY}")
    fetched = command(*source, folder=tmp_path, token=f"{KEY_ID}:{SECRET_KEY}")
    assert (fetched.returncode, fetched.stderr) == (0, "")
    assert "Signature" not in fetched.stdout
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT


def test_a_full_volume_is_named_and_nothing_is_left_on_it(server: ModelServer, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a small file system can only be mounted by root")
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        for path in ("/model", "/dies-unannounced"):  # its size is told before, or it is not
            source = ["--url", str(server.settings(path).url), "--sha256", DIGEST]
            assert f"{tmp_path} is full" in refusal(*source, folder=tmp_path)
            assert names_in(tmp_path) == []
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)
