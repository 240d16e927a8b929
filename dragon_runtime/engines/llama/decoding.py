"""What the engine's thread has of a session: its sequences, and the step after its prompts."""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dragon_core.errors import EngineError
from dragon_core.types import Step
from dragon_runtime.engines.llama.branches import SessionSequences
from dragon_runtime.engines.publishing import publish_step
from dragon_runtime.interfaces import EngineRequest


class Decoding:
    """Of one session. Belongs to the engine's thread.

    `first_step` answers feeds without tokens; it is None until the prompts are in place.
    """

    def __init__(self, request: EngineRequest, sequences: Sequence[int], *, prefill_chunk: int) -> None:
        self._request = request
        self.sequences = SessionSequences(request, sequences, prefill_chunk=prefill_chunk)
        self.prompt_logits: list[NDArray[np.float32]] = []
        self.first_step: Step | None = None
        self.opened_at = time.perf_counter()
        self.prefill_started_at: float | None = None
        self.has_failed = False

    @property
    def is_stepping(self) -> bool:
        """Whether its prompts are in place and commands wait."""
        return self.first_step is not None and self.sequences.num_waiting > 0

    def publish(self, logits: Sequence[NDArray[np.float32]]) -> Step:
        """Mix one step's logits; see `publish_step`.

        Raises:
            EngineError: logits that are no numbers.
        """
        if not np.isfinite([row.max() for row in logits]).all():
            raise EngineError("the language model computed nan or infinity: its file may be damaged; get it again")
        return publish_step(self._request, logits)
