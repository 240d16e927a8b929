"""The sessions of one engine that clients of Triton opened: each is its `open`, which is answered until it ends.

They open and end on the service's event loop. A step passes it by: commands come on Triton's thread and go to the
engine's, since each thread on the way takes time, and steps leave on one that only sends them, since Triton takes its
time to accept one.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dragon_core.errors import CapacityError, DragonError, EngineError, OurError
from dragon_core.types import Step
from dragon_runtime.engines.llama.engine import LlamaEngine
from dragon_runtime.engines.llama.pace import EngineObserver
from dragon_runtime.engines.llama.session import LlamaSession
from dragon_runtime.engines.triton.failures import failure_text
from dragon_runtime.engines.triton.opening import opened_tensors
from dragon_runtime.engines.triton.requests import commands_of
from dragon_runtime.engines.triton.steps import step_tensors
from dragon_runtime.engines.triton.tensors import Tensors
from dragon_runtime.hosting.loop_thread import ServiceTasks
from dragon_runtime.hosting.replies import Reply
from dragon_runtime.interfaces import EngineRequest
from dragon_runtime.process.tasks import end_after_cleanup, end_tasks

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 0.25
MAX_WAITING_COMMANDS = 4096
"""Of one session; a client that sends more than is decoded loses it."""


class ServiceObserver(EngineObserver, Protocol):
    """What is counted of a language model on Triton."""

    def refused(self) -> None:
        """An `open` that did not fit."""

    def holds(self, num_sequences: int) -> None:
        """How many sequences sessions hold now."""


@dataclass(slots=True, eq=False)
class _Session:
    """One session. Without an engine session its prompts are not in place yet."""

    number: int
    request: EngineRequest
    reply: Reply
    used_at: float
    engine_session: LlamaSession | None = None
    opening: asyncio.Task[None] | None = None
    is_over: bool = False


class HostedSessions:
    """Lives on the service's event loop, but `run`, and what the engine calls with a step."""

    def __init__(
        self,
        engine: LlamaEngine,
        tasks: ServiceTasks,
        *,
        num_sequences: int,
        idle_seconds: float,
        observer: ServiceObserver,
    ) -> None:
        """`idle_seconds`: how long a session may go without a request before its sequences are taken back."""
        self._engine, self._tasks = engine, tasks
        self._num_sequences, self._idle_seconds, self._observer = num_sequences, idle_seconds, observer
        self._loop = asyncio.get_running_loop()
        self._sessions: dict[int, _Session] = {}
        self._sweeper = self._loop.create_task(self._sweep(), name="sweep")

    async def close(self) -> None:
        """End every session; done when the service's tasks are."""
        await end_tasks([self._sweeper])
        for session in list(self._sessions.values()):
            self._end(session, EngineError("the model is unloaded"))

    def open(self, number: int, request: EngineRequest, reply: Reply) -> None:
        """Prefill a session; `reply` hears of it, and of each of its steps, until it ends.

        Raises:
            OurError: there is one of this number.
        """
        if number in self._sessions:
            raise OurError(f"there is a session {number} already")
        session = _Session(number, request, reply, self._loop.time())
        self._sessions[number] = session
        session.opening = self._tasks.start(self._prefill(session))

    def run(self, number: int, tensors: Tensors) -> None:
        """Have the engine run a session's commands; the request itself is a sign of life. On Triton's thread.

        Raises:
            OurError: there is no such session, it is not open yet, or a command makes no sense.
        """
        session = self._session(number)
        if session.engine_session is None:
            raise OurError(f"session {number} is not open yet: wait for the first answer to its open")
        session.engine_session.submit(commands_of(tensors))
        num_waiting = session.engine_session.num_waiting
        if num_waiting > MAX_WAITING_COMMANDS:
            error = OurError(f"{num_waiting} commands wait; at most {MAX_WAITING_COMMANDS} may")
            self._loop.call_soon_threadsafe(self._end, session, error)

    def end(self, number: int) -> None:
        """End a session because its client wants it.

        Raises:
            OurError: there is no such session.
        """
        self._end(self._session(number))

    def count(self) -> None:
        """Tell how many sequences are held."""
        self._observer.holds(self._num_sequences - self._engine.num_free_sequences)

    def _session(self, number: int) -> _Session:
        session = self._sessions.get(number)
        if session is None:
            raise OurError(f"there is no session {number}: it was never opened, or it is over")
        session.used_at = self._loop.time()
        return session

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
            self.count()
        session.engine_session = opened
        session.used_at = self._loop.time()
        answer = opened_tensors(
            prefill_seconds=opened.prefill_seconds,
            decode_seconds=self._engine.decode_seconds,
            constant_weight_level=opened.constant_weight_level,
        )
        self._send(session, answer)

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
        self._tasks.start(self._free(session, error))

    async def _free(self, session: _Session, error: Exception | None) -> None:
        if session.opening is not None:
            await end_after_cleanup([session.opening])
        if session.engine_session is not None:
            await session.engine_session.close()
        self.count()
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
