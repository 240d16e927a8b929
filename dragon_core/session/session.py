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
    Ready,
    Refused,
    Resume,
    Target,
)
from dragon_core.session import finishing, moving, opening, recovery, tokens
from dragon_core.session.end import SessionEnd
from dragon_core.session.events import (
    Cancelled,
    Effect,
    EngineFailed,
    EngineOpened,
    Event,
    Fault,
    MoveAsked,
    Prepare,
    Received,
    Reconnected,
    Refuse,
    Stepped,
    TimePassed,
)
from dragon_core.session.lifecycle import State, require_legal
from dragon_core.session.settings import SessionSettings
from dragon_core.session.timers import Timer
from dragon_core.types import Peer

_ANSWERS_TO_OPEN = (Accepted, Refused, Failure)


class Session:
    """One answer at one end. `deadline` is when `receive(TimePassed(), now)` is wanted next, None for never."""

    def __init__(self, us: Peer, settings: SessionSettings) -> None:
        self._end = SessionEnd(us, settings)

    @classmethod
    def open(
        cls, settings: SessionSettings, request: Open, *, now: float, is_solo: bool = False
    ) -> tuple["Session", list[Effect]]:
        """A session of the end that has the user, and the first effects. With `is_solo` no other end is asked."""
        session = cls(Peer.OPENER, settings)
        end = session._end
        end.now = now
        end.is_solo = is_solo
        opening.begin(end, request)
        end.state = State.OPENING
        end.effects.append(Prepare(request))
        if is_solo:
            end.settling.go_alone()
        else:
            end.send_open()
        end.timers.set(Timer.DEADLINE, now + request.deadline_seconds)
        return session, end.drain()

    @property
    def deadline(self) -> float | None:
        return self._end.timers.next_at

    @property
    def rtt_seconds(self) -> float | None:
        return self._end.link.rtt_seconds

    @property
    def aggregator(self) -> Peer | None:
        """Who fixes targets, as far as this end knows; None before placement."""
        return self._end.settling.aggregator if self._end.has_request else None

    def receive(self, event: Event, now: float) -> list[Effect]:
        """Take one event; returns what the driver must do, in order. After Closed nothing is taken any more."""
        end = self._end
        end.now = now
        if end.state is State.CLOSED:
            return []
        try:
            self._dispatch(event)
            tokens.pump(end)
        except PeerError as error:
            end.fail(Fault.THEIRS, str(error), field=error.field)
        return end.drain()

    def _dispatch(self, event: Event) -> None:
        end = self._end
        match event:
            case Received(envelope):
                self._on_received(envelope)
            case Stepped(ticket, step):
                tokens.on_step(end, ticket, step)
            case EngineOpened():
                opening.on_engine_opened(end, event)
            case TimePassed():
                self._on_time()
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

    def _on_received(self, envelope: Envelope) -> None:
        end = self._end
        message = envelope.message
        if end.us is Peer.OPENER and envelope.term > end.wire.term:
            raise PeerError(f"term {envelope.term} was never begun; it is {end.wire.term}", field="term")
        if envelope.term < end.wire.term or not (end.is_bound or isinstance(message, _ANSWERS_TO_OPEN)):
            return  # of a time, or of a replica, that is over; or what came before it was lost
        require_legal(end.us, end.state, message)
        if end.us is Peer.OTHER:
            end.timers.set(Timer.IDLE, end.now + end.limits.idle)
        has_gap = end.wire.unseal(envelope, end.now)
        if has_gap is None:
            return
        if isinstance(message, Open):
            opening.on_open(end, message, envelope.term)
            return
        if envelope.term > end.wire.term and not isinstance(message, Resume):
            return
        self._on_message(message, envelope.term)
        if has_gap and end.state in (State.PREPARING, State.RUNNING, State.FINISHING):
            recovery.resync(end)

    def _on_message(self, message: AnyMessage, term: int) -> None:
        end = self._end
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
            case _:
                pass

    def _on_time(self) -> None:
        end = self._end
        for timer in end.timers.take_due(end.now):
            match timer:
                case Timer.DEADLINE:
                    end.fail(Fault.DEADLINE, "the answer took longer than its deadline")
                case Timer.IDLE:
                    end.close_with(Fault.SILENCE, "nothing was heard from the other end")
                case Timer.FINISH:
                    end.close(end.end_reason())
                case Timer.ACCEPT:
                    recovery.on_accept_timeout(end)
                case Timer.PREFILL | Timer.STALL:
                    recovery.on_stalled(end)
                case Timer.NUDGE:
                    recovery.nudge(end)
                case Timer.RETRY:
                    recovery.on_retry(end)
                case Timer.MIX | Timer.DRAFT:
                    pass  # both only ask for another look
                case _:
                    assert_never(timer)
            if end.state is State.CLOSED:
                return
