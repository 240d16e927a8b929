"""helm, kubeconform, and a control plane to install into."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local_cluster.control_plane import ControlPlane
from local_cluster.tools import tools
from tests.chart.helm import Helm
from tests.chart.schemas import LOCATION, write_schemas

Conforms = Callable[[str], str]
"""Complaints about the objects in a text of YAML; empty when there are none."""


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder with helm, kubeconform and kubectl."""
    return tools("chart")


@pytest.fixture(scope="session")
def helm(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """helm without a cluster."""
    return Helm(programs / "helm", tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def complaints(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Conforms:
    """kubeconform -strict."""
    folder = tmp_path_factory.mktemp("schemas")
    write_schemas(folder)

    def check(text: str) -> str:
        command: list[str | Path] = [
            programs / "kubeconform",
            "-strict",
            "-summary",
            "-schema-location",
            f"{folder}/{LOCATION}",
            "-",
        ]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=120)
        return "" if done.returncode == 0 and "Skipped: 0" in done.stdout else done.stdout + done.stderr

    return check


@pytest.fixture(scope="module")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A running control plane; nobody else's resource definitions are in it."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as running:
        yield running
