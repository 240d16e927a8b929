"""What a message costs an end: steps of the interpreter are counted, for the worst value of every field.

A step is an instruction of Python. Loops in C are not seen: they go over what a bounded message holds, at most 16,384
items or the bytes of its frame, and take less than a millisecond.
"""

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec import inspect

from dragon_core import codec, limits, messages
from dragon_core.distribution import cut, pack
from dragon_core.drafts import OwnFrame
from dragon_core.fleet import messages as fleet
from dragon_core.messages import AnyMessage, Draft, Envelope, Handover, Open, Resume, Target
from dragon_core.session.events import Received, Send
from dragon_core.session.phases.tokens import MAX_FIXED_AT_ONCE
from dragon_core.types import Cut, Peer
from simulator.oracle import Question
from simulator.peer_pair import PairEnd, PeerPair
from simulator.schedule import Schedule
from simulator.toy_engine import TOY_VOCABULARY
from tests.unit.core.samples import messages as samples
from tests.unit.core.session.inside import inside, next_position_of, term_of, wire_of

MAX_STEPS, MAX_STEPS_OF_AN_OPEN = 60_000, 320_000
"""About 2 ms: messages take 20 to 35 ns a step, and the automaton of stop strings, the dearest of an Open, 4 to 7."""
SIZE = len(TOY_VOCABULARY)
LONG = Question(max_tokens=100_000, end_penalty=60.0, stop=tuple(character * 128 for character in "🚂🚃🚄🚅"))
BODY = pack(cut(np.full(SIZE, 1 / SIZE), Cut(max_published_tokens=16)))


