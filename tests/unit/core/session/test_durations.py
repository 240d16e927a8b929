"""Durations that the other end names: none is believed beyond our own limit, whatever waits for it."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragon_core import codec
from dragon_core.limits import MAX_DEADLINE_SECONDS, MAX_DECODE_SECONDS, MAX_RETRY_AFTER_SECONDS, MAX_RTT_SECONDS
from dragon_core.link import LinkEstimate
from dragon_core.messages import Accepted, AnyMessage, Envelope, Failure, Open, Probe, Ready, Refused
from dragon_core.session.settings import Limits
from dragon_core.types import Peer
from dragon_core.wire import Wire
from simulator.oracle import Question
from simulator.peer_pair import PeerPair
from simulator.schedule import Schedule
from tests.unit.core.session.inside import inside

DAY = 86_400.0
LONG = Question(max_tokens=60, end_penalty=60.0)
NEVER = 1e6
ROUNDING_SECONDS = 0.01


def telling(sender: Peer, **values: object) -> Callable[[Peer, bytes], list[bytes]]:
    """The sender's messages with other values in the fields of these names, of its envelopes too."""

    def tell(peer: Peer, frame: bytes) -> list[bytes]:
        if peer is not sender:
            return [frame]
        envelope = codec.decode(frame)
        message = envelope.message
        found = {name: value for name, value in values.items() if name in message.__struct_fields__}
        outside = {name: value for name, value in values.items() if name in envelope.__struct_fields__}
        changed: AnyMessage = msgspec.structs.replace(message, **found)
        return [codec.encode(msgspec.structs.replace(envelope, message=changed, **outside))]

    return tell


def ran(schedule: Schedule, **told: object) -> PeerPair:
    """A finished answer of which the other end tells these values."""
    pair = PeerPair(LONG, schedule, damage=telling(Peer.OTHER, **told))
    pair.run()
    assert len(pair.tokens) == LONG.max_tokens
    return pair


def first_alone_at(pair: PeerPair) -> float:
    return min(at for emit, at in zip(pair.emitted, pair.emitted_at, strict=True) if emit.is_degraded)


def test_a_replica_that_is_never_ready_is_waited_for_as_long_whatever_it_promised() -> None:
    schedule = Schedule(prefill_seconds=(0.1, NEVER))
    honest, hostile = ran(schedule), ran(schedule, prefill_deadline_seconds=DAY)
    assert first_alone_at(hostile) == first_alone_at(honest) < Limits().prefill_deadline + 1


def test_a_replica_that_promises_less_is_taken_at_its_word() -> None:
    assert first_alone_at(ran(Schedule(prefill_seconds=(0.1, NEVER)), prefill_deadline_seconds=2.0)) < 3


@pytest.mark.parametrize("placement", [None, *Peer])
@pytest.mark.parametrize("silent_at", [0.35, 0.7])
def test_a_replica_that_names_a_day_for_a_step_and_is_silent_is_waited_for_seconds(
    silent_at: float, placement: Peer | None
) -> None:
    schedule = Schedule(placement=placement, silences=((Peer.OTHER, silent_at, NEVER),))
    stall = Limits().stall(MAX_RTT_SECONDS, MAX_DECODE_SECONDS)
    assert stall == 14
    told = {"decode_seconds": DAY, "echo_ms": 0, "hold_ms": 0}
    assert first_alone_at(ran(schedule, **told)) < silent_at + 2 * schedule.delay_seconds + stall


def test_a_replica_that_is_back_is_not_waited_for_without_end_either() -> None:
    """Its frames are waited for at `mix_position`; then the opener goes on again."""
    schedule = Schedule(
        placement=Peer.OPENER, silences=((Peer.OTHER, 0.5, 3.0),), decode_seconds=(0.01, 0.5), fed_token_seconds=NEVER
    )
    pair = ran(schedule, decode_seconds=DAY)
    gaps = [after - before for before, after in zip(pair.emitted_at, pair.emitted_at[1:], strict=False)]
    assert max(gaps) < 14 + 8


@pytest.mark.parametrize("decode_seconds", [(DAY, DAY), (DAY, 0.02), (0.02, DAY), (DAY, 1.0), (1.0, 2.0), (0.0, DAY)])
def test_both_ends_place_the_aggregator_alike(decode_seconds: tuple[float, float]) -> None:
    """Also where such a step is told in earnest: what is believed of it is a rule of the protocol."""
    pair = PeerPair(LONG, Schedule(decode_seconds=decode_seconds, prefill_seconds=(0.3, 0.3)))
    pair.start()
    pair.time.run_to(0.45)
    assert pair.opener.session.aggregator is pair.replicas[0].session.aggregator is not None


