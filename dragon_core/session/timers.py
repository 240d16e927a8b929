"""When an end wants to be looked at again, and why. Due timers act in the order of their priority."""

import enum
import math
from collections.abc import Iterator


class Timer(enum.IntEnum):
    """What an end waits for, the most important first: what ends a session comes before what goes on with it."""

    DEADLINE = enum.auto()
    """The answer may not take longer."""
    IDLE = enum.auto()
    """Nothing was heard from the opener."""
    FINISH = enum.auto()
    """The other end's Finish is waited for no longer."""
    ACCEPT = enum.auto()
    """No replica has taken the session."""
    PREFILL = enum.auto()
    """The replica is not ready."""
    STALL = enum.auto()
    """Nothing was fixed for too long."""
    NUDGE = enum.auto()
    """What we sent last may be lost."""
    RETRY = enum.auto()
    """Alone: ask for a replica again."""
    MIX = enum.auto()
    """The other's frames are waited for no longer."""
    DRAFT = enum.auto()
    """Guessing is worth more than waiting by now."""
    SETTLE = enum.auto()
    """More can be fixed than is fixed in one go."""


class Timers:
    """Times of our own clock in seconds, at most one per purpose."""

    def __init__(self) -> None:
        self._times: dict[Timer, float] = {}

    @property
    def next_at(self) -> float | None:
        """When the first of them is due; None without any."""
        return min(self._times.values(), default=None)

    def set(self, timer: Timer, at: float | None) -> None:
        """Be told at this time, in place of any set before; None: not at all."""
        if at is None:
            self.stop(timer)
        else:
            self._times[timer] = at

    def stop(self, *timers: Timer) -> None:
        """Be told no longer."""
        for timer in timers:
            self._times.pop(timer, None)

    def stop_all(self) -> None:
        """The session is over."""
        self._times.clear()

    def take_due(self, now: float) -> Iterator[Timer]:
        """Those that are due now, by priority, each taken as it is reached: one may stop or set others."""
        for timer in sorted(timer for timer, at in self._times.items() if at <= now):
            if self._times.get(timer, math.inf) <= now:
                del self._times[timer]
                yield timer