def num_steps(act: Callable[[], object]) -> int:
    """How many instructions an act takes."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Callable[..., Any]:
        nonlocal count
        del arg
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


# -- the worst value of every field ----------------------------------------------------------------------------------


def most(kind: inspect.Type, room: int = 900_000) -> Any:
    """The longest, else the largest value of a type, in at most about `room` bytes."""
    match kind:
        case inspect.IntType():
            return int(kind.le if kind.le is not None else 2**64 - 1)
        case inspect.FloatType():
            return float(kind.le if kind.le is not None else 1e300)
        case inspect.StrType() if kind.pattern is not None:
            return "a" * 63
        case inspect.StrType():
            assert kind.max_length is not None, "a text without bound"
            return "\x1b" * min(kind.max_length, room)
        case inspect.BytesType():
            assert kind.max_length is not None, "bytes without bound"
            return bytes(kind.max_length)
        case inspect.VarTupleType():
            assert kind.max_length is not None, "an array without bound"
            return (most(kind.item_type, room // kind.max_length),) * kind.max_length
        case inspect.UnionType():
            return most(next(option for option in kind.types if not isinstance(option, inspect.NoneType)), room)
        case inspect.StructType():
            return kind.cls(**{field.name: most(field.type, room) for field in kind.fields})
        case inspect.BoolType():
            return True
        case inspect.EnumType():
            return list(kind.cls)[-1]
        case inspect.LiteralType():
            return kind.values[-1]
    raise AssertionError(f"no worst value is known of {kind}")


def worst(plain: AnyMessage) -> Iterator[AnyMessage]:
    """A message with each of its fields at its worst in turn, and with all of them."""
    kind = inspect.type_info(type(plain))
    assert isinstance(kind, inspect.StructType)
    values = {field.name: most(field.type) for field in kind.fields}
    for name, value in values.items():
        yield msgspec.structs.replace(plain, **{name: value})
    if len(msgspec.msgpack.encode(values)) < codec.MAX_FRAME_BYTES:
        yield msgspec.structs.replace(plain, **values)


def arrive(end: PairEnd, message: AnyMessage, *, term: int = 0) -> Callable[[], object]:
    """All that the event loop does with a message: its frame is read, answered, and the answers are written."""
    wire = wire_of(end)
    sequence = -1 if wire.last_received is None else wire.last_received
    frame = codec.encode(Envelope(term_of(end) + term, sequence + 1, 0, 2**64 - 1, 2**32 - 1, message))
    assert len(frame) <= codec.MAX_FRAME_BYTES

    def act() -> None:
        for effect in end.session.receive(Received(codec.decode(frame)), end.pair.now):
            if isinstance(effect, Send):
                codec.encode(effect.envelope)

    return act


def busy(peer: Peer, aggregator: Peer, *, until: float = 2.0, window: int = 32) -> PairEnd:
    """An end in mid-answer."""
    pair = PeerPair(LONG, Schedule(placement=aggregator, window=window, branches=2))
    pair.start()
    pair.time.run_to(until)
    return pair.opener if peer is Peer.OPENER else pair.replicas[0]


KINDS = [kind for kind, found in samples(PeerPair(LONG, Schedule()).open(), position=0).items() if found]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("aggregator", Peer)
@pytest.mark.parametrize("peer", Peer)
def test_no_field_makes_a_message_dear(peer: Peer, aggregator: Peer, kind: type) -> None:
    position = next_position_of(busy(peer, aggregator))
    plain = samples(PeerPair(LONG, Schedule(placement=aggregator)).open(), position=position)[kind][0]
    for message in worst(plain):
        end = busy(peer, aggregator)
        steps = num_steps(arrive(end, message, term=1 if kind is Open else 0))
        assert steps < MAX_STEPS, f"{steps} steps for {str(message)[:200]}"


def test_every_message_is_among_them() -> None:
    assert set(KINDS) == set(messages.AnyMessage.__args__)


@pytest.mark.parametrize("kind", KINDS)
def test_no_field_makes_a_first_message_dear(kind: type) -> None:
    """Before anything was opened: an Open, or what comes in its place."""
    request = PeerPair(LONG, Schedule()).open()
    for message in worst(samples(request, position=0)[kind][0]):
        pair = PeerPair(LONG, Schedule())
        steps = num_steps(arrive(pair.replicas[0], message))
        assert steps < (MAX_STEPS_OF_AN_OPEN if kind is Open else MAX_STEPS), f"{steps} steps for {str(message)[:200]}"


# -- what makes sense, and is much -------------------------------------------------------------------------------------


MOST_SETTLED = int(limits.SETTLED_TOKENS.high)
SETTLED = tuple(1 + at % (SIZE - 1) for at in range(MOST_SETTLED))


def test_an_open_in_mid_answer_costs_little_however_much_is_settled() -> None:
    pair = PeerPair(LONG, Schedule())
    request = msgspec.structs.replace(pair.open(), settled=SETTLED, placement=Peer.OPENER)
    assert num_steps(arrive(pair.replicas[0], request)) < MAX_STEPS_OF_AN_OPEN
    assert next_position_of(pair.replicas[0]) == MOST_SETTLED
    for aggregator in Peer:
        end = busy(Peer.OTHER, aggregator)
        known = tuple(inside(end).answer.tokens)
        for settled in (SETTLED, (known + SETTLED)[:MOST_SETTLED], known[:3]):
            request = msgspec.structs.replace(end.pair.open(), settled=settled)
            assert num_steps(arrive(end, request, term=1)) < MAX_STEPS
            assert next_position_of(end) == len(settled)


def test_a_resume_costs_little_however_long_the_answer_is() -> None:
    end = busy(Peer.OTHER, Peer.OTHER)
    inside(end).answer.follow(SETTLED)
    inside(end).ours.drafting.follow(SETTLED, now=end.pair.now)  # type: ignore[union-attr]
    inside(end).settling.theirs.follow(SETTLED)
    for position in (0, 1000):
        message = Resume(next_position=position, last_sequence=0, aggregator=Peer.OTHER)
        assert num_steps(arrive(end, message)) < MAX_STEPS
    message = Resume(next_position=0, last_sequence=0, aggregator=Peer.OPENER, term_position=0)
    assert num_steps(arrive(end, message, term=1)) < MAX_STEPS
    assert next_position_of(end) == 0


@pytest.mark.parametrize("peer", Peer)
def test_a_full_target_costs_little(peer: Peer) -> None:
    end = busy(peer, peer.opposite)
    position = next_position_of(end)
    detail = messages.TargetDetail(500, 700, 9, (messages.TopToken(3, -0.5),) * 20)
    many = int(limits.TARGET_TOKENS.high)
    assert num_steps(arrive(end, Target(position, (3,) * many, (detail,) * many))) < MAX_STEPS
    assert next_position_of(end) == position + many


def test_frames_that_fix_much_at_once_cost_little() -> None:
    """A Handover with frames for everything that we have drafted ahead."""
    pair = PeerPair(LONG, Schedule(window=64, delay_seconds=0.2, silences=((Peer.OPENER, 1.0, 9.0),)))
    pair.start()
    pair.time.run_to(1.3)
    end = pair.opener
    assert end.session.aggregator is Peer.OTHER
    position = next_position_of(end)
    ours = inside(end).ours
    assert ours is not None
    frames = ours.drafting.tree.live_frames()[: int(limits.HANDED_DRAFTS.high)]
    assert len(frames) > MAX_FIXED_AT_ONCE
    drafts = [
        Draft(at, at - 1 if at else None, frame.via if at else None, frame.position, None, 0, frame_body(frame))
        for at, frame in enumerate(frames)
    ]
    assert num_steps(arrive(end, Handover(position, tuple(drafts)))) < MAX_STEPS
    at_once = next_position_of(end) - position
    assert 0 < at_once <= MAX_FIXED_AT_ONCE
    pair.time.run_to(pair.now + 0.001)
    assert next_position_of(end) - position > at_once, "the rest follows"


def frame_body(frame: OwnFrame) -> bytes:
    """What the other end sends if it thinks as we do."""
    assert frame.step is not None
    return pack(frame.step.published.distribution)


def test_a_full_handover_costs_little() -> None:
    pair = PeerPair(LONG, Schedule(window=256, branches=16, decode_seconds=(500.0, 500.0)))
    pair.start()
    pair.time.run_to(2.0)
    end = next(end for end in (pair.opener, pair.replicas[0]) if end.session.aggregator is not end.peer)
    position = next_position_of(end)
    many = int(limits.HANDED_DRAFTS.high)
    drafts = tuple(Draft(n, n - 1 if n else None, 3 if n else None, position + n, None, 0, BODY) for n in range(many))
    assert num_steps(arrive(end, Handover(position, drafts))) < MAX_STEPS
    assert len(inside(end).settling.theirs) == many


def test_every_field_of_a_fleet_message_has_a_bound() -> None:
    """Their frames have at most 16 KiB, and reading one is a loop in C: `most` asks for the rest."""
    for kind in fleet.Message.__args__:
        most(inspect.type_info(kind))
    assert fleet.MAX_MESSAGE_BYTES <= 16 * 1024
