"""The seam between the HTTP API and the daemon: what is asked for, what comes back, and who gives it.

Protocols and values only. The daemon implements them; tests have a fake in tests/fakes.
"""

import enum
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from dragon_core.messages import ChatMessage
from dragon_core.types import Sampling
from dragon_runtime.answer_schema import DragonSummary
from dragon_runtime.interfaces import Passage


class AnswerMode(enum.StrEnum):
    """Which ends write the answer."""

    BOTH = "both"
    EDGE_ONLY = "edge_only"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRequest:
    """One answer. `num_top_logprobs` is None when no log-probabilities were asked for, 0 for the tokens' own only."""

    messages: tuple[ChatMessage, ...]
    sampling: Sampling
    seed: int
    max_tokens: int
    stop: tuple[str, ...] = ()
    num_top_logprobs: int | None = None
    mode: AnswerMode = AnswerMode.BOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class TopToken:
    """One of the likeliest tokens of the mixture; `token_bytes` is what it prints."""

    token: int
    token_bytes: bytes
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerToken:
    """A final token.

    `token_bytes` is what the token prints, `text_bytes` what may be shown now: bytes that may begin a stop string or
    an incomplete character are held back and come with a later token. `opener_share` and `logprob` are None where the
    token was not settled from both frames.
    """

    token: int
    token_bytes: bytes
    text_bytes: bytes
    opener_share: float | None
    logprob: float | None
    top: tuple[TopToken, ...] = ()
    is_degraded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSummary:
    """The last item of an answer that ended as answers end. `num_prompt_tokens` counts the conversation's."""

    finish_reason: Literal["stop", "length"]
    num_prompt_tokens: int
    dragon: DragonSummary


@dataclass(frozen=True, slots=True)
class Check:
    """Whether one part works; `message` says what is wrong, or what it is."""

    is_ready: bool
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """The parts an answer needs. Without broker or cloud the device still answers alone."""

    model: Check
    store: Check
    broker: Check
    cloud: Check

    @property
    def can_answer(self) -> bool:
        return self.model.is_ready and self.store.is_ready

    @property
    def can_mix(self) -> bool:
        return self.can_answer and self.broker.is_ready and self.cloud.is_ready


class AnswerService(Protocol):
    """Writes answers."""

    @property
    def model_name(self) -> str: ...

    def answer(self, request: AnswerRequest) -> AbstractAsyncContextManager[AsyncIterator[AnswerToken | AnswerSummary]]:
        """Tokens as they become final, then one summary. Leaving the context early cancels the session and frees it.

        Raises (on entering or while iterating):
            PromptTooLongError: the conversation does not fit. CapacityError, RetryableError: not now.
            DragonError: anything else that ended the answer.
        """

    def is_ready(self) -> Readiness: ...


class IngestionState(enum.StrEnum):
    """How far a document has come."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDocument:
    """A document with its progress. `num_passages` is None until the text is split; `added_at` is Unix time."""

    document_id: str
    name: str
    media_type: str
    size_bytes: int
    added_at: float
    state: IngestionState
    num_passages_done: int = 0
    num_passages: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Added:
    """What adding did: `is_new` is false when the same content was there already and nothing changed."""

    document: StoredDocument
    is_new: bool


@dataclass(frozen=True, slots=True)
class DocumentPage:
    """A part of the list, oldest first; `next_after` is where the next part begins, None at the end."""

    documents: tuple[StoredDocument, ...]
    next_after: str | None


class DocumentService(Protocol):
    """Keeps the private documents."""

    async def add(self, content: bytes, *, name: str, media_type: str) -> Added:
        """Take a document and begin to split, embed and store it.

        Raises:
            DocumentError: empty, unreadable or of an unknown type. StoreError: it cannot be kept.
        """

    async def list(self, *, after: str | None, limit: int) -> DocumentPage:
        """At most `limit` documents after the one with id `after`."""

    async def get(self, document_id: str) -> StoredDocument | None: ...

    async def delete(self, document_id: str) -> bool:
        """Remove a document and its passages; false when there is none."""

    async def search(self, query: str, *, num_passages: int) -> tuple[Passage, ...]:
        """The most relevant passages first."""
