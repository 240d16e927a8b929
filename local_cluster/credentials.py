"""Who may do what: the certificates and tokens of a cluster, and kubeconfig files."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dragon_runtime.certificates import CertificateFolder, write_secret

ADMINISTRATORS = "system:masters"


@dataclass(frozen=True, slots=True)
class User:
    """A name and groups, known by a token."""

    name: str
    groups: tuple[str, ...] = ()


class Credentials:
    """A folder with an authority, the API server's certificates, the key of service accounts, and users' tokens."""

    def __init__(self, folder: Path, *, server: str, hosts: Sequence[str], users: Sequence[User]) -> None:
        """`server` is the API server's URL, `hosts` the names and addresses it is known by."""
        self.folder, self.server = folder, server
        certificates = CertificateFolder(folder, name="kubernetes")
        self.authority = certificates.authority
        self.authority_file = certificates.certificate_file
        self.api_server = certificates.keep("api-server", self.authority.issue_server("kube-apiserver", hosts=hosts))
        self.kubelet_client = certificates.issue("kubelet-client")
        self.certificates = certificates
        self.service_account_key = folder / "service-accounts.key"
        write_secret(self.service_account_key, _new_key())
        self.tokens = {user.name: secrets.token_urlsafe(24) for user in users}
        self.tokens_file = folder / "tokens.csv"
        lines = [f'{self.tokens[user.name]},{user.name},{user.name},"{",".join(user.groups)}"\n' for user in users]
        write_secret(self.tokens_file, "".join(lines).encode())

    def kubeconfig(self, user: str) -> Path:
        """The kubeconfig file of one of our users."""
        return self.write_kubeconfig(user, self.tokens[user])

    def write_kubeconfig(self, name: str, token: str, *, namespace: str = "default") -> Path:
        """A kubeconfig file for whoever the token belongs to."""
        path = self.folder / f"{name.replace(':', '-')}.kubeconfig"
        context = {"cluster": "tests", "user": name, "namespace": namespace}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "tests",
            "clusters": [
                {
                    "name": "tests",
                    "cluster": {"server": self.server, "certificate-authority": str(self.authority_file)},
                }
            ],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "tests", "context": context}],
        }
        write_secret(path, json.dumps(content, indent=2).encode())
        return path


def _new_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
