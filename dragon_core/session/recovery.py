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
    if not end.is_bound:
        return
    if end.our_ready is not None:
        end.send(end.our_ready)
    end.send(
        Resume(
            next_position=answer.next_position,
            last_sequence=end.wire.last_received or 0,
            aggregator=settling.aggregator,
            term_position=end.term_position,
            mix_position=None if settling.alone is None else settling.alone.mix_position,
        )
    )
    end.send_live_frames()


def take_over(end: SessionEnd) -> None:
    """The opener goes on by itself in a new term; what the other fixes in an older one is void."""
    if end.is_term_known:
        end.term_position = end.answer.next_position
    end.is_term_known = False
    end.wire.term += 1
    end.settling.go_alone()
    resync(end)


def hear(end: SessionEnd) -> None:
    """The other end speaks in our term: bring it up to date and expect its frames again."""
    alone = end.settling.alone
    end.is_term_known = True
    if end.us is Peer.OPENER and alone is not None and not alone.is_heard:
        end.settling.expect_frames(
            alone,
            rtt_seconds=end.link.rtt_seconds,
            decode_seconds=max((ready.decode_seconds for ready in end.ready.values()), default=0.0),
        )


def on_resume(end: SessionEnd, message: Resume, term: int) -> None:
    answer, settling = end.answer, end.settling
    if term > end.wire.term:
        end.wire.term = term
        settling.give_to(Peer.OPENER)
        answer.cut_to(message.term_position)
        if end.drafting is not None and end.drafting.tree.next_position > answer.next_position:
            end.drafting.tree.restart(answer.tokens)
        end.state = State.RUNNING if end.drafting is not None else State.PREPARING
        end.timers.stop(Timer.FINISH)
        resync(end)
        return
    if message.next_position < answer.next_position:
        end.send(answer.target_from(message.next_position))
    if message.next_position > answer.next_position and settling.is_ours:
        raise PeerError(
            f"the other end resumes at {message.next_position}; {answer.next_position} are settled",
            field="next_position",
        )
    has_crossed = message.last_sequence < end.handover_sequence
    if settling.aggregator is Peer.OTHER and message.aggregator is end.us is Peer.OPENER and not has_crossed:
        take_over(end)  # each end believes that the other fixes targets, and no Handover is on its way
    elif not settling.is_ours:
        if end.us is Peer.OTHER and end.our_ready is not None:
            resync(end)  # also without a frame: the opener has to know that there is somebody to wait for
        else:
            end.send_live_frames()
    hear(end)


def on_failure(end: SessionEnd, message: Failure) -> None:
    """The other end gave up: the opener carries on alone and asks for another replica."""
    if end.us is Peer.OTHER:
        end.close_with(Fault.THEIRS, f"the other end gave up ({message.field or 'session'}): {message.reason}")
        return
    if end.state is State.FINISHING:
        end.close(end.end_reason())
        return
    end.is_bound = False
    end.timers.stop(Timer.ACCEPT, Timer.PREFILL)
    take_over(end)
    if end.drafting is not None:  # else the answer begins when our own contexts are prefilled
        end.state = State.RUNNING
    retry_later(end)


def on_accept_timeout(end: SessionEnd) -> None:
    if end.num_opens < 2:
        end.send_open()
    else:
        on_stalled(end)


def on_stalled(end: SessionEnd) -> None:
    """Nothing came in time. Alone already: frames are waited for by `mix`; else take over once we can decode."""
    settling = end.settling
    if end.us is Peer.OTHER or settling.alone is not None:
        return
    if end.drafting is None or end.drafting.published_at(end.answer.next_position) is None:
        end.timers.set(Timer.STALL, end.now + end.limits.stall_floor)
        return
    take_over(end)
    end.state = State.RUNNING
    retry_later(end)


def nudge(end: SessionEnd) -> None:
    """Nothing came for a while: what we sent may be lost without a gap to show it."""
    resync(end)
    if end.us is Peer.OTHER or end.state is State.PREPARING:
        end.timers.set(Timer.NUDGE, end.now + end.stall_seconds())


def retry_later(end: SessionEnd, *, at_least: float = 0.0) -> None:
    delay = max(at_least, min(end.limits.max_retry, end.limits.retry * 2 ** min(end.num_retries, 16)))
    end.num_retries += 1
    end.timers.set(Timer.RETRY, end.now + delay)


def on_retry(end: SessionEnd) -> None:
    """Still alone: ask the replica to resume, and every third time any replica to start again."""
    settling = end.settling
    if settling.alone is None:
        end.num_retries = 0
        return
    if not settling.alone.is_heard:
        if end.is_bound and end.num_retries % 3:
            resync(end)
        else:
            end.send_open()
            end.timers.stop(Timer.ACCEPT)
    retry_later(end)
