"""Which message is legal when: the table every arriving message goes through first."""

import enum

from dragon_core.errors import PeerError
from dragon_core.messages import (
    Accepted,
    AnyMessage,
    Draft,
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
from dragon_core.types import Peer


class State(enum.StrEnum):
    """Where a session stands at one end."""

    IDLE = "idle"
    OPENING = "opening"
    PREPARING = "preparing"
    RUNNING = "running"
    FINISHING = "finishing"
    CLOSED = "closed"


_TOKENS = (Draft, Target, MoveRequest, Handover)
_ALWAYS = (Probe, Failure, Resume, Finish)
LEGAL: dict[Peer, dict[State, tuple[type, ...]]] = {
    Peer.OPENER: {
        State.OPENING: (Accepted, Refused, Ready, *_TOKENS, *_ALWAYS),
        State.PREPARING: (Accepted, Refused, Ready, *_TOKENS, *_ALWAYS),
        State.RUNNING: (Accepted, Refused, Ready, *_TOKENS, *_ALWAYS),
        State.FINISHING: (Accepted, Refused, Ready, *_TOKENS, *_ALWAYS),
    },
    Peer.OTHER: {
        State.IDLE: (Open,),
        State.PREPARING: (Open, Ready, *_TOKENS, *_ALWAYS),
        State.RUNNING: (Open, Ready, *_TOKENS, *_ALWAYS),
        State.FINISHING: (Open, Ready, *_TOKENS, *_ALWAYS),
    },
}


def require_legal(us: Peer, state: State, message: AnyMessage) -> None:
    """Refuse a message that has no place here.

    Raises:
        PeerError: names the message and the state.
    """
    if not isinstance(message, LEGAL[us].get(state, ())):
        raise PeerError(f"{type(message).__name__} has no place while this end is {state}", field="message")
