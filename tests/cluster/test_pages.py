"""The commands of the documentation do what the pages say, in order, in a cluster that has the images and no more."""

import os
from pathlib import Path

import pytest

from local_cluster.tools import tools
from tests.pages.page import Page, Run, pages_run_by
from tests.pages.workspace import Workspace

SECONDS = 2400.0
pytestmark = pytest.mark.timeout(SECONDS + 600)

CLEAN = """
kubectl delete namespace support --ignore-not-found --timeout=5m
helm uninstall dragon --namespace dragon-system --ignore-not-found --wait
kubectl delete namespace dragon-system --ignore-not-found --timeout=5m
"""
"""Takes away what other tests, or a page before, left."""


@pytest.fixture
def workspace(kubeconfig: Path, tmp_path: Path) -> Workspace:
    """In the cluster's network, with `kubectl`, `helm` and the administrator's rights."""
    plain = Workspace.like_the_checkout(tmp_path, KUBECONFIG=str(kubeconfig))
    path = os.pathsep.join([str(tools("chart")), plain.environment["PATH"]])
    return Workspace(plain.folder, plain.scratch, {**plain.environment, "PATH": path})


@pytest.mark.parametrize("page", pages_run_by(Run.CLUSTER), ids=str)
def test_blocks_run_in_a_cluster(page: Page, workspace: Workspace) -> None:
    workspace.run("clean", CLEAN, seconds=600)
    try:
        workspace.run_blocks(page, page.blocks_run_by(Run.CLUSTER), seconds=SECONDS)
    finally:
        workspace.run("clean", CLEAN, seconds=600)
