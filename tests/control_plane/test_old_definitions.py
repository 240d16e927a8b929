"""Specs that only an older definition lets in: told on the resource, and nothing that runs is touched."""

from collections.abc import Iterator

import pytest

from dragon_operator.kube import Kube
from dragon_operator.wanted import names
from local_cluster.control_plane import ControlPlane
from tests.control_plane.deployments import apply_once_let_in, condition, older_definition_of, reconciler, resource
from tests.control_plane.running_operator import CRDS


@pytest.fixture
def older_definition(control_plane: ControlPlane, installed: None, namespace: str) -> Iterator[None]:
    """That of deployments, which does not know what `devices` may be."""
    control_plane.apply(older_definition_of("dragondeployments", "devices"))
    yield
    control_plane.objects.delete(names.API_VERSION, names.DEPLOYMENT_KIND, "helpdesk", namespace)
    control_plane.apply(CRDS / "dragondeployments.yaml")


@pytest.mark.usefixtures("older_definition")
async def test_a_spec_that_does_not_fit_is_told_once(control_plane: ControlPlane, kube: Kube, namespace: str) -> None:
    bad = resource(namespace, devices={"heartbeatSeconds": "often"})
    apply_once_let_in(control_plane.objects, bad)
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
