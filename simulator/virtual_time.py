"""Time that passes only when something happens: acts at given times, and sleepers with deadlines of their own."""

import heapq
import itertools
from collections.abc import Callable
from typing import Protocol

MAX_ACTS_AT_ONCE = 3000


class Sleeper(Protocol):
    """Something that wants to be woken at a time it names itself."""

    @property
    def deadline(self) -> float | None: ...

    def wake(self) -> None:
        """Its deadline has come."""


class VirtualTime:
    """One clock for everything a test runs side by side. Of equal times, acts come first, in the order given."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleepers: list[Sleeper] = []
        self._acts: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._num_at_once = 0

    def at(self, time: float, act: Callable[[], object]) -> None:
        """Have `act` called when `time` has come."""
        heapq.heappush(self._acts, (max(time, self.now), next(self._order), act))

    def advance(self, *, until: float) -> bool:
        """Go on to the next act or deadline and serve it; False when there is none up to `until`."""
        act_at = self._acts[0][0] if self._acts else None
        due: tuple[float, Sleeper] | None = None
        for sleeper in self.sleepers:
            deadline = sleeper.deadline
            if deadline is not None and (due is None or deadline < due[0]):
                due = deadline, sleeper
        times = [time for time in (act_at, due[0] if due is not None else None) if time is not None]
        if not times or min(times) > until:
            return False
        self._pass_to(min(times))
        if due is not None and (act_at is None or due[0] < act_at):
            due[1].wake()
        else:
            heapq.heappop(self._acts)[2]()
        return True

    def run_to(self, time: float) -> None:
        """Serve everything that comes up to `time`, which it is then."""
        while self.advance(until=time):
            pass
        self._pass_to(time)

    def _pass_to(self, time: float) -> None:
        self._num_at_once = 0 if time > self.now else self._num_at_once + 1
        assert self._num_at_once < MAX_ACTS_AT_ONCE, f"time stands still at {self.now} s"
        self.now = max(self.now, time)
