"""A Kubernetes with one node on this machine, for tests; everything of it lives in namespaces of its own."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from local_cluster import machine, network
from local_cluster.layout import DEVICE_NAMESPACE, NETWORK_NAMESPACE, default_folder
from local_cluster.node.cluster import NodeCluster


def main() -> int:
    """Command line."""
    arguments = _parser().parse_args()
    cluster = NodeCluster(default_folder())
    try:
        match arguments.command:
            case "check":
                machine.check()
            case "up":
                cluster.up()
                print(cluster.files.kubeconfig)
            case "down":
                cluster.down()
            case "status":
                return _show(cluster)
            case "load":
                for archive in arguments.archives:
                    print(cluster.load(archive))
            case "run":
                return _run(cluster, arguments.arguments)
            case "exec":
                _replace_us(cluster, arguments)
    except (RuntimeError, TimeoutError, PermissionError) as error:
        sys.stderr.write(f"cluster: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="say why it cannot run on this machine; exit code 1 when so")
    commands.add_parser("up", help="start it, unless it runs; prints the kubeconfig file")
    commands.add_parser("down", help="stop it and take away every trace")
    commands.add_parser("status", help="say whether it runs; exit code 1 when not")
    load = commands.add_parser("load", help="give the node the images of archives")
    load.add_argument("archives", nargs="+", type=Path, metavar="IMAGE_ARCHIVE")
    run = commands.add_parser("run", help="exec in it, having started it if need be; what was started is taken down")
    run.add_argument("arguments", nargs="+", metavar="COMMAND")
    run = commands.add_parser("exec", help="run a command in its network, with KUBECONFIG set and kubectl at hand")
    run.add_argument("--device", action="store_true", help="in the network of the device outside, without KUBECONFIG")
    run.add_argument(
        "--node", action="store_true", help="among the node's own processes and mounts, for ctr and the like"
    )
    run.add_argument("arguments", nargs="+", metavar="COMMAND")
    return parser


def _show(cluster: NodeCluster) -> int:
    if not cluster.is_running:
        print("not running")
        return 1
    print(cluster.run("kubectl", "get", "nodes,pods", "--all-namespaces", "--output=wide").stdout, end="")
    return 0


def _run(cluster: NodeCluster, command: list[str]) -> int:
    was_running = cluster.is_running
    cluster.up()
    try:
        entered = [*network.entered(NETWORK_NAMESPACE), *command]
        return subprocess.run(entered, env={**os.environ, **cluster.environment()}, check=False).returncode
    finally:
        if not was_running:
            cluster.down()


def _replace_us(cluster: NodeCluster, arguments: argparse.Namespace) -> None:
    sandbox = cluster.sandbox
    if sandbox is None or not sandbox.is_running:
        raise RuntimeError("the cluster does not run; start it with: scripts/cluster up")
    environment = dict(os.environ)
    prefix = network.entered(DEVICE_NAMESPACE if arguments.device else NETWORK_NAMESPACE)
    if arguments.node:
        prefix = sandbox.entered()
    if not arguments.device:
        environment |= cluster.environment()
    os.execvpe(prefix[0], [*prefix, *arguments.arguments], environment)  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())
