"""Every message, and every event of a driver, in every state at both ends: handled, or refused by name; never else."""

from collections.abc import Iterator

import pytest

from dragon_core import codec
from dragon_core.messages import (
    Accepted,
    AnyMessage,
    Draft,
    Envelope,
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
)
from dragon_core.session.events import (
    Cancelled,
    Closed,
    Effect,
    EngineFailed,
    Event,
    Fault,
    MoveAsked,
    Received,
    Reconnected,
    Refuse,
    Send,
    Stepped,
    TimePassed,
)
from dragon_core.session.lifecycle import ARRIVING, SENT, State
from dragon_core.types import Peer
from simulator.oracle import Question
from simulator.peer_pair import PairEnd, PeerPair
from simulator.schedule import Schedule
from tests.unit.core.samples import messages
from tests.unit.core.session.inside import inside, next_position_of, term_of, wire_of

QUESTION = Question(max_tokens=5, end_penalty=60.0)
SAMPLES = messages(PeerPair(QUESTION, Schedule()).open(), position=0)
STATES = [
    *((Peer.OPENER, state) for state in State if state is not State.IDLE),
    *((Peer.OTHER, state) for state in State if state is not State.OPENING),
]
MOST_FRAMES = 2000


def pairs_in(peer: Peer, state: State) -> Iterator[tuple[PeerPair, PairEnd]]:
    """Fresh pairs at the moment one end comes to a state, without end; both placements in turn."""
    placements = (Peer.OPENER, Peer.OTHER)
    for number in range(100_000):
        schedule = Schedule(placement=placements[number % 2], window=3, branches=2, prefill_seconds=(0.03, 0.04))
        pair = PeerPair(QUESTION, schedule)
        pair.start()
        end = pair.opener if peer is Peer.OPENER else pair.replicas[0]
        while end.session.state is not state:
            assert pair.time.advance(until=10.0), f"{peer} is never {state}"
        if state is State.RUNNING:
            pair.time.advance(until=10.0)
        yield pair, end


def push(end: PairEnd, message: AnyMessage, *, term: int = 0, gap: int = 0) -> list[Effect]:
    """Have `message` arrive as the next one from the other end."""
    wire = wire_of(end)
    sequence = (-1 if wire.last_received is None else wire.last_received) + 1 + gap
    envelope = Envelope(term_of(end) + term, sequence, 2**63, 2**64 - 1, 2**32 - 1, message)
    return end.receive(Received(codec.decode(codec.encode(envelope))))


def require_named(effects: list[Effect]) -> None:
    """An end that closes with an error tells the other which field it was."""
    for message in sent(effects):
        if isinstance(message, Failure | Refused):
            assert message.field, "a refusal that names no field"


def sent(effects: list[Effect]) -> list[AnyMessage]:
    return [effect.envelope.message for effect in effects if isinstance(effect, Send)]


def is_closed(effects: list[Effect]) -> bool:
    return any(isinstance(effect, Closed) for effect in effects)


def require_end(pair: PeerPair) -> None:
    """Whatever it was, the user's answer comes to an end, without a storm of frames."""
    pair.finish()
    assert pair.opener.closed is not None
    assert pair.num_frames < MOST_FRAMES


@pytest.mark.parametrize("gap", [0, 7])
@pytest.mark.parametrize(("peer", "state"), STATES)
def test_a_message_is_handled_or_refused(peer: Peer, state: State, gap: int) -> None:
    pairs = pairs_in(peer, state)
    for kind, samples in SAMPLES.items():
        # A frame that seems lost before it makes a difference to what follows, not to each sample.
        for number in range(len(samples)) if gap == 0 else (0, -1):
            pair, end = next(pairs)
            message = messages(pair.open(), position=next_position_of(end))[kind][number]
            is_expected = kind in ARRIVING[peer].get(state, ())
            is_heard = end.session._end.contact.is_bound or kind.__name__ in ("Accepted", "Refused", "Failure")
            effects = push(end, message, gap=gap)
            require_named(effects)
            if state is State.CLOSED:
                assert effects == []
            elif is_heard and not is_expected:
                assert is_closed(effects), f"{kind.__name__} was taken while {state}"
                assert f"{kind.__name__} has no place" in str(end.closed)
                assert any(isinstance(failure, Failure) and failure.field == "message" for failure in sent(effects))
            if gap == 0:
                require_end(pair)


