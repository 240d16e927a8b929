"""Specs that only an older definition lets in: told on the resource, and nothing that runs is touched."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiException

from dragon_operator import names
from dragon_operator.kube import Kube
from tests.control_plane.deployments import condition, reconciler, resource
from tests.control_plane.running_operator import CRDS
from tests.kubernetes_cluster.control_plane import ControlPlane
from tests.waiting import wait_until


def without_schema_of(definition: dict[str, Any], field: str) -> dict[str, Any]:
    """A definition that takes anything there."""
    loose = copy.deepcopy(definition)
    spec = loose["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    spec[field] = {"description": spec[field]["description"], "x-kubernetes-preserve-unknown-fields": True}
    return loose


@pytest.fixture
def older_definition(control_plane: ControlPlane, installed: None, namespace: str) -> Iterator[None]:
    """That of deployments, which does not know what `devices` may be."""
    definition = yaml.safe_load((CRDS / "dragondeployments.yaml").read_text())
    control_plane.apply(without_schema_of(definition, "devices"))
    yield
    control_plane.objects.delete(names.API_VERSION, names.DEPLOYMENT_KIND, "helpdesk", namespace)
    control_plane.apply(definition)


@pytest.mark.usefixtures("older_definition")
async def test_a_spec_that_does_not_fit_is_told_once(control_plane: ControlPlane, kube: Kube, namespace: str) -> None:
    bad = resource(namespace, devices={"heartbeatSeconds": "often"})

    def is_let_in() -> bool:
        try:
            control_plane.apply(bad)
        except ApiException:  # the API server has not heard of the older definition yet
            return False
        return True

    wait_until(is_let_in, "it is let in", seconds=30)
    await reconciler(kube).reconcile(namespace, "helpdesk")
    found = condition(control_plane.objects, namespace, "Ready")
    assert (found["status"], found["reason"]) == ("False", "InvalidSpec")
    assert "heartbeatSeconds" in found["message"]
    assert await kube.list("Deployment", namespace) == []

    def version() -> str:
        obj = control_plane.objects.get(names.API_VERSION, names.DEPLOYMENT_KIND, "helpdesk", namespace)
        assert obj is not None
        return str(obj["metadata"]["resourceVersion"])

    before = version()
    await reconciler(kube).reconcile(namespace, "helpdesk")
    assert version() == before
