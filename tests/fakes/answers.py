"""An `AnswerService` that follows a script, and shows what was asked of it and when it was left."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from dragon_core.types import CouplingKind, WeightingRule
from dragon_runtime.answering.summary import (
    BothSides,
    BytesSent,
    DocumentShare,
    DragonSummary,
    DroppedMass,
    WastedSteps,
)
from edge_daemon.answers import AnswerRequest, AnswerSummary, AnswerToken, Check, Readiness, TopToken

GOOD = Check(is_ready=True, message="fine")
BAD = Check(is_ready=False, message="not there")
ALL_GOOD = Readiness(model=GOOD, store=GOOD, broker=GOOD, cloud=GOOD)

Item = AnswerToken | AnswerSummary | Exception | asyncio.Event
"""A token or summary to give, an error to fail with, or an event to wait for."""


def token(text: bytes, *, shown: bytes | None = None, is_degraded: bool = False) -> AnswerToken:
    """A token that prints `text`; `shown` are the bytes that may be shown with it, all of its own by default."""
    return AnswerToken(
        token=len(text),
        token_bytes=text,
        text_bytes=text if shown is None else shown,
        opener_share=None if is_degraded else 0.25,
        logprob=None if is_degraded else -0.5,
        top=(TopToken(token=1, token_bytes=text, logprob=-0.5), TopToken(token=2, token_bytes=b" x", logprob=-1.5)),
        is_degraded=is_degraded,
    )


def summary(num_tokens: int = 3, *, finish_reason: str = "stop") -> AnswerSummary:
    """The end of an answer of `num_tokens` tokens."""
    return AnswerSummary(
        finish_reason="length" if finish_reason == "length" else "stop",
        num_prompt_tokens=7,
        dragon=DragonSummary(
            mode="both",
            seed=11,
            placement="cloud",
            coupling=CouplingKind.SHARED_NOISE,
            weighting=WeightingRule.EVIDENCE,
            num_tokens=num_tokens,
            degraded_tokens=0,
            mixed_tokens=num_tokens,
            hit_rate=BothSides(edge=0.5, cloud=None),
            shares=BothSides(edge=0.25, cloud=0.75),
            documents=(DocumentShare(id="d1", name="note.txt", side="edge", share=0.25),),
            dropped_mass=DroppedMass(mean=0.001, max=0.01),
            bytes=BytesSent(edge_to_cloud=100, cloud_to_edge=200),
            bytes_per_token=100.0,
            wasted_steps=WastedSteps(edge=1, cloud=0),
            first_token_seconds=0.1,
            seconds_per_token=0.02,
            rtt_seconds=None,
            window=32,
            max_window_used=4,
            takeovers=0,
        ),
    )


def hello() -> list[Item]:
    """A short answer."""
    return [token(b"Hello"), token(b" there"), token(b"."), summary()]


@dataclass
class ScriptedAnswers:
    """Gives `script` to everyone who asks; `refusal` is raised on entering. Events tell that a scope began or ended."""

    script: Sequence[Item] = field(default_factory=hello)
    refusal: Exception | None = None
    readiness: Readiness = ALL_GOOD
    model_name: str = "toy"
    requests: list[AnswerRequest] = field(default_factory=list)
    num_open: int = 0
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    def is_ready(self) -> Readiness:
        return self.readiness

    @asynccontextmanager
    async def answer(self, request: AnswerRequest) -> AsyncGenerator[AsyncIterator[AnswerToken | AnswerSummary], None]:
        self.requests.append(request)
        if self.refusal is not None:
            raise self.refusal
        self.num_open += 1
        self.entered.set()
        try:
            async with aclosing(self._play()) as items:
                yield items
        finally:
            self.num_open -= 1
            self.left.set()

    async def _play(self) -> AsyncGenerator[AnswerToken | AnswerSummary, None]:
        for item in self.script:
            match item:
                case asyncio.Event():
                    await item.wait()
                case Exception():
                    raise item
                case _:
                    yield item
