"""The whole of it with the cloud's models on Triton: the same answers, and faults in mid-answer."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from dragon_cli.stack import Stack
from tests.servers.local_stack import Streamed, ask, at_piece, dragonctl, pid_of, stream, wait_until_mixing

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DOCUMENTS = Path(__file__).parents[2] / "dragon_cli" / "demo_documents"
HOTEL = "What is the name of my hotel in Lisbon, and what is the currency used in Lisbon?"
NUMBERS = "Write the numbers from 1 to 500, one after the other: 1, 2, 3, 4, 5,"
"""Without chance its answer goes on for longer than any fault lasts."""


def started(folder: Path, *options: str) -> Stack:
    stack = Stack(folder)
    came_up = dragonctl("up", "--public-documents", str(DOCUMENTS / "public"), *options, folder=folder)
    assert came_up.returncode == 0, came_up.stderr
    added = dragonctl("documents", "add", str(DOCUMENTS / "private"), folder=folder)
    assert added.returncode == 0, added.stderr
    return stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    try:
        yield started(folder, "--rtt-ms", "60", "--engine", "triton")
    finally:
        Stack(folder).stop()


def client_of(stack: Stack) -> OpenAI:
    wait_until_mixing(stack)
    return OpenAI(base_url=f"{stack.plan()['api_url']}/v1", api_key="none", max_retries=0)


def answers(stack: Stack) -> list[str]:
    found = []
    with client_of(stack) as client:
        for temperature in (0.0, 0.8):
            text, dragon = ask(client, HOTEL, temperature=temperature, max_tokens=40)
            assert dragon["degraded_tokens"] == 0
            assert {document["side"] for document in dragon["documents"]} == {"edge", "cloud"}
            found.append(text)
    return found


def test_answers_are_those_of_the_embedded_engine(stack: Stack, tmp_path: Path) -> None:
    on_triton = answers(stack)
    assert "mirador" in on_triton[0].lower()
    try:
        assert answers(started(tmp_path)) == on_triton
    finally:
        Stack(tmp_path).stop()


def kill_triton(stack: Stack) -> None:
    os.kill(pid_of(stack, "triton"), signal.SIGKILL)


def kill_cloud_peer(stack: Stack) -> None:
    os.kill(pid_of(stack, "cloud"), signal.SIGKILL)


def kill_language_model(stack: Stack) -> None:
    pattern = f"triton_python_backend_stub.*{stack.folder}/triton/models/causal_lm"
    subprocess.run(["pkill", "-9", "-f", pattern], check=True)


@pytest.mark.parametrize("kill", [kill_triton, kill_cloud_peer, kill_language_model])
def test_an_answer_goes_on_alone_and_is_mixed_again(stack: Stack, kill: Callable[[Stack], None]) -> None:
    with client_of(stack) as client:
        streamed = stream(
            client,
            NUMBERS,
            on_piece=at_piece(5, lambda: kill(stack)),
            is_enough=lambda streamed: streamed.is_mixed_again,
            temperature=0,
            max_tokens=1500,
        )
        assert not any(streamed.is_degraded[:5])
        assert any(streamed.is_degraded), "the kill was not felt"
        assert streamed.is_mixed_again, "no token was mixed after the fault"
        after: Streamed = stream(client, HOTEL, temperature=0, max_tokens=16)
        assert not any(after.is_degraded)
