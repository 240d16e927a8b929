"""Published distributions: what is cut, how it is quantised, and that their bytes are taken as sent or refused."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragon_core.distribution import MAX_LEVEL, cut, dropped_mass, pack, quantise_weight, unpack, weight_nat
from dragon_core.errors import PeerError
from dragon_core.types import Cut

VOCABULARY = 30
rows = st.lists(
    st.floats(0.0, 1.0) | st.sampled_from([0.0, 0.25, 1e-12, 1e-40]), min_size=1, max_size=VOCABULARY
).filter(lambda row: sum(row) > 1e-6)
cuts = st.builds(Cut, nucleus=st.floats(0.05, 1.0), max_published_tokens=st.integers(1, VOCABULARY))


@settings(max_examples=200)
@given(rows, cuts)
def test_the_smallest_nucleus_of_at_most_k_tokens_is_kept(row: list[float], limit: Cut) -> None:
    probabilities = [value / math.fsum(row) for value in row]
    expected: list[int] = []
    mass = 0.0
    for token in sorted(range(len(row)), key=lambda token: (-probabilities[token], token)):
        is_full = len(expected) == limit.max_published_tokens or mass >= limit.nucleus + 1e-9
        if is_full or (expected and probabilities[token] == 0.0):
            break
        if abs(mass - limit.nucleus) < 1e-9:
            return  # rounding decides
        expected.append(token)
        mass += probabilities[token]
    made = cut(np.array(probabilities), limit)
    kept = made.ids.tolist()
    assert set(kept) == set(expected)
    dropped = 1.0 - math.fsum(probabilities[token] for token in expected)
    assert dropped - 1e-9 <= dropped_mass(made) <= dropped + 1 / 65_535 + 1e-9


@given(st.integers(0, 2**32 - 1), st.integers(1, 3000), st.integers(1, 200), st.integers(1, 100))
def test_of_a_large_vocabulary_the_likeliest_are_kept_and_of_equal_ones_the_first(
    seed: int, num_tokens: int, num_kept: int, num_values: int
) -> None:
    values = np.random.default_rng(seed).integers(1, num_values + 1, num_tokens).astype(np.float64)
    made = cut(values / values.sum(), Cut(nucleus=1.0, max_published_tokens=num_kept))
    expected = np.lexsort((np.arange(num_tokens), -values))[:num_kept]
    assert set(made.ids.tolist()) == set(expected.tolist())


@given(rows, cuts)
def test_levels_are_log_probabilities_in_order_and_decode_to_a_distribution(row: list[float], limit: Cut) -> None:
    probabilities = np.array(row) / math.fsum(row)
    made = cut(probabilities, limit)
    pairs = list(zip(made.levels.tolist(), made.ids.tolist(), strict=True))
    assert pairs == sorted(pairs)
    for level, token in pairs:
        expected = -math.log(probabilities[token]) * 1024
        assert level == MAX_LEVEL if expected > MAX_LEVEL else abs(level - expected) <= 0.5 + 1e-6
    raised = [math.exp(-level / 1024) for level, _ in pairs]
    np.testing.assert_allclose(made.probabilities, np.array(raised) / math.fsum(raised), rtol=1e-12)


@given(rows, cuts)
def test_a_packed_distribution_decodes_to_itself(row: list[float], limit: Cut) -> None:
    made = cut(np.array(row) / math.fsum(row), limit)
    body = pack(made)
    read = unpack(body, dropped=made.dropped, vocabulary_size=VOCABULARY, max_tokens=limit.max_published_tokens)
    assert read == made
    np.testing.assert_array_equal(read.probabilities, made.probabilities)


def test_ids_beyond_two_bytes_are_packed_in_four() -> None:
    probabilities = np.zeros(100_000)
    probabilities[[7, 65_536, 99_999]] = 0.5, 0.3, 0.2
    made = cut(probabilities, Cut())
    assert pack(made)[0] == 4
    assert unpack(pack(made), dropped=made.dropped, vocabulary_size=100_000, max_tokens=64) == made


@given(st.binary(max_size=80) | st.binary(max_size=40).map(lambda body: b"\x02\x03\x00" + body))
def test_hostile_bytes_are_refused_or_valid(body: bytes) -> None:
    try:
        made = unpack(body, dropped=0, vocabulary_size=VOCABULARY, max_tokens=16)
    except PeerError as error:
        assert error.field == "distribution"  # noqa: PT017 - most bytes are refused, some are not
        return
    assert 1 <= made.ids.size <= 16
    assert len(set(made.ids.tolist())) == made.ids.size
    assert made.ids.max() < VOCABULARY
    assert math.isclose(made.probabilities.sum(), 1.0)
    assert pack(made) == body or body[0] == 4


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\x02\x00\x00", id="no token"),
        pytest.param(b"\x03\x01\x00\x05\x00\x00\x00", id="an unknown width"),
        pytest.param(b"\x02\x11\x00" + bytes(range(34)) + bytes(17), id="more than K"),
        pytest.param(b"\x02\x01\x00\x1e\x00\x00", id="beyond the vocabulary"),
        pytest.param(b"\x02\x02\x00\x05\x00\x05\x00\x00\x01", id="a token twice"),
        pytest.param(b"\x02\x02\x00\x06\x00\x05\x00\x00\x00", id="equal levels out of order"),
        pytest.param(b"\x02\x02\x00\x05\x00\x06\x00\x00", id="too short"),
        pytest.param(b"\x02\x01\x00\x05\x00\x00\x00", id="too long"),
        pytest.param(b"\x02\x01\x00\x05\x00\xff\x00", id="a step cut in two"),
        pytest.param(b"\x02\x02\x00\x05\x00\x06\x00\xff\xff\xff\xff\xff\xff", id="a level beyond 64 nat"),
    ],
)
def test_what_is_not_a_distribution_is_refused(body: bytes) -> None:
    with pytest.raises(PeerError) as refused:
        unpack(body, dropped=0, vocabulary_size=VOCABULARY, max_tokens=16)
    assert refused.value.field == "distribution"


@given(st.floats(-10_000, 10_000))
def test_a_weight_is_rounded_to_a_level(nat: float) -> None:
    assert abs(weight_nat(quantise_weight(nat)) - nat) <= 0.5 / 1024 + 1e-9


@pytest.mark.parametrize("nat", [math.nan, math.inf, -math.inf, 10_000.1, -1e300])
def test_a_weight_that_is_no_number_or_beyond_all_reason_is_refused(nat: float) -> None:
    with pytest.raises(PeerError) as refused:
        quantise_weight(nat)
    assert refused.value.field == "weight"
