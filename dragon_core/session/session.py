"""The session: every event goes in through `receive`, every effect comes out of it.

It does not know what role we play in a cluster, only which peer has the user. It has no clock, no chance and no I/O.
"""

from typing import assert_never

from dragon_core.errors import PeerError
from dragon_core.messages import (
    Accepted,
    AnyMessage,
    Draft,
    Envelope,
    Failure,
    Finish,
    Handover,
    MoveRequest,
    Open,
    Probe,
    Ready,
    Refused,
    Resume,
    Target,
)
from dragon_core.session.contact import Contact
from dragon_core.session.end import SessionEnd
from dragon_core.session.events import (
    Cancelled,
    Effect,
    EngineFailed,
    EngineOpened,
    Event,
    Fault,
    MoveAsked,
    Received,
    Reconnected,
    Refuse,
    Stepped,
    TimePassed,
)
from dragon_core.session.integrity import require_sound
from dragon_core.session.lifecycle import Lifecycle, State
from dragon_core.session.phases import finishing, moving, opening, recovery, tokens
from dragon_core.session.settings import SessionSettings
from dragon_core.session.timers import Timer
from dragon_core.session.unopened import Unopened
from dragon_core.types import Peer

_ANSWERS_TO_OPEN = (Accepted, Refused, Failure)


class Session:
    """One answer at one end. `deadline` is when `receive(TimePassed(), now)` is wanted next, None for never."""

    def __init__(self, end: Unopened | SessionEnd) -> None:
        self._end = end

    @classmethod
    def open(
        cls, settings: SessionSettings, request: Open, *, now: float, is_solo: bool = False
    ) -> tuple["Session", list[Effect]]:
        """A session of the end that has the user, and the first effects. With `is_solo` no other end is asked."""
        lifecycle = Lifecycle(Peer.OPENER, State.OPENING)
        end = SessionEnd(lifecycle, settings, request, Contact(is_bound=False), now=now, is_solo=is_solo)
        opening.ask(end)
        return cls(end), end.drain()

    @classmethod
    def await_open(cls, settings: SessionSettings) -> "Session":
        """A session of the other end, before anything has arrived."""
        return cls(Unopened(settings))

    @property
    def deadline(self) -> float | None:
        return None if isinstance(self._end, Unopened) else self._end.timers.next_at

    @property
    def state(self) -> State:
        return self._end.lifecycle.state

    @property
    def rtt_seconds(self) -> float | None:
        return self._end.contact.rtt_seconds

    @property
    def aggregator(self) -> Peer | None:
        """Who fixes targets, as far as this end knows; None before placement."""
        return None if isinstance(self._end, Unopened) else self._end.settling.aggregator

    def receive(self, event: Event, now: float) -> list[Effect]:
        """Take one event; returns what the driver must do, in order. After Closed nothing is taken any more.

        Raises:
            OurError: this end was about to break the protocol itself: a defect of ours.
        """
        end = self._end
        if isinstance(end, Unopened):
            effects = end.receive(event, now)
            if end.end is None:
                return effects
            self._end = end.end
            opening.take(self._end)
            return self._end.drain()
        end.now = now
        if end.state is State.CLOSED:
            return []
        try:
            _dispatch(end, event)
            tokens.pump(end)
        except PeerError as error:
            end.fail(Fault.THEIRS, str(error), field=error.field)
        return end.drain()

    def check_integrity(self) -> None:
        """Between two events: what must always hold does.

        Raises:
            OurError: names what does not hold.
        """
        if isinstance(self._end, SessionEnd):
            require_sound(self._end)


def _dispatch(end: SessionEnd, event: Event) -> None:
    match event:
        case Received(envelope):
            _on_received(end, envelope)
        case Stepped(ticket, step):
            tokens.on_step(end, ticket, step)
        case EngineOpened():
            opening.on_engine_opened(end, event)
        case TimePassed():
            _on_time(end)
        case Reconnected():
            recovery.resync(end)
        case MoveAsked(placement, reason):
            moving.on_move(end, placement, reason)
        case Cancelled():
            finishing.on_cancelled(end)
        case EngineFailed(reason):
            end.fail(Fault.OURS, reason)
        case Refuse():
            opening.refuse(end, event)
        case _:
            assert_never(event)


def _on_received(end: SessionEnd, envelope: Envelope) -> None:
    message, term = envelope.message, envelope.term
    if end.us is Peer.OPENER and term > end.term.number:
        raise PeerError(f"term {term} was never begun; it is {end.term.number}", field="term")
    if term < end.term.number or not (end.contact.is_bound or isinstance(message, _ANSWERS_TO_OPEN)):
        return  # of a time, or of a replica, that is over; or what came before it was lost
    end.lifecycle.require_may_arrive(message)
    if end.us is Peer.OTHER:
        end.timers.set(Timer.IDLE, end.now + end.settings.limits.idle)
    has_gap = end.contact.wire.unseal(envelope, end.now)
    if has_gap is None:
        return
    if isinstance(message, Open):
        opening.on_open(end, message, term)
        return
    if term > end.term.number and not isinstance(message, Resume):
        return
    _on_message(end, message, term)
    if has_gap and end.state in (State.PREPARING, State.RUNNING, State.FINISHING):
        recovery.resync(end)


def _on_message(end: SessionEnd, message: AnyMessage, term: int) -> None:
    match message:
        case Draft():
            tokens.on_draft(end, message)
        case Target():
            tokens.on_target(end, message)
        case Accepted():
            opening.on_accepted(end, message)
        case Refused():
            opening.on_refused(end, message)
        case Ready():
            opening.on_ready(end, message)
        case MoveRequest(placement, _):
            moving.on_move_request(end, placement)
        case Handover():
            moving.on_handover(end, message)
        case Resume():
            recovery.on_resume(end, message, term)
        case Finish():
            finishing.on_finish(end, message)
        case Failure():
            recovery.on_failure(end, message)
        case Open() | Probe():
            pass  # an Open is taken before; a Probe is nothing but its envelope
        case _:
            assert_never(message)


def _on_time(end: SessionEnd) -> None:
    for timer in end.timers.take_due(end.now):
        match timer:
            case Timer.DEADLINE:
                end.fail(Fault.DEADLINE, "the answer took longer than its deadline")
            case Timer.IDLE:
                end.close_with(Fault.SILENCE, "nothing was heard from the other end")
            case Timer.FINISH:
                end.close(end.end_reason)
            case Timer.ACCEPT:
                recovery.on_accept_timeout(end)
            case Timer.PREFILL | Timer.STALL:
                recovery.on_stalled(end)
            case Timer.NUDGE:
                recovery.nudge(end)
            case Timer.RETRY:
                recovery.on_retry(end)
            case Timer.MIX | Timer.DRAFT | Timer.SETTLE:
                pass  # they only ask for another look
            case _:
                assert_never(timer)
        if end.state is State.CLOSED:
            return
