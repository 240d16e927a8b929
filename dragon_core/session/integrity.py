"""What must hold at one end between two events. For tests, and for whoever looks for a defect."""

from collections.abc import Iterator

from dragon_core.errors import OurError
from dragon_core.session.end import SessionEnd
from dragon_core.session.lifecycle import State
from dragon_core.types import Peer


def require_sound(end: SessionEnd) -> None:
    """Look at all parts together.

    Raises:
        OurError: names everything that does not hold.
    """
    problems = "; ".join(_problems(end))
    if problems:
        raise OurError(f"the {end.us} is not sound while it is {end.state}: {problems}")


def _problems(end: SessionEnd) -> Iterator[str]:
    answer, settling, alone = end.answer, end.settling, end.settling.alone
    if len(answer.details) != len(answer.tokens):
        yield f"{len(answer.tokens)} tokens with {len(answer.details)} details"
    if any(position >= answer.next_position for position in answer.degraded):
        yield "a position is degraded that has no target"
    if end.state is State.CLOSED:
        if end.timers.next_at is not None:
            yield "a timer is set"
        return
    if end.timers.next_at is None:
        yield "no timer is set, so nothing ends it"
    if end.state is State.RUNNING and (end.ours is None or settling.aggregator is None):
        yield "there is no engine, or nobody fixes targets"
    if alone is not None and (end.us is Peer.OTHER or not settling.is_ours):
        yield "it is alone, and another end fixes targets"
    if settling.aggregator is end.us.opposite and len(settling.theirs):
        yield f"{len(settling.theirs)} frames are kept for an aggregator that is elsewhere"
    if settling.theirs.current is not None and settling.theirs.current.position != answer.next_position:
        yield f"their current frame is at {settling.theirs.current.position}, {answer.next_position} are settled"
    if end.term.position > answer.next_position:
        yield f"the term began at {end.term.position}, {answer.next_position} are settled"
    if end.ours is not None:
        tree = end.ours.drafting.tree
        if tree.next_position != answer.next_position:
            yield f"the drafts continue {tree.next_position} targets, {answer.next_position} are settled"
        yield from tree.problems()
