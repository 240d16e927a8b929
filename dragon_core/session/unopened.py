"""The other end before an Open: it takes one, or refuses what comes instead."""

from dragon_core.errors import PeerError
from dragon_core.messages import (
    MAX_REASON_CHARACTERS,
    PROTOCOL_VERSION,
    AnyMessage,
    Envelope,
    Failure,
    FinishReason,
    Open,
    Refused,
    require_known,
    require_same,
)
from dragon_core.session.contact import Contact
from dragon_core.session.end import SessionEnd
from dragon_core.session.events import Cancelled, Closed, Effect, EngineFailed, Event, Fault, Received, Refuse, Send
from dragon_core.session.lifecycle import Lifecycle, State
from dragon_core.session.settings import SessionSettings
from dragon_core.types import Peer


class Unopened:
    """Nothing is known yet but how to answer. `end` is there once an Open was taken."""

    def __init__(self, settings: SessionSettings) -> None:
        self._settings = settings
        self.lifecycle = Lifecycle(Peer.OTHER, State.IDLE)
        self.contact = Contact(is_bound=True)
        self.end: SessionEnd | None = None

    def receive(self, event: Event, now: float) -> list[Effect]:
        """Take one event; what follows an Open that is taken is the new end's."""
        if self.lifecycle.state is State.CLOSED:
            return []
        match event:
            case Received(envelope):
                return self._on_received(envelope, now)
            case Refuse():
                refused = _refused(event.reason, event.field, event.retry_after_seconds)
                return self._close_with(event.fault, event.reason, refused, now=now)
            case EngineFailed(reason):
                return self._close_with(Fault.OURS, reason, _failure(reason), now=now)
            case Cancelled():
                self.lifecycle.go(State.CLOSED)
                return [Closed(reason=FinishReason.CANCELLED, fault=None, error="", report=None)]
        return []

    def _on_received(self, envelope: Envelope, now: float) -> list[Effect]:
        message = envelope.message
        try:
            self.lifecycle.require_may_arrive(message)
        except PeerError as error:
            return self._close_with(Fault.THEIRS, str(error), _failure(str(error), error.field), now=now)
        assert isinstance(message, Open)  # noqa: S101 - nothing else may arrive
        self.contact.wire.unseal(envelope, now)
        try:
            require_answerable(self._settings, message)
        except PeerError as error:
            refused = _refused(str(error), error.field, None)
            return self._close_with(Fault.THEIRS, str(error), refused, now=now, term=envelope.term)
        self.end = SessionEnd(self.lifecycle, self._settings, message, self.contact, now=now)
        self.end.term.adopt(envelope.term)
        return []

    def _close_with(self, fault: Fault, error: str, message: AnyMessage, *, now: float, term: int = 0) -> list[Effect]:
        self.lifecycle.require_may_be_sent(message)
        self.lifecycle.go(State.CLOSED)
        envelope = self.contact.wire.seal(message, term=term, now=now)
        return [Send(envelope), Closed(reason=FinishReason.ERROR, fault=fault, error=error, report=None)]


def require_answerable(settings: SessionSettings, message: Open) -> None:
    """Refuse a request that both ends would not compute alike.

    Raises:
        PeerError: names the field, with both values where the two ends differ.
    """
    if message.version != PROTOCOL_VERSION:
        raise PeerError(f"protocol version {message.version}; here {PROTOCOL_VERSION}", field="version")
    require_same(settings.fingerprint, message.fingerprint)
    require_known(settings.vocabulary, message.settled, field="settled")
    num_settled = len(message.settled)
    if num_settled >= message.max_tokens or not settings.vocabulary.end_ids.isdisjoint(message.settled):
        raise PeerError(f"an answer that has ended: {num_settled} of {message.max_tokens} tokens", field="settled")


def _refused(reason: str, field: str, retry_after_seconds: float | None) -> Refused:
    return Refused(reason=reason[:MAX_REASON_CHARACTERS], field=field, retry_after_seconds=retry_after_seconds)


def _failure(reason: str, field: str = "") -> Failure:
    return Failure(reason=reason[:MAX_REASON_CHARACTERS], field=field)
