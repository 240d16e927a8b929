"""A Triton server on this machine: where its parts are, the model repository it loads, and its command line.

The server comes as a Python package that brings the back end for Python models only. Starting it is the caller's.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from dragon_core.errors import SettingsError
from dragon_runtime.certificates import Identity, ServerTls

MODELS = ("causal_lm", "embedder")
MODEL_SOURCES = Path(__file__).resolve().parents[2] / "triton_models"
DEFAULT_PYTHON = Path(sys.prefix).parent / ".venv-triton" / "bin" / "python"
REMEDY = "`make setup` installs it (x86-64 Linux), or set DRAGONCTL_TRITON_PYTHON to an interpreter that has it"
_LOOK = """
import json, sys, sysconfig
paths = {"site": sysconfig.get_paths()["purelib"], "library": sysconfig.get_config_var("LIBDIR")}
print(json.dumps({**paths, "version": f"{sys.version_info[0]}.{sys.version_info[1]}"}))
"""


@dataclass(frozen=True, slots=True)
class TritonInstall:
    """An environment with the server's package: its interpreter runs the models, `libraries` are its shared ones."""

    python: Path
    server: Path
    backend: Path
    stub: Path
    libraries: tuple[Path, ...]


def find_triton() -> TritonInstall:
    """The environment that DRAGONCTL_TRITON_PYTHON names, or the one beside ours.

    Raises:
        SettingsError: there is none, or it lacks something.
    """
    python = Path(os.environ.get("DRAGONCTL_TRITON_PYTHON") or DEFAULT_PYTHON)
    try:
        looked = subprocess.run([python, "-c", _LOOK], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise SettingsError(f"there is no Triton server ({python} cannot be run): {REMEDY}") from error
    found = json.loads(looked.stdout)
    site, library = Path(found["site"]), Path(found["library"])
    package = site / "pytriton" / "tritonserver"
    install = TritonInstall(
        python=python,
        server=package / "bin" / "tritonserver",
        backend=package / "backends" / "python",
        stub=package / "python_backend_stubs" / found["version"] / "triton_python_backend_stub",
        libraries=(site / "nvidia_pytriton.libs", library),
    )
    for path in (install.server, install.backend, install.stub):
        if not path.exists():
            raise SettingsError(f"there is no Triton server: {path} is missing; {REMEDY}")
    return install


def write_repository(folder: Path, parameters: Mapping[str, Mapping[str, object]]) -> Path:
    """Copy our models into `folder` with other parameters than those of their config.pbtxt; returns it.

    Raises:
        SettingsError: the models are not here, or a parameter is unknown.
    """
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    if not MODEL_SOURCES.is_dir():
        raise SettingsError(f"{MODEL_SOURCES} is missing: Triton's models are part of a checkout of this project")
    for model in MODELS:
        shutil.copytree(
            MODEL_SOURCES / model, folder / model, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
        path = folder / model / "config.pbtxt"
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        for name, value in parameters.get(model, {}).items():
            if name not in config.parameters:
                raise SettingsError(f"{model} has no parameter {name}")
            config.parameters[name].string_value = str(value)
        path.write_text(text_format.MessageToString(config))
    return folder


def server_command(
    install: TritonInstall,
    folder: Path,
    *,
    repository: Path,
    grpc_port: int,
    metrics_port: int,
    tls: ServerTls | None = None,
) -> list[str]:
    """The command of a loopback server that loads our models; `folder` is for what it needs while it runs."""
    command = [
        str(install.server),
        f"--model-repository={repository}",
        f"--backend-directory={folder / 'backends'}",
        # What a crash leaves in shared memory is known by this, and removed at the next start.
        f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix(folder)}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in MODELS),
        "--exit-on-error=false",
        "--exit-timeout-secs=10",
        "--allow-http=false",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={grpc_port}",
        "--metrics-address=127.0.0.1",
        f"--metrics-port={metrics_port}",
        "--log-info=false",
    ]
    if tls is not None:
        command += [
            "--grpc-use-ssl=true",
            "--grpc-use-ssl-mutual=true",
            f"--grpc-root-cert={tls.ca_file}",
            f"--grpc-server-cert={tls.identity.certificate_file}",
            f"--grpc-server-key={tls.identity.key_file}",
        ]
    return command


def prepare(install: TritonInstall, folder: Path) -> dict[str, str]:
    """Put the back end in place and remove what a crash left; returns the environment that the server needs."""
    for region in shared_memory(folder):
        region.unlink(missing_ok=True)
    backends = folder / "backends"
    shutil.rmtree(backends, ignore_errors=True)
    shutil.copytree(install.backend, backends / "python", symlinks=True)
    shutil.copy2(install.stub, backends / "python")
    libraries = [*map(str, install.libraries), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        # The models run in the first python3 of the path.
        "PATH": f"{install.python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        # Threads that spin while they wait take a core from the language model.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
    }


def shared_memory_prefix(folder: Path) -> str:
    """What the names of a server's shared memory begin with: its folder, so that two servers never share."""
    return "dragon-" + hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]


def shared_memory(folder: Path) -> list[Path]:
    """What a server of this folder has, or left, in shared memory."""
    return list(Path("/dev/shm").glob(f"{shared_memory_prefix(folder)}*"))  # noqa: S108 - where the system keeps it


def launch_command(
    folder: Path, *, repository: Path, grpc_port: int, metrics_port: int, tls: ServerTls | None = None
) -> list[str]:
    """The command that prepares everything and becomes the server: what `main` takes."""
    command = [sys.executable, "-m", "dragon_runtime.servers.triton_server", "--folder", str(folder)]
    command += ["--repository", str(repository)]
    command += ["--grpc-port", str(grpc_port), "--metrics-port", str(metrics_port)]
    if tls is not None:
        identity = tls.identity
        command += ["--ca-file", str(tls.ca_file)]
        command += ["--certificate-file", str(identity.certificate_file), "--key-file", str(identity.key_file)]
    return command


def main() -> NoReturn:
    """Become the server."""
    parser = argparse.ArgumentParser(prog="python -m dragon_runtime.servers.triton_server", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="for what the server needs while it runs")
    parser.add_argument("--repository", type=Path, required=True, help="the models")
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--metrics-port", type=int, required=True)
    parser.add_argument("--ca-file", type=Path, help="whose certificates are accepted; set: mutual TLS")
    parser.add_argument("--certificate-file", type=Path)
    parser.add_argument("--key-file", type=Path)
    given = parser.parse_args()
    try:
        install = find_triton()
        environment = prepare(install, given.folder)
    except (SettingsError, OSError) as error:
        sys.exit(f"triton: {error}")
    tls = ServerTls(given.ca_file, Identity(given.certificate_file, given.key_file)) if given.ca_file else None
    command = server_command(
        install,
        given.folder,
        repository=given.repository,
        grpc_port=given.grpc_port,
        metrics_port=given.metrics_port,
        tls=tls,
    )
    os.execve(command[0], command, environment)  # noqa: S606 - our own arguments


if __name__ == "__main__":
    main()
