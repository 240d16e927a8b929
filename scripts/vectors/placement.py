"""placement.json: what both Ready say to the saving of a move and the aggregator."""

from dragon_core import mixture, placement
from dragon_core.types import Peer
from vectors.cases import Case


def placement_case(
    name: str,
    levels: tuple[int | None, int | None],
    decode_seconds: tuple[float, float],
    rtt_seconds: float | None,
    pinned: Peer | None = None,
) -> Case:
    ready = [
        {"constant_weight_level": level, "decode_seconds": seconds}
        for level, seconds in zip(levels, decode_seconds, strict=True)
    ]
    opener, other = (
        placement.PlacementInputs(constant_weight_level=level, decode_seconds=seconds)
        for level, seconds in zip(levels, decode_seconds, strict=True)
    )
    shares = (0.5, 0.5) if levels[0] is None or levels[1] is None else mixture.peer_shares(levels[0], levels[1])
    saving = placement.saving_of_moving(
        decode_here=placement.believed_decode_seconds(decode_seconds[0]),
        decode_there=placement.believed_decode_seconds(decode_seconds[1]),
        hit_rate_here=placement.hit_rate_prior(shares[0]),
        hit_rate_there=placement.hit_rate_prior(shares[1]),
        rtt_seconds=placement.believed_rtt_seconds(rtt_seconds or 0.0),
    )
    aggregator = placement.initial_placement(opener, other, rtt_seconds=rtt_seconds or 0.0, pinned=pinned)
    case = {"name": name, "opener": ready[0], "other": ready[1], "rtt_seconds": rtt_seconds, "placement": pinned}
    return case | {"saving_seconds": saving, "aggregator": aggregator}


def build() -> Case:
    unknown = (None, None)
    return {
        "about": "cases: two Ready, the opener's rtt and Open's placement to Z(opener, other) - Z(other, opener) and "
        "the aggregator",
        "cases": [
            placement_case("the opener weighs more", (6349, 2048), (0.014, 0.014), 0.3),
            placement_case("the other weighs more", (2048, 6349), (0.014, 0.014), 0.3),
            placement_case("no constant weights, equal speed: a tie", unknown, (0.02, 0.02), 0.1),
            placement_case("one constant weight only: a tie", (6349, None), (0.02, 0.02), 0.1),
            placement_case("a slow opener", unknown, (0.2, 0.01), 0.05),
            placement_case("a slow other", unknown, (0.01, 0.2), 0.05),
            placement_case("a slower opener within the way, weighing a little less", (-100, 300), (0.03, 0.02), 0.05),
            placement_case("a slower opener within the way, weighing more", (700, -300), (0.03, 0.02), 0.05),
            placement_case("no round trip known: a tie", (2048, 6349), (0.02, 0.01), None),
            placement_case("a step of a day counts as one second", unknown, (0.9, 86_400.0), 0.5),
            placement_case("steps of a day are equal: a tie", unknown, (3_600.0, 86_400.0), 0.5),
            placement_case("a round trip of a day counts as two seconds", (2048, 6349), (0.9, 0.02), 86_400.0),
            placement_case("kept at the opener", (6349, 2048), (0.014, 0.014), 0.3, Peer.OPENER),
            placement_case("kept at the other", (2048, 6349), (0.014, 0.014), 0.3, Peer.OTHER),
        ],
    }
