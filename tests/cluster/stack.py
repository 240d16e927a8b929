"""The chart and a deployment in a cluster, and a device outside of it, with the commands a person would type."""

import base64
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dragon_runtime.servers.mosquitto import free_port
from local_cluster.layout import DEVICE_NAMESPACE, NODE
from local_cluster.tools import tools
from local_cluster.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "support"
BROKER_PORT, ENROLMENT_PORT = 31883, 31884
RTT_MS = 40
READY_SECONDS = 900


_PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("DRAGON_")}
"""A device knows nothing of the cluster's tests."""


class Cluster:
    """A cluster that a kubeconfig leads to."""

    def __init__(self, kubeconfig: Path) -> None:
        folders = [str(tools("chart")), os.environ.get("PATH", "")]
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "PATH": os.pathsep.join(folders)}
        addresses = self._node()["status"]["addresses"]
        self.node_address = str(next(each["address"] for each in addresses if each["type"] == "InternalIP"))
        self.is_ours = self._node()["metadata"]["name"] == NODE
        """Whether it is the cluster of scripts/cluster, with a second network for the device."""

    def _node(self) -> dict[str, Any]:
        nodes = json.loads(self.run("kubectl", "get", "nodes", "--output=json"))["items"]
        return dict(nodes[0])

    def run(self, *command: str, content: str | None = None, seconds: float = 120) -> str:
        """What a command prints; it must succeed."""
        done = subprocess.run(
            command, env=self._environment, input=content, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def kubectl(self, *arguments: str, content: str | None = None, seconds: float = 120) -> str:
        """`kubectl` in the deployment's namespace."""
        return self.run("kubectl", "--namespace", NAMESPACE, *arguments, content=content, seconds=seconds)

    def get(self, *arguments: str) -> dict[str, Any]:
        """An object."""
        return dict(json.loads(self.kubectl("get", *arguments, "--output=json")))

    def apply(self, *objects: dict[str, Any]) -> None:
        """Have these objects."""
        self.kubectl("apply", "--filename=-", content=yaml.safe_dump_all(objects))

    def wait_ready(self, *, seconds: float = READY_SECONDS) -> None:
        """As the documentation says."""
        limit = f"--timeout={seconds:.0f}s"
        self.kubectl("wait", "--for=condition=Ready", "dd/helpdesk", limit, seconds=seconds + 10)

    def install(self) -> None:
        """The chart, as for a machine without a GPU."""
        chart = ROOT / "charts" / "dragon"
        values = [f"--values={chart / name}" for name in ("values-cpu.yaml", "values-kind.yaml")]
        own = ["--namespace=dragon-system", "--create-namespace", f"--set=test.namespace={NAMESPACE}", "--timeout=5m"]
        self.run("helm", "upgrade", "--install", "dragon", str(chart), *values, *own, "--wait", seconds=320)

    def deploy(self) -> None:
        """The examples, with a broker that a device outside can reach."""
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        self.run("kubectl", "apply", "--filename=-", content=yaml.safe_dump(namespace))
        self.kubectl("apply", f"--filename={ROOT / 'examples' / 'model-volume.yaml'}")
        deployment = yaml.safe_load((ROOT / "examples" / "deployment-cpu.yaml").read_text())
        service = {"type": "NodePort", "nodePort": BROKER_PORT, "enrolmentNodePort": ENROLMENT_PORT}
        deployment["spec"]["broker"]["managed"] |= {"hosts": ["localhost", self.node_address], "service": service}
        deployment["spec"]["devices"] = {"heartbeatSeconds": 2}
        self.apply(deployment)

    def pod(self, component: str) -> str:
        """Name of the ready pod of a component."""
        label = f"--selector=app.kubernetes.io/component={component}"
        pods = self.get("pods", label)["items"]
        ready = [
            pod["metadata"]["name"]
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"]
            and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
        ]
        assert ready, [pod["status"] for pod in pods]
        return str(ready[0])

    def condition(self, resource: str, kind: str) -> tuple[str | None, str | None]:
        """(status, reason) of a condition."""
        conditions = self.get(resource).get("status", {}).get("conditions", [])
        found: dict[str, Any] = next((c for c in conditions if c["type"] == kind), {})
        return found.get("status"), found.get("reason")

    def wait_condition(self, resource: str, kind: str, status: str, *, seconds: float = 120) -> None:
        """Wait for a condition."""
        wait_until(lambda: self.condition(resource, kind)[0] == status, f"{resource} {kind} {status}", seconds=seconds)

    def join_token(self, device: str) -> str:
        """The join token of a device, once it can be used."""
        wait_until(lambda: self.condition(f"ed/{device}", "Enrolled")[1] == "TokenWaiting", "a token", seconds=120)
        return base64.b64decode(self.get(f"secret/{device}-join")["data"]["token"]).decode()


class OutsideDevice:
    """A device behind a slow link, in the second network where there is one."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self._node_address = cluster.node_address
        self._entered = [f"--net=/var/run/netns/{DEVICE_NAMESPACE}"] if cluster.is_ours else []
        self.data_folder = folder / "data"
        self.log_file = folder / "device.log"
        self._folder = folder
        self.port = free_port()
        self._processes: list[subprocess.Popen[bytes]] = []

    def command(self, *arguments: str) -> list[str]:
        """A command of ours in the device's network."""
        return self._in_its_network(sys.executable, "-m", *arguments)

    def _in_its_network(self, *command: str) -> list[str]:
        return ["nsenter", *self._entered, *command] if self._entered else list(command)

    @contextlib.contextmanager
    def linked(self) -> Iterator[None]:
        """The slow link to the node, inside the scope."""
        for port in (BROKER_PORT, ENROLMENT_PORT):
            listen, target = f"--listen=127.0.0.1:{port}", f"--target={self._node_address}:{port}"
            self._start("link_emulator.main", listen, target, f"--rtt-ms={RTT_MS}", log=self._folder / "link.log")
        try:
            wait_until(self._is_linked, "both relays listen", seconds=30)
            yield
        finally:
            for process in reversed(self._processes):
                process.terminate()
            for process in self._processes:
                process.wait(timeout=30)
            self._processes.clear()

    def _is_linked(self) -> bool:
        return (self._folder / "link.log").read_text().count("leads to") == len((BROKER_PORT, ENROLMENT_PORT))

    def join(self, token: str) -> None:
        """Enrol."""
        command = self.command("edge_daemon.main", "join", token, f"--data-folder={self.data_folder}")
        done = subprocess.run(command, env=_PLAIN, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self) -> None:
        """Start the daemon; returns when it answers."""
        settings = [f"--data-folder={self.data_folder}", f"--port={self.port}"]
        self._start("edge_daemon.main", "run", *settings, log=self.log_file)
        wait_until(lambda: self.get("/readyz") is not None, "the daemon answers", seconds=120)

    def get(self, path: str) -> str | None:
        """What the daemon's API answers; None when it does not."""
        return self._curl(path)

    def ask(self, question: str, **more: Any) -> dict[str, Any]:
        """An answer of the OpenAI-style API, with what it tells of itself."""
        answer = self.try_to_ask(question, **more)
        assert answer is not None, self.log_file.read_text()[-3000:]
        return answer

    def try_to_ask(self, question: str, **more: Any) -> dict[str, Any] | None:
        """The same; None when it is refused."""
        model = json.loads(self.get("/v1/models") or "{}")["data"][0]["id"]
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": 24,
            "seed": 1,
            **more,
        }
        answer = self._curl("/v1/chat/completions", "--json", json.dumps(body), seconds=300)
        return None if answer is None else dict(json.loads(answer))

    def add_document(self, name: str, text: str) -> None:
        """A private document."""
        path = self._folder / name
        path.write_text(text)
        assert self._curl("/v1/documents", "--form", f"file=@{path};type=text/markdown") is not None
        wait_until(lambda: '"done"' in (self.get("/v1/documents") or ""), "it can be found", seconds=60)

    def _curl(self, path: str, *request: str, seconds: float = 30) -> str | None:
        url = f"http://127.0.0.1:{self.port}{path}"
        command = self._in_its_network(
            "curl", "--silent", "--fail-with-body", "--max-time", f"{seconds:.0f}", *request, url
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else None

    def _start(self, *arguments: str, log: Path) -> None:
        with log.open("ab") as output:
            self._processes.append(subprocess.Popen(self.command(*arguments), env=_PLAIN, stdout=output, stderr=output))
