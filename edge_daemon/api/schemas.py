"""Schemas of requests. All are closed: a parameter that is unknown or not supported is refused by name."""

import secrets
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from dragon_core import limits
from dragon_core.messages import ChatMessage
from dragon_core.types import Sampling
from edge_daemon.answers import AnswerMode, AnswerRequest, RequestDefaults

SEED_BITS = 53
"""A seed that we draw is reported with the answer, and JSON readers keep 53 bits of a number."""
UINT64_MASK = 2**64 - 1


def _only(*neutral: object) -> Callable[[Any], Any]:
    """Accepts what changes nothing, refuses the rest: a parameter must not be ignored in silence."""

    def check(value: Any) -> Any:
        if value is None or any(value == choice and type(value) is not bool for choice in neutral):
            return value
        if isinstance(value, bool) and any(value is choice for choice in neutral):
            return value
        accepted = " or ".join(repr(choice) for choice in neutral)
        hint = f"; only {accepted} is accepted" if neutral else ""
        raise PydanticCustomError("unsupported_parameter", "{reason}", {"reason": f"this is not supported{hint}"})

    return check


Unsupported = Annotated[Any, AfterValidator(_only())]
UnsupportedList = Annotated[Any, AfterValidator(_only([]))]
UnsupportedPenalty = Annotated[Any, AfterValidator(_only(0))]


def _text_of(value: object) -> object:
    """Text as it stands, or a list of text parts put together."""
    if not isinstance(value, list):
        return value
    texts = []
    for at, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            reason = f"part {at} is of type {kind!r}; only text parts are supported"
            raise PydanticCustomError("unsupported_parameter", "{reason}", {"reason": reason})
        if set(part) != {"type", "text"} or not isinstance(part["text"], str):
            raise PydanticCustomError("text_part", "{reason}", {"reason": f"part {at} must have type and text only"})
        texts.append(part["text"])
    return "".join(texts)


def _listed(value: object) -> object:
    return [] if value is None else [value] if isinstance(value, str) else value


def _disagreement(param: str, reason: str) -> PydanticCustomError:
    """Parameters that do not fit together; the error is about `param`."""
    return PydanticCustomError("disagreement", "{reason}", {"reason": reason, "param": param})


class Closed(BaseModel):
    """Root of all requests."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RequestMessage(Closed):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, Field(max_length=2_000_000), BeforeValidator(_text_of)]
    # What clients send back with an assistant's message, as long as it is empty.
    name: Unsupported = None
    refusal: Unsupported = None
    audio: Unsupported = None
    function_call: Unsupported = None
    tool_calls: UnsupportedList = None
    tool_call_id: Unsupported = None
    annotations: UnsupportedList = None

    def to_message(self) -> ChatMessage:
        """`developer` is OpenAI's newer word for `system`."""
        return ChatMessage("system" if self.role == "developer" else self.role, self.content)


class StreamOptions(Closed):
    """What a stream contains in addition to tokens."""

    include_usage: bool = False
    include_obfuscation: Annotated[Any, AfterValidator(_only(False))] = None


class DragonOptions(Closed):
    """Our own parameters, below the key `dragon`."""

    top_k: int = Field(default=0, ge=0, le=2**31 - 1, strict=True)
    min_p: Annotated[float, Field(**limits.MIN_P.keywords())] = Field(default=0.0, strict=True)
    mode: AnswerMode = AnswerMode.BOTH


class UnsupportedParameters(Closed):
    """Parameters of OpenAI's that nothing here implements: named, so that their refusal can say so."""

    n: Annotated[Any, AfterValidator(_only(1))] = None
    tools: UnsupportedList = None
    tool_choice: Annotated[Any, AfterValidator(_only("none"))] = None
    parallel_tool_calls: Unsupported = None
    functions: UnsupportedList = None
    function_call: Annotated[Any, AfterValidator(_only("none"))] = None
    response_format: Annotated[Any, AfterValidator(_only({"type": "text"}))] = None
    logit_bias: Annotated[Any, AfterValidator(_only({}))] = None
    presence_penalty: UnsupportedPenalty = None
    frequency_penalty: UnsupportedPenalty = None
    modalities: Annotated[Any, AfterValidator(_only(["text"]))] = None
    audio: Unsupported = None
    prediction: Unsupported = None
    reasoning_effort: Annotated[Any, AfterValidator(_only("none"))] = None
    verbosity: Unsupported = None
    web_search_options: Unsupported = None
    service_tier: Annotated[Any, AfterValidator(_only("auto", "default"))] = None
    store: Annotated[Any, AfterValidator(_only(False))] = None
    metadata: Annotated[Any, AfterValidator(_only({}))] = None
    moderation: Unsupported = None
    prompt_cache_options: Annotated[Any, AfterValidator(_only({}))] = None


class ChatCompletionRequest(UnsupportedParameters):
    """POST /v1/chat/completions."""

    model: str = Field(min_length=1)
    messages: list[RequestMessage] = Field(min_length=1, max_length=1000)
    temperature: Annotated[float, Field(**limits.ASKED_TEMPERATURE.keywords())] | None = Field(
        default=None, strict=True, allow_inf_nan=False
    )
    top_p: Annotated[float, Field(**limits.TOP_P.keywords())] | None = Field(default=None, strict=True)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**64 - 1, strict=True)
    max_tokens: Annotated[int, Field(**limits.MAX_TOKENS.keywords())] | None = Field(default=None, strict=True)
    max_completion_tokens: Annotated[int, Field(**limits.MAX_TOKENS.keywords())] | None = Field(
        default=None, strict=True
    )
    stop: Annotated[
        list[Annotated[str, Field(**limits.STOP_CHARACTERS.lengths())]],
        BeforeValidator(_listed),
        Field(**limits.NUM_STOPS.lengths()),
    ] = []
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(**limits.NUM_TOP_LOGPROBS.keywords())] | None = Field(default=None, strict=True)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    dragon: DragonOptions = DragonOptions()
    # Names of the caller for abuse reports and caches: they change no answer.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise _disagreement("top_logprobs", "this needs logprobs: true")
        if self.stream_options is not None and not self.stream:
            raise _disagreement("stream_options", "this needs stream: true")
        given = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(given) > 1:
            raise _disagreement("max_completion_tokens", "max_tokens says something else; send one of them")
        if self.messages[-1].role == "assistant":
            raise _disagreement("messages", "the last one must not be the assistant's")
        return self

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def to_answer_request(self, defaults: RequestDefaults) -> AnswerRequest:
        """The request to the daemon. Without a seed, a random one is used."""
        return AnswerRequest(
            messages=tuple(message.to_message() for message in self.messages),
            sampling=Sampling(
                temperature=defaults.temperature if self.temperature is None else self.temperature,
                top_k=self.dragon.top_k,
                min_p=self.dragon.min_p,
                top_p=defaults.top_p if self.top_p is None else self.top_p,
            ),
            seed=secrets.randbits(SEED_BITS) if self.seed is None else self.seed & UINT64_MASK,
            max_tokens=self.max_completion_tokens or self.max_tokens or defaults.max_tokens,
            stop=tuple(self.stop),
            num_top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            mode=self.dragon.mode,
        )


class SearchRequest(Closed):
    """POST /v1/documents/search."""

    query: str = Field(min_length=1, max_length=10_000)
    num_passages: int = Field(default=5, ge=1, le=100, strict=True)
