"""Where a session stands at one end, and what may happen there: one table each for moves, arrivals and what is sent."""

import enum

from dragon_core.errors import OurError, PeerError
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
ARRIVING: dict[Peer, dict[State, tuple[type, ...]]] = {
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
"""What the other end may send us (docs/protocol-session.md, section 8)."""

_ANSWER = (Ready, Draft, Target, Resume, Finish, Failure)
SENT: dict[Peer, dict[State, tuple[type, ...]]] = {
    Peer.OPENER: {
        State.OPENING: (Open,),
        State.PREPARING: (Open, *_ANSWER),
        State.RUNNING: (Open, *_ANSWER, MoveRequest, Handover),
        State.FINISHING: (Open, *_ANSWER),
    },
    Peer.OTHER: {
        State.IDLE: (Refused, Failure),
        State.PREPARING: (Accepted, Refused, *_ANSWER),
        State.RUNNING: (Accepted, Refused, *_ANSWER, MoveRequest, Handover),
        State.FINISHING: (Accepted, Refused, *_ANSWER),
    },
}
"""What we send: no more than the other end takes."""

MOVES: dict[Peer, dict[State, tuple[State, ...]]] = {
    Peer.OPENER: {
        State.OPENING: (State.PREPARING, State.RUNNING, State.CLOSED),
        State.PREPARING: (State.RUNNING, State.CLOSED),
        State.RUNNING: (State.FINISHING, State.CLOSED),
        State.FINISHING: (State.CLOSED,),
        State.CLOSED: (),
    },
    Peer.OTHER: {
        State.IDLE: (State.PREPARING, State.CLOSED),
        State.PREPARING: (State.RUNNING, State.FINISHING, State.CLOSED),
        State.RUNNING: (State.FINISHING, State.CLOSED),
        State.FINISHING: (State.RUNNING, State.CLOSED),  # an opener that lost us goes on from an earlier position
        State.CLOSED: (),
    },
}


class Lifecycle:
    """The state of one end. `go` alone changes it."""

    def __init__(self, us: Peer, state: State) -> None:
        self.us = us
        self._state = state

    @property
    def state(self) -> State:
        return self._state

    def go(self, to: State) -> None:
        """Move on; staying is no move.

        Raises:
            OurError: there is no such move from here: a defect of ours.
        """
        if to is self._state:
            return
        if to not in MOVES[self.us].get(self._state, ()):
            raise OurError(f"a session of the {self.us} cannot go from {self._state} to {to}")
        self._state = to

    def require_may_arrive(self, message: AnyMessage) -> None:
        """Refuse a message that has no place here.

        Raises:
            PeerError: names the message and the state.
        """
        if not isinstance(message, ARRIVING[self.us].get(self._state, ())):
            raise PeerError(f"{type(message).__name__} has no place while this end is {self._state}", field="message")

    def require_may_be_sent(self, message: AnyMessage) -> None:
        """Find what we must not send before the other end does.

        Raises:
            OurError: names the message and the state: a defect of ours.
        """
        if not isinstance(message, SENT[self.us].get(self._state, ())):
            raise OurError(f"the {self.us} does not send {type(message).__name__} while it is {self._state}")
