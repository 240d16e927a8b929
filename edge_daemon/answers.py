"""The seam between the HTTP API and the daemon: requests, answers, and the service that answers.

Protocols and values only. The daemon implements them; tests have a fake in tests/fakes.
"""

import enum
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from dragon_core.errors import OurError, PromptTooLongError
from dragon_core.messages import ChatMessage
from dragon_core.types import Sampling
from dragon_runtime.answering.summary import DragonSummary


class ConversationError(OurError):
    """A conversation that the model's chat template refuses, as some do when turns do not alternate."""


class ConversationTooLongError(PromptTooLongError):
    """A conversation that does not fit together with its answer; says all three lengths."""

    def __init__(self, *, num_prompt_tokens: int, max_answer_tokens: int, context_length: int) -> None:
        super().__init__(num_tokens=num_prompt_tokens + max_answer_tokens, max_tokens=context_length)
        message = (
            f"the conversation has {num_prompt_tokens} tokens and its answer may have {max_answer_tokens}, together "
            f"{self.num_tokens}; the context holds {context_length}: shorten the conversation, lower max_tokens, or "
            "raise model.context_length"
        )
        self.args = (message,)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDefaults:
    """Defaults for requests that do not say."""

    temperature: float
    top_p: float
    max_tokens: int


class AnswerService(Protocol):
    """Writes answers."""

    @property
    def model_name(self) -> str: ...

    def answer(self, request: AnswerRequest) -> AbstractAsyncContextManager[AsyncIterator[AnswerToken | AnswerSummary]]:
        """Tokens as they become final, then one summary. Leaving the context early cancels the session and frees it.

        Raises (on entering or while iterating):
            PromptTooLongError: the conversation does not fit. ConversationError: the model's template refuses it.
            CapacityError, RetryableError: not now.
            DragonError: anything else that ended the answer.
        """

    def is_ready(self) -> Readiness: ...
