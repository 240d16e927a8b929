"""The other end is one replica of many: it may vanish, be full, or be another one than was asked first."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragon_core.messages import Accepted, Open, Refused
from dragon_core.types import CouplingKind, Peer
from simulator.oracle import Question
from simulator.peer_pair import PeerPair
from simulator.schedule import Schedule
from tests.unit.core.session.expectations import require_clean_end, require_oracles_answer
from tests.unit.core.session.inside import inside
from tests.unit.core.session.strategies import questions

LONG = Question(seed=6, max_tokens=160, end_penalty=60.0)
SLOWLY = (0.05, 0.04)


def opens(pair: PeerPair) -> list[Open]:
    return [message for _, message in pair.messages if isinstance(message, Open)]


@pytest.mark.parametrize("coupling", CouplingKind)
@pytest.mark.parametrize("placement", [None, *Peer])
def test_a_new_replica_takes_over_with_the_tokens_so_far(placement: Peer | None, coupling: CouplingKind) -> None:
    question = Question(seed=6, max_tokens=160, end_penalty=60.0, coupling=coupling)
    pair = PeerPair(question, Schedule(decode_seconds=SLOWLY, deaths=(1.0,), placement=placement))
    pair.run()
    require_oracles_answer(pair)
    require_clean_end(pair)
    assert [replica.name for replica in pair.replicas] == ["r0", "r1"]
    assert pair.other.name == "r1"
    again = opens(pair)[-1]
    assert list(again.settled) == pair.tokens[: len(again.settled)]
    assert again.settled
    # The new replica's tokens are mixed to the end, and what it knows of the answer is the whole of it.
    assert max(pair.degraded) < len(pair.tokens) - 40
    report = pair.closed[Peer.OTHER].report
    assert report is not None
    assert report.num_tokens == len(pair.tokens)
    assert report.term == inside(pair.opener).term.number > 0


def test_what_a_replica_that_was_given_up_says_is_not_heard() -> None:
    """Only its frames are lost for a while: it lives on, and another one has taken its place."""
    schedule = Schedule(decode_seconds=SLOWLY, num_replicas=2, silences=((Peer.OTHER, 0.8, 5.3),), placement=Peer.OTHER)
    pair = PeerPair(LONG, schedule)
    pair.run()
    require_oracles_answer(pair)
    require_clean_end(pair)
    assert [replica.closed is not None for replica in pair.replicas] == [True, True]
    assert pair.other.name == "r1"
    assert max(pair.degraded) < len(pair.tokens) - 20


@settings(max_examples=40, deadline=None)
@given(
    questions,
    st.lists(st.floats(0.0, 4.0), min_size=1, max_size=3).map(tuple),
    st.integers(1, 2),
    st.sampled_from([None, *Peer]),
    st.sampled_from([0.003, 0.15, 0.6]),
)
def test_replicas_may_vanish_at_any_time(
    question: Question, deaths: tuple[float, ...], num_replicas: int, placement: Peer | None, delay_seconds: float
) -> None:
    schedule = Schedule(
        deaths=deaths, num_replicas=num_replicas, placement=placement, delay_seconds=delay_seconds, branches=2
    )
    pair = PeerPair(question, schedule)
    pair.run()
    require_oracles_answer(pair)
    require_clean_end(pair)


@pytest.mark.parametrize("delay_seconds", [0.6, 1.2])
def test_the_second_open_of_a_slow_link_may_reach_another_replica(delay_seconds: float) -> None:
    """The first one's Accepted comes when nobody waits for it any more."""
    pair = PeerPair(LONG, Schedule(decode_seconds=SLOWLY, delay_seconds=delay_seconds, num_replicas=2))
    pair.run()
    require_oracles_answer(pair)
    require_clean_end(pair)
    assert len([message for _, message in pair.messages if isinstance(message, Accepted)]) >= 2


@pytest.mark.parametrize("prefill_seconds", [0.0, 2.0])
@pytest.mark.parametrize("retry_after_seconds", [0.0, 1.0, 3.0])
def test_when_every_replica_is_full_the_opener_answers_alone(
    retry_after_seconds: float, prefill_seconds: float
) -> None:
    """Whether it is refused before or after its own contexts are prefilled."""
    schedule = Schedule(prefill_seconds=(prefill_seconds, 0.0), full_until=1e9, retry_after_seconds=retry_after_seconds)
    pair = PeerPair(Question(seed=6), schedule)
    pair.run()
    require_oracles_answer(pair)
    require_clean_end(pair)
    assert pair.degraded == frozenset(range(len(pair.tokens)))
    assert pair.now < prefill_seconds + 2.0, "it begins at once"


@pytest.mark.parametrize("prefill_seconds", [0.0, 0.5])
def test_when_a_replica_is_free_again_tokens_are_mixed(prefill_seconds: float) -> None:
    schedule = Schedule(decode_seconds=SLOWLY, full_until=1.5, prefill_seconds=(prefill_seconds, 0.1))
    pair = PeerPair(LONG, schedule)
    pair.run()
    require_oracles_answer(pair)
    require_clean_end(pair)
    assert 0 < max(pair.degraded) < len(pair.tokens) - 60
    refused = [message for _, message in pair.messages if isinstance(message, Refused)]
    assert 1 <= len(refused) <= 4


def test_what_no_replica_will_ever_serve_is_an_error_with_its_reason() -> None:
    pair = PeerPair(Question(seed=6), Schedule(full_until=1e9, retry_after_seconds=None))
    pair.run()
    assert "slots are taken" in pair.closed[Peer.OPENER].error
    assert pair.tokens == []
