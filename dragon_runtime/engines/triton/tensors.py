"""What goes over Triton's wire, as named arrays: one half of docs/triton.md, for both ends of it. No I/O.

A session's steps, and the error that ends it, answer its `open` request; what is wrong with another request answers
that one.
"""

import enum
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from dragon_core.distribution import decoded
from dragon_core.errors import DragonError, EngineError, OurError
from dragon_core.types import (
    BranchId,
    Command,
    Context,
    Cut,
    Drop,
    Feed,
    Fork,
    Published,
    Rollback,
    Sampling,
    Step,
    Vocabulary,
    Weighting,
    WeightingRule,
)
from dragon_runtime.interfaces import EngineRequest

Tensors = Mapping[str, NDArray[np.generic]]

MAX_PROMPT_TOKENS = 1 << 20
"""Of one request, all prompts together."""
MAX_COMMAND_NUMBERS = 1 << 16


class Operation(enum.IntEnum):
    """What a request to `causal_lm` wants: the first number of its REQUEST. The second is the session's."""

    DESCRIBE = 0
    TOKENISE = 1
    OPEN = 2
    RUN = 3
    CLOSE = 4
    PROBE = 5


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a session mixes, samples and cuts, and what it may grow to: the OPTIONS of an `open`, as JSON."""

    rule: WeightingRule
    weighting_temperature: Annotated[float, msgspec.Meta(gt=0)]
    beta: Annotated[float, msgspec.Meta(ge=0)]
    gamma: Annotated[float, msgspec.Meta(ge=0)]
    temperature: Annotated[float, msgspec.Meta(ge=0)]
    top_k: Annotated[int, msgspec.Meta(ge=0)]
    min_p: Annotated[float, msgspec.Meta(ge=0, le=1)]
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)]
    nucleus: Annotated[float, msgspec.Meta(gt=0, le=1)]
    max_published_tokens: Annotated[int, msgspec.Meta(ge=1)]
    max_branches: Annotated[int, msgspec.Meta(ge=1, le=256)]
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    draft_seed: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is: the MODEL of a `describe`, as JSON."""

    context_length: int
    num_sequences: int
    decode_seconds: float
    chat_template: str
    bos_text: str
    eos_text: str


def request_tensor(operation: Operation, session: int = 0, numbers: Sequence[int] = ()) -> NDArray[np.int64]:
    """What every request begins with, and all of a `run`: each tensor costs a step its time."""
    return np.array([operation, session, *numbers], dtype=np.int64)


def operation_of(tensors: Tensors) -> tuple[Operation, int]:
    """What a request wants, and of which session.

    Raises:
        OurError: it has no REQUEST, or there is no such operation.
    """
    numbers = _tensor(tensors, "REQUEST").reshape(-1)
    if len(numbers) < 2:
        raise OurError(f"REQUEST has {len(numbers)} elements; an operation and a session are wanted")
    operation, session = numbers[:2].tolist()
    if operation not in set(Operation):
        known = ", ".join(f"{each.value} {each.name.lower()}" for each in Operation)
        raise OurError(f"REQUEST asks for operation {operation}; there are {known}")
    return Operation(operation), session


def text(value: str) -> NDArray[np.object_]:
    """A BYTES tensor of one element."""
    return np.array([value.encode()], dtype=object)


def texts(values: Sequence[str | bytes]) -> NDArray[np.object_]:
    """A BYTES tensor."""
    tensor = np.empty(len(values), dtype=object)
    tensor[:] = [value.encode() if isinstance(value, str) else value for value in values]
    return tensor


def text_in(tensors: Tensors, name: str) -> str:
    """The one string of a tensor.

    Raises:
        OurError: it is missing, or is something else.
    """
    tensor = _tensor(tensors, name)
    if tensor.size != 1:
        raise OurError(f"{name} has {tensor.size} elements; one is wanted")
    found = tensor.reshape(-1)[0]
    try:
        return found.decode() if isinstance(found, bytes) else str(found)
    except UnicodeDecodeError as error:
        raise OurError(f"{name} is not UTF-8: {error}") from error


def integer_in(tensors: Tensors, name: str) -> int:
    """The one integer of a tensor.

    Raises:
        OurError: it is missing, or is something else.
    """
    tensor = _tensor(tensors, name)
    if tensor.size != 1 or not np.issubdtype(tensor.dtype, np.integer):
        raise OurError(f"{name} is {tensor.dtype} of {tensor.size} elements; one integer is wanted")
    return int(tensor.reshape(-1)[0])


def _tensor(tensors: Tensors, name: str) -> NDArray[np.generic]:
    tensor = tensors.get(name)
    if tensor is None:
        raise OurError(f"the request has no {name}")
    return tensor


# -- sessions ---------------------------------------------------------------------------------------------------------


