"""Inputs and outputs of a fleet."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

from dragon_core.fleet.messages import Configuration, LinkReport, Reported, secret_digest
from dragon_operator.fleet.presence import PresenceReason, PresenceState

NOTHING_SET = Configuration()


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinSecret:
    """The secret of a join token, and when it ends in Unix seconds."""

    secret: str = field(repr=False)
    expires: int

    @property
    def digest(self) -> str:
        return secret_digest(self.secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredDevice:
    """The desired state of one device. `join` stays until the token was used or has expired."""

    name: str
    is_revoked: bool = False
    join: JoinSecret | None = None
    configuration: Configuration = NOTHING_SET


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate that is about to be delivered. `join_digest` is empty for a renewal."""

    device: str
    serial_number: str
    expires: dt.datetime
    join_digest: str

    @property
    def is_renewal(self) -> bool:
        return not self.join_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReport:
    """Everything known of a device now. `last_seen` is by the operator's clock."""

    device: str
    presence: PresenceState
    reason: PresenceReason
    last_seen: dt.datetime | None
    reported: Reported | None
    link: LinkReport | None
    is_joined: bool
    """No join token is open: it was used, or there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSummary:
    """Devices by presence, and means over those that are ready; None where nothing was measured."""

    ready: int
    stale: int
    unreachable: int
    unknown: int
    hit_rate: float | None
    rtt_seconds: float | None
    edge_placements: int
    cloud_placements: int

    @property
    def total(self) -> int:
        return self.ready + self.stale + self.unreachable + self.unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResult:
    """The result of a sync. `problems` are devices that could not be served, with the reason."""

    num_changes: int
    problems: Mapping[str, str]
