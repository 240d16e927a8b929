"""The cluster that DRAGON_E2E_KUBECONFIG leads to, and a namespace for each test."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_cluster.objects import Objects
from local_cluster.waiting import wait_until

VARIABLE = "DRAGON_E2E_KUBECONFIG"


@pytest.fixture(scope="session")
def kubeconfig() -> Path:
    """The administrator's kubeconfig file."""
    path = os.environ.get(VARIABLE)
    if not path:
        pytest.skip(f"{VARIABLE} is not set: `make cluster-test` makes a cluster and runs this in it")
    return Path(path)


@pytest.fixture(scope="session")
def objects(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Objects]:
    """The administrator's hands."""
    with Objects(kubeconfig, cache=tmp_path_factory.mktemp("discovery") / "cache.json") as found:
        yield found


@pytest.fixture
def namespace(objects: Objects) -> Iterator[str]:
    """A fresh namespace with its service account, deleted afterwards."""
    name = f"test-{secrets.token_hex(4)}"
    objects.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    wait_until(lambda: objects.get("v1", "ServiceAccount", "default", name) is not None, "it has a service account")
    yield name
    objects.delete("v1", "Namespace", name)
