"""A container's last words: where Kubernetes looks for the reason why a container ended."""

import contextlib
import os
from pathlib import Path

TERMINATION_LOG = Path("/dev/termination-log")
MAX_BYTES = 4096
"""Kubernetes keeps no more."""


def leave_word(text: str, path: Path = TERMINATION_LOG) -> None:
    """Write `text` where there is such a file. Without one, or when it cannot be written, nothing happens."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode()[:MAX_BYTES])
        finally:
            os.close(descriptor)
