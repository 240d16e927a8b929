"""The sessions of one replica: many at once, refusals, bad frames, defects, and draining."""

import asyncio

import msgspec
import pytest

from dragon_core.messages import Accepted, Counters, Failure, Finish, FinishReason, Open, Probe, Refused, Target
from dragon_core.session.events import Closed, Report
from tests.fakes.engine import WritingEngine
from tests.fakes.replica import Device, Replica, Stranger, open_of

pytestmark = pytest.mark.timeout(30)

TEXT = b"One two three four five six seven eight"


def report_of(closed: Closed) -> Report:
    assert closed.report is not None
    return closed.report


def opened(replica: Replica) -> tuple[Stranger, bytes]:
    """Somebody whose Open is right, and the frame of it."""
    stranger = Stranger(replica)
    return stranger, stranger.frame_of(open_of(Device(replica).preparation))


async def test_many_sessions_are_served_at_once() -> None:
    replica = Replica()
    devices = [Device(replica) for _ in range(8)]
    for device, closed in zip(devices, await asyncio.gather(*(d.ask() for d in devices)), strict=True):
        assert (closed.reason, device.text) == (FinishReason.STOP, TEXT)
        assert (report_of(closed).num_degraded, report_of(closed).num_mixed) == (0, 9)
    await replica.worker.drain(10)
    assert replica.worker.num_sessions == 0
    assert replica.engine.num_free == replica.engine.num_sequences
    assert replica.sample("answers_total", reason="stop") == 8
    assert replica.sample("open_sessions") == 0


async def test_more_sessions_than_allowed_are_refused_with_a_time_to_come_back() -> None:
    replica = Replica(max_sessions=2)
    replica.engine.hold()
    for _ in range(2):
        stranger, frame = opened(replica)
        stranger.knock(frame)
        assert isinstance((await stranger.answer()).message, Accepted)
    third, frame = opened(replica)
    third.knock(frame)
    refusal = (await third.answer()).message
    assert isinstance(refusal, Refused)
    assert refusal.reason == "2 of 2 sessions are open"
    assert refusal.retry_after_seconds == 1.0
    assert not third.theirs.is_open
    assert replica.worker.num_sessions == 2
    await replica.worker.drain(0)


async def test_a_device_that_is_refused_is_let_in_when_there_is_room() -> None:
    replica = Replica(max_sessions=1)
    stranger, frame = opened(replica)
    stranger.knock(frame)
    await replica.engine.asked.wait()
    device = Device(replica)
    device.engine.hold()
    asking = asyncio.create_task(device.ask())
    await device.channel.arrived.wait()
    assert device.channel.theirs is not None
    assert not device.channel.theirs.is_open
    replica.engine.opened.clear()
    stranger.ours.send(stranger.frame_of(Finish(reason=FinishReason.CANCELLED, counters=Counters())))
    await replica.engine.opened.wait()
    for _ in range(100):  # turns of the loop, in which the replica's Ready reaches the device
        await asyncio.sleep(0)
    device.engine.release()
    closed = await asking
    assert (closed.reason, device.text) == (FinishReason.STOP, TEXT)
    assert report_of(closed).num_mixed > 0


async def test_a_device_that_is_refused_answers_alone() -> None:
    device = Device(Replica(max_sessions=0))
    closed = await device.ask()
    assert (closed.reason, device.text) == (FinishReason.STOP, TEXT)
    assert report_of(closed).num_degraded == 9


@pytest.mark.parametrize("frame", [b"", b"garbage", b"\xc1", b"\x93\x01\x02\x03", b"x" * 2_000_000])
async def test_bytes_that_are_no_message_are_refused(frame: bytes) -> None:
    replica = Replica()
    stranger = Stranger(replica)
    stranger.knock(frame)
    refusal = (await stranger.answer()).message
    assert isinstance(refusal, Refused)
    assert refusal.retry_after_seconds is None
    assert not stranger.theirs.is_open
    assert replica.worker.num_sessions == 0
    assert report_of(await Device(replica).ask()).num_degraded == 0


async def test_a_session_cannot_begin_with_another_message() -> None:
    replica = Replica()
    stranger = Stranger(replica)
    stranger.knock(stranger.frame_of(Target(0, (1,), (None,))))
    failure = (await stranger.answer()).message
    assert isinstance(failure, Failure)
    assert failure.field == "message"
    await replica.worker.drain(10)


