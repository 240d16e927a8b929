"""What may be secret is not printed: in no message about settings, no log line, no diagnosis."""

import asyncio
import functools
import json
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cloud_peer.public_documents import request_of
from cloud_peer.settings import CloudSettings
from dragon_core.errors import DragonError
from dragon_core.fleet.join_token import JoinToken
from dragon_runtime.models.__main__ import address_of
from dragon_runtime.models.fetching import Request
from dragon_runtime.models.object_store import signed_address
from dragon_runtime.process.logs import set_up_logging
from dragon_runtime.redaction import redacted
from dragon_runtime.settings import LogFormat, LogSettings, leaves, load_settings
from edge_daemon.fleet.checking import diagnosis
from edge_daemon.main import app
from edge_daemon.settings import EdgeSettings

JOIN = JoinToken(
    namespace="a", deployment="b", device="c", broker_host="d", ca="pem", secret="s" * 32, expires=1
).encode()
SECRET = "0e9f-SECRET-5b7c.a_1~"
PLACES = (
    "oci://{0}@host/models/m",
    "oci://user:{0}@host/models/m",
    "https://user:{0}@host:8443/a.gguf",
    "https://us@er:{0}@host/a.gguf",
    "https://host/a.gguf?X-Amz-Credential=id&X-Amz-Signature={0}&x=1",
    "https://host/a.gguf#{0}",
    "s3://bucket/key?endpoint=https://user:{0}@host",
    "ftp://user:{0}@host",
    "http://mirror/https://user:{0}@host/a",
    "user:{0}@host",
    "Authorization: Bearer {0}",
)
secrets = st.text("abcXYZ0189-._~!$&*+,;=:%@", min_size=6, max_size=30).map(lambda text: f"s3cr{text}3tts3cr3t")


@given(st.sampled_from(PLACES[:10]), secrets, st.sampled_from(("{0}", "from {0}; try again", "'{0}'", '("{0}", 2)')))
def test_nothing_of_a_secret_is_left_in_whatever_place_of_an_address(place: str, secret: str, around: str) -> None:
    told = redacted(around.format(place.format(secret)))
    pieces = [piece for piece in re.split(r"[^A-Za-z0-9]", secret) if len(piece) > 5]
    assert [piece for piece in pieces if piece in told] == []


@given(st.text("abc:/@?#[]. '\"-", max_size=60))
def test_what_was_redacted_stays_as_it_is(text: str) -> None:
    once = redacted(text)
    assert redacted(redacted(once)) == redacted(once)


@pytest.mark.parametrize(
    "text",
    [
        "write it as http://host:port",
        "http://[::1]:8642/v1 does not answer",
        "hf://org/repo/q4/a.gguf@v1.2, https://hub/org/repo/resolve/main/a.gguf",
        "registry.example/dragon/edge:1.2@sha256:" + "a" * 64,
        "a bearer token for the address; basic functions",
        "127.0.0.1:1883: Connection refused",
        "me@example.org wrote at 12:30",
    ],
)
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert redacted(text) == text


def test_a_join_token_and_a_bearer_token_are_not_shown() -> None:
    assert redacted(f"join {JOIN} now") == "join dragon-join-*** now"
    assert redacted(f"Authorization: Bearer {SECRET}") == "Authorization: Bearer ***"
    assert redacted("https://me:pass/wo?rd@host/a") == "https://host/a"
    assert redacted("curl 'https://me:pw@host/a?sig=x', then") == "curl 'https://host/a', then"


@pytest.mark.parametrize("piece", ["a:", "://", "'(", "@", "?;", "basic ", "dragon-join-", "a:b@"])
def test_a_long_text_takes_no_time(piece: str) -> None:
    begun = time.process_time()
    redacted(piece * 50_000)
    assert time.process_time() - begun < 2


def told_of(act: Callable[[], object]) -> str:
    """What a user is told when this fails."""
    try:
        act()
    except DragonError as error:
        return str(error)
    return ""


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("DRAGON_")]:
        monkeypatch.delenv(variable)


@pytest.mark.parametrize("cls", [EdgeSettings, CloudSettings])
def test_no_setting_that_is_wrong_is_quoted_with_its_secret(cls: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    device = {"device": "d1"} if cls is EdgeSettings else {}
    for leaf in leaves(cls):
        for place in (*PLACES, "{0}") if leaf.is_secret else PLACES:
            with monkeypatch.context() as patch:
                patch.setenv(leaf.environment, place.format(SECRET))
                given = {} if leaf.path == "device" else device
                assert SECRET not in told_of(functools.partial(load_settings, cls, overrides=given))


@pytest.mark.parametrize(
    "text",
    [
        f"store: {SECRET}",
        f"store: [{SECRET}]",
        f"store: {{uri: 'http://host', token: [{SECRET}]}}",
        f"store: {{token: {{a: {SECRET}}}}}",
        f"store: {{tokn: {SECRET}}}",
        f"store:\n  token: '{SECRET}\nmodel: x",
        f"store: {{token: {SECRET}",
        f"- {SECRET}",
        SECRET,
    ],
)
def test_no_file_that_is_wrong_is_quoted_with_its_secret(tmp_path: Path, text: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(DragonError) as caught:
        load_settings(EdgeSettings, path, {"device": "d1"})
    assert SECRET not in str(caught.value)
    assert str(path) in str(caught.value)


async def test_a_diagnosis_has_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "twin.json").write_text(json.dumps({"note": PLACES[1].format(SECRET)}))
    content = {
        "device": "d1",
        "data_folder": str(tmp_path),
        "model": {"url": PLACES[1].format(SECRET), "sha256": "a" * 64},
        "embedding": {"uri": PLACES[2].format(SECRET)},
        "store": {"uri": PLACES[4].format(SECRET), "token": SECRET, "former_tokens": SECRET},
        "broker": {"host": PLACES[9].format(SECRET), "username": "me", "password_file": "/nowhere", "port": 9},
        "api": {"port": 9},
    }
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(content))
    found = json.dumps(await diagnosis(load_settings(EdgeSettings, path)))
    assert "oci://host/models/m" in found
    assert SECRET not in found
    for command in ("check", "status", "diagnose"):
        printed = await _printed(command, "--settings", str(path))
        assert "d1" in printed
        assert SECRET not in printed


async def _printed(*arguments: str) -> str:
    result = await asyncio.to_thread(lambda: CliRunner().invoke(app, list(arguments)))
    return result.output


@pytest.mark.parametrize("log_format", LogFormat)
def test_a_log_line_and_its_trace_have_no_secret(log_format: LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    set_up_logging(LogSettings(format=log_format))
    try:
        try:
            raise ValueError(PLACES[4].format(SECRET))
        except ValueError:
            logging.getLogger("dragon").exception("cannot fetch %s", PLACES[1].format(SECRET))
    finally:
        root.handlers[:], level = before
        root.setLevel(level)
    said = capsys.readouterr().err
    assert "cannot fetch oci://host/models/m" in said
    assert "Traceback" in said
    assert SECRET not in said


@pytest.mark.parametrize("place", PLACES)
def test_no_address_that_is_wrong_is_quoted_with_its_secret(place: str) -> None:
    text = place.format(SECRET)
    acts = (
        lambda: address_of(f"hf://{text}"),
        lambda: Request.of(text.replace("https", "oci"), "a" * 64),
        lambda: signed_address(text.replace("https", "s3"), None),
        lambda: request_of(text.replace("https", "gopher")),
        lambda: request_of(f"https://host/a#{text}"),
    )
    assert [told for act in acts if SECRET in (told := told_of(act))] == []
