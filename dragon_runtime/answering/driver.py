"""The one loop of both ends: events go into a session, its effects are performed. What they mean is the session's.

Everything runs on one event loop. Nothing here blocks: frames, engine results and time arrive as callbacks.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from dragon_core import codec
from dragon_core.errors import DragonError, PeerError, RetryableError
from dragon_core.messages import Open
from dragon_core.session.events import (
    Bind,
    Cancelled,
    Closed,
    Effect,
    Emit,
    EngineFailed,
    EngineOpened,
    Event,
    Fault,
    Prepare,
    Received,
    Reconnected,
    Refuse,
    Run,
    Send,
    SendOpen,
    Stepped,
    TimePassed,
)
from dragon_core.session.session import Session
from dragon_core.types import Step
from dragon_runtime.answering.preparation import Prepared
from dragon_runtime.interfaces import Channel, EngineSession, FailureListener, LinkRestored, StepListener
from dragon_runtime.process.tasks import end_after_cleanup

logger = logging.getLogger(__name__)


class Preparer(Protocol):
    """Opens an engine session for a request; `Preparation.prepare` is one."""

    async def __call__(self, request: Open, *, on_step: StepListener, on_failure: FailureListener) -> Prepared: ...


class SessionDriver:
    """Drives one session at one end. `on_emit` gets each final token, at the opener only.

    `error` is what our own end failed with, if it did; `Closed` from `run` says how the session ended.
    """

    def __init__(
        self, session: Session, channel: Channel, *, prepare: Preparer, on_emit: Callable[[Emit], None] | None = None
    ) -> None:
        self._session = session
        self._channel = channel
        self._prepare = prepare
        self._on_emit = on_emit
        self._loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[Closed] = self._loop.create_future()
        self._engine_session: EngineSession | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.error: DragonError | None = None

    async def run(self, effects: Sequence[Effect] = ()) -> Closed:
        """Perform the session's first effects and drive it to its end. Cancelling this cancels the answer."""
        self._start(self._receive_frames(), name="frames")
        try:
            self._perform(effects)
            # Being cancelled must leave the outcome open, or the session would not be told and the other end neither.
            return await asyncio.shield(self._outcome)
        finally:
            self.take(Cancelled())
            await self._release()

    def take(self, event: Event) -> None:
        """Give the session an event and perform what it asks for; nothing happens once it is over."""
        if self._outcome.done():
            return
        try:
            self._perform(self._session.receive(event, self._loop.time()))
        except Exception as error:  # noqa: BLE001 - a defect ends this session, in `run`, and not the loop
            self._outcome.set_exception(error)

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(envelope):
                    self._channel.send(codec.encode(envelope))
                case Run(commands):
                    if self._engine_session is not None:
                        self._engine_session.submit(commands)
                case Emit():
                    if self._on_emit is not None:
                        self._on_emit(effect)
                case SendOpen(envelope):
                    self._channel.send_open(codec.encode(envelope))
                case Bind(replica):
                    self._channel.bind(replica)
                case Prepare(request):
                    self._start(self._open_engine(request), name="prepare")
                case Closed():
                    self._outcome.set_result(effect)
        self._arm()

    def _arm(self) -> None:
        """Have the session looked at when its deadline comes; a timer that is early just looks again."""
        deadline = self._session.deadline
        if deadline is None or self._outcome.done():
            return
        if self._timer is not None and not self._timer.cancelled():
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        deadline = self._session.deadline
        if deadline is not None and deadline <= self._loop.time():
            self.take(TimePassed())
        else:
            self._arm()

    async def _receive_frames(self) -> None:
        while True:
            frame = await self._channel.receive()
            if isinstance(frame, LinkRestored):
                self.take(Reconnected())
                continue
            try:
                envelope = codec.decode(frame)
            except PeerError as error:
                self.take(Refuse(Fault.THEIRS, str(error), error.field))
                continue
            self.take(Received(envelope))

    async def _open_engine(self, request: Open) -> None:
        try:
            prepared = await self._prepare(request, on_step=self._on_step, on_failure=self._on_failure)
        except DragonError as error:
            self.error = error
            retry_after = error.retry_after_seconds if isinstance(error, RetryableError) else None
            self.take(Refuse(Fault.OURS, str(error), retry_after_seconds=retry_after))
            return
        self._engine_session = prepared.engine_session
        self.take(
            EngineOpened(
                constant_weight_level=prepared.engine_session.constant_weight_level,
                decode_seconds=prepared.decode_seconds,
                document_ids=prepared.document_ids,
            )
        )

    def _on_step(self, ticket: int, step: Step) -> None:
        self.take(Stepped(ticket, step))

    def _on_failure(self, error: Exception) -> None:
        self.error = error if isinstance(error, DragonError) else None
        self.take(EngineFailed(str(error)))

    def _start(self, work: "asyncio._CoroutineLike[None]", *, name: str) -> None:
        task = self._loop.create_task(work, name=f"session {name}")
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._outcome.done():
            self._outcome.set_exception(error)

    async def _release(self) -> None:
        """Stop everything that runs for the session and free its sequences."""
        if self._timer is not None:
            self._timer.cancel()
        try:
            await end_after_cleanup(self._tasks)
        finally:  # also when this is cancelled once more
            self._channel.close()
            if self._engine_session is not None:
                await self._engine_session.close()
