"""How the parts of a control plane are called."""

from dataclasses import dataclass
from pathlib import Path

from local_cluster.credentials import Credentials

ADMIN = "admin"
CONTROLLERS = "system:kube-controller-manager"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a control plane keeps its files and listens."""

    folder: Path
    tools: Path
    host: str
    api_port: int
    etcd_port: int
    etcd_peer_port: int
    service_range: str = "10.96.0.0/16"

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return f"https://{self.host}:{self.api_port}"


def etcd(place: Place) -> list[str]:
    """The store."""
    clients, peers = f"http://127.0.0.1:{place.etcd_port}", f"http://127.0.0.1:{place.etcd_peer_port}"
    return [
        str(place.tools / "etcd"),
        f"--data-dir={place.folder / 'etcd'}",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def api_server(place: Place, credentials: Credentials, *, has_node: bool) -> list[str]:
    """The API server."""
    command = [
        str(place.tools / "kube-apiserver"),
        f"--etcd-servers=http://127.0.0.1:{place.etcd_port}",
        f"--bind-address={place.host}",
        f"--advertise-address={place.host}",
        f"--secure-port={place.api_port}",
        f"--client-ca-file={credentials.authority_file}",
        f"--tls-cert-file={credentials.api_server.certificate_file}",
        f"--tls-private-key-file={credentials.api_server.key_file}",
        f"--token-auth-file={credentials.tokens_file}",
        "--anonymous-auth=false",
        f"--service-account-key-file={credentials.service_account_key}",
        f"--service-account-signing-key-file={credentials.service_account_key}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-cluster-ip-range={place.service_range}",
        f"--authorization-mode={'Node,RBAC' if has_node else 'RBAC'}",
        "--shutdown-delay-duration=0s",
        "--profiling=false",
    ]
    if has_node:
        command += [
            "--allow-privileged",
            "--enable-admission-plugins=NodeRestriction",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-certificate-authority={credentials.authority_file}",
            f"--kubelet-client-certificate={credentials.kubelet_client.certificate_file}",
            f"--kubelet-client-key={credentials.kubelet_client.key_file}",
        ]
    return command


def controller_manager(place: Place, credentials: Credentials) -> list[str]:
    """The controllers, garbage collection included."""
    kubeconfig = credentials.kubeconfig(CONTROLLERS)
    return [
        str(place.tools / "kube-controller-manager"),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--service-account-private-key-file={credentials.service_account_key}",
        f"--root-ca-file={credentials.authority_file}",
        f"--flex-volume-plugin-dir={place.folder / 'volume-plugins'}",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--secure-port=0",
    ]
