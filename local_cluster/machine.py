"""What a cluster with a node needs of the machine, and how to get it on Debian."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from local_cluster import tools
from local_cluster.layout import CNI_PROGRAMS

PROGRAMS = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "jq": "jq",
    "nsenter": "util-linux",
    "sysctl": "procps",
}
"""Programs and the Debian packages they come in. The last two of containers build the images."""


def missing_packages() -> list[str]:
    """Debian packages of which a program is missing."""
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
    missing = {package for program, package in PROGRAMS.items() if shutil.which(program, path=path) is None}
    if not (CNI_PROGRAMS / "ptp").exists():
        missing.add("containernetworking-plugins")
    return sorted(missing)


def unsuitable() -> str | None:
    """Why no node can be run here by us, packages aside."""
    if sys.platform != "linux":
        return "a node needs Linux"
    if os.geteuid() != 0:
        return "a node needs root: it mounts, and makes networks and control groups"
    if "\toverlay" not in Path("/proc/filesystems").read_text() and not _has_module("overlay"):
        return "the kernel has no overlay file system"
    return None


def check() -> None:
    """Look whether a node can be run here.

    Raises:
        RuntimeError: it cannot; says why.
    """
    reason = unsuitable()
    if reason is not None:
        raise RuntimeError(f"{reason}; to use a cluster of your own, set DRAGON_E2E_KUBECONFIG to its kubeconfig file")
    missing = missing_packages()
    if missing and shutil.which("apt-get") is None:
        raise RuntimeError(
            f"these are missing: {' '.join(missing)} (the names are Debian's); install them and run this again"
        )
    if refusal := tools.refusal("node"):
        raise RuntimeError(refusal)


def prepare() -> None:
    """Install what is missing.

    Raises:
        RuntimeError: no node can be run here; says why.
    """
    check()
    missing = missing_packages()
    if not missing:
        return
    sys.stderr.write(f"cluster: installing {' '.join(missing)}\n")
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    for command in (["apt-get", "update", "-qq"], install):
        done = subprocess.run(
            command,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()[-1000:]}")


def _has_module(name: str) -> bool:
    return shutil.which("modprobe") is not None and (
        subprocess.run(["modprobe", name], capture_output=True, check=False).returncode == 0
    )
