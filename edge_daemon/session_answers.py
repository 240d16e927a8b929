"""Answers as sessions: opens a session per request, drives it, and reports how the answer was written."""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from dragon_core.errors import DragonError, EngineError, OurError, PeerError, PromptTooLongError
from dragon_core.messages import PROTOCOL_VERSION, FinishReason, Open
from dragon_core.session.events import Cancelled, Closed, Emit, Fault, Report
from dragon_core.session.session import Session
from dragon_core.session.settings import Limits
from dragon_core.types import Peer
from dragon_runtime.answering.driver import SessionDriver
from dragon_runtime.answering.metrics import AnswerCost, PeerMetrics
from dragon_runtime.answering.preparation import Preparation
from dragon_runtime.answering.summary import (
    BothSides,
    BytesSent,
    DocumentShare,
    DragonSummary,
    DroppedMass,
    WastedSteps,
)
from dragon_runtime.channel.memory import MemoryChannel
from dragon_runtime.interfaces import Channel
from dragon_runtime.settings import ProtocolSettings
from edge_daemon.answers import (
    AnswerMode,
    AnswerRequest,
    AnswerSummary,
    AnswerToken,
    ConversationError,
    ConversationTooLongError,
    Readiness,
    TopToken,
)

logger = logging.getLogger(__name__)

DEADLINE_SECONDS = 600.0
_SIDES = {Peer.OPENER: "edge", Peer.OTHER: "cloud"}


@dataclass(slots=True)
class _Times:
    """When an answer was asked for, and when its first and last token came."""

    started: float
    first: float | None = None
    last: float | None = None

    def cost(self, channel: Channel, report: Report) -> AnswerCost:
        """Figures of the answer."""
        num_after_first = report.num_tokens - 1
        took = None if self.first is None or self.last is None else self.last - self.first
        return AnswerCost(
            first_token_seconds=None if self.first is None else self.first - self.started,
            seconds_per_token=None if took is None or num_after_first < 1 else took / num_after_first,
            sent_bytes=channel.sent_bytes,
            received_bytes=channel.received_bytes,
        )


