"""`dragon-cloud documents add` as a process, into an embedded store."""

import asyncio
import functools
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from dragon_runtime.servers.mosquitto import free_port
from tests.integration.test_documents import documents

pytestmark = pytest.mark.integration


def add(*arguments: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "cloud_peer.main", "documents", "add", *arguments, "--data-folder", str(folder)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def last_line(refused: "subprocess.CompletedProcess[str]") -> str:
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    return refused.stderr.strip().splitlines()[-1]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which its files are."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Tests are quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


async def found(folder: Path, *questions: str) -> list[str]:
    """The best passage for each question, and how many passages there are."""
    async with documents(folder / "store") as (_, store):
        texts = [(await store.retrieve(question, num_passages=1))[0].text for question in questions]
        return [*texts, str(await store.count())]


def test_documents_of_every_source_can_be_found_and_are_added_once(tmp_path: Path, web: tuple[Path, str]) -> None:
    served, url = web
    archive = served / "handbook.tar.gz"
    with tarfile.open(archive, "w:gz") as writing:
        for name, content in {
            "a/b.md": b"# Tides\n\nThe tide turns at six.",
            "../c.txt": b"Gulls nest in May.",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            writing.addfile(member, io.BytesIO(content))
    (served / "page.html").write_text("<p>The ferry costs four coins.</p>")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "d.txt").write_text("The lighthouse was built in 1822.")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 broken")
    digest = sha256(archive.read_bytes()).hexdigest()
    sources = [str(folder), f"{url}/handbook.tar.gz#sha256={digest}", f"{url}/page.html"]
    questions = ("When was the lighthouse built?", "When does the tide turn?", "What does the ferry cost?", "Gulls?")
    for _ in range(2):
        added = add(*sources, folder=tmp_path / "data")
        assert added.returncode == 0, added.stderr
        assert "handbook.tar.gz: 2 documents can be found" in added.stderr
        texts = asyncio.run(found(tmp_path / "data", *questions))
        for text, part in zip(texts, ("1822", "at six", "four coins", "in May", "4"), strict=True):
            assert part in text


def test_what_cannot_be_read_is_one_line_and_the_rest_is_added(tmp_path: Path, web: tuple[Path, str]) -> None:
    served, url = web
    (served / "a.txt").write_text("The harbour closes at nine.")
    (tmp_path / "empty").mkdir()
    wrong = f"{url}/a.txt#sha256={'0' * 64}"
    said = last_line(add(f"{url}/none.txt", wrong, str(tmp_path / "empty"), f"{url}/a.txt", folder=tmp_path / "data"))
    for part in ("none.txt cannot be fetched: HTTP 404", "has sha256", "empty: there is no document in it"):
        assert part in said
    assert "at nine" in asyncio.run(found(tmp_path / "data", "When does the harbour close?"))[0]
    assert "after # comes sha256=" in last_line(add(f"{url}/a.txt#sha256=0", folder=tmp_path / "data"))
    assert "use a folder, a file" in last_line(add("ftp://a/b", folder=tmp_path / "data"))


def test_servers_that_do_not_come_up_are_waited_for_and_named(tmp_path: Path) -> None:
    address, uri = f"127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    waiting = ["--timeout-seconds", "3"]
    refused = add(str(tmp_path), *waiting, folder=tmp_path, DRAGON_TRITON__ADDRESS=address)
    assert f"Triton at {address} did not come up in 3 s" in last_line(refused)
    assert f"waiting for Triton at {address}" in refused.stderr
    refused = add(str(tmp_path), *waiting, folder=tmp_path, DRAGON_STORE__URI=uri)
    assert f"{uri} did not come up in 3 s" in last_line(refused)
