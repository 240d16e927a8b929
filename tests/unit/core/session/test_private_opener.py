"""An opener pinned as the aggregator: nothing that it sends tells of a distribution, message type by message type."""

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given, settings

from dragon_core.messages import (
    Accepted,
    AnyMessage,
    Draft,
    Failure,
    Finish,
    Handover,
    MoveRequest,
    Open,
    Probe,
    Ready,
    Refused,
    Resume,
    Target,
    TargetDetail,
)
from dragon_core.types import Peer
from simulator.oracle import Question
from simulator.peer_pair import PeerPair
from simulator.schedule import Schedule
from tests.unit.core.session.expectations import require_clean_end, require_oracles_answer
from tests.unit.core.session.strategies import questions, rough_schedules

CURIOUS = Question(seed=8, end_penalty=60.0, max_tokens=60, num_top_logprobs=20)
PINNED = (
    Schedule(placement=Peer.OPENER),
    Schedule(placement=Peer.OPENER, cuts=((0.4, 1.6),), are_cuts_noticed=True),
    Schedule(placement=Peer.OPENER, silences=((Peer.OTHER, 0.4, 3.0),)),
    Schedule(placement=Peer.OPENER, lost=frozenset(range(15, 60, 3))),
    Schedule(placement=Peer.OPENER, num_replicas=2, deaths=(0.5,)),
)


def never(message: AnyMessage) -> bool:
    """Such a message says what its sender thinks, or is not an opener's."""
    return message is None


def is_bare(target: AnyMessage) -> bool:
    """Tokens, and how much of each was the opener's."""
    assert isinstance(target, Target)
    return all(each in (None, TargetDetail(each.opener_share, 0, 0)) for each in target.details if each is not None)


def says_nothing(message: AnyMessage) -> bool:
    """No field of such a message tells of a distribution: tokens, counts, durations, and texts of ours."""
    return not any(isinstance(getattr(message, name), bytes) for name in message.__struct_fields__)


ALLOWED: dict[type, Callable[[AnyMessage], bool]] = {
    Open: says_nothing,
    Accepted: never,
    Refused: never,
    Ready: says_nothing,
    Draft: never,
    Target: is_bare,
    MoveRequest: never,
    Handover: never,
    Resume: says_nothing,
    Finish: lambda message: isinstance(message, Finish) and message.documents == (),
    Failure: says_nothing,
    Probe: says_nothing,
}


def sent_by_opener(pair: PeerPair) -> list[AnyMessage]:
    return [message for peer, message in pair.messages if peer is Peer.OPENER]


@pytest.mark.parametrize("kind", ALLOWED)
def test_what_a_pinned_opener_sends_says_nothing_of_a_distribution(kind: type) -> None:
    for schedule in PINNED:
        pair = PeerPair(CURIOUS, schedule)
        pair.run()
        for message in sent_by_opener(pair):
            assert not isinstance(message, kind) or ALLOWED[kind](message), message


def test_every_message_is_among_them() -> None:
    assert set(ALLOWED) == set(AnyMessage.__args__)
    kinds = {type(message) for schedule in PINNED for message in sent_by_opener(ran(CURIOUS, schedule))}
    assert {Open, Ready, Target, Resume, Finish} <= kinds, "these schedules make an opener say all that it may"


def ran(question: Question, schedule: Schedule) -> PeerPair:
    pair = PeerPair(question, schedule)
    pair.run()
    return pair


@settings(max_examples=40, deadline=None)
@given(questions, rough_schedules)
def test_it_does_so_whatever_is_asked_lost_or_late(question: Question, schedule: Schedule) -> None:
    curious = dataclasses.replace(question, num_top_logprobs=20)
    pair = ran(curious, dataclasses.replace(schedule, placement=Peer.OPENER))
    for message in sent_by_opener(pair):
        assert ALLOWED[type(message)](message), message


@pytest.mark.parametrize("schedule", PINNED)
def test_its_own_user_gets_likely_tokens_all_the_same(schedule: Schedule) -> None:
    pair = ran(CURIOUS, schedule)
    require_oracles_answer(pair)
    require_clean_end(pair)
    mixed = [emit.settled for emit in pair.emitted if emit.settled.logprob is not None]
    assert len(mixed) > 10
    assert all(settled.top for settled in mixed)
    assert sum(len(settled.top) > 1 for settled in mixed) > 5
    report = pair.closed[Peer.OPENER].report
    assert report is not None
    assert report.dropped_mass_max is not None
    if schedule == PINNED[0]:
        assert report.their_documents, "the other's documents have shares"


def test_an_opener_that_is_not_pinned_tells_the_other_what_was_asked_for() -> None:
    """It aggregates because it was computed so: the policy keeps nothing."""
    pair = ran(CURIOUS, Schedule(delay_seconds=0.3, moves=(1.2,)))
    details = [each for sent in sent_by_opener(pair) if isinstance(sent, Target) for each in sent.details if each]
    assert details
    assert all(each.top for each in details)
    assert any(each.logprob_level for each in details)
