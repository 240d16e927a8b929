"""Documents over HTTP: uploads, the list in parts, search, and what is refused."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from dragon_core.errors import StoreError, StoreFullError
from edge_daemon.settings import ApiSettings
from tests.fakes.documents import DocumentsInMemory
from tests.fakes.served_api import ServedApi, served_api

MAX_BYTES = 5000
MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}


@pytest.fixture
async def api() -> AsyncIterator[ServedApi]:
    async with served_api(settings=ApiSettings(max_document_bytes=MAX_BYTES)) as api:
        yield api


async def add(api: ServedApi, name: str, content: bytes, media_type: str | None = None) -> httpx.Response:
    file = (name, content) if media_type is None else (name, content, media_type)
    return await api.http.post("/v1/documents", files={"file": file})


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    return dict(response.json()["error"])


async def test_a_document_is_taken_once(api: ServedApi) -> None:
    taken = await add(api, "note.txt", b"The gate is 12.")
    again = await add(api, "copy.txt", b"The gate is 12.")
    assert (taken.status_code, again.status_code) == (202, 200)
    assert taken.json() == again.json()
    assert taken.json() == {
        "id": taken.json()["id"],
        "object": "document",
        "name": "note.txt",
        "media_type": "text/plain",
        "size_bytes": 15,
        "added_at": 1_700_000_000.0,
        "state": "done",
        "num_passages_done": 1,
        "num_passages": 1,
        "error": None,
    }
    assert api.documents.contents[taken.json()["id"]] == b"The gate is 12."


@pytest.mark.parametrize(
    ("name", "sent", "expected"),
    [
        ("a.md", "application/octet-stream", "text/markdown"),
        ("a.MD", None, "text/markdown"),
        ("a.htm", "text/plain", "text/html"),
        ("a", "text/plain; charset=utf-8", "text/plain"),
    ],
)
async def test_the_type_is_that_of_the_name(api: ServedApi, name: str, sent: str | None, expected: str) -> None:
    assert (await add(api, name, b"x", sent)).json()["media_type"] == expected


async def test_the_list_comes_in_parts(api: ServedApi) -> None:
    ids = [(await add(api, f"{number}.txt", b"%d" % number)).json()["id"] for number in range(5)]
    found: list[str] = []
    after: str | None = None
    sizes = []
    while True:
        page = (await api.http.get("/v1/documents", params={"limit": 2, **({"after": after} if after else {})})).json()
        found += [document["id"] for document in page["data"]]
        sizes.append(len(page["data"]))
        after = page["next_after"]
        assert page["has_more"] is (after is not None)
        if after is None:
            break
    assert (found, sizes) == (ids, [2, 2, 1])
    for limit in ("0", "1001", "many"):
        assert error_of(await api.http.get("/v1/documents", params={"limit": limit}), 400)["param"] == "limit"


async def test_a_document_is_shown_and_deleted(api: ServedApi) -> None:
    key = (await add(api, "a.txt", b"x")).json()["id"]
    assert (await api.http.get(f"/v1/documents/{key}")).json()["name"] == "a.txt"
    deleted = await api.http.delete(f"/v1/documents/{key}")
    assert deleted.json() == {"id": key, "object": "document", "deleted": True}
    for method in ("GET", "DELETE"):
        error = error_of(await api.http.request(method, f"/v1/documents/{key}"), 404)
        assert error["code"] == "document_not_found"
        assert key in error["message"]


async def test_search_gives_passages_with_their_relevance(api: ServedApi) -> None:
    await add(api, "a.txt", b"the red boat")
    key = (await add(api, "b.txt", b"the green house")).json()["id"]
    found = await api.http.post("/v1/documents/search", json={"query": "green house", "num_passages": 1})
    assert found.json()["data"] == [{"document_id": key, "relevance": 1.0, "text": "the green house"}]
    for body, param in (
        ({"query": ""}, "query"),
        ({"query": "x", "num_passages": 0}, "num_passages"),
        ({"query": "x", "limit": 3}, "limit"),
        ({}, "query"),
    ):
        assert error_of(await api.http.post("/v1/documents/search", json=body), 400)["param"] == param


HOSTILE_NAMES = [
    ("../../etc/passwd.txt", "passwd.txt"),
    ("C:\\Users\\me\\secret.txt", "secret.txt"),
    ("/absolute/a.txt", "a.txt"),
    ("a\x1b[31m\x9b2J\x07.txt", "a[31m2J.txt"),
    ("photo\u202etxt.exe.txt", "phototxt.exe.txt"),
    ("z" * 400 + ".txt", "z" * 251 + ".txt"),
    ("čaj ☕ 茶.txt", "čaj ☕ 茶.txt"),
    ("%2e%2e%2fa.txt", "%2e%2e%2fa.txt"),
    ("[/bold].txt", "bold].txt"),
]


async def test_a_hostile_name_is_only_ever_shown(api: ServedApi) -> None:
    for name, shown in HOSTILE_NAMES:
        api.documents.documents.clear()
        taken = await api.http.post("/v1/documents", content=named(name), headers=MULTIPART)
        assert taken.json()["name"] == shown, taken.text


async def test_a_name_that_is_none_is_refused(api: ServedApi) -> None:
    for name in ("..", ".", "/", "a/..", "\x00", "\u200b", " "):
        error = error_of(await api.http.post("/v1/documents", content=named(name), headers=MULTIPART), 400)
        assert error["param"] == "file"


def named(name: str) -> bytes:
    """An upload, with its file's name quoted the way a browser does: a backslash would hide what follows it."""
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\nx\r\n--x--\r\n'
    return body % name.replace("\\", "\\\\").encode()


