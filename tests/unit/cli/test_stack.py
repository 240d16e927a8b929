"""A local stack's parts: their settings, the supervisor that keeps them running, waiting for them, and their logs."""

import asyncio
import hashlib
import io
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import pytest
from rich.console import Console

from cloud_peer.settings import CloudSettings
from dragon_cli.configuring import configure
from dragon_cli.doctor import Finding, examine, show
from dragon_cli.logs import follow, last_lines
from dragon_cli.stack import PartStatus, Stack, StackOptions, write_whole
from dragon_cli.starting import MAX_RESTARTS, wait_until_ready, with_fetched_model
from dragon_cli.supervisor import Supervisor
from dragon_core.errors import ModelError, OurError, SettingsError
from dragon_core.types import WeightingRule
from dragon_runtime.settings import load_settings
from edge_daemon.settings import EdgeSettings
from local_cluster.waiting import wait_until

QUIET = Console(file=io.StringIO())


def plan(stack: Stack, **commands: list[str]) -> None:
    """A stack of these commands."""
    stack.folder.mkdir(parents=True, exist_ok=True)
    (stack.folder / "logs").mkdir(exist_ok=True)
    write_whole(stack.plan_path, json.dumps({"commands": commands, "api_url": "http://127.0.0.1:9"}))


@asynccontextmanager
async def supervised(stack: Stack) -> AsyncIterator[None]:
    """The supervisor of a stack in this process, until the scope ends."""
    stopped = asyncio.Event()
    with stack.locked() as lock:
        running = asyncio.create_task(Supervisor(stack, lock).run(stopped))
        try:
            yield
        finally:
            stopped.set()
            await running


def part_of(stack: Stack, name: str) -> PartStatus | None:
    return next((part for part in stack.parts() if part.name == name), None)


def wait_until_restarted(stack: Stack, name: str) -> None:
    """Look at what the supervisor writes."""

    def is_restarted() -> bool:
        part = part_of(stack, name)
        return part is not None and part.num_restarts > 0 and part.is_running

    wait_until(is_restarted, f"{name} was started again")


async def test_a_part_that_ends_is_started_again_and_its_last_words_are_kept(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    marker = tmp_path / "ended"
    script = f'test -e {marker} && exec sleep 60; touch {marker}; echo "[boom]"; exit 3'
    plan(stack, cloud=["sh", "-c", script], edge=["sleep", "60"])
    async with supervised(stack):
        assert stack.is_running
        await asyncio.to_thread(wait_until_restarted, stack, "cloud")
        cloud, edge = part_of(stack, "cloud"), part_of(stack, "edge")
        assert cloud is not None
        assert edge is not None
        assert (cloud.num_restarts, cloud.problem) == (1, "ended with 3: [boom]")
        assert (edge.num_restarts, edge.is_running, edge.problem) == (0, True, "")
        pids = [cloud.pid, edge.pid]
    assert not stack.is_running
    assert all(not part.is_running and part.pid is None for part in stack.parts())
    for pid in pids:
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_stack_is_held_by_one(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    with stack.locked(), pytest.raises(SettingsError, match="is already running"), stack.locked():
        pass
    assert not stack.is_running
    assert not stack.stop()


async def test_a_part_that_does_not_stay_up_ends_the_wait_with_its_last_words(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    plan(stack, cloud=[])
    problem = "ended with 1: dragon-cloud: no model [edge]"
    stack.write_status([PartStatus(name="cloud", pid=None, is_running=False, num_restarts=MAX_RESTARTS, since=0.0)])
    with pytest.raises(OurError, match="the cloud peer keeps stopping"):
        await wait_until_ready(stack, QUIET)
    stack.write_status([replace(stack.parts()[0], problem=problem)])
    with pytest.raises(OurError) as caught:
        await wait_until_ready(stack, QUIET)
    assert problem in str(caught.value)
    assert str(stack.log_path("cloud")) in str(caught.value)


def test_settings_that_are_written_are_settings_that_load(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack")
    options = StackOptions(
        rtt_ms=80, public_documents=tmp_path, protocol={"weighting": {"rule": "equal"}, "placement": "edge"}
    )
    written = configure(stack, options)
    assert list(written["commands"]) == ["broker", "link", "cloud", "edge"]
    edge = load_settings(EdgeSettings, stack.folder / "edge.yaml")
    cloud = load_settings(CloudSettings, stack.folder / "cloud.yaml")
    assert edge.weighting.rule is cloud.weighting.rule is WeightingRule.EQUAL
    assert cloud.documents == tmp_path
    assert edge.broker.port != cloud.broker.port, "the device is behind the slow link"
    assert edge.broker.uses_tls
    assert written["api_url"] == f"http://127.0.0.1:{edge.api.port}"
    assert stack.folder.stat().st_mode & 0o777 == 0o700


def test_the_usual_port_is_left_when_somebody_has_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8642))
            taken.listen()
        except OSError:
            pass  # somebody has it already
        assert not configure(Stack(tmp_path), StackOptions())["api_url"].endswith(":8642")


@pytest.fixture
def model_url() -> Iterator[tuple[str, list[str]]]:
    """Where a model is, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"GGUF and more")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/a.gguf", asked
        server.shutdown()
        thread.join()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_a_model_by_address_is_fetched_once_for_both_ends(
    model_url: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, asked = model_url
    options = StackOptions(model=url, model_sha256=hashlib.sha256(b"GGUF and more").hexdigest())
    for _ in range(2):
        fetched = await with_fetched_model(options, tmp_path, QUIET)
        assert fetched.model is not None
        assert fetched.model == str(tmp_path / f"{options.model_sha256}.gguf")
    assert asked == ["/a.gguf"]
    wrong = replace(options, model_sha256="0" * 64)
    with pytest.raises(ModelError, match="has sha256"):
        await with_fetched_model(wrong, tmp_path, QUIET)
    assert await asyncio.to_thread(contents, tmp_path) == {f"{options.model_sha256}.gguf": b"GGUF and more"}


def test_doctor_names_what_is_missing_and_how_to_get_it(tmp_path: Path) -> None:
    findings = examine(tmp_path / "not" / "there")
    assert {finding.what for finding in findings} >= {"Python", "mosquitto (MQTT broker)", "disk", "stack's folder"}
    console = Console(file=io.StringIO(), width=60)
    show([Finding("engine", is_good=False, found="nothing", remedy="install dragon-rag[edge]")], console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "missing" in text
    assert "dragon-rag[edge]" in text.replace("\n", "")


def test_the_last_lines_of_a_large_log(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("".join(f"line {number}\n" for number in range(50_000)))
    assert last_lines(path, 2) == ["line 49998", "line 49999"]
    assert len(last_lines(path, 20_000)) == 20_000
    assert last_lines(path, 0) == []
    path.write_bytes(b"no end \xff")
    assert last_lines(path, 5) == ["no end \N{REPLACEMENT CHARACTER}"]


def test_lines_are_followed_as_they_are_written(tmp_path: Path) -> None:
    paths = {name: tmp_path / name for name in ("a", "b")}
    for path in paths.values():
        path.write_text("before\n")
    lines = follow(paths)
    for name, path in paths.items():
        with path.open("a") as file:
            file.write(f"{name} now\nhalf")
    assert sorted(islice(lines, 2)) == [("a", "a now"), ("b", "b now")]
    with paths["a"].open("a") as file:
        file.write(" a line\n")
    assert next(lines) == ("a", "half a line")
    lines.close()  # type: ignore[attr-defined]
