"""Waiting for what another process does: a look now and then, and a deadline."""

import time
from collections.abc import Callable

WAIT_SECONDS = 90.0


def wait_until(is_so: Callable[[], bool], what: str, *, seconds: float = WAIT_SECONDS) -> None:
    """Return when it is so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"still not so: {what}"
        time.sleep(0.05)
