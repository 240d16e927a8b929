"""Answers that somebody ends early."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragon_core.messages import Failure, Finish, FinishReason
from dragon_core.session.events import Cancelled, EngineFailed, Fault, Refuse
from dragon_core.types import Peer
from simulator.oracle import Question, oracle_tokens
from simulator.peer_pair import PeerPair
from simulator.schedule import Schedule
from tests.unit.core.session.expectations import require_clean_end, require_oracles_answer
from tests.unit.core.session.strategies import questions, rough_schedules


@settings(max_examples=60, deadline=None)
@given(questions, rough_schedules, st.floats(0.0, 4.0))
def test_a_cancelled_answer_is_a_prefix(question: Question, schedule: Schedule, at: float) -> None:
    pair = PeerPair(question, schedule)
    pair.time.at(at, pair.cancel)
    tokens = pair.run()
    whole = oracle_tokens(question, degraded=pair.degraded)
    assert tokens == whole[: len(tokens)]
    closed = pair.closed[Peer.OPENER]
    assert closed.error == ""
    if closed.reason is FinishReason.CANCELLED:
        assert all(emitted_at <= at for emitted_at in pair.emitted_at)
        assert pair.opener.deadline is None
    else:
        assert tokens == whole
    assert all(end.closed is not None or end.deadline is None for end in pair.ends)


def test_the_other_end_hears_of_it_and_stops() -> None:
    pair = PeerPair(Question(seed=4, end_penalty=60.0, max_tokens=200), Schedule())
    pair.time.at(0.5, pair.cancel)
    tokens = pair.run()
    assert 0 < len(tokens) < len(oracle_tokens(pair.question))
    assert {closed.reason for closed in pair.closed.values()} == {FinishReason.CANCELLED}
    assert pair.now < 1.0
    assert [message.reason for _, message in pair.messages if isinstance(message, Finish)] == [FinishReason.CANCELLED]


@pytest.mark.parametrize("event", [Cancelled(), EngineFailed("out of memory"), Refuse(Fault.OURS, "a full disk")])
@pytest.mark.parametrize("placement", [None, *Peer])
@pytest.mark.parametrize("at", [0.02, 0.06, 0.12, 0.3, 0.5])
def test_when_the_other_end_gives_up_the_answer_still_comes(
    at: float, placement: Peer | None, event: Cancelled | EngineFailed | Refuse
) -> None:
    """A replica that drains, or whose engine fails, says so. Where it gives up, another may take over."""
    pair = PeerPair(Question(seed=4), Schedule(placement=placement, prefill_seconds=(0.01, 0.1)))
    pair.time.at(at, lambda: pair.replicas[0].receive(event))
    pair.run()
    if isinstance(event, Refuse):
        # What cannot be served at all is an error, and the user gets its reason.
        assert "a full disk" in pair.closed[Peer.OPENER].error or not pair.closed[Peer.OPENER].error
    else:
        require_oracles_answer(pair)
        require_clean_end(pair)


@pytest.mark.parametrize("event", [Cancelled(), EngineFailed("out of memory")])
@pytest.mark.parametrize("placement", [None, *Peer])
@pytest.mark.parametrize("opener_prefill_seconds", [0.5, 2.0])
def test_a_replica_that_gives_up_before_our_own_model_is_ready_leaves_an_answer(
    opener_prefill_seconds: float, placement: Peer | None, event: Cancelled | EngineFailed
) -> None:
    prefill_seconds = (opener_prefill_seconds, 0.01)
    pair = PeerPair(Question(seed=4), Schedule(placement=placement, prefill_seconds=prefill_seconds))
    pair.time.at(0.1, lambda: pair.replicas[0].receive(event))
    pair.run()
    require_oracles_answer(pair)
    require_clean_end(pair)
    assert pair.emitted_at[0] < opener_prefill_seconds + 1.5, "it begins when our own model is ready"


def test_when_every_replica_gives_up_at_once_the_whole_answer_is_degraded() -> None:
    pair = PeerPair(Question(seed=4), Schedule(prefill_seconds=(1.0, 0.01)))
    for at in range(200):
        pair.time.at(0.1 * at, lambda: [replica.receive(Cancelled()) for replica in pair.replicas])
    pair.run()
    require_oracles_answer(pair)
    require_clean_end(pair)
    assert pair.degraded == frozenset(range(len(pair.tokens)))


def test_an_engine_that_fails_at_the_opener_ends_both_ends() -> None:
    pair = PeerPair(Question(seed=4), Schedule())
    pair.time.at(0.5, lambda: pair.opener.receive(EngineFailed("out of memory")))
    tokens = pair.run()
    assert tokens == oracle_tokens(pair.question)[: len(tokens)]
    assert pair.closed[Peer.OPENER].reason is FinishReason.ERROR
    assert (pair.closed[Peer.OPENER].fault, pair.closed[Peer.OPENER].error) == (Fault.OURS, "out of memory")
    assert pair.closed[Peer.OTHER].fault is Fault.THEIRS
    assert "out of memory" in pair.closed[Peer.OTHER].error
    assert [message.reason for _, message in pair.messages if isinstance(message, Failure)] == ["out of memory"]
