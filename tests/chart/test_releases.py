"""The chart in a real API server: install, upgrade, test, uninstall, install again. No pod starts: there is no node."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dragon_operator.wanted import names
from local_cluster.control_plane import ControlPlane
from local_cluster.waiting import wait_until
from tests.chart.helm import CHART, EVERYTHING, NAMESPACE, RELEASE, ROOT, Helm

pytestmark = pytest.mark.timeout(600)

CRD = ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "dragondeployments.dragon-rag.io")
OPERATOR = ("apps/v1", "Deployment", "dragon-operator", NAMESPACE)
EXAMPLE = ROOT / "examples" / "deployment-cpu.yaml"
TEST = "dragon-operator-test"
IN_NAMESPACE = ("--namespace", NAMESPACE)


@pytest.fixture
def release(control_plane: ControlPlane, programs: Path, tmp_path: Path) -> Iterator[Helm]:
    """helm with the cluster; the release is gone afterwards, and so are the definitions."""
    helm = Helm(programs / "helm", tmp_path / "helm", kubeconfig=control_plane.kubeconfig)
    yield helm
    helm.start("uninstall", RELEASE, *IN_NAMESPACE, "--ignore-not-found", "--wait").communicate(timeout=120)
    for crd in control_plane.objects.find(*CRD[:2]):
        control_plane.objects.delete(*CRD[:2], crd["metadata"]["name"])
    wait_until(lambda: not control_plane.objects.find(*CRD[:2]), "no definitions are left")


def install(helm: Helm, chart: Path = CHART, *arguments: str | Path) -> str:
    return helm.run("install", RELEASE, chart, *IN_NAMESPACE, "--create-namespace", *arguments)


def apply_example(control_plane: ControlPlane, namespace: str = "default") -> None:
    control_plane.apply(EXAMPLE, namespace=namespace)


def has_example(control_plane: ControlPlane, namespace: str = "default") -> bool:
    found = control_plane.objects.get(names.API_VERSION, names.DEPLOYMENT_KIND, "helpdesk", namespace)
    return found is not None and found["spec"]["model"]["uri"] == "pvc://models/model.gguf"


def older_chart(helm: Helm, folder: Path) -> Path:
    """The chart as version 0.0.9, with definitions that lack a field and a setting that is gone."""
    copy = folder / "older"
    shutil.copytree(CHART, copy)
    about = yaml.safe_load((copy / "Chart.yaml").read_text())
    (copy / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": "0.0.9", "appVersion": "0.0.9"}))
    path = copy / "files" / "crds" / "dragondeployments.yaml"
    crd = yaml.safe_load(path.read_text())
    del crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["suspend"]
    path.write_text(yaml.safe_dump(crd))
    helm.run("package", copy, "--destination", folder)
    return folder / "dragon-0.0.9.tgz"


def test_install_says_what_to_do_next(control_plane: ControlPlane, release: Helm) -> None:
    notes = install(release)
    assert "kubectl -n dragon-system rollout status deployment/dragon-operator" in notes
    assert "wait --for=condition=Ready" in notes
    wait_until(lambda: control_plane.objects.get(*OPERATOR) is not None, "the operator's Deployment exists")
    first = notes.split("apply -f - <<END")[1].split("END")[0]
    control_plane.apply(yaml.safe_load(first), namespace="default")
    assert has_example(control_plane)


@pytest.mark.parametrize("path", [*sorted((ROOT / "examples").iterdir()), ROOT / "packaging" / "edge-daemonset.yaml"])
def test_examples_are_accepted(control_plane: ControlPlane, release: Helm, path: Path) -> None:
    install(release)
    for wanted in yaml.safe_load_all(path.read_text()):
        (made,) = control_plane.apply(wanted, namespace=wanted["metadata"].get("namespace", "default"))
        assert made["kind"] == wanted["kind"]


def test_everything_is_accepted(control_plane: ControlPlane, release: Helm) -> None:
    for name in ("one", "two"):
        control_plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    off = [f"metrics.{kind}.enabled=false" for kind in ("serviceMonitor", "podMonitor")] + [
        "prometheusRule.enabled=false"
    ]
    without = [argument for setting in off for argument in ("--set", setting)]
    install(release, CHART, "--values", EVERYTHING, *without)
    operator = control_plane.objects.get("apps/v1", "Deployment", "everything", NAMESPACE)
    assert operator is not None


def test_upgrade_brings_definitions_and_keeps_resources(
    control_plane: ControlPlane, release: Helm, tmp_path: Path
) -> None:
    install(release, older_chart(release, tmp_path))
    apply_example(control_plane)
    uid = control_plane.objects.get(names.API_VERSION, names.DEPLOYMENT_KIND, "helpdesk", "default")
    release.run("upgrade", RELEASE, CHART, *IN_NAMESPACE, "--set", "settings.resyncSeconds=30")
    after = control_plane.objects.get(names.API_VERSION, names.DEPLOYMENT_KIND, "helpdesk", "default")
    assert uid is not None
    assert after is not None
    assert after["metadata"]["uid"] == uid["metadata"]["uid"]
    crd = control_plane.objects.get(*CRD)
    assert crd is not None
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert "suspend" in spec
    operator = control_plane.objects.get(*OPERATOR)
    assert operator is not None
    (container,) = operator["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "localhost/dragon-operator:0.1.0"
    release.run("rollback", RELEASE, "1", *IN_NAMESPACE)
    assert has_example(control_plane)


def test_uninstall_leaves_resources_and_reinstall_takes_them_over(control_plane: ControlPlane, release: Helm) -> None:
    install(release)
    apply_example(control_plane)
    said = release.run("uninstall", RELEASE, *IN_NAMESPACE, "--wait")
    assert "dragondeployments.dragon-rag.io" in said
    assert has_example(control_plane)
    assert control_plane.objects.get(*OPERATOR) is None
    install(release)
    assert has_example(control_plane)
    assert control_plane.objects.get(*OPERATOR) is not None


def test_definitions_go_with_the_release_when_asked(control_plane: ControlPlane, release: Helm) -> None:
    install(release, CHART, "--set", "crds.keep=false")
    release.run("uninstall", RELEASE, *IN_NAMESPACE, "--wait")
    wait_until(lambda: control_plane.objects.get(*CRD) is None, "the definitions are gone")


@pytest.mark.parametrize("is_cluster_wide", [True, False])
def test_the_account_may_do_what_it_is_for(
    control_plane: ControlPlane, release: Helm, programs: Path, *, is_cluster_wide: bool
) -> None:
    for name in ("watched", "other"):
        control_plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    install(release, CHART, *([] if is_cluster_wide else ["--set", "watchNamespaces={watched}"]))

    def may(verb: str, resource: str, namespace: str, *more: str) -> bool:
        account = f"--as=system:serviceaccount:{NAMESPACE}:dragon-operator"
        asked = ["auth", "can-i", verb, resource, *more, "--namespace", namespace, account]
        command = [str(programs / "kubectl"), f"--kubeconfig={control_plane.kubeconfig}", *asked]
        answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        assert answer in {"yes", "no"}
        return answer == "yes"

    assert may("create", "secrets", "watched")
    assert may("patch", "dragondeployments.dragon-rag.io", "watched", "--subresource=status")
    assert may("update", "leases.coordination.k8s.io", NAMESPACE)
    assert may("list", "dragondeployments.dragon-rag.io", "other") is is_cluster_wide
    assert may("create", "secrets", "other") is is_cluster_wide
    assert not may("create", "pods", "watched", "--subresource=exec")
    assert not may("create", "clusterroles.rbac.authorization.k8s.io", "watched")
    assert not may("update", "leases.coordination.k8s.io", "other")


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_the_test_cleans_up(control_plane: ControlPlane, release: Helm, phase: str) -> None:
    install(release)
    testing = release.start("test", RELEASE, *IN_NAMESPACE, "--timeout", "90s")
    objects = control_plane.objects
    wait_until(lambda: objects.get("v1", "Pod", TEST, NAMESPACE) is not None, "the test's pod exists")
    device = objects.get(names.API_VERSION, names.DEVICE_KIND, TEST, NAMESPACE)
    assert device is not None
    assert device["spec"]["deployment"] == "helpdesk"
    pod = objects.get("v1", "Pod", TEST, NAMESPACE)
    assert pod is not None
    (join,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "join"]
    assert join["secret"]["secretName"] == names.join_secret(TEST)
    objects.write_status("v1", "Pod", TEST, NAMESPACE, {"phase": phase})
    said, _ = testing.communicate(timeout=90)
    assert (testing.returncode == 0) is (phase == "Succeeded"), said
    assert objects.get(names.API_VERSION, names.DEVICE_KIND, TEST, NAMESPACE) is None, said
    assert objects.get("v1", "ConfigMap", TEST, NAMESPACE) is None
    is_there = objects.get("v1", "Pod", TEST, NAMESPACE) is not None
    assert is_there is (phase == "Failed"), "the pod of a failed test stays, for its log"
    if is_there:
        objects.core.delete_namespaced_pod(TEST, NAMESPACE, grace_period_seconds=0)


def test_manifest_of_the_release_is_small(release: Helm) -> None:
    """A release is kept in one Secret, which the API server limits to a mebibyte."""
    text = release.run("template", RELEASE, CHART, "--values", EVERYTHING)
    assert len(json.dumps(text)) < 512 * 1024
