"""What a session is given at its start: identity, limits, and what both ends must share."""

from dataclasses import dataclass

from dragon_core.messages import Fingerprint
from dragon_core.types import Cut, Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Durations in seconds after which an end stops waiting; longer ones follow from the round trip."""

    accept_floor: float = 1.0
    stall_floor: float = 1.0
    prefill_deadline: float = 30.0
    retry: float = 0.5
    max_retry: float = 8.0
    finish_floor: float = 0.25
    idle: float = 60.0

    def accept(self, rtt_seconds: float | None) -> float:
        """How long no Accepted may stay away: max(1 s, 3 round trips)."""
        return max(self.accept_floor, 3 * (rtt_seconds or 0.0))

    def stall(self, rtt_seconds: float | None, decode_seconds: float) -> float:
        """How long nothing may be settled while our frame waits: a few round trips and steps, with a floor."""
        return max(self.stall_floor, 3 * (rtt_seconds or 0.0) + 8 * decode_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """This end of every session it takes part in. `replica` names us where we answer opens."""

    fingerprint: Fingerprint
    vocabulary: Vocabulary
    cut: Cut
    limits: Limits = Limits()
    replica: str = ""
