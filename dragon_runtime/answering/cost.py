"""What an answer took at one end: seconds, and bytes of frames."""

from dataclasses import dataclass

from dragon_runtime.interfaces import Channel


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCost:
    """In seconds and bytes of frames. None where nothing was measured."""

    first_token_seconds: float | None
    seconds_per_token: float | None
    sent_bytes: int
    received_bytes: int


@dataclass(slots=True)
class AnswerTimes:
    """When an answer was asked for, and when its first and last token came, on one clock."""

    started: float
    first: float | None = None
    last: float | None = None

    def mark(self, now: float) -> None:
        """A token came."""
        self.last = now
        self.first = self.first or now

    def cost(self, channel: Channel, *, num_tokens: int) -> AnswerCost:
        """What an answer of so many tokens took over this channel."""
        num_after_first = num_tokens - 1
        took = None if self.first is None or self.last is None else self.last - self.first
        return AnswerCost(
            first_token_seconds=None if self.first is None else self.first - self.started,
            seconds_per_token=None if took is None or num_after_first < 1 else took / num_after_first,
            sent_bytes=channel.sent_bytes,
            received_bytes=channel.received_bytes,
        )
