"""An EdgeDevice as it was read, and its status as data. Pure: `device_statuses` writes, `device_sync` acts."""

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dragon_core.fleet.join_token import JoinToken
from dragon_operator.fleet import DeviceReport, Issued, PresenceReason, PresenceState
from dragon_operator.look.conditions import condition, from_time, to_time
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Object
from dragon_operator.wanted.spec import DeviceSpec, parse_device
from dragon_runtime.settings.spellings import resource_value

PRESENCE_MESSAGES = {
    PresenceReason.NEVER_SEEN: "the device has never connected: run `dragon-edge run` on it",
    PresenceReason.HEARTBEAT: "the device is online",
    PresenceReason.HEARTBEAT_LATE: "no message for three heartbeats",
    PresenceReason.HEARTBEAT_LOST: "no message for ten heartbeats: run `dragon-edge status` on the device",
    PresenceReason.CONNECTION_LOST: "the connection broke: check power, network and `dragon-edge status` on the device",
    PresenceReason.STOPPED: "the daemon was stopped: start it with `dragon-edge run` on the device",
}


class DeviceCondition(StrEnum):
    """Types of a device's conditions."""

    READY = "Ready"
    ENROLLED = "Enrolled"
    CONFIGURED = "ConfigurationApplied"


class DeviceReason(StrEnum):
    """Reasons of a device; `dragon_operator.fleet` has those of presence. docs/operations.md explains each."""

    CERTIFICATE_ISSUED = "CertificateIssued"
    BROKER_UNREACHABLE = "BrokerUnreachable"
    TOKEN_WAITING = "TokenWaiting"  # noqa: S105 - the name of a reason
    TOKEN_EXPIRED = "TokenExpired"  # noqa: S105 - the same
    CERTIFICATE_EXPIRED = "CertificateExpired"
    REVOKED = "Revoked"
    DEPLOYMENT_MISSING = "DeploymentMissing"
    INVALID_SPEC = "InvalidSpec"
    APPLIED = "Applied"
    PENDING = "Pending"
    RESTART_NEEDED = "RestartNeeded"
    NOT_APPLICABLE = "NotApplicable"


@dataclass(frozen=True)
class Device:
    """One EdgeDevice as it was read."""

    name: str
    namespace: str
    uid: str
    generation: int
    spec: DeviceSpec
    status: dict[str, Any]

    @classmethod
    def from_object(cls, obj: Object) -> "Device":
        """Raises:
        SettingsError: the spec is invalid.
        """
        metadata = obj["metadata"]
        return cls(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata["uid"],
            generation=metadata["generation"],
            spec=parse_device(obj["spec"]),
            status=obj.get("status") or {},
        )

    @property
    def certificate(self) -> dict[str, Any]:
        """The certificate in the status."""
        return self.status.get("certificate") or {}

    @property
    def is_token_used(self) -> bool:
        """Whether the join token that the spec asks for has been used."""
        return bool(self.certificate.get("joinTokenGeneration") == self.spec.join_token_generation)

    def revoked_numbers(self) -> set[str]:
        """Serial numbers of the device's certificates that must be refused."""
        numbers = set(self.status.get("revokedCertificates") or [])
        if self.spec.revoked and (number := self.certificate.get("serialNumber")):
            numbers.add(number)
        return numbers


def enrolment_status(
    device: Device, token: JoinToken | None, now: dt.datetime, *, problem: str | None = None
) -> dict[str, Any]:
    """The part of the status about tokens and certificates; `problem`: why the broker is not configured yet."""
    status: dict[str, Any] = {}
    certificate = device.certificate
    if token is not None:
        status["joinToken"] = {
            "secretName": names.join_secret(device.name),
            "generation": device.spec.join_token_generation,
            "expires": to_time(dt.datetime.fromtimestamp(token.expires, dt.UTC)),
        }
    elif device.is_token_used:
        status["joinToken"] = None
    if device.spec.revoked:
        message = (
            "spec.revoked is true: the broker refuses the device; "
            "set it to false and increase spec.joinTokenGeneration to enrol it again"
        )
        status["revokedCertificates"] = sorted(device.revoked_numbers())
        enrolled = (False, DeviceReason.REVOKED, message)
    elif device.is_token_used:
        expires = from_time(certificate["expires"])
        if expires <= now:
            message = (
                f"the certificate expired on {certificate['expires']}: "
                "increase spec.joinTokenGeneration and enrol the device again"
            )
            enrolled = (False, DeviceReason.CERTIFICATE_EXPIRED, message)
        else:
            message = f"the certificate is valid until {certificate['expires']}; the device renews it before that"
            enrolled = (True, DeviceReason.CERTIFICATE_ISSUED, message)
    elif problem is not None:
        enrolled = (False, DeviceReason.BROKER_UNREACHABLE, f"the broker is not configured yet: {problem}")
    elif token is not None and token.expires > now.timestamp():
        secret = names.join_secret(device.name)
        message = f"run `dragon-edge join TOKEN` on the device with the token from Secret {secret}, key token"
        enrolled = (False, DeviceReason.TOKEN_WAITING, message)
    else:
        message = "the join token expired unused: increase spec.joinTokenGeneration to issue a new one"
        enrolled = (False, DeviceReason.TOKEN_EXPIRED, message)
    status["conditions"] = [_condition(device, DeviceCondition.ENROLLED, *enrolled, now=now)]
    return status


