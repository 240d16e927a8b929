"""A real daemon in a fleet: from a token to an answer, configured and given other models while it runs."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from dragon_core.fleet.messages import Configuration, DeviceModel, Reported, SamplingDefaults
from dragon_operator.fleet import DesiredDevice, Fleet, PresenceState
from dragon_runtime.servers.mosquitto import free_port
from tests.fakes.tiny_model import write_tiny_model
from tests.integration.test_fleet import TOPICS, Office, report_of, until, until_state
from tests.servers.fleet_broker import FleetBroker, find_plugin

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.skipif(find_plugin() is None, reason="mosquitto's dynamic security plugin is not installed"),
]

START_SECONDS = 90


class Edge:
    """`dragon-edge` with a settings file that names neither device nor broker."""

    def __init__(self, folder: Path) -> None:
        self.data_folder, self.port = folder / "data", free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings, self._log = folder / "edge.yaml", folder / "edge.log"
        write_tiny_model(folder / "own.gguf")
        content = {
            "data_folder": str(self.data_folder),
            "model": {"path": str(folder / "own.gguf"), "num_threads": 1, "num_sequences": 8, "context_length": 1024},
            "api": {"port": self.port},
        }
        self._settings.write_text(yaml.safe_dump(content))
        self.process: subprocess.Popen[bytes] | None = None

    async def command(self, *arguments: str, text: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        name, *rest = arguments
        command = [sys.executable, "-m", "edge_daemon.main", name, "--settings", str(self._settings), *rest]
        return await asyncio.to_thread(
            subprocess.run, command, input=text, capture_output=True, text=True, timeout=60, check=False
        )

    async def start(self) -> None:
        command = [sys.executable, "-m", "edge_daemon.main", "run", "--settings", str(self._settings)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ))  # noqa: ASYNC220
        await until(self._is_alive, "the daemon answers", seconds=START_SECONDS)

    def _is_alive(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        try:
            return httpx.get(f"{self.url}/healthz", timeout=2).is_success
        except httpx.TransportError:
            return False

    async def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            await asyncio.to_thread(self.process.wait, 30)
            self.process = None

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def model(self) -> str:
        async with httpx.AsyncClient(timeout=10) as client:
            return str((await client.get(f"{self.url}/v1/models")).json()["data"][0]["id"])

    async def ask(self) -> dict[str, Any]:
        body = {"model": await self.model(), "messages": [{"role": "user", "content": "Count."}]}
        async with httpx.AsyncClient(timeout=60) as client:
            response = await client.post(f"{self.url}/v1/chat/completions", json=body)
        assert response.is_success, response.text
        return dict(response.json())


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[FleetBroker]:
    async with FleetBroker(tmp_path / "broker", TOPICS) as broker:
        yield broker


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    (tmp_path / "device").mkdir()
    edge = Edge(tmp_path / "device")
    yield edge
    await edge.stop()


@pytest.fixture
def models(tmp_path: Path) -> Iterator[dict[str, DeviceModel]]:
    """Served: `good`, `bad` (no model at all), and `absent`."""
    folder = tmp_path / "models"
    folder.mkdir()
    write_tiny_model(folder / "good.gguf", seed=7)
    (folder / "bad.gguf").write_bytes(b"this is no model" * 1000)
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        made = {
            name: DeviceModel(
                url=f"{url}/{name}.gguf", sha256=hashlib.sha256((folder / f"{name}.gguf").read_bytes()).hexdigest()
            )
            for name in ("good", "bad")
        }
        yield {**made, "absent": DeviceModel(url=f"{url}/absent.gguf", sha256="0" * 64)}
        server.shutdown()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Tests are quiet."""


def reported(fleet: Fleet) -> Reported:
    found = report_of(fleet).reported
    assert found is not None
    return found


