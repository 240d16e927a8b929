"""helm and kubeconform on the chart."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "dragon"
CRDS = sorted((ROOT / "crds").glob("*.yaml"))
EVERYTHING = CHART / "ci" / "everything-values.yaml"
VALUES_FILES = [*sorted(CHART.glob("values-*.yaml")), EVERYTHING]
RELEASE, NAMESPACE = "dragon", "dragon-system"
Object = dict[str, Any]


class Helm:
    """The program `helm`, with files of its own; `kubeconfig` is the cluster's."""

    def __init__(self, program: Path, folder: Path, *, kubeconfig: Path | None = None) -> None:
        self._program, self._folder = program, folder
        self._environment = {
            **os.environ,
            "HELM_CACHE_HOME": str(folder / "cache"),
            "HELM_CONFIG_HOME": str(folder / "config"),
            "HELM_DATA_HOME": str(folder / "data"),
            "KUBECONFIG": str(kubeconfig or folder / "none"),
        }

    def start(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        """Run it beside us."""
        command = [self._program, *arguments]
        return subprocess.Popen(
            command, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *arguments: str | Path) -> str:
        """What it says, on an exit code of 0."""
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
        return said

    def refusal(self, *arguments: str | Path) -> str:
        """What it says when it fails."""
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=300)
        assert process.returncode != 0, said
        return said

    def text(self, *arguments: str | Path) -> str:
        """The chart with these values, as YAML."""
        return self.run("template", RELEASE, CHART, "--namespace", NAMESPACE, *arguments)

    def template(self, *arguments: str | Path) -> list[Object]:
        """The objects of the chart with these values."""
        return [found for found in yaml.safe_load_all(self.text(*arguments)) if found]


def of_kind(objects: Iterable[Object], kind: str) -> list[Object]:
    """The objects of a kind."""
    return [found for found in objects if found["kind"] == kind]


def one(objects: Iterable[Object], kind: str) -> Object:
    """The only object of a kind that is no part of the test."""
    found = [obj for obj in of_kind(objects, kind) if "helm.sh/hook" not in (obj["metadata"].get("annotations") or {})]
    assert len(found) == 1, [obj["metadata"]["name"] for obj in found]
    return found[0]
