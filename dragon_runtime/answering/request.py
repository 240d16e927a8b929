"""The `Open` of an answer, put together from the settings of the end that asks and from what its user asks."""

from dragon_core.messages import PROTOCOL_VERSION, ChatMessage, Fingerprint, Open
from dragon_core.types import Sampling
from dragon_runtime.settings.groups import ProtocolSettings

DEADLINE_SECONDS = 600.0
"""For a whole answer, at each end."""


def open_message(
    protocol: ProtocolSettings,
    fingerprint: Fingerprint,
    *,
    messages: tuple[ChatMessage, ...],
    sampling: Sampling,
    seed: int,
    max_tokens: int,
    stop: tuple[str, ...] = (),
    num_top_logprobs: int | None = None,
) -> Open:
    """The request for one answer. `num_top_logprobs` is None where no log-probabilities are asked for."""
    return Open(
        version=PROTOCOL_VERSION,
        fingerprint=fingerprint,
        messages=messages,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        top_p=sampling.top_p,
        seed=seed,
        max_tokens=max_tokens,
        stop=stop,
        coupling=protocol.coupling,
        window=protocol.window,
        branches=protocol.branches,
        placement=protocol.placement.pinned,
        num_top_logprobs=num_top_logprobs,
        deadline_seconds=DEADLINE_SECONDS,
    )
