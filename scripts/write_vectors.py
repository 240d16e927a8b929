"""Writes the test vectors of docs/protocol.md into docs/vectors/.

`--check` writes nothing and exits with 1 when a file is not what the code computes. Floats may differ by what the page
allows, because the last bit of an exponential differs between processors; a file that is right is never rewritten.
"""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dragon_core import codec, distribution, messages, mixture, noise, placement, weighting
from dragon_core.couplings.independent import IndependentDrafts
from dragon_core.couplings.shared_noise import SharedNoise
from dragon_core.errors import PeerError
from dragon_core.noise import Stream
from dragon_core.sampling import log_softmax
from dragon_core.session.answer import detail_of
from dragon_core.session.ending import Ending
from dragon_core.types import (
    CouplingKind,
    Cut,
    Distribution,
    Peer,
    Published,
    Sampling,
    Vocabulary,
    Weighting,
    WeightingRule,
)

VECTORS = Path(__file__).resolve().parent.parent / "docs" / "vectors"
TOLERANCE = 1e-12
DEFAULT_CUT, DEFAULT_SAMPLING = Cut(), Sampling()

Case = dict[str, Any]
Pairs = Sequence[tuple[int, float]]
"""Token ids with their probabilities; all others have none."""


def noise_vectors() -> Case:
    indices = [0, 1, 49_151, 2**63]
    variates = [
        (0, Stream.TOKEN, 0, 0),
        (1, Stream.TOKEN, 0, 1),
        (2**64 - 1, Stream.TOKEN, 7, 262_143),
        (0x0123456789ABCDEF, Stream.TURN, 12, 0),
        (0x0123456789ABCDEF, Stream.COIN, 12, 0),
        (0x0123456789ABCDEF, Stream.DRAFT_OTHER, 1_000_000, 65_536),
        (2**32, Stream.RESIDUAL_OPENER, 3, 5),
    ]
    return {
        "about": "outputs: key and indices to words; variates: seed, stream, position, index to uniform and gumbel",
        "outputs": [
            {"key": key, "indices": indices, "words": [noise.splitmix(key, index) for index in indices]}
            for key in (0, 2**64 - 1)
        ],
        "variates": [
            {
                "seed": seed,
                "stream": int(stream),
                "position": position,
                "index": index,
                "uniform": float(noise.uniform(seed, stream, position, index)[0]),
                "gumbel": float(noise.gumbel(seed, stream, position, index)[0]),
            }
            for seed, stream, position, index in variates
        ],
    }


def published(pairs: Pairs, size: int, limit: Cut) -> Distribution:
    probabilities = np.zeros(size)
    for token, probability in pairs:
        probabilities[token] = probability
    return distribution.cut(probabilities, limit)


def distribution_case(name: str, pairs: Pairs, size: int, limit: Cut) -> Case:
    made = published(pairs, size, limit)
    return {
        "name": name,
        "vocabulary_size": size,
        "max_published_tokens": limit.max_published_tokens,
        "nucleus": limit.nucleus,
        "probabilities": pairs,
        "ids": made.ids.tolist(),
        "levels": made.levels.tolist(),
        "dropped": made.dropped,
        "body": distribution.pack(made).hex(),
        "decoded": made.probabilities.tolist(),
    }


def received_case(name: str, body: str) -> Case:
    """A body that no sender of ours makes: what it decodes to, or the field it is refused for."""
    case: Case = {"name": name, "vocabulary_size": 100, "max_published_tokens": 4, "body": body}
    try:
        made = distribution.unpack(bytes.fromhex(body), dropped=0, vocabulary_size=100, max_tokens=4)
    except PeerError as error:
        return case | {"field": error.field}
    return case | {"ids": made.ids.tolist(), "levels": made.levels.tolist(), "decoded": made.probabilities.tolist()}


