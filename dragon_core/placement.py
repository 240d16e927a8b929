"""Which peer should aggregate: the paper's rule (arXiv 2504.11197, section 5) and the placement at open. Pure."""

from dataclasses import dataclass

from dragon_core import limits
from dragon_core.mixture import peer_shares
from dragon_core.types import Peer

PRIOR_AGREEMENT = 0.6
"""Of the tokens the other side carries, the part a side guesses all the same: measured on facts one side has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementInputs:
    """What a Ready message says of a peer; `constant_weight_level` None where the rule's weight changes.

    A step, and a round trip, that take longer than an end believes count as the longest that it does.
    """

    constant_weight_level: int | None
    decode_seconds: float


def believed_decode_seconds(told_seconds: float) -> float:
    """What both ends compute with, and an end waits for."""
    return min(told_seconds, limits.MAX_DECODE_SECONDS)


def believed_rtt_seconds(told_seconds: float) -> float:
    """What both ends compute with."""
    return min(told_seconds, limits.MAX_RTT_SECONDS)


def hit_rate_prior(share: float) -> float:
    """Expected hit rate of a peer with this share of the weight."""
    return share + PRIOR_AGREEMENT * (1.0 - share)


def seconds_per_token(*, decode_here: float, decode_there: float, hit_rate_there: float, rtt_seconds: float) -> float:
    """Expected seconds per token when this end aggregates: a miss there costs the way back."""
    both = max(decode_here, decode_there)
    return both + (1.0 - hit_rate_there) * (max(decode_here, decode_there + rtt_seconds) - both)


def saving_of_moving(
    *, decode_here: float, decode_there: float, hit_rate_here: float, hit_rate_there: float, rtt_seconds: float
) -> float:
    """Seconds per token saved when the aggregator moves from here to there; negative when it should stay."""
    here = seconds_per_token(
        decode_here=decode_here, decode_there=decode_there, hit_rate_there=hit_rate_there, rtt_seconds=rtt_seconds
    )
    there = seconds_per_token(
        decode_here=decode_there, decode_there=decode_here, hit_rate_there=hit_rate_here, rtt_seconds=rtt_seconds
    )
    return here - there


def initial_placement(
    opener: PlacementInputs, other: PlacementInputs, *, rtt_seconds: float, pinned: Peer | None
) -> Peer:
    """The placement both ends compute from the two Ready messages; a pinned one is kept, ties go to the other."""
    if pinned is not None:
        return pinned
    shares = (0.5, 0.5)
    if opener.constant_weight_level is not None and other.constant_weight_level is not None:
        shares = peer_shares(opener.constant_weight_level, other.constant_weight_level)
    saving = saving_of_moving(
        decode_here=believed_decode_seconds(opener.decode_seconds),
        decode_there=believed_decode_seconds(other.decode_seconds),
        hit_rate_here=hit_rate_prior(shares[0]),
        hit_rate_there=hit_rate_prior(shares[1]),
        rtt_seconds=believed_rtt_seconds(rtt_seconds),
    )
    return Peer.OTHER if saving >= 0 else Peer.OPENER