def open_tensors(request: EngineRequest) -> Tensors:
    """What an `open` carries beside its session: the prompts one after the other, the bare prompt last."""
    weighting, sampling, cut = request.weighting, request.sampling, request.cut
    options = Options(
        rule=weighting.rule,
        weighting_temperature=weighting.temperature,
        beta=weighting.effective_beta,
        gamma=weighting.gamma,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        top_p=sampling.top_p,
        nucleus=cut.nucleus,
        max_published_tokens=cut.max_published_tokens,
        max_branches=request.max_branches,
        max_tokens=request.max_tokens,
        draft_seed=request.draft_seed,
    )
    return {
        "TOKENS": np.array([token for prompt in request.prompts for token in prompt], dtype=np.int32),
        "LENGTHS": np.array([len(prompt) for prompt in request.prompts], dtype=np.int32),
        "RELEVANCES": np.array([context.relevance for context in request.contexts], dtype=np.float64),
        "OPTIONS": text(msgspec.json.encode(options).decode()),
    }


def request_of(tensors: Tensors) -> EngineRequest:
    """What an `open` asks for.

    Raises:
        OurError: tensors that are missing or do not fit each other.
    """
    try:
        options = msgspec.json.decode(text_in(tensors, "OPTIONS"), type=Options)
    except msgspec.MsgspecError as error:
        raise OurError(f"OPTIONS: {error}") from error
    tokens = _tensor(tensors, "TOKENS").reshape(-1).tolist()
    lengths = _tensor(tensors, "LENGTHS").reshape(-1).tolist()
    relevances = _tensor(tensors, "RELEVANCES").reshape(-1).tolist()
    if len(tokens) > MAX_PROMPT_TOKENS:
        raise OurError(f"TOKENS has {len(tokens)} elements; at most {MAX_PROMPT_TOKENS} are accepted")
    if any(length < 0 for length in lengths) or sum(lengths) != len(tokens):
        raise OurError(f"LENGTHS sums to {sum(lengths)}, TOKENS has {len(tokens)}")
    has_bare = options.rule.needs_bare_prompt
    if len(lengths) != len(relevances) + has_bare:
        raise OurError(
            f"LENGTHS has {len(lengths)} prompts for {len(relevances)} relevances"
            + (" and a bare prompt" if has_bare else "")
        )
    if not np.isfinite(relevances).all():
        raise OurError("RELEVANCES must be finite")
    ends = np.cumsum([0, *lengths]).tolist()
    prompts = [tuple(tokens[start:end]) for start, end in pairwise(ends)]
    return EngineRequest(
        contexts=tuple(
            Context(tokens=prompt, relevance=relevance)
            for prompt, relevance in zip(prompts[: len(relevances)], relevances, strict=True)
        ),
        bare_prompt=prompts[-1] if has_bare else None,
        weighting=Weighting(
            rule=options.rule, temperature=options.weighting_temperature, beta=options.beta, gamma=options.gamma
        ),
        sampling=Sampling(
            temperature=options.temperature, top_k=options.top_k, min_p=options.min_p, top_p=options.top_p
        ),
        cut=Cut(nucleus=options.nucleus, max_published_tokens=options.max_published_tokens),
        max_branches=options.max_branches,
        max_tokens=options.max_tokens,
        draft_seed=options.draft_seed,
    )


_FEED, _FORK, _ROLLBACK, _DROP = range(4)


def command_numbers(commands: Sequence[Command]) -> list[int]:
    """Each command is its kind, two numbers, a count, and so many tokens."""
    numbers: list[int] = []
    for command in commands:
        match command:
            case Feed(ticket, branch, tokens):
                numbers += (_FEED, ticket, branch, len(tokens), *tokens)
            case Fork(source, branch):
                numbers += (_FORK, source, branch, 0)
            case Rollback(branch, position):
                numbers += (_ROLLBACK, branch, position, 0)
            case Drop(branch):
                numbers += (_DROP, branch, 0, 0)
    return numbers


def commands_of(tensors: Tensors) -> list[Command]:
    """The commands of a `run`.

    Raises:
        OurError: numbers that are no commands.
    """
    numbers = _tensor(tensors, "REQUEST").reshape(-1)[2:].tolist()
    if len(numbers) > MAX_COMMAND_NUMBERS:
        raise OurError(f"REQUEST has {len(numbers)} numbers of commands; at most {MAX_COMMAND_NUMBERS} are accepted")
    return list(_commands(numbers))


