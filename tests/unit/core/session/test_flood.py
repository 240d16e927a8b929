"""A peer that sends more than it may: what an end keeps and answers stays within the window."""

import pytest

from dragon_core.messages import AnyMessage, Draft, Failure, Handover, Probe, Ready, Refused, Resume, Target
from dragon_core.session.end import FRAMES_SLACK
from dragon_core.session.lifecycle import State
from dragon_core.types import Peer
from simulator.oracle import Question
from simulator.peer_pair import PairEnd, PeerPair
from simulator.schedule import Schedule
from tests.unit.core.samples import BODY
from tests.unit.core.session.inside import inside
from tests.unit.core.session.test_every_message import is_closed, push, sent

WINDOW, BRANCHES = 5, 2
MOST_FRAMES = (WINDOW + FRAMES_SLACK) * BRANCHES
QUESTION = Question(max_tokens=20, end_penalty=60.0)


def waiting(peer: Peer, aggregator: Peer) -> tuple[PeerPair, PairEnd]:
    """An end that runs and settles nothing yet: both engines take very long over their first step."""
    schedule = Schedule(placement=aggregator, window=WINDOW, branches=BRANCHES, decode_seconds=(500.0, 500.0))
    pair = PeerPair(QUESTION, schedule)
    pair.start()
    pair.time.run_to(0.5)
    end = pair.opener if peer is Peer.OPENER else pair.replicas[0]
    assert end.session.state is State.RUNNING
    assert end.session.aggregator is aggregator
    return pair, end


def num_kept(end: PairEnd) -> int:
    return len(inside(end).settling.theirs)


def flood(end: PairEnd, messages: list[AnyMessage]) -> tuple[int, str]:
    """Push until the end closes: how many were taken, and the field it refused; "" where it took all."""
    for count, message in enumerate(messages):
        effects = push(end, message)
        assert num_kept(end) <= MOST_FRAMES
        if is_closed(effects):
            return count, next(failure.field for failure in sent(effects) if isinstance(failure, Failure))
    return len(messages), ""


def chain(length: int) -> list[AnyMessage]:
    """Valid frames, each after the one before."""
    return [Draft(n, n - 1 if n else None, 3 if n else None, n, None, 0, BODY) for n in range(length)]


def tree(size: int, num_children: int) -> list[AnyMessage]:
    """Valid frames, some after each: never deep."""
    frames: list[AnyMessage] = []
    depths = [0]
    for n in range(1, size):
        depths.append(depths[(n - 1) // num_children] + 1)
    for n in range(size):
        parent, via = ((n - 1) // num_children, 1 + n % 23) if n else (None, None)
        frames.append(Draft(n, parent, via, depths[n], None, 0, BODY))
    return frames


@pytest.mark.parametrize("peer", Peer)
def test_frames_beyond_the_window_are_refused(peer: Peer) -> None:
    _, end = waiting(peer, peer)
    assert flood(end, chain(500)) == (WINDOW + FRAMES_SLACK + 1, "position")


@pytest.mark.parametrize("num_children", [3, 20])
@pytest.mark.parametrize("peer", Peer)
def test_more_frames_than_window_and_branches_allow_are_refused(peer: Peer, num_children: int) -> None:
    _, end = waiting(peer, peer)
    assert flood(end, tree(500, num_children)) == (MOST_FRAMES, "id")


@pytest.mark.parametrize("peer", Peer)
def test_a_handover_brings_no_more_frames_than_are_allowed(peer: Peer) -> None:
    for frames, field in ((chain(32), "position"), (tree(32, 4), "id")):
        _, end = waiting(peer, peer.opposite)
        drafts = tuple(frame for frame in frames if isinstance(frame, Draft))
        assert flood(end, [Handover(0, drafts)]) == (0, field)


@pytest.mark.parametrize("peer", Peer)
def test_dead_and_repeated_frames_are_not_kept(peer: Peer) -> None:
    _, end = waiting(peer, peer)
    frames: list[AnyMessage] = [Draft(0, None, None, 0, None, 0, BODY)]
    frames += [Draft(n, n + 5000, 3, 1, None, 0, BODY) for n in range(1, 2000)]
    frames += [Draft(0, None, None, 0, None, 0, BODY), Draft(5000, None, None, 0, None, 0, BODY)] * 500
    assert flood(end, frames) == (len(frames), "")
    assert num_kept(end) == 1


@pytest.mark.parametrize("peer", Peer)
def test_frames_for_an_end_that_does_not_aggregate_are_not_kept(peer: Peer) -> None:
    _, end = waiting(peer, peer.opposite)
    assert flood(end, chain(2000)) == (2000, "")
    assert num_kept(end) == 0


@pytest.mark.parametrize("peer", Peer)
def test_targets_beyond_the_end_of_the_answer_are_refused(peer: Peer) -> None:
    pair, end = waiting(peer, peer.opposite)
    targets: list[AnyMessage] = [Target(n, (3,), (None,)) for n in range(100)]
    taken, field = flood(end, targets)
    assert (taken, field) == (QUESTION.max_tokens, "position")
    assert len(pair.emitted) == (QUESTION.max_tokens if peer is Peer.OPENER else 0)
    pair, end = waiting(peer, peer.opposite)
    assert flood(end, [Target(0, (3,) * 32, (None,) * 32)]) == (0, "position")
    assert inside(end).answer.next_position == QUESTION.max_tokens


@pytest.mark.parametrize("peer", Peer)
def test_every_message_is_answered_with_a_bounded_number(peer: Peer) -> None:
    """In mid-answer, with a full window to repeat: no message makes a storm, and a probe is not answered at all."""
    schedule = Schedule(placement=peer.opposite, window=WINDOW, branches=BRANCHES, silences=((Peer.OPENER, 0.5, 1e9),))
    pair = PeerPair(Question(max_tokens=400, end_penalty=60.0), schedule)
    pair.start()
    pair.time.run_to(0.7)
    end = pair.opener if peer is Peer.OPENER else pair.replicas[0]
    position = inside(end).answer.next_position
    ready = Ready(num_contexts=1, constant_weight_level=1000, decode_seconds=0.01, rtt_seconds=0.1)
    for message, most in (
        (Probe(), 0),
        (ready, 0),
        (Resume(next_position=position, last_sequence=0, aggregator=peer.opposite), 2 * MOST_FRAMES + 3),
        (Resume(next_position=0, last_sequence=0, aggregator=peer.opposite), 2 * MOST_FRAMES + 3),
    ):
        for _ in range(50):
            assert len(sent(push(end, message))) <= most
    assert end.closed is None


def test_refusals_without_end_make_the_opener_ask_ever_more_rarely() -> None:
    pair = PeerPair(QUESTION, Schedule(silences=((Peer.OTHER, 0.0, 1e9),)))
    pair.start()
    refused = Refused(reason="later", retry_after_seconds=0.0)
    assert flood(pair.opener, [refused] * 1500) == (1500, "")
    session = inside(pair.opener)
    assert session.timers.next_at == pair.now + session.settings.limits.max_retry
