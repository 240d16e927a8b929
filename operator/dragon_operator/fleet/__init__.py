"""The operator's end of the fleet: who may connect, who is there, and what is wanted of them.

Knows no Kubernetes, and nothing else of the operator.
"""

from dragon_operator.fleet.enrolment import SignRequest
from dragon_operator.fleet.fleet import Fleet
from dragon_operator.fleet.presence import PresenceReason, PresenceState
from dragon_operator.fleet.values import DesiredDevice, DeviceReport, FleetSummary, Issued, JoinSecret, SyncResult

__all__ = [
    "DesiredDevice",
    "DeviceReport",
    "Fleet",
    "FleetSummary",
    "Issued",
    "JoinSecret",
    "PresenceReason",
    "PresenceState",
    "SignRequest",
    "SyncResult",
]
