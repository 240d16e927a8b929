"""The commands of the documentation do what the pages say, with the cloud's models on Triton."""

from pathlib import Path

import pytest

from tests.pages.local_stack import run_page
from tests.pages.page import Page, Run, pages_run_by

SECONDS = 400.0
pytestmark = [pytest.mark.integration, pytest.mark.timeout(3 * SECONDS)]


@pytest.mark.parametrize("page", pages_run_by(Run.TRITON), ids=str)
def test_blocks_run_on_a_stack_with_triton(page: Page, tmp_path: Path) -> None:
    run_page(page, Run.TRITON, tmp_path, "--engine", "triton", seconds=SECONDS)
