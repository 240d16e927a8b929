"""Addresses of models, and the last words of a container."""

from pathlib import Path

import pytest

from dragon_core.errors import ModelError, OurError
from dragon_runtime.models.__main__ import HUB, address_of, reason_of
from dragon_runtime.models.fetching import FetchError, Request
from dragon_runtime.models.object_store import signed_address
from dragon_runtime.models.resolving import require_digest
from dragon_runtime.models.termination import MAX_BYTES, leave_word


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("https://models.example/a.gguf?b=c", "https://models.example/a.gguf?b=c"),
        ("hf://org/repo/a.gguf", f"{HUB}/org/repo/resolve/main/a.gguf"),
        ("hf://org/repo/q4/a.gguf@v1.2", f"{HUB}/org/repo/resolve/v1.2/q4/a.gguf"),
    ],
)
def test_an_address_on_the_hub_is_one_of_https(uri: str, address: str) -> None:
    assert address_of(uri) == address


@pytest.mark.parametrize("uri", ["hf://", "hf://org/repo", "hf://org/repo/", "hf://org/repo/a@", "hf://org/repo/../a"])
def test_what_is_no_address_on_the_hub_says_how_one_looks(uri: str) -> None:
    with pytest.raises(ModelError, match="hf://ORGANISATION/REPOSITORY/FILE"):
        address_of(uri)


def test_why_there_is_no_model_does_not_hang_on_the_words_of_its_path(tmp_path: Path) -> None:
    missing, other = tmp_path / "sha256" / "missing.gguf", tmp_path / "other.gguf"
    other.write_bytes(b"GGUF")
    for path, reason in ((missing, "Unreadable"), (other, "DigestMismatch")):
        with pytest.raises(ModelError) as caught:
            require_digest(path, "0" * 64)
        assert reason_of(caught.value) == reason


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("oci://ghcr.example/org/models/small", "https://ghcr.example/v2/org/models/small/blobs/sha256:" + "a" * 64),
        ("oci://localhost:5000/m", "http://localhost:5000/v2/m/blobs/sha256:" + "a" * 64),
    ],
)
def test_a_registry_has_a_file_under_its_digest(uri: str, address: str) -> None:
    assert Request.of(uri, "a" * 64).url == address


@pytest.mark.parametrize("uri", ["oci://", "oci://host", "oci://host/m:tag", "oci://host/../m", "oci://me:pw@host/m"])
def test_what_is_no_repository_says_how_one_looks(uri: str) -> None:
    with pytest.raises(OurError, match="oci://HOST/REPOSITORY"):
        Request.of(uri, "a" * 64)


def test_a_token_for_a_registry_names_its_user() -> None:
    with pytest.raises(OurError, match="USER:PASSWORD"):
        Request.of("oci://host/m", "a" * 64, token="secret")


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("s3://our-models/q4/a.gguf", "https://s3.us-east-1.amazonaws.com/our-models/q4/a.gguf"),
        ("s3://our-models/a.gguf?region=eu-north-1", "https://s3.eu-north-1.amazonaws.com/our-models/a.gguf"),
        ("s3://our-models/a%20b.gguf?endpoint=http://s3.local:9000", "http://s3.local:9000/our-models/a%20b.gguf"),
    ],
)
def test_a_file_of_a_bucket_has_a_signed_address_without_the_key(uri: str, address: str) -> None:
    request = Request(url=signed_address(uri, "ID:the-secret"))
    assert request.shown_url == address
    assert not request.is_anonymous
    assert "the-secret" not in request.url


@pytest.mark.parametrize(
    "uri",
    [
        "s3://",
        "s3://b",
        "s3://bucket",
        "s3://bucket/",
        "s3://bucket/a?host=x",
        "s3://bucket/a?endpoint=x",
        "s3://Bucket/a",
    ],
)
def test_what_is_no_file_of_a_bucket_says_how_one_looks(uri: str) -> None:
    with pytest.raises(ModelError, match="s3://BUCKET/KEY"):
        signed_address(uri, "ID:secret")


@pytest.mark.parametrize("credentials", [None, "ID", "ID:"])
def test_a_bucket_wants_both_parts_of_a_key(credentials: str | None) -> None:
    with pytest.raises(ModelError, match="ACCESS_KEY_ID:SECRET_ACCESS_KEY"):
        signed_address("s3://bucket/a", credentials)


def test_what_may_be_secret_in_an_address_is_not_shown() -> None:
    request = Request(url="https://me:password@models.example/a/b.gguf?signature=secret")
    assert request.shown_url == "https://models.example/a/b.gguf"


def test_a_token_does_not_cross_a_network_in_the_clear() -> None:
    assert Request(url="https://models.example/a", token="t").headers() == {"Authorization": "Bearer t"}
    assert Request(url="http://127.0.0.1:8000/a", token="t").headers() == {"Authorization": "Bearer t"}
    assert Request(url="http://models.example/a").headers() == {}
    with pytest.raises(FetchError, match="use an https address"):
        Request(url="http://models.example/a", token="t").headers()


def test_last_words_are_left_where_there_is_a_file_for_them(tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    leave_word("Unreachable: nobody is there", log)
    assert not log.exists()
    log.write_text("of the last time, and longer than what is said now")
    leave_word("Unreachable: nobody is there", log)
    assert log.read_text() == "Unreachable: nobody is there"
    leave_word("x" * 10_000, log)
    assert log.stat().st_size == MAX_BYTES