async def test_from_a_token_to_an_answer(broker: FleetBroker, edge: Edge, models: dict[str, DeviceModel]) -> None:
    office = Office(broker)
    device, token = office.wanted()
    async with office.fleet() as fleet:
        await fleet.sync([device])
        assert "not enrolled" in (await edge.command("check")).stderr
        joined = await edge.command("join", "-", text=f"{token[:60]}\n{token[60:]}\n")
        assert (joined.returncode, joined.stdout.splitlines()[0][:14]) == (0, "enrolled as d1"), joined.stderr
        again = await edge.command("join", token)
        assert again.returncode == 1
        checked = await edge.command("check")
        assert (checked.returncode, "WRONG" in checked.stdout) == (0, False), checked.stdout + checked.stderr
        assert (await edge.command("status")).returncode == 1
        await edge.start()
        await until_state(fleet, PresenceState.READY)
        await until(lambda: report_of(fleet).is_joined, "the token is used up")
        await live_configuration(fleet, edge)
        await other_models(fleet, edge, models)
        status = json.loads((await edge.command("status", "--json")).stdout)
        assert (status["device"], status["daemon"]["checks"]["broker"]["ready"]) == ("d1", True)
        bundle = (await edge.command("diagnose")).stdout
        key = (edge.data_folder / "identity" / "current" / "key.pem").read_text()
        assert key.splitlines()[1] not in bundle
        assert json.loads(bundle)["check"]
        assert "stop it first" in (await edge.command("reset", "--yes")).stderr
        await edge.stop()
        assert (await until_state(fleet, PresenceState.UNREACHABLE)).reason == "Stopped"
        assert (await edge.command("reset", "--yes")).returncode == 0
        assert not (edge.data_folder / "identity").exists()
        assert (edge.data_folder / "documents.sqlite").exists()
        assert (await edge.command("reset", "--yes", "--documents")).returncode == 0
        assert not (edge.data_folder / "documents.sqlite").exists()


async def live_configuration(fleet: Fleet, edge: Edge) -> None:
    wanted = Configuration(window=5, placement="edge", sampling=SamplingDefaults(temperature=0.0, max_tokens=3))
    await fleet.sync([DesiredDevice(name="d1", configuration=wanted)])
    await until(lambda: reported(fleet).applied and reported(fleet).applied == reported(fleet).observed, "applied")
    pid = edge.process.pid if edge.process is not None else 0
    answer = await edge.ask()
    assert answer["usage"]["completion_tokens"] <= 3
    assert answer["dragon"]["window"] == 5
    assert edge.process is not None
    assert edge.process.pid == pid
    await until(lambda: (link := report_of(fleet).link) is not None and link.answers == 1, "the answer is counted")
    await fleet.sync([DesiredDevice(name="d1", configuration=Configuration(branches=16))])
    await until(lambda: "num_sequences" in reported(fleet).error, "what cannot be is refused")


async def other_models(fleet: Fleet, edge: Edge, models: dict[str, DeviceModel]) -> None:
    await fleet.sync([DesiredDevice(name="d1", configuration=Configuration(model=models["absent"]))])
    await until(lambda: "cannot be fetched" in reported(fleet).error, "an absent model is reported")
    assert reported(fleet).needs_restart
    assert await edge.model() == "own"
    await fleet.sync([DesiredDevice(name="d1", configuration=Configuration(model=models["good"]))])
    await until(lambda: reported(fleet).model == models["good"].sha256, "the other model runs", seconds=60)
    await until(lambda: reported(fleet).applied == reported(fleet).observed, "and the configuration is applied")
    assert await edge.model() == models["good"].sha256
    await edge.ask()
    await fleet.sync([DesiredDevice(name="d1", configuration=Configuration(model=models["bad"]))])
    await until(lambda: "cannot be used" in reported(fleet).error, "a bad model is reported", seconds=60)
    assert reported(fleet).model == models["good"].sha256
    await edge.ask()
    await fleet.sync([DesiredDevice(name="d1")])
    await until(lambda: reported(fleet).model == "own", "the device's own model runs again", seconds=60)
