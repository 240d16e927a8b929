"""A local stack in a folder: its parts, their configuration, and whether it runs. Starting it is the supervisor's.

The folder's lock is inherited by every part, so the stack counts as running while any of its processes lives.
"""

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs
import yaml

from dragon_core.errors import SettingsError
from dragon_core.topics import Topics
from dragon_runtime.certificates import CertificateAuthority, Identity
from dragon_runtime.mosquitto import BrokerTls, find_mosquitto, free_port, write_configuration

DEFAULT_API_PORT = 8642
DEVICE, REPLICA = "local-device", "local-cloud"
NAMESPACE, DEPLOYMENT = "local", "stack"
STOP_SECONDS = 60.0
DEFAULT_FOLDER = Path(platformdirs.user_data_dir("dragon-stack", appauthor=False))
PARTS = ("broker", "link", "cloud", "edge")


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """What a stack is started with. `protocol` are settings of both ends, `rtt_ms` None when there is no slow link."""

    api_port: int | None = None
    rtt_ms: float | None = None
    jitter_ms: float = 0.0
    public_documents: Path | None = None
    model: str | None = None
    model_sha256: str | None = None
    protocol: dict[str, Any] | None = None
    num_threads: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartStatus:
    """How one process does. `problem` is the reason of its last unexpected end."""

    name: str
    pid: int | None
    is_running: bool
    num_restarts: int
    since: float
    problem: str = ""


class Stack:
    """One folder with a stack in it, running or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().absolute()

    @property
    def lock_path(self) -> Path:
        return self.folder / "stack.lock"

    @property
    def plan_path(self) -> Path:
        return self.folder / "plan.json"

    @property
    def status_path(self) -> Path:
        return self.folder / "status.json"

    def log_path(self, part: str) -> Path:
        return self.folder / "logs" / f"{part}.log"

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the stack; yields the lock's descriptor for children to inherit.

        Raises:
            SettingsError: it runs already.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not _try_lock(descriptor):
                raise SettingsError(f"the stack in {self.folder} runs already; `dragonctl down` stops it")
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            yield descriptor
        finally:
            os.close(descriptor)

    @property
    def is_running(self) -> bool:
        """Whether the supervisor or any part of it lives."""
        try:
            descriptor = os.open(self.lock_path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            return not _try_lock(descriptor)
        finally:
            os.close(descriptor)

    def plan(self) -> dict[str, Any]:
        """What the stack was started with.

        Raises:
            SettingsError: there is none.
        """
        try:
            plan = json.loads(self.plan_path.read_text())
        except (OSError, ValueError) as error:
            raise SettingsError(f"there is no stack in {self.folder}; `dragonctl up` starts one") from error
        return dict(plan)

    def parts(self) -> list[PartStatus]:
        """How the parts do, as the supervisor saw them last."""
        try:
            rows = json.loads(self.status_path.read_text())
        except (OSError, ValueError):
            return []
        return [PartStatus(**row) for row in rows]

    def write_status(self, parts: list[PartStatus]) -> None:
        """Replace what `parts` reads, at once."""
        write_whole(self.status_path, json.dumps([asdict(part) for part in parts]))

    def stop(self, *, seconds: float = STOP_SECONDS, on_wait: Callable[[], None] | None = None) -> bool:
        """End every process of the stack, in order if it goes, with force if not; returns whether one ran.

        Raises:
            SettingsError: a process cannot be ended.
        """
        if not self.is_running:
            return False
        supervisor = int(self.lock_path.read_text().strip() or 0)
        _signal(os.kill, supervisor, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while self.is_running:
            if on_wait is not None:
                on_wait()
            if time.monotonic() > deadline:
                break
            # The supervisor is gone but parts of it are left: they are still in its process group.
            if not _is_alive(supervisor):
                _signal(os.killpg, supervisor, signal.SIGTERM)
            time.sleep(0.05)
        else:
            return True
        _signal(os.killpg, supervisor, signal.SIGKILL)
        time.sleep(0.5)
        if self.is_running:
            raise SettingsError(f"the stack in {self.folder} cannot be stopped; look at process group {supervisor}")
        return True


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _signal(send: Callable[[int, int], None], pid: int, number: signal.Signals) -> None:
    if pid > 1:
        with contextlib.suppress(ProcessLookupError):
            send(pid, number)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def write_whole(path: Path, text: str) -> None:
    """Replace a file's content so that no reader ever sees half of it."""
    temporary = path.with_suffix(f"{path.suffix}.new")
    temporary.write_text(text)
    temporary.replace(path)


