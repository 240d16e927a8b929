"""Join tokens: made for a device, kept in its Secret, and what the broker is told of one."""

import base64
import datetime as dt

from dragon_core.errors import OurError
from dragon_core.fleet.join_token import JoinToken
from dragon_operator.devices.device import Device
from dragon_operator.fleet import JoinSecret
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Deployment, Object

GENERATION = f"{names.GROUP}/join-token-generation"
"""On the Secret of a join token: the generation it was made for."""


def join_token(deployment: Deployment, device: Device, *, ca: str, secret: str, now: dt.datetime) -> JoinToken:
    """A new join token."""
    port, enrolment_port = deployment.outer_ports
    expires = now + dt.timedelta(minutes=device.spec.join_token_minutes)
    return JoinToken(
        namespace=device.namespace,
        deployment=deployment.name,
        device=device.name,
        broker_host=deployment.broker_host,
        broker_port=port,
        enrolment_port=enrolment_port,
        ca=ca,
        secret=secret,
        expires=int(expires.timestamp()),
    )


def join_secret_object(device: Device, token: JoinToken) -> Object:
    """The Secret that a fleet operator hands to the device."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": names.join_secret(device.name),
            "namespace": device.namespace,
            "labels": {
                "app.kubernetes.io/name": "dragon",
                names.MANAGED_BY: names.FIELD_MANAGER,
                names.DEVICE: device.name,
            },
            "annotations": {GENERATION: str(device.spec.join_token_generation)},
            "ownerReferences": [names.owner(names.DEVICE_KIND, device.name, device.uid)],
        },
        "type": "Opaque",
        "data": {"token": base64.b64encode(token.encode().encode()).decode()},
    }


def known_join_token(secret: Object | None, device: Device) -> JoinToken | None:
    """The token in a Secret if the spec asks for it; None if a new one must be issued."""
    if secret is None:
        return None
    annotations = secret["metadata"].get("annotations") or {}
    owners = {owner["uid"] for owner in secret["metadata"].get("ownerReferences") or []}
    # A device that was deleted and created again has the same name, and the former Secret may still exist.
    if annotations.get(GENERATION) != str(device.spec.join_token_generation) or device.uid not in owners:
        return None
    try:
        return JoinToken.decode(base64.b64decode(secret["data"]["token"]).decode())
    except (OurError, KeyError, TypeError, ValueError):  # whatever somebody wrote there is replaced
        return None


def open_join(token: JoinToken | None, now: dt.datetime) -> JoinSecret | None:
    """The part of a token that the broker accepts, while the token is valid."""
    if token is None or token.expires <= now.timestamp():
        return None
    return JoinSecret(secret=token.secret, expires=token.expires)
