"""Presence by the operator's clock, and how much of it is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragon_core.fleet.messages import PresenceEvent
from dragon_operator.fleet.presence import PresenceReason, PresenceState, PresenceTable

HEARTBEAT = 15.0
ONE, TWO = "1" * 32, "2" * 32


def table(*devices: str, rate: float = 1000) -> PresenceTable:
    made = PresenceTable(heartbeat_seconds=HEARTBEAT, max_changes_per_second=rate)
    made.track(devices or ("d1",), 0.0)
    return made


def state(made: PresenceTable, now: float) -> tuple[PresenceState, PresenceReason]:
    found = made.presence("d1", now)
    return found.state, found.reason


@pytest.mark.parametrize(
    ("silence", "expected"),
    [
        (0.0, (PresenceState.READY, PresenceReason.HEARTBEAT)),
        (2.99, (PresenceState.READY, PresenceReason.HEARTBEAT)),
        (3.0, (PresenceState.STALE, PresenceReason.HEARTBEAT_LATE)),
        (9.99, (PresenceState.STALE, PresenceReason.HEARTBEAT_LATE)),
        (10.0, (PresenceState.UNREACHABLE, PresenceReason.HEARTBEAT_LOST)),
    ],
)
def test_states_by_missed_heartbeats(silence: float, expected: tuple[PresenceState, PresenceReason]) -> None:
    made = table()
    made.birth("d1", ONE, 0.0)
    made.heartbeat("d1", ONE, 100.0)
    assert state(made, 100.0 + silence * HEARTBEAT) == expected


def test_a_device_that_is_never_heard_of_is_unknown_and_then_unreachable() -> None:
    made = table()
    made.birth("d1", ONE, 0.0)  # retained, and perhaps old
    assert state(made, 9 * HEARTBEAT)[0] is PresenceState.UNKNOWN
    assert made.changes(9 * HEARTBEAT) == []
    assert state(made, 10 * HEARTBEAT) == (PresenceState.UNREACHABLE, PresenceReason.NEVER_SEEN)
    assert made.changes(10 * HEARTBEAT) == ["d1"]


@pytest.mark.parametrize(
    ("event", "reason"),
    [(PresenceEvent.LOST, PresenceReason.CONNECTION_LOST), (PresenceEvent.STOPPED, PresenceReason.STOPPED)],
)
def test_a_death_counts_at_once(event: PresenceEvent, reason: PresenceReason) -> None:
    made = table()
    made.birth("d1", ONE, 0.0)
    made.heartbeat("d1", ONE, 0.0)
    made.death("d1", ONE, event, 1.0)
    assert state(made, 1.0) == (PresenceState.UNREACHABLE, reason)
    made.heartbeat("d1", ONE, 2.0)  # was on its way
    assert state(made, 2.0) == (PresenceState.UNREACHABLE, reason)


def test_a_death_of_an_older_session_is_ignored() -> None:
    made = table()
    made.birth("d1", ONE, 0.0)
    made.heartbeat("d1", ONE, 0.0)
    made.birth("d1", TWO, 1.0)
    made.heartbeat("d1", TWO, 1.0)
    made.death("d1", ONE, PresenceEvent.LOST, 2.0)
    assert state(made, 2.0)[0] is PresenceState.READY


def test_a_daemon_that_connects_again_lives_again() -> None:
    made = table()
    made.birth("d1", ONE, 0.0)
    made.death("d1", ONE, PresenceEvent.LOST, 1.0)
    made.birth("d1", ONE, 2.0)
    made.heartbeat("d1", ONE, 2.0)
    assert state(made, 2.0)[0] is PresenceState.READY


def test_a_lost_broker_says_nothing_of_devices() -> None:
    made = table()
    made.heartbeat("d1", ONE, 0.0)
    made.pause(1.0)
    assert state(made, 1000.0)[0] is PresenceState.READY
    made.resume(1000.0)
    assert state(made, 1000.0 + 2 * HEARTBEAT)[0] is PresenceState.READY
    assert state(made, 1000.0 + 3 * HEARTBEAT)[0] is PresenceState.STALE


def test_changes_are_told_once_and_not_faster_than_the_rate() -> None:
    devices = [f"d{number}" for number in range(100)]
    made = table(*devices, rate=10)
    for device in devices:
        made.heartbeat(device, ONE, 0.0)
    told: list[str] = []
    for second in range(12):
        found = made.changes(float(second))
        assert len(found) <= 10
        told += found
    assert sorted(told) == sorted(devices)


def test_what_became_again_as_it_was_is_not_told() -> None:
    devices = [f"d{number}" for number in range(50)]
    made = table(*devices, rate=10)
    for device in devices:
        made.heartbeat(device, ONE, 0.0)
    for second in range(10):
        made.changes(float(second))
    for device in devices:  # the broker is restarted: all die and are there again
        made.death(device, ONE, PresenceEvent.LOST, 20.0)
    assert len(made.changes(20.0)) == 10
    for device in devices:
        made.birth(device, ONE, 21.0)
        made.heartbeat(device, ONE, 21.0)
    told = [device for second in range(21, 40) for device in made.changes(float(second))]
    assert len(told) == 10  # those whose death was told


def test_a_touch_is_told_and_a_device_that_is_not_watched_is_forgotten() -> None:
    made = table("d1", "d2")
    made.heartbeat("d1", ONE, 0.0)
    assert made.changes(1.0) == ["d1"]
    made.touch("d1")
    made.touch("d2")
    made.touch("d3")
    made.track(["d1"], 2.0)
    assert made.changes(2.0) == ["d1"]
    assert made.changes(3.0) == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["birth", "heartbeat", "lost", "stopped", "pause", "resume", "changes"]),
            st.sampled_from([ONE, TWO]),
            st.floats(0, 60),
        ),
        max_size=60,
    )
)
def test_any_order_of_messages_ends_in_the_same_state_as_its_last_ones(events: list[tuple[str, str, float]]) -> None:
    """Whatever came before: a birth and a heartbeat make a device ready, and its death unreachable."""
    made, now = table(), 0.0
    for kind, session, wait in events:
        now += wait
        match kind:
            case "birth":
                made.birth("d1", session, now)
            case "heartbeat":
                made.heartbeat("d1", session, now)
            case "lost":
                made.death("d1", session, PresenceEvent.LOST, now)
            case "stopped":
                made.death("d1", session, PresenceEvent.STOPPED, now)
            case "pause":
                made.pause(now)
            case "resume":
                made.resume(now)
            case _:
                assert len(made.changes(now)) <= 1
    made.resume(now)
    made.birth("d1", ONE, now)
    made.heartbeat("d1", ONE, now)
    assert state(made, now)[0] is PresenceState.READY
    made.death("d1", ONE, PresenceEvent.LOST, now)
    assert state(made, now)[0] is PresenceState.UNREACHABLE
