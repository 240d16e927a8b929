"""The coupling that an Open names."""

from collections.abc import Mapping
from typing import assert_never

from dragon_core.couplings.coupling import Coupling
from dragon_core.couplings.independent import IndependentDrafts
from dragon_core.couplings.shared_noise import SharedNoise
from dragon_core.types import CouplingKind, Peer


def make_coupling(
    kind: CouplingKind,
    *,
    seed: int,
    temperature: float,
    num_top_logprobs: int | None,
    constant_weight_levels: Mapping[Peer, int],
) -> Coupling:
    """The strategy an Open names."""
    match kind:
        case CouplingKind.INDEPENDENT:
            return IndependentDrafts(seed=seed, temperature=temperature, num_top_logprobs=num_top_logprobs)
        case CouplingKind.SHARED_NOISE:
            return SharedNoise(
                seed=seed,
                temperature=temperature,
                num_top_logprobs=num_top_logprobs,
                constant_weight_levels=constant_weight_levels,
            )
        case _:
            assert_never(kind)
