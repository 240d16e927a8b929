"""The configuration files of a node's programs, and how they are called."""

import json
import sys
from typing import Any

import yaml

from dragon_runtime.certificates import Identity
from local_cluster.command_lines import Place
from local_cluster.credentials import Credentials
from local_cluster.layout import (
    CGROUP,
    CNI_PROGRAMS,
    DNS_ADDRESS,
    DNS_DOMAIN,
    NODE,
    NODE_ADDRESS,
    PAUSE_IMAGE,
    POD_RANGE,
    NodeFiles,
)

SCHEDULER = "system:kube-scheduler"
PROXY = "system:kube-proxy"
NODE_USER = f"system:node:{NODE}"
DNS = "dns"

CONTAINERD = """\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_programs}"
    conf_dir = "{cni_configuration}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""

COREDNS = """\
.:53 {{
    bind {address}
    errors
    kubernetes {domain} in-addr.arpa {{
        kubeconfig {kubeconfig} tests
        ttl 5
    }}
}}
"""


def containerd(files: NodeFiles) -> list[str]:
    """The containers' engine. Each pod has a link of its own to the node: no bridge may pass a service's answers by."""
    folder = files.folder / "containerd"
    network = folder / "net.d"
    network.mkdir(parents=True)
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": POD_RANGE}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": "/var/lib/cni",
    }
    plugins = [{"type": "ptp", "ipam": addresses}, {"type": "portmap", "capabilities": {"portMappings": True}}]
    content = {"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}
    (network / "10-pods.conflist").write_text(json.dumps(content, indent=2))
    path = folder / "config.toml"
    path.write_text(CONTAINERD.format(pause=PAUSE_IMAGE, cni_programs=CNI_PROGRAMS, cni_configuration=network))
    return ["containerd", f"--config={path}"]


def kubelet(place: Place, credentials: Credentials, serving: Identity) -> list[str]:
    """Starts the pods."""
    resolver = place.folder / "resolv.conf"
    resolver.write_text("")
    configuration: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(credentials.authority_file)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving.certificate_file),
        "tlsPrivateKeyFile": str(serving.key_file),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": DNS_DOMAIN,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "enforceNodeAllocatable": [],
        "evictionHard": dict.fromkeys(
            ("imagefs.available", "memory.available", "nodefs.available", "nodefs.inodesFree"), "0%"
        ),
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": False,
        "resolvConf": str(resolver),
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    }
    path = place.folder / "kubelet.yaml"
    path.write_text(yaml.safe_dump(configuration))
    return [
        str(place.tools / "kubelet"),
        f"--config={path}",
        f"--kubeconfig={credentials.kubeconfig(NODE_USER)}",
        f"--hostname-override={NODE}",
        f"--node-ip={NODE_ADDRESS}",
    ]


def scheduler(place: Place, credentials: Credentials) -> list[str]:
    """Gives pods to the node."""
    kubeconfig = credentials.kubeconfig(SCHEDULER)
    return [
        str(place.tools / "kube-scheduler"),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    ]


def proxy(place: Place, credentials: Credentials) -> list[str]:
    """The addresses of services."""
    return [
        str(place.tools / "kube-proxy"),
        f"--kubeconfig={credentials.kubeconfig(PROXY)}",
        f"--hostname-override={NODE}",
        f"--cluster-cidr={POD_RANGE}",
        "--proxy-mode=nftables",
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0s",
        "--conntrack-tcp-timeout-close-wait=0s",
    ]


def coredns(place: Place, credentials: Credentials) -> list[str]:
    """The names of services; it knows no others."""
    path = place.folder / "Corefile"
    path.write_text(
        COREDNS.format(address=NODE_ADDRESS, domain=DNS_DOMAIN, kubeconfig=credentials.kubeconfig(DNS)),
    )
    return [str(place.tools / "coredns"), f"-conf={path}"]


def storage(files: NodeFiles) -> list[str]:
    """Our provisioner of volumes."""
    module = "local_cluster.storage"
    return [sys.executable, "-m", module, str(files.kubeconfig), str(files.volumes)]
