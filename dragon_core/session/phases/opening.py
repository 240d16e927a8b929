"""How a session begins: Open, Accepted or Refused, Ready at both ends, and where the authority lies."""

from collections.abc import Sequence

from dragon_core.couplings.coupling import Coupling
from dragon_core.couplings.making import make_coupling
from dragon_core.errors import PeerError
from dragon_core.limits import MAX_DEADLINE_SECONDS, MAX_RETRY_AFTER_SECONDS
from dragon_core.messages import MAX_REASON_CHARACTERS, Accepted, Finish, FinishReason, Open, Ready, Refused
from dragon_core.placement import PlacementInputs, initial_placement
from dragon_core.session.contact import PeerReady
from dragon_core.session.drafting import Drafting
from dragon_core.session.end import SessionEnd
from dragon_core.session.events import Bind, EngineOpened, Fault, Prepare, Refuse
from dragon_core.session.lifecycle import State
from dragon_core.session.ours import Ours
from dragon_core.session.phases.recovery import cut_back, hear, resync, retry_later, take_over
from dragon_core.session.phases.tokens import follow
from dragon_core.session.timers import Timer
from dragon_core.session.unopened import require_answerable
from dragon_core.types import Peer


def ask(end: SessionEnd) -> None:
    """The opener's first acts: prepare our own contexts, and look for a replica unless we answer alone."""
    end.act(Prepare(end.request))
    if end.is_solo:
        end.settling.go_alone()
    else:
        end.send_open()
    end.timers.set(Timer.DEADLINE, end.now + end.request.deadline_seconds)


def take(end: SessionEnd) -> None:
    """The other's first acts, when its Open can be answered."""
    end.lifecycle.go(State.PREPARING)
    end.timers.set(Timer.DEADLINE, end.now + min(end.request.deadline_seconds, MAX_DEADLINE_SECONDS))
    end.timers.set(Timer.IDLE, end.now + end.settings.limits.idle)
    if end.request.placement is Peer.OPENER:
        end.settling.give_to(Peer.OPENER)
    accept(end)
    end.act(Prepare(end.request))


def on_open(end: SessionEnd, message: Open, term: int) -> None:
    """An Open again: the opener did not hear us, or lost us and went on. Follow its path, from where it is."""
    if term <= end.term.number:
        return
    end.term.adopt(term)
    try:
        require_answerable(end.settings, message)
    except PeerError as error:
        refuse(end, Refuse(Fault.THEIRS, str(error), error.field))
        return
    answer = end.answer
    num_common = _num_common(answer.tokens, message.settled)
    cut_back(end, num_common)
    if message.placement is Peer.OPENER:
        end.settling.give_to(Peer.OPENER)
    follow(end, message.settled[num_common:])
    end.timers.stop(Timer.FINISH)
    if end.ours is not None and end.settling.aggregator is not None:
        end.lifecycle.go(State.RUNNING)
    accept(end)
    resync(end)


