"""Writes docs/pictures/demo.svg: what a terminal shows when a question needs documents of both sides.

A local stack is started in a temporary folder; its commands and all that they print are what the picture shows.
"""

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ROOT / "dragon_cli" / "demo_documents"
PICTURE = ROOT / "docs" / "pictures" / "demo.svg"
COLUMNS = 100
QUESTION = "What is the name of my hotel in Lisbon, and what is the currency used in Lisbon?"
FRAME = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
    font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace;
    font-size: {char_height}px;
    line-height: {line_height}px;
}}
.{unique_id}-title {{ font-family: sans-serif; font-size: 18px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix" xml:space="preserve">
{matrix}
</g>
</g>
</svg>
"""
"""As rich has it, without fonts from elsewhere."""


def printed(folder: Path, *arguments: str) -> Text:
    """What `dragonctl` prints in a terminal."""
    shown = subprocess.run(
        [sys.executable, "-m", "dragon_cli.main", *arguments],
        env={
            **os.environ,
            "DRAGONCTL_FOLDER": str(folder),
            "COLUMNS": str(COLUMNS),
            "FORCE_COLOR": "1",
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return Text.from_ansi(shown.stdout.rstrip())


def prompted(command: str) -> Text:
    """A command as it was typed."""
    return Text.assemble(("$ ", "bold"), command)


def main() -> None:
    """Ask both sides, then the device alone."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False)
    with tempfile.TemporaryDirectory(prefix="dragon-picture-") as name:
        folder = Path(name)
        try:
            printed(folder, "up", "--rtt-ms", "100", "--public-documents", str(DOCUMENTS / "public"))
            printed(folder, "documents", "add", str(DOCUMENTS / "private"))
            console.print(prompted(f'dragonctl ask "{QUESTION}"'))
            console.print(printed(folder, "ask", QUESTION))
            console.print()
            console.print(prompted(f'dragonctl ask --edge-only "{QUESTION}"'))
            console.print(printed(folder, "ask", "--edge-only", QUESTION))
        finally:
            printed(folder, "down")
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(console.export_svg(title="dragonctl", code_format=FRAME, unique_id="demo"), encoding="utf-8")


if __name__ == "__main__":
    main()
