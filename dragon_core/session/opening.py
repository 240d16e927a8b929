"""How a session begins: Open, Accepted or Refused, Ready at both ends, and where the authority lies."""

from itertools import takewhile

from dragon_core.couplings.making import make_coupling
from dragon_core.errors import PeerError
from dragon_core.messages import (
    MAX_REASON_CHARACTERS,
    PROTOCOL_VERSION,
    Accepted,
    Finish,
    FinishReason,
    Open,
    Ready,
    Refused,
    require_same,
)
from dragon_core.placement import PlacementInputs, initial_placement
from dragon_core.session.answer import Answer
from dragon_core.session.drafting import Drafting
from dragon_core.session.end import FRAMES_SLACK, PeerReady, SessionEnd
from dragon_core.session.ending import Ending
from dragon_core.session.events import Bind, EngineOpened, Fault, Prepare, Refuse
from dragon_core.session.lifecycle import State
from dragon_core.session.recovery import hear, resync, retry_later, take_over
from dragon_core.session.settling import Fixed, Settling
from dragon_core.session.timers import Timer
from dragon_core.session.tokens import fix
from dragon_core.types import Peer, Settled


def begin(end: SessionEnd, request: Open) -> None:
    end.request = request
    ending = Ending(end.settings.vocabulary, max_tokens=request.max_tokens, stop=request.stop)
    end.answer = Answer(end.us, ending, request.settled)
    end.settling = Settling(end.us, end.answer, max_frames=(request.window + FRAMES_SLACK) * request.branches)


def on_open(end: SessionEnd, message: Open, term: int) -> None:
    if end.state is not State.IDLE and term <= end.wire.term:
        return
    end.wire.term = term
    try:
        require_answerable(end, message)
    except PeerError as error:
        refuse(end, Refuse(Fault.THEIRS, str(error), error.field))
        return
    if end.state is not State.IDLE:
        reopen(end, message)
        return
    begin(end, message)
    end.state = State.PREPARING
    end.timers.set(Timer.DEADLINE, end.now + message.deadline_seconds)
    end.timers.set(Timer.IDLE, end.now + end.limits.idle)
    if message.placement is Peer.OPENER:
        end.settling.give_to(Peer.OPENER)
    end.send(Accepted(replica=end.settings.replica, prefill_deadline_seconds=end.limits.prefill_deadline))
    end.effects.append(Prepare(message))


def require_answerable(end: SessionEnd, message: Open) -> None:
    """Refuse a request that both ends would not compute alike.

    Raises:
        PeerError: names the field, with both values where the two ends differ.
    """
    if message.version != PROTOCOL_VERSION:
        raise PeerError(f"protocol version {message.version}; here {PROTOCOL_VERSION}", field="version")
    require_same(end.settings.fingerprint, message.fingerprint)
    end.require_known(message.settled, field="settled")
    if len(message.settled) > message.max_tokens:
        raise PeerError(f"{len(message.settled)} tokens are settled of at most {message.max_tokens}", field="settled")


def reopen(end: SessionEnd, message: Open) -> None:
    """The opener did not hear us, or lost us and went on: follow its path, from where it is."""
    answer, drafting = end.answer, end.drafting
    num_common = sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(answer.tokens, message.settled, strict=False))
    )
    answer.cut_to(num_common)
    if drafting is not None and drafting.tree.next_position > num_common:
        drafting.tree.restart(answer.tokens)
    if message.placement is Peer.OPENER:
        end.settling.give_to(Peer.OPENER)
    for token in message.settled[num_common:]:
        fix(end, Fixed(Settled(token=token), None, is_degraded=False))
    end.timers.stop(Timer.FINISH)
    is_placed = drafting is not None and end.settling.aggregator is not None
    end.state = State.RUNNING if is_placed else State.PREPARING
    end.send(Accepted(replica=end.settings.replica, prefill_deadline_seconds=end.limits.prefill_deadline))
    resync(end)


def on_accepted(end: SessionEnd, message: Accepted) -> None:
    if end.is_bound:
        return
    end.is_bound = True
    end.is_term_known = True
    end.timers.stop(Timer.ACCEPT)
    end.effects.append(Bind(message.replica))
    end.timers.set(Timer.PREFILL, end.now + message.prefill_deadline_seconds)
    if end.state is State.OPENING:
        end.state = State.PREPARING
    announce_ready(end)


