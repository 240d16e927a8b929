"""The Protocols between the session's driver and the outside: engine, retriever, embedder, channel. And plain data.

Each has its implementations in a folder beside this file; a third-party exception never leaves its adapter. No rules
and no mathematics: what an engine publishes of its logits is in `engines/publishing`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dragon_core.types import Command, Context, Cut, Sampling, Step, Vocabulary, Weighting


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """What a session asks an engine to open: contexts, the bare prompt, and how to mix, sample and cut.

    `bare_prompt` is None unless the weighting rule needs p0. `max_branches` is B, `max_tokens` the longest answer.
    `draft_seed`: of the noise that the session's drafts are drawn with. An engine that has it may make the next step
    before it is asked for, while the last one is on its way; without it, it does not know what comes next.
    """

    contexts: tuple[Context, ...]
    bare_prompt: tuple[int, ...] | None
    weighting: Weighting
    sampling: Sampling
    cut: Cut
    max_branches: int
    max_tokens: int
    draft_seed: int | None = None

    @property
    def prompts(self) -> list[tuple[int, ...]]:
        """One per sequence of a branch: the contexts, then the bare prompt where the rule needs it."""
        prompts = [context.tokens for context in self.contexts]
        return prompts if self.bare_prompt is None else [*prompts, self.bare_prompt]


class EngineSession(Protocol):
    """One answer's sequences on an engine. Branch 0 exists from the start and holds the prompt."""

    @property
    def constant_weight_level(self) -> int | None:
        """The weight in 1/1024 nat when the rule keeps it constant, else None."""

    @property
    def prefill_seconds(self) -> float: ...

    def submit(self, commands: Sequence[Command]) -> None:
        """Queue commands; they run in order, between decodes. Never blocks.

        Raises:
            OurError: a branch that does not exist, a token beyond the vocabulary, too many branches or tokens.
                The commands before it are queued; it and those after it are not.
        """

    async def close(self) -> None:
        """Free every sequence. Tickets not answered by then never are. Safe to call twice."""


StepListener = Callable[[int, Step], None]
FailureListener = Callable[[Exception], None]


class Engine(Protocol):
    """A language model that steps several sessions at once and publishes mixed, cut, quantised distributions."""

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def context_length(self) -> int:
        """Tokens one sequence holds, prompt and answer together."""

    @property
    def decode_seconds(self) -> float:
        """A recent, smoothed time of one step of one session."""

    @property
    def chat_template(self) -> str:
        """The model's own Jinja chat template; empty when it brings none."""

    @property
    def bos_text(self) -> str:
        """How the token that begins a text is written in a template; empty when the model has none."""

    @property
    def eos_text(self) -> str:
        """The same for the token that ends one."""

    def tokenise(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text`; with `special`, text such as `<|im_end|>` becomes special tokens. Adds none itself.

        Blocks, a second for a megabyte: call it from a thread. Safe from every thread.

        Raises:
            EngineError: the engine is elsewhere and cannot be asked.
        """

    async def open(
        self, request: EngineRequest, *, on_step: StepListener, on_failure: FailureListener
    ) -> EngineSession:
        """Prefill all contexts. The listeners are called on the event loop that opened the session.

        Raises:
            CapacityError: more sequences than are free. PromptTooLongError: a context or answer that does not fit.
        """


class Embedder(Protocol):
    """Text to unit vectors."""

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str:
        """A digest of the weights: peers must agree on it."""

    @property
    def dimension(self) -> int: ...

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dimension) rows of unit length, in the order of `texts`."""

    def num_tokens(self, text: str) -> int:
        """Length of a text as the model counts; longer ones than it can read may count as the longest it can.

        Blocks; safe from every thread.
        """

    def close(self) -> None:
        """Free what it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A retrieved piece of a document with its relevance (cosine similarity to the query)."""

    document_id: str
    text: str
    relevance: float


class Retriever(Protocol):
    """Finds passages."""

    async def retrieve(self, query: str, *, num_passages: int) -> list[Passage]:
        """The most relevant passages first; empty when the store is."""


@dataclass(frozen=True, slots=True)
class LinkRestored:
    """What a channel tells between two frames: the connection was lost and is there again, frames may be missing."""


class Channel(Protocol):
    """An ordered pipe of one session's frames to the other end. Loss shows as a gap in the sequence numbers."""

    @property
    def sent_bytes(self) -> int:
        """Bytes of all frames given to the transport."""

    @property
    def received_bytes(self) -> int: ...

    def send_open(self, frame: bytes) -> None:
        """Ask any replica for the session; at the opener only."""

    def bind(self, replica: str) -> None:
        """From now on frames go to this replica; at the opener only. Frames sent before are lost."""

    def send(self, frame: bytes) -> None:
        """Queue a frame; never blocks. Frames over the queue's limit, or sent while disconnected, are lost."""

    async def receive(self) -> bytes | LinkRestored:
        """The next frame from the other end, or that the connection was lost and is there again.

        Raises:
            OurError: the channel was closed.
        """

    def close(self) -> None:
        """Stop receiving; safe to call twice."""
