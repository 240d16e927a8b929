"""The configuration of a cluster's mosquitto: two listeners, and who may do what by its dynamic security plugin.

On one listener a client's certificate is its name. Such a client skips the plugin's login (mosquitto 2.0): its role
alone decides what it may do, which is nothing without one. On the other a device enrols with its token's secret.
"""

import json
from typing import Any

from dragon_core.topics import Topics
from dragon_runtime.servers.mosquitto import COMMON

BROKER_PORT, ENROLMENT_PORT = 8883, 8884
SECURITY_FILE = "dynamic-security.json"
PLUGIN = "/usr/lib/mosquitto_dynamic_security.so"
"""In the broker's image, on every processor."""
OPERATOR, CLOUD_PEER = "operator", "cloud-peer"
CONTROL_TOPIC = "$CONTROL/dynamic-security/v1"

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
            {"rolename": OPERATOR, "acls": [*both_ways("$CONTROL/dynamic-security/#"), *both_ways(f"{topics.root}/#")]},
            {"rolename": CLOUD_PEER, "acls": cloud_peer_entries(topics)},
        ],
    }
    return json.dumps(content, indent=2) + "\n"


def send(topic: str) -> dict[str, Any]:
    """An entry of a role: publish to what `topic` matches."""
    return _entry("publishClientSend", topic)


def receive(topic: str) -> list[dict[str, Any]]:
    """Entries of a role: subscribe to `topic` or a part of it, and get what comes."""
    return [_entry("publishClientReceive", topic), _entry("subscribePattern", topic)]


def both_ways(topic: str) -> list[dict[str, Any]]:
    """Entries of a role: all of that."""
    return [send(topic), *receive(topic)]


def cloud_peer_entries(topics: Topics) -> list[dict[str, Any]]:
    """Sessions only: with more a cloud peer could ask for certificates in a device's name."""
    devices = f"{topics.root}/devices"
    return [
        *receive(f"{devices}/+/open/+"),
        _entry("subscribePattern", topics.all_opens),
        *receive(f"{devices}/+/replicas/+/+/up"),
        send(f"{devices}/+/sessions/+/down"),
    ]


def _entry(kind: str, topic: str) -> dict[str, Any]:
    return {"acltype": kind, "topic": topic, "priority": 0, "allow": True}