def distribution_vectors() -> Case:
    steps = [math.exp(-level / 1024) / 3 for level in (0, 254, 509, 765, 3000)]
    slope = [0.93**token for token in range(24)]
    sloping = [(token, value / sum(slope)) for token, value in enumerate(slope)]
    made = [
        ("the nucleus is reached exactly", [(3, 0.25), (1, 0.5), (9, 0.125), (8, 0.125)], 10, Cut(nucleus=0.75)),
        ("equal probabilities go by id", [(7, 0.2), (2, 0.2), (9, 0.2), (4, 0.4)], 10, Cut()),
        ("one token", [(5, 1.0)], 10, Cut()),
        ("one token, others left out", [(0, 0.999), (1, 0.001)], 2, Cut()),
        ("cut to K, with mass left out", sloping, 24, Cut(max_published_tokens=8)),
        ("cut to 16 tokens, as at temperature 0", sloping, 24, Cut().at_temperature(0.0)),
        ("steps of 254, 255, 256 and more", list(enumerate(steps)), 6, Cut(nucleus=1.0)),
        ("ids of four bytes", [(65_536, 0.5), (3, 0.25), (69_999, 0.25)], 70_000, Cut()),
        ("the largest id of two bytes", [(65_535, 0.75), (3, 0.25)], 70_000, Cut()),
        ("the largest level", [(0, 0.7), (1, 0.2), (2, 0.1), (3, 1e-30)], 4, Cut(nucleus=1.0)),
    ]
    received = {
        "four bytes for small ids, three for a small step": "040200" + "0100000002000000" + "05ff0300",
        "an id width of 3": "030100" + "050000" + "00",
        "no tokens": "020000",
        "more tokens than K": "020500" + "01000200030004000500" + "0000000000",
        "it ends in the ids": "020200" + "0100",
        "it ends before the levels do": "020200" + "01000200" + "0a",
        "it ends in a long step": "020100" + "0100" + "ff10",
        "bytes after the levels": "020100" + "0100" + "0000",
        "a level above 65535": "020200" + "01000200" + "ffffffff0100",
        "an id beyond the vocabulary": "020100" + "6400" + "00",
        "an id twice": "020200" + "01000100" + "0005",
        "ids out of order in one level": "020200" + "02000100" + "0500",
    }
    weights = [0.0, -0.5, 1 / 2048, 3 / 2048, -1.5 / 1024, 3.14159, -10_000.0, 10_000.0]
    return {
        "about": "made: pairs of id and p (all others 0) to what is published; received: bodies to what they decode "
        "to, or the field they are refused for; weights: nat to level",
        "made": [distribution_case(*case) for case in made],
        "received": [received_case(name, body) for name, body in received.items()],
        "weights": [{"nat": nat, "level": distribution.quantise_weight(nat)} for nat in weights],
    }


LOGITS = [[2.0, 1.0, 0.5, -1.0, -3.0, 0.0, 1.25], [-0.5, 3.0, 0.25, 2.5, -2.0, 1.0, 0.75]]
BARE_LOGITS = [1.0, 1.5, 0.5, 0.0, -0.75, 0.25, 0.125]


def weighting_case(
    name: str, rule: Weighting, sampling: Sampling = DEFAULT_SAMPLING, relevances: Sequence[float] = (0.62, 0.35)
) -> Case:
    logits, bare, relevance = np.array(LOGITS[: len(relevances)]), np.array(BARE_LOGITS), np.array(relevances)
    weights, _ = weighting.weigh(log_softmax(logits), log_softmax(bare), relevance, rule)
    weight, parts = mixture.mix_contexts(logits, bare, relevance, weighting=rule, sampling=sampling)
    return {
        "name": name,
        "rule": rule.rule,
        "tau": rule.temperature,
        "beta": rule.effective_beta,
        "gamma": rule.gamma,
        "sampling": {field: getattr(sampling, field) for field in ("temperature", "top_k", "min_p", "top_p")},
        "relevances": relevances,
        "logits": logits.tolist(),
        "bare_logits": BARE_LOGITS,
        "context_weights": weights.tolist(),
        "weight": weight,
        "weight_level": distribution.quantise_weight(weight),
        "probabilities": parts.sum(axis=0).tolist(),
    }


