"""Blocks of a page run in one shell and one Python, and a failure names the page's own line."""

import os
from pathlib import Path

import pytest

from tests.pages.page import Page, Run
from tests.pages.workspace import Workspace

SECONDS = 60
GOOD = """\
```sh run=stack
WORD=kept
echo "$HOME" > home.txt
export SEEN=exported
```

```python run=stack
import os

value = 6 * 7
print(os.environ["SEEN"])
```

```sh not-run="it fails"
false
```

```python run=stack
print(value)
```

```sh run=stack
echo "$WORD"
```
"""


def run(text: str, scratch: Path, *, seconds: float = SECONDS) -> str:
    page = Page("docs/x.md", text)
    workspace = Workspace.like_the_checkout(scratch)
    return workspace.run_blocks(page, page.blocks_run_by(Run.STACK), seconds=seconds)


def test_blocks_go_on_from_those_before(tmp_path: Path) -> None:
    printed = run(GOOD, tmp_path).splitlines()
    assert [line for line in printed if not line.startswith("===")] == ["exported", "42", "kept"]
    assert [line for line in printed if line.startswith("===")] == [
        f"=== at docs/x.md:{line}" for line in (1, 7, 18, 22)
    ]
    assert (tmp_path / "dragon" / "home.txt").read_text().strip() == str(tmp_path / "home")
    assert (tmp_path / "dragon" / "README.md").exists(), "it looks like the checkout"


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ("sh run=stack\ntrue\nfalse | true\necho on\n", "docs/x.md:3 ended with 1"),
        ("sh run=stack\ntrue\nno-such-command\n", "line 5: no-such-command"),
        ("sh run=stack\necho $UNSET\n", "UNSET: unbound variable"),
        ("python run=stack\nx = 1\nassert x == 2\n", 'File "docs/x.md", line 5'),
        ("python run=stack\nassert not 1\n", "docs/x.md:3 ended with 1"),
        ("sh run=stack\ncurl file:///nothing/there\n", "docs/x.md:3 ended with 37"),
    ],
)
def test_a_failure_names_page_and_line(tmp_path: Path, block: str, told: str) -> None:
    with pytest.raises(AssertionError) as caught:
        run(f"# Page\n\n```{block}```\n\n```sh run=stack\necho not reached\n```\n", tmp_path)
    assert told in str(caught.value)
    assert "not reached" not in str(caught.value)


def test_a_block_that_does_not_end_is_ended(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"docs/x\.md:1 took more than 3 s"):
        run("```sh run=stack\necho $$ > shell.txt\nread -r < <(tail -f /dev/null)\n```\n", tmp_path, seconds=3)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "dragon" / "shell.txt").read_text()), 0)
