"""Envelopes of one session: order, gaps, and the round trip measured from their echoes."""

from dragon_core.link import LinkEstimate
from dragon_core.messages import AnyMessage, Envelope

ROUNDING_MS = 2
"""Three times in whole milliseconds are in a sample."""


class Wire:
    """Seals what is sent and checks the order of what is received. Times in seconds of our own clock.

    An echo of a time that we did not send, or that was held for longer than it is ago, is no sample.
    """

    def __init__(self, link: LinkEstimate) -> None:
        self._link = link
        self._sequence = 0
        self.last_received: int | None = None
        self._echo_ms: int | None = None
        self._received_at = 0.0
        self._sent_ms: range | None = None
        """From the first time that was sent to the last one."""

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
        sent_ms = round(now * 1000)
        self._sent_ms = range(sent_ms if self._sent_ms is None else self._sent_ms.start, sent_ms + 1)
        envelope = Envelope(term, self._sequence, sent_ms, self._echo_ms, hold_ms, message)
        self._sequence += 1
        return envelope

    def unseal(self, envelope: Envelope, now: float) -> bool | None:
        """Take an arriving envelope: None for a repeated one, else whether any are missing before it."""
        last = self.last_received
        if last is not None and envelope.sequence <= last:
            return None
        self.last_received = envelope.sequence
        echo_ms, hold_ms = envelope.echo_ms, envelope.hold_ms
        if echo_ms is not None and self._sent_ms is not None and echo_ms in self._sent_ms:
            sample_ms = now * 1000 - (echo_ms + hold_ms)
            if sample_ms >= -ROUNDING_MS:
                self._link.add(sample_ms / 1000)
        self._echo_ms, self._received_at = envelope.sent_ms, now
        return last is not None and envelope.sequence > last + 1
