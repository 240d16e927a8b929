"""What the chart makes of values: valid objects, locked-down pods, settings that the operator takes."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dragon_operator.settings import OperatorSettings
from dragon_runtime.settings import load_settings
from tests.chart.conftest import Conforms
from tests.chart.helm import CHART, CRDS, EVERYTHING, ROOT, VALUES_FILES, Helm, of_kind, one

ARGUMENTS: list[list[str | Path]] = [[]]
ARGUMENTS += (["--values", path] for path in VALUES_FILES)
IDS = ["default", *(path.stem for path in VALUES_FILES)]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=IDS)
def test_lint(helm: Helm, arguments: list[str | Path]) -> None:
    helm.run("lint", "--strict", CHART, *arguments)


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=IDS)
def test_every_object_fits_its_schema(helm: Helm, complaints: Conforms, arguments: list[str | Path]) -> None:
    assert complaints(helm.text(*arguments)) == ""


def test_an_unknown_field_would_be_noticed(helm: Helm, complaints: Conforms) -> None:
    text = helm.text()
    for known, unknown in (("enableServiceLinks:", "enableLinks:"), ("deployment: helpdesk", "deploy: helpdesk")):
        assert known in text
        assert complaints(text.replace(known, unknown))


@pytest.mark.parametrize("path", [*sorted((ROOT / "examples").glob("*.yaml")), *(ROOT / "packaging").glob("*.yaml")])
def test_examples_fit_their_schemas(complaints: Conforms, path: Path) -> None:
    assert complaints(path.read_text()) == ""


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=IDS)
def test_pods_have_no_privileges(helm: Helm, arguments: list[str | Path]) -> None:
    objects = helm.template(*arguments)
    operator = one(objects, "Deployment")["spec"]
    assert operator["replicas"] == 1
    assert operator["strategy"] == {"type": "Recreate"}
    for pod in (operator["template"]["spec"], *(pod["spec"] for pod in of_kind(objects, "Pod"))):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["enableServiceLinks"] is False
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"]
            assert not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]  # noqa: S108 - of the pod


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=IDS)
def test_the_operator_takes_its_settings(helm: Helm, tmp_path: Path, arguments: list[str | Path]) -> None:
    objects = helm.template(*arguments)
    operator = one(objects, "Deployment")
    maps = {found["metadata"]["name"]: found for found in of_kind(objects, "ConfigMap")}
    text = maps[operator["metadata"]["name"]]["data"]["settings.yaml"]
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    settings = load_settings(OperatorSettings, path)
    container = operator["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"metrics": settings.metrics.port}
    assert settings.metrics.host == "0.0.0.0"  # noqa: S104 - scraped and probed from outside
    annotations = operator["spec"]["template"]["metadata"]["annotations"]
    assert annotations["checksum/settings"] == hashlib.sha256(text.strip().encode()).hexdigest()


def test_default_settings_are_the_operators_own(helm: Helm) -> None:
    maps = {found["metadata"]["name"]: found for found in of_kind(helm.template(), "ConfigMap")}
    made = OperatorSettings.model_validate(yaml.safe_load(maps["dragon-operator"]["data"]["settings.yaml"]))
    own = OperatorSettings()
    assert made.images == own.images
    assert made.resync_seconds == own.resync_seconds
    assert made.max_status_writes_per_second == own.max_status_writes_per_second


def test_a_digest_wins_over_the_tag(helm: Helm) -> None:
    container = one(helm.template("--values", EVERYTHING), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"].startswith("registry.example.com/dragon/operator@sha256:")
    images = ("--set-string", "image.tag=7", "--set", "image.registry=")
    container = one(helm.template(*images), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "dragon-operator:7"


def test_the_settings_checksum_changes_with_them(helm: Helm) -> None:
    def checksum(*arguments: str) -> str:
        template = one(helm.template(*arguments), "Deployment")["spec"]["template"]
        found: str = template["metadata"]["annotations"]["checksum/settings"]
        return found

    assert checksum() == checksum("--set", "podLabels.a=b")
    assert checksum() != checksum("--set", "settings.resyncSeconds=5")


def test_definitions_are_those_of_the_project_and_stay(helm: Helm) -> None:
    wanted = [yaml.safe_load(path.read_text()) for path in CRDS]
    found = of_kind(helm.template(), "CustomResourceDefinition")
    assert [crd["spec"] for crd in found] == [crd["spec"] for crd in wanted]
    assert {crd["metadata"]["annotations"]["helm.sh/resource-policy"] for crd in found} == {"keep"}
    for path in CRDS:
        assert (CHART / "files" / "crds" / path.name).read_bytes() == path.read_bytes()
    assert {path.name for path in (CHART / "files" / "crds").iterdir()} == {path.name for path in CRDS}


def test_definitions_can_be_left_out_or_go_with_the_release(helm: Helm) -> None:
    assert not of_kind(helm.template("--set", "crds.install=false"), "CustomResourceDefinition")
    for crd in of_kind(helm.template("--set", "crds.keep=false"), "CustomResourceDefinition"):
        assert "annotations" not in crd["metadata"]


def test_extra_objects_are_templates(helm: Helm) -> None:
    names = {found["metadata"]["name"] for found in of_kind(helm.template("--values", EVERYTHING), "ConfigMap")}
    assert {"dragon-extra", "everything-text"} <= names


@pytest.mark.parametrize(
    ("release", "name"),
    [("dragon", "dragon-operator"), ("my-operator", "my-operator"), ("a" * 53, "a" * 41 + "-operator")],
)
def test_names_are_short_and_say_what_it_is(helm: Helm, release: str, name: str) -> None:
    text = helm.run("template", release, CHART, "--show-only", "templates/deployment.yaml")
    assert yaml.safe_load(text)["metadata"]["name"] == name


def test_generated_files_are_current() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "write_chart.py"), "--check"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_version_is_the_projects() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("version = "))
    assert project == f'version = "{chart["version"]}"'
    assert chart["appVersion"] == chart["version"]
    images = [*CHART.glob("values-*.yaml"), *(ROOT / "examples").glob("*"), *(ROOT / "packaging").glob("*.yaml")]
    for path in images:
        for line in path.read_text().splitlines():
            if "localhost/dragon-" in line:
                assert line.endswith(f":{chart['version']}"), f"{path}: {line}"