def presence_status(device: Device, report: DeviceReport, wanted: str, now: dt.datetime) -> dict[str, Any]:
    """The part of the status that the device reported; `wanted` is the version of its desired configuration."""
    status: dict[str, Any] = {}
    is_ready = report.presence is PresenceState.READY
    conditions = []
    if report.presence is not PresenceState.UNKNOWN:
        message = PRESENCE_MESSAGES[report.reason]
        conditions.append(_condition(device, DeviceCondition.READY, is_ready, report.reason, message, now=now))
    if report.last_seen is not None:
        status["lastSeen"] = to_time(report.last_seen)
    if (reported := report.reported) is not None:
        status["daemonVersion"], status["model"] = reported.daemon_version, reported.model
        status["vocabulary"] = reported.vocabulary
        status["configurationVersion"] = {
            "desired": wanted,
            "observed": reported.observed,
            "applied": reported.applied,
        }
        if reported.error:
            applied = (False, DeviceReason.NOT_APPLICABLE, f"{reported.error}; correct spec.configuration")
        elif reported.needs_restart:
            applied = (False, DeviceReason.RESTART_NEEDED, "the device downloads the model, then restarts with it")
        elif reported.applied == wanted:
            applied = (True, DeviceReason.APPLIED, f"version {wanted}")
        else:
            applied = (
                False,
                DeviceReason.PENDING,
                "the device has not applied the configuration yet; it will when it is online",
            )
        conditions.append(_condition(device, DeviceCondition.CONFIGURED, *applied, now=now))
    if (link := report.link) is not None:
        status["link"] = {
            "rttSeconds": _number(link.rtt_seconds, 4),
            "jitterSeconds": _number(link.jitter_seconds, 4),
            "loss": _number(link.loss, 4),
        }
        peer = None if link.placement is None else resource_value(link.placement)
        status["placement"] = {"peer": peer, "reason": link.placement_reason or None}
        status["traffic"] = {
            "hitRate": _number(link.hit_rate, 2),
            "tokens": link.tokens,
            "degradedAnswers": link.degraded_answers,
        }
    status["conditions"] = conditions
    return status


def issued_status(device: Device, issued: Issued) -> dict[str, Any]:
    """The part of the status about a certificate."""
    certificate: dict[str, Any] = {"serialNumber": issued.serial_number, "expires": to_time(issued.expires)}
    if not issued.is_renewal:
        certificate["joinTokenGeneration"] = device.spec.join_token_generation
    status: dict[str, Any] = {"certificate": certificate}
    former = device.certificate.get("serialNumber")
    if not issued.is_renewal and former:
        # Enrolled again: the holder of the former key no longer counts as this device.
        numbers = {*(device.status.get("revokedCertificates") or []), former}
        status["revokedCertificates"] = sorted(numbers)
    return status


def missing_deployment_status(device: Device, message: str, now: dt.datetime) -> dict[str, Any]:
    """The status of a device without a deployment."""
    reason = DeviceReason.DEPLOYMENT_MISSING
    return {"conditions": [_condition(device, DeviceCondition.READY, False, reason, message, now=now)]}


def refused_status(obj: Object, message: str, now: dt.datetime) -> dict[str, Any]:
    """The status of an EdgeDevice whose spec is invalid: the device continues unchanged."""
    generation, before = obj["metadata"]["generation"], (obj.get("status") or {}).get("conditions") or []
    kind, reason = DeviceCondition.CONFIGURED, DeviceReason.INVALID_SPEC
    found = condition(kind, False, reason, message, before, generation=generation, now=now)
    return {
        "observedGeneration": generation,
        "conditions": [*(other for other in before if other["type"] != kind), found],
    }


def merged(device: Device, *parts: dict[str, Any]) -> dict[str, Any]:
    """A whole status from parts: conditions that are in no part stay unchanged."""
    conditions = {found["type"]: found for found in device.status.get("conditions") or []}
    status: dict[str, Any] = {"observedGeneration": device.generation}
    for part in parts:
        for found in part.get("conditions") or []:
            conditions[found["type"]] = found
        status |= {key: value for key, value in part.items() if key != "conditions"}
    status["conditions"] = [conditions[kind] for kind in sorted(conditions)]
    return status


def _condition(
    device: Device, kind: DeviceCondition, is_true: bool, reason: str, message: str, *, now: dt.datetime
) -> dict[str, Any]:
    previous = device.status.get("conditions") or []
    return condition(kind, is_true, reason, message, previous, generation=device.generation, now=now)


def _number(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"
