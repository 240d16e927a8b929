"""The language model in this process: one thread decodes what all sessions have ready, one batch after the other.

Mixing, cutting and quantising happen on that thread too, with the core's functions. The event loop never waits for it.
What sessions want of the thread, and which batch is aborted, is `workload`'s; what a batch is, `batches`'.
"""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dragon_core.errors import DragonError, EngineError
from dragon_core.types import Vocabulary
from dragon_runtime.engines.llama.batches import Answer, Logits, PromptPiece, Steps, decode
from dragon_runtime.engines.llama.branches import PREFILL_CHUNK
from dragon_runtime.engines.llama.deliveries import Deliveries, LoopDeliveries
from dragon_runtime.engines.llama.free_sequences import FreeSequences
from dragon_runtime.engines.llama.memory import DecodeAborted, LlamaSequences, load_sequences
from dragon_runtime.engines.llama.model import LlamaModel
from dragon_runtime.engines.llama.pace import EngineObserver, Pace
from dragon_runtime.engines.llama.session import LlamaSession, require_sound
from dragon_runtime.engines.llama.workload import Released, Workload
from dragon_runtime.interfaces import EngineRequest, FailureListener, StepListener

logger = logging.getLogger(__name__)

SWITCH_SECONDS = 0.0005
"""How long the event loop waits at most for the thread, which publishes in Python, to let go of the interpreter."""


class LlamaEngine:
    """A GGUF model that steps several sessions at once; see `Engine`. Made by `load`."""

    def __init__(
        self,
        model: LlamaModel,
        memory: LlamaSequences,
        *,
        num_sequences: int,
        prefill_chunk: int = PREFILL_CHUNK,
        observer: EngineObserver | None = None,
        deliveries: Deliveries | None = None,
    ) -> None:
        self._model, self._memory, self._prefill_chunk = model, memory, prefill_chunk
        self._loop = asyncio.get_running_loop()
        self._free = FreeSequences(num_sequences)
        self._pace = Pace(observer)
        self._deliveries = LoopDeliveries(self._loop) if deliveries is None else deliveries
        self._workload = Workload(memory, self._deliveries)
        self._thread = threading.Thread(target=self._run, name="llama", daemon=True)

    @classmethod
    async def load(
        cls,
        path: Path,
        *,
        context_length: int,
        num_sequences: int,
        num_threads: int | None = None,
        num_gpu_layers: int = 0,
        prefill_chunk: int = PREFILL_CHUNK,
        observer: EngineObserver | None = None,
        deliveries: Deliveries | None = None,
    ) -> "LlamaEngine":
        """Load a model, measure a step of it, and start the thread. `observer` is told what its thread does.

        `deliveries`: how steps get to listeners that are not on this event loop.

        Raises:
            ModelError: no such file, no GGUF, damaged, or no memory for it.
        """
        model, memory = await asyncio.to_thread(
            load_sequences,
            path,
            num_sequences=num_sequences,
            context_length=context_length,
            num_threads=num_threads or max(1, (os.cpu_count() or 2) - 1),
            num_gpu_layers=num_gpu_layers,
        )
        engine = cls(
            model,
            memory,
            num_sequences=num_sequences,
            prefill_chunk=prefill_chunk,
            observer=observer,
            deliveries=deliveries,
        )
        await engine.start()
        return engine

    async def start(self) -> None:
        """Measure a step and start the thread, which owns model and memory from now on."""
        await asyncio.to_thread(self._pace.warm_up, self._memory)
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_SECONDS))
        self._thread.start()

    async def close(self) -> None:
        """Stop the thread and free the model; sessions that are still open fail."""
        self._workload.stop()
        await asyncio.to_thread(self._thread.join)
        self._memory.close()
        self._model.close()

    @property
    def vocabulary(self) -> Vocabulary:
        return self._model.vocabulary

    @property
    def context_length(self) -> int:
        return self._memory.context_length

    @property
    def decode_seconds(self) -> float:
        return self._pace.decode_seconds

    @property
    def chat_template(self) -> str:
        return self._model.chat_template

    @property
    def bos_text(self) -> str:
        return self._model.bos_text

    @property
    def eos_text(self) -> str:
        return self._model.eos_text

    @property
    def num_free_sequences(self) -> int:
        """Sequences no session holds."""
        return self._free.num_free

    @property
    def num_decodes(self) -> int:
        """Batches decoded so far."""
        return self._memory.num_decodes

    @property
    def is_busy(self) -> bool:
        """Whether there is something to decode."""
        return self._workload.is_busy

    @property
    def is_idle(self) -> bool:
        """Whether no session is open, or is about to be, or is not freed yet. On the event loop."""
        return not self._free.num_holders

    def check_integrity(self) -> None:
        """Check an idle engine: every sequence is free once and empty, and nothing waits or runs. On the event loop.

        Raises:
            EngineError: a session is open, or something is left of one.
        """
        # In this order: memory is the thread's as long as a session is anywhere.
        problem = self._free.problem or self._workload.problem or self._memory.problem
        if problem is not None:
            raise EngineError(f"the language model is not as it was before its sessions: {problem}")

    def require_running(self) -> None:
        """Check that the thread runs.

        Raises:
            EngineError: it ended.
        """
        failure = self._workload.failure
        if failure is not None:
            raise EngineError(f"the language model stopped: {failure}") from failure

    def tokenise(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text`; see `Engine`."""
        return self._model.tokenise(text, special=special)

    async def open(self, request: EngineRequest, *, on_step: StepListener, on_failure: FailureListener) -> LlamaSession:
        """Prefill all contexts; see `Engine`."""
        require_sound(request, num_vocabulary=len(self.vocabulary), context_length=self.context_length)
        session = LlamaSession(
            request,
            self._free.take(len(request.prompts) * request.max_branches),
            num_vocabulary=len(self.vocabulary),
            prefill_chunk=self._prefill_chunk,
            submit=self._workload.submit,
            release=self._release,
            on_step=on_step,
            on_failure=on_failure,
        )
        self._workload.add(session)
        try:
            self.require_running()
            await session.prefilled
        except BaseException:
            await session.close()
            raise
        return session

    def _release(self, session: LlamaSession) -> "asyncio.Future[None]":
        """Have the thread forget a session; done when its sequences are free again."""
        released = Released(session, self._loop.create_future())
        if not self._workload.release(released):
            self._take_back(released)
        return released.done

    def _take_back(self, released: Released) -> None:
        self._free.give_back(released.session.decoding.sequences.all_sequences)
        if not released.done.done():
            released.done.set_result(None)

    # -- the thread -----------------------------------------------------------------------------------------------

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
