"""Reads a page: code blocks with their marks, headings, links and lines of prose. Runs nothing."""

import enum
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
COMMAND_LANGUAGES = frozenset({"sh", "python"})
"""Languages of blocks that a reader runs."""


class Run(enum.StrEnum):
    """What runs a block, or looks at it."""

    STACK = "stack"
    """tests/integration, against a local stack."""
    TRITON = "triton"
    """tests/triton, against a local stack with a Triton server."""
    CLUSTER = "cluster"
    """tests/cluster, in a cluster without a deployment."""
    BENCH = "bench"
    """tests/unit looks whether the commands know their options."""
    MAKE = "make"
    """tests/unit looks whether the targets exist."""
    CHECK = "check"
    """tests/integration, in the checkout itself."""


@dataclass(frozen=True, slots=True)
class Block:
    """A code block. `line` is that of its opening fence, from 1; an indented one has no fence and no language."""

    page: str
    line: int
    language: str
    marks: tuple[str, ...]
    text: str
    is_fenced: bool

    @property
    def place(self) -> str:
        """Where to look."""
        return f"{self.page}:{self.line}"

    @property
    def run(self) -> Run | None:
        """What runs it; None for one that is not run, or has no mark that is known."""
        return next((run for run in Run if f"run={run}" in self.marks), None)


@dataclass(frozen=True, slots=True)
class Link:
    """A link or picture. `target` is as the page has it."""

    line: int
    target: str


@dataclass(frozen=True)
class Page:
    """A page of the documentation; `name` is its path from the root of the checkout."""

    name: str
    text: str

    @classmethod
    def read(cls, path: Path) -> "Page":
        """The page in a file of this checkout."""
        return cls(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))

    def __str__(self) -> str:
        return self.name

    @cached_property
    def _tokens(self) -> list[Token]:
        return MarkdownIt("commonmark").enable("table").parse(self.text)

    @cached_property
    def blocks(self) -> list[Block]:
        """Every code block, in order."""
        found = []
        for token in self._tokens:
            if token.type in {"fence", "code_block"} and token.map is not None:
                language, *marks = shlex.split(token.info) or [""]
                line = token.map[0] + 1
                found.append(Block(self.name, line, language, tuple(marks), token.content, token.type == "fence"))
        return found

    def blocks_run_by(self, run: Run) -> list[Block]:
        """The blocks with this mark, in order."""
        return [block for block in self.blocks if block.run is run]

    @cached_property
    def links(self) -> list[Link]:
        """Every link and picture."""
        found = []
        for token in self._tokens:
            for child in token.children or ():
                target = child.attrGet("href") or child.attrGet("src")
                if target and token.map is not None:
                    found.append(Link(token.map[0] + 1, str(target)))
        return found

    @cached_property
    def anchors(self) -> frozenset[str]:
        """What a link to a heading may name, by GitHub's rule."""
        found: dict[str, int] = {}
        anchors = set()
        for token, text in zip(self._tokens, self._tokens[1:], strict=False):
            if token.type == "heading_open":
                words = "".join(child.content for child in text.children or ())
                anchor = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
                count = found[anchor] = found.get(anchor, -1) + 1
                anchors.add(f"{anchor}-{count}" if count else anchor)
        return frozenset(anchors)

    def prose(self) -> Iterator[tuple[int, str]]:
        """Every line outside of code and tables, with its number."""
        others: set[int] = set()
        for token in self._tokens:
            if token.type in {"fence", "code_block", "table_open"} and token.map is not None:
                others.update(range(*token.map))
        for index, line in enumerate(self.text.splitlines()):
            if index not in others:
                yield index + 1, line


def all_pages() -> list[Page]:
    """README, CONTRIBUTING and every page of docs/."""
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [Page.read(path) for path in paths if path.exists()]


def pages_run_by(run: Run) -> list[Page]:
    """The pages that have blocks with this mark."""
    return [page for page in all_pages() if page.blocks_run_by(run)]
