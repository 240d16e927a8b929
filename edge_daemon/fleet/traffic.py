"""Figures of a device's answers for its fleet: since the daemon's start, and of the last answers."""

import statistics
from collections import deque

from dragon_core.fleet.messages import LinkReport, Side
from dragon_core.session.events import Report
from dragon_core.types import Peer
from dragon_runtime.answering.sides import EDGE, SIDES
from dragon_runtime.channel.probe import CloudProbe
from dragon_runtime.settings import PlacementChoice

NUM_RECENT = 20


class Traffic:
    """Counts answers; `probe` knows the link while there are none."""

    def __init__(self, probe: CloudProbe) -> None:
        self._probe = probe
        self._hit_rates: deque[float] = deque(maxlen=NUM_RECENT)
        self._placement: Peer | None = None
        self._num_answers = self._num_tokens = self._num_degraded = 0

    def take(self, report: Report, *, is_solo: bool) -> None:
        """An answer ended. One that was asked of the device alone says nothing of the cloud."""
        self._num_answers += 1
        self._num_tokens += report.num_tokens
        if is_solo:
            return
        self._num_degraded += int(report.num_degraded > 0)
        self._placement = report.aggregator
        rates = [rate for rate in report.hit_rate.values() if rate is not None]
        if rates:
            self._hit_rates.append(statistics.fmean(rates))

    def report(self, *, session: str, sequence: int, pinned: PlacementChoice) -> LinkReport:
        """The figures now."""
        placement: Side | None = None if self._placement is None else SIDES[self._placement]
        reason = "" if placement is None else "Measured" if pinned is PlacementChoice.AUTO else "Pinned"
        if not self._probe.is_answered:
            placement, reason = SIDES[EDGE], "CloudUnreachable"
        return LinkReport(
            session=session,
            sequence=sequence,
            rtt_seconds=self._probe.rtt_seconds if self._probe.is_answered else None,
            jitter_seconds=self._probe.jitter_seconds,
            loss=self._probe.loss,
            placement=placement,
            placement_reason=reason,
            hit_rate=statistics.fmean(self._hit_rates) if self._hit_rates else None,
            answers=self._num_answers,
            tokens=self._num_tokens,
            degraded_answers=self._num_degraded,
        )
