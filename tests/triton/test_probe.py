"""The probe of the image, against a real Triton server: true only while a token can be produced."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dragon_runtime.engines.triton.client import TritonClient
from dragon_runtime.engines.triton.engine import TritonEngine
from dragon_runtime.servers.mosquitto import free_port
from dragon_runtime.servers.triton_server import find_triton, prepare, server_command
from local_cluster.waiting import wait_until
from tests.contracts.engine_sessions import DrivenSession, request_of
from tests.fakes.tiny_model import write_tiny_model
from tests.servers.triton_process import TritonProcess

pytestmark = pytest.mark.integration

PROBE = Path(__file__).parents[2] / "images" / "triton" / "triton_probe.py"
NUM_SEQUENCES = 4


class ServerWithHttp(TritonProcess):
    """As the image starts it: HTTP on loopback too."""

    def __init__(self, folder: Path, model: Path) -> None:
        settings = {"model_path": model, "context_length": 256, "num_sequences": NUM_SEQUENCES, "num_threads": 1}
        super().__init__(folder, {"causal_lm": settings})
        self.http_port = free_port()

    def start(self, *models: str) -> None:
        install = find_triton()
        command = server_command(
            install,
            self.folder,
            repository=self.repository,
            grpc_port=self.grpc_port,
            metrics_port=self.metrics_port,
        )
        command.remove("--allow-http=false")
        command += ["--http-address=127.0.0.1", f"--http-port={self.http_port}"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=prepare(install, self.folder))
        wait_until(lambda: self.are_ready("causal_lm", "embedder"), "Triton's models are ready")
        wait_until(
            lambda: "Connection refused" not in self.probe(), "Triton listens for HTTP, which it does after gRPC"
        )

    def probe(self) -> str:
        """What the probe says is wrong; nothing when all is well."""
        probed = subprocess.run(
            [sys.executable, "-ISB", str(PROBE), str(self.http_port)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (probed.returncode == 0) == (probed.stderr == "")
        return probed.stderr


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerWithHttp]:
    server = ServerWithHttp(tmp_path / "triton", write_tiny_model(tmp_path / "tiny.gguf"))
    assert "Connection refused" in server.probe()
    server.start()
    yield server
    server.stop()


async def test_the_probe_holds_while_the_model_is_idle_busy_or_full(server: ServerWithHttp) -> None:
    for _ in range(5):
        assert server.probe() == ""
    wait_until(lambda: server.metric("dragon_causal_lm_sequences_in_use") == 0, "the probe holds no sequences")
    client = TritonClient(server.settings)
    engine = await TritonEngine.connect(client)
    sessions = [await DrivenSession.open(engine, request_of(engine, 9, seed=at)) for at in range(NUM_SEQUENCES)]
    assert server.probe() == ""
    for session in sessions:
        await session.close()
    await engine.close()
    await client.close()
    assert server.metric("dragon_causal_lm_rejected_total") == 0
    assert server.probe() == ""


@pytest.mark.parametrize("model", ["causal_lm", "embedder"])
def test_the_probe_fails_for_a_model_whose_process_died_though_triton_calls_it_ready(
    server: ServerWithHttp, model: str
) -> None:
    assert server.probe() == ""
    for process in server.model_processes(model):
        os.kill(process, signal.SIGKILL)
    assert model in server.probe()
    assert server.are_ready(model)


def test_the_probe_fails_for_a_model_that_hangs(server: ServerWithHttp) -> None:
    processes = server.model_processes("causal_lm")
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        assert "causal_lm" in server.probe()
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)
