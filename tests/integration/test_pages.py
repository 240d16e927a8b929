"""The commands of the documentation do what the pages say, against a local stack and in this checkout."""

from pathlib import Path

import pytest

from tests.pages.local_stack import run_page
from tests.pages.page import Page, Run, pages_run_by
from tests.pages.workspace import Workspace

SECONDS = 150.0
pytestmark = [pytest.mark.integration, pytest.mark.timeout(3 * SECONDS)]


@pytest.mark.parametrize("page", pages_run_by(Run.STACK), ids=str)
def test_blocks_run_on_a_local_stack(page: Page, tmp_path: Path) -> None:
    run_page(page, Run.STACK, tmp_path, "--rtt-ms", "60", seconds=SECONDS)


@pytest.mark.parametrize("page", pages_run_by(Run.CHECK), ids=str)
def test_blocks_run_in_the_checkout(page: Page, tmp_path: Path) -> None:
    Workspace.in_the_checkout(tmp_path).run_blocks(page, page.blocks_run_by(Run.CHECK), seconds=SECONDS)
