"""What an end counts, in a registry of its own. Names start with the end's prefix: dragon_edge or dragon_cloud.

Histograms carry no device, session or document: their number of series must not grow with the fleet.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from dragon_core.messages import FinishReason
from dragon_core.session.events import Report
from dragon_runtime.answering.cost import AnswerCost
from dragon_runtime.answering.sides import SIDES

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_TOKEN_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)
_ANSWER_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


class PeerMetrics:
    """The metrics of one end."""

    def __init__(self, prefix: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        registry = self.registry
        self._answers = Counter(f"{prefix}_answers", "Answers that ended.", ["reason"], registry=registry)
        self._tokens = Counter(f"{prefix}_tokens", "Tokens of all answers.", registry=registry)
        self._degraded = Counter(f"{prefix}_degraded_tokens", "Tokens written by the edge alone.", registry=registry)
        self._steps = Counter(f"{prefix}_steps", "Steps of the language models.", ["side"], registry=registry)
        self._wasted = Counter(
            f"{prefix}_wasted_steps", "Steps whose results were dropped.", ["side"], registry=registry
        )
        self._bytes = Counter(f"{prefix}_frame_bytes", "Bytes of frames.", ["direction"], registry=registry)
        self._placements = Counter(f"{prefix}_placements", "Answers by aggregating end.", ["side"], registry=registry)
        self._hit_rate = Histogram(
            f"{prefix}_hit_rate", "Hit rate of an answer.", ["side"], buckets=_RATES, registry=registry
        )
        self._first = Histogram(
            f"{prefix}_first_token_seconds", "Time to the first token.", buckets=_ANSWER_SECONDS, registry=registry
        )
        self._per_token = Histogram(
            f"{prefix}_token_seconds", "Mean time per token of an answer.", buckets=_TOKEN_SECONDS, registry=registry
        )
        self.open_sessions = Gauge(f"{prefix}_open_sessions", "Sessions that are running.", registry=registry)
        self._free_sequences = Gauge(
            f"{prefix}_free_sequences", "Sequences of the language model that no session holds.", registry=registry
        )
        self.is_connected = Gauge(f"{prefix}_broker_connected", "Whether the broker is connected.", registry=registry)
        self.rtt = Gauge(f"{prefix}_rtt_seconds", "Round trip to the other end, of the last answer.", registry=registry)

    def record(self, reason: FinishReason, report: Report, cost: AnswerCost) -> None:
        """Count a finished answer."""
        self._answers.labels(reason=reason.value).inc()
        self._tokens.inc(report.num_tokens)
        self._degraded.inc(report.num_degraded)
        self._placements.labels(side=SIDES[report.aggregator]).inc()
        for peer, side in SIDES.items():
            self._steps.labels(side=side).inc(report.num_steps.get(peer, 0))
            self._wasted.labels(side=side).inc(report.num_wasted_steps.get(peer, 0))
            hit_rate = report.hit_rate.get(peer)
            if hit_rate is not None:
                self._hit_rate.labels(side=side).observe(hit_rate)
        self._bytes.labels(direction="sent").inc(cost.sent_bytes)
        self._bytes.labels(direction="received").inc(cost.received_bytes)
        if cost.first_token_seconds is not None:
            self._first.observe(cost.first_token_seconds)
        if cost.seconds_per_token is not None:
            self._per_token.observe(cost.seconds_per_token)
        if report.rtt_seconds is not None:
            self.rtt.set(report.rtt_seconds)

    def watch_free_sequences(self, count: Callable[[], int]) -> None:
        """Have every scrape ask `count`."""
        self._free_sequences.set_function(count)

    def set_connected(self, is_connected: bool) -> None:
        """Whether the broker is connected."""
        self.is_connected.set(is_connected)

    def render(self) -> bytes:
        """The text a scrape gets."""
        return generate_latest(self.registry)
