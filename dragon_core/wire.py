"""Envelopes of one session: order, gaps, and the round trip measured from their echoes."""

from dragon_core.link import LinkEstimate
from dragon_core.messages import AnyMessage, Envelope


class Wire:
    """Seals what is sent and checks the order of what is received. Times in seconds of our own clock."""

    def __init__(self, link: LinkEstimate) -> None:
        self._link = link
        self._sequence = 0
        self.last_received: int | None = None
        self._echo_ms: int | None = None
        self._received_at = 0.0

    @property
    def last_sent(self) -> int:
        """The sequence number of the newest envelope; -1 before any."""
        return self._sequence - 1

    def restart_receiving(self) -> None:
        """Another replica speaks from now on, with sequence numbers of its own."""
        self.last_received = None
        self._echo_ms = None

    def seal(self, message: AnyMessage, *, term: int = 0, now: float) -> Envelope:
        """The next envelope around `message`."""
        hold_ms = 0 if self._echo_ms is None else round((now - self._received_at) * 1000)
        envelope = Envelope(term, self._sequence, round(now * 1000), self._echo_ms, hold_ms, message)
        self._sequence += 1
        return envelope

    def unseal(self, envelope: Envelope, now: float) -> bool | None:
        """Take an arriving envelope: None for a repeated one, else whether any are missing before it."""
        last = self.last_received
        if last is not None and envelope.sequence <= last:
            return None
        self.last_received = envelope.sequence
        if envelope.echo_ms is not None:
            self._link.add(now - (envelope.echo_ms + envelope.hold_ms) / 1000)
        self._echo_ms, self._received_at = envelope.sent_ms, now
        return last is not None and envelope.sequence > last + 1
