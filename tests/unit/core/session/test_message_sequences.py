"""Several messages that make no sense together, in any state, while time goes on: the user's end still ends."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dragon_core.messages import Accepted, Handover, Ready, Refused, Resume, Target
from dragon_core.session.lifecycle import State
from dragon_core.types import Peer
from simulator.oracle import Question
from simulator.peer_pair import PairEnd, PeerPair
from simulator.schedule import Schedule
from tests.unit.core.samples import messages
from tests.unit.core.session.inside import inside, next_position_of
from tests.unit.core.session.test_every_message import SAMPLES, push, require_end, require_named

QUESTION = Question(max_tokens=5, end_penalty=60.0)
KINDS = list(SAMPLES)
pushes = st.tuples(st.sampled_from(KINDS), st.integers(0, 40), st.sampled_from([0, 0, 3]), st.integers(0, 12))
"""A kind of message, which of its samples, how many frames seem lost before it, how many acts pass after it."""


def begun(schedule: Schedule, num_acts: int) -> PeerPair:
    pair = PeerPair(QUESTION, schedule)
    pair.start()
    for _ in range(num_acts):
        pair.time.advance(until=10.0)
    return pair


def push_all(pair: PeerPair, end: PairEnd, arriving: list[tuple[type, int, int, int]]) -> None:
    for kind, number, gap, num_acts in arriving:
        samples = messages(pair.open(), position=next_position_of(end))[kind]
        require_named(push(end, samples[number % len(samples)], gap=gap))
        for _ in range(num_acts):
            pair.time.advance(until=10.0)
    require_end(pair)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(Peer),
    st.integers(0, 40),
    st.lists(pushes, min_size=1, max_size=6),
    st.sampled_from([None, *Peer]),
    st.sampled_from([(0.0, 0.3), (0.3, 0.0), (0.1, 0.1)]),
)
def test_no_sequence_of_messages_breaks_an_end(
    peer: Peer,
    num_acts: int,
    arriving: list[tuple[type, int, int, int]],
    placement: Peer | None,
    prefill: tuple[float, float],
) -> None:
    pair = begun(Schedule(placement=placement, prefill_seconds=prefill, window=3, branches=2), num_acts)
    push_all(pair, pair.opener if peer is Peer.OPENER else pair.replicas[0], arriving)


def test_a_resume_before_anybody_is_ready_is_taken() -> None:
    """Refused for now, the opener is alone; accepted after all, it hears a Resume before either end's Ready."""
    pair = begun(Schedule(prefill_seconds=(5.0, 5.0), silences=((Peer.OTHER, 0.0, 1e9),)), 0)
    end = pair.opener
    push(end, Refused(reason="later", retry_after_seconds=0.5))
    push(end, Accepted(replica="r0", prefill_deadline_seconds=30.0))
    assert end.session.state is State.PREPARING
    assert inside(end).contact.ready is None
    push(end, Resume(next_position=0, last_sequence=0, aggregator=None))
    assert end.closed is None


def test_targets_and_handovers_before_placement_are_not_taken() -> None:
    pair = begun(Schedule(prefill_seconds=(5.0, 5.0)), 0)
    end = pair.opener
    push(end, Accepted(replica="r0", prefill_deadline_seconds=30.0))
    push(end, Target(0, (3,), (None,)))
    push(end, Handover(0, ()))
    assert end.closed is None
    assert pair.tokens == []
    assert end.session.aggregator is None


def test_a_second_ready_changes_weights_but_not_the_placement() -> None:
    pair = begun(Schedule(), 60)
    end = pair.opener
    placed = end.session.aggregator
    assert placed is not None
    push(end, Ready(num_contexts=1, constant_weight_level=-9000, decode_seconds=5.0))
    assert end.session.aggregator is placed