def weighting_vectors() -> Case:
    relevance, equal, evidence, contrast = (Weighting(rule=rule) for rule in WeightingRule)
    plain = Sampling(temperature=1.0)
    ignored = Sampling(temperature=0.0, top_k=1, min_p=0.9, top_p=0.1)
    filters = Sampling(temperature=1.3, top_k=5, min_p=0.05, top_p=0.9)
    own = Weighting(rule=WeightingRule.CONTRAST, beta=0.5, gamma=1.0)
    warm = Weighting(rule=WeightingRule.RELEVANCE, temperature=0.5)
    passages = [((0.5,), 0.1), ((0.62, 0.35), 0.1), ((0.3, 0.3, 0.3), 0.5)]
    return {
        "about": "cases: logits per context and of the prompt without passages to weights and the peer's distribution "
        "before the cut; contexts: relevances of passages to the relevance of their context",
        "cases": [
            *(weighting_case(f"{rule.rule} at temperature 1", rule, plain) for rule in (relevance, equal)),
            *(weighting_case(f"{rule.rule} at temperature 1", rule, plain) for rule in (evidence, contrast)),
            weighting_case("one context", relevance, relevances=(0.2,)),
            weighting_case("a negative weight and another tau", warm, plain, (-0.3,)),
            weighting_case("beta and gamma of its own", own, plain),
            weighting_case("contrast with a relevance below the least", contrast, relevances=(0.62, -0.1)),
            weighting_case("temperature 0 ignores the filters", evidence, ignored),
            weighting_case("top_k", equal, Sampling(top_k=3)),
            weighting_case("min_p", equal, Sampling(min_p=0.2)),
            weighting_case("top_p", equal, Sampling(temperature=1.5, top_p=0.8)),
            weighting_case("all filters", evidence, filters),
            weighting_case("filters after contrast", contrast, Sampling(temperature=0.9, top_k=2)),
        ],
        "contexts": [
            {"relevances": found, "tau": tau, "relevance": weighting.context_relevance(found, tau)}
            for found, tau in passages
        ],
    }


SLOPING = [(token, 0.28 * 0.75**token) for token in range(1, 13)]
FEW = [(3, 0.35), (9, 0.3), (20, 0.2), (1, 0.1), (2, 0.05)]
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


def coupling_vectors() -> Case:
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


def fields_of(value: Any) -> Any:
    """A message as plain JSON: fields in wire order, bytes as hex, the tag first."""
    if isinstance(value, msgspec.Struct):
        tag = value.__struct_config__.tag
        fields = {name: fields_of(getattr(value, name)) for name in value.__struct_fields__}
        return fields if tag is None else {"tag": tag} | fields
    if isinstance(value, bytes):
        return value.hex()
    return [fields_of(item) for item in value] if isinstance(value, tuple) else value


OPEN = messages.Open(
    version=1,
    fingerprint=messages.Fingerprint(
        vocabulary="5f1e",
        template="a0",
        embedding="all-MiniLM-L6-v2",
        embedding_dimension=384,
        embedding_revision="r1",
        weighting_rule=WeightingRule.EVIDENCE,
        weighting_temperature=0.1,
        weighting_beta=1.0,
        weighting_gamma=0.5,
        max_published_tokens=64,
        nucleus=0.99,
    ),
    messages=(messages.ChatMessage("system", "Be brief."), messages.ChatMessage("user", "Wann fährt die Fähre?")),
    temperature=0.7,
    top_k=0,
    min_p=0.0,
    top_p=1.0,
    seed=2**64 - 1,
    max_tokens=512,
    stop=("\n\n",),
    coupling=CouplingKind.SHARED_NOISE,
    window=32,
    branches=2,
    placement=None,
    num_top_logprobs=None,
    deadline_seconds=600.0,
)