def on_refused(end: SessionEnd, message: Refused) -> None:
    end.timers.stop(Timer.ACCEPT)
    if message.retry_after_seconds is None:
        end.close_with(Fault.THEIRS, f"refused by the other end ({message.field or 'session'}): {message.reason}")
        return
    end.is_bound = False
    if end.settling.alone is None:
        take_over(end)
    place(end)
    retry_later(end, at_least=message.retry_after_seconds)


def on_engine_opened(end: SessionEnd, event: EngineOpened) -> None:
    request, answer = end.request, end.answer
    end.documents = event.document_ids
    end.ready[end.us] = PeerReady(event.constant_weight_level, event.decode_seconds)
    exchange_coupling(end)
    end.drafting = Drafting(
        end.us,
        end.coupling,
        answer.tokens,
        window=request.window,
        branches=request.branches,
        max_tokens=request.max_tokens,
        end_ids=end.settings.vocabulary.end_ids,
        decode_seconds=event.decode_seconds,
    )
    announce_ready(end)
    place(end)


def announce_ready(end: SessionEnd) -> None:
    """Ready and the first frames, once both our contexts and the other end are there."""
    ours = end.ready.get(end.us)
    if ours is None or not end.is_bound:
        return
    rtt = end.link.rtt_seconds if end.us is Peer.OPENER else None
    if end.us is Peer.OPENER:
        end.agreed_rtt = rtt
    end.our_ready = Ready(
        num_contexts=len(end.documents),
        constant_weight_level=ours.constant_weight_level,
        decode_seconds=ours.decode_seconds,
        rtt_seconds=rtt,
    )
    end.send(end.our_ready)
    end.send_live_frames()
    end.timers.set(Timer.NUDGE, end.now + end.stall_seconds())


def on_ready(end: SessionEnd, message: Ready) -> None:
    end.timers.stop(Timer.PREFILL)
    end.ready[end.us.opposite] = PeerReady(message.constant_weight_level, message.decode_seconds)
    if end.us is Peer.OTHER:
        end.agreed_rtt = message.rtt_seconds
    if end.drafting is not None:
        exchange_coupling(end)
    hear(end)
    place(end)


def exchange_coupling(end: SessionEnd) -> None:
    """Guesses need only the seed; early settlement also the constant weights known so far."""
    request = end.request
    end.coupling = make_coupling(
        request.coupling,
        seed=request.seed,
        temperature=request.temperature,
        num_top_logprobs=request.num_top_logprobs,
        constant_weight_levels={
            peer: ready.constant_weight_level
            for peer, ready in end.ready.items()
            if ready.constant_weight_level is not None
        },
    )
    if end.drafting is not None:
        end.drafting.coupling = end.coupling


def place(end: SessionEnd) -> None:
    """Both Ready are known: the same pure function at both ends says who aggregates."""
    if end.state not in (State.OPENING, State.PREPARING) or end.drafting is None:
        return
    settling = end.settling
    if settling.aggregator is None:
        if len(end.ready) < 2:
            return
        inputs = {
            peer: PlacementInputs(
                constant_weight_level=ready.constant_weight_level, decode_seconds=ready.decode_seconds
            )
            for peer, ready in end.ready.items()
        }
        settling.give_to(
            initial_placement(
                inputs[Peer.OPENER],
                inputs[Peer.OTHER],
                rtt_seconds=end.agreed_rtt or 0.0,
                pinned=end.request.placement,
            )
        )
    end.state = State.RUNNING
    end.mark_progress()


def refuse(end: SessionEnd, event: Refuse) -> None:
    """What our own end cannot serve or read: the opener is told, its user gets the error."""
    if end.us is Peer.OTHER:
        reason = event.reason[:MAX_REASON_CHARACTERS]
        end.send(Refused(reason=reason, field=event.field, retry_after_seconds=event.retry_after_seconds))
    elif end.is_bound:
        end.send(Finish(reason=FinishReason.ERROR, counters=end.counters()))
    end.close_with(event.fault, event.reason)
