"""The configuration of a mosquitto broker on this machine, and how to find the program. Starting it is the caller's."""

import contextlib
import errno
import getpass
import os
import random
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from dragon_core.errors import SettingsError
from dragon_core.topics import Topics
from dragon_runtime.certificates import ServerTls

COMMON = """\
# Small messages must not wait for the acknowledgement of the one before.
set_tcp_nodelay true
max_queued_messages 10000
log_dest stderr
log_type error
log_type warning
log_type notice
connection_messages false
"""
SERVER_PORTS = range(20000, 30000)
"""Below those of outgoing connections (Linux 32768, macOS 49152) and of NodePorts (30000)."""


def find_mosquitto() -> str:
    """The path of the program.

    Raises:
        SettingsError: it is not installed.
    """
    # Debian puts it where users often do not have their PATH.
    folders = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    found = shutil.which("mosquitto", path=folders)
    if found is None:
        raise SettingsError("mosquitto is not installed: `apt-get install mosquitto`, or your system's equivalent")
    return found


def write_configuration(
    folder: Path, *, port: int, topics: Topics | None = None, tls: ServerTls | None = None, replicas: Sequence[str] = ()
) -> Path:
    """Write mosquitto.conf (and its access list) for a loopback listener; returns its path.

    With `tls` every client needs a certificate, and the name in it is its user name: a device touches its own subtree
    only, `replicas` the deployment's.
    Without it anybody on this machine is let in: for tests.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = [
        COMMON,
        "persistence false",
        f"user {getpass.getuser()}",
        f"listener {port} 127.0.0.1",
        "socket_domain ipv4",
    ]
    if tls is None or topics is None:
        lines.append("allow_anonymous true")
    else:
        access = folder / "access"
        access.write_text(_access_list(topics, replicas))
        access.chmod(0o600)
        lines += [
            "allow_anonymous false",
            f"acl_file {access}",
            f"cafile {tls.ca_file}",
            f"certfile {tls.identity.certificate_file}",
            f"keyfile {tls.identity.key_file}",
            "require_certificate true",
            "use_identity_as_username true",
            "tls_version tlsv1.2",
        ]
    path = folder / "mosquitto.conf"
    path.write_text("\n".join(lines) + "\n")
    return path


def _access_list(topics: Topics, replicas: Sequence[str]) -> str:
    blocks = [f"pattern readwrite {topics.root}/devices/%u/#"]
    blocks += [f"user {replica}\ntopic readwrite {topics.root}/#" for replica in replicas]
    return "\n\n".join(blocks) + "\n"


def free_port() -> int:
    """A loopback port that nobody listens on now.

    It is none of those that systems give to outgoing connections, one of which could take it before it is used.

    Raises:
        OSError: there is none.
    """
    for port in random.sample(SERVER_PORTS, len(SERVER_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(errno.EADDRINUSE, f"no port from {SERVER_PORTS[0]} to {SERVER_PORTS[-1]} is free")
