"""Every block of the documentation is marked with what runs it, every link leads somewhere, and lines are short."""

import re
import shlex
import subprocess
import sys
from pathlib import PurePosixPath

import pytest

from tests.pages.page import COMMAND_LANGUAGES, ROOT, Block, Page, Run, all_pages

PAGES = all_pages()
BY_NAME = {page.name: page for page in PAGES}
MAX_COLUMNS = 100
OTHER_NAMES = frozenset({"bash", "shell", "console", "zsh", "py", "python3", "pycon"})
"""Of languages that are called `sh` and `python` here."""
REASON = re.compile(r"not-run=\S.*")
TARGETS = frozenset(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
WIDE_PAGES = frozenset({"docs/structures.md"})
"""Pages with longer lines, until they are wrapped."""


def problem_of(block: Block) -> str | None:
    """What is wrong with a block's mark."""
    if not block.is_fenced:
        return "it is indented: fence it, and name its language"
    if not block.language:
        return "it has no language: `sh`, `python`, or `text` where there is nothing to run"
    if block.language in OTHER_NAMES:
        return f"its language is {block.language}: write `sh` or `python`"
    if block.language not in COMMAND_LANGUAGES:
        return f"{block.language} is not run: it has no mark" if block.marks else None
    if len(block.marks) != 1:
        return f"it has {len(block.marks)} marks instead of one"
    if block.run is None and not REASON.fullmatch(block.marks[0]):
        return f"there is no mark {block.marks[0]}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_block_is_marked_with_what_runs_it(page: Page) -> None:
    problems = [f"{block.place}: {problem}" for block in page.blocks if (problem := problem_of(block))]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_target_that_a_page_names_exists(page: Page) -> None:
    for block in page.blocks_run_by(Run.MAKE):
        for line in block.text.splitlines():
            words = [word for word in shlex.split(line, comments=True) if "=" not in word]
            assert not words or words[0] == "make", f"{block.place}: {line}"
            assert set(words[1:]) <= TARGETS, f"{block.place}: {line}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_benchmark_knows_its_options(page: Page) -> None:
    for block in page.blocks_run_by(Run.BENCH):
        for line in filter(None, (shlex.split(line, comments=True) for line in block.text.splitlines())):
            assert line[:2] == ["python", "-m"], f"{block.place}: {line}"
            command = [sys.executable, *line[1:], "--help"]
            told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert told.returncode == 0, f"{block.place}: {told.stderr}"
            for word in line[3:]:
                if word.startswith("--"):
                    assert word.partition("=")[0] in told.stdout, f"{block.place}: there is no {word}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_leads_somewhere(page: Page) -> None:
    for link in page.links:
        if re.match(r"[a-z]+:", link.target):
            continue
        path, _, anchor = link.target.partition("#")
        target = (ROOT / PurePosixPath(page.name).parent / path).resolve() if path else ROOT / page.name
        assert target.is_relative_to(ROOT), f"{page}:{link.line}: {link.target}"
        assert target.exists(), f"{page}:{link.line}: there is no {link.target}"
        if anchor:
            anchors = Page.read(target).anchors
            assert anchor in anchors, f"{page}:{link.line}: {path or page} has no heading #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_lines_of_prose_are_short(page: Page) -> None:
    wide = [number for number, line in page.prose() if len(line) > MAX_COLUMNS]
    if page.name in WIDE_PAGES:
        assert wide, f"{page} is wrapped: take it from the list"
    else:
        assert not wide, f"{page} has more than {MAX_COLUMNS} columns in these lines"


TEXT = """\
# One *page* with `code`

```sh run=stack
make demo
```

- A list:

  ```python not-run="it waits"
  wait()
  ```

Words [there](#one-page-with-code).

    indented

```bash
x
```

## Again?
## Again
"""


def test_a_page_is_read_as_it_is_meant() -> None:
    page = Page("docs/x.md", TEXT)
    assert [(block.place, block.language, block.run, block.text) for block in page.blocks] == [
        ("docs/x.md:3", "sh", Run.STACK, "make demo\n"),
        ("docs/x.md:9", "python", None, "wait()\n"),
        ("docs/x.md:15", "", None, "indented\n"),
        ("docs/x.md:17", "bash", None, "x\n"),
    ]
    assert [problem_of(block) is None for block in page.blocks] == [True, True, False, False]
    assert page.anchors == {"one-page-with-code", "again", "again-1"}
    assert [(link.line, link.target) for link in page.links] == [(13, "#one-page-with-code")]
    assert {number for number, line in page.prose() if line} == {1, 7, 13, 21, 22}


@pytest.mark.parametrize(
    "info", ["sh", "sh run=stack run=make", "sh run=nothing", 'python not-run=""', "text run=make"]
)
def test_a_bad_mark_is_found(info: str) -> None:
    (block,) = Page("docs/x.md", f"```{info}\nx\n```\n").blocks
    assert problem_of(block)
