"""The one thread of an engine: it decodes what all sessions have ready, one batch after the other.

Mixing, cutting and quantising happen here too, with the core's functions. What sessions want of the thread, and which
batch is aborted, is `workload`'s; what a batch is, `batches`'.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

from dragon_core.errors import DragonError, EngineError
from dragon_runtime.engines.llama.batches import Answer, Logits, PromptPiece, Steps, decode
from dragon_runtime.engines.llama.deliveries import Deliveries
from dragon_runtime.engines.llama.memory import DecodeAborted, LlamaSequences
from dragon_runtime.engines.llama.pace import Pace
from dragon_runtime.engines.llama.session import LlamaSession
from dragon_runtime.engines.llama.workload import Released, Workload

logger = logging.getLogger(__name__)


class EngineThread:
    """Owns memory from `start` until `join` returns. `take_back` is called on the event loop."""

    def __init__(
        self,
        memory: LlamaSequences,
        workload: Workload,
        *,
        deliveries: Deliveries,
        pace: Pace,
        take_back: Callable[[Released], None],
    ) -> None:
        self._memory, self._workload, self._deliveries, self._pace = memory, workload, deliveries, pace
        self._take_back = take_back
        self._thread = threading.Thread(target=self._run, name="llama", daemon=True)

    def start(self) -> None:
        """Begin to take what the workload has."""
        self._thread.start()

    def join(self) -> None:
        """Wait until it has ended, which the workload is told to bring about."""
        self._thread.join()

    def _run(self) -> None:
        error: Exception = EngineError("the language model was closed")
        try:
            while self._turn():
                pass
        except Exception as found:
            logger.exception("the engine's thread ended")
            error = found
        self._deliveries.close()  # from now on a session's end does not wait for this thread
        left = self._workload.end(error)
        for released in left.released:
            self._deliveries.call(self._take_back, released)
        for session in left.sessions:
            self._deliveries.call(session.fail, error)

    def _turn(self) -> bool:
        """Schedule, decode, publish, deliver: a piece of one prompt, and a step of all the rest. False at the end."""
        work = self._workload.take(step_seconds=self._pace.decode_seconds)
        if work is None:
            return False
        for released in work.released:
            self._free_sequences(released)
        self._deliver(work.made)
        prompting = next((session for session in work.sessions if session.decoding.first_step is None), None)
        if prompting is not None:
            with self._at_the_cost_of([prompting]):
                piece = PromptPiece.of(prompting)
                logits = self._decode(piece)
                if piece.publish(logits):
                    self._deliver_prefilled(prompting)
        stepping = [session for session in work.sessions if session.decoding.is_stepping]
        if stepping:
            with self._at_the_cost_of(stepping):
                steps = Steps.of(stepping, self._memory)
                logits = self._decode(steps)
                answers = steps.publish(logits)
                self._pace.stepped(steps)
                # Only now: the listeners' own work would slow down what is still to be published.
                self._deliver(answers)
        return True

    @contextmanager
    def _at_the_cost_of(self, sessions: Sequence[LlamaSession]) -> Iterator[None]:
        """A batch that cannot be decoded ends the sessions in it, not the engine."""
        try:
            yield
        except DecodeAborted as aborted:
            logger.debug("%s: nobody waits for it any more", aborted)
        except DragonError as error:
            logger.warning("a batch failed: %s", error)
            for session in sessions:
                session.decoding.has_failed = True
                self._deliveries.call(session.fail, error)

    def _decode(self, batch: PromptPiece | Steps) -> Logits:
        """The workload knows of the batch before it is decoded, or else it could not be aborted in time."""
        if not batch.pieces:
            return []
        self._workload.begin(batch.running)
        return decode(self._memory, batch.pieces)

    def _deliver(self, answers: Collection[Answer]) -> None:
        """To the listeners; the steps that they are likely to ask for next are made while these are on a long way."""
        self._deliveries.deliver(answers)
        if self._deliveries.leaves_time:
            for answer in answers:
                answer.session.decoding.sequences.run_ahead(answer.feed.branch, answer.step)

    def _deliver_prefilled(self, session: LlamaSession) -> None:
        self._deliveries.call(session.set_prefilled, time.perf_counter() - session.decoding.opened_at)
        self._pace.prefilled(session.decoding)

    def _free_sequences(self, released: Released) -> None:
        for sequence in released.session.decoding.sequences.all_sequences:
            self._memory.cut(sequence, 0)
        self._deliveries.call(self._take_back, released)
