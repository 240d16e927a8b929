"""The language model in this process: one thread decodes what all sessions have ready, one batch after the other.

Mixing, cutting and quantising happen on that thread too, with the core's functions. The event loop never waits for it.
A batch that nobody needs any more is aborted: its sessions were closed, or the targets took another path.
"""

import asyncio
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from dragon_core.errors import CapacityError, DragonError, EngineError, OurError, PromptTooLongError
from dragon_core.types import Command, Vocabulary
from dragon_runtime.engines.llama.batches import Answer, Batches, EngineObserver, Running
from dragon_runtime.engines.llama.branches import PREFILL_CHUNK
from dragon_runtime.engines.llama.deliveries import Deliveries, LoopDeliveries
from dragon_runtime.engines.llama.memory import DecodeAborted, LlamaSequences
from dragon_runtime.engines.llama.model import LlamaModel
from dragon_runtime.engines.llama.session import LlamaSession
from dragon_runtime.interfaces import EngineRequest, FailureListener, StepListener

logger = logging.getLogger(__name__)

QUIET_PART, GATHERING_PART = 0.04, 0.15
"""How long to wait for sessions that have nothing to decode yet, in parts of a step: while others still get something,
and at most."""
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
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._num_sequences = num_sequences
        self._free = list(range(num_sequences))
        self._sessions: list[LlamaSession] = []
        self._released: deque[tuple[LlamaSession, asyncio.Future[None]]] = deque()
        self._wake = threading.Condition()
        self._is_stopping = False
        self._failure: Exception | None = None
        self._num_handed_over = 0
        self._deliveries = LoopDeliveries(self._loop) if deliveries is None else deliveries
        self._batches = Batches(memory, on_batch=self._on_batch, observer=observer)
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
        threads = num_threads or max(1, (os.cpu_count() or 2) - 1)

        def load() -> tuple[LlamaModel, LlamaSequences]:
            model = LlamaModel(path, num_gpu_layers=num_gpu_layers)
            try:
                return model, LlamaSequences(
                    model, num_sequences=num_sequences, context_length=context_length, num_threads=threads
                )
            except BaseException:
                model.close()
                raise

        model, memory = await asyncio.to_thread(load)
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
        await asyncio.to_thread(self._batches.warm_up)
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_SECONDS))
        self._thread.start()

    async def close(self) -> None:
        """Stop the thread and free the model; sessions that are still open fail."""
        with self._wake:
            self._is_stopping = True
            self._abort_unwanted()
            self._wake.notify()
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
        return self._batches.decode_seconds

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
        return len(self._free)

    @property
    def num_decodes(self) -> int:
        """Batches decoded so far."""
        return self._memory.num_decodes

    @property
    def is_busy(self) -> bool:
        """Whether there is something to decode."""
        with self._wake:
            return self._has_work()

    def require_running(self) -> None:
        """Check that the thread runs.

        Raises:
            EngineError: it ended.
        """
        if self._failure is not None:
            raise EngineError(f"the language model stopped: {self._failure}") from self._failure

    def tokenise(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text`; see `Engine`."""
        return self._model.tokenise(text, special=special)

    async def open(self, request: EngineRequest, *, on_step: StepListener, on_failure: FailureListener) -> LlamaSession:
        """Prefill all contexts; see `Engine`."""
        self._require_sound(request)
        num_needed = len(request.prompts) * request.max_branches
        if num_needed > len(self._free):
            raise CapacityError(
                f"the answer needs {num_needed} sequences, {len(self._free)} of {self._num_sequences} are free: "
                "raise model.num_sequences, lower branches, or try again later",
                requested=num_needed,
                available=len(self._free),
            )
        taken = [self._free.pop() for _ in range(num_needed)]
        session = LlamaSession(
            request,
            taken,
            num_vocabulary=len(self.vocabulary),
            prefill_chunk=self._prefill_chunk,
            submit=self._submit,
            release=self._release,
            on_step=on_step,
            on_failure=on_failure,
        )
        with self._wake:
            self._sessions.append(session)
            self._wake.notify()
        try:
            self.require_running()
            await session.prefilled
        except BaseException:
            await session.close()
            raise
        return session

    def _require_sound(self, request: EngineRequest) -> None:
        prompts = request.prompts
        if not request.contexts or not all(prompts):
            raise OurError("an engine session needs at least one context, and no prompt may be empty")
        longest = max(len(prompt) for prompt in prompts) + request.max_tokens
        if longest > self.context_length:
            raise PromptTooLongError(num_tokens=longest, max_tokens=self.context_length)
        beyond = [token for prompt in prompts for token in prompt if not 0 <= token < len(self.vocabulary)]
        if beyond:
            raise OurError(f"token {beyond[0]} is beyond the vocabulary of {len(self.vocabulary)}")

    def _submit(self, session: LlamaSession, commands: Sequence[Command]) -> None:
        """Hand commands to the thread."""
        with self._wake:
            session.submitted.inbox.extend(commands)
            self._num_handed_over += 1
            if session.submitted.running:
                session.submitted.give_up(commands)
                self._abort_unwanted()
            self._deliveries.wake(self._wake)

    def _release(self, session: LlamaSession) -> "asyncio.Future[None]":
        """Have the thread forget a session; done when its sequences are free again."""
        released = self._loop.create_future()
        with self._wake:
            if self._failure is not None:
                self._take_back(session, released)
            else:
                self._released.append((session, released))
                self._abort_unwanted()
                self._wake.notify()
        return released

    def _take_back(self, session: LlamaSession, released: "asyncio.Future[None]") -> None:
        self._free.extend(session.decoding.sequences.all_sequences)
        if not released.done():
            released.set_result(None)

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
        with self._wake:
            self._failure = error
            for session, released in self._released:
                self._deliveries.call(self._take_back, session, released)
            self._released.clear()
            for session in self._sessions:
                self._deliveries.call(session.fail, error)

    def _has_work(self) -> bool:
        if self._is_stopping or self._released:
            return True
        return any(session.has_work for session in self._sessions if not session.decoding.has_failed)

    def _is_gathered(self) -> bool:
        """Whether every session has something to decode, or something else must be done first."""
        if self._is_stopping or self._released:
            return True
        return all(session.has_work for session in self._sessions if not session.decoding.has_failed)

    def _gather(self) -> None:
        """With the lock held: wait for sessions as long as they keep coming."""
        seconds = self._batches.decode_seconds
        quiet = max(QUIET_PART * seconds, self._deliveries.listener_seconds)
        given_up_at = time.perf_counter() + GATHERING_PART * seconds
        while not self._is_gathered() and (left := given_up_at - time.perf_counter()) > 0:
            before = self._num_handed_over
            self._wake.wait(min(left, quiet))
            if self._num_handed_over == before:
                return

    def _turn(self) -> bool:
        """At most one piece of one prompt, and one step of everything else; False at the end."""
        with self._wake:
            self._wake.wait_for(self._has_work)
            made = self._take_commands()
        if made:
            self._hand_over(made)
            return True
        with self._wake:
            # One batch of all sessions costs less than two of some: those that are nearly ready are waited for.
            self._gather()
            if self._is_stopping:
                return False
            while self._released:
                session, released = self._released.popleft()
                if session in self._sessions:
                    self._sessions.remove(session)
                for sequence in session.decoding.sequences.all_sequences:
                    self._memory.cut(sequence, 0)
                self._deliveries.call(self._take_back, session, released)
            made = self._take_commands()
            sessions = [session for session in self._sessions if not session.decoding.has_failed]
        self._hand_over(made)
        waiting = next((session for session in sessions if session.decoding.first_step is None), None)
        if waiting is not None:
            self._attempt([waiting], lambda: self._prefill(waiting))
        running = [
            session
            for session in sessions
            if session.decoding.first_step is not None and session.decoding.sequences.num_waiting
        ]
        if running:
            self._attempt(running, lambda: self._step(running))
        return True

    def _take_commands(self) -> list[Answer]:
        """With the lock held: queue what was submitted; returns what was made before it was asked for."""
        made: list[Answer] = []
        for session in self._sessions:
            if session.decoding.has_failed:
                continue
            for command in session.submitted.inbox:
                session.decoding.sequences.enqueue(command)
            session.submitted.inbox.clear()
            made += [Answer(session, feed, step) for feed, step in session.decoding.sequences.take_made()]
        return made

    def _attempt(self, sessions: Sequence[LlamaSession], act: Callable[[], None]) -> None:
        """A batch that cannot be decoded ends the sessions in it, not the engine."""
        try:
            act()
        except DecodeAborted as aborted:
            logger.debug("%s: nobody waits for it any more", aborted)
        except DragonError as error:
            logger.warning("a batch failed: %s", error)
            for session in sessions:
                session.decoding.has_failed = True
                self._deliveries.call(session.fail, error)

    def _prefill(self, session: LlamaSession) -> None:
        if session.decoding.prefill_started_at is None:
            session.decoding.prefill_started_at = time.perf_counter()
        if self._batches.prefill(session):
            self._deliveries.call(session.set_prefilled, time.perf_counter() - session.decoding.opened_at)
            if self._observer is not None:
                started = session.decoding.prefill_started_at
                self._observer.prefilled(
                    sum(map(len, session.decoding.sequences.prompts)),
                    seconds=time.perf_counter() - started,
                    waited_seconds=started - session.decoding.opened_at,
                )

    def _step(self, sessions: Sequence[LlamaSession]) -> None:
        # The listeners' own work would slow down what is still to be published: it has to wait.
        self._hand_over(list(self._batches.step(sessions)))

    def _hand_over(self, answers: Collection[Answer]) -> None:
        """To the listeners; the steps that they are likely to ask for next are made while these are on a long way."""
        self._deliveries.deliver(answers)
        if self._deliveries.leaves_time:
            for answer in answers:
                answer.session.decoding.sequences.run_ahead(answer.feed.branch, answer.step)

    def _on_batch(self, running: Running) -> None:
        with self._wake:
            for session in self._sessions:
                session.submitted.running.clear()
            for session, feed in running:
                session.submitted.running.append(feed)
            for session in self._sessions:
                session.submitted.give_up(session.submitted.inbox)
            self._abort_unwanted()

    def _abort_unwanted(self) -> None:
        """With the lock held: stop the running batch when no session in it needs its part, and only then."""
        given_up = [session for session, _ in self._released]
        is_needed = any(session.submitted.running for session in self._sessions if session not in given_up)
        self._memory.abort(is_wanted=self._is_stopping or not is_needed)
