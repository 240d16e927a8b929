"""What a real cloud peer says of itself while its broker comes and goes."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from dragon_runtime.servers.mosquitto import free_port
from local_cluster.waiting import wait_until
from tests.fakes.tiny_model import write_tiny_model
from tests.servers.broker import Broker

pytestmark = pytest.mark.integration


async def test_a_cloud_peer_is_ready_while_it_has_models_and_a_broker(tmp_path: Path) -> None:
    broker, port = Broker(tmp_path / "broker"), free_port()
    settings = {
        "replica": "r1",
        "data_folder": str(tmp_path / "data"),
        "model": {"path": str(write_tiny_model(tmp_path / "tiny.gguf")), "num_threads": 1, "num_sequences": 4},
        "broker": {"port": broker.port},
        "metrics": {"port": port},
    }
    (tmp_path / "cloud.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "cloud_peer.main", "run", "--settings", str(tmp_path / "cloud.yaml")]

    def get(path: str) -> tuple[int, str]:
        try:
            response = httpx.get(f"http://127.0.0.1:{port}{path}")
        except httpx.TransportError:
            return 0, ""
        return response.status_code, response.text.strip()

    def is_without_broker() -> bool:
        status, said = get("/readyz")
        return status == 503 and said.startswith(f"broker: 127.0.0.1:{broker.port}: ")

    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ))  # noqa: ASYNC220
    try:
        wait_until(lambda: get("/healthz") == (200, "ok"), "it is alive")
        wait_until(is_without_broker, "it misses its broker")
        assert "dragon_cloud_broker_connected 0.0" in get("/metrics")[1]
        async with broker:
            wait_until(lambda: get("/readyz") == (200, "ready"), "it is ready")
        wait_until(is_without_broker, "it misses its broker again")
        assert get("/healthz") == (200, "ok")
    finally:
        process.terminate()
        assert process.wait(60) == 0, (tmp_path / "log").read_text()
