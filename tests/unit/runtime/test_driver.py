"""The loop of both ends: what ends it, what it frees, and when it looks at the session. Time is virtual."""

import asyncio
from collections.abc import Sequence

import pytest

from dragon_core import codec
from dragon_core.errors import CapacityError, EngineError
from dragon_core.messages import FinishReason, Open
from dragon_core.session.events import (
    Cancelled,
    Closed,
    Effect,
    EngineFailed,
    Event,
    Received,
    Reconnected,
    SendOpen,
    TimePassed,
)
from dragon_core.session.session import Session
from dragon_core.session.settings import Limits, SessionSettings
from dragon_core.session.unopened import Unopened
from dragon_core.types import Peer
from dragon_runtime.answering.driver import SessionDriver
from dragon_runtime.answering.preparation import Prepared
from dragon_runtime.channel.memory import memory_channel_pair
from dragon_runtime.interfaces import FailureListener, StepListener
from tests.contracts.engine_pair import EnginePair
from tests.fakes.toy_pair import ASKED, ToyPair
from tests.fakes.virtual_loop import run_in_virtual_time


class PunctualSession(Session):
    """Wants to be woken at times it changes its mind about: `then` after each message or wake-up, closed after all."""

    def __init__(self, settings: SessionSettings, *, then: Sequence[float]) -> None:
        super().__init__(Unopened(settings))
        self._first, *self._then = then
        self.woken: list[float] = []

    @property
    def deadline(self) -> float | None:
        return self._first

    def receive(self, event: Event, now: float) -> list[Effect]:
        if isinstance(event, TimePassed):
            self.woken.append(now)
        if not self._then:
            return [Closed(reason=FinishReason.STOP, fault=None, error="", report=None)]
        self._first = self._then.pop(0)
        return []


def test_a_session_is_woken_at_the_time_it_wants_last() -> None:
    async def main() -> None:
        pair = ToyPair()
        # 10 and 30 are taken back by a message: for an earlier time, and for a later one.
        session = PunctualSession(pair.settings[Peer.OTHER], then=[10.0, 2.0, 30.0, 40.0])
        ours, theirs = memory_channel_pair()
        driver = SessionDriver(session, theirs, prepare=pair.preparations[Peer.OTHER].prepare)
        running = asyncio.create_task(driver.run())
        await asyncio.sleep(1)
        ours.send(opened(pair))
        await asyncio.sleep(4)
        ours.send(opened(pair))
        await running
        assert session.woken == [2.0, 40.0]

    run_in_virtual_time(main())


class BrokenSession(Session):
    """Cannot bear time to pass, nor messages."""

    def receive(self, event: Event, now: float) -> list[Effect]:
        if isinstance(event, Received | TimePassed):
            raise ZeroDivisionError
        return super().receive(event, now)


def opened(pair: EnginePair) -> bytes:
    """The frame that asks for the pair's session."""
    _, effects = Session.open(pair.settings[Peer.OPENER], pair.request, now=0.0)
    return next(codec.encode(effect.envelope) for effect in effects if isinstance(effect, SendOpen))


def test_a_defect_in_the_session_ends_run_with_the_exception() -> None:
    async def main() -> None:
        pair = ToyPair()
        ours, theirs = memory_channel_pair()
        prepare = pair.preparations[Peer.OTHER].prepare
        driver = SessionDriver(BrokenSession.await_open(pair.settings[Peer.OTHER]), theirs, prepare=prepare)
        ours.send(opened(pair))
        with pytest.raises(ZeroDivisionError):
            await driver.run()
        assert theirs.received_bytes > 0
        ours.send(b"more")
        await asyncio.sleep(1)
        assert theirs.received_bytes == len(opened(pair))
        pair.require_free()

    run_in_virtual_time(main())


def test_a_defect_while_time_passes_ends_run_and_frees_the_engine() -> None:
    async def main() -> None:
        pair = ToyPair()
        session, effects = BrokenSession.open(pair.settings[Peer.OPENER], pair.request, now=0.0)
        ours, _ = memory_channel_pair()
        driver = SessionDriver(session, ours, prepare=pair.preparations[Peer.OPENER].prepare)
        with pytest.raises(ZeroDivisionError):
            await driver.run(effects)
        assert asyncio.get_running_loop().time() == pytest.approx(Limits().accept(None))
        pair.require_free()

    run_in_virtual_time(main())