def _commands(numbers: list[int]) -> Iterator[Command]:
    at = 0
    while at < len(numbers):
        if at + 4 > len(numbers) or not 0 <= numbers[at + 3] <= len(numbers) - at - 4:
            raise OurError(f"REQUEST ends within the command at {at}")
        kind, first, second, count = numbers[at : at + 4]
        tokens = tuple(numbers[at + 4 : at + 4 + count])
        if kind == _FEED:
            yield Feed(first, BranchId(second), tokens)
        elif kind == _FORK and not count:
            yield Fork(BranchId(first), BranchId(second))
        elif kind == _ROLLBACK and not count:
            yield Rollback(BranchId(first), second)
        elif kind == _DROP and not count:
            yield Drop(BranchId(first))
        else:
            raise OurError(f"REQUEST: {kind} with {count} tokens is no command (at {at})")
        at += 4 + count


def opened_tensors(
    *, prefill_seconds: float, decode_seconds: float, constant_weight_level: int | None
) -> Mapping[str, NDArray[np.generic]]:
    """The first answer to an `open`: the prompts are in place."""
    levels = [] if constant_weight_level is None else [constant_weight_level]
    return {
        "SECONDS": np.array([prefill_seconds, decode_seconds], dtype=np.float64),
        "CONSTANT_WEIGHT_LEVEL": np.array(levels, dtype=np.int64),
    }


_STEP_HEADER = struct.Struct("<qqq")
"""Ticket, weight level, dropped mass."""


def step_tensors(ticket: int, step: Step) -> Tensors:
    """An answer to a feed: a header, ids, levels, and the shares unless a context alone has all of each token."""
    published, distribution = step.published, step.published.distribution
    parts = [
        _STEP_HEADER.pack(ticket, published.weight_level, distribution.dropped),
        distribution.ids.astype("<u4", copy=False).tobytes(),
        distribution.levels.astype("<u2", copy=False).tobytes(),
    ]
    if step.context_shares.shape[0] > 1:
        parts.append(step.context_shares.astype("<f4", copy=False).tobytes())
    return {"STEP": np.frombuffer(b"".join(parts), dtype=np.uint8)}


def step_of(tensors: Tensors, *, num_contexts: int, num_vocabulary: int) -> tuple[int, Step]:
    """A ticket and its step.

    Raises:
        EngineError: it does not fit.
    """
    try:
        body = _tensor(tensors, "STEP").astype(np.uint8, copy=False).tobytes()
        ticket, weight_level, dropped = _STEP_HEADER.unpack_from(body)
        has_shares = num_contexts > 1
        num_tokens, remainder = divmod(len(body) - _STEP_HEADER.size, 6 + 4 * num_contexts * has_shares)
        ids = np.frombuffer(body, dtype="<u4", count=num_tokens, offset=_STEP_HEADER.size).astype(np.uint32)
        if remainder or not num_tokens or int(ids.max()) >= num_vocabulary:
            raise EngineError(f"{num_tokens} tokens of {len(body)} bytes")
        at = _STEP_HEADER.size + 4 * num_tokens
        levels = np.frombuffer(body, dtype="<u2", count=num_tokens, offset=at).astype(np.uint16)
        shares = (
            np.frombuffer(body, dtype="<f4", offset=at + 2 * num_tokens).astype(np.float32)
            if has_shares
            else np.ones(num_tokens, dtype=np.float32)
        )
        step = Step(
            published=Published(weight_level, decoded(ids, levels, dropped)),
            context_shares=shares.reshape(num_contexts, num_tokens),
        )
    except (ValueError, struct.error, DragonError) as error:
        raise EngineError(f"Triton sent a step that does not fit: {error}") from error
    return ticket, step


# -- the model --------------------------------------------------------------------------------------------------------


def description_tensors(description: Description, vocabulary: Vocabulary) -> Tensors:
    """The answer to a `describe`."""
    return {
        "MODEL": text(msgspec.json.encode(description).decode()),
        "TOKEN_BYTES": texts(vocabulary.token_bytes),
        "SPECIAL_IDS": np.array(sorted(vocabulary.special_ids), dtype=np.int32),
        "END_IDS": np.array(sorted(vocabulary.end_ids), dtype=np.int32),
    }


def description_of(tensors: Tensors) -> tuple[Description, Vocabulary]:
    """What a model says it is.

    Raises:
        EngineError: it does not fit.
    """
    try:
        description = msgspec.json.decode(text_in(tensors, "MODEL"), type=Description)
        vocabulary = Vocabulary(
            token_bytes=tuple(bytes(token) for token in _tensor(tensors, "TOKEN_BYTES").reshape(-1).tolist()),
            special_ids=frozenset(_tensor(tensors, "SPECIAL_IDS").reshape(-1).tolist()),
            end_ids=frozenset(_tensor(tensors, "END_IDS").reshape(-1).tolist()),
        )
    except (msgspec.MsgspecError, OurError, TypeError) as error:
        raise EngineError(f"the model on Triton describes itself in a way that does not fit: {error}") from error
    return description, vocabulary
