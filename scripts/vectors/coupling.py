"""coupling.json: two frames to guesses and targets under both couplings; what is settled early."""

from dragon_core import distribution, mixture, noise
from dragon_core.couplings.independent import IndependentDrafts
from dragon_core.couplings.shared_noise import SharedNoise
from dragon_core.noise import Stream
from dragon_core.session.answer import detail_of
from dragon_core.types import CouplingKind, Cut, Peer, Published
from vectors.cases import FEW, Case, Pairs, fields_of, published

DEFAULT_CUT = Cut()
SLOPING = [(token, 0.28 * 0.75**token) for token in range(1, 13)]
CLEAR = [(7, 0.9), (3, 0.1)]
COUPLINGS = {CouplingKind.SHARED_NOISE: SharedNoise, CouplingKind.INDEPENDENT: IndependentDrafts}


def frame_of(pairs: Pairs, weight_level: int, limit: Cut = DEFAULT_CUT) -> Published:
    return Published(weight_level, published(pairs, 100, limit))


def frame_fields(frame: Published) -> Case:
    made = frame.distribution
    return {"weight_level": frame.weight_level, "dropped": made.dropped, "body": distribution.pack(made).hex()}


def coupling_case(
    name: str, opener: Published, other: Published, *, seed: int = 2, temperature: float = 0.7, position: int = 2
) -> Case:
    mixed = mixture.target_distribution(opener, other)
    frames = {Peer.OPENER: opener, Peer.OTHER: other}
    case: Case = {
        "name": name,
        "seed": seed,
        "temperature": temperature,
        "position": position,
        **{peer.value: frame_fields(frame) for peer, frame in frames.items()},
        "opener_share": mixture.peer_shares(opener.weight_level, other.weight_level)[0],
        "ids": mixed.ids.tolist(),
        "probabilities": mixed.probabilities.tolist(),
        "opener_parts": mixed.opener_parts.tolist(),
    }
    for kind, make in COUPLINGS.items():
        coupling = make(seed=seed, temperature=temperature, num_top_logprobs=3)
        settled = coupling.settle(position, opener, other)
        if settled is None:
            raise SystemExit(f"{name!r} is not settled")
        case[kind] = {
            "guesses": {
                peer: [guess.token for guess in coupling.guesses(position, frame, 2, peer)]
                for peer, frame in frames.items()
            },
            "target": settled.token,
            "detail": fields_of(detail_of(settled, mixture.dropped_bound(opener, other))),
        }
    if temperature > 0:
        drafts = case[CouplingKind.INDEPENDENT]
        drafts["chosen"] = Peer.OPENER if noise.uniform(seed, Stream.COIN, position, 0)[0] < 0.5 else Peer.OTHER
        drafts["is_accepted"] = drafts["target"] == drafts["guesses"][drafts["chosen"]][0]
    return case


def early_case(name: str, levels: tuple[int, int], pairs: Pairs, peer: Peer = Peer.OPENER) -> Case:
    weights = dict(zip(Peer, levels, strict=True))
    frame = frame_of(pairs, weights[peer], Cut().at_temperature(0.0))
    coupling = SharedNoise(seed=0, temperature=0.0, constant_weight_levels=weights)
    settled = coupling.settle(0, *((frame, None) if peer is Peer.OPENER else (None, frame)))
    return {
        "name": name,
        "opener_weight_level": levels[0],
        "other_weight_level": levels[1],
        "frame_of": peer,
        "body": distribution.pack(frame.distribution).hex(),
        "target": None if settled is None else settled.token,
    }


def build() -> Case:
    greedy = Cut().at_temperature(0.0)
    wide, few = frame_of(SLOPING, 1800, Cut(max_published_tokens=8)), frame_of(FEW, -700)
    heavy = frame_of(CLEAR, 10_000_000)
    tied, tied_other = [(8, 0.4), (5, 0.4), (2, 0.2)], [(5, 0.2), (8, 0.2), (30, 0.6)]
    return {
        "about": "K is 64 and the vocabulary has 100 tokens; cases: two frames to p~, guesses and targets (detail with "
        "three top tokens); early: at temperature 0 with constant weights, target null where the aggregator waits",
        "cases": [
            coupling_case("the coin takes the opener, whose draft is accepted", wide, few, position=0),
            coupling_case("the coin takes the opener, whose draft is refused", wide, few, position=15),
            coupling_case("the coin takes the other, whose draft is accepted", wide, few, position=8),
            coupling_case("the coin takes the other, whose draft is refused", wide, few, position=1),
            coupling_case("the largest seed", wide, few, seed=2**64 - 1, temperature=1.0, position=40),
            coupling_case("one token each, weights negative", frame_of([(6, 1.0)], -3), frame_of([(4, 1.0)], -2051)),
            coupling_case("so far apart that one has no share", heavy, few),
            coupling_case("temperature 0", frame_of(SLOPING, 300, greedy), frame_of(FEW, 0, greedy), temperature=0.0),
            coupling_case(
                "temperature 0, a tie goes to the lowest id",
                frame_of(tied, 0, greedy),
                frame_of(tied_other, -1024, greedy),
                temperature=0.0,
            ),
        ],
        "early": [
            early_case("a clear lead", (2048, 0), CLEAR),
            early_case("the other aggregates", (0, 2048), CLEAR, Peer.OTHER),
            early_case("too small a lead", (2048, 0), [(7, 0.51), (3, 0.49)]),
            early_case("a lead that just does not do", (1000, 0), [(7, 0.68808), (3, 0.31192)]),
            early_case("a lead that just does", (1000, 0), [(7, 0.6894), (3, 0.3106)]),
            early_case("a share of one half", (512, 512), [(7, 1.0)]),
            early_case("one token and a share above one half", (513, 512), [(7, 1.0)]),
            early_case("a share below one half", (0, 2048), [(7, 1.0)]),
        ],
    }
