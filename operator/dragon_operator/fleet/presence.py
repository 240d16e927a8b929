"""Presence of devices, by the operator's own clock. Pure: the time is an argument, in seconds of a monotonic clock."""

import enum
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from dragon_core.fleet.messages import PresenceEvent

STALE_HEARTBEATS, LOST_HEARTBEATS = 3, 10


class PresenceState(enum.StrEnum):
    """Presence of a device. `UNKNOWN`: no message since the operator's start, and not overdue yet."""

    UNKNOWN = "unknown"
    READY = "ready"
    STALE = "stale"
    UNREACHABLE = "unreachable"


class PresenceReason(enum.StrEnum):
    """Why a device is in its state."""

    NEVER_SEEN = "NeverSeen"
    HEARTBEAT = "Heartbeat"
    HEARTBEAT_LATE = "HeartbeatLate"
    HEARTBEAT_LOST = "HeartbeatLost"
    CONNECTION_LOST = "ConnectionLost"
    STOPPED = "Stopped"


@dataclass(frozen=True, slots=True)
class Presence:
    """State and reason."""

    state: PresenceState
    reason: PresenceReason


@dataclass(slots=True)
class _Device:
    since: float
    """When waiting for its first heartbeat began."""
    session: str = ""
    heard: float | None = None
    death: PresenceEvent | None = None
    told: Presence | None = None


class PresenceTable:
    """Births, deaths and heartbeats of devices, and which changes must be reported."""

    def __init__(self, *, heartbeat_seconds: float, max_changes_per_second: float) -> None:
        self.heartbeat_seconds = heartbeat_seconds
        self._rate = max_changes_per_second
        self._devices: dict[str, _Device] = {}
        self._waiting: dict[str, None] = {}
        self._budget, self._budget_at = max(1.0, max_changes_per_second), 0.0
        self._paused_at: float | None = None

    def __len__(self) -> int:
        return len(self._devices)

    def track(self, devices: Collection[str], now: float) -> None:
        """Watch exactly these devices from now on."""
        for device in devices:
            self._devices.setdefault(device, _Device(now))
        for device in self._devices.keys() - set(devices):
            del self._devices[device]
            self._waiting.pop(device, None)

    def birth(self, device: str, session: str, now: float) -> None:
        """A daemon connected. It is online once its first heartbeat comes: a birth is retained and may be old."""
        known = self._devices.setdefault(device, _Device(now))
        if known.session != session or known.death is not None:
            known.session, known.death, known.heard, known.since = session, None, None, now

    def death(self, device: str, session: str, event: PresenceEvent, now: float) -> None:
        """A daemon said goodbye, or the broker lost it; ignored when another session was born since."""
        known = self._devices.setdefault(device, _Device(now))
        if known.session in ("", session):
            known.session, known.death = session, event

    def heartbeat(self, device: str, session: str, now: float) -> None:
        """A daemon is online; ignored after the death of its session."""
        known = self._devices.setdefault(device, _Device(now))
        if known.session == session and known.death is not None:
            return
        known.session, known.death, known.heard = session, None, now

    def pause(self, now: float) -> None:
        """The broker is not connected: nothing can be heard, and silence says nothing."""
        self._paused_at = now if self._paused_at is None else self._paused_at

    def resume(self, now: float) -> None:
        """The broker is back: the time between did not count."""
        if self._paused_at is None:
            return
        for known in self._devices.values():
            known.since += now - self._paused_at
            known.heard = None if known.heard is None else known.heard + now - self._paused_at
        self._paused_at = None

    def presence(self, device: str, now: float) -> Presence:
        """State of a device; unknown for one that is not watched."""
        known = self._devices.get(device)
        if known is None:
            return Presence(PresenceState.UNKNOWN, PresenceReason.NEVER_SEEN)
        if known.death is not None:
            is_stopped = known.death is PresenceEvent.STOPPED
            reason = PresenceReason.STOPPED if is_stopped else PresenceReason.CONNECTION_LOST
            return Presence(PresenceState.UNREACHABLE, reason)
        now = now if self._paused_at is None else min(now, self._paused_at)
        since = known.since if known.heard is None else known.heard
        num_missed = (now - since) / self.heartbeat_seconds
        if known.heard is None:
            state = PresenceState.UNREACHABLE if num_missed >= LOST_HEARTBEATS else PresenceState.UNKNOWN
            return Presence(state, PresenceReason.NEVER_SEEN)
        if num_missed >= LOST_HEARTBEATS:
            return Presence(PresenceState.UNREACHABLE, PresenceReason.HEARTBEAT_LOST)
        if num_missed >= STALE_HEARTBEATS:
            return Presence(PresenceState.STALE, PresenceReason.HEARTBEAT_LATE)
        return Presence(PresenceState.READY, PresenceReason.HEARTBEAT)

    def touch(self, device: str) -> None:
        """Something else about a device is worth telling."""
        if device in self._devices:
            self._devices[device].told = None
            self._waiting[device] = None

    def changes(self, now: float) -> list[str]:
        """Devices to report, those that wait longest first; no more than the rate allows, the rest at later calls.

        One whose state is again what was told last is left out.
        """
        for device, known in self._devices.items():
            if device not in self._waiting and self._is_news(known, self.presence(device, now)):
                self._waiting[device] = None
        self._budget = min(max(1.0, self._rate), self._budget + (now - self._budget_at) * self._rate)
        self._budget_at = now
        found = []
        for device in tuple(self._waiting):
            if self._budget < 1.0:
                break
            del self._waiting[device]
            known, presence = self._devices[device], self.presence(device, now)
            if known.told == presence:
                continue
            known.told = presence
            self._budget -= 1.0
            found.append(device)
        return found

    def count(self, states: Iterable[PresenceState], now: float) -> dict[PresenceState, int]:
        """How many devices are in each of `states`."""
        counts = dict.fromkeys(states, 0)
        for device in self._devices:
            state = self.presence(device, now).state
            if state in counts:
                counts[state] += 1
        return counts

    @staticmethod
    def _is_news(known: _Device, presence: Presence) -> bool:
        # A device without a message is no news: until one comes, the status keeps what was known before.
        return known.told != presence and presence.state is not PresenceState.UNKNOWN
