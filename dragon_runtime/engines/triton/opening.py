"""An `open` on Triton's wire: what a session asks an engine for, and the first answer.

A session's steps, and the error that ends it, answer its `open` too.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from dragon_core import limits
from dragon_core.errors import OurError
from dragon_core.types import Context, Cut, Sampling
from dragon_runtime.engines.triton.tensors import Tensors, tensor_in, text, text_in
from dragon_runtime.interfaces import EngineRequest
from dragon_runtime.settings.spellings import take_triton_weighting, triton_weighting

MAX_PROMPT_TOKENS = 1 << 20
"""Of one request, all prompts together."""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a session samples and cuts, and what it may grow to: the OPTIONS of an `open`, as JSON.

    The parameters of the weighting rule stand beside these, as `dragon_runtime.settings.spellings` spells them.
    """

    temperature: Annotated[float, msgspec.Meta(**limits.TEMPERATURE.keywords())]
    top_k: Annotated[int, msgspec.Meta(ge=0)]
    min_p: Annotated[float, msgspec.Meta(**limits.MIN_P.keywords())]
    top_p: Annotated[float, msgspec.Meta(**limits.TOP_P.keywords())]
    nucleus: Annotated[float, msgspec.Meta(**limits.NUCLEUS.keywords())]
    max_published_tokens: Annotated[int, msgspec.Meta(**limits.MAX_PUBLISHED_TOKENS.keywords())]
    max_branches: Annotated[int, msgspec.Meta(ge=1, le=256)]
    max_tokens: Annotated[int, msgspec.Meta(**limits.MAX_TOKENS.keywords())]
    draft_seed: Annotated[int, msgspec.Meta(ge=0)] | None = None


def open_tensors(request: EngineRequest) -> Tensors:
    """What an `open` carries beside its session: the prompts one after the other, the bare prompt last."""
    sampling, cut = request.sampling, request.cut
    options = Options(
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
        "OPTIONS": text(
            msgspec.json.encode(triton_weighting(request.weighting) | msgspec.to_builtins(options)).decode()
        ),
    }


def request_of(tensors: Tensors) -> EngineRequest:
    """What an `open` asks for.

    Raises:
        OurError: tensors that are missing or do not fit each other.
    """
    try:
        given = msgspec.json.decode(text_in(tensors, "OPTIONS"), type=dict[str, Any])
        weighting = take_triton_weighting(given)
        options = msgspec.convert(given, Options)
    except msgspec.MsgspecError as error:
        raise OurError(f"OPTIONS: {error}") from error
    tokens = tensor_in(tensors, "TOKENS").reshape(-1).tolist()
    lengths = tensor_in(tensors, "LENGTHS").reshape(-1).tolist()
    relevances = tensor_in(tensors, "RELEVANCES").reshape(-1).tolist()
    if len(tokens) > MAX_PROMPT_TOKENS:
        raise OurError(f"TOKENS has {len(tokens)} elements; at most {MAX_PROMPT_TOKENS} are accepted")
    if any(length < 0 for length in lengths) or sum(lengths) != len(tokens):
        raise OurError(f"LENGTHS sums to {sum(lengths)}, TOKENS has {len(tokens)}")
    has_bare = weighting.rule.needs_bare_prompt
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
        weighting=weighting,
        sampling=Sampling(
            temperature=options.temperature, top_k=options.top_k, min_p=options.min_p, top_p=options.top_p
        ),
        cut=Cut(nucleus=options.nucleus, max_published_tokens=options.max_published_tokens),
        max_branches=options.max_branches,
        max_tokens=options.max_tokens,
        draft_seed=options.draft_seed,
    )


def opened_tensors(
    *, prefill_seconds: float, decode_seconds: float, constant_weight_level: int | None
) -> Mapping[str, NDArray[np.generic]]:
    """The first answer to an `open`: the prompts are in place."""
    levels = [] if constant_weight_level is None else [constant_weight_level]
    return {
        "SECONDS": np.array([prefill_seconds, decode_seconds], dtype=np.float64),
        "CONSTANT_WEIGHT_LEVEL": np.array(levels, dtype=np.int64),
    }
