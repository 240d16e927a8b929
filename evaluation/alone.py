"""Answers of one engine alone over given documents: the baselines for an answer from both ends."""

import asyncio
from dataclasses import dataclass

from dragon_core.errors import EngineError
from dragon_core.messages import ChatMessage
from dragon_core.session.events import Emit
from dragon_core.session.session import Session
from dragon_core.session.settings import Limits
from dragon_core.types import Sampling
from dragon_runtime.answering.cost import AnswerTimes
from dragon_runtime.answering.driver import SessionDriver
from dragon_runtime.answering.preparation import Preparation
from dragon_runtime.answering.request import open_message
from dragon_runtime.channel.memory import memory_channel_pair
from dragon_runtime.interfaces import Embedder, Engine, Passage, Retriever
from dragon_runtime.settings import PlacementChoice, ProtocolSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """An answer of one engine."""

    text: str
    num_tokens: int
    first_token_seconds: float | None
    seconds_per_token: float | None


class BothRetrievers:
    """All passages on one machine: half from each store, most relevant first."""

    def __init__(self, first: Retriever, second: Retriever) -> None:
        self._retrievers = (first, second)

    async def retrieve(self, query: str, *, num_passages: int) -> list[Passage]:
        found = [await each.retrieve(query, num_passages=num_passages // 2) for each in self._retrievers]
        return sorted((passage for part in found for passage in part), key=lambda passage: -passage.relevance)


async def alone(
    question: str,
    *,
    engine: Engine,
    embedder: Embedder,
    retriever: Retriever,
    protocol: ProtocolSettings,
    seed: int,
    max_tokens: int,
) -> Baseline:
    """Answer greedily from what `retriever` finds, with nobody else.

    Raises:
        DragonError: the engine or the store failed.
    """
    # Nobody is there to be ahead of: a step at a time, one guess.
    in_step = protocol.model_copy(update={"window": 1, "branches": 1, "placement": PlacementChoice.AUTO})
    preparation = Preparation(engine=engine, embedder=embedder, retriever=retriever, protocol=in_step)
    settings = preparation.session_settings(limits=Limits())
    request = open_message(
        in_step,
        settings.fingerprint,
        messages=(ChatMessage("user", question),),
        sampling=Sampling(temperature=0.0),
        seed=seed,
        max_tokens=max_tokens,
    )
    loop = asyncio.get_running_loop()
    times = AnswerTimes(loop.time())
    pieces: list[bytes] = []

    def on_emit(emit: Emit) -> None:
        times.mark(loop.time())
        pieces.append(emit.text)

    session, effects = Session.open(settings, request, now=times.started, is_solo=True)
    channel, _ = memory_channel_pair()
    driver = SessionDriver(session, channel, prepare=preparation.prepare, on_emit=on_emit)
    closed = await driver.run(effects)
    if closed.report is None or driver.error is not None:
        raise driver.error or EngineError(closed.error or "the answer ended early")
    cost = times.cost(channel, num_tokens=len(pieces))
    return Baseline(
        text=b"".join(pieces).decode("utf-8", "replace"),
        num_tokens=len(pieces),
        first_token_seconds=cost.first_token_seconds,
        seconds_per_token=cost.seconds_per_token,
    )