async def test_ends_that_differ_are_told_the_field_and_both_values() -> None:
    replica = Replica()

    def change(request: Open) -> Open:
        fingerprint = msgspec.structs.replace(request.fingerprint, nucleus=0.5)
        return msgspec.structs.replace(request, fingerprint=fingerprint)

    closed = await Device(replica, change=change).ask()
    assert closed.reason is FinishReason.ERROR
    for told in ("nucleus", "0.5", "0.99"):
        assert told in closed.error
    await replica.worker.drain(10)
    assert replica.engine.num_free == replica.engine.num_sequences


async def test_a_bad_frame_ends_its_session_and_no_other() -> None:
    replica = Replica()
    replica.engine.hold()
    stranger, frame = opened(replica)
    stranger.knock(frame)
    other = Device(replica)
    asking = asyncio.create_task(other.ask())
    await replica.engine.asked.wait()
    stranger.ours.send(b"garbage")
    while not isinstance((await stranger.answer()).message, Failure | Refused):
        pass
    replica.engine.release()
    assert report_of(await asking).num_degraded == 0
    await replica.worker.drain(10)
    assert replica.engine.num_free == replica.engine.num_sequences
    assert replica.sample("answers_total", reason="error") == 1


async def test_a_probe_is_answered_and_takes_no_session() -> None:
    replica = Replica(max_sessions=0)
    stranger = Stranger(replica)
    stranger.knock(stranger.frame_of(Probe()))
    answered = await stranger.answer()
    assert isinstance(answered.message, Probe)
    assert answered.echo_ms is not None
    assert replica.worker.num_sessions == 0
    assert not stranger.theirs.is_open


async def test_an_engine_without_room_refuses_with_a_time_to_come_back() -> None:
    replica = Replica(engine=WritingEngine(num_sequences=3))
    stranger, frame = opened(replica)
    stranger.knock(frame)
    while not isinstance(refusal := (await stranger.answer()).message, Refused):
        pass
    assert "4 of 3" in refusal.reason
    assert refusal.retry_after_seconds is not None
    await replica.worker.drain(10)
    assert replica.engine.num_free == 3


async def test_a_defect_in_one_session_leaves_the_others_alone(caplog: pytest.LogCaptureFixture) -> None:
    replica = Replica()
    replica.engine.hold()
    stranger, frame = opened(replica)
    stranger.knock(frame)
    await replica.engine.asked.wait()
    other = Device(replica)
    asking = asyncio.create_task(other.ask())
    replica.engine.sessions[0].is_broken = True
    replica.engine.release()
    closed = await asking
    assert (closed.reason, other.text, report_of(closed).num_degraded) == (FinishReason.STOP, TEXT, 0)
    await replica.worker.drain(10)
    assert "a session broke" in caplog.text
    assert "a defect" in caplog.text
    assert replica.engine.num_free == replica.engine.num_sequences
    assert replica.sample("open_sessions") == 0


async def test_draining_lets_sessions_finish_and_takes_no_more() -> None:
    replica = Replica()
    replica.engine.hold()
    device = Device(replica)
    asking = asyncio.create_task(device.ask())
    await replica.engine.asked.wait()
    draining = asyncio.create_task(replica.worker.drain(20))
    await asyncio.sleep(0)
    late, frame = opened(replica)
    late.knock(frame)
    refusal = (await late.answer()).message
    assert isinstance(refusal, Refused)
    assert "going away" in refusal.reason
    assert refusal.retry_after_seconds is not None
    assert not draining.done()
    replica.engine.release()
    await draining
    closed = await asking
    assert (closed.reason, device.text, report_of(closed).num_degraded) == (FinishReason.STOP, TEXT, 0)


async def test_draining_hands_back_what_does_not_finish() -> None:
    replica = Replica()
    replica.engine.hold()
    device = Device(replica)
    asking = asyncio.create_task(device.ask())
    await replica.engine.asked.wait()
    await replica.worker.drain(0)
    assert replica.worker.num_sessions == 0
    assert replica.engine.num_free == replica.engine.num_sequences
    closed = await asking
    assert (closed.reason, device.text) == (FinishReason.STOP, TEXT)
    assert report_of(closed).num_degraded == 9
    assert replica.sample("answers_total", reason="cancelled") == 1


async def test_a_replica_without_sessions_drains_at_once() -> None:
    await Replica().worker.drain(1000)
