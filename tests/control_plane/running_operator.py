"""The operator as a process of its own, against a real API server."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import yaml

from dragon_runtime.servers.mosquitto import free_port
from local_cluster.waiting import wait_until

CRDS = Path(__file__).resolve().parents[2] / "crds"


class RunningOperator:
    """`dragon-operator run` with its log in a file. A context."""

    def __init__(
        self, folder: Path, kubeconfig: Path, *, namespaces: list[str], lease_namespace: str, **more: Any
    ) -> None:
        """`more` are settings."""
        folder.mkdir(parents=True, exist_ok=True)
        self.log_file = folder / "operator.log"
        self.metrics_port = free_port()
        self._settings = folder / "operator.yaml"
        settings: dict[str, Any] = {
            "namespaces": namespaces,
            "resync_seconds": 5,
            "metrics": {"port": self.metrics_port},
            "log": {"level": "info"},
            **more,
        }
        self._settings.write_text(yaml.safe_dump(settings))
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DRAGON_")},
            "KUBECONFIG": str(kubeconfig),
            "POD_NAMESPACE": lease_namespace,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def start(self) -> None:
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dragon_operator.main", "run", "--settings", str(self._settings)],
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    def wait_until_leading(self) -> None:
        def is_leading() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.log
            return "watching" in self.log

        wait_until(is_leading, "the operator leads", seconds=80)

    def stop(self) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(timeout=30)
        self._process = None
        return code

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_until_leading()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
