"""Waiting for what another process does: a look now and then, and a deadline."""

import time
from collections.abc import Callable

WAIT_SECONDS = 90.0


def wait_until(is_so: Callable[[], bool], what: str, *, seconds: float = WAIT_SECONDS) -> None:
    """Return when it is so.

    Raises:
        TimeoutError: it was not so in `seconds`; names `what`.
    """
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() >= deadline:
            raise TimeoutError(f"still not so after {seconds:g} s: {what}")
        time.sleep(0.05)
