"""A real edge daemon in a process of its own, without a broker, for tests."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from dragon_runtime.servers.mosquitto import free_port
from local_cluster.waiting import wait_until

START_SECONDS = 120


class Daemon:
    """`dragon-edge run` over `data_folder`; it can be killed and started again. Nobody listens at its broker's port."""

    def __init__(self, data_folder: Path, *, settings_folder: Path, **settings: Any) -> None:
        self.data_folder = data_folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings_path = settings_folder / "edge.yaml"
        self._log_path = settings_folder / "edge.log"
        whole = {
            "device": "d1",
            "data_folder": str(data_folder),
            "broker": {"port": free_port()},
            "model": {"num_threads": 1, "num_sequences": 4},
            "api": {"port": self.port},
            **settings,
        }
        settings_folder.mkdir(parents=True, exist_ok=True)
        self._settings_path.write_text(yaml.safe_dump(whole))
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> "subprocess.Popen[bytes]":
        """Start the process without waiting for it."""
        command = [sys.executable, "-m", "edge_daemon.main", "run", "--settings", str(self._settings_path)]
        with self._log_path.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ))
        return self.process

    def start(self) -> Self:
        """Start it and return when it answers."""
        process = self.launch()
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if httpx.get(f"{self.url}/healthz").is_success:
                    return self
            except httpx.TransportError:
                assert process.poll() is None, self.log
                assert time.monotonic() < deadline, self.log
                time.sleep(0.05)

    def refusal(self) -> str:
        """What a daemon that cannot start says: its last line. It must end by itself, with exit code 1."""
        self._log_path.unlink(missing_ok=True)
        assert self.launch().wait(START_SECONDS) == 1, self.log
        assert "Traceback" not in self.log
        return self.log.strip().splitlines()[-1]

    def kill(self) -> None:
        """End it as a power cut does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """End it as a user does; returns its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(START_SECONDS)

    @property
    def log(self) -> str:
        return self._log_path.read_text() if self._log_path.exists() else ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.kill()

    def add(self, name: str, content: bytes) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/documents", files={"file": (name, content)}, timeout=60)

    def document(self, document_id: str) -> dict[str, Any]:
        return dict(httpx.get(f"{self.url}/v1/documents/{document_id}", timeout=60).json())

    def wait_for(self, document_id: str, *, seconds: float = 60) -> dict[str, Any]:
        """A document when it is done or has failed."""
        wait_until(
            lambda: self.document(document_id)["state"] in {"done", "failed"},
            f"document {document_id} is done or has failed",
            seconds=seconds,
        )
        return self.document(document_id)

    def search(self, query: str, *, num_passages: int = 5) -> list[dict[str, Any]]:
        body = {"query": query, "num_passages": num_passages}
        return list(httpx.post(f"{self.url}/v1/documents/search", json=body, timeout=60).json()["data"])
