"""Defects of our own are found at our end: illegal moves, messages we must not send, parts that do not fit together."""

from collections.abc import Callable

import pytest

from dragon_core.errors import OurError
from dragon_core.messages import Accepted, Handover, MoveRequest, Open, Probe, Target
from dragon_core.session.lifecycle import ARRIVING, MOVES, SENT, Lifecycle, State
from dragon_core.session.session import Session
from dragon_core.session.settling import Unheard
from dragon_core.session.timers import Timer
from dragon_core.types import Guess, Peer
from simulator.oracle import Question
from simulator.peer_pair import PairEnd, PeerPair
from simulator.schedule import Schedule
from tests.unit.core.session.inside import inside


def running() -> PeerPair:
    """A pair in mid-answer, with the authority at the other end."""
    pair = PeerPair(Question(seed=4, max_tokens=200, end_penalty=60.0), Schedule(placement=Peer.OTHER))
    pair.start()
    pair.time.run_to(1.0)
    assert {end.session.state for end in pair.ends} == {State.RUNNING}
    return pair


@pytest.mark.parametrize("peer", Peer)
def test_a_session_goes_only_where_the_table_says(peer: Peer) -> None:
    for before, allowed in MOVES[peer].items():
        for after in State:
            lifecycle = Lifecycle(peer, before)
            if after in (before, *allowed):
                lifecycle.go(after)
                assert lifecycle.state is after
            else:
                with pytest.raises(OurError, match=f"cannot go from {before} to {after}"):
                    lifecycle.go(after)
                assert lifecycle.state is before


def test_only_go_assigns_the_state() -> None:
    with pytest.raises(AttributeError):
        Lifecycle(Peer.OPENER, State.RUNNING).state = State.CLOSED  # type: ignore[misc]


@pytest.mark.parametrize("sender", Peer)
def test_what_is_sent_the_other_end_takes_in_some_state(sender: Peer) -> None:
    taken = {kind for kinds in ARRIVING[sender.opposite].values() for kind in kinds}
    for state, kinds in SENT[sender].items():
        assert set(kinds) <= taken, state
    assert State.CLOSED not in SENT[sender]


def test_what_must_not_be_sent_is_found_before_the_other_end_sees_it() -> None:
    pair = running()
    for end, message in (
        (pair.opener, Accepted(replica="r0", prefill_deadline_seconds=1.0)),
        (pair.replicas[0], pair.open()),
        (pair.opener, Probe()),
    ):
        with pytest.raises(OurError, match=f"does not send {type(message).__name__} while it is running"):
            inside(end).send(message)
    pair.finish()
    for late in (Target(0, (1,), (None,)), Handover(0, ()), MoveRequest(Peer.OTHER, "")):
        with pytest.raises(OurError, match="while it is closed"):
            inside(pair.opener).send(late)
    assert not any(isinstance(message, Open) for _, message in pair.messages[1:])


def _forget_a_frame(end: PairEnd) -> None:
    ours = inside(end).ours
    assert ours is not None
    del ours.drafting.tree._frames[ours.drafting.tree.current.id]


def _take_branches(end: PairEnd) -> None:
    ours = inside(end).ours
    assert ours is not None
    tree = ours.drafting.tree
    leaf = tree.leaves()[0]
    tree.continue_with(leaf, [Guess(token, 0.0) for token in range(9)])


BREAKAGES: dict[str, Callable[[PairEnd], object]] = {
    "are either kept or reached": _forget_a_frame,
    "more than 1 branches": _take_branches,
    "tokens with": lambda end: inside(end).answer.tokens.append(1),
    "is degraded that has no target": lambda end: inside(end).answer.degraded.add(10_000),
    "no timer is set": lambda end: inside(end).timers.stop(*Timer),
    "another end fixes targets": lambda end: setattr(inside(end).settling, "alone", Unheard(0)),
    "the term began at": lambda end: inside(end).term.begin(10_000),
    "nobody fixes targets": lambda end: setattr(inside(end).settling, "aggregator", None),
    "the drafts continue": lambda end: inside(end).answer.fix(1, None),
}


@pytest.mark.parametrize("problem", BREAKAGES)
def test_parts_that_do_not_fit_together_are_found(problem: str) -> None:
    pair = running()
    pair.opener.session.check_integrity()
    BREAKAGES[problem](pair.opener)
    with pytest.raises(OurError, match=problem):
        pair.opener.session.check_integrity()


def test_a_closed_session_waits_for_nothing() -> None:
    pair = running()
    pair.finish()
    for end in pair.ends:
        end.session.check_integrity()
    inside(pair.opener).timers.set(Timer.NUDGE, 1.0)
    with pytest.raises(OurError, match="a timer is set"):
        pair.opener.session.check_integrity()


def test_an_end_that_was_not_asked_yet_is_sound() -> None:
    pair = PeerPair(Question(), Schedule())
    session = Session.await_open(pair.settings)
    session.check_integrity()
    assert session.state is State.IDLE
    assert session.deadline is None
