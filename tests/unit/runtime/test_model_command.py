"""Addresses of models, and the last words of a container."""

from pathlib import Path

import pytest

from dragon_core.errors import ModelError
from dragon_runtime.fetching import FetchError, Request
from dragon_runtime.model_command import HUB, address_of
from dragon_runtime.termination import MAX_BYTES, leave_word


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