def sent_messages() -> dict[str, messages.AnyMessage]:
    one_token = bytes.fromhex("020100050000")
    root = messages.Draft(7, None, None, 41, None, 0, one_token)
    child = messages.Draft(8, 7, 3, 42, -717, 655, distribution.pack(published(FEW, 100, Cut())))
    likely = messages.TargetDetail(0, 0, 0, (messages.TopToken(9, -0.25), messages.TopToken(1, -2.0)))
    counted = messages.Counters(num_positions=60, num_hits=55, num_steps=70, num_wasted_steps=9, max_window_used=12)
    return {
        "open": OPEN,
        "open again, alone": msgspec.structs.replace(
            OPEN, placement=Peer.OPENER, num_top_logprobs=5, settled=(300, 70_000)
        ),
        "accepted": messages.Accepted(replica="cloud-0", prefill_deadline_seconds=30.0),
        "refused for good": messages.Refused(reason="no", field="frame"),
        "refused for now": messages.Refused(reason="16 of 16 sessions are open", retry_after_seconds=1.0),
        "ready of the opener": messages.Ready(
            num_contexts=2, constant_weight_level=6349, decode_seconds=0.014, rtt_seconds=0.3125
        ),
        "ready of the other": messages.Ready(num_contexts=1, constant_weight_level=None, decode_seconds=0.02),
        "draft on the settled path": root,
        "draft below another": child,
        "target": messages.Target(41, (3, 20), (messages.TargetDetail(732, 1450, 700), None)),
        "target with likely tokens": messages.Target(0, (9,), (likely,)),
        "move request": messages.MoveRequest(Peer.OTHER, "the link is slow"),
        "handover": messages.Handover(41, (root, child)),
        "handover without frames": messages.Handover(0, ()),
        "resume": messages.Resume(next_position=44, last_sequence=117, aggregator=Peer.OTHER),
        "resume after a takeover": messages.Resume(
            next_position=50, last_sequence=0, aggregator=Peer.OPENER, term_position=44, mix_position=62
        ),
        "finish of the other": messages.Finish(
            reason=messages.FinishReason.STOP,
            counters=counted,
            documents=(messages.DocumentShare("factbook/pt", 431),),
        ),
        "finish of the opener": messages.Finish(reason=messages.FinishReason.CANCELLED, counters=messages.Counters()),
        "failure": messages.Failure(reason="the two ends differ in nucleus", field="fingerprint.nucleus"),
        "probe": messages.Probe(),
    }


def message_case(at: int, name: str, message: messages.AnyMessage) -> Case:
    has_echo = at > 1
    envelope = messages.Envelope(
        at // 3, 57 * at, 70_000 * at, 2**32 + at if has_echo else None, 9 * at if has_echo else 0, message
    )
    return {
        "name": name,
        "message": type(message).__name__,
        "envelope": fields_of(envelope),
        "bytes": codec.encode(envelope).hex(),
    }


def with_message(*message: object) -> bytes:
    return msgspec.msgpack.encode([0, 1, 2, None, 0, message])


def changed_open(at: int, value: object) -> bytes:
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(OPEN))
    return with_message(*fields[:at], value, *fields[at + 1 :])


