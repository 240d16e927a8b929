"""What a session does when something fails: resume after loss, take over, carry on alone, and mix again."""

from dragon_core.errors import PeerError
from dragon_core.messages import Failure, Resume
from dragon_core.session.end import SessionEnd
from dragon_core.session.events import Fault
from dragon_core.session.lifecycle import State
from dragon_core.session.timers import Timer
from dragon_core.types import Peer


def resync(end: SessionEnd) -> None:
    """Say what this end holds and repeat Ready and our live frames: after a reconnect, a gap, or a long silence."""
    answer, settling = end.answer, end.settling
    if not end.contact.is_bound:
        return
    if end.ours is not None and end.ours.announced is not None:
        end.send(end.ours.announced)
    end.send(
        Resume(
            next_position=answer.next_position,
            last_sequence=end.contact.wire.last_received or 0,
            aggregator=settling.aggregator,
            term_position=end.term.position,
            mix_position=settling.mix_position,
        )
    )
    end.send_live_frames()


def cut_back(end: SessionEnd, position: int) -> None:
    """Drop every target at or after `position`, and what was drafted on them."""
    end.answer.cut_to(position)
    if end.ours is not None and end.ours.drafting.tree.next_position > end.answer.next_position:
        end.ours.drafting.tree.restart(end.answer.tokens)


def take_over(end: SessionEnd) -> None:
    """The opener goes on by itself in a new term; what the other fixes in an older one is void."""
    end.term.begin(end.answer.next_position)
    end.settling.go_alone()
    resync(end)


def hear(end: SessionEnd) -> None:
    """The other end speaks in our term: bring it up to date and expect its frames again."""
    end.term.hear()
    end.settling.expect_frames(rtt_seconds=end.contact.rtt_seconds, decode_seconds=end.slower_decode_seconds)


def on_resume(end: SessionEnd, message: Resume, term: int) -> None:
    answer, settling = end.answer, end.settling
    if term > end.term.number:
        _follow(end, message, term)
        return
    if message.next_position < answer.next_position:
        end.send_targets(since=message.next_position)
    if message.next_position > answer.next_position and settling.is_ours:
        raise PeerError(
            f"the other end resumes at {message.next_position}; {answer.next_position} are settled",
            field="next_position",
        )
    has_crossed = message.last_sequence < end.contact.handover_sequence
    if settling.aggregator is Peer.OTHER and message.aggregator is end.us is Peer.OPENER and not has_crossed:
        take_over(end)  # each end believes that the other fixes targets, and no Handover is on its way
    elif not settling.is_ours:
        if end.us is Peer.OTHER and end.ours is not None and end.ours.announced is not None:
            resync(end)  # also without a frame: the opener has to know that there is somebody to wait for
        else:
            end.send_live_frames()
    hear(end)


def _follow(end: SessionEnd, message: Resume, term: int) -> None:
    """The opener took over in a term that we did not know: what was fixed here since is void."""
    end.term.adopt(term)
    end.settling.give_to(Peer.OPENER)
    cut_back(end, message.term_position)
    if end.ours is not None:
        end.lifecycle.go(State.RUNNING)
    end.timers.stop(Timer.FINISH)
    resync(end)


def on_failure(end: SessionEnd, message: Failure) -> None:
    """The other end gave up: the opener carries on alone and asks for another replica."""
    if end.us is Peer.OTHER:
        end.close_with(Fault.THEIRS, f"the other end gave up ({message.field or 'session'}): {message.reason}")
        return
    if end.state is State.FINISHING:
        end.close(end.end_reason)
        return
    end.contact.lose()
    end.timers.stop(Timer.ACCEPT, Timer.PREFILL)
    take_over(end)
    if end.ours is not None:  # else the answer begins when our own contexts are prefilled
        end.lifecycle.go(State.RUNNING)
    retry_later(end)


def on_accept_timeout(end: SessionEnd) -> None:
    if end.contact.num_opens < 2:
        end.send_open()
    else:
        on_stalled(end)


def on_stalled(end: SessionEnd) -> None:
    """Nothing came in time. Alone already: frames are waited for by `mix`; else take over once we can decode."""
    if end.us is Peer.OTHER or end.settling.alone is not None:
        return
    if end.ours is None or end.ours.drafting.published_at(end.answer.next_position) is None:
        end.timers.set(Timer.STALL, end.now + end.settings.limits.stall_floor)
        return
    take_over(end)
    end.lifecycle.go(State.RUNNING)
    retry_later(end)


def nudge(end: SessionEnd) -> None:
    """Nothing came for a while: what we sent may be lost without a gap to show it."""
    resync(end)
    if end.us is Peer.OTHER or end.state is State.PREPARING:
        end.timers.set(Timer.NUDGE, end.now + end.stall_seconds())


def retry_later(end: SessionEnd, *, at_least: float = 0.0) -> None:
    end.timers.set(Timer.RETRY, end.now + max(at_least, end.contact.next_delay(end.settings.limits)))


def on_retry(end: SessionEnd) -> None:
    """Still alone: ask the replica to resume, and every third time any replica to start again."""
    if end.settling.alone is None:
        end.contact.stop_retrying()
        return
    if end.settling.is_unheard:
        if end.contact.is_bound and not end.contact.is_third_retry:
            resync(end)
        elif end.can_ask:
            end.send_open()
            end.timers.stop(Timer.ACCEPT)
    retry_later(end)
