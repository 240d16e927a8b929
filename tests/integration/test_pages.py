"""The commands of the documentation do what the pages say, against a local stack and in this checkout."""

from pathlib import Path

import pytest

from tests.pages.local_stack import run_page
from tests.pages.page import Page, Run, pages_run_by
from tests.pages.workspace import Workspace

SECONDS = 150.0
pytestmark = [pytest.mark.integration, pytest.mark.timeout(3 * SECONDS)]


def runs(*wanted: Run) -> list[object]:
    """Each page once for each of these marks that it has."""
    return [pytest.param(page, run, id=f"{page}-{run}") for run in wanted for page in pages_run_by(run)]


@pytest.mark.parametrize(("page", "run"), runs(Run.STACK, Run.CHECK))
def test_blocks_run_as_they_are_written(page: Page, run: Run, tmp_path: Path) -> None:
    if run is Run.CHECK:
        Workspace.in_the_checkout(tmp_path).run_blocks(page, page.blocks_run_by(run), seconds=SECONDS)
    else:
        run_page(page, run, tmp_path, "--rtt-ms", "60", seconds=SECONDS)
