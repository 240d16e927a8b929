"""Runs the blocks of a page in one bash, in a folder and a home of their own.

The script that bash gets has every line where the page has it, so that its messages name the page's own lines.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.pages.page import ROOT, Block, Page

SESSION = Path(__file__).with_name("python_session.py")
AT = "=== at "
"""Before the place of a block, in the output."""
LEFT_OUT = ("DRAGON_", "XDG_")
"""Variables that would lead out of the home, or change the settings of what is started."""
LEFT_OUT_TOO = frozenset({"DRAGONCTL_FOLDER", "DRAGONCTL_URL", "DRAGONCTL_API_KEY_FILE", "KUBECONFIG"})
NOT_SHOWN = frozenset({".git", "build"})
"""Of the checkout: what a block may change."""
SESSION_STARTS = (
    f'[ -n "${{PYTHON_PID-}}" ] || coproc PYTHON {{ exec python -u {shlex.quote(str(SESSION))}; }}; python=$PYTHON_PID'
)
TO_THE_SESSION = '>&"${PYTHON[1]}"; read -r <&"${PYTHON[0]}" || wait "$python"'
"""A session that fails has said so; its exit code becomes the script's."""
CURL_OPTIONS = "silent\nshow-error\nfail-with-body\n"
"""A request that is refused fails its block."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where blocks run: a folder, what they have as environment, and a scratch folder that is ours."""

    folder: Path
    scratch: Path
    environment: dict[str, str]

    @classmethod
    def in_the_checkout(cls, scratch: Path, **more: str) -> "Workspace":
        """In the checkout itself, for commands that look after it."""
        return cls(ROOT, scratch, _environment(scratch, more))

    @classmethod
    def like_the_checkout(cls, scratch: Path, **more: str) -> "Workspace":
        """In a folder that has what the checkout has, and keeps what blocks write."""
        folder = scratch / "dragon"
        folder.mkdir()
        for path in ROOT.iterdir():
            if path.name not in NOT_SHOWN:
                (folder / path.name).symlink_to(path)
        return cls(folder, scratch, _environment(scratch, more))

    def run_blocks(self, page: Page, blocks: Sequence[Block], *, seconds: float) -> str:
        """Run them in order; returns what they print.

        Raises:
            AssertionError: one failed, or all took too long; says which, where it is, and what they printed.
        """
        return self.run(page.name, script_of(page, blocks, self.scratch), seconds=seconds)

    def run(self, name: str, script: str, *, seconds: float) -> str:
        """Run a script that says with `AT` where it is; returns what it prints.

        Raises:
            AssertionError: as above.
        """
        path = self.scratch / f"{Path(name).stem}.sh"
        path.write_text(script)
        log = self.scratch / f"{Path(name).stem}.log"
        with log.open("wb") as output:
            shell = subprocess.Popen(
                ["bash", "-euo", "pipefail", str(path)],
                cwd=self.folder,
                env={**self.environment, "PWD": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                end = f"ended with {shell.wait(seconds)}"
            except subprocess.TimeoutExpired:
                end = f"took more than {seconds:.0f} s"
            finally:  # what blocks left in the background goes with their shell
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(shell.pid, signal.SIGTERM)
                shell.wait()
        printed = log.read_text(errors="replace")
        places = [line.removeprefix(AT) for line in printed.splitlines() if line.startswith(AT)]
        assert end == "ended with 0", f"{places[-1] if places else name} {end}:\n{printed}"
        return printed


def _environment(scratch: Path, more: Mapping[str, str]) -> dict[str, str]:
    """That of these tests with the console scripts on the path and a home of its own."""
    home = scratch / "home"
    home.mkdir()
    (home / ".curlrc").write_text(CURL_OPTIONS)
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(LEFT_OUT) and name not in LEFT_OUT_TOO
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    # What `make setup` built once is not built again for a home of its own.
    cache = os.environ.get("DRAGON_CACHE") or str(
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dragon"
    )
    return {**kept, "HOME": str(home), "DRAGON_CACHE": cache, "PATH": path, "COLUMNS": "100", **more}


def script_of(page: Page, blocks: Sequence[Block], scratch: Path) -> str:
    """The page with nothing but these blocks; the line of an opening fence says where the script is."""
    lines = [""] * len(page.text.splitlines())
    for block in blocks:
        say = f"printf '%s\\n' {shlex.quote(AT + block.place)}"
        if block.language == "python":
            file = scratch / f"{Path(page.name).stem}-{block.line}.py"
            file.write_text("\n" * block.line + block.text, encoding="utf-8")
            content = [f"printf '%s\\t%s\\n' {shlex.quote(str(file))} {page.name} {TO_THE_SESSION}"]
            say = f"{say}; {SESSION_STARTS}"
        else:
            content = block.text.splitlines()
        lines[block.line - 1] = say
        lines[block.line : block.line + len(content)] = content
    return "\n".join(lines) + "\n"
