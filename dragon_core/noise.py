"""Shared randomness: hashes of seed, stream, position and token by the mixer of SplitMix64 (Steele, Lea, Flood 2014).

Both peers compute the same numbers without sending any (docs/protocol.md, noise).
"""

import enum
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dragon_core.types import FloatArray

_MASK64 = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
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


@overload
def splitmix(key: int, index: int) -> int: ...
@overload
def splitmix(key: int, index: NDArray[np.uint64]) -> NDArray[np.uint64]: ...
def splitmix(key: int, index: Any) -> Any:
    """Output number `index` (from 0) of SplitMix64 begun at `key`, 64 bits; for an array of them one each."""
    word = ((index + 1) * _GAMMA + key) & _MASK64
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK64
    return word ^ (word >> 31)


def uniform(seed: int, stream: Stream, position: int, indices: ArrayLike) -> FloatArray:
    """Uniform variates in (0, 1), one per index.

    (top 53 bits + 0.5) * 2^-53 of output `index` of the generator begun at output `position` of the one begun at
    output `stream` of the one begun at the seed; at most 1 - 2^-53.
    """
    key = splitmix(splitmix(seed, stream), position)
    bits = splitmix(key, np.array(indices, dtype=np.uint64, ndmin=1)) >> 11
    return np.asarray(np.minimum((bits.astype(np.float64) + 0.5) * 2.0**-53, _LARGEST))


def gumbel(seed: int, stream: Stream, position: int, indices: ArrayLike) -> FloatArray:
    """Standard Gumbel variates, -log(-log u), one per index."""
    return np.asarray(-np.log(-np.log(uniform(seed, stream, position, indices))))