def configure(stack: Stack, options: StackOptions) -> dict[str, Any]:
    """Write every part's configuration and certificates into the folder; returns the plan the supervisor follows.

    Raises:
        SettingsError: a program is missing or an option cannot be met.
    """
    if options.public_documents is not None and not options.public_documents.is_dir():
        raise SettingsError(f"{options.public_documents} is no folder of public documents")
    for folder in (stack.folder, stack.folder / "logs", stack.folder / "edge", stack.folder / "cloud"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    broker_port, metrics_port = free_port(), free_port()
    api_port = options.api_port or _port_or_free(DEFAULT_API_PORT)
    link_port = None if options.rtt_ms is None else free_port()
    topics = Topics(NAMESPACE, DEPLOYMENT)

    authority = CertificateAuthority(stack.folder / "tls", name="dragon local stack")
    broker_configuration = write_configuration(
        stack.folder / "broker",
        port=broker_port,
        topics=topics,
        tls=BrokerTls(authority.certificate_file, authority.issue("broker", is_server=True)),
        replicas=[REPLICA],
    )
    shared = _shared_settings(options)
    cloud = {
        **shared,
        "replica": REPLICA,
        "data_folder": str(stack.folder / "cloud"),
        "drain_seconds": 5,
        "broker": _broker_settings(broker_port, authority, authority.issue(REPLICA)),
        "metrics": {"port": metrics_port},
    }
    if options.public_documents is not None:
        cloud["documents"] = str(options.public_documents.absolute())
    edge = {
        **shared,
        "device": DEVICE,
        "data_folder": str(stack.folder / "edge"),
        "broker": _broker_settings(link_port or broker_port, authority, authority.issue(DEVICE)),
        "api": {"port": api_port},
    }
    commands = {
        "broker": [find_mosquitto(), "-c", str(broker_configuration)],
        "cloud": [sys.executable, "-m", "cloud_peer.main", "run", "--settings", _write_settings(stack, "cloud", cloud)],
        "edge": [sys.executable, "-m", "edge_daemon.main", "run", "--settings", _write_settings(stack, "edge", edge)],
    }
    if link_port is not None:
        addresses = ["--listen", f"127.0.0.1:{link_port}", "--target", f"127.0.0.1:{broker_port}"]
        pace = ["--rtt-ms", f"{options.rtt_ms:g}", "--jitter-ms", f"{options.jitter_ms:g}"]
        commands["link"] = [sys.executable, "-m", "link_emulator.main", *addresses, *pace]
    plan = {
        "api_url": f"http://127.0.0.1:{api_port}",
        "metrics_url": f"http://127.0.0.1:{metrics_port}",
        "rtt_ms": options.rtt_ms,
        "commands": {part: commands[part] for part in PARTS if part in commands},
    }
    write_whole(stack.plan_path, json.dumps(plan, indent=2))
    return plan


def _shared_settings(options: StackOptions) -> dict[str, Any]:
    # Two engines share this machine: spinning threads of one would starve the other.
    model: dict[str, Any] = {"num_threads": options.num_threads or max(1, (os.cpu_count() or 2) // 2)}
    if options.model is not None and options.model.startswith(("http://", "https://")):
        model |= {"url": options.model, "sha256": options.model_sha256}
    elif options.model is not None:
        model["path"] = str(Path(options.model).expanduser().absolute())
    return {"namespace": NAMESPACE, "deployment": DEPLOYMENT, "model": model, **(options.protocol or {})}


def _broker_settings(port: int, authority: CertificateAuthority, identity: Identity) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": port,
        "ca_file": str(authority.certificate_file),
        "certificate_file": str(identity.certificate_file),
        "key_file": str(identity.key_file),
    }


def _write_settings(stack: Stack, part: str, settings: dict[str, Any]) -> str:
    path = stack.folder / f"{part}.yaml"
    write_whole(path, yaml.safe_dump(settings, sort_keys=False))
    return str(path)


def _port_or_free(port: int) -> int:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return free_port()
    return port
