"""What follows from an engine's logits: the step that a session publishes, and the token that it drafts after it.

Functions over an `EngineRequest`, with the core's mathematics. What runs the model is the engines' own.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dragon_core.couplings.shared_noise import SharedNoise
from dragon_core.mixture import publish
from dragon_core.types import Peer, Step
from dragon_runtime.interfaces import EngineRequest


def publish_step(request: EngineRequest, logits: Sequence[NDArray[np.float32]]) -> Step:
    """Mix one step's logits, a row (V,) per prompt in their order, cut and quantise."""
    num_contexts = len(request.contexts)
    return publish(
        np.stack(logits[:num_contexts]),
        None if request.bare_prompt is None else logits[num_contexts],
        np.array([context.relevance for context in request.contexts]),
        weighting=request.weighting,
        sampling=request.sampling,
        cut=request.cut,
    )


def drafted_token(request: EngineRequest, position: int, step: Step) -> int | None:
    """The token that the session drafts for `position` after `step`; None without a seed."""
    if request.draft_seed is None:
        return None
    coupling = SharedNoise(seed=request.draft_seed, temperature=request.sampling.temperature)
    return coupling.guesses(position, step.published, 1, Peer.OPENER)[0].token
