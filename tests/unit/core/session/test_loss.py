"""Frames that are lost, come twice, or come in one direction only."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragon_core.types import CouplingKind, Peer
from simulator.oracle import Question, oracle_tokens
from simulator.peer_pair import PeerPair
from simulator.schedule import Schedule
from tests.unit.core.session.expectations import require_clean_end, require_oracles_answer

QUESTION = Question(seed=9, max_tokens=10)
FOREVER = 1e9
placements = st.sampled_from([None, *Peer])


@pytest.mark.parametrize("placement", [None, *Peer])
@pytest.mark.parametrize("coupling", CouplingKind)
def test_every_frame_may_come_twice(coupling: CouplingKind, placement: Peer | None) -> None:
    question = Question(seed=9, coupling=coupling, temperature=0.7)
    pair = PeerPair(question, Schedule(placement=placement, branches=2, repeated=frozenset(range(100_000))))
    assert pair.run() == oracle_tokens(question)
    assert not pair.degraded
    once = PeerPair(question, Schedule(placement=placement, branches=2))
    once.run()
    assert pair.num_frames == once.num_frames, "a repeated frame is answered once"


@pytest.mark.parametrize("placement", Peer)
@pytest.mark.parametrize("number", range(32))
def test_any_single_frame_may_be_lost(number: int, placement: Peer) -> None:
    """Resume brings it back before anybody has to go on alone."""
    pair = PeerPair(QUESTION, Schedule(placement=placement, moves=(0.35, 0.5), lost=frozenset({number})))
    pair.run()
    require_oracles_answer(pair)
    require_clean_end(pair)
    assert not pair.degraded


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(Peer), st.floats(0.0, 1.5), st.floats(0.05, 5.0), placements)
def test_one_way_loss_changes_only_the_degraded_positions(
    sender: Peer, start: float, length: float, placement: Peer | None
) -> None:
    pair = PeerPair(Question(seed=21), Schedule(silences=((sender, start, start + length),), placement=placement))
    pair.run()
    require_oracles_answer(pair)
    require_clean_end(pair)


@pytest.mark.parametrize("placement", [None, *Peer])
@pytest.mark.parametrize("sender", Peer)
@pytest.mark.parametrize("start", [0.0, 0.12, 0.3, 0.5])
def test_an_end_that_is_never_heard_again_does_not_keep_the_answer(
    start: float, sender: Peer, placement: Peer | None
) -> None:
    pair = PeerPair(Question(seed=21), Schedule(silences=((sender, start, FOREVER),), placement=placement))
    tokens = pair.run()
    require_oracles_answer(pair)
    require_clean_end(pair)
    is_silent_from_the_first = start < 0.3
    assert pair.degraded if is_silent_from_the_first else len(tokens) > 0
    assert all(end.closed is not None or end.deadline is None for end in pair.ends), "both ends come to an end"


def test_a_gap_is_noticed_and_made_good_by_resume() -> None:
    """The lost frame is a Target in mid-answer that the opener had guessed, so that more follow at once."""
    watched = PeerPair(QUESTION, Schedule(placement=Peer.OTHER))
    watched.run()
    kinds = [type(message).__name__ for _, message in watched.messages]
    targets = [at for at, kind in enumerate(kinds) if kind == "Target"]
    number = next(at for at in targets[3:] if kinds[at + 1] == "Target")
    pair = PeerPair(QUESTION, Schedule(placement=Peer.OTHER, lost=frozenset({number})))
    assert pair.run() == oracle_tokens(QUESTION)
    assert "Resume" not in kinds
    # The next frame shows the gap: nobody waits half a stall limit for the lost one.
    assert pair.now < watched.now + 0.4
    assert "Resume" in [type(message).__name__ for _, message in pair.messages]
    assert not pair.degraded
