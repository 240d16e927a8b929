"""A real mosquitto as a cluster has it: two listeners, the dynamic security plugin, a list of revoked certificates."""

import getpass
import signal
import subprocess
from pathlib import Path
from typing import Self

from dragon_core.topics import Topics
from dragon_operator.objects.broker_files import SECURITY_FILE, cluster_configuration, initial_security
from dragon_runtime.certificates import CertificateAuthority, CertificateFolder, Identity
from dragon_runtime.servers.mosquitto import free_port
from dragon_runtime.settings.groups import BrokerSettings
from tests.servers.broker import start_mosquitto


def find_plugin() -> str | None:
    """Where the plugin is installed."""
    name = "mosquitto_dynamic_security.so"
    return next((str(path) for pattern in (name, f"*/{name}") for path in Path("/usr/lib").glob(pattern)), None)


class FleetBroker:
    """Keeps its state in `folder`; it can be killed and started again, with or without that state."""

    def __init__(self, folder: Path, topics: Topics, *, server_authority: CertificateAuthority | None = None) -> None:
        """`server_authority` certifies the broker itself, where it is not who certifies its clients."""
        self.folder, self.topics = folder, topics
        self.data_folder, tls_folder = folder / "data", folder / "tls"
        for made in (self.data_folder, tls_folder):
            made.mkdir(parents=True)
        self.certificates = CertificateFolder(folder / "identities", name="fleet")
        self.authority = self.certificates.authority
        self.server_authority = server_authority or self.authority
        self.ca_file = folder / "server-ca.pem"
        self.ca_file.write_bytes(self.server_authority.certificate)
        issued = self.server_authority.issue_server("broker", hosts=["localhost", "127.0.0.1"])
        (tls_folder / "tls.crt").write_bytes(issued.certificate)
        (tls_folder / "tls.key").write_bytes(issued.key or b"")
        (tls_folder / "ca.crt").write_bytes(self.authority.certificate)
        self.crl_file = tls_folder / "crl.pem"
        self.crl_file.write_bytes(self.authority.revocation_list([]))
        self.port, self.enrolment_port = free_port(), free_port()
        self._configuration = folder / "mosquitto.conf"
        plugin = find_plugin()
        assert plugin is not None
        self._configuration.write_text(
            cluster_configuration(
                tls_folder=str(tls_folder),
                data_folder=str(self.data_folder),
                plugin=plugin,
                crl_file=str(self.crl_file),
                address="127.0.0.1",
                ports=(self.port, self.enrolment_port),
            )
            + f"user {getpass.getuser()}\n"
        )
        self._log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.forget_everything()

    def forget_everything(self) -> None:
        """The state of a broker whose volume was lost."""
        for path in self.data_folder.iterdir():
            path.unlink()
        (self.data_folder / SECURITY_FILE).write_text(initial_security(self.topics))

    def settings(self, name: str) -> BrokerSettings:
        """Of a client with a certificate for `name`."""
        return self.settings_of(self.certificates.issue(name))

    def settings_of(self, identity: Identity) -> BrokerSettings:
        """Of a client with a certificate."""
        return BrokerSettings(
            host="127.0.0.1",
            port=self.port,
            ca_file=self.ca_file,
            certificate_file=identity.certificate_file,
            key_file=identity.key_file,
        )

    def revoke(self, *serial_numbers: str) -> None:
        """Have the broker refuse certificates."""
        self.crl_file.write_bytes(self.authority.revocation_list(serial_numbers))
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    async def start(self) -> None:
        self._process = await start_mosquitto(self._configuration, self._log, port=self.enrolment_port)

    def stop(self, *, hard: bool = False) -> None:
        if self._process is not None:
            self._process.kill() if hard else self._process.terminate()
            self._process.wait()
            self._process = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.stop()
