"""Timers that are due at the same time act by what they mean, not by what they are called."""

from dragon_core.messages import FinishReason
from dragon_core.session.events import Closed, Fault, TimePassed
from dragon_core.session.session import Session
from dragon_core.session.timers import Timer, Timers
from simulator.oracle import Question
from simulator.peer_pair import PeerPair
from simulator.schedule import Schedule


def test_an_answer_past_its_deadline_asks_no_replica_any_more() -> None:
    """Whoever was suspended for long wakes with all of its timers due."""
    pair = PeerPair(Question(), Schedule())
    session, _ = Session.open(pair.settings, pair.open(), now=0.0)
    effects = session.receive(TimePassed(), 1000.0)
    assert [type(effect) for effect in effects] == [Closed]
    (closed,) = effects
    assert isinstance(closed, Closed)
    assert (closed.reason, closed.fault) == (FinishReason.ERROR, Fault.DEADLINE)


def test_due_timers_come_by_priority_and_one_may_stop_or_put_off_another() -> None:
    timers = Timers()
    for at, timer in enumerate(reversed(Timer)):
        timers.set(timer, float(at))
    assert timers.next_at == 0.0
    seen = []
    for timer in timers.take_due(len(Timer) - 1.0):
        seen.append(timer)
        if timer is Timer.ACCEPT:
            timers.stop(Timer.PREFILL)
            timers.set(Timer.RETRY, 1000.0)
    assert seen == [timer for timer in Timer if timer not in (Timer.PREFILL, Timer.RETRY)]
    assert timers.next_at == 1000.0


def test_what_is_not_due_waits() -> None:
    timers = Timers()
    timers.set(Timer.STALL, 2.0)
    timers.set(Timer.NUDGE, 1.0)
    assert list(timers.take_due(1.5)) == [Timer.NUDGE]
    assert timers.next_at == 2.0
    timers.set(Timer.STALL, None)
    assert timers.next_at is None
