"""What one token costs in the core: settling it, and encoding and decoding its frames. Run: python -m bench.core.

Two frames of K = 64 tokens each at temperature 0.7, weights on the wire; the median over many positions.
"""

import argparse
import json
import statistics
import sys
import time

import numpy as np

from dragon_core import codec
from dragon_core.couplings.shared_noise import SharedNoise
from dragon_core.distribution import cut
from dragon_core.messages import Draft, Envelope, Target
from dragon_core.types import Cut, Published

VOCABULARY_SIZE = 49_152
NUM_FRAMES = 64
LIMIT = Cut(nucleus=1.0, max_published_tokens=64)


def frames(seed: int) -> list[Published]:
    """Published distributions of 64 tokens over one vocabulary, peaked as a language model's are."""
    chance = np.random.default_rng(seed)
    found = []
    for _ in range(NUM_FRAMES):
        logits = chance.gumbel(size=VOCABULARY_SIZE) * 2.0
        probabilities = np.exp(logits - logits.max())
        found.append(Published(int(chance.integers(0, 4096)), cut(probabilities / probabilities.sum(), LIMIT)))
    return found


def over_the_wire(published: Published, position: int) -> Published:
    """Encode a frame at one end and decode it at the other."""
    draft = codec.draft_of(
        published, id=position, parent=position - 1, via=7, position=position, has_constant_weight=False
    )
    received = codec.decode(codec.encode(Envelope(0, position, 1000, 900, 5, draft))).message
    assert isinstance(received, Draft)
    return codec.published_of(
        received,
        constant_weight_level=None,
        vocabulary_size=VOCABULARY_SIZE,
        max_published_tokens=LIMIT.max_published_tokens,
    )


def measure(num_rounds: int) -> dict[str, float]:
    """Median microseconds of a token and of its parts."""
    ours, theirs = frames(1), frames(2)
    assert all(each.distribution.ids.size == LIMIT.max_published_tokens for each in (*ours, *theirs))
    coupling = SharedNoise(seed=11, temperature=0.7)
    settling: list[float] = []
    coding: list[float] = []
    for index in range(num_rounds):
        position = index + 1
        started = time.perf_counter()
        received = over_the_wire(theirs[index % NUM_FRAMES], position)
        decoded = time.perf_counter()
        settled = coupling.settle(position, ours[index % NUM_FRAMES], received)
        fixed = time.perf_counter()
        assert settled is not None
        codec.decode(codec.encode(Envelope(0, position, 1000, 900, 5, Target(position, (settled.token,), (None,)))))
        ended = time.perf_counter()
        settling.append(fixed - decoded)
        coding.append(decoded - started + ended - fixed)
    both = [settle + code for settle, code in zip(settling, coding, strict=True)]
    return {
        "settle_and_codec_microseconds": 1e6 * statistics.median(both),
        "settle_microseconds": 1e6 * statistics.median(settling),
        "codec_microseconds": 1e6 * statistics.median(coding),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=5000, help="tokens measured")
    arguments = parser.parse_args()
    found = measure(arguments.rounds)
    if arguments.json:
        json.dump(found, sys.stdout)
        print()
        return
    for name, value in found.items():
        print(f"{name:<32}{value:8.1f}")


if __name__ == "__main__":
    main()