@pytest.mark.parametrize(("peer", "state"), STATES)
def test_a_repeated_message_has_no_effect(peer: Peer, state: State) -> None:
    pairs = pairs_in(peer, state)
    for kind, samples in SAMPLES.items():
        for number in range(0, len(samples), 4):
            pair, end = next(pairs)
            push(end, Probe(), gap=3)
            message = messages(pair.open(), position=next_position_of(end))[kind][number]
            envelope = Envelope(term_of(end), wire_of(end).last_received or 0, 0, None, 0, message)
            if end.session._end.contact.is_bound and kind in ARRIVING[peer].get(state, ()):
                assert end.receive(Received(envelope)) == []


def test_each_end_is_sent_what_only_the_other_may_send() -> None:
    """The table itself, said once more without it."""
    for state in State:
        ours, theirs = (ARRIVING[peer].get(state, ()) for peer in Peer)
        assert Open not in ours
        assert not {Accepted, Refused} & set(theirs)
        for sender in Peer:
            taken = {kind for there in State for kind in ARRIVING[sender.opposite].get(there, ())}
            assert set(SENT[sender].get(state, ())) <= taken, "what is sent, the other end may take"
    assert ARRIVING[Peer.OTHER][State.IDLE] == (Open,)
    for peer in Peer:
        assert State.CLOSED not in ARRIVING[peer]
        for state in (State.PREPARING, State.RUNNING, State.FINISHING):
            shared = {Ready, Draft, Target, MoveRequest, Handover, Resume, Finish, Failure, Probe}
            assert set(ARRIVING[peer][state]) - {Open, Accepted, Refused} == shared


TERMS = [(term, peer, state) for term in (-1, 1, 5) for peer, state in STATES if term > 0 or state is not State.IDLE]
"""Differences to the term of an end; nothing is older than an end that was not asked yet."""


@pytest.mark.parametrize(("term", "peer", "state"), TERMS)
def test_a_message_of_another_term_is_ignored_or_refused(term: int, peer: Peer, state: State) -> None:
    """Only the opener begins terms, with Open or Resume: one that nobody began closes its end."""
    pairs = pairs_in(peer, state)
    for kind in SAMPLES:
        for number in (0,) if state is State.CLOSED else (0, -1):
            pair, end = next(pairs)
            if term < 0:
                inside(end).term.begin_anew()
            message = messages(pair.open(), position=next_position_of(end))[kind][number]
            effects = push(end, message, term=term)
            require_named(effects)
            if term < 0:
                assert effects == []
            elif peer is Peer.OPENER and state is not State.CLOSED:
                assert is_closed(effects)
                assert "was never begun" in str(end.closed)


EVENTS: list[Event] = [
    EngineFailed("out of memory"),
    Refuse(Fault.OURS, "a full disk"),
    Refuse(Fault.OURS, "not now", retry_after_seconds=2.0),
    Refuse(Fault.THEIRS, "garbage", "$[5]"),
    Reconnected(),
    Cancelled(),
    *(MoveAsked(peer, "a reason") for peer in Peer),
    TimePassed(),
]


@pytest.mark.parametrize(("peer", "state"), STATES)
def test_an_event_is_handled(peer: Peer, state: State) -> None:
    pairs = pairs_in(peer, state)
    for event in EVENTS:
        pair, end = next(pairs)
        effects = end.receive(event)
        if state is State.CLOSED:
            assert effects == []
        elif isinstance(event, EngineFailed | Refuse | Cancelled):
            assert is_closed(effects)
        else:
            assert not is_closed(effects)
        require_end(pair)


@pytest.mark.parametrize(("peer", "state"), STATES)
def test_an_answer_to_a_ticket_nobody_asked_for_is_ignored(peer: Peer, state: State) -> None:
    pair, end = next(pairs_in(peer, state))
    step = QUESTION.sequences(peer).step_after([1, 2])
    assert not is_closed(end.receive(Stepped(999, step)))
    require_end(pair)
