"""How the authority over targets moves: the aggregator alone acts, by handing over."""

from dragon_core import limits
from dragon_core.errors import PeerError
from dragon_core.messages import Handover, MoveRequest
from dragon_core.session.end import SessionEnd
from dragon_core.session.lifecycle import State
from dragon_core.session.phases.recovery import resync
from dragon_core.session.phases.tokens import on_draft
from dragon_core.types import Peer


def on_handover(end: SessionEnd, message: Handover) -> None:
    """The old aggregator gives us the authority with its live frames; after lost targets it cannot be taken."""
    answer, settling = end.answer, end.settling
    if settling.is_ours:
        raise PeerError("a handover to the end that aggregates already", field="position")
    if message.position < answer.next_position:
        raise PeerError(f"a handover at {message.position}; {answer.next_position} are settled", field="position")
    if message.position > answer.next_position or settling.aggregator is None:
        resync(end)
        return
    settling.give_to(end.us)
    for draft in message.drafts:
        on_draft(end, draft)


def on_move(end: SessionEnd, placement: Peer, reason: str) -> None:
    """The scheduler beside us asks: hand over when we aggregate, else ask the peer that does."""
    settling = end.settling
    is_settled = end.state is not State.RUNNING or settling.aggregator in (None, placement)
    if is_settled or settling.alone is not None or end.request.placement is not None:
        return
    if settling.is_ours:
        hand_over(end)
    else:
        end.send(MoveRequest(placement, reason))


def on_move_request(end: SessionEnd, placement: Peer) -> None:
    settling = end.settling
    is_free = end.request.placement is None and settling.alone is None
    if end.state is State.RUNNING and settling.is_ours and placement is not end.us and is_free:
        hand_over(end)


def hand_over(end: SessionEnd) -> None:
    most = int(limits.HANDED_DRAFTS.high)
    drafts = end.live_drafts()
    end.settling.give_to(end.us.opposite)
    end.send(Handover(end.answer.next_position, drafts[:most]))
    end.contact.handover_sequence = end.contact.wire.last_sent
    for draft in drafts[most:]:
        end.send(draft)
