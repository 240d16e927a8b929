"""An engine that writes a given text token by token, and a preparation around it: whole sessions without a model."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dragon_core.errors import CapacityError, EngineError
from dragon_core.mixture import publish
from dragon_core.types import BranchId, Command, Drop, Feed, Fork, Rollback, Step, Vocabulary
from dragon_runtime.answering.preparation import Preparation
from dragon_runtime.interfaces import EngineRequest, FailureListener, Passage, StepListener
from dragon_runtime.settings import PeerSettings, WeightingSettings

END = 0
CONFIDENCE = 12.0
"""Logit of the next token of the text; the others have 0."""


def vocabulary_of(tokens: Sequence[bytes]) -> Vocabulary:
    """`tokens` with ids from 1 on, after one that ends an answer and prints nothing."""
    return Vocabulary(token_bytes=(b"", *tokens), special_ids=frozenset({END}), end_ids=frozenset({END}))


@dataclass
class WritingEngine:
    """Writes the tokens of its vocabulary in their order, then ends. `hold` keeps every step back until `release`.

    Events tell that a session was opened, and that a step was asked for.
    """

    tokens: Sequence[bytes] = (b"One", b" two", b" three", b" four", b" five", b" six", b" seven", b" eight")
    num_sequences: int = 64
    context_length: int = 2048
    chat_template: str = ""
    bos_text: str = ""
    eos_text: str = ""
    decode_seconds: float = 0.001
    is_held: bool = False
    sessions: list["WritingSession"] = field(default_factory=list)
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.vocabulary = vocabulary_of(self.tokens)
        self.num_free = self.num_sequences
        self._held: list[Callable[[], None]] = []

    def tokenise(self, text: str, *, special: bool) -> list[int]:
        """One token per character."""
        return [1] * len(text)

    async def open(
        self, request: EngineRequest, *, on_step: StepListener, on_failure: FailureListener
    ) -> "WritingSession":
        needed = (len(request.contexts) + (request.bare_prompt is not None)) * request.max_branches
        if needed > self.num_free:
            raise CapacityError(f"{needed} of {self.num_free}", requested=needed, available=self.num_free)
        self.num_free -= needed
        session = WritingSession(self, request, needed, on_step, on_failure)
        self.sessions.append(session)
        self.opened.set()
        return session

    def hold(self) -> None:
        """Give no step from now on."""
        self.is_held = True

    def release(self) -> None:
        """Give what was held back, and everything after it."""
        self.is_held = False
        held, self._held = self._held, []
        for deliver in held:
            deliver()

    def deliver(self, act: Callable[[], None]) -> None:
        """As an engine does: never within the call that asked."""
        self.asked.set()
        if self.is_held:
            self._held.append(act)
        else:
            asyncio.get_running_loop().call_soon(act)


class WritingSession:
    """One answer; see `EngineSession`. Set `is_broken` to have it fail the way a defect does."""

    constant_weight_level: int | None = None
    prefill_seconds = 0.0

    def __init__(
        self,
        engine: WritingEngine,
        request: EngineRequest,
        num_sequences: int,
        on_step: StepListener,
        on_failure: FailureListener,
    ) -> None:
        self._engine, self._request, self._num_sequences = engine, request, num_sequences
        self._on_step, self._on_failure = on_step, on_failure
        self._lengths: dict[BranchId, int] = {BranchId(0): 0}
        self.is_closed = False
        self.is_broken = False

    def submit(self, commands: Sequence[Command]) -> None:
        if self.is_broken:
            raise ZeroDivisionError("a defect")
        for command in commands:
            match command:
                case Feed(ticket, branch, tokens):
                    self._lengths[branch] += len(tokens)
                    self._answer(ticket, self._lengths[branch])
                case Fork(source, branch):
                    self._lengths[branch] = self._lengths[source]
                case Rollback(branch, position):
                    self._lengths[branch] = position
                case Drop(branch):
                    del self._lengths[branch]

    def fail(self) -> None:
        """Lose the engine under this session."""
        self._on_failure(EngineError("the language model was lost"))

    async def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._engine.num_free += self._num_sequences

    def _answer(self, ticket: int, position: int) -> None:
        step = self._step(position)

        def deliver() -> None:
            if not self.is_closed:
                self._on_step(ticket, step)

        self._engine.deliver(deliver)

    def _step(self, position: int) -> Step:
        request = self._request
        logits = np.zeros(len(self._engine.vocabulary), dtype=np.float32)
        logits[position + 1 if position < len(self._engine.tokens) else END] = CONFIDENCE
        return publish(
            np.stack([logits] * len(request.contexts)),
            np.zeros_like(logits) if request.bare_prompt is not None else None,
            np.array([context.relevance for context in request.contexts]),
            weighting=request.weighting,
            sampling=request.sampling,
            cut=request.cut,
        )


class FlatEmbedder:
    """Every text means the same."""

    name, revision, dimension = "flat", "0", 2

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.tile(np.array([1.0, 0.0], dtype=np.float32), (len(texts), 1))

    def num_tokens(self, text: str) -> int:
        return len(text.split())

    def close(self) -> None:
        pass


@dataclass
class FixedRetriever:
    """Always finds the same."""

    passages: Sequence[Passage] = (Passage(document_id="d1", text="a passage", relevance=0.8),)

    async def retrieve(self, query: str, *, num_passages: int) -> list[Passage]:
        return list(self.passages[:num_passages])


def preparation_of(engine: WritingEngine, protocol: PeerSettings | None = None) -> Preparation:
    """The real preparation over fakes."""
    protocol = protocol or PeerSettings(weighting=WeightingSettings())
    return Preparation(engine=engine, embedder=FlatEmbedder(), retriever=FixedRetriever(), protocol=protocol)
