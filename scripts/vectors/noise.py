"""noise.json: outputs of the generator, uniform and Gumbel variates."""

from dragon_core import noise
from dragon_core.noise import Stream
from vectors.cases import Case


def build() -> Case:
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
