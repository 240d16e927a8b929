"""How a session ends: the settled tokens reached the end, or somebody gave it up."""

from dragon_core.messages import Failure, Finish, FinishReason
from dragon_core.session.end import SessionEnd
from dragon_core.session.lifecycle import State
from dragon_core.session.report import public_documents
from dragon_core.session.timers import Timer
from dragon_core.types import Peer


def finish(end: SessionEnd) -> None:
    """The settled tokens have reached the end: say so, and wait a little for what the other end counted."""
    reason = end.answer.ending.reason
    if reason is None or end.state is State.FINISHING:
        return
    end.lifecycle.go(State.FINISHING)
    end.timers.stop(*(timer for timer in Timer if timer not in (Timer.DEADLINE, Timer.IDLE, Timer.FINISH)))
    if not end.contact.is_bound:
        end.close(reason)
        return
    end.send(Finish(reason=reason, counters=end.counters(), documents=public_documents(end.us, end.answer)))
    is_done = end.contact.finish is not None or end.settling.is_unheard
    if is_done and end.us is Peer.OPENER:
        end.close(reason)
        return
    wait = max(end.settings.limits.finish_floor, 3 * (end.contact.rtt_seconds or 0.0))
    end.timers.set(Timer.FINISH, end.now + (wait if end.us is Peer.OPENER else end.stall_seconds() * 4))


def on_finish(end: SessionEnd, message: Finish) -> None:
    end.contact.finish = message
    if end.us is Peer.OPENER:
        if end.state is State.FINISHING:
            end.close(end.end_reason)
        return
    if end.state is not State.FINISHING and end.answer.is_over:
        finish(end)
    end.close(message.reason)


def on_cancelled(end: SessionEnd) -> None:
    if end.contact.is_bound:
        if end.us is Peer.OPENER:
            end.send(Finish(reason=FinishReason.CANCELLED, counters=end.counters()))
        else:
            end.send(Failure(reason="this replica is going away"))
    end.close(FinishReason.CANCELLED)
