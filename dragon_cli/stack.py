"""A local stack in a folder: its parts, and whether it runs. `configuring` writes the configuration of the parts.

The folder's lock is inherited by every part, so the stack counts as running while any of its processes lives.
"""

import contextlib
import enum
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs

from dragon_core.errors import SettingsError

DEFAULT_API_PORT = 8642
STOP_SECONDS = 60.0
DEFAULT_FOLDER = Path(platformdirs.user_data_dir("dragon-stack", appauthor=False))
PARTS = ("broker", "link", "triton", "cloud", "edge")


class EngineChoice(enum.StrEnum):
    """Where the cloud peer of a stack runs its models."""

    LLAMA = "llama"
    TRITON = "triton"


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """Options of a stack. `protocol` holds settings of both ends; `rtt_ms` is None without a slow link."""

    api_port: int | None = None
    rtt_ms: float | None = None
    jitter_ms: float = 0.0
    public_documents: Path | None = None
    model: str | None = None
    model_sha256: str | None = None
    protocol: dict[str, Any] | None = None
    num_threads: int | None = None
    engine: EngineChoice = EngineChoice.LLAMA


@dataclass(frozen=True, slots=True, kw_only=True)
class PartStatus:
    """State of one process. `problem` is the reason for its last unexpected end."""

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
            SettingsError: the stack is already running.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not _try_lock(descriptor):
                raise SettingsError(f"the stack in {self.folder} is already running; stop it with `dragonctl down`")
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
        """The plan the stack was started with.

        Raises:
            SettingsError: there is no stack.
        """
        try:
            plan = json.loads(self.plan_path.read_text())
        except (OSError, ValueError) as error:
            raise SettingsError(f"there is no stack in {self.folder}; start one with `dragonctl up`") from error
        return dict(plan)

    def parts(self) -> list[PartStatus]:
        """State of the parts, as the supervisor last saw it."""
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
