"""Configures the parts of a local stack: ports, certificates, a settings file and a command for each part."""

import json
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

import yaml

from dragon_cli.stack import DEFAULT_API_PORT, PARTS, EngineChoice, Stack, StackOptions, write_whole
from dragon_core.errors import SettingsError
from dragon_core.topics import Topics
from dragon_runtime.certificates import CertificateFolder, Identity, ServerTls
from dragon_runtime.engines.llama.model import require_gguf
from dragon_runtime.servers.mosquitto import find_mosquitto, free_port, write_configuration
from dragon_runtime.servers.triton_server import find_triton, launch_command, write_repository

DEVICE, REPLICA = "local-device", "local-cloud"
NAMESPACE, DEPLOYMENT = "local", "stack"
NUM_SEQUENCES = 8


def configure(stack: Stack, options: StackOptions) -> dict[str, Any]:
    """Write every part's configuration and certificates into the folder; returns the plan the supervisor follows.

    Raises:
        SettingsError: a program is missing or an option cannot be met.
    """
    _require_possible(options)
    for folder in (stack.folder, stack.folder / "logs", stack.folder / "edge", stack.folder / "cloud"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    broker_port, metrics_port = free_port(), free_port()
    api_port = options.api_port or _port_or_free(DEFAULT_API_PORT)
    link_port = None if options.rtt_ms is None else free_port()
    topics = Topics(NAMESPACE, DEPLOYMENT)

    authority = CertificateFolder(stack.folder / "tls", name="dragon local stack")
    broker_configuration = write_configuration(
        stack.folder / "broker",
        port=broker_port,
        topics=topics,
        tls=ServerTls(authority.certificate_file, authority.issue("broker", is_server=True)),
        replicas=[REPLICA],
    )
    shared = _shared_settings(options)
    replica = authority.issue(REPLICA)
    cloud = {
        **shared,
        "replica": REPLICA,
        "data_folder": str(stack.folder / "cloud"),
        "drain_seconds": 5,
        "broker": _broker_settings(broker_port, authority, replica),
        "metrics": {"port": metrics_port},
    }
    if options.public_documents is not None:
        cloud["documents"] = str(options.public_documents.absolute())
    if options.engine is EngineChoice.TRITON:
        triton_command, cloud["triton"] = _configure_triton(stack, shared["model"], authority, replica)
    edge = {
        **shared,
        "device": DEVICE,
        "data_folder": str(stack.folder / "edge"),
        "broker": _broker_settings(link_port or broker_port, authority, authority.issue(DEVICE)),
        "api": {"port": api_port},
    }
    commands = {
        "broker": [find_mosquitto(), "-c", str(broker_configuration)],
        "cloud": [sys.executable, "-m", "cloud_peer.main", "run", "--settings", _write_settings(stack, "cloud", cloud)],
        "edge": [sys.executable, "-m", "edge_daemon.main", "run", "--settings", _write_settings(stack, "edge", edge)],
    }
    if options.engine is EngineChoice.TRITON:
        commands["triton"] = triton_command
    if link_port is not None:
        addresses = ["--listen", f"127.0.0.1:{link_port}", "--target", f"127.0.0.1:{broker_port}"]
        pace = ["--rtt-ms", f"{options.rtt_ms:g}", "--jitter-ms", f"{options.jitter_ms:g}"]
        commands["link"] = [sys.executable, "-m", "link_emulator.main", *addresses, *pace]
    plan = {
        "api_url": f"http://127.0.0.1:{api_port}",
        "metrics_url": f"http://127.0.0.1:{metrics_port}",
        "rtt_ms": options.rtt_ms,
        "commands": {part: commands[part] for part in PARTS if part in commands},
    }
    write_whole(stack.plan_path, json.dumps(plan, indent=2))
    return plan


def _configure_triton(
    stack: Stack, model: dict[str, Any], authority: CertificateFolder, replica: Identity
) -> tuple[list[str], dict[str, Any]]:
    """The command of a server with our models, and the cloud peer's settings for that server."""
    folder = stack.folder / "triton"
    folder.mkdir(mode=0o700, exist_ok=True)
    parameters = {"model_path": model.get("path", ""), "num_threads": model["num_threads"]}
    repository = write_repository(
        folder / "models", {"causal_lm": {**parameters, "num_sequences": model["num_sequences"]}}
    )
    grpc_port, metrics_port = free_port(), free_port()
    command = launch_command(
        folder,
        repository=repository,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        tls=ServerTls(authority.certificate_file, authority.issue("triton", is_server=True)),
    )
    return command, {
        "address": f"127.0.0.1:{grpc_port}",
        "ca_file": str(authority.certificate_file),
        "certificate_file": str(replica.certificate_file),
        "key_file": str(replica.key_file),
    }


def _require_possible(options: StackOptions) -> None:
    """Find mistakes now that would otherwise end a part again and again, visible only in its log."""
    if options.public_documents is not None and not options.public_documents.is_dir():
        raise SettingsError(f"{options.public_documents} is not a folder of public documents")
    if options.model is not None and not is_address(options.model):
        require_gguf(Path(options.model).expanduser())
    require_digest(options)
    if options.engine is EngineChoice.TRITON:
        find_triton()
    if options.api_port is not None and _port_or_free(options.api_port) != options.api_port:
        raise SettingsError(f"port {options.api_port} is in use on this machine: choose another port with --api-port")


def require_digest(options: StackOptions) -> None:
    """Require a valid digest for a model that is downloaded.

    Raises:
        SettingsError: the digest is missing or not valid.
    """
    if options.model is not None and is_address(options.model) and options.model_sha256 is None:
        raise SettingsError(f"{options.model} is downloaded: give its digest with --model-sha256")
    if options.model_sha256 is not None and not re.fullmatch("[0-9a-f]{64}", options.model_sha256):
        raise SettingsError(
            f"--model-sha256 {options.model_sha256} is not a digest: a digest has 64 hexadecimal digits"
        )


def is_address(model: str) -> bool:
    """Whether a model is an address to download from; otherwise it is a file."""
    return model.startswith(("http://", "https://"))


def _shared_settings(options: StackOptions) -> dict[str, Any]:
    # Two engines share this machine: spinning threads of one would starve the other. Two sessions at a time are
    # enough here, and the memory of their sequences is taken at once.
    num_threads = options.num_threads or max(1, (os.cpu_count() or 2) // 2)
    model: dict[str, Any] = {"num_threads": num_threads, "num_sequences": NUM_SEQUENCES}
    if options.model is not None and is_address(options.model):
        model |= {"url": options.model, "sha256": options.model_sha256}
    elif options.model is not None:
        model |= {"path": str(Path(options.model).expanduser().absolute()), "sha256": options.model_sha256}
    return {"namespace": NAMESPACE, "deployment": DEPLOYMENT, "model": model, **(options.protocol or {})}


def _broker_settings(port: int, authority: CertificateFolder, identity: Identity) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": port,
        "ca_file": str(authority.certificate_file),
        "certificate_file": str(identity.certificate_file),
        "key_file": str(identity.key_file),
    }


def _write_settings(stack: Stack, part: str, settings: dict[str, Any]) -> str:
    path = stack.folder / f"{part}.yaml"
    write_whole(path, yaml.safe_dump(settings, sort_keys=False))
    return str(path)


def _port_or_free(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return free_port()
    return port
