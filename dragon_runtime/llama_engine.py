"""The language model in this process: one thread decodes what all sessions have ready, one batch after the other.

Mixing, cutting and quantising happen on that thread too, with the core's functions. The event loop never waits for it.
"""

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dragon_core.errors import CapacityError, EngineError, OurError, PromptTooLongError
from dragon_core.mixture import publish
from dragon_core.types import Command, Cut, Feed, Sampling, Step, Vocabulary, Weighting, WeightingRule
from dragon_runtime.interfaces import EngineRequest, FailureListener, StepListener
from dragon_runtime.llama_model import LlamaModel
from dragon_runtime.llama_scheduler import UNANSWERED
from dragon_runtime.llama_sequences import BATCH_TOKENS, LlamaSequences, Piece
from dragon_runtime.llama_session import LlamaSession

logger = logging.getLogger(__name__)

SMOOTHING = 0.1
"""Weight of a new sample in `decode_seconds`."""
NUM_WARM_UP_STEPS = 8
RELEVANCE = Weighting(rule=WeightingRule.RELEVANCE)


class LlamaEngine:
    """A GGUF model that steps several sessions at once; see `Engine`. Made by `load`."""

    def __init__(self, model: LlamaModel, memory: LlamaSequences, *, num_sequences: int) -> None:
        self._model, self._memory = model, memory
        self._loop = asyncio.get_running_loop()
        self._num_sequences = num_sequences
        self._free = list(range(num_sequences))
        self._sessions: list[LlamaSession] = []
        self._released: deque[tuple[LlamaSession, asyncio.Future[None]]] = deque()
        self._wake = threading.Condition()
        self._is_stopping = False
        self._failure: Exception | None = None
        self._decode_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="llama", daemon=True)

    @classmethod
    async def load(
        cls, path: Path, *, context_length: int, num_sequences: int, num_threads: int | None = None
    ) -> "LlamaEngine":
        """Load a model, measure a step of it, and start the thread.

        Raises:
            ModelError: no such file, no GGUF, damaged, or no memory for it.
        """
        threads = num_threads or max(1, (os.cpu_count() or 2) - 1)

        def load() -> tuple[LlamaModel, LlamaSequences]:
            model = LlamaModel(path)
            try:
                return model, LlamaSequences(
                    model, num_sequences=num_sequences, context_length=context_length, num_threads=threads
                )
            except BaseException:
                model.close()
                raise

        model, memory = await asyncio.to_thread(load)
        engine = cls(model, memory, num_sequences=num_sequences)
        await asyncio.to_thread(engine._warm_up)
        engine._thread.start()
        return engine

    async def close(self) -> None:
        """Stop the thread and free the model; sessions that are still open fail."""
        with self._wake:
            self._is_stopping = True
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
        return self._decode_seconds

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

    def tokenise(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text`; see `Engine`."""
        return self._model.tokenise(text, special=special)

    async def open(self, request: EngineRequest, *, on_step: StepListener, on_failure: FailureListener) -> LlamaSession:
        """Prefill all contexts; see `Engine`."""
        self._require_sound(request)
        num_needed = (len(request.contexts) + (request.bare_prompt is not None)) * request.max_branches
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
            enqueue=self._enqueue,
            release=self._release,
            on_step=on_step,
            on_failure=on_failure,
        )
        with self._wake:
            self._sessions.append(session)
            self._wake.notify()
        try:
            if self._failure is not None:
                raise EngineError(f"the language model stopped: {self._failure}") from self._failure
            await session.prefilled
        except BaseException:
            await session.close()
            raise
        return session

    def _require_sound(self, request: EngineRequest) -> None:
        prompts = [context.tokens for context in request.contexts]
        if request.bare_prompt is not None:
            prompts.append(request.bare_prompt)
        if not request.contexts or not all(prompts):
            raise OurError("an engine session needs at least one context, and no prompt may be empty")
        longest = max(len(prompt) for prompt in prompts) + request.max_tokens
        if longest > self.context_length:
            raise PromptTooLongError(num_tokens=longest, max_tokens=self.context_length)
        top = max(max(prompt) for prompt in prompts)
        if top >= len(self.vocabulary):
            raise OurError(f"token {top} is beyond the vocabulary of {len(self.vocabulary)}")

    def _enqueue(self, session: LlamaSession, commands: Sequence[Command]) -> None:
        """Hand commands to the thread."""
        with self._wake:
            session.inbox.extend(commands)
            self._wake.notify()

    def _release(self, session: LlamaSession) -> "asyncio.Future[None]":
        """Have the thread forget a session; done when its sequences are free again."""
        released = self._loop.create_future()
        with self._wake:
            if not self._thread.is_alive():
                self._take_back(session, released)
            else:
                self._released.append((session, released))
                self._wake.notify()
        return released

    def _take_back(self, session: LlamaSession, released: "asyncio.Future[None]") -> None:
        self._free.extend(session.sequences.all_sequences)
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
        with self._wake:
            self._failure = error
            for session, released in self._released:
                self._post(self._take_back, session, released)
            self._released.clear()
            for session in self._sessions:
                self._post(session.fail, error)

    def _post(self, act: Callable[..., None], *arguments: object) -> None:
        """Run on the event loop; when that is closed nobody is left to tell."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(act, *arguments)

    def _has_work(self) -> bool:
        if self._is_stopping or self._released:
            return True
        return any(
            not session.has_failed and (session.inbox or session.first_step is None or session.sequences.has_waiting)
            for session in self._sessions
        )

    def _turn(self) -> bool:
        """At most one piece of one prompt, and one step of everything else; False at the end."""
        with self._wake:
            self._wake.wait_for(self._has_work)
            if self._is_stopping:
                return False
            while self._released:
                session, released = self._released.popleft()
                if session in self._sessions:
                    self._sessions.remove(session)
                for sequence in session.sequences.all_sequences:
                    self._memory.cut(sequence, 0)
                self._post(self._take_back, session, released)
            sessions = [session for session in self._sessions if not session.has_failed]
            for session in sessions:
                for command in session.inbox:
                    session.sequences.enqueue(command)
                session.inbox.clear()
        waiting = next((session for session in sessions if session.first_step is None), None)
        if waiting is not None:
            self._attempt([waiting], lambda: self._prefill(waiting))
        running = [session for session in sessions if session.first_step is not None]
        if any(session.sequences.has_waiting for session in running):
            self._attempt(running, lambda: self._step(running))
        return True

    def _attempt(self, sessions: Sequence[LlamaSession], act: Callable[[], None]) -> None:
        """A batch that cannot be decoded ends the sessions in it, not the engine."""
        try:
            act()
        except EngineError as error:
            logger.warning("a batch failed: %s", error)
            for session in sessions:
                session.has_failed = True
                self._post(session.fail, error)

    def _prefill(self, session: LlamaSession) -> None:
        """Decode one piece of a prompt, by itself: its shape must not depend on who else is there."""
        piece = session.sequences.next_chunk()
        if piece is not None:
            session.prompt_logits += self._memory.decode([piece])
        if not session.sequences.is_prefilling:
            session.first_step = session.publish(session.prompt_logits)
            session.prompt_logits.clear()
            self._post(session.set_prefilled, time.perf_counter() - session.started_at)

    def _step(self, sessions: Sequence[LlamaSession]) -> None:
        """Decode what all sessions have ready and publish the results."""
        started = time.perf_counter()
        answers: list[tuple[LlamaSession, int, Step]] = []
        fed: list[tuple[LlamaSession, Feed, int]] = []
        pieces: list[Piece] = []
        for session in sessions:
            for feed in session.sequences.run_commands(self._memory):
                if feed.tokens:
                    added = session.sequences.pieces(feed)
                    pieces += added
                    fed.append((session, feed, len(added)))
                elif session.first_step is not None:
                    answers.append((session, feed.ticket, session.first_step))
        logits = iter(self._decode(pieces))
        for session, feed, num_pieces in fed:
            if feed.ticket != UNANSWERED:
                answers.append((session, feed.ticket, session.publish(list(islice(logits, num_pieces)))))
        if answers:
            self._post(_deliver, answers)
        if fed:
            self._measure(time.perf_counter() - started)

    def _decode(self, pieces: Sequence[Piece]) -> list[NDArray[np.float32]]:
        """In as many batches as the library's limit makes of them."""
        logits: list[NDArray[np.float32]] = []
        batch: list[Piece] = []
        num_tokens = 0
        for piece in pieces:
            if num_tokens + len(piece.tokens) > BATCH_TOKENS:
                logits += self._memory.decode(batch)
                batch, num_tokens = [], 0
            batch.append(piece)
            num_tokens += len(piece.tokens)
        return logits + self._memory.decode(batch) if batch else logits

    def _measure(self, seconds: float) -> None:
        self._decode_seconds += SMOOTHING * (seconds - self._decode_seconds)

    def _warm_up(self) -> None:
        """Decode a little, so that a first estimate of `decode_seconds` is there and memory is touched."""
        samples = []
        for position in range(NUM_WARM_UP_STEPS):
            started = time.perf_counter()
            logits = self._memory.decode([Piece(0, position, (position,), wants_logits=True)])
            publish(np.stack(logits), None, np.zeros(1), weighting=RELEVANCE, sampling=Sampling(), cut=Cut())
            samples.append(time.perf_counter() - started)
        self._memory.cut(0, 0)
        self._decode_seconds = sorted(samples)[len(samples) // 2]


def _deliver(answers: Sequence[tuple[LlamaSession, int, Step]]) -> None:
    for session, ticket, step in answers:
        session.deliver(ticket, step)