@pytest.mark.parametrize("told", [MAX_RETRY_AFTER_SECONDS, DAY])
def test_a_refusal_for_now_is_no_refusal_for_a_day(told: float) -> None:
    schedule = Schedule(full_until=20.0, retry_after_seconds=told, decode_seconds=(2.0, 0.01))
    pair = PeerPair(LONG, schedule)
    pair.start()
    pair.time.run_to(199.0)
    opens = [at for at, (_, message) in zip(pair.sent_at, pair.messages, strict=True) if isinstance(message, Open)]
    refused = next(at for at, (_, sent) in zip(pair.sent_at, pair.messages, strict=True) if isinstance(sent, Refused))
    asked_again = next(at for at in opens if at > refused)
    assert asked_again == pytest.approx(refused + schedule.delay_seconds + MAX_RETRY_AFTER_SECONDS)


def test_an_opener_cannot_have_a_session_for_a_day() -> None:
    pair = PeerPair(LONG, Schedule(prefill_seconds=(NEVER, 0.1)), damage=telling(Peer.OPENER, deadline_seconds=DAY))
    pair.start()
    pair.time.run_to(1.0)
    timers = inside(pair.replicas[0]).timers
    deadlines = [at for at in timers._times.values() if at > 300]
    assert deadlines == [pytest.approx(pair.schedule.delay_seconds + MAX_DEADLINE_SECONDS)]


# -- the round trip --------------------------------------------------------------------------------------------------


def answered(echo_ms: int | None, hold_ms: int, *, sent_at: tuple[float, ...], now: float) -> float | None:
    """The round trip that is measured of an answer to what was sent at these times."""
    wire = Wire(link := LinkEstimate())
    for at in sent_at:
        wire.seal(Probe(), now=at)
    wire.unseal(Envelope(0, 0, 5, echo_ms, hold_ms, Probe()), now)
    return link.rtt_seconds


@pytest.mark.parametrize(
    ("echo_ms", "hold_ms", "expected"),
    [
        pytest.param(10_000, 0, 0.5, id="the first sent"),
        pytest.param(10_200, 100, 0.2, id="the last sent"),
        pytest.param(10_200, 301, 0.0, id="a rounded hold"),
        pytest.param(None, 0, None, id="no echo"),
        pytest.param(9_999, 0, None, id="before the first sent"),
        pytest.param(0, 0, None, id="the beginning of time"),
        pytest.param(10_201, 0, None, id="not sent yet"),
        pytest.param(2**64 - 1, 2**32 - 1, None, id="the end of time"),
        pytest.param(10_200, 400, None, id="held longer than it is ago"),
        pytest.param(10_200, 2**32 - 1, None, id="held for weeks"),
    ],
)
def test_an_echo_of_what_was_never_sent_is_no_sample(echo_ms: int | None, hold_ms: int, expected: float | None) -> None:
    found = answered(echo_ms, hold_ms, sent_at=(10.0, 10.2), now=10.5)
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-9))


def test_before_anything_was_sent_nothing_is_measured() -> None:
    assert answered(3, 1, sent_at=(), now=5.0) is None


@given(st.integers(0, 2**64 - 1) | st.integers(9_000, 60_000), st.integers(0, 2**32 - 1) | st.integers(0, 60_000))
def test_no_sample_is_longer_than_the_limit(echo_ms: int, hold_ms: int) -> None:
    found = answered(echo_ms, hold_ms, sent_at=(10.0, 59.0), now=60.0)
    assert found is None or 0 <= found <= MAX_RTT_SECONDS


def test_poisoned_echoes_do_not_change_when_the_opener_goes_on_alone() -> None:
    schedule = Schedule(silences=((Peer.OTHER, 0.6, NEVER),))
    honest = ran(schedule)
    for echo_ms, hold_ms in ((2**64 - 1, 0), (50, 2**32 - 1)):
        hostile = ran(schedule, echo_ms=echo_ms, hold_ms=hold_ms)
        assert first_alone_at(hostile) <= first_alone_at(honest) + ROUNDING_SECONDS


def test_what_is_told_is_what_is_sent() -> None:
    """The helper of these tests: it changes fields and nothing else."""
    frame = codec.encode(Envelope(1, 2, 3, 4, 5, Accepted(replica="r", prefill_deadline_seconds=1.0)))
    (changed,) = telling(Peer.OTHER, prefill_deadline_seconds=DAY, hold_ms=9)(Peer.OTHER, frame)
    expected = Envelope(1, 2, 3, 4, 9, Accepted(replica="r", prefill_deadline_seconds=DAY))
    assert codec.decode(changed) == expected
    for message in (Ready(num_contexts=1, constant_weight_level=None, decode_seconds=0.1), Failure(reason="")):
        frame = codec.encode(Envelope(1, 2, 3, 4, 5, message))
        assert telling(Peer.OTHER, prefill_deadline_seconds=DAY)(Peer.OTHER, frame) == [frame]
