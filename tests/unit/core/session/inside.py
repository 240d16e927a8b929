"""A look inside a session's end, for tests that bring one into a state or push messages past its partner."""

from dragon_core.session.end import SessionEnd
from dragon_core.wire import Wire
from simulator.peer_pair import PairEnd


def inside(end: PairEnd) -> SessionEnd:
    """All that a session knows, once it has a request."""
    found = end.session._end
    assert isinstance(found, SessionEnd), "nothing was asked of it yet"
    return found


def wire_of(end: PairEnd) -> Wire:
    return end.session._end.contact.wire


def term_of(end: PairEnd) -> int:
    found = end.session._end
    return found.term.number if isinstance(found, SessionEnd) else 0


def next_position_of(end: PairEnd) -> int:
    found = end.session._end
    return found.answer.next_position if isinstance(found, SessionEnd) else 0
