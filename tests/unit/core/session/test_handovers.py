"""Authority that moves between the ends, by the scheduler's wish, while frames are on their way."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragon_core.messages import Draft, Handover, MoveRequest
from dragon_core.session.events import MoveAsked
from dragon_core.types import Context, Peer
from simulator.oracle import Question, oracle_tokens
from simulator.peer_pair import PeerPair
from simulator.schedule import Schedule
from tests.unit.core.session.expectations import require_clean_end, require_oracles_answer
from tests.unit.core.session.inside import inside
from tests.unit.core.session.strategies import questions, rough_schedules

EVEN = ((Context(tokens=(1,), relevance=0.2),), (Context(tokens=(1,), relevance=0.2),))


@settings(max_examples=30, deadline=None)
@given(
    questions,
    st.lists(st.floats(0.2, 2.5), min_size=1, max_size=12).map(tuple),
    st.sampled_from([0.0, 0.003, 0.05, 0.3]),
    st.integers(1, 8),
)
def test_handovers_at_any_moment_do_not_change_the_answer(
    question: Question, moves: tuple[float, ...], delay_seconds: float, window: int
) -> None:
    pair = PeerPair(question, Schedule(moves=moves, delay_seconds=delay_seconds, window=window, branches=2))
    assert pair.run() == oracle_tokens(question)
    assert not pair.degraded
    assert inside(pair.opener).term.number == 0, "authority that is handed over keeps its term"


@pytest.mark.parametrize("decode_seconds", [(0.01, 0.01), (0.005, 0.02), (0.02, 0.005)])
def test_a_handover_brings_the_frames_that_the_new_aggregator_needs(decode_seconds: tuple[float, float]) -> None:
    """There and back: what a Handover carries continues the settled path, and is not sent again."""
    question = Question(seed=8, end_penalty=60.0, max_tokens=60)
    pair = PeerPair(question, Schedule(decode_seconds=decode_seconds, moves=(0.5, 0.75), window=6))
    assert pair.run() == oracle_tokens(question)
    handed = [(at, peer, m) for at, (peer, m) in enumerate(pair.messages) if isinstance(m, Handover)]
    assert [peer for _, peer, _ in handed] in ([*Peer], [*Peer][::-1])
    assert any(handover.drafts for _, _, handover in handed)
    for at, peer, handover in handed:
        if handover.drafts:
            assert handover.drafts[0].position == handover.position
            assert handover.drafts[0].parent is None
        ids = {draft.id for draft in handover.drafts}
        again = [m for sender, m in pair.messages[at + 1 :] if sender is peer and isinstance(m, Draft) and m.id in ids]
        assert again == []


def test_a_resume_that_crosses_a_handover_is_no_sign_of_trouble() -> None:
    """The other end, long without news, says that the opener aggregates, while the opener has just handed back."""
    question = Question(seed=0, temperature=0.0, max_tokens=4, contexts=EVEN)
    schedule = Schedule(
        delay_seconds=0.15,
        prefill_seconds=(0.0, 0.0),
        decode_seconds=(0.002, 0.002),
        window=1,
        moves=(1.0, 1.25),
        are_stale_answers_given=False,
    )
    pair = PeerPair(question, schedule)
    assert pair.run() == oracle_tokens(question)
    assert not pair.degraded
    assert pair.closed[Peer.OTHER].error == ""


def test_targets_repeated_by_the_old_aggregator_are_taken_as_such() -> None:
    """It answers a Resume from before it handed over; what it repeats, the new aggregator knows."""
    question = Question(seed=0, temperature=0.0, max_tokens=2, contexts=EVEN)
    schedule = Schedule(
        delay_seconds=0.15,
        prefill_seconds=(0.0, 0.5),
        decode_seconds=(0.002, 0.002),
        window=2,
        moves=(1.5,),
        cuts=((0.25, 1.25),),
        are_stale_answers_given=False,
        lost=frozenset({11}),
    )
    pair = PeerPair(question, schedule)
    pair.run()
    require_oracles_answer(pair)
    require_clean_end(pair)


@pytest.mark.parametrize("lost_after", range(4))
@pytest.mark.parametrize("moves", [(0.4,), (0.4, 0.45)])
def test_a_lost_handover_leaves_the_answer_to_somebody(moves: tuple[float, ...], lost_after: int) -> None:
    """Each end believes that the other aggregates until one of them says so."""
    question = Question(seed=8, end_penalty=60.0, max_tokens=80)
    watched = PeerPair(question, Schedule(moves=moves, decode_seconds=(0.02, 0.02)))
    watched.run()
    number = next(at for at, (_, message) in enumerate(watched.messages) if isinstance(message, Handover))
    lost = frozenset(range(number, number + 1 + lost_after))
    pair = PeerPair(question, Schedule(moves=moves, decode_seconds=(0.02, 0.02), lost=lost))
    pair.run()
    require_oracles_answer(pair)
    require_clean_end(pair)
    assert len(pair.degraded) < 40


@settings(max_examples=40, deadline=None)
@given(questions, rough_schedules)
def test_a_pinned_opener_never_shows_a_distribution(question: Question, schedule: Schedule) -> None:
    """Its pin is its privacy: no Draft and no Handover, whatever is asked, lost or late."""
    pair = PeerPair(question, dataclasses.replace(schedule, placement=Peer.OPENER))
    for at in (0.0, 0.2, 0.4, 0.9):
        pair.time.at(at, lambda: pair.opener.receive(MoveAsked(Peer.OTHER, "test")))
        pair.time.at(at, lambda: pair.replicas[0].receive(MoveAsked(Peer.OTHER, "test")) if pair.other.engine else None)
    pair.run()
    shown = [m for peer, m in pair.messages if peer is Peer.OPENER and isinstance(m, Draft | Handover | MoveRequest)]
    assert shown == []
