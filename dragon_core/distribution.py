"""Published distributions: cut, quantised, packed, and decoded to what both ends compute with."""

import math

import numpy as np
from numpy.typing import NDArray

from dragon_core.errors import PeerError
from dragon_core.types import Cut, Distribution, FloatArray, IdArray, LevelArray

LEVELS_PER_NAT = 1024
MAX_LEVEL = 65_535
DROPPED_UNIT = 1 / 65_535
MAX_WEIGHT_NAT = 10_000.0
BLOCK_LENGTH = 64


def cut(probabilities: FloatArray, limit: Cut) -> Distribution:
    """The published form of a full distribution (V,): the smallest nucleus, at most K tokens, quantised.

    `dropped` is the mass outside, rounded up.
    """
    num_kept = min(limit.max_published_tokens, probabilities.size)
    candidates = _largest(probabilities, num_kept)
    mass = np.cumsum(probabilities[candidates])
    num_nucleus = min(int(np.searchsorted(mass, limit.nucleus)) + 1, num_kept)
    kept = candidates[:num_nucleus]
    values = probabilities[kept]
    num_positive = max(1, int(np.count_nonzero(values)))
    kept, values = kept[:num_positive], values[:num_positive]
    levels = np.minimum(np.rint(-np.log(values) * LEVELS_PER_NAT), MAX_LEVEL).astype(np.uint16)
    levels = np.maximum(levels, 0)
    order = np.lexsort((kept, levels))
    dropped = math.ceil(max(0.0, 1.0 - float(mass[num_positive - 1])) / DROPPED_UNIT - 1e-6)
    return decoded(kept[order].astype(np.uint32), levels[order], min(dropped, MAX_LEVEL))


def _largest(values: FloatArray, count: int) -> NDArray[np.intp]:
    """Where the `count` largest are, the largest first; of equal ones the first come first.

    A selection over all values is several times slower than one over the maxima of blocks: `count` blocks whose maximum
    is at least x hold `count` values of at least x.
    """
    num_blocks = values.size // BLOCK_LENGTH
    if num_blocks > count:
        maxima = values[: num_blocks * BLOCK_LENGTH].reshape(num_blocks, BLOCK_LENGTH).max(axis=1)
        least = np.partition(maxima, num_blocks - count)[num_blocks - count]
        candidates = np.flatnonzero(values >= least)
    else:
        candidates = np.arange(values.size)
    return candidates[np.lexsort((candidates, -values[candidates]))][:count]


def decoded(ids: IdArray, levels: LevelArray, dropped: int) -> Distribution:
    """What both ends compute with, from what one published: probabilities sum to 1."""
    weights = np.exp(levels * (-1.0 / LEVELS_PER_NAT))
    return Distribution(ids, levels, weights / math.fsum(weights.tolist()), dropped)


def dropped_mass(distribution: Distribution) -> float:
    """The mass that was cut away, rounded up."""
    return distribution.dropped * DROPPED_UNIT


def pack(distribution: Distribution) -> bytes:
    """Wire body: id width in bytes (2 or 4), n little-endian ids, n levels as the first and the steps up to the next.

    A step below 255 takes one byte; 255 is followed by the step in two little-endian bytes.
    """
    ids = distribution.ids
    width = 2 if int(ids.max()) < 65_536 else 4
    levels = distribution.levels.tolist()
    steps = bytearray()
    previous = 0
    for level in levels:
        step = level - previous
        previous = level
        if step < 255:
            steps.append(step)
        else:
            steps += b"\xff" + step.to_bytes(2, "little")
    return bytes((width,)) + len(levels).to_bytes(2, "little") + ids.astype(f"<u{width}").tobytes() + bytes(steps)


def unpack(body: bytes, *, dropped: int, vocabulary_size: int, max_tokens: int) -> Distribution:
    """The decoded form of a wire body.

    Raises:
        PeerError: anything but 1 to `max_tokens` unique ids of the vocabulary, sorted by level, then id.
    """
    if len(body) < 3 or body[0] not in (2, 4):
        raise PeerError("a distribution needs an id width of 2 or 4", field="distribution")
    width, num_tokens = body[0], int.from_bytes(body[1:3], "little")
    if not 1 <= num_tokens <= max_tokens:
        raise PeerError(f"a distribution of {num_tokens} tokens; 1 to {max_tokens} are accepted", field="distribution")
    levels_at = 3 + width * num_tokens
    if len(body) < levels_at + num_tokens:
        raise PeerError("a distribution ends in the middle", field="distribution")
    ids = np.frombuffer(body, dtype=f"<u{width}", count=num_tokens, offset=3).astype(np.uint32)
    levels: list[int] = []
    level, at = 0, levels_at
    for _ in range(num_tokens):
        step = body[at] if at < len(body) else MAX_LEVEL + 1
        at += 1
        if step == 255:
            step = int.from_bytes(body[at : at + 2], "little")
            at += 2
        level += step
        levels.append(level)
    if at != len(body) or level > MAX_LEVEL:
        raise PeerError("the levels of a distribution do not fit", field="distribution")
    listed = ids.tolist()
    if max(listed) >= vocabulary_size:
        raise PeerError(f"token {max(listed)} is beyond the vocabulary of {vocabulary_size}", field="distribution")
    if len(set(listed)) != num_tokens or any(
        levels[i] == levels[i + 1] and listed[i] > listed[i + 1] for i in range(num_tokens - 1)
    ):
        raise PeerError("the tokens of a distribution repeat or are out of order", field="distribution")
    return decoded(ids, np.array(levels, dtype=np.uint16), dropped)


def quantise_weight(nat: float) -> int:
    """A weight in 1/1024 nat.

    Raises:
        PeerError: not finite, or beyond 10^4 nat.
    """
    if not math.isfinite(nat) or abs(nat) > MAX_WEIGHT_NAT:
        raise PeerError(f"a weight of {nat} nat; finite ones up to {MAX_WEIGHT_NAT:g} are accepted", field="weight")
    return round(nat * LEVELS_PER_NAT)


def weight_nat(level: int) -> float:
    """The weight that both ends compute with."""
    return level / LEVELS_PER_NAT
