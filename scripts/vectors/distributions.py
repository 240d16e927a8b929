"""distributions.json: what is published of full probabilities, what a received body decodes to, and weights."""

import math

from dragon_core import distribution
from dragon_core.errors import PeerError
from dragon_core.types import Cut
from vectors.cases import Case, Pairs, published


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


def build() -> Case:
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
