"""Bad documents and a full disk at a real daemon: each a clear error, and nothing that was acknowledged is lost."""

import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pypdf import PdfReader, PdfWriter

from local_cluster.waiting import wait_until
from tests.servers.daemon import Daemon

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

MIB = 1024 * 1024
MAX_DOCUMENT_BYTES = 32 * MIB


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("daemon")
    with Daemon(folder / "data", settings_folder=folder) as daemon:
        yield daemon


def error_of(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    return str(response.json()["error"]["message"])


def facts(number: int, *, count: int = 20) -> bytes:
    return " ".join(f"Fact {number}.{i}: box {number} holds {i} stones." for i in range(count)).encode()


def resident_bytes(pid: int, *, key: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def test_an_empty_document_is_refused(daemon: Daemon) -> None:
    assert "a.txt: the document is empty" in error_of(daemon.add("a.txt", b""), 400)
    for content in (b" \n\t ", b"\xef\xbb\xbf"):
        taken = daemon.add("blank.txt", content)
        assert taken.status_code == 202
        document = daemon.wait_for(taken.json()["id"])
        assert document["state"] == "failed"
        assert "there is no text in it" in document["error"]


@pytest.mark.parametrize("is_announced", [True, False])
def test_a_document_of_100_mb_is_refused_with_both_sizes_and_takes_no_memory(
    daemon: Daemon, *, is_announced: bool
) -> None:
    assert daemon.process is not None
    pid = daemon.process.pid
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    size = len(head) + 100 * MIB

    def body() -> Iterator[bytes]:
        yield head
        for _ in range(100):
            yield b"x" * MIB

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    if is_announced:
        headers["Content-Length"] = str(size)
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is measured from here
    before = resident_bytes(pid, key="VmRSS")
    response = httpx.post(f"{daemon.url}/v1/documents", content=body(), headers=headers, timeout=60)
    message = error_of(response, 413)
    grown = resident_bytes(pid, key="VmHWM") - before
    assert f"at most {MAX_DOCUMENT_BYTES} bytes" in message
    if is_announced:
        assert f"{size} bytes" in message
        assert grown < 8 * MIB
    else:
        read = int(message.split("over ")[1].split()[0])
        assert MAX_DOCUMENT_BYTES < read < MAX_DOCUMENT_BYTES + 2 * MIB
        assert grown < 2 * MAX_DOCUMENT_BYTES + 16 * MIB


def pdf(*, is_encrypted: bool = False) -> bytes:
    writer = PdfWriter()
    writer.add_blank_page(100, 100)
    if is_encrypted:
        writer.encrypt("secret", algorithm="AES-256")
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"%PDF-1.7\nnothing that a PDF has", "the PDF cannot be read"),
        (pdf()[:-200], "a.pdf: "),
        (pdf(), "scanned pages need text recognition"),
        (pdf(is_encrypted=True), "encrypted: save it without a password first"),
    ],
)
def test_a_pdf_that_cannot_be_read_fails_with_a_reason_and_others_go_on(
    daemon: Daemon, content: bytes, told: str
) -> None:
    taken = daemon.add("a.pdf", content)
    good = daemon.add("good.txt", facts(os.getpid() + len(content), count=1))
    assert (taken.status_code, good.status_code) == (202, 202)
    failed = daemon.wait_for(taken.json()["id"])
    assert (failed["state"], failed["num_passages"]) == ("failed", None)
    assert told in failed["error"]
    assert daemon.wait_for(good.json()["id"])["state"] == "done"
    again = daemon.add("b.pdf", content)  # one that failed is tried again
    assert (again.status_code, again.json()["name"]) == (202, "b.pdf")
    with pytest.raises(Exception):  # noqa: B017, PT011 - that it is as bad as it claims
        PdfReader(io.BytesIO(content)).pages[0].extract_text().strip()[0]


def test_a_word_without_an_end_is_a_document_like_any_other(daemon: Daemon) -> None:
    taken = daemon.add("hash.txt", b"The key of the safe is 5521. " + b"deadbeef" * 20_000)
    document = daemon.wait_for(taken.json()["id"])
    assert (document["state"], document["error"]) == ("done", None)
    assert any("5521" in passage["text"] for passage in daemon.search("What is the key of the safe?"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a small file system can only be mounted by root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, *, left: int) -> Path:
    """Leave so many bytes free."""
    filler = disk / "filler"
    found = os.statvfs(disk)
    filler.write_bytes(b"x" * (found.f_bavail * found.f_frsize - left))
    return filler


def add_until_full(daemon: Daemon, numbers: Iterator[int]) -> tuple[dict[int, str], int]:
    """({number: id} of what was taken, the number that was refused)."""
    taken: dict[int, str] = {}
    for number in numbers:
        response = daemon.add(f"{number}.txt", facts(number))
        if response.status_code != 202:
            assert "free some space" in error_of(response, 507)
            assert response.json()["error"]["code"] == "store_full"
            return taken, number
        taken[number] = response.json()["id"]
    raise AssertionError("the disk was never full")


def wait_until_told(daemon: Daemon, key: str, told: str) -> None:
    def is_told() -> bool:
        document = daemon.document(key)
        if told in (document["error"] or ""):
            return True
        assert document["state"] in {"queued", "running"}
        return False

    wait_until(is_told, f"document {key} tells {told!r}", seconds=60)


def require_found(daemon: Daemon, taken: dict[int, str]) -> None:
    for number, key in taken.items():
        assert daemon.wait_for(key)["state"] == "done"
        found = daemon.search(f"What does box {number} hold?", num_passages=10)
        assert key in {passage["document_id"] for passage in found}


def test_a_full_disk_refuses_documents_and_loses_none(small_disk: Path, tmp_path: Path) -> None:
    numbers = iter(range(100))
    with Daemon(small_disk / "edge", settings_folder=tmp_path) as daemon:
        first = {(number := next(numbers)): daemon.add(f"{number}.txt", facts(number)).json()["id"]}
        require_found(daemon, first)

        filler = fill(small_disk, left=60_000)
        taken, refused = add_until_full(daemon, numbers)
        assert taken, "the list of documents has room for some, the store has not"
        wait_until_told(daemon, max(taken.items())[1], "it waits: there is no room")
        require_found(daemon, first)
        assert httpx.get(f"{daemon.url}/readyz").status_code == 200
        filler.unlink()
        require_found(daemon, taken)
        again = daemon.add(f"{refused}.txt", facts(refused))
        assert again.status_code == 202
        first |= taken | {refused: again.json()["id"]}

        fill(small_disk, left=60_000)
        taken, refused = add_until_full(daemon, numbers)
        daemon.kill()
        filler.unlink()
        daemon.start()
        require_found(daemon, first | taken)
        assert daemon.add(f"{refused}.txt", facts(refused)).status_code == 202
