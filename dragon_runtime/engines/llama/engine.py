"""The language model in this process, as its sessions and its owner see it. One thread decodes: see `thread`.

The event loop never waits for that thread. Who has which sequences is known here, and nothing of what is decoded.
"""

import asyncio
import os
import sys
from pathlib import Path

from dragon_core.errors import EngineError
from dragon_core.types import Vocabulary
from dragon_runtime.engines.llama.branches import PREFILL_CHUNK
from dragon_runtime.engines.llama.deliveries import Deliveries, LoopDeliveries
from dragon_runtime.engines.llama.free_sequences import FreeSequences
from dragon_runtime.engines.llama.memory import LlamaSequences, load_sequences
from dragon_runtime.engines.llama.model import LlamaModel
from dragon_runtime.engines.llama.pace import EngineObserver, Pace
from dragon_runtime.engines.llama.session import LlamaSession, require_sound
from dragon_runtime.engines.llama.thread import EngineThread
from dragon_runtime.engines.llama.workload import Released, Workload
from dragon_runtime.interfaces import EngineRequest, FailureListener, StepListener

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
        self._thread = EngineThread(
            memory, self._workload, deliveries=self._deliveries, pace=self._pace, take_back=self._take_back
        )

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
