"""A Kubernetes with one node in which pods start, in namespaces of its own on this machine. It needs root."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from local_cluster import command_lines, machine, network
from local_cluster.command_lines import ADMIN, CONTROLLERS, Place
from local_cluster.credentials import ADMINISTRATORS, Credentials, User
from local_cluster.image_archive import write_image
from local_cluster.layout import (
    API_SERVICE_ADDRESS,
    BOUND,
    DEVICE_NAMESPACE,
    ECHO_IMAGE,
    KERNEL_SETTINGS,
    NETWORK_NAMESPACE,
    NODE,
    NODE_ADDRESS,
    PAUSE_IMAGE,
    SERVICE_RANGE,
    NodeFiles,
)
from local_cluster.node import files as node_files
from local_cluster.node.objects import first_objects
from local_cluster.sandbox import Sandbox, create_cgroup, remove_cgroup
from local_cluster.tools import tools
from local_cluster.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 120.0
USERS = (
    User(ADMIN, (ADMINISTRATORS,)),
    User(CONTROLLERS),
    User(node_files.SCHEDULER),
    User(node_files.PROXY),
    User(node_files.NODE_USER, ("system:nodes",)),
    User(node_files.DNS),
)


class NodeCluster:
    """One such cluster per machine; its processes outlive us."""

    def __init__(self, folder: Path) -> None:
        """`folder` has its state, and is removed with it."""
        self.files = NodeFiles(folder)

    @property
    def is_running(self) -> bool:
        """Whether its node is ready."""
        sandbox = self.sandbox
        if sandbox is None or not sandbox.is_running:
            return False
        return self.run("kubectl", "wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=1s").returncode == 0

    def up(self) -> None:
        """Start it, unless it runs.

        Raises:
            RuntimeError: it cannot run here; says why.
        """
        machine.prepare()
        programs = tools("node")
        if self.is_running:
            return
        self.down()
        if network.exists():
            raise RuntimeError(
                f"a cluster whose state is not in {self.files.folder} runs here; take it down with the DRAGON_CACHE it "
                f"was started with, or end what `ip netns pids {NETWORK_NAMESPACE}` lists and delete the network "
                f"namespaces {NETWORK_NAMESPACE} and {DEVICE_NAMESPACE}"
            )
        try:
            self._start(programs)
        except BaseException:
            self._stop()
            raise

    def down(self) -> None:
        """Take away every trace; not an error when there is none."""
        if self.files.folder.exists():
            self._stop()
            shutil.rmtree(self.files.folder)

    def load(self, archive: Path) -> str:
        """Give the node the images of an archive; returns their names."""
        done = self.run_inside("ctr", "--namespace", "k8s.io", "images", "import", str(archive.resolve()))
        if done.returncode != 0:
            raise RuntimeError(f"{archive} was not imported: {done.stderr.strip()}")
        return done.stdout.strip()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the cluster's network, with the administrator's kubeconfig and kubectl at hand."""
        return self._run([*network.entered(NETWORK_NAMESPACE), *command])

    def run_inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command among the node's own processes and mounts, as `ctr` needs it."""
        sandbox = self.sandbox
        if sandbox is None or not sandbox.is_running:
            raise RuntimeError("the cluster does not run; start it with: scripts/cluster up")
        return self._run([*sandbox.entered(), *command])

    def environment(self) -> dict[str, str]:
        """What programs in the cluster's network need beside our own environment."""
        path = f"{self._state().get('programs', '')}:{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
        kubeconfig = str(self.files.kubeconfig)
        return {"KUBECONFIG": kubeconfig, "DRAGON_E2E_KUBECONFIG": kubeconfig, "PATH": path}

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.environment()}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def _start(self, programs: Path) -> None:
        folder = self.files.folder
        folder.mkdir(parents=True, mode=0o700)
        made = [target for target in BOUND if not Path(target).exists()]
        settings = {path: Path(path).read_text().strip() for path in KERNEL_SETTINGS}
        state: dict[str, Any] = {"made": made, "programs": str(programs), "kernel": settings}
        self.files.state.write_text(json.dumps(state))
        for target in BOUND:
            Path(target).mkdir(parents=True, exist_ok=True)
            self.files.bound(target).mkdir(parents=True)
        self.files.volumes.mkdir()
        network.create()
        create_cgroup()
        sandbox = Sandbox.start(self.files)
        self.files.state.write_text(json.dumps({**state, "pid": sandbox.pid, "started": sandbox.started}))
        place = Place(folder, programs, NODE_ADDRESS, 6443, 2379, 2380, SERVICE_RANGE)
        hosts = (NODE_ADDRESS, API_SERVICE_ADDRESS, "127.0.0.1", "localhost", "kubernetes.default.svc")
        credentials = Credentials(folder / "credentials", server=place.server, hosts=hosts, users=USERS)
        credentials.kubeconfig(ADMIN)
        self._start_parts(sandbox, place, credentials)

    def _start_parts(self, sandbox: Sandbox, place: Place, credentials: Credentials) -> None:
        def launch(name: str, command: list[str]) -> None:
            sandbox.launch(name, command, place.folder, {**self.environment(), "PYTHONPATH": str(ROOT)})

        launch("etcd", command_lines.etcd(place))
        launch("kube-apiserver", command_lines.api_server(place, credentials, has_node=True))
        launch("containerd", node_files.containerd(self.files))
        self._load_own_images(place)
        self._wait("the API server is ready", "kubectl", "get", "--raw=/readyz")
        launch("kube-controller-manager", command_lines.controller_manager(place, credentials))
        launch("kube-scheduler", node_files.scheduler(place, credentials))
        objects = place.folder / "first-objects.json"
        objects.write_text(json.dumps(first_objects()))
        self._wait("the first objects are made", "kubectl", "apply", "--filename", str(objects))
        serving = credentials.authority.issue_server(NODE, hosts=(NODE, NODE_ADDRESS))
        launch("kubelet", node_files.kubelet(place, credentials, credentials.certificates.keep("kubelet", serving)))
        launch("kube-proxy", node_files.proxy(place, credentials))
        launch("coredns", node_files.coredns(place, credentials))
        launch("storage", node_files.storage(self.files))
        self._wait("the node is ready", "kubectl", "wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=1s")
        self._wait("the default service account exists", "kubectl", "get", "serviceaccount", "default")

    def _load_own_images(self, place: Place) -> None:
        for name, program in ((PAUSE_IMAGE, "pause"), (ECHO_IMAGE, "echo")):
            archive = place.folder / f"{program}.tar"
            write_image(archive, name=name, program=place.tools / program, machine=platform.machine())
            wait_until(lambda: self.run_inside("ctr", "version").returncode == 0, "containerd answers", seconds=30)
            self.load(archive)
            archive.unlink()

    def _wait(self, what: str, *command: str) -> None:
        wait_until(lambda: self.run(*command).returncode == 0, what, seconds=READY_SECONDS)

    def _stop(self) -> None:
        sandbox = self.sandbox
        if sandbox is not None:
            sandbox.kill()
        remove_cgroup()
        for path, value in self._state().get("kernel", {}).items():
            Path(path).write_text(value)
        network.remove()
        for target in reversed(self._state().get("made", [])):
            if Path(target).exists():
                Path(target).rmdir()

    @property
    def sandbox(self) -> Sandbox | None:
        """Its first process, or nothing."""
        state = self._state()
        return Sandbox(state["pid"], state["started"]) if "pid" in state else None

    def _state(self) -> dict[str, Any]:
        return dict(json.loads(self.files.state.read_text())) if self.files.state.exists() else {}
