"""A cloud peer: serves sessions of many devices at once, and drains before it stops."""

import asyncio
import logging

from dragon_core import codec
from dragon_core.errors import PeerError
from dragon_core.link import LinkEstimate
from dragon_core.messages import Envelope, Probe, Refused
from dragon_core.session.events import Cancelled, Received
from dragon_core.session.session import Session
from dragon_core.session.settings import Limits, SessionSettings
from dragon_core.wire import Wire
from dragon_runtime.answering.cost import AnswerCost
from dragon_runtime.answering.driver import SessionDriver
from dragon_runtime.answering.metrics import PeerMetrics
from dragon_runtime.answering.preparation import Preparation
from dragon_runtime.channel.probe import answer_probe
from dragon_runtime.interfaces import Channel

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


class CloudWorker:
    """The sessions of one replica. Opens arrive through `on_open`."""

    def __init__(self, preparation: Preparation, *, replica: str, max_sessions: int, metrics: PeerMetrics) -> None:
        self._preparation, self._max_sessions, self._metrics = preparation, max_sessions, metrics
        self._settings: SessionSettings = preparation.session_settings(limits=Limits(), replica=replica)
        self._sessions: dict[asyncio.Task[None], SessionDriver] = {}
        self._is_draining = False

    @property
    def num_sessions(self) -> int:
        return len(self._sessions)

    def on_open(self, device: str, session: str, frame: bytes, channel: Channel) -> None:
        """Take a session, answer a probe, or say why not."""
        now = asyncio.get_running_loop().time()
        try:
            envelope = codec.decode(frame)
        except PeerError as error:
            self._refuse(channel, Refused(reason=str(error), field=error.field), now)
            return
        if isinstance(envelope.message, Probe):
            answer_probe(envelope, channel, now=now)
        elif self._is_draining:
            reason = "this replica is going away"
            self._refuse(channel, Refused(reason=reason, retry_after_seconds=RETRY_SECONDS), now, envelope)
        elif len(self._sessions) >= self._max_sessions:
            reason = f"{len(self._sessions)} of {self._max_sessions} sessions are open"
            self._refuse(channel, Refused(reason=reason, retry_after_seconds=RETRY_SECONDS), now, envelope)
        else:
            driver = SessionDriver(Session.await_open(self._settings), channel, prepare=self._preparation.prepare)
            task = asyncio.create_task(self._serve(driver, channel, device, session), name=f"session {session}")
            self._sessions[task] = driver
            task.add_done_callback(self._on_done)
            driver.take(Received(envelope))

    def _refuse(self, channel: Channel, refusal: Refused, now: float, envelope: Envelope | None = None) -> None:
        logger.info("refused a session: %s", refusal.reason)
        wire = Wire(LinkEstimate())
        if envelope is not None:
            wire.unseal(envelope, now)
        term = 0 if envelope is None else envelope.term
        channel.send(codec.encode(wire.seal(refusal, term=term, now=now)))
        channel.close()

    async def _serve(self, driver: SessionDriver, channel: Channel, device: str, session: str) -> None:
        self._metrics.open_sessions.inc()
        try:
            closed = await driver.run()
        finally:
            self._metrics.open_sessions.dec()
        if closed.error:
            logger.warning("session %s of %s ended: %s", session, device, closed.error)
        if closed.report is not None:
            cost = AnswerCost(
                first_token_seconds=None,
                seconds_per_token=None,
                sent_bytes=channel.sent_bytes,
                received_bytes=channel.received_bytes,
            )
            self._metrics.record(closed.reason, closed.report, cost)

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        self._sessions.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a session broke", exc_info=error)

    async def drain(self, seconds: float) -> None:
        """Accept no more sessions and let open ones finish; the rest is handed back: their devices carry on alone."""
        self._is_draining = True
        if self._sessions:
            logger.info("draining %d sessions for at most %g s", len(self._sessions), seconds)
            await asyncio.wait(tuple(self._sessions), timeout=seconds)
        for driver in tuple(self._sessions.values()):
            driver.take(Cancelled())
        if self._sessions:
            await asyncio.wait(tuple(self._sessions))
