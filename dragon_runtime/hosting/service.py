"""The models' side of Triton: what `triton_models/*/1/model.py` do with a request, without anything of Triton in it.

Each service has a thread with an event loop of its own, for what opens and ends sessions. A step passes it by: commands
go from Triton's thread to the engine's, since each thread on the way takes time, and steps from there to Triton by one
that only sends them, since Triton takes its time to accept one.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dragon_core.errors import CapacityError, DragonError, EngineError, OurError
from dragon_core.types import Step
from dragon_runtime.embedding.choice import open_embedder
from dragon_runtime.engines.llama.engine import LlamaEngine
from dragon_runtime.engines.llama.pace import EngineObserver
from dragon_runtime.engines.llama.session import LlamaSession
from dragon_runtime.engines.triton.failures import failure_text
from dragon_runtime.engines.triton.tensors import (
    Description,
    Operation,
    Tensors,
    commands_of,
    description_tensors,
    integer_in,
    opened_tensors,
    operation_of,
    request_of,
    step_tensors,
    text_in,
)
from dragon_runtime.hosting.probe import require_decoding
from dragon_runtime.interfaces import EngineRequest
from dragon_runtime.process.tasks import end_after_cleanup, end_tasks

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 0.25
PROBE_SECONDS = 10.0
"""One decode takes far less, whatever the model; who asks has longer to wait."""
MAX_WAITING_COMMANDS = 4096
"""Of one session; a client that sends more than is decoded loses it."""
Result = TypeVar("Result")


class Reply(Protocol):
    """Where a request's answers go. Exactly one of `finish`, `fail`, and `send` with `is_final` ends it."""

    def send(self, tensors: Tensors, *, is_final: bool = False) -> None: ...

    def finish(self) -> None:
        """There is nothing (more) to say."""

    def fail(self, message: str) -> None: ...

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for it any more."""


class ServiceObserver(EngineObserver, Protocol):
    """What is counted of a language model on Triton."""

    def refused(self) -> None:
        """An `open` that did not fit."""

    def holds(self, num_sequences: int) -> None:
        """How many sequences sessions hold now."""


class LoopThread:
    """An event loop on a thread of its own."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do this there and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def close(self) -> None:
        """End the thread; what still runs is left alone."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@dataclass(slots=True, eq=False)
class _Session:
    """One session: its `open` is answered until it ends. Without an engine session its prompts are not in place yet."""

    number: int
    request: EngineRequest
    reply: Reply
    used_at: float
    engine_session: LlamaSession | None = None
    opening: asyncio.Task[None] | None = None
    is_over: bool = False


class CausalLmService:
    """Serves sessions on one engine. `handle` is the only method that another thread may call."""

    def __init__(
        self, engine: LlamaEngine, *, num_sequences: int, idle_seconds: float, observer: ServiceObserver
    ) -> None:
        """`idle_seconds`: how long a session may go without a request before its sequences are taken back."""
        self._engine, self._num_sequences, self._idle_seconds = engine, num_sequences, idle_seconds
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._sessions: dict[int, _Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper = self._loop.create_task(self._sweep(), name="sweep")

    async def close(self) -> None:
        """End every session, then the engine."""
        await end_tasks([self._sweeper])
        for session in list(self._sessions.values()):
            self._end(session, EngineError("the model is unloaded"))
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._engine.close()

    def handle(self, tensors: Tensors, reply: Reply) -> None:
        """Take a request; `reply` is answered now or later, on another thread."""
        self._answered(reply, lambda: self._dispatch(tensors, reply))

    def _answered(self, reply: Reply, act: Callable[[], None]) -> None:
        """Do it; what is wrong with it is the answer."""
        try:
            act()
        except DragonError as error:
            reply.fail(failure_text(error))
        except Exception as error:
            logger.exception("a request could not be served")
            reply.fail(failure_text(EngineError(f"the model could not serve the request: {error}")))

    def _dispatch(self, tensors: Tensors, reply: Reply) -> None:
        operation, number = operation_of(tensors)
        if operation is Operation.RUN:
            self._run(self._session(number), tensors)
            reply.finish()
            return
        perform = partial(self._perform, operation, number, tensors, reply)
        self._loop.call_soon_threadsafe(self._answered, reply, perform)

    def _perform(self, operation: Operation, number: int, tensors: Tensors, reply: Reply) -> None:
        match operation:
            case Operation.DESCRIBE:
                reply.send(description_tensors(self._description(), self._engine.vocabulary), is_final=True)
            case Operation.TOKENISE:
                self._start(self._tokenise(tensors, reply))
            case Operation.OPEN:
                self._open(number, request_of(tensors), reply)
            case Operation.CLOSE:
                self._end(self._session(number))
                reply.finish()
            case Operation.PROBE:
                self._start(self._probe(reply))

    def _description(self) -> Description:
        engine = self._engine
        return Description(
            context_length=engine.context_length,
            num_sequences=self._num_sequences,
            decode_seconds=engine.decode_seconds,
            chat_template=engine.chat_template,
            bos_text=engine.bos_text,
            eos_text=engine.eos_text,
        )

    async def _tokenise(self, tensors: Tensors, reply: Reply) -> None:
        try:
            text, special = text_in(tensors, "TEXT"), bool(integer_in(tensors, "SPECIAL"))
            tokens = await asyncio.to_thread(self._engine.tokenise, text, special=special)
        except DragonError as error:
            reply.fail(failure_text(error))
            return
        reply.send({"TOKEN_IDS": np.array(tokens, dtype=np.int32)}, is_final=True)

    async def _probe(self, reply: Reply) -> None:
        started = self._loop.time()
        try:
            await require_decoding(self._engine, seconds=PROBE_SECONDS)
        except DragonError as error:
            reply.fail(failure_text(error))
            return
        finally:
            self._count()
        seconds = np.array([self._loop.time() - started, self._engine.decode_seconds], dtype=np.float64)
        reply.send({"SECONDS": seconds}, is_final=True)

    # -- sessions -----------------------------------------------------------------------------------------------------

    def _session(self, number: int) -> _Session:
        session = self._sessions.get(number)
        if session is None:
            raise OurError(f"there is no session {number}: it was never opened, or it is over")
        session.used_at = self._loop.time()
        return session

    def _open(self, number: int, request: EngineRequest, reply: Reply) -> None:
        if number in self._sessions:
            raise OurError(f"there is a session {number} already")
        session = _Session(number, request, reply, self._loop.time())
        self._sessions[number] = session
        session.opening = self._start(self._prefill(session))

    async def _prefill(self, session: _Session) -> None:
        def on_step(ticket: int, step: Step) -> None:
            self._send(session, step_tensors(ticket, step))

        try:
            opened = await self._engine.open(
                session.request, on_step=on_step, on_failure=lambda error: self._end(session, error)
            )
        except Exception as error:  # noqa: BLE001 - whatever it was, the client is told
            if isinstance(error, CapacityError):
                self._observer.refused()
            self._end(session, error)
            return
        finally:
            self._count()
        session.engine_session = opened
        session.used_at = self._loop.time()
        answer = opened_tensors(
            prefill_seconds=opened.prefill_seconds,
            decode_seconds=self._engine.decode_seconds,
            constant_weight_level=opened.constant_weight_level,
        )
        self._send(session, answer)

    def _run(self, session: _Session, tensors: Tensors) -> None:
        """On Triton's thread."""
        if session.engine_session is None:
            raise OurError(f"session {session.number} is not open yet: wait for the first answer to its open")
        session.engine_session.submit(commands_of(tensors))
        num_waiting = session.engine_session.num_waiting
        if num_waiting > MAX_WAITING_COMMANDS:
            error = OurError(f"{num_waiting} commands wait; at most {MAX_WAITING_COMMANDS} may")
            self._loop.call_soon_threadsafe(self._end, session, error)

    def _send(self, session: _Session, tensors: Tensors) -> None:
        """On the thread that sends steps, before there are any on ours; a session ends when the engine let go of it."""
        if session.is_over:
            return
        try:
            session.reply.send(tensors)
        except Exception as error:  # noqa: BLE001 - of Triton's own kinds: the client is gone
            logger.info("session %d cannot be answered: %s", session.number, error)
            self._loop.call_soon_threadsafe(self._end, session, EngineError(str(error)))

    def _end(self, session: _Session, error: Exception | None = None) -> None:
        """Answer a session's open for the last time and free what it holds."""
        if session.is_over:
            return
        session.is_over = True
        self._sessions.pop(session.number, None)
        self._start(self._free(session, error))

    async def _free(self, session: _Session, error: Exception | None) -> None:
        if session.opening is not None:
            await end_after_cleanup([session.opening])
        if session.engine_session is not None:
            await session.engine_session.close()
        self._count()
        self._check_when_idle()
        # Only now: whoever hears it may count on the sequences.
        if error is None:
            session.reply.send({"CLOSED": np.array([1], dtype=np.uint8)}, is_final=True)
            return
        known = error if isinstance(error, DragonError) else EngineError(str(error))
        session.reply.fail(failure_text(known))

    def _check_when_idle(self) -> None:
        """Of a defect only the log tells: the sessions that come may still be served."""
        if self._engine.is_idle:
            try:
                self._engine.check_integrity()
            except EngineError:
                logger.exception("a session left something behind")

    async def _sweep(self) -> None:
        """Take back what sessions hold that nobody waits for."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = self._loop.time()
            for session in list(self._sessions.values()):
                if session.reply.is_cancelled:
                    self._end(session, EngineError("the client is gone"))
                elif session.engine_session is not None and now - session.used_at > self._idle_seconds:
                    self._end(session, EngineError(f"no request came for {self._idle_seconds:g} s"))

    def _count(self) -> None:
        self._observer.holds(self._num_sequences - self._engine.num_free_sequences)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a task of the service failed", exc_info=error)


class EmbedderService:
    """Embeds the texts of several requests at once."""

    def __init__(self, uri: str) -> None:
        """Load the embedding model `uri`.

        Raises:
            ModelError: there is none, or it is damaged.
        """
        self._thread = LoopThread("embedder")
        self._embedder = self._thread.run(open_embedder(uri))
        self._outputs: dict[str, Callable[[Sequence[str]], NDArray[np.generic]]] = {
            "VECTOR": lambda texts: self._thread.run(self._embedder.embed(texts)),
            "NUM_TOKENS": self._lengths,
            "NAME": lambda texts: self._constant(self._embedder.name, len(texts)),
            "REVISION": lambda texts: self._constant(self._embedder.revision, len(texts)),
        }

    def serve(self, texts: Sequence[str], outputs: Sequence[str]) -> Tensors:
        """The named outputs, one row per text; nothing else is computed.

        Raises:
            DragonError: a text cannot be embedded.
        """
        return {name: self._outputs[name](texts) for name in outputs}

    def _lengths(self, texts: Sequence[str]) -> NDArray[np.int32]:
        return np.array([[self._embedder.num_tokens(each)] for each in texts], dtype=np.int32)

    @staticmethod
    def _constant(value: str, num_rows: int) -> NDArray[np.object_]:
        return np.array([[value.encode()]] * num_rows, dtype=object)

    def close(self) -> None:
        """Free the model."""
        self._embedder.close()
        self._thread.close()
