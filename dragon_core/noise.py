"""Shared randomness: Philox4x32-10 (Salmon et al. 2011), addressed by seed, stream, position and token.

Both peers compute the same numbers without sending any (docs/protocol.md, noise).
"""

import enum
import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dragon_core.types import FloatArray

_MASK32 = np.uint64(0xFFFFFFFF)
_WORD32, _WORD64 = np.dtype("<u4"), np.dtype("<u8")
_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], dtype=np.uint64)
_WEYL = np.array([0x9E3779B9, 0xBB67AE85], dtype=np.uint64)
_NUM_ROUNDS = 10
_SHIFT32 = np.uint64(32)
_SHIFT11 = np.uint64(11)
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


def philox(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Ten rounds over `counter` (4, n), words below 2^32; returns (4, n) words."""
    # Lanes 0 and 2 are multiplied, lanes 1 and 3 mixed in: both in one array. The halves of a product are views of it.
    even = counter[0::2].astype(_WORD64)
    even_low = even.view(_WORD32)[:, 0::2]
    odd = counter[1::2].astype(_WORD32)
    products = np.empty((2, *even.shape), dtype=_WORD64)
    halves = products.view(_WORD32)[:, ::-1]
    highs, lows = halves[:, :, 1::2], halves[:, :, 0::2]
    for round_index, round_key in enumerate(_round_keys(key)):
        at = round_index % 2
        np.multiply(even, _MULTIPLIERS, out=products[at])
        np.bitwise_xor(highs[at], odd, out=even_low)
        np.bitwise_xor(even_low, round_key, out=even_low)
        odd = lows[at]
    words = np.empty((4, even.shape[1]), dtype=np.uint64)
    words[0::2], words[1::2] = even, odd
    return words


@functools.lru_cache(maxsize=64)
def _round_keys(key: tuple[int, int]) -> NDArray[np.uint32]:
    """(10, 2, 1): what each round mixes in. A seed is one answer's, so it is asked for again and again."""
    first = np.array(key, dtype=np.uint64) + np.arange(_NUM_ROUNDS, dtype=np.uint64)[:, None] * _WEYL
    return np.asarray((first & _MASK32).astype(_WORD32)[:, :, None])


def uniform(seed: int, stream: Stream, position: int, indices: ArrayLike) -> FloatArray:
    """Uniform variates in (0, 1), one per index.

    (top 53 bits + 0.5) * 2^-53 of words 0 (high) and 1 (low), at most 1 - 2^-53.
    """
    index = np.atleast_1d(np.asarray(indices, dtype=np.uint64))
    counter = np.zeros((4, index.size), dtype=np.uint64)
    counter[0], counter[1], counter[2] = index, position, int(stream)
    words = philox(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    bits = ((words[0] << _SHIFT32) | words[1]) >> _SHIFT11
    return np.asarray(np.minimum((bits.astype(np.float64) + 0.5) * 2.0**-53, _LARGEST), dtype=np.float64)


def gumbel(seed: int, stream: Stream, position: int, indices: ArrayLike) -> FloatArray:
    """Standard Gumbel variates, -log(-log u), one per index."""
    return np.asarray(-np.log(-np.log(uniform(seed, stream, position, indices))))
