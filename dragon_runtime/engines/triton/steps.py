"""A step on Triton's wire: the answer to a feed."""

import struct

import numpy as np

from dragon_core.distribution import decoded
from dragon_core.errors import DragonError, EngineError
from dragon_core.types import Published, Step
from dragon_runtime.engines.triton.tensors import Tensors, tensor_in

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
        body = tensor_in(tensors, "STEP").astype(np.uint8, copy=False).tobytes()
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