def refused_frames() -> dict[str, bytes]:
    fingerprint = msgspec.msgpack.decode(msgspec.msgpack.encode(OPEN.fingerprint))
    return {
        "no bytes": b"",
        "an unused byte": b"\xc1",
        "cut short": with_message(12)[:-1],
        "a byte too many": with_message(12) + b"\x00",
        "no array": msgspec.msgpack.encode({"term": 0}),
        "five elements": msgspec.msgpack.encode([0, 1, 2, None, [12]]),
        "a negative term": msgspec.msgpack.encode([-1, 1, 2, None, 0, [12]]),
        "a term beyond 32 bits": msgspec.msgpack.encode([2**32, 1, 2, None, 0, [12]]),
        "a sequence as a float": msgspec.msgpack.encode([0, 1.0, 2, None, 0, [12]]),
        "an unknown tag": with_message(13),
        "a tag as text": with_message("probe"),
        "a probe with a field": with_message(12, 0),
        "a field missing": with_message(4, 1, None),
        "true for a number": with_message(4, True, None, 0.5, None),
        "a duration below 0": with_message(2, "cloud-0", -0.5),
        "a duration that is no number": with_message(2, "cloud-0", math.nan),
        "a weight beyond 10^4 nat": with_message(4, 1, 10_240_001, 0.5, None),
        "a position beyond a million": with_message(5, 0, None, None, 1_000_001, None, 0, b"\x02"),
        "a body as text": with_message(5, 0, None, None, 0, None, 0, "body"),
        "a target without tokens": with_message(6, 0, [], []),
        "a share above 1000": with_message(6, 0, [1], [[1001, 0, 0, []]]),
        "a placement of nobody": with_message(7, "edge", ""),
        "a reason that is too long": with_message(7, "other", "r" * 501),
        "a handed frame without its tag": with_message(8, 0, [[0, None, None, 0, None, 0, b"\x02"]]),
        "a document of no text": with_message(10, "stop", [0, 0, 0, 0, 0], [[1, 1]]),
        "an unknown reason": with_message(10, "done", [0, 0, 0, 0, 0], []),
        "an unknown rule": changed_open(2, [*fingerprint[:5], "best", *fingerprint[6:]]),
        "a short fingerprint": changed_open(2, fingerprint[:-1]),
        "no conversation": changed_open(3, []),
        "an unknown role": changed_open(3, [["tool", "?"]]),
        "top_p of 0": changed_open(7, 0.0),
        "an empty stop string": changed_open(10, [".", ""]),
        "a window of 0": changed_open(12, 0),
    }


def refused_frame(name: str, frame: bytes) -> Case:
    try:
        codec.decode(frame)
    except PeerError as error:
        return {"name": name, "bytes": frame.hex(), "field": error.field}
    raise SystemExit(f"the frame of {name!r} is not refused")


def message_vectors() -> Case:
    token_bytes = (b"", b"a", b" b", "é".encode(), b"")
    vocabulary = Vocabulary(token_bytes=token_bytes, special_ids=frozenset({4, 0}), end_ids=frozenset({4}))
    return {
        "about": "cases: envelopes as fields in wire order (tag first, bytes as hex) and as bytes; refused: frames "
        "with the field that is named; vocabularies: to the first field of the fingerprint",
        "cases": [message_case(at, *item) for at, item in enumerate(sent_messages().items())],
        "refused": [refused_frame(name, frame) for name, frame in refused_frames().items()],
        "vocabularies": [
            {
                "token_bytes": [token.hex() for token in token_bytes],
                "special_ids": sorted(vocabulary.special_ids),
                "end_ids": sorted(vocabulary.end_ids),
                "fingerprint": messages.vocabulary_fingerprint(vocabulary),
            }
        ],
    }


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
        decode_here=decode_seconds[0],
        decode_there=decode_seconds[1],
        hit_rate_here=placement.hit_rate_prior(shares[0]),
        hit_rate_there=placement.hit_rate_prior(shares[1]),
        rtt_seconds=rtt_seconds or 0.0,
    )
    aggregator = placement.initial_placement(opener, other, rtt_seconds=rtt_seconds or 0.0, pinned=pinned)
    case = {"name": name, "opener": ready[0], "other": ready[1], "rtt_seconds": rtt_seconds, "placement": pinned}
    return case | {"saving_seconds": saving, "aggregator": aggregator}


def placement_vectors() -> Case:
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
            placement_case("kept at the opener", (6349, 2048), (0.014, 0.014), 0.3, Peer.OPENER),
            placement_case("kept at the other", (2048, 6349), (0.014, 0.014), 0.3, Peer.OTHER),
        ],
    }


TOKEN_BYTES = (b"", b"Hel", b"lo", b" END", b"EN", b"D", b"\xc3", b"\xa9", b"\xf0\x9f", b"\x9a\x82", b"\n", b"!", b"")
"""Token 0 ends an answer; token 12 is special and prints nothing."""


