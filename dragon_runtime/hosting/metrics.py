"""What `causal_lm` counts, as custom metrics of Triton. Listed in docs/triton.md."""

import queue
import threading
from collections.abc import Callable
from typing import Any

_BATCH_SIZES = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]
_SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]


class CausalLmMetrics:
    """See `ServiceObserver`. One thread touches Triton's objects: each call goes to the server and back."""

    def __init__(self, pb_utils: Any) -> None:
        """Register the metrics with Triton's module for Python models."""
        self._families: list[Any] = []
        """A metric is worth nothing once its family is collected."""
        family = pb_utils.MetricFamily

        def metric(kind: Any, name: str, description: str, **options: Any) -> Any:
            made = family(name=f"dragon_causal_lm_{name}", description=description, kind=kind)
            self._families.append(made)
            return made.Metric(labels={}, **options)

        def counter(name: str, description: str) -> Callable[[float], None]:
            return metric(family.COUNTER, name, description).increment  # type: ignore[no-any-return]

        def histogram(name: str, description: str, buckets: list[float]) -> Callable[[float], None]:
            return metric(family.HISTOGRAM, name, description, buckets=buckets).observe  # type: ignore[no-any-return]

        self._sequences = metric(family.GAUGE, "sequences_in_use", "Sequences that sessions hold.").set
        self._tokens = counter("tokens_total", "Tokens that were decoded after prompts, of all sequences.")
        self._prompt_tokens = counter("prompt_tokens_total", "Tokens of prompts that were decoded.")
        self._rejected = counter("rejected_total", "Sessions that were refused because no sequences were free.")
        self._batch_sizes = histogram("batch_size", "Sequences of a decode.", _BATCH_SIZES)
        self._queue = histogram("queue_seconds", "Time from an open to its first decode.", _SECONDS)
        self._decode = histogram("decode_seconds", "Time of one step of all sessions that had one.", _SECONDS)
        self._prefill = histogram("prefill_seconds", "Time from a session's first decode to its last.", _SECONDS)
        self._told: queue.SimpleQueue[tuple[Callable[[float], None], float] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._pass_on, name="metrics", daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        while (told := self._told.get()) is not None:
            count, value = told
            count(value)

    def close(self) -> None:
        """Pass on what was told, and end the thread."""
        self._told.put(None)
        self._thread.join()

    def holds(self, num_sequences: int) -> None:
        self._told.put((self._sequences, num_sequences))

    def refused(self) -> None:
        self._told.put((self._rejected, 1))

    def prefilled(self, num_tokens: int, *, seconds: float, waited_seconds: float) -> None:
        self._told.put((self._prompt_tokens, num_tokens))
        self._told.put((self._queue, waited_seconds))
        self._told.put((self._prefill, seconds))

    def stepped(self, num_sequences: int, *, num_tokens: int, seconds: float) -> None:
        self._told.put((self._tokens, num_tokens))
        self._told.put((self._batch_sizes, num_sequences))
        self._told.put((self._decode, seconds))
