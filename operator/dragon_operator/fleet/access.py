"""Who may do what on a broker, as the entries of its dynamic security plugin's roles."""

from typing import Any

from dragon_core.topics import Topics

OPERATOR, CLOUD_PEER = "operator", "cloud-peer"
"""Clients, their roles, and the names in their certificates."""
CONTROL_TOPIC = "$CONTROL/dynamic-security/v1"


def send(topic: str) -> dict[str, Any]:
    """An entry of a role: publish to what `topic` matches."""
    return _entry("publishClientSend", topic)


def receive(topic: str) -> list[dict[str, Any]]:
    """Entries of a role: subscribe to `topic` or a part of it, and get what comes."""
    return [_entry("publishClientReceive", topic), _entry("subscribePattern", topic)]


def both_ways(topic: str) -> list[dict[str, Any]]:
    """Entries of a role: all of that."""
    return [send(topic), *receive(topic)]


def operator_entries(topics: Topics) -> list[dict[str, Any]]:
    """It tells the plugin what to do, and may speak and hear everywhere in the deployment."""
    return [*both_ways("$CONTROL/dynamic-security/#"), *both_ways(f"{topics.root}/#")]


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
