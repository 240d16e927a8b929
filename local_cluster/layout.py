"""Where a cluster with a node has its files, addresses and names on this machine."""

import os
from dataclasses import dataclass
from pathlib import Path

NETWORK_NAMESPACE = "dragon-cluster"
DEVICE_NAMESPACE = "dragon-device"
"""A second network, for what runs outside of the cluster; its only link leads to the node."""

NODE = "dragon-node"
NODE_ADDRESS = "10.87.0.1"
DEVICE_ADDRESS = "10.87.0.2"
NODE_NETWORK_BITS = 24
POD_RANGE = "10.88.0.0/24"
SERVICE_RANGE = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_ADDRESS = "10.96.0.10"
DNS_DOMAIN = "cluster.local"
CGROUP = "dragon-cluster"
PAUSE_IMAGE = "localhost/dragon-tests-pause:1"
ECHO_IMAGE = "localhost/dragon-tests-echo:1"
STORAGE_CLASS = "host-path"
CNI_PROGRAMS = Path("/usr/lib/cni")

BOUND = (
    "/run/containerd",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
)
"""Folders that programs of a node do not let one choose: inside they are folders of ours."""
KERNEL_SETTINGS = ("/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops", "/proc/sys/vm/overcommit_memory")
"""What a kubelet sets on the machine."""


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """The folder of a cluster's state."""

    folder: Path

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.folder / "credentials" / "admin.kubeconfig"

    @property
    def state(self) -> Path:
        """Which processes and folders are ours."""
        return self.folder / "cluster.json"

    @property
    def volumes(self) -> Path:
        """What claims of pods are bound to."""
        return self.folder / "volumes"

    def bound(self, target: str) -> Path:
        """What stands for one of the folders in `BOUND`."""
        return self.folder / "bound" / target.strip("/").replace("/", "-")


def default_folder() -> Path:
    """In the cache of the user."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("DRAGON_CACHE") or Path(cache) / "dragon") / "cluster"