NOT_ONE_FILE: list[dict[str, Any]] = [
    {},
    {"json": {"file": "x"}},
    {"data": {"file": "x"}},
    {"files": {"document": ("a.txt", b"x")}},
    {"files": [("file", ("a.txt", b"x")), ("file", ("b.txt", b"y"))]},
    {"files": {"file": ("a.txt", b"x")}, "data": {"purpose": "x"}},
    {"content": b"garbage", "headers": MULTIPART},
    {"content": b"", "headers": MULTIPART},
    {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
    {"content": b'--x\r\nContent-Disposition: form-data; filename="a"\r\n\r\nx\r\n--x--\r\n', "headers": MULTIPART},
]


async def test_a_body_without_exactly_one_file_is_refused(api: ServedApi) -> None:
    for arguments in NOT_ONE_FILE:
        error = error_of(await api.http.post("/v1/documents", **arguments), 400)
        assert (error["code"], error["param"]) == ("bad_upload", "file"), arguments
        assert "multipart/form-data" in error["message"]
    assert not api.documents.documents


async def test_half_of_a_document_is_not_taken(api: ServedApi) -> None:
    whole = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nthe whole of it\r\n--x--\r\n'
    for length in range(0, len(whole) - 12, 7):
        error_of(await api.http.post("/v1/documents", content=whole[:length], headers=MULTIPART), 400)
    assert not api.documents.documents
    assert (await api.http.post("/v1/documents", content=whole, headers=MULTIPART)).status_code == 202


async def test_a_document_that_is_too_large_is_refused_with_both_sizes(api: ServedApi) -> None:
    largest = await add(api, "a.txt", b"x" * MAX_BYTES)
    assert largest.status_code == 202
    over = error_of(await add(api, "a.txt", b"x" * (MAX_BYTES + 1)), 413)
    assert f"{MAX_BYTES + 1} bytes" in over["message"]
    assert f"at most {MAX_BYTES} bytes" in over["message"]
    huge = await add(api, "a.txt", b"x" * 1_000_000)
    assert error_of(huge, 413)["code"] == over["code"] == "request_too_large"


async def test_a_document_of_unknown_length_is_not_read_to_its_end(api: ServedApi) -> None:
    num_sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal num_sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        while num_sent < 100_000_000:
            num_sent += 10_000
            yield b"x" * 10_000

    response = await api.http.post("/v1/documents", content=endless(), headers=MULTIPART)
    error = error_of(response, 413)
    assert f"at most {MAX_BYTES} bytes" in error["message"]
    assert error["code"] == "request_too_large"


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (StoreFullError("the disk is full"), 507, "store_full"),
        (StoreError("it is locked"), 503, "store_failed"),
    ],
)
async def test_what_the_store_says_is_told(failure: StoreError, status: int, code: str) -> None:
    async with served_api(documents=DocumentsInMemory(failure=failure)) as api:
        for response in (
            await add(api, "a.txt", b"x"),
            await api.http.get("/v1/documents"),
            await api.http.get("/v1/documents/a"),
            await api.http.delete("/v1/documents/a"),
            await api.http.post("/v1/documents/search", json={"query": "x"}),
        ):
            error = error_of(response, status)
            assert (error["code"], error["message"]) == (code, str(failure))


async def test_what_cannot_be_read_is_refused(api: ServedApi) -> None:
    for name, content, told in (("a.exe", b"MZ", "type"), ("a.pdf", b"no pdf", "%PDF-"), ("a.txt", b"", "empty")):
        error = error_of(await add(api, name, content), 400)
        assert (error["code"], error["param"]) == ("bad_document", "file")
        assert name in error["message"]
        assert told in error["message"]
