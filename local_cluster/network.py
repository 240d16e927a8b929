"""Two networks of their own, so that nothing of a cluster reaches the machine's: the node's and a device's."""

import contextlib
import subprocess
from pathlib import Path

from local_cluster.layout import (
    DEVICE_ADDRESS,
    DEVICE_NAMESPACE,
    NETWORK_NAMESPACE,
    NODE_ADDRESS,
    NODE_NETWORK_BITS,
)

BRIDGE = "node0"
NAMESPACES = Path("/run/netns")


def create() -> None:
    """Make both networks and the link between them."""
    for name in (NETWORK_NAMESPACE, DEVICE_NAMESPACE):
        _ip("netns", "add", name)
        _ip("-netns", name, "link", "set", "lo", "up")
    node, device = ("-netns", NETWORK_NAMESPACE), ("-netns", DEVICE_NAMESPACE)
    # A bridge keeps the node's address whatever becomes of the link to the device.
    _ip(*node, "link", "add", BRIDGE, "type", "bridge")
    _ip(*node, "address", "add", f"{NODE_ADDRESS}/{NODE_NETWORK_BITS}", "dev", BRIDGE)
    _ip(*node, "link", "set", BRIDGE, "up")
    _ip(*node, "route", "add", "default", "dev", BRIDGE)
    _ip(*node, "link", "add", "device0", "type", "veth", "peer", "name", "node0", "netns", DEVICE_NAMESPACE)
    _ip(*node, "link", "set", "device0", "master", BRIDGE, "up")
    _ip(*device, "address", "add", f"{DEVICE_ADDRESS}/{NODE_NETWORK_BITS}", "dev", "node0")
    _ip(*device, "link", "set", "node0", "up")
    _ip(*device, "route", "add", "default", "via", NODE_ADDRESS)
    subprocess.run([*entered(NETWORK_NAMESPACE), "sysctl", "-q", "-w", "net.ipv4.ip_forward=1"], check=True)


def exists() -> bool:
    """Whether one of them is there."""
    return any((NAMESPACES / name).exists() for name in (NETWORK_NAMESPACE, DEVICE_NAMESPACE))


def remove() -> None:
    """Take away what is there."""
    for name in (DEVICE_NAMESPACE, NETWORK_NAMESPACE):
        if (NAMESPACES / name).exists():
            _ip("netns", "delete", name)
    if NAMESPACES.exists() and not any(NAMESPACES.iterdir()):
        # `ip` mounts the folder on itself.
        subprocess.run(["umount", str(NAMESPACES)], check=False, capture_output=True)
        with contextlib.suppress(OSError):  # somebody else's mount
            NAMESPACES.rmdir()


def entered(name: str) -> list[str]:
    """What to put in front of a command that is to run in a network. (`ip netns exec` would hide the cgroups.)"""
    return ["nsenter", f"--net={NAMESPACES / name}", "--"]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
