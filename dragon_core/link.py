"""The link as a session's own traffic shows it: no probe is sent while messages flow."""

from dataclasses import dataclass

from dragon_core.limits import MAX_RTT_SECONDS

SMOOTHING = 0.125
"""Weight of a new sample, as in TCP (RFC 6298)."""


@dataclass(slots=True)
class LinkEstimate:
    """Smoothed round trip in seconds; None until measured."""

    rtt_seconds: float | None = None

    def add(self, sample_seconds: float) -> None:
        """Take one measured round trip; negative ones (rounding) count as zero, long ones as the longest believed."""
        sample = min(max(0.0, sample_seconds), MAX_RTT_SECONDS)
        if self.rtt_seconds is None:
            self.rtt_seconds = sample
        else:
            self.rtt_seconds += SMOOTHING * (sample - self.rtt_seconds)