def ending_case(name: str, tokens: Sequence[int], max_tokens: int = 9, stop: tuple[str, ...] = ()) -> Case:
    vocabulary = Vocabulary(token_bytes=TOKEN_BYTES, special_ids=frozenset({0, 12}), end_ids=frozenset({0}))
    ending = Ending(vocabulary, max_tokens=max_tokens, stop=stop)
    shown = [ending.push(token).hex() for token in tokens]
    case = {"name": name, "max_tokens": max_tokens, "stop": stop, "tokens": tokens}
    return case | {"shown": shown, "reason": ending.reason}


def ending_vectors() -> Case:
    return {
        "about": "token_bytes of a vocabulary with its end ids; cases: tokens to the bytes shown after each, and why "
        "it ended (null: it goes on)",
        "token_bytes": [token.hex() for token in TOKEN_BYTES],
        "end_ids": [0],
        "cases": [
            ending_case("an end token", (1, 2, 12, 0)),
            ending_case("the last token", (1, 2, 11), 3),
            ending_case("it goes on", (1, 2), stop=("lo!",)),
            ending_case("a stop string over several tokens", (1, 2, 4, 5), stop=("END",)),
            ending_case("a stop string that does not come", (1, 4, 4, 11), stop=("END",)),
            ending_case("a stop string inside a token", (1, 3), stop=("END",)),
            ending_case("the first of two stop strings", (2, 3), stop=("D", " E")),
            ending_case("a stop string with the last token", (1, 4, 5), 3, ("END",)),
            ending_case("an end token shows what was held back", (1, 4, 0), stop=("END",)),
            ending_case("the last token shows what was held back", (1, 4), 2, ("END",)),
            ending_case("a character over two tokens", (6, 7, 11)),
            ending_case("a character of four bytes", (8, 9, 2)),
            ending_case("a character cut off by another", (8, 11)),
            ending_case("a character that the end leaves unfinished", (2, 6, 0)),
            ending_case("a byte that begins nothing", (7, 11)),
            ending_case("a stop string that is no ASCII", (6, 7), stop=("é",)),
            ending_case("half a character and half a stop string", (4, 6, 11), stop=("N\u00e9!",)),
        ],
    }


FILES: Mapping[str, Callable[[], Case]] = {
    "noise.json": noise_vectors,
    "distributions.json": distribution_vectors,
    "weighting.json": weighting_vectors,
    "coupling.json": coupling_vectors,
    "messages.json": message_vectors,
    "placement.json": placement_vectors,
    "ending.json": ending_vectors,
}


def render(content: Case) -> str:
    """JSON with one case a line."""
    parts = []
    for key, value in content.items():
        is_cases = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
        lines = [json.dumps(item, allow_nan=False) for item in (value if is_cases else [value])]
        parts.append(f" {json.dumps(key)}: " + ("[\n  " + ",\n  ".join(lines) + "\n ]" if is_cases else lines[0]))
    return "{\n" + ",\n".join(parts) + "\n}\n"


def is_same(found: Any, expected: Any) -> bool:
    """Equal, but for what floats may differ by."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return list(found) == list(expected) and all(is_same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(map(is_same, found, expected))
    if isinstance(expected, float) and isinstance(found, float):
        return math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return type(found) is type(expected) and bool(found == expected)


def is_current(path: Path, text: str) -> bool:
    """Whether the file says what the code computes, in the form it is written in."""
    if not path.exists():
        return False
    found = path.read_text(encoding="utf-8")
    try:
        content = json.loads(found)
    except ValueError:
        return False
    return is_same(content, json.loads(text)) and found == render(content)


def main() -> int:
    """Write the files, or check them."""
    is_check = "--check" in sys.argv[1:]
    texts = {VECTORS / name: render(build()) for name, build in FILES.items()}
    stale = [path for path, text in texts.items() if not is_current(path, text)]
    unknown = sorted(set(VECTORS.glob("*")) - set(texts))
    for path in unknown:
        print(f"{path} is not written by scripts/write_vectors.py: delete it", file=sys.stderr)
    for path in stale:
        if is_check:
            print(f"{path} is not what the code computes: run scripts/write_vectors.py", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[path], encoding="utf-8")
    return 1 if unknown or (is_check and stale) else 0


if __name__ == "__main__":
    sys.exit(main())
