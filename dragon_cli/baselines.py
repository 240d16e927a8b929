"""Answers of one engine alone over given documents: the baselines for an answer from both ends."""

import asyncio
from dataclasses import dataclass

from dragon_core.errors import EngineError
from dragon_core.messages import PROTOCOL_VERSION, ChatMessage, Open
from dragon_core.session.events import Emit
from dragon_core.session.session import Session
from dragon_core.session.settings import Limits
from dragon_runtime.answering.driver import SessionDriver
from dragon_runtime.answering.preparation import Preparation
from dragon_runtime.channel.memory import MemoryChannel
from dragon_runtime.interfaces import Embedder, Engine, Passage, Retriever
from dragon_runtime.settings import ProtocolSettings

DEADLINE_SECONDS = 600.0


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
    """Answer greedily and alone from what `retriever` finds.

    Raises:
        DragonError: the engine or the store failed.
    """
    preparation = Preparation(engine=engine, embedder=embedder, retriever=retriever, protocol=protocol)
    settings = preparation.session_settings(limits=Limits())
    request = Open(
        version=PROTOCOL_VERSION,
        fingerprint=settings.fingerprint,
        messages=(ChatMessage("user", question),),
        temperature=0.0,
        top_k=0,
        min_p=0.0,
        top_p=1.0,
        seed=seed,
        max_tokens=max_tokens,
        stop=(),
        coupling=protocol.coupling,
        window=1,
        branches=1,
        placement=None,
        num_top_logprobs=None,
        deadline_seconds=DEADLINE_SECONDS,
    )
    loop = asyncio.get_running_loop()
    started = loop.time()
    emitted: list[tuple[float, bytes]] = []

    def on_emit(emit: Emit) -> None:
        emitted.append((loop.time(), emit.text))

    session, effects = Session.open(settings, request, now=started, is_solo=True)
    channel = MemoryChannel()
    channel.connect(MemoryChannel())
    driver = SessionDriver(session, channel, prepare=preparation.prepare, on_emit=on_emit)
    closed = await driver.run(effects)
    if closed.report is None or driver.error is not None:
        raise driver.error or EngineError(closed.error or "the answer ended early")
    took = emitted[-1][0] - emitted[0][0] if len(emitted) > 1 else None
    return Baseline(
        text=b"".join(text for _, text in emitted).decode("utf-8", "replace"),
        num_tokens=len(emitted),
        first_token_seconds=emitted[0][0] - started if emitted else None,
        seconds_per_token=None if took is None else took / (len(emitted) - 1),
    )
