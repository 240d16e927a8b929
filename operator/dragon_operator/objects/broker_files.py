"""The configuration of a cluster's mosquitto: two listeners, and who may do what by its dynamic security plugin.

On one listener a client's certificate is its name. Such a client skips the plugin's login (mosquitto 2.0): its role
alone decides what it may do, which is nothing without one. On the other a device enrols with its token's secret.
"""

import json

from dragon_core.topics import Topics
from dragon_operator.fleet.access import CLOUD_PEER, OPERATOR, cloud_peer_entries, operator_entries
from dragon_operator.wanted.names import BROKER_PORT, ENROLMENT_PORT
from dragon_runtime.servers.mosquitto import COMMON

SECURITY_FILE = "dynamic-security.json"
PLUGIN = "/usr/lib/mosquitto_dynamic_security.so"
"""In the broker's image, on every processor."""

_OWN = """\
max_packet_size 2097152
allow_anonymous false
persistence true
autosave_interval 5
"""


def cluster_configuration(
    *,
    tls_folder: str,
    data_folder: str,
    plugin: str = PLUGIN,
    crl_file: str | None = None,
    address: str = "",
    ports: tuple[int, int] = (BROKER_PORT, ENROLMENT_PORT),
) -> str:
    """The text of mosquitto.conf. `ports` are for clients with certificates and for enrolment; no `address`: all.

    `crl_file` lists the certificates that are refused. It must exist; mosquitto reads it again at SIGHUP.
    """
    server = f"cafile {tls_folder}/ca.crt\ncertfile {tls_folder}/tls.crt\nkeyfile {tls_folder}/tls.key\n"
    revoked = "" if crl_file is None else f"crlfile {crl_file}\n"
    tls_port, enrolment_port = (f"{port} {address}".rstrip() for port in ports)
    return (
        f"{COMMON}{_OWN}persistence_location {data_folder}/\n"
        f"plugin {plugin}\nplugin_opt_config_file {data_folder}/{SECURITY_FILE}\n\n"
        f"listener {tls_port}\n{server}{revoked}"
        "require_certificate true\nuse_identity_as_username true\ntls_version tlsv1.2\n\n"
        f"listener {enrolment_port}\n{server}tls_version tlsv1.2\n"
    )


def initial_security(topics: Topics) -> str:
    """What the plugin starts with: the operator tells it what to do, cloud peers take sessions, nobody else is known.

    None of them has a password: they cannot log in where no certificate is asked for.
    """
    content = {
        "defaultACLAccess": {
            "publishClientSend": False,
            "publishClientReceive": False,
            "subscribe": False,
            "unsubscribe": True,
        },
        "clients": [
            {"username": OPERATOR, "roles": [{"rolename": OPERATOR}]},
            {"username": CLOUD_PEER, "roles": [{"rolename": CLOUD_PEER}]},
        ],
        "groups": [],
        "roles": [
            {"rolename": OPERATOR, "acls": operator_entries(topics)},
            {"rolename": CLOUD_PEER, "acls": cloud_peer_entries(topics)},
        ],
    }
    return json.dumps(content, indent=2) + "\n"
