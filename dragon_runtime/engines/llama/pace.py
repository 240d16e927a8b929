"""How fast an engine's thread is: an estimate for schedules, and what metrics hear of it."""

import time
from typing import Protocol

import numpy as np

from dragon_core.mixture import publish
from dragon_core.types import Cut, Sampling, Weighting, WeightingRule
from dragon_runtime.engines.llama.batches import Steps
from dragon_runtime.engines.llama.decoding import Decoding
from dragon_runtime.engines.llama.memory import LlamaSequences, Piece

SMOOTHING = 0.1
"""Weight of a new sample in `decode_seconds`."""
NUM_WARM_UP_STEPS = 8
RELEVANCE = Weighting(rule=WeightingRule.RELEVANCE)


class EngineObserver(Protocol):
    """What an engine's thread tells of its work, for metrics. Called on that thread."""

    def prefilled(self, num_tokens: int, *, seconds: float, waited_seconds: float) -> None:
        """A session's prompts are in place; it waited so long for its first piece."""

    def stepped(self, num_sequences: int, *, num_tokens: int, seconds: float) -> None:
        """A batch was decoded and published."""


class Pace:
    """Measured on the engine's thread. `decode_seconds`: a recent, smoothed time of one step of all sessions."""

    def __init__(self, observer: EngineObserver | None) -> None:
        self._observer = observer
        self.decode_seconds = 0.0

    def warm_up(self, memory: LlamaSequences) -> None:
        """Decode a little, so that a first estimate is there and memory is touched."""
        samples = []
        for position in range(NUM_WARM_UP_STEPS):
            started = time.perf_counter()
            logits = memory.decode([Piece(0, position, (position,), wants_logits=True)])
            publish(np.stack(logits), None, np.zeros(1), weighting=RELEVANCE, sampling=Sampling(), cut=Cut())
            samples.append(time.perf_counter() - started)
        memory.cut(0, 0)
        self.decode_seconds = sorted(samples)[len(samples) // 2]

    def prefilled(self, decoding: Decoding) -> None:
        """A session's prompts are in place."""
        started = decoding.prefill_started_at
        if self._observer is not None and started is not None:
            self._observer.prefilled(
                sum(map(len, decoding.sequences.prompts)),
                seconds=time.perf_counter() - started,
                waited_seconds=started - decoding.opened_at,
            )

    def stepped(self, steps: Steps) -> None:
        """A batch was published; one without a decode tells nothing."""
        if not steps.pieces:
            return
        seconds = time.perf_counter() - steps.started_at
        self.decode_seconds += SMOOTHING * (seconds - self.decode_seconds)
        if self._observer is not None:
            num_tokens = sum(len(piece.tokens) for piece in steps.pieces)
            self._observer.stepped(len(steps.pieces), num_tokens=num_tokens, seconds=seconds)
