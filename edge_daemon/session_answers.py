"""Answers as sessions: opens a session per request, drives it, and reports how the answer was written."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from dragon_core.errors import OurError, PromptTooLongError
from dragon_core.messages import FinishReason
from dragon_core.session.events import Report
from dragon_core.session.settings import Limits
from dragon_runtime.answering.metrics import PeerMetrics
from dragon_runtime.answering.preparation import Preparation
from dragon_runtime.answering.request import open_message
from dragon_runtime.channel.memory import memory_channel_pair
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
)
from edge_daemon.running_answer import RunningAnswer
from edge_daemon.summarising import NameOfDocument, summarise


class SessionAnswers:
    """Writes answers with the other end, or alone; see `AnswerService`."""

    def __init__(
        self,
        preparation: Preparation,
        protocol: ProtocolSettings,
        *,
        model_name: str,
        create_channel: Callable[[str], Channel],
        name_of_document: NameOfDocument,
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
        is_solo = request.mode is AnswerMode.EDGE_ONLY
        protocol = self._protocol  # another one may be in force before this answer ends
        answer = self._start(request, protocol, is_solo=is_solo)
        self._metrics.open_sessions.inc()
        try:
            async with aclosing(self._items(answer, request, protocol, num_prompt_tokens)) as items:
                yield items
        finally:
            closed = await answer.leave()
            self._metrics.open_sessions.dec()
            if closed is not None and closed.report is not None:
                self._metrics.record(closed.reason, closed.report, answer.cost(closed.report))
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

    def _start(self, request: AnswerRequest, protocol: ProtocolSettings, *, is_solo: bool) -> RunningAnswer:
        opening = open_message(
            protocol,
            self._settings.fingerprint,
            messages=request.messages,
            sampling=request.sampling,
            seed=request.seed,
            max_tokens=request.max_tokens,
            stop=request.stop,
            num_top_logprobs=request.num_top_logprobs,
        )
        channel = _nowhere() if is_solo else self._create_channel(secrets.token_hex(16))
        return RunningAnswer.start(self._settings, opening, channel, prepare=self._preparation.prepare, is_solo=is_solo)

    async def _items(
        self, answer: RunningAnswer, request: AnswerRequest, protocol: ProtocolSettings, num_prompt_tokens: int
    ) -> AsyncGenerator[AnswerToken | AnswerSummary, None]:
        async with aclosing(answer.tokens()) as tokens:
            async for token in tokens:
                yield token
        reason, report = await answer.outcome()
        yield AnswerSummary(
            finish_reason="length" if reason is FinishReason.LENGTH else "stop",
            num_prompt_tokens=num_prompt_tokens,
            dragon=await summarise(
                request, protocol, report, answer.cost(report), name_of_document=self._name_of_document
            ),
        )


def _nowhere() -> Channel:
    """The channel of a session that asks nobody."""
    ours, _ = memory_channel_pair()
    return ours
