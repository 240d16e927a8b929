"""The conditions of a DragonDeployment and their finite reasons. `health` decides which conditions hold."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Condition(StrEnum):
    """Types of conditions. Ready summarises the first five."""

    MODEL = "ModelReady"
    TRITON = "TritonReady"
    STORE = "VectorStoreReady"
    BROKER = "BrokerReady"
    CLOUD_PEER = "CloudPeerReady"
    READY = "Ready"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    SUSPENDED = "Suspended"
    EDGES = "EdgesReady"
    DOCUMENTS = "DocumentsLoaded"


PARTS = (Condition.MODEL, Condition.TRITON, Condition.STORE, Condition.BROKER, Condition.CLOUD_PEER)


class Reason(StrEnum):
    """Reasons of conditions and events. docs/operations.md says what to do about each."""

    AVAILABLE = "Available"
    STARTING = "Starting"
    UPDATING = "Updating"
    CRASHING = "Crashing"
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    UNSCHEDULABLE = "Unschedulable"
    VOLUME_PENDING = "VolumePending"
    SECRET_MISSING = "SecretMissing"  # noqa: S105 - the name of a reason
    SECRET_INVALID = "SecretInvalid"  # noqa: S105 - the same
    INVALID_SPEC = "InvalidSpec"
    REJECTED = "Rejected"
    EXTERNAL = "External"
    MODEL_LOADED = "ModelLoaded"
    MODEL_LOADING = "ModelLoading"
    MODEL_UNAVAILABLE = "ModelUnavailable"
    ALL_READY = "AllReady"
    STEADY = "Steady"
    SUSPENDED = "Suspended"
    NO_REPLICAS = "NoReplicas"
    DOCUMENTS_LOADED = "DocumentsLoaded"
    DOCUMENTS_LOADING = "DocumentsLoading"
    DOCUMENTS_FAILED = "DocumentsFailed"
    ALL_CONNECTED = "AllConnected"
    SOME_MISSING = "SomeMissing"
    FLEET_UNREACHABLE = "FleetUnreachable"


@dataclass(frozen=True, slots=True)
class State:
    """One condition as it is now. `is_true` None: it cannot be known."""

    type: Condition
    is_true: bool | None
    reason: Reason
    message: str


def to_status(
    states: Iterable[State], previous: Iterable[dict[str, Any]], *, generation: int, now: dt.datetime
) -> list[dict[str, Any]]:
    """Conditions for a status: the time of a transition stays while a condition's status does."""
    before = tuple(previous)
    return [
        condition(state.type, state.is_true, state.reason, state.message, before, generation=generation, now=now)
        for state in states
    ]


def condition(
    kind: str,
    is_true: bool | None,
    reason: str,
    message: str,
    previous: Iterable[dict[str, Any]],
    *,
    generation: int,
    now: dt.datetime,
) -> dict[str, Any]:
    """One condition for a status that had the `previous` ones."""
    status = {True: "True", False: "False", None: "Unknown"}[is_true]
    old = next((found for found in previous if found["type"] == kind), {})
    return {
        "type": str(kind),
        "status": status,
        "reason": str(reason),
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": old["lastTransitionTime"] if old.get("status") == status else to_time(now),
    }


def to_time(when: dt.datetime) -> str:
    """A time as Kubernetes writes it: UTC, whole seconds."""
    return when.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_time(text: str) -> dt.datetime:
    """The inverse of `to_time`."""
    return dt.datetime.fromisoformat(text)
