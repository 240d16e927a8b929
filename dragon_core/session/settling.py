"""The aggregator's work, and the opener's alone after a takeover: the next fixed token and how it came about."""

import math
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Unheard:
    """The opener has gone on without the other's frames since `start`, and nobody has answered in this term."""

    start: int
    num_attempts: int = 0
    """How often the other's frames were waited for in vain."""


@dataclass(frozen=True, slots=True)
class Expecting:
    """The other is there again: the opener goes on alone up to `mix_position`, from where its frames are waited for.

    Its model has to take in what was fixed without it, which takes at most `catch_up_seconds`.
    """

    start: int
    num_attempts: int
    mix_position: int
    catch_up_seconds: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing is fixed alone at `mix_position` and after it until `deadline`."""

    start: int
    num_attempts: int
    mix_position: int
    deadline: float


Alone = Unheard | Expecting | Waiting
"""How the opener goes on after a takeover, until a token is fixed from both frames again."""


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
        before = self.alone or Unheard(self._answer.next_position)
        self.alone = Unheard(before.start, before.num_attempts)

    @property
    def is_unheard(self) -> bool:
        """Whether we are alone and nobody has answered yet."""
        return isinstance(self.alone, Unheard)

    @property
    def mix_position(self) -> int | None:
        """From where on the other's frames are wanted again."""
        return self.alone.mix_position if isinstance(self.alone, Expecting | Waiting) else None

    @property
    def mix_deadline(self) -> float | None:
        """Until when they are waited for."""
        return self.alone.deadline if isinstance(self.alone, Waiting) else None

    def expect_frames(self, *, rtt_seconds: float | None, decode_seconds: float) -> None:
        """The other is there again: choose from which position on frames are waited for, and how long."""
        if not isinstance(self.alone, Unheard):
            return
        start, num_attempts = self.alone.start, self.alone.num_attempts
        steps = math.ceil((rtt_seconds or 0.0) / decode_seconds) if decode_seconds > 0 else 0
        margin = min(MAX_MIX_MARGIN, (steps + MIX_MARGIN) * 2 ** min(num_attempts, 4))
        mix_position = self._answer.next_position + margin
        catch_up_seconds = min(MAX_CATCH_UP_SECONDS, (mix_position - start) * decode_seconds)
        self.alone = Expecting(start, num_attempts, mix_position, catch_up_seconds)

    def next_fixed(self, drafting: Drafting, *, now: float, stall_seconds: float) -> Fixed | None:
        """The token of the next position, or None while something is missing."""
        position = self._answer.next_position
        ours = drafting.published_at(position)
        if ours is None:
            return None
        frame = self.theirs.current
        theirs = frame.published if frame is not None else None
        opener, other = (ours, theirs) if self._us is Peer.OPENER else (theirs, ours)
        settled = drafting.coupling.settle(position, opener, other)
        if settled is not None:
            if theirs is not None:
                self.alone = None
            return Fixed(settled, self._detail(settled, opener, other), is_degraded=False)
        if self.alone is None:
            return None
        self.alone = _at(self.alone, position, now=now, stall_seconds=stall_seconds)
        if isinstance(self.alone, Waiting):
            return None
        return Fixed(Settled(token=drafting.guess()), None, is_degraded=True)

    @staticmethod
    def _detail(settled: Settled, opener: Published | None, other: Published | None) -> TargetDetail | None:
        if opener is None or other is None:
            return None
        return detail_of(settled, dropped_bound(opener, other))


def _at(alone: Alone, position: int, *, now: float, stall_seconds: float) -> Alone:
    """How the opener stands when it comes to a position without the other's frame."""
    if isinstance(alone, Expecting) and position >= alone.mix_position:
        deadline = now + stall_seconds + alone.catch_up_seconds
        alone = Waiting(alone.start, alone.num_attempts, alone.mix_position, deadline)
    if isinstance(alone, Waiting) and now >= alone.deadline:
        return Unheard(alone.start, alone.num_attempts + 1)
    return alone
