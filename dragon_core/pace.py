"""How far and how eagerly a peer drafts ahead: from its hits, its waits, and the round trip."""

import math

SMOOTHING = 0.1
PRIOR_HIT_RATE = 0.8
WINDOW_SLACK = 2
"""Frames past one round trip: one being made at each end."""


class Pace:
    """Smoothed over the positions of one answer. `window` is the most that may be published past the last target."""

    def __init__(self, *, window: int, decode_seconds: float) -> None:
        self._window = window
        self._decode_seconds = decode_seconds
        self._hit_rate = PRIOR_HIT_RATE
        self._wait_seconds: float | None = None

    def note(self, *, is_hit: bool, waited_seconds: float) -> None:
        """A target came so long after our frame was made."""
        self._hit_rate += SMOOTHING * (is_hit - self._hit_rate)
        if self._wait_seconds is None:
            self._wait_seconds = waited_seconds
        else:
            self._wait_seconds += SMOOTHING * (waited_seconds - self._wait_seconds)

    def window(self, rtt_seconds: float | None) -> int:
        """Positions worth drafting past the last target."""
        if rtt_seconds is None or self._decode_seconds <= 0:
            return self._window
        return min(self._window, math.ceil(rtt_seconds / self._decode_seconds) + WINDOW_SLACK)

    def patience_seconds(self) -> float:
        """How long to wait for the target before guessing: a wrong guess costs a step, a late one the wait."""
        cost = (1.0 - self._hit_rate) * self._decode_seconds
        return cost if self._wait_seconds is not None and self._wait_seconds <= cost else 0.0
