"""One end of a session: all it knows, and the small acts that everything else is made of. No decisions here."""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from dragon_core import codec
from dragon_core.couplings.coupling import Coupling
from dragon_core.drafts import OwnFrame
from dragon_core.errors import PeerError
from dragon_core.link import LinkEstimate
from dragon_core.messages import (
    MAX_REASON_CHARACTERS,
    AnyMessage,
    Counters,
    DocumentShare,
    Draft,
    Failure,
    Finish,
    FinishReason,
    Open,
    Ready,
)
from dragon_core.session.answer import SHARE_UNIT, Answer
from dragon_core.session.drafting import Drafting
from dragon_core.session.events import Closed, Effect, Fault, Report, Send, SendOpen
from dragon_core.session.lifecycle import State
from dragon_core.session.settings import SessionSettings
from dragon_core.session.settling import Settling
from dragon_core.session.timers import Timer, Timers
from dragon_core.types import Peer
from dragon_core.wire import Wire

FRAMES_SLACK = 8
"""Frames in flight past W * B while the two ends' targets differ by a round trip."""


@dataclass(frozen=True, slots=True)
class PeerReady:
    """What a Ready said, ours or theirs."""

    constant_weight_level: int | None
    decode_seconds: float


class SessionEnd:
    """The state that opening, tokens, moving, recovery and finishing work on. `timers` are times of our own clock.

    `request`, `answer` and `settling` exist from the request on, `drafting` and `coupling` from our engine's opening.
    """

    request: Open
    answer: Answer
    settling: Settling
    coupling: Coupling

    def __init__(self, us: Peer, settings: SessionSettings) -> None:
        self.us = us
        self.state = State.IDLE
        self.settings = settings
        self.limits = settings.limits
        self.now = 0.0
        self.effects: list[Effect] = []
        self.timers = Timers()
        self.link = LinkEstimate()
        self.wire = Wire(self.link)
        self.drafting: Drafting | None = None
        self.documents: tuple[tuple[str, ...], ...] = ()
        self.ready: dict[Peer, PeerReady] = {}
        self.our_ready: Ready | None = None
        self.agreed_rtt: float | None = None
        self.is_bound = us is Peer.OTHER
        self.is_solo = False
        self.handover_sequence = -1
        self.num_opens = 0
        self.num_retries = 0
        self.term_position = 0
        self.is_term_known = True
        self.their_finish: Finish | None = None

    @property
    def has_request(self) -> bool:
        return hasattr(self, "request")

    def send_open(self) -> None:
        """Ask any replica. A repeated Open begins a new term, so that only the replica that took it is heard."""
        if self.num_opens > 0:
            self.wire.term += 1
            self.wire.restart_receiving()
            self.is_term_known = False
        placement = self.request.placement if self.settling.alone is None else Peer.OPENER
        message = msgspec.structs.replace(self.request, placement=placement, settled=tuple(self.answer.tokens))
        self.is_bound = False
        self.num_opens += 1
        self.effects.append(SendOpen(self.wire.seal(message, self.now)))
        self.timers.set(Timer.ACCEPT, self.now + self.limits.accept(self.link.rtt_seconds))

    def send(self, message: AnyMessage) -> None:
        self.effects.append(Send(self.wire.seal(message, self.now)))

    def require_known(self, tokens: Iterable[int], *, field: str) -> None:
        """Refuse token ids that the vocabulary does not have.

        Raises:
            PeerError: names the first one and `field`.
        """
        for token in tokens:
            if token >= len(self.settings.vocabulary):
                raise PeerError(f"token {token} is beyond the vocabulary", field=field)

    def stall_seconds(self) -> float:
        decode = max((ready.decode_seconds for ready in self.ready.values()), default=0.0)
        return self.limits.stall(self.link.rtt_seconds, decode)

    def mark_progress(self) -> None:
        """Something was fixed or can be: silence is measured from now on."""
        if self.state is State.RUNNING and self.settling.alone is None and not self.is_solo:
            self.timers.set(Timer.NUDGE, self.now + self.stall_seconds() / 2)
            if self.us is Peer.OPENER:
                self.timers.set(Timer.STALL, self.now + self.stall_seconds())

    @property
    def is_publishing(self) -> bool:
        # An opener pinned as the aggregator never publishes, also before the other is ready: the pin is its privacy.
        # The other end has no such wish: where the opener went on alone, its frames are wanted again.
        is_pinned_here = self.request.placement is self.us is Peer.OPENER
        return self.is_bound and self.us in self.ready and not self.settling.is_ours and not is_pinned_here

    def draft_message(self, frame: OwnFrame) -> Draft:
        """The current frame goes without parent: it continues the settled path, which the other end knows."""
        drafting = self.drafting
        assert drafting is not None and frame.step is not None  # noqa: S101, PT018 - callers hold a made frame
        is_root = frame is drafting.tree.current
        return codec.draft_of(
            frame.step.published,
            id=frame.id,
            parent=None if is_root else frame.parent_id,
            via=None if is_root else frame.via,
            position=frame.position,
            has_constant_weight=self.ready[self.us].constant_weight_level is not None,
        )

    def send_frame(self, frame: OwnFrame) -> None:
        self.send(self.draft_message(frame))

    def send_live_frames(self) -> None:
        if self.drafting is not None and self.is_publishing:
            for frame in self.drafting.tree.live_frames():
                self.send_frame(frame)

    def fail(self, fault: Fault, reason: str, *, field: str = "") -> None:
        """Give the session up and tell the other end."""
        if self.is_bound:
            self.send(Failure(reason=reason[:MAX_REASON_CHARACTERS], field=field))
        self.close_with(fault, reason)

    def close_with(self, fault: Fault, error: str) -> None:
        """End as no answer ends."""
        self._close(FinishReason.ERROR, fault, error)

    def close(self, reason: FinishReason) -> None:
        """End as an answer ends, or as its user or the other end wanted."""
        self._close(reason, None, "")

    def _close(self, reason: FinishReason, fault: Fault | None, error: str) -> None:
        self.state = State.CLOSED
        self.timers.stop_all()
        report = self.report() if self.has_request else None
        self.effects.append(Closed(reason=reason, fault=fault, error=error, report=report))

    def counters(self) -> Counters:
        return Counters() if self.drafting is None else self.drafting.counters()

    def public_documents(self) -> tuple[DocumentShare, ...]:
        """The documents this end may name to the other: the opener's stay where they are."""
        if self.us is Peer.OPENER:
            return ()
        shares = self.answer.document_shares()
        return tuple(DocumentShare(name, round(share / SHARE_UNIT)) for name, share in shares)

    def report(self) -> Report:
        answer, ours = self.answer, self.counters()
        theirs = self.their_finish.counters if self.their_finish is not None else Counters()
        counters = {self.us: ours, self.us.opposite: theirs}
        mean, largest = answer.dropped_mass()
        return Report(
            num_tokens=answer.next_position,
            num_degraded=len(answer.degraded),
            num_mixed=answer.num_mixed,
            hit_rate={p: c.num_hits / c.num_positions if c.num_positions else None for p, c in counters.items()},
            num_steps={p: c.num_steps for p, c in counters.items()},
            num_wasted_steps={p: c.num_wasted_steps for p, c in counters.items()},
            max_window_used=max(ours.max_window_used, theirs.max_window_used),
            aggregator=self.settling.aggregator or self.us,
            opener_share=answer.opener_share(),
            dropped_mass_mean=mean,
            dropped_mass_max=largest,
            our_documents=answer.document_shares(),
            their_documents=self.their_finish.documents if self.their_finish is not None else (),
            rtt_seconds=self.link.rtt_seconds,
            term=self.wire.term,
        )

    def end_reason(self) -> FinishReason:
        return self.answer.ending.reason or FinishReason.ERROR

    def drain(self) -> list[Effect]:
        effects, self.effects = self.effects, []
        return effects