def _num_common(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """Length of the longest common beginning, by halves: comparing is the interpreter's own loop."""
    low, high = 0, min(len(ours), len(theirs))
    while low < high:
        middle = (low + high + 1) // 2
        if list(ours[low:middle]) == list(theirs[low:middle]):
            low = middle
        else:
            high = middle - 1
    return low


def accept(end: SessionEnd) -> None:
    limits = end.settings.limits
    end.send(Accepted(replica=end.settings.replica, prefill_deadline_seconds=limits.prefill_deadline))


def on_accepted(end: SessionEnd, message: Accepted) -> None:
    if end.contact.is_bound:
        return
    end.contact.bind()
    end.term.hear()
    end.timers.stop(Timer.ACCEPT)
    end.act(Bind(message.replica))
    most = end.settings.limits.prefill_deadline
    end.timers.set(Timer.PREFILL, end.now + min(message.prefill_deadline_seconds, most))
    if end.state is State.OPENING:
        end.lifecycle.go(State.PREPARING)
    announce_ready(end)


def on_refused(end: SessionEnd, message: Refused) -> None:
    end.timers.stop(Timer.ACCEPT)
    if message.retry_after_seconds is None:
        end.close_with(Fault.THEIRS, f"refused by the other end ({message.field or 'session'}): {message.reason}")
        return
    end.contact.lose()
    if end.settling.alone is None:
        take_over(end)
    place(end)
    retry_later(end, at_least=min(message.retry_after_seconds, MAX_RETRY_AFTER_SECONDS))


def on_engine_opened(end: SessionEnd, event: EngineOpened) -> None:
    request = end.request
    ready = PeerReady(event.constant_weight_level, event.decode_seconds)
    drafting = Drafting(
        end.us,
        _coupling(end, ready),
        end.answer.tokens,
        window=request.window,
        branches=request.branches,
        max_tokens=request.max_tokens,
        end_ids=end.settings.vocabulary.end_ids,
        decode_seconds=event.decode_seconds,
    )
    end.ours = Ours(drafting, ready, event.document_ids)
    announce_ready(end)
    place(end)


def announce_ready(end: SessionEnd) -> None:
    """Ready and the first frames, once both our contexts and the other end are there."""
    if end.ours is None or not end.contact.is_bound:
        return
    rtt_seconds = None
    if end.us is Peer.OPENER:
        rtt_seconds = end.contact.agreed_rtt = end.contact.rtt_seconds
    end.send(end.ours.announce(rtt_seconds))
    end.send_live_frames()
    end.timers.set(Timer.NUDGE, end.now + end.stall_seconds())


def on_ready(end: SessionEnd, message: Ready) -> None:
    end.timers.stop(Timer.PREFILL)
    end.contact.ready = PeerReady(message.constant_weight_level, message.decode_seconds)
    if end.us is Peer.OTHER:
        end.contact.agreed_rtt = message.rtt_seconds
    if end.ours is not None:
        end.ours.drafting.coupling = _coupling(end, end.ours.ready)
    hear(end)
    place(end)


def _coupling(end: SessionEnd, ours: PeerReady) -> Coupling:
    """Guesses need only the seed; early settlement also the constant weights known so far."""
    request = end.request
    known = {end.us: ours, end.us.opposite: end.contact.ready}
    return make_coupling(
        request.coupling,
        seed=request.seed,
        temperature=request.temperature,
        num_top_logprobs=request.num_top_logprobs,
        constant_weight_levels={
            peer: ready.constant_weight_level
            for peer, ready in known.items()
            if ready is not None and ready.constant_weight_level is not None
        },
    )


def place(end: SessionEnd) -> None:
    """Both Ready are known: the same pure function at both ends says who aggregates."""
    if end.state not in (State.OPENING, State.PREPARING) or end.ours is None:
        return
    if end.settling.aggregator is None:
        if end.contact.ready is None:
            return
        ready = {end.us: end.ours.ready, end.us.opposite: end.contact.ready}
        aggregator = initial_placement(
            _placement_inputs(ready[Peer.OPENER]),
            _placement_inputs(ready[Peer.OTHER]),
            rtt_seconds=end.contact.agreed_rtt or 0.0,
            pinned=end.request.placement,
        )
        end.settling.give_to(aggregator)
    end.lifecycle.go(State.RUNNING)
    end.mark_progress()


def _placement_inputs(ready: PeerReady) -> PlacementInputs:
    return PlacementInputs(constant_weight_level=ready.constant_weight_level, decode_seconds=ready.decode_seconds)


def refuse(end: SessionEnd, event: Refuse) -> None:
    """What our own end cannot serve or read: the opener is told, its user gets the error."""
    if end.us is Peer.OTHER:
        reason = event.reason[:MAX_REASON_CHARACTERS]
        end.send(Refused(reason=reason, field=event.field, retry_after_seconds=event.retry_after_seconds))
    elif end.contact.is_bound:
        end.send(Finish(reason=FinishReason.ERROR, counters=end.counters()))
    end.close_with(event.fault, event.reason)
