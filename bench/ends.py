"""The two ends of the protocol's benchmark: an engine each, in a process and on a core of its own.

The edge connects once per answer or decode; a first record says what is wanted, a last one what it took.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import msgspec

from bench.delayed_channel import DelayedChannel
from dragon_core.errors import EngineError
from dragon_core.messages import Open
from dragon_core.session.events import Closed, Emit, Report
from dragon_core.session.session import Session
from dragon_core.session.settings import Limits
from dragon_core.types import WeightingRule
from dragon_runtime.answering.driver import SessionDriver
from dragon_runtime.answering.preparation import Preparation, Prepared
from dragon_runtime.embedding.choice import open_embedder
from dragon_runtime.engines.llama.branches import PREFILL_CHUNK
from dragon_runtime.engines.llama.engine import LlamaEngine
from dragon_runtime.engines.llama.memory import LlamaSequences, Piece
from dragon_runtime.engines.llama.model import LlamaModel
from dragon_runtime.engines.publishing import publish_step
from dragon_runtime.interfaces import Channel, Embedder, EngineRequest, FailureListener, Passage, StepListener
from dragon_runtime.models import bundled_model
from dragon_runtime.settings import ProtocolSettings
from dragon_runtime.settings.groups import WeightingSettings
from evaluation.asking import FixedPassages, Settings, request_for
from evaluation.factbook import Prompt

CONTEXT_LENGTH = 1024
NUM_SEQUENCES = 4


class Asked(msgspec.Struct, kw_only=True):
    """What the edge wants of the cloud: a session, or its own decoding of given tokens."""

    rule: WeightingRule
    temperature: float
    rtt_seconds: float
    question: str
    passages: tuple[Passage, ...]
    decoded_tokens: tuple[int, ...] = ()


class Told(msgspec.Struct, kw_only=True):
    """What it took at the cloud."""

    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """An answer and what it took. Bytes are those of all frames, Open included, per answered token."""

    tokens: tuple[int, ...]
    text: str
    report: Report
    first_token_seconds: float
    seconds_per_token: float
    slower_prefill_seconds: float
    bytes_up: float
    bytes_down: float


class OwnDecoding:
    """The engine with softmax, mixing and cut, one token after the other and nothing else: the limit of a side."""

    def __init__(
        self, path: Path, *, num_sequences: int = 2, num_threads: int = 1, context_length: int = CONTEXT_LENGTH
    ) -> None:
        self._model = LlamaModel(path)
        self.sequences = LlamaSequences(
            self._model, num_sequences=num_sequences, context_length=context_length, num_threads=num_threads
        )

    def prefill_all(self, requests: Sequence[EngineRequest]) -> None:
        """Put the prompts of all requests into the first sequences, one after the other."""
        for sequence, prompt in enumerate(_prompts(requests)):
            self.sequences.cut(sequence, 0)
            for start in range(0, len(prompt), PREFILL_CHUNK):
                chunk = prompt[start : start + PREFILL_CHUNK]
                self.sequences.decode([Piece(sequence, start, chunk, wants_logits=False)])

    def forget_answers(self, requests: Sequence[EngineRequest]) -> None:
        """Go back to the prompts that `prefill_all` put in place."""
        for sequence, prompt in enumerate(_prompts(requests)):
            self.sequences.cut(sequence, len(prompt))

    def step_all(self, requests: Sequence[EngineRequest], tokens: Sequence[int], position: int) -> None:
        """Feed one token per request at `position` of its answer in one batch, and publish what comes out."""
        pieces: list[Piece] = []
        for request, token in zip(requests, tokens, strict=True):
            for prompt in request.prompts:
                pieces.append(Piece(len(pieces), len(prompt) + position, (token,), wants_logits=True))
        logits = iter(self.sequences.decode(pieces))
        for request in requests:
            publish_step(request, list(islice(logits, len(request.prompts))))

    def seconds_per_token(self, request: EngineRequest, tokens: Sequence[int]) -> float:
        """Feed the tokens of an answer after the prompts; the mean of all steps."""
        self.prefill_all([request])
        started = time.perf_counter()
        for at, token in enumerate(tokens):
            self.step_all([request], [token], at)
        return (time.perf_counter() - started) / len(tokens)


def _prompts(requests: Sequence[EngineRequest]) -> Iterator[tuple[int, ...]]:
    """Of all requests, in the order of the sequences that hold them."""
    return chain.from_iterable(request.prompts for request in requests)


class End:
    """One end with its engine. `prefill_seconds` are those of the last answer."""

    def __init__(self, engine: LlamaEngine, embedder: Embedder, own_decoding: OwnDecoding) -> None:
        self._engine, self._embedder, self._own_decoding = engine, embedder, own_decoding
        self._passages = FixedPassages()
        self._preparations: dict[WeightingRule, Preparation] = {}
        self.prefill_seconds = 0.0

    @classmethod
    async def start(cls, *, core: int) -> "End":
        """Load the bundled model, with one thread, on one core."""
        os.sched_setaffinity(0, {core})
        path = bundled_model()
        engine = await LlamaEngine.load(path, context_length=CONTEXT_LENGTH, num_sequences=NUM_SEQUENCES, num_threads=1)
        return cls(engine, await open_embedder("bundled://all-minilm-l6-v2"), OwnDecoding(path))

    def knows(self, passages: Sequence[Passage], rule: WeightingRule) -> Preparation:
        """From now on retrieval finds these; returns what prepares sessions under the rule."""
        self._passages.found = passages
        if rule not in self._preparations:
            self._preparations[rule] = Preparation(
                engine=self._engine,
                embedder=self._embedder,
                retriever=self._passages,
                protocol=ProtocolSettings(weighting=WeightingSettings(rule=rule)),
            )
        return self._preparations[rule]

    def driver(
        self,
        session: Session,
        channel: Channel,
        preparation: Preparation,
        *,
        on_emit: Callable[[Emit], None] | None = None,
    ) -> SessionDriver:
        """A driver that notes how long the prefill took."""

        async def prepare(request: Open, *, on_step: StepListener, on_failure: FailureListener) -> Prepared:
            prepared = await preparation.prepare(request, on_step=on_step, on_failure=on_failure)
            self.prefill_seconds = prepared.engine_session.prefill_seconds
            return prepared

        return SessionDriver(session, channel, prepare=prepare, on_emit=on_emit)

    async def decode(self, request: Open, preparation: Preparation, tokens: Sequence[int]) -> float:
        """Seconds per token of this side's own decoding of an answer."""
        engine_request = await preparation.engine_request(request)
        return await asyncio.to_thread(self._own_decoding.seconds_per_token, engine_request, tokens)


