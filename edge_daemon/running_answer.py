"""One answer that is being written: its session, the task that drives it, and the tokens that come out."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from dragon_core.errors import DragonError, EngineError, PeerError
from dragon_core.messages import FinishReason, Open
from dragon_core.session.events import Cancelled, Closed, Emit, Fault, Report
from dragon_core.session.session import Session
from dragon_core.session.settings import SessionSettings
from dragon_runtime.answering.cost import AnswerCost, AnswerTimes
from dragon_runtime.answering.driver import Preparer, SessionDriver
from dragon_runtime.interfaces import Channel
from edge_daemon.answers import AnswerToken, TopToken


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningAnswer:
    """A session that is driven until it ends or is left. None among what it emits is the end."""

    token_bytes: tuple[bytes, ...]
    channel: Channel
    times: AnswerTimes
    driver: SessionDriver
    emitted: "asyncio.Queue[Emit | None]"
    running: "asyncio.Task[Closed]"

    @classmethod
    def start(
        cls, settings: SessionSettings, request: Open, channel: Channel, *, prepare: Preparer, is_solo: bool
    ) -> "RunningAnswer":
        """Open a session and drive it in a task of its own; with `is_solo` no other end is asked."""
        times = AnswerTimes(asyncio.get_running_loop().time())
        emitted: asyncio.Queue[Emit | None] = asyncio.Queue()
        session, effects = Session.open(settings, request, now=times.started, is_solo=is_solo)
        driver = SessionDriver(session, channel, prepare=prepare, on_emit=emitted.put_nowait)
        running = asyncio.create_task(driver.run(effects), name="answer")
        running.add_done_callback(lambda _: emitted.put_nowait(None))
        return cls(
            token_bytes=settings.vocabulary.token_bytes,
            channel=channel,
            times=times,
            driver=driver,
            emitted=emitted,
            running=running,
        )

    async def tokens(self) -> AsyncGenerator[AnswerToken, None]:
        """Each as it becomes final, until the session has ended."""
        while (emit := await self.emitted.get()) is not None:
            self.times.mark(asyncio.get_running_loop().time())
            yield self._token(emit)

    def _token(self, emit: Emit) -> AnswerToken:
        settled = emit.settled
        return AnswerToken(
            token=settled.token,
            token_bytes=self.token_bytes[settled.token],
            text_bytes=emit.text,
            opener_share=settled.opener_share,
            logprob=settled.logprob,
            top=tuple(
                TopToken(token=top.token, token_bytes=self.token_bytes[top.token], logprob=top.logprob)
                for top in settled.top
            ),
            is_degraded=emit.is_degraded,
        )

    async def outcome(self) -> tuple[FinishReason, Report]:
        """Why an answer ended that ended as answers end, and what is known of it.

        Raises:
            DragonError: it ended otherwise; our own end's error where that was the cause.
        """
        closed = await self.running
        return closed.reason, _require_answer(closed, self.driver.error)

    def cost(self, report: Report) -> AnswerCost:
        """What it took."""
        return self.times.cost(self.channel, num_tokens=report.num_tokens)

    async def leave(self) -> Closed | None:
        """End it, where it has not ended, and free what it holds; None where it broke."""
        self.driver.take(Cancelled())
        (closed,) = await asyncio.gather(self.running, return_exceptions=True)
        return closed if isinstance(closed, Closed) else None


def _require_answer(closed: Closed, error: DragonError | None) -> Report:
    if closed.reason in (FinishReason.STOP, FinishReason.LENGTH) and closed.report is not None:
        return closed.report
    if error is not None:
        raise error
    if closed.fault is Fault.THEIRS:
        raise PeerError(closed.error)
    raise EngineError(closed.error or f"the answer ended early: {closed.reason}")
