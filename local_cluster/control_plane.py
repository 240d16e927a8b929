"""etcd, the API server and the controllers on loopback ports, with RBAC, for any user."""

import atexit
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import httpx
from kubernetes import client

from dragon_runtime.servers.mosquitto import free_port
from local_cluster import command_lines
from local_cluster.command_lines import ADMIN, CONTROLLERS, Place
from local_cluster.credentials import ADMINISTRATORS, Credentials, User
from local_cluster.objects import Objects
from local_cluster.processes import Part
from local_cluster.tools import tools
from local_cluster.waiting import wait_until

READY_SECONDS = 90.0
TOKEN_SECONDS = 3600


class ControlPlane:
    """A Kubernetes without nodes: everything but pods is real. A context; nothing is left of it afterwards."""

    def __init__(self, folder: Path) -> None:
        """`folder` takes all of its files; the programs are built when they are missing."""
        folder.mkdir(parents=True, exist_ok=True)
        self._place = Place(
            folder=folder,
            tools=tools("control-plane"),
            host="127.0.0.1",
            api_port=free_port(),
            etcd_port=free_port(),
            etcd_peer_port=free_port(),
        )
        self.server = self._place.server
        self.credentials = Credentials(
            folder / "credentials",
            server=self.server,
            hosts=("localhost", "127.0.0.1", "kubernetes.default.svc"),
            users=(User(ADMIN, (ADMINISTRATORS,)), User(CONTROLLERS)),
        )
        self.kubeconfig = self.credentials.kubeconfig(ADMIN)
        """The administrator's kubeconfig file."""
        self._parts: list[Part] = []
        self._objects: Objects | None = None

    @property
    def objects(self) -> Objects:
        """The administrator's hands."""
        if self._objects is None:
            self._objects = Objects(self.kubeconfig)
        return self._objects

    def apply(self, source: Path | str | Mapping[str, Any], *, namespace: str | None = None) -> list[dict[str, Any]]:
        """Apply an object or a YAML file as the administrator."""
        return self.objects.apply(source, namespace=namespace)

    def kubeconfig_of(self, namespace: str, service_account: str) -> Path:
        """A kubeconfig file with a token of a service account, which must exist."""
        wanted = client.AuthenticationV1TokenRequest(
            spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=TOKEN_SECONDS)
        )
        issued: Any = self.objects.core.create_namespaced_service_account_token(service_account, namespace, wanted)
        name = f"{namespace}-{service_account}"
        return self.credentials.write_kubeconfig(name, issued.status.token, namespace=namespace)

    def start(self) -> None:
        """Start the parts one after the other; returns when objects can be made."""
        atexit.register(self.stop)
        place, credentials = self._place, self.credentials
        self._start("etcd", command_lines.etcd(place))
        self._start("kube-apiserver", command_lines.api_server(place, credentials, has_node=False))
        trusted = ssl.create_default_context(cafile=str(credentials.authority_file))
        headers = {"Authorization": f"Bearer {credentials.tokens[ADMIN]}"}
        with httpx.Client(base_url=self.server, verify=trusted, headers=headers, trust_env=False) as web:
            self._wait(lambda: _answers(web, "/readyz"), "the API server is ready")
            self._start("kube-controller-manager", command_lines.controller_manager(place, credentials))
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            self._wait(lambda: _answers(web, account), "the default service account exists")

    def stop(self) -> None:
        """Stop everything; the store last, since the API server does not end without it."""
        atexit.unregister(self.stop)
        if self._objects is not None:
            self._objects.close()
            self._objects = None
        while self._parts:
            self._parts.pop().stop()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _start(self, name: str, command: list[str]) -> None:
        self._parts.append(Part(name, command, self._place.folder))

    def _wait(self, is_so: Callable[[], bool], what: str) -> None:
        def is_so_or_ended() -> bool:
            for part in self._parts:
                part.check()
            return is_so()

        wait_until(is_so_or_ended, what, seconds=READY_SECONDS)


def _answers(web: httpx.Client, path: str) -> bool:
    try:
        return web.get(path).is_success
    except httpx.HTTPError:
        return False
