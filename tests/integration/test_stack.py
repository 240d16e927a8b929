"""The whole of it with real parts: broker, slow link, cloud peer, edge daemon, models, stores; faults in mid-answer."""

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from openai import OpenAI

from dragon_cli.stack import Stack
from dragon_runtime.answering.summary import DragonSummary
from dragon_runtime.servers.mosquitto import free_port
from local_cluster.waiting import wait_until
from tests.servers.local_stack import (
    Streamed,
    ask,
    at_piece,
    dragonctl,
    is_prefix,
    pid_of,
    sample,
    stream,
    wait_until_mixing,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DOCUMENTS = Path(__file__).parents[2] / "dragon_cli" / "demo_documents"
HOTEL = "What is the name of my hotel in Lisbon, and what is the currency used in Lisbon?"
NUMBERS = "Write the numbers from 1 to 500, one after the other: 1, 2, 3, 4, 5,"
"""Without chance its answer goes on for longer than any fault lasts."""
STORY = "Tell me a very long story about my hotel in Lisbon and the tram."


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


def test_an_answer_comes_from_both_sides(client: OpenAI) -> None:
    text, dragon = ask(client, HOTEL, temperature=0, max_tokens=48)
    assert "mirador" in text.lower()
    assert "euro" in text.lower()
    assert dragon["degraded_tokens"] == 0
    assert dragon["mixed_tokens"] > 0
    assert {document["side"] for document in dragon["documents"]} == {"edge", "cloud"}
    assert all(document["name"] is None for document in dragon["documents"] if document["side"] == "cloud")


def test_what_goes_with_an_answer_has_the_documented_schema(stack: Stack, client: OpenAI) -> None:
    options = ("--temperature", "0", "--max-tokens", "16", "--seed", "5")
    printed = dragonctl("ask", "--json", HOTEL, *options, folder=stack.folder)
    assert printed.returncode == 0, printed.stderr
    told = yaml.safe_load(printed.stdout)
    text, dragon = ask(client, HOTEL, temperature=0, max_tokens=16)
    assert told["text"] == text
    for found in (told["dragon"], dragon):
        summary = DragonSummary.model_validate(found, strict=False)
        assert summary.seed == 5
        assert summary.num_tokens == summary.mixed_tokens + summary.degraded_tokens


def test_the_same_seed_gives_the_same_answer_streamed_or_not(client: OpenAI) -> None:
    whole, _ = ask(client, STORY, temperature=0.8, max_tokens=40)
    other, _ = ask(client, STORY, temperature=0.8, max_tokens=40, seed=6)
    assert stream(client, STORY, temperature=0.8, max_tokens=40).text == whole
    assert other != whole


def test_a_cut_link_degrades_the_answer_and_is_mended(stack: Stack, client: OpenAI) -> None:
    link = pid_of(stack, "link")

    def on_piece(streamed: Streamed) -> None:
        if len(streamed.texts) == 5:
            os.kill(link, signal.SIGUSR1)
        elif sum(streamed.is_degraded) == 3:
            os.kill(link, signal.SIGUSR2)

    options = {"on_piece": on_piece, "is_enough": lambda streamed: streamed.is_mixed_again}
    try:
        streamed = stream(client, STORY, **options, temperature=0.8, max_tokens=400)
    finally:
        os.kill(link, signal.SIGUSR2)
    undisturbed = stream(client, STORY, temperature=0.8, max_tokens=30)
    assert not any(streamed.is_degraded[:5])
    assert streamed.is_mixed_again, "after the link was back no token was mixed again"
    assert not any(undisturbed.is_degraded)
    assert is_prefix(undisturbed.text, streamed.text_before_degraded)


def test_a_killed_broker_changes_no_token_that_both_ends_wrote(stack: Stack, client: OpenAI) -> None:
    broker = pid_of(stack, "broker")
    streamed = stream(
        client,
        STORY,
        on_piece=at_piece(5, lambda: os.kill(broker, signal.SIGKILL)),
        is_enough=lambda streamed: (
            streamed.is_mixed_again or (len(streamed.texts) > 60 and not any(streamed.is_degraded))
        ),
        temperature=0.8,
        max_tokens=400,
    )
    assert not any(streamed.is_degraded[:5])
    assert streamed.is_mixed_again or not any(streamed.is_degraded), "after the broker was back no token was mixed"
    assert pid_of(stack, "broker") != broker
    wait_until_mixing(stack)
    undisturbed = stream(client, STORY, temperature=0.8, max_tokens=30)
    assert not any(undisturbed.is_degraded)
    assert is_prefix(undisturbed.text, streamed.text_before_degraded)


def has_none_open(end: str, url: str) -> bool:
    return sample(url, f"{end}_open_sessions") == 0


def test_a_client_that_hangs_up_frees_both_ends(stack: Stack, client: OpenAI) -> None:
    ends = {"dragon_edge": stack.plan()["api_url"], "dragon_cloud": stack.plan()["metrics_url"]}
    free = {end: sample(url, f"{end}_free_sequences") for end, url in ends.items()}
    assert free == {"dragon_edge": 8, "dragon_cloud": 8}
    num_cancelled = {end: sample(url, f"{end}_answers_total", reason="cancelled") for end, url in ends.items()}

    def while_it_runs() -> None:
        for end, url in ends.items():
            assert sample(url, f"{end}_open_sessions") == 1
            assert sample(url, f"{end}_free_sequences") < free[end]

    stream(client, STORY, on_piece=at_piece(1, while_it_runs), is_enough=lambda _: True, max_tokens=400)
    for end, url in ends.items():
        wait_until(functools.partial(has_none_open, end, url), f"{end} ended its session")
        assert sample(url, f"{end}_free_sequences") == free[end]
        assert sample(url, f"{end}_answers_total", reason="cancelled") == num_cancelled[end] + 1


def is_connected(stack: Stack) -> bool:
    try:
        return sample(stack.plan()["metrics_url"], "dragon_cloud_broker_connected") == 1
    except httpx.TransportError:
        return False


def test_a_cloud_peer_that_is_told_to_go_leaves_no_answer_unfinished(stack: Stack, client: OpenAI) -> None:
    cloud = pid_of(stack, "cloud")
    options: dict[str, Any] = {"temperature": 0.8, "max_tokens": 60}
    streamed = stream(client, STORY, on_piece=at_piece(5, lambda: os.kill(cloud, signal.SIGTERM)), **options)
    assert streamed.dragon["num_tokens"] == 60
    assert not any(streamed.is_degraded[:5])
    assert "draining 1 sessions for at most 5 s" in stack.log_path("cloud").read_text()
    wait_until(lambda: pid_of(stack, "cloud") != cloud, "another cloud peer runs")
    replaced = next(part for part in stack.parts() if part.name == "cloud")
    assert replaced.problem.startswith("ended with 0: "), "it ended by itself"
    wait_until(lambda: is_connected(stack), "the new cloud peer serves")
    wait_until_mixing(stack)
    undisturbed = stream(client, STORY, **options)
    assert not any(undisturbed.is_degraded)
    assert is_prefix(undisturbed.text, streamed.text_before_degraded)


class SecondReplica:
    """A cloud peer beside that of the stack, which hands everything back as soon as it is told to go."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        settings = yaml.safe_load((stack.folder / "cloud.yaml").read_text())
        changes = {"replica": "second", "data_folder": str(folder / "data"), "metrics": {"port": port}}
        (folder / "second.yaml").write_text(yaml.safe_dump({**settings, **changes, "drain_seconds": 0}))
        command = [sys.executable, "-m", "cloud_peer.main", "run", "--settings", str(folder / "second.yaml")]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def sample(self, name: str) -> float:
        """A metric; 0 before it serves any."""
        try:
            return sample(self.url, f"dragon_cloud_{name}")
        except httpx.TransportError:
            return 0.0


@pytest.fixture
def second(stack: Stack, tmp_path: Path) -> Iterator[SecondReplica]:
    second = SecondReplica(stack, tmp_path)
    try:
        wait_until(lambda: second.sample("broker_connected") == 1, "the second replica is connected")
        yield second
    finally:
        second.process.kill()
        second.process.wait()


def test_each_session_is_served_by_exactly_one_of_two_replicas(
    stack: Stack, client: OpenAI, second: SecondReplica
) -> None:
    first_url = stack.plan()["metrics_url"]

    def served() -> tuple[float, float]:
        return sample(first_url, "dragon_cloud_answers_total"), second.sample("answers_total")

    def is_counted(number: int) -> bool:
        return sum(served()) - sum(before) == number

    before = served()
    for number in range(1, 7):
        _, dragon = ask(client, HOTEL, temperature=0, max_tokens=4, seed=number)
        assert (dragon["mixed_tokens"], dragon["degraded_tokens"]) == (4, 0)
        wait_until(functools.partial(is_counted, number), "it was counted once")
    assert all(after > earlier for earlier, after in zip(before, served(), strict=True)), "one had nothing to do"


def test_an_answer_that_a_replica_hands_back_is_taken_on_by_another(client: OpenAI, second: SecondReplica) -> None:
    is_told = False

    def on_piece(streamed: Streamed) -> None:
        nonlocal is_told
        if len(streamed.texts) == 3 and second.sample("open_sessions") == 1:
            second.process.terminate()
            is_told = True

    def is_enough(streamed: Streamed) -> bool:
        return streamed.is_mixed_again or (len(streamed.texts) == 3 and not is_told)

    for _ in range(6):  # the broker lets the replicas take turns
        streamed = stream(client, NUMBERS, on_piece=on_piece, is_enough=is_enough, temperature=0, max_tokens=400)
        if is_told:
            break
    assert is_told, "the second replica was never asked"
    assert second.process.wait(60) == 0
    assert streamed.is_mixed_again, f"no other replica took it on: {streamed}"
    undisturbed = stream(client, NUMBERS, temperature=0, max_tokens=30)
    assert not any(undisturbed.is_degraded)
    assert is_prefix(undisturbed.text, streamed.text_before_degraded)


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
