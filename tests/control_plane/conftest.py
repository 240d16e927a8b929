"""One control plane for all tests, and a namespace for each."""

import secrets
from collections.abc import AsyncGenerator, Iterator

import pytest

from dragon_operator.kube import Kube, connected
from local_cluster.control_plane import ControlPlane
from local_cluster.waiting import wait_until
from tests.control_plane.deployments import WRITES_PER_SECOND
from tests.control_plane.running_operator import CRDS


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A running control plane."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as running:
        yield running


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A fresh namespace with its service account, deleted afterwards."""
    name = f"test-{secrets.token_hex(4)}"
    objects = control_plane.objects
    objects.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    wait_until(lambda: objects.get("v1", "ServiceAccount", "default", name) is not None, "it has a service account")
    yield name
    objects.delete("v1", "Namespace", name)


@pytest.fixture(scope="session")
def installed(control_plane: ControlPlane) -> None:
    """The definitions of our resources."""
    for path in sorted(CRDS.glob("*.yaml")):
        control_plane.apply(path)


@pytest.fixture
async def kube(control_plane: ControlPlane, installed: None) -> AsyncGenerator[Kube, None]:
    """The operator's hands."""
    async with connected(str(control_plane.kubeconfig), max_writes_per_second=WRITES_PER_SECOND) as client:
        yield client
