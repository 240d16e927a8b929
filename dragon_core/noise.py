"""Shared randomness: hashes of seed, stream, position and token by the mixer of SplitMix64 (Steele, Lea, Flood 2014).

Both peers compute the same numbers without sending any (docs/protocol.md, noise).
"""

import enum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dragon_core.types import FloatArray

_MASK64 = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_FACTORS = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_GAMMA_WORD = np.uint64(_GAMMA)
_FACTOR_WORDS = np.uint64(_FACTORS[0]), np.uint64(_FACTORS[1])
_SHIFT30, _SHIFT27, _SHIFT31, _SHIFT11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_LARGEST = 1.0 - 2.0**-53
"""The largest bits plus a half would round to 1, whose Gumbel variate is infinite."""


class Stream(enum.IntEnum):
    """Separate sequences of the same seed."""

    TOKEN = 0
    TURN = 1
    COIN = 2
    DRAFT_OPENER = 3
    DRAFT_OTHER = 4
    ACCEPT_OPENER = 5
    ACCEPT_OTHER = 6
    RESIDUAL_OPENER = 7
    RESIDUAL_OTHER = 8


def splitmix(key: int, indices: ArrayLike) -> NDArray[np.uint64]:
    """The outputs number `indices` (from 0) of SplitMix64 begun at `key`: 64 bits each."""
    words = np.array(indices, dtype=np.uint64, ndmin=1)
    words *= _GAMMA_WORD
    words += np.uint64((key + _GAMMA) & _MASK64)
    words ^= words >> _SHIFT30
    words *= _FACTOR_WORDS[0]
    words ^= words >> _SHIFT27
    words *= _FACTOR_WORDS[1]
    words ^= words >> _SHIFT31
    return words


def _split(key: int, index: int) -> int:
    """One such output, for the two of each call that are not worth an array."""
    word = (key + _GAMMA * (index + 1)) & _MASK64
    word = (word ^ (word >> 30)) * _FACTORS[0] & _MASK64
    word = (word ^ (word >> 27)) * _FACTORS[1] & _MASK64
    return word ^ (word >> 31)


def uniform(seed: int, stream: Stream, position: int, indices: ArrayLike) -> FloatArray:
    """Uniform variates in (0, 1), one per index.

    (top 53 bits + 0.5) * 2^-53 of output `index` of the generator begun at output `position` of the one begun at
    output `stream` of the one begun at the seed; at most 1 - 2^-53.
    """
    bits = splitmix(_split(_split(seed, stream), position), indices) >> _SHIFT11
    return np.asarray(np.minimum((bits.astype(np.float64) + 0.5) * 2.0**-53, _LARGEST))


def gumbel(seed: int, stream: Stream, position: int, indices: ArrayLike) -> FloatArray:
    """Standard Gumbel variates, -log(-log u), one per index."""
    return np.asarray(-np.log(-np.log(uniform(seed, stream, position, indices))))
