"""One end of a session: what it consists of, and the small acts that every phase is made of. No decisions here."""

import msgspec

from dragon_core import codec, limits
from dragon_core.drafts import OwnFrame
from dragon_core.messages import (
    MAX_REASON_CHARACTERS,
    AnyMessage,
    Counters,
    Draft,
    Failure,
    FinishReason,
    Open,
)
from dragon_core.placement import believed_decode_seconds
from dragon_core.session.answer import Answer, without_distribution
from dragon_core.session.contact import Contact
from dragon_core.session.ending import Ending
from dragon_core.session.events import Closed, Effect, Fault, Send, SendOpen
from dragon_core.session.lifecycle import Lifecycle, State
from dragon_core.session.ours import Ours
from dragon_core.session.report import report_of
from dragon_core.session.settings import SessionSettings
from dragon_core.session.settling import Settling
from dragon_core.session.term import Term
from dragon_core.session.timers import Timer, Timers
from dragon_core.types import Peer

FRAMES_SLACK = 8
"""Frames in flight past W * B while the two ends' targets differ by a round trip."""
MAX_REPEATED_FRAMES = 64
"""Of those that are sent in one go, at 0.02 ms each. What is missing still is asked for again."""


class SessionEnd:
    """An end from its request on. Each part owns its state; `ours` is there once our engine is open.

    `is_solo`: nobody else is asked, so no token is degraded.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        settings: SessionSettings,
        request: Open,
        contact: Contact,
        *,
        now: float,
        is_solo: bool = False,
    ) -> None:
        self.lifecycle, self.settings, self.request, self.contact = lifecycle, settings, request, contact
        self.now, self.is_solo = now, is_solo
        self.term = Term()
        self.timers = Timers()
        ending = Ending(settings.vocabulary, max_tokens=request.max_tokens, stop=request.stop)
        self.answer = Answer(self.us, ending, request.settled)
        max_frames = (request.window + FRAMES_SLACK) * request.branches
        self.settling = Settling(self.us, self.answer, max_frames=max_frames)
        self.ours: Ours | None = None
        self._effects: list[Effect] = []

    @property
    def us(self) -> Peer:
        return self.lifecycle.us

    @property
    def state(self) -> State:
        return self.lifecycle.state

    def act(self, *effects: Effect) -> None:
        """Have the driver do these, after what it was to do before."""
        self._effects += effects

    def drain(self) -> list[Effect]:
        """The effects collected since the last call, in order."""
        effects, self._effects = self._effects, []
        return effects

    def send(self, message: AnyMessage) -> None:
        """Send to the replica, or the opener, that we are bound to."""
        self.lifecycle.require_may_be_sent(message)
        self.act(Send(self.contact.wire.seal(message, term=self.term.number, now=self.now)))

    @property
    def can_ask(self) -> bool:
        """Whether an Open can say where we are: a longer answer is finished alone."""
        return self.answer.next_position <= limits.SETTLED_TOKENS.high

    def send_open(self) -> None:
        """Ask any replica. A repeated Open begins a new term, so that only the replica that took it is heard."""
        if self.contact.num_opens > 0:
            self.term.begin_anew()
            self.contact.wire.restart_receiving()
        placement = self.request.placement if self.settling.alone is None else Peer.OPENER
        message = msgspec.structs.replace(self.request, placement=placement, settled=tuple(self.answer.tokens))
        self.lifecycle.require_may_be_sent(message)
        self.contact.ask()
        self.act(SendOpen(self.contact.wire.seal(message, term=self.term.number, now=self.now)))
        self.timers.set(Timer.ACCEPT, self.now + self.settings.limits.accept(self.contact.rtt_seconds))

    @property
    def slower_decode_seconds(self) -> float:
        """One step of the slower model, as far as it is known and believed."""
        known = (self.contact.ready, None if self.ours is None else self.ours.ready)
        slower = max((ready.decode_seconds for ready in known if ready is not None), default=0.0)
        return believed_decode_seconds(slower)

    def stall_seconds(self) -> float:
        """How long nothing may be settled before that is a failure."""
        return self.settings.limits.stall(self.contact.rtt_seconds, self.slower_decode_seconds)

    def mark_progress(self) -> None:
        """Something was fixed or can be: silence is measured from now on."""
        if self.state is State.RUNNING and self.settling.alone is None and not self.is_solo:
            self.timers.set(Timer.NUDGE, self.now + self.stall_seconds() / 2)
            if self.us is Peer.OPENER:
                self.timers.set(Timer.STALL, self.now + self.stall_seconds())

    @property
    def is_private(self) -> bool:
        """Whether what we think of any token stays here: an opener pinned as the aggregator shows the tokens alone.

        Also before the other is ready. The other end has no such wish: where the opener went on alone, its frames are
        wanted again.
        """
        return self.request.placement is self.us is Peer.OPENER

    def send_targets(self, *, since: int) -> None:
        """Tell the other end what was fixed from this position on."""
        for target in self.answer.targets_from(since):
            self.send(without_distribution(target) if self.is_private else target)

    @property
    def is_publishing(self) -> bool:
        """Whether our frames are sent."""
        is_away = self.ours is not None and not self.settling.is_ours
        return self.contact.is_bound and is_away and not self.is_private

    def live_drafts(self) -> tuple[Draft, ...]:
        """Our made frames from the next position on, parents first; the nearest ones if there are very many."""
        if self.ours is None:
            return ()
        frames = sorted(self.ours.drafting.tree.live_frames(), key=lambda frame: frame.position)
        return tuple(self._draft_of(self.ours, frame) for frame in frames[:MAX_REPEATED_FRAMES])

    def send_frame(self, frame: OwnFrame) -> None:
        """Publish one frame, if we publish."""
        if self.ours is not None and self.is_publishing:
            self.send(self._draft_of(self.ours, frame))

    def send_live_frames(self) -> None:
        """Publish what is made, if we publish."""
        if self.is_publishing:
            for draft in self.live_drafts():
                self.send(draft)

    @staticmethod
    def _draft_of(ours: Ours, frame: OwnFrame) -> Draft:
        """The current frame goes without parent: it continues the settled path, which the other end knows."""
        assert frame.step is not None  # noqa: S101 - only made frames are published
        is_root = frame is ours.drafting.tree.current
        return codec.draft_of(
            frame.step.published,
            id=frame.id,
            parent=None if is_root else frame.parent_id,
            via=None if is_root else frame.via,
            position=frame.position,
            has_constant_weight=ours.ready.constant_weight_level is not None,
        )

    def counters(self) -> Counters:
        """What this end counted so far."""
        return Counters() if self.ours is None else self.ours.drafting.counters()

    def fail(self, fault: Fault, reason: str, *, field: str = "") -> None:
        """Give the session up and tell the other end."""
        if self.contact.is_bound:
            self.send(Failure(reason=reason[:MAX_REASON_CHARACTERS], field=field))
        self.close_with(fault, reason)

    def close_with(self, fault: Fault, error: str) -> None:
        """End as no answer ends."""
        self._close(FinishReason.ERROR, fault, error)

    def close(self, reason: FinishReason) -> None:
        """End as an answer ends, or as its user or the other end wanted."""
        self._close(reason, None, "")

    def _close(self, reason: FinishReason, fault: Fault | None, error: str) -> None:
        self.lifecycle.go(State.CLOSED)
        self.timers.stop_all()
        report = report_of(
            self.us, self.answer, self.settling, self.contact, counters=self.counters(), term=self.term.number
        )
        self.act(Closed(reason=reason, fault=fault, error=error, report=report))

    @property
    def end_reason(self) -> FinishReason:
        """Why the answer is over; an error where it is not."""
        return self.answer.ending.reason or FinishReason.ERROR
