"""When to connect again: later after every connection that did not last, at once after one that did."""

import random

FIRST_SECONDS = 0.2
MAX_SECONDS = 10.0
LASTING_SECONDS = 30.0
"""A connection that was there for so long was a good one. Well above the longest delay: two clients of one identity end
each other's connection whenever one of them comes back, and none of these counts as good.
"""


class Retries:
    """The delays before one client's connects."""

    def __init__(self) -> None:
        self._seconds = FIRST_SECONDS

    def next_delay(self, lasted_seconds: float) -> float:
        """Seconds to wait now; the last connection was there for `lasted_seconds`, 0 if it was not made."""
        if lasted_seconds >= LASTING_SECONDS:
            self._seconds = FIRST_SECONDS
        # Drawn, so that those who lost one broker do not come back together.
        delay = self._seconds * random.uniform(0.5, 1.0)
        self._seconds = min(MAX_SECONDS, 2 * self._seconds)
        return delay
