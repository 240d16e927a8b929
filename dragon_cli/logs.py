"""The last lines of log files, and new lines as they are written."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

BLOCK_BYTES = 64 * 1024
POLL_SECONDS = 0.2


def last_lines(path: Path, num_lines: int) -> list[str]:
    """The last lines of a file, without reading the rest of the file."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        content = b""
        while end > 0 and content.count(b"\n") <= num_lines:
            start = max(0, end - BLOCK_BYTES)
            file.seek(start)
            content = file.read(end - start) + content
            end = start
    lines = content.decode("utf-8", "replace").splitlines()
    return lines[max(0, len(lines) - num_lines) :]


def follow(paths: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """(name, line) for every line written from now on; never ends."""
    files: dict[str, BinaryIO] = {name: path.open("rb") for name, path in paths.items()}
    for file in files.values():
        file.seek(0, os.SEEK_END)
    return _new_lines(files)


def _new_lines(files: Mapping[str, BinaryIO]) -> Iterator[tuple[str, str]]:
    partial = dict.fromkeys(files, b"")
    try:
        while True:
            for name, file in files.items():
                *lines, partial[name] = (partial[name] + file.read()).split(b"\n")
                for line in lines:
                    yield name, line.decode("utf-8", "replace")
            time.sleep(POLL_SECONDS)
    finally:
        for file in files.values():
            file.close()
