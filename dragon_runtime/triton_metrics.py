"""What `causal_lm` counts, as custom metrics of Triton. Listed in docs/triton.md."""

import threading
from typing import Any

_BATCH_SIZES = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]
_SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]


class CausalLmMetrics:
    """See `ServiceObserver`. Told from the engine's thread and the service's: Triton's objects need one lock."""

    def __init__(self, pb_utils: Any) -> None:
        """Register the metrics with Triton's module for Python models."""
        self._lock = threading.Lock()
        self._families: list[Any] = []
        """A metric is worth nothing once its family is collected."""
        family = pb_utils.MetricFamily

        def metric(kind: Any, name: str, description: str, **options: Any) -> Any:
            made = family(name=f"dragon_causal_lm_{name}", description=description, kind=kind)
            self._families.append(made)
            return made.Metric(labels={}, **options)

        def counter(name: str, description: str) -> Any:
            return metric(family.COUNTER, name, description)

        def histogram(name: str, description: str, buckets: list[float]) -> Any:
            return metric(family.HISTOGRAM, name, description, buckets=buckets)

        self._sequences = metric(family.GAUGE, "sequences_in_use", "Sequences that sessions hold.")
        self._tokens = counter("tokens_total", "Tokens that were decoded after prompts, of all sequences.")
        self._prompt_tokens = counter("prompt_tokens_total", "Tokens of prompts that were decoded.")
        self._rejected = counter("rejected_total", "Sessions that were refused because no sequences were free.")
        self._batch_sizes = histogram("batch_size", "Sequences of a decode.", _BATCH_SIZES)
        self._queue = histogram("queue_seconds", "Time from an open to its first decode.", _SECONDS)
        self._decode = histogram("decode_seconds", "Time of one step of all sessions that had one.", _SECONDS)
        self._prefill = histogram("prefill_seconds", "Time from a session's first decode to its last.", _SECONDS)

    def holds(self, num_sequences: int) -> None:
        with self._lock:
            self._sequences.set(num_sequences)

    def refused(self) -> None:
        with self._lock:
            self._rejected.increment(1)

    def prefilled(self, num_tokens: int, *, seconds: float, waited_seconds: float) -> None:
        with self._lock:
            self._prompt_tokens.increment(num_tokens)
            self._queue.observe(waited_seconds)
            self._prefill.observe(seconds)

    def stepped(self, num_sequences: int, *, num_tokens: int, seconds: float) -> None:
        with self._lock:
            self._tokens.increment(num_tokens)
            self._batch_sizes.observe(num_sequences)
            self._decode.observe(seconds)
