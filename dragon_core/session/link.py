"""The link as a session's own traffic shows it: no probe is sent while messages flow."""

from dataclasses import dataclass

SMOOTHING = 0.125
"""Weight of a new sample, as in TCP (RFC 6298)."""


@dataclass(slots=True)
class LinkEstimate:
    """Smoothed round trip and jitter in seconds; None until measured."""

    rtt_seconds: float | None = None
    jitter_seconds: float = 0.0

    def add(self, sample_seconds: float) -> None:
        """Take one measured round trip; negative ones (a peer's clock arithmetic) count as zero."""
        sample = max(0.0, sample_seconds)
        if self.rtt_seconds is None:
            self.rtt_seconds, self.jitter_seconds = sample, sample / 2
            return
        self.jitter_seconds += 2 * SMOOTHING * (abs(sample - self.rtt_seconds) - self.jitter_seconds)
        self.rtt_seconds += SMOOTHING * (sample - self.rtt_seconds)
