"""The aggregator's work, and the opener's alone after a takeover: the next fixed token and how it came about."""

import math
from dataclasses import dataclass

from dragon_core.couplings.coupling import Coupling
from dragon_core.drafts import TheirDrafts
from dragon_core.messages import TargetDetail
from dragon_core.mixture import dropped_bound
from dragon_core.session.answer import Answer, detail_of
from dragon_core.session.drafting import Drafting
from dragon_core.types import Peer, Published, Settled

MIX_MARGIN = 2
"""Positions past one round trip at which frames are asked for after a takeover."""
MAX_MIX_MARGIN = 64
MAX_CATCH_UP_SECONDS = 8.0
"""The longest that an answer waits for the other's model, beyond the stall limit."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """A token to be fixed now."""

    settled: Settled
    detail: TargetDetail | None
    is_degraded: bool


@dataclass(slots=True)
class Alone:
    """The opener goes on from `start` without the other's frames until one arrives for `mix_position` or later.

    `is_heard`: the other has answered in this term, so waiting for its frame makes sense, until `mix_deadline`: its
    model has to take in what was fixed without it, which takes at most `catch_up_seconds`.
    """

    start: int
    is_heard: bool = False
    mix_position: int | None = None
    catch_up_seconds: float = 0.0
    mix_deadline: float | None = None
    num_attempts: int = 0


class Settling:
    """Authority over targets. `aggregator` is None until placement is computed."""

    def __init__(self, us: Peer, answer: Answer, *, max_frames: int) -> None:
        self._us = us
        self._answer = answer
        self.theirs = TheirDrafts(max_frames=max_frames)
        self.aggregator: Peer | None = None
        self.alone: Alone | None = None

    @property
    def is_ours(self) -> bool:
        return self.aggregator is self._us

    def give_to(self, aggregator: Peer) -> None:
        """Move the authority; frames received for the old one are void where it leaves us."""
        self.aggregator = aggregator
        if not self.is_ours:
            self.theirs.clear()

    def go_alone(self) -> None:
        """Take the authority with none of the other's frames."""
        self.aggregator = self._us
        self.theirs.clear()
        before = self.alone or Alone(self._answer.next_position)
        self.alone = Alone(before.start, num_attempts=before.num_attempts)

    def expect_frames(self, alone: Alone, *, rtt_seconds: float | None, decode_seconds: float) -> None:
        """The other is there again: choose from which position on frames are waited for, and how long."""
        steps = math.ceil((rtt_seconds or 0.0) / decode_seconds) if decode_seconds > 0 else 0
        margin = min(MAX_MIX_MARGIN, (steps + MIX_MARGIN) * 2 ** min(alone.num_attempts, 4))
        alone.is_heard, alone.mix_position, alone.mix_deadline = True, self._answer.next_position + margin, None
        alone.catch_up_seconds = min(MAX_CATCH_UP_SECONDS, (alone.mix_position - alone.start) * decode_seconds)

    def next_fixed(self, drafting: Drafting, coupling: Coupling, *, now: float, stall_seconds: float) -> Fixed | None:
        """The token of the next position, or None while something is missing."""
        position = self._answer.next_position
        ours = drafting.published_at(position)
        if ours is None:
            return None
        frame = self.theirs.current
        theirs = frame.published if frame is not None else None
        opener, other = (ours, theirs) if self._us is Peer.OPENER else (theirs, ours)
        settled = coupling.settle(position, opener, other)
        if settled is not None:
            if theirs is not None:
                self.alone = None
            return Fixed(settled, self._detail(settled, opener, other), is_degraded=False)
        if self.alone is None or self._must_wait(self.alone, position, now=now, stall_seconds=stall_seconds):
            return None
        return Fixed(Settled(token=drafting.guess()), None, is_degraded=True)

    def _must_wait(self, alone: Alone, position: int, *, now: float, stall_seconds: float) -> bool:
        if not alone.is_heard or alone.mix_position is None or position < alone.mix_position:
            return False
        if alone.mix_deadline is None:
            alone.mix_deadline = now + stall_seconds + alone.catch_up_seconds
        if now < alone.mix_deadline:
            return True
        alone.is_heard, alone.mix_position, alone.mix_deadline = False, None, None
        alone.num_attempts += 1
        return False

    @staticmethod
    def _detail(settled: Settled, opener: Published | None, other: Published | None) -> TargetDetail | None:
        if opener is None or other is None:
            return None
        return detail_of(settled, dropped_bound(opener, other))