def test_a_defect_in_preparing_ends_run_with_the_exception() -> None:
    async def broken(request: Open, *, on_step: StepListener, on_failure: FailureListener) -> Prepared:
        raise LookupError("a defect")

    async def main() -> None:
        pair = ToyPair()
        session, effects = Session.open(pair.settings[Peer.OPENER], pair.request, now=0.0)
        with pytest.raises(LookupError, match="a defect"):
            await SessionDriver(session, memory_channel_pair()[0], prepare=broken).run(effects)

    run_in_virtual_time(main())


@pytest.mark.parametrize("peer", Peer)
def test_an_end_without_room_refuses_and_says_what_failed(peer: Peer) -> None:
    async def main() -> None:
        pair = ToyPair(num_sequences={peer: 1})
        written = await pair.run()
        error = pair.drivers[peer].error
        assert isinstance(error, CapacityError)
        assert (error.requested, error.available) == (4 if peer is Peer.OPENER else 2, 1)
        assert written.closed[peer].error == str(error)
        if peer is Peer.OPENER:
            assert written.tokens == []
        else:
            # It may be tried again, so the opener began alone.
            assert written.closed[Peer.OPENER].reason is FinishReason.LENGTH
            assert len(written.degraded) == ASKED.max_tokens

    run_in_virtual_time(main())


def test_an_engine_that_fails_ends_the_answer_and_is_told() -> None:
    async def main() -> None:
        pair = ToyPair()
        engine = pair.engines[Peer.OPENER]
        pair.acts = {4: engine.fail_all}
        written = await pair.run()
        assert isinstance(pair.drivers[Peer.OPENER].error, EngineError)
        assert written.closed[Peer.OPENER].reason is FinishReason.ERROR
        assert "closed" in written.closed[Peer.OPENER].error
        assert written.closed[Peer.OTHER].reason is FinishReason.ERROR
        pair.require_free()

    run_in_virtual_time(main())


@pytest.mark.parametrize("frame", [b"", b"garbage", b"\x93\x01\x02\x03"])
def test_a_frame_that_is_no_message_ends_the_session(frame: bytes) -> None:
    async def main() -> None:
        pair = ToyPair()
        running = asyncio.create_task(pair.drivers[Peer.OTHER].run())
        pair.channels[Peer.OPENER].send(frame)
        closed = await running
        assert closed.reason is FinishReason.ERROR
        assert closed.error

    run_in_virtual_time(main())


def test_what_comes_after_the_end_changes_nothing() -> None:
    async def main() -> None:
        pair = ToyPair()
        written = await pair.run()
        driver, sent = pair.drivers[Peer.OPENER], pair.channels[Peer.OPENER].sent_bytes
        num_tokens = len(written.tokens)
        for event in (TimePassed(), Cancelled(), Reconnected(), EngineFailed("late")):
            driver.take(event)
        assert (len(written.tokens), pair.channels[Peer.OPENER].sent_bytes) == (num_tokens, sent)

    run_in_virtual_time(main())


def test_an_end_that_hears_nobody_goes_on_alone_when_its_timers_say() -> None:
    async def main() -> None:
        pair = ToyPair()
        pair.set_cut(is_cut=True)
        times: list[float] = []
        pair.acts = {1: lambda: times.append(asyncio.get_running_loop().time())}
        closed = await pair.drivers[Peer.OPENER].run(pair.first_effects)
        # Two Opens, each with its time to be accepted.
        assert times == [pytest.approx(2 * Limits().accept(None))]
        assert closed.reason is FinishReason.LENGTH
        assert pair.written.degraded == set(range(ASKED.max_tokens))
        pair.require_free()

    run_in_virtual_time(main())


def test_an_answer_that_takes_too_long_ends_at_its_deadline() -> None:
    async def main() -> None:
        pair = ToyPair(step_seconds=1000.0)
        written = await pair.run()
        assert asyncio.get_running_loop().time() == pytest.approx(pair.request.deadline_seconds, abs=1.0)
        assert written.closed[Peer.OPENER].reason is FinishReason.ERROR
        assert "deadline" in written.closed[Peer.OPENER].error
        pair.require_free()

    run_in_virtual_time(main())