class EdgeEnd:
    """The end that asks, and measures."""

    def __init__(self, end: End, address: Path) -> None:
        self._end, self._address = end, address

    async def answer(self, prompt: Prompt, settings: Settings, *, rtt_seconds: float) -> Written:
        """Write one answer with the cloud.

        Raises:
            EngineError: it did not end as an answer ends.
        """
        preparation = self._end.knows(prompt.edge, settings.rule)
        channel = await self._ask(prompt, settings, rtt_seconds=rtt_seconds)
        loop = asyncio.get_running_loop()
        emitted: list[tuple[float, Emit]] = []
        session_settings = preparation.session_settings(limits=Limits())
        request = request_for(preparation, prompt.question, settings)
        started = loop.time()
        session, effects = Session.open(session_settings, request, now=started)
        driver = self._end.driver(
            session, channel, preparation, on_emit=lambda emit: emitted.append((loop.time(), emit))
        )
        closed = await driver.run(effects)
        told = msgspec.convert(await channel.receive_record(), Told)
        await channel.hang_up()
        report = _require_answer(closed, driver)
        return Written(
            tokens=tuple(emit.settled.token for _, emit in emitted),
            text=b"".join(emit.text for _, emit in emitted).decode("utf-8", "replace"),
            report=report,
            first_token_seconds=emitted[0][0] - started,
            seconds_per_token=(emitted[-1][0] - emitted[0][0]) / (len(emitted) - 1),
            slower_prefill_seconds=max(self._end.prefill_seconds, told.prefill_seconds),
            bytes_up=channel.sent_bytes / len(emitted),
            bytes_down=channel.received_bytes / len(emitted),
        )

    async def decode(self, prompt: Prompt, settings: Settings, tokens: Sequence[int]) -> tuple[float, float]:
        """Seconds per token of each side's own decoding of the same answer, both at work at once."""
        preparation = self._end.knows(prompt.edge, settings.rule)
        channel = await self._ask(prompt, settings, rtt_seconds=0.0, decoded_tokens=tuple(tokens))
        request = request_for(preparation, prompt.question, settings)
        ours = await self._end.decode(request, preparation, tokens)
        told = msgspec.convert(await channel.receive_record(), Told)
        await channel.hang_up()
        return ours, told.decode_seconds

    async def _ask(
        self, prompt: Prompt, settings: Settings, *, rtt_seconds: float, decoded_tokens: tuple[int, ...] = ()
    ) -> DelayedChannel:
        channel = DelayedChannel(*await asyncio.open_unix_connection(self._address))
        channel.delay_seconds = rtt_seconds / 2
        channel.send_record(
            Asked(
                rule=settings.rule,
                temperature=settings.temperature,
                rtt_seconds=rtt_seconds,
                question=prompt.question,
                passages=prompt.cloud,
                decoded_tokens=decoded_tokens,
            )
        )
        return channel


def _require_answer(closed: Closed, driver: SessionDriver) -> Report:
    if closed.report is None or closed.error or driver.error is not None:
        raise EngineError(f"an answer failed: {closed.error or driver.error}")
    return closed.report


class CloudEnd:
    """The end that is asked."""

    def __init__(self, end: End) -> None:
        self._end = end

    async def serve(self, address: Path) -> None:
        """Until cancelled."""
        server = await asyncio.start_unix_server(self._on_connection, address)
        async with server:
            await server.serve_forever()

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = DelayedChannel(reader, writer)
        asked = msgspec.convert(await channel.receive_record(), Asked)
        channel.delay_seconds = asked.rtt_seconds / 2
        preparation = self._end.knows(asked.passages, asked.rule)
        if asked.decoded_tokens:
            settings = Settings(rule=asked.rule, temperature=asked.temperature, max_tokens=len(asked.decoded_tokens))
            request = request_for(preparation, asked.question, settings)
            channel.send_record(Told(decode_seconds=await self._end.decode(request, preparation, asked.decoded_tokens)))
        else:
            session = Session.await_open(preparation.session_settings(limits=Limits(), replica="cloud"))
            await self._end.driver(session, channel, preparation).run()
            channel.send_record(Told(prefill_seconds=self._end.prefill_seconds))
