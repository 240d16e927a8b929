"""Shared randomness: Philox4x32-10 (Salmon et al. 2011), addressed by seed, stream, position and token.

Both peers compute the same numbers without sending any (docs/protocol.md, noise).
"""

import enum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dragon_core.types import FloatArray

_MASK32 = np.uint64(0xFFFFFFFF)
_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], dtype=np.uint64)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_NUM_ROUNDS = 10
_SHIFT32 = np.uint64(32)
_SHIFT11 = np.uint64(11)


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


def philox(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Ten rounds over `counter` (4, n), words below 2^32; returns (4, n) words."""
    # Lanes 0 and 2 are multiplied together and lanes 1 and 3 mixed in together: six array operations a round.
    even = np.ascontiguousarray(counter[0::2])
    odd = np.ascontiguousarray(counter[1::2])
    product = np.empty_like(even)
    keys = np.empty((_NUM_ROUNDS, 2, 1), dtype=np.uint64)
    for round_index in range(_NUM_ROUNDS):
        keys[round_index, 0, 0] = (key[0] + round_index * _WEYL[0]) & 0xFFFFFFFF
        keys[round_index, 1, 0] = (key[1] + round_index * _WEYL[1]) & 0xFFFFFFFF
    for round_key in keys:
        np.multiply(even, _MULTIPLIERS, out=product)
        np.bitwise_xor(odd, round_key, out=odd)
        np.right_shift(product[::-1], _SHIFT32, out=even)
        np.bitwise_xor(even, odd, out=even)
        np.bitwise_and(product[::-1], _MASK32, out=odd)
    words = np.empty((4, even.shape[1]), dtype=np.uint64)
    words[0::2], words[1::2] = even, odd
    return words


def uniform(seed: int, stream: Stream, position: int, indices: ArrayLike) -> FloatArray:
    """Uniform variates in (0, 1), one per index: (top 53 bits + 0.5) * 2^-53 of words 0 (high) and 1 (low)."""
    index = np.atleast_1d(np.asarray(indices, dtype=np.uint64))
    counter = np.zeros((4, index.size), dtype=np.uint64)
    counter[0], counter[1], counter[2] = index, position, int(stream)
    words = philox(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    bits = ((words[0] << _SHIFT32) | words[1]) >> _SHIFT11
    return np.asarray((bits.astype(np.float64) + 0.5) * 2.0**-53, dtype=np.float64)


def gumbel(seed: int, stream: Stream, position: int, indices: ArrayLike) -> FloatArray:
    """Standard Gumbel variates, -log(-log u), one per index."""
    return np.asarray(-np.log(-np.log(uniform(seed, stream, position, indices))))
