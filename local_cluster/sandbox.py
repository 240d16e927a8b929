"""A process that holds a cluster's mounts and processes in namespaces: when it is killed, all of them are gone."""

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from local_cluster import network
from local_cluster.layout import BOUND, CGROUP, NETWORK_NAMESPACE, NodeFiles
from local_cluster.waiting import wait_until

CGROUPS = Path("/sys/fs/cgroup")
STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The first process of a cluster, as this machine sees it. The time of its start tells it from a later one."""

    pid: int
    started: str

    @classmethod
    def start(cls, files: NodeFiles) -> "Sandbox":
        """Start one in the cluster's network, with our folders in the place of the machine's."""
        mounts = [f"mount --bind {shlex.quote(str(files.bound(target)))} {target}" for target in BOUND]
        ready = files.folder / "sandbox-ready"
        # The shell reaps what is left to it, as the first process of a process namespace has to.
        script = ["set -e", "mount --make-rshared /", *mounts, f"touch {shlex.quote(str(ready))}", "set +e"]
        script += ["while :; do sleep 3600 & wait $!; done"]
        command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--", "bash", "-c", "\n".join(script)]
        with (files.folder / "sandbox.log").open("ab") as log:
            outside = subprocess.Popen(
                [*network.entered(NETWORK_NAMESPACE), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        def is_ready() -> bool:
            if outside.poll() is not None:
                raise RuntimeError((files.folder / "sandbox.log").read_text())
            return ready.exists()

        wait_until(is_ready, "the sandbox is ready", seconds=10)
        inside = int(Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text().split()[0])
        return cls(inside, start_time(inside))

    @property
    def is_running(self) -> bool:
        """Whether it is still this process."""
        return bool(self.started) and start_time(self.pid) == self.started

    def entered(self) -> list[str]:
        """What to put in front of a command that is to run inside."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--"]

    def launch(self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        """Start a program inside, where the first process adopts it."""
        with (folder / f"{name}.log").open("ab") as log:
            subprocess.run(
                [*self.entered(), "setsid", "--fork", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                check=True,
            )

    def kill(self) -> None:
        """End all that runs inside, and wait for that."""
        if not self.is_running:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        wait_until(lambda: not self.is_running, "the cluster's processes have ended", seconds=STOP_SECONDS)


def start_time(pid: int) -> str:
    """When a process started, in the machine's ticks and with its boot; empty when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else f"{boot} {fields[19]}"


def create_cgroup() -> None:
    """The group of all pods, in each hierarchy."""
    if (CGROUPS / "cgroup.controllers").exists():
        (CGROUPS / CGROUP).mkdir(exist_ok=True)
        wanted = " ".join(f"+{name}" for name in (CGROUPS / "cgroup.controllers").read_text().split())
        for folder in (CGROUPS, CGROUPS / CGROUP):
            (folder / "cgroup.subtree_control").write_text(wanted)
        return
    for hierarchy in CGROUPS.iterdir():
        if (hierarchy / "cgroup.procs").exists() and not hierarchy.is_symlink():
            (hierarchy / CGROUP).mkdir(exist_ok=True)


def remove_cgroup() -> None:
    """Remove the group, whose processes have ended, and those below it."""
    deadline = time.monotonic() + STOP_SECONDS
    for top in (CGROUPS / CGROUP, *CGROUPS.glob(f"*/{CGROUP}")):
        folders = [Path(found) for found, _, _ in os.walk(top, topdown=False)]
        for folder in folders:
            while folder.exists():
                try:
                    folder.rmdir()
                except OSError:
                    # An ended process leaves its group a moment later.
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
