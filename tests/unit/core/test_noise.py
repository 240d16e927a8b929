"""The shared randomness: known answers, the documented variates, and streams that tell nothing of others."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import kstest

from dragon_core.noise import Stream, gumbel, splitmix, uniform
from dragon_core.types import FloatArray

NUM = 4000
LARGEST_CORRELATION = 5 / math.sqrt(NUM)
"""Five standard deviations of the correlation of independent values."""
STRANGE_SEED = 0x8000_0001_7FFF_FFFE


def test_splitmix_gives_the_known_answers() -> None:
    """The first outputs for seed 1234567, as published with the reference implementation."""
    known = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert splitmix(1234567, np.arange(5, dtype=np.uint64)).tolist() == known
    assert [splitmix(1234567, index) for index in range(5)] == known


def test_a_variate_is_addressed_by_seed_stream_position_and_index() -> None:
    """The documented layout: a generator per stream, in it one per position, in it one word per index."""
    index, position, stream = 49_151, 1000, Stream.RESIDUAL_OTHER
    key = STRANGE_SEED
    for at in (int(stream), position, index):
        key = splitmix(key, at)
    expected = ((key >> 11) + 0.5) / 2**53
    assert uniform(STRANGE_SEED, stream, position, index)[0] == expected
    assert gumbel(STRANGE_SEED, stream, position, index)[0] == pytest.approx(-math.log(-math.log(expected)))


def test_a_variate_does_not_depend_on_which_others_are_asked_for() -> None:
    together = uniform(9, Stream.TOKEN, 3, np.arange(50))
    assert uniform(9, Stream.TOKEN, 3, [17])[0] == together[17]
    np.testing.assert_array_equal(uniform(9, Stream.TOKEN, 3, [49, 0]), together[[49, 0]])


@pytest.mark.parametrize("stream", Stream)
def test_every_stream_is_uniform(stream: Stream) -> None:
    values = uniform(STRANGE_SEED, stream, 2, np.arange(NUM))
    assert kstest(values, "uniform").pvalue > 1e-4
    assert kstest(gumbel(STRANGE_SEED, stream, 2, np.arange(NUM)), "gumbel_r").pvalue > 1e-4


def correlation(first: FloatArray, second: FloatArray) -> float:
    return abs(float(np.corrcoef(first, second)[0, 1]))


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(Stream, 2)))
def test_streams_of_one_seed_are_uncorrelated(first: Stream, second: Stream) -> None:
    along_tokens = [uniform(1, stream, 0, np.arange(NUM)) for stream in (first, second)]
    assert correlation(*along_tokens) < LARGEST_CORRELATION


def test_positions_indices_and_seeds_are_uncorrelated() -> None:
    base = uniform(1, Stream.TOKEN, 0, np.arange(NUM + 1))
    others = [
        uniform(1, Stream.TOKEN, 1, np.arange(NUM)),
        uniform(1, Stream.TOKEN, 2**20, np.arange(NUM)),
        base[1:],
        uniform(2, Stream.TOKEN, 0, np.arange(NUM)),
        uniform(1 + 2**32, Stream.TOKEN, 0, np.arange(NUM)),
        uniform(1 + 2**63, Stream.TOKEN, 0, np.arange(NUM)),
    ]
    for first, second in itertools.combinations([base[:NUM], *others], 2):
        assert correlation(first, second) < LARGEST_CORRELATION


def test_the_draws_of_one_position_are_uncorrelated_over_an_answer() -> None:
    """A coin, an acceptance and a draft are drawn at every position: along them they must not follow each other."""
    streams = (Stream.COIN, Stream.ACCEPT_OPENER, Stream.ACCEPT_OTHER, Stream.DRAFT_OPENER, Stream.TOKEN)
    num_positions = 1000
    drawn = [np.array([uniform(77, stream, position, 0)[0] for position in range(num_positions)]) for stream in streams]
    for first, second in itertools.combinations(drawn, 2):
        assert correlation(first, second) < 5 / math.sqrt(num_positions)
    for values in drawn:
        assert correlation(values[1:], values[:-1]) < 5 / math.sqrt(num_positions)