class SessionAnswers:
    """Writes answers with the other end, or alone; see `AnswerService`."""

    def __init__(
        self,
        preparation: Preparation,
        protocol: ProtocolSettings,
        *,
        model_name: str,
        create_channel: Callable[[str], Channel],
        name_of_document: Callable[[str], Awaitable[str | None]],
        readiness: Callable[[], Readiness],
        metrics: PeerMetrics,
        on_degraded: Callable[[], None],
        on_report: Callable[[Report, bool], None] | None = None,
    ) -> None:
        """`on_degraded` is called after an answer in which the cloud was missed: what is known of it may be old.

        `on_report` gets what is known of every answer that ended, and whether the device was asked alone.
        """
        self._preparation, self._protocol = preparation, protocol
        self._on_degraded, self._on_report = on_degraded, on_report
        self._settings = preparation.session_settings(limits=Limits())
        self._model_name = model_name
        self._create_channel, self._name_of_document = create_channel, name_of_document
        self._readiness, self._metrics = readiness, metrics

    def configure(self, protocol: ProtocolSettings) -> None:
        """Open answers with these settings from now on; those that are being written keep theirs."""
        self._preparation = self._preparation.with_protocol(protocol)
        self._settings = self._preparation.session_settings(limits=Limits())
        self._protocol = protocol

    @property
    def model_name(self) -> str:
        return self._model_name

    def is_ready(self) -> Readiness:
        """Which parts work."""
        return self._readiness()

    @asynccontextmanager
    async def answer(self, request: AnswerRequest) -> AsyncGenerator[AsyncIterator[AnswerToken | AnswerSummary], None]:
        """Open a session; leaving the scope early cancels it. See `AnswerService`."""
        # Beside the event loop: counting the tokens of a long prompt can take a second.
        num_prompt_tokens = await asyncio.to_thread(self._num_prompt_tokens, request)
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[Emit | None] = asyncio.Queue()
        is_solo = request.mode is AnswerMode.EDGE_ONLY
        channel = _nowhere() if is_solo else self._create_channel(secrets.token_hex(16))
        times = _Times(loop.time())
        protocol = self._protocol  # another one may be in force before this answer ends
        opening = self._open(request, protocol)
        session, effects = Session.open(self._settings, opening, now=times.started, is_solo=is_solo)
        driver = SessionDriver(session, channel, prepare=self._preparation.prepare, on_emit=items.put_nowait)
        running = asyncio.create_task(driver.run(effects), name="answer")
        running.add_done_callback(lambda _: items.put_nowait(None))
        self._metrics.open_sessions.inc()
        try:
            tokens = self._tokens(items, times)
            async with aclosing(
                self._answer(request, protocol, driver, running, channel, tokens, times, num_prompt_tokens)
            ) as answer:
                yield answer
        finally:
            driver.take(Cancelled())
            (closed,) = await asyncio.gather(running, return_exceptions=True)
            self._metrics.open_sessions.dec()
            if isinstance(closed, Closed) and closed.report is not None:
                self._metrics.record(closed.reason, closed.report, times.cost(channel, closed.report))
                if self._on_report is not None:
                    self._on_report(closed.report, is_solo)
                if closed.report.num_degraded:
                    self._on_degraded()

    def _num_prompt_tokens(self, request: AnswerRequest) -> int:
        """Length of the conversation without passages.

        Raises:
            ConversationTooLongError: it does not fit. ConversationError: the model's template refuses it.
        """
        max_tokens = request.max_tokens
        try:
            return len(self._preparation.bare_prompt(request.messages, max_tokens=max_tokens))
        except PromptTooLongError as error:
            raise ConversationTooLongError(
                num_prompt_tokens=error.num_tokens - max_tokens,
                max_answer_tokens=max_tokens,
                context_length=error.max_tokens,
            ) from error
        except OurError as error:
            raise ConversationError(str(error)) from error

    async def _answer(
        self,
        request: AnswerRequest,
        protocol: ProtocolSettings,
        driver: SessionDriver,
        running: "asyncio.Task[Closed]",
        channel: Channel,
        tokens: AsyncGenerator[AnswerToken, None],
        times: _Times,
        num_prompt_tokens: int,
    ) -> AsyncGenerator[AnswerToken | AnswerSummary, None]:
        async with aclosing(tokens):
            async for token in tokens:
                yield token
        closed = await running
        report = _require_answer(closed, driver.error)
        yield AnswerSummary(
            finish_reason="length" if closed.reason is FinishReason.LENGTH else "stop",
            num_prompt_tokens=num_prompt_tokens,
            dragon=await self._summary(request, protocol, report, times.cost(channel, report)),
        )

    async def _tokens(self, items: "asyncio.Queue[Emit | None]", times: _Times) -> AsyncGenerator[AnswerToken, None]:
        token_bytes = self._settings.vocabulary.token_bytes
        while (emit := await items.get()) is not None:
            times.last = asyncio.get_running_loop().time()
            times.first = times.first or times.last
            settled = emit.settled
            yield AnswerToken(
                token=settled.token,
                token_bytes=token_bytes[settled.token],
                text_bytes=emit.text,
                opener_share=settled.opener_share,
                logprob=settled.logprob,
                top=tuple(
                    TopToken(token=top.token, token_bytes=token_bytes[top.token], logprob=top.logprob)
                    for top in settled.top
                ),
                is_degraded=emit.is_degraded,
            )

    def _open(self, request: AnswerRequest, protocol: ProtocolSettings) -> Open:
        sampling = request.sampling
        return Open(
            version=PROTOCOL_VERSION,
            fingerprint=self._settings.fingerprint,
            messages=request.messages,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            top_p=sampling.top_p,
            seed=request.seed,
            max_tokens=request.max_tokens,
            stop=request.stop,
            coupling=protocol.coupling,
            window=protocol.window,
            branches=protocol.branches,
            placement=protocol.placement.pinned,
            num_top_logprobs=request.num_top_logprobs,
            deadline_seconds=DEADLINE_SECONDS,
        )

    async def _summary(
        self, request: AnswerRequest, protocol: ProtocolSettings, report: Report, cost: AnswerCost
    ) -> DragonSummary:
        share = report.opener_share
        dropped = report.dropped_mass_mean
        num_bytes = cost.sent_bytes + cost.received_bytes
        return DragonSummary(
            mode="edge_only" if request.mode is AnswerMode.EDGE_ONLY else "both",
            seed=request.seed,
            placement="edge" if report.aggregator is Peer.OPENER else "cloud",
            coupling=protocol.coupling,
            weighting=protocol.weighting.rule,
            num_tokens=report.num_tokens,
            degraded_tokens=report.num_degraded,
            mixed_tokens=report.num_mixed,
            hit_rate=BothSides(edge=report.hit_rate[Peer.OPENER], cloud=report.hit_rate[Peer.OTHER]),
            shares=BothSides(edge=share, cloud=None if share is None else 1.0 - share),
            documents=await self._documents(report),
            dropped_mass=None if dropped is None else DroppedMass(mean=dropped, max=report.dropped_mass_max or dropped),
            bytes=BytesSent(edge_to_cloud=cost.sent_bytes, cloud_to_edge=cost.received_bytes),
            bytes_per_token=num_bytes / max(1, report.num_tokens),
            wasted_steps=WastedSteps(
                edge=report.num_wasted_steps[Peer.OPENER], cloud=report.num_wasted_steps[Peer.OTHER]
            ),
            first_token_seconds=cost.first_token_seconds,
            seconds_per_token=cost.seconds_per_token,
            rtt_seconds=report.rtt_seconds,
            window=protocol.window,
            max_window_used=report.max_window_used,
            takeovers=report.term,
        )

    async def _documents(self, report: Report) -> tuple[DocumentShare, ...]:
        ours = [
            DocumentShare(id=key, name=await self._name_of_document(key), side="edge", share=share)
            for key, share in report.our_documents
        ]
        theirs = [
            DocumentShare(id=document.document_id, name=None, side="cloud", share=document.share / 1000)
            for document in report.their_documents
        ]
        return tuple(sorted((*ours, *theirs), key=lambda document: -document.share))


def _nowhere() -> MemoryChannel:
    """The channel of a session without a second peer."""
    channel = MemoryChannel()
    channel.connect(MemoryChannel())
    return channel


def _require_answer(closed: Closed, error: DragonError | None) -> Report:
    """What is known of an answer that ended as answers end.

    Raises:
        DragonError: it did not; our own end's error where that was the cause.
    """
    if closed.reason in (FinishReason.STOP, FinishReason.LENGTH) and closed.report is not None:
        return closed.report
    if error is not None:
        raise error
    if closed.fault is Fault.THEIRS:
        raise PeerError(closed.error)
    raise EngineError(closed.error or f"the answer ended early: {closed.reason}")
