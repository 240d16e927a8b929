"""The whole of it with real parts: broker, slow link, cloud peer, edge daemon, models, stores; faults in mid-answer."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from dragon_cli.stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DOCUMENTS = Path(__file__).parents[2] / "dragon_cli" / "demo_documents"
HOTEL = "What is the name of my hotel in Lisbon, and what is the currency used in Lisbon?"
STORY = "Tell me a very long story about my hotel in Lisbon and the tram."


def dragonctl(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dragon_cli.main", *arguments],
        env={**os.environ, "DRAGONCTL_FOLDER": str(folder)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack"))
    came_up = dragonctl("up", "--rtt-ms", "60", "--public-documents", str(DOCUMENTS / "public"), folder=stack.folder)
    try:
        assert came_up.returncode == 0, came_up.stderr
        added = dragonctl("documents", "add", str(DOCUMENTS / "private"), folder=stack.folder)
        assert added.returncode == 0, added.stderr
        yield stack
    finally:
        stack.stop()


@pytest.fixture
def client(stack: Stack) -> Iterator[OpenAI]:
    wait_until_mixing(stack)
    with OpenAI(base_url=f"{stack.plan()['api_url']}/v1", api_key="none", max_retries=0) as client:
        yield client


def wait_until_mixing(stack: Stack) -> None:
    deadline = time.monotonic() + 60
    while httpx.get(f"{stack.plan()['api_url']}/readyz").json()["status"] != "ready":
        assert time.monotonic() < deadline, "the cloud is not heard again"
        time.sleep(0.1)


def pid_of(stack: Stack, part: str) -> int:
    return next(each.pid for each in stack.parts() if each.name == part and each.pid is not None)


def request(client: OpenAI, question: str, **options: Any) -> dict[str, Any]:
    model = client.models.list().data[0].id
    return {"model": model, "messages": [{"role": "user", "content": question}], "seed": 5, **options}


def ask(client: OpenAI, question: str, **options: Any) -> tuple[str, dict[str, Any]]:
    """(text, the `dragon` object) of a completion that is not streamed."""
    whole = client.chat.completions.create(**request(client, question, **options)).model_dump()
    return whole["choices"][0]["message"]["content"], whole["dragon"]


def ask_with_fault(
    client: OpenAI, faults: dict[int, Callable[[], None]], **options: Any
) -> tuple[str, list[bool], dict[str, Any]]:
    """(text, whether each piece is degraded, the `dragon` object); a fault strikes after so many pieces."""
    texts: list[str] = []
    is_degraded: list[bool] = []
    dragon: dict[str, Any] = {}
    for chunk in client.chat.completions.create(stream=True, **request(client, STORY, **options)):
        body = chunk.model_dump()
        if content := body["choices"][0]["delta"].get("content"):
            texts.append(content)
            is_degraded.append(body["dragon"]["is_degraded"])
            faults.get(len(texts), lambda: None)()
        elif body["choices"][0]["finish_reason"]:
            dragon = body["dragon"]
    return "".join(texts), is_degraded, dragon


def test_an_answer_comes_from_both_sides(client: OpenAI) -> None:
    text, dragon = ask(client, HOTEL, temperature=0, max_tokens=48)
    assert "mirador" in text.lower()
    assert "euro" in text.lower()
    assert dragon["degraded_tokens"] == 0
    assert dragon["mixed_tokens"] > 0
    assert {document["side"] for document in dragon["documents"]} == {"edge", "cloud"}
    assert all(document["name"] is None for document in dragon["documents"] if document["side"] == "cloud")


def test_the_same_seed_gives_the_same_answer_streamed_or_not(client: OpenAI) -> None:
    options = {"temperature": 0.8, "max_tokens": 40}
    whole, _ = ask(client, STORY, **options)
    streamed, _, _ = ask_with_fault(client, {}, **options)
    other, _ = ask(client, STORY, **{**options, "seed": 6})
    assert streamed == whole
    assert other != whole


def test_a_cut_link_degrades_the_answer_and_is_mended(stack: Stack, client: OpenAI) -> None:
    link = pid_of(stack, "link")
    faults = {
        5: lambda: os.kill(link, signal.SIGUSR1),
        12: lambda: os.kill(link, signal.SIGUSR2),
    }
    try:
        _, is_degraded, dragon = ask_with_fault(client, faults, temperature=0.8, max_tokens=400)
    finally:
        os.kill(link, signal.SIGUSR2)
    assert dragon["degraded_tokens"] > 0
    assert not is_degraded[0]
    first = is_degraded.index(True)
    assert False in is_degraded[first:], "after the link was back no token was mixed again"


def test_a_killed_broker_does_not_stop_the_answer(stack: Stack, client: OpenAI) -> None:
    options = {"temperature": 0.8, "max_tokens": 80}
    whole, _, _ = ask_with_fault(client, {}, **options)
    broker = pid_of(stack, "broker")
    text, is_degraded, dragon = ask_with_fault(client, {5: lambda: os.kill(broker, signal.SIGKILL)}, **options)
    assert dragon
    assert text == whole or any(is_degraded)
    wait_until_mixing(stack)
    assert pid_of(stack, "broker") != broker


def test_a_client_that_hangs_up_frees_its_session(stack: Stack, client: OpenAI) -> None:
    with client.chat.completions.create(stream=True, **request(client, STORY, max_tokens=400)) as stream:
        next(iter(stream))
    deadline = time.monotonic() + 20
    while "dragon_edge_open_sessions 0.0" not in (metrics := httpx.get(f"{stack.plan()['api_url']}/metrics").text):
        assert time.monotonic() < deadline, metrics
        time.sleep(0.1)


def test_a_stack_is_started_once_and_leaves_nothing(tmp_path: Path) -> None:
    assert dragonctl("up", folder=tmp_path).returncode == 0
    stack = Stack(tmp_path)
    again = dragonctl("up", folder=tmp_path)
    assert again.returncode == 1
    assert "dragonctl down" in again.stderr
    os.kill(int(stack.lock_path.read_text()), signal.SIGKILL)  # its parts are still there and are found
    assert stack.is_running
    assert dragonctl("down", folder=tmp_path).returncode == 0
    assert not stack.is_running, "every part holds the lock as long as it lives"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{stack.plan()['api_url']}/healthz")


def test_a_wrong_use_is_one_line(tmp_path: Path) -> None:
    for arguments, told in (
        (("up", "--public-documents", str(tmp_path / "none")), "no folder"),
        (("status",), "dragonctl up"),
        (("logs",), "dragonctl up"),
        (("ask", "anything", "--url", "http://127.0.0.1:9"), "nothing answers"),
    ):
        ended = dragonctl(*arguments, folder=tmp_path / "stack")
        assert ended.returncode == 1
        assert told in ended.stderr
        assert "Traceback" not in ended.stderr
