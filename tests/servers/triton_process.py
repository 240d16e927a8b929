"""A real Triton server for tests, with our models on a loopback port."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import tritonclient.grpc as triton

from dragon_runtime.certificates import CertificateFolder, Identity, ServerTls
from dragon_runtime.servers.mosquitto import free_port
from dragon_runtime.servers.triton_server import launch_command, shared_memory, write_repository
from dragon_runtime.settings import TritonSettings
from local_cluster.waiting import wait_until
from tests.servers.local_stack import sample

READY_SECONDS = 90.0
CLIENT = """
import asyncio, sys
from dragon_runtime.settings import TritonSettings
from dragon_runtime.engines.triton.client import TritonClient
from dragon_runtime.engines.triton.engine import TritonEngine
from tests.contracts.engine_sessions import DrivenSession, request_of, tokens_of

async def main(address, num_sessions, num_tokens):
    engine = await TritonEngine.connect(TritonClient(TritonSettings(address=address)))
    sessions = [await DrivenSession.open(engine, request_of(engine, 9, seed=at)) for at in range(num_sessions)]
    for session in sessions:
        session.feed(*tokens_of(engine, 7, num_tokens))
    print("open", flush=True)
    await asyncio.sleep(3600)

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


class TritonProcess:
    """One server; `kill` and `start` as often as you like."""

    def __init__(
        self,
        folder: Path,
        parameters: Mapping[str, Mapping[str, object]],
        *,
        tls: tuple[CertificateFolder, Identity, Identity] | None = None,
    ) -> None:
        """`tls`: the authority, the server's identity, and ours."""
        self.folder, self._tls = folder, tls
        self.repository = write_repository(folder / "models", parameters)
        self.grpc_port, self.metrics_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> TritonSettings:
        address = f"127.0.0.1:{self.grpc_port}"
        if self._tls is None:
            return TritonSettings(address=address)
        authority, _, ours = self._tls
        return TritonSettings(
            address=address,
            ca_file=authority.certificate_file,
            certificate_file=ours.certificate_file,
            key_file=ours.key_file,
        )

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *models: str) -> None:
        """Start and wait until these models are ready (both, unless named)."""
        tls = None if self._tls is None else ServerTls(self._tls[0].certificate_file, self._tls[1])
        command = launch_command(
            self.folder,
            repository=self.repository,
            grpc_port=self.grpc_port,
            metrics_port=self.metrics_port,
            tls=tls,
        )
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(
            lambda: not self.is_running or self.are_ready(*(models or ("causal_lm", "embedder"))),
            "Triton's models are ready",
            seconds=READY_SECONDS,
        )
        assert self.is_running, self.log

    def are_ready(self, *models: str) -> bool:
        """What the server says of its models; False while it is not there."""
        settings = self.settings
        with triton.InferenceServerClient(
            str(settings.address),
            ssl=settings.uses_tls,
            root_certificates=settings.ca_file and str(settings.ca_file),
            private_key=settings.key_file and str(settings.key_file),
            certificate_chain=settings.certificate_file and str(settings.certificate_file),
        ) as client:
            try:
                return all(client.is_model_ready(model) for model in models)
            except triton.InferenceServerException:
                return False

    def kill(self) -> None:
        """SIGKILL, with what the server started."""
        for child in self.model_processes():
            subprocess.run(["kill", "-9", str(child)], check=False)
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """In order, or by force when it hangs."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def model_processes(self, model: str = "") -> list[int]:
        """The processes of the Python models."""
        pattern = f"triton_python_backend_stub.*{self.repository}/{model}"
        found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False)
        return [int(line) for line in found.stdout.split()]

    def metric(self, name: str) -> float:
        """The sum of a metric's samples of this name; 0 when there is none yet."""
        return sample(f"http://127.0.0.1:{self.metrics_port}", name)

    def shared_memory(self) -> int:
        """Bytes in /dev/shm."""
        return sum(region.stat().st_size for region in shared_memory(self.folder))

    def client_with_open_sessions(self, num_sessions: int, *, num_tokens: int) -> "subprocess.Popen[str]":
        """A process that opened so many sessions of one sequence and fed each so many tokens. Kill it."""
        arguments = [str(self.settings.address), str(num_sessions), str(num_tokens)]
        client = subprocess.Popen([sys.executable, "-c", CLIENT, *arguments], stdout=subprocess.PIPE, text=True)
        assert client.stdout is not None
        assert client.stdout.readline() == "open\n"
        client.stdout.close()
        return client


@contextmanager
def triton_server(folder: Path, parameters: Mapping[str, Mapping[str, object]]) -> Iterator[TritonProcess]:
    """A running server for as long as the scope lasts."""
    server = TritonProcess(folder, parameters)
    server.start()
    try:
        yield server
    finally:
        server.stop()
