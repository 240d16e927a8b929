"""Secrets as plain objects: those that were read, and how one is made, read and taken over."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from dragon_core.errors import SettingsError
from dragon_operator.objects.metadata import metadata
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Deployment, Object

TLS = "kubernetes.io/tls"


class SecretMissingError(SettingsError):
    """A Secret that the spec names is missing."""


@dataclass(frozen=True, slots=True)
class KnownSecrets:
    """The Secrets there are, by name."""

    own: Mapping[str, Object]
    """Of the deployment."""
    foreign: Mapping[str, Object | None]
    """Those that the spec names and somebody else made; None: missing."""


def make_secret(
    deployment: Deployment,
    name: str,
    values: dict[str, bytes],
    *,
    type_: str = "Opaque",
    annotations: dict[str, str] | None = None,
) -> Object:
    """A Secret of the deployment."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(deployment, name, None, annotations=annotations),
        "type": type_,
        "data": {key: base64.b64encode(value).decode() for key, value in values.items()},
    }


def decoded(secret: Object, key: str) -> bytes:
    """One value of a Secret.

    Raises:
        KeyError: there is none.
        ValueError: it is no base64.
    """
    return base64.b64decode((secret.get("data") or {})[key], validate=True)


def annotation(secret: Object | None, key: str) -> str:
    """One annotation; empty when there is none."""
    return "" if secret is None else str((secret["metadata"].get("annotations") or {}).get(key, ""))


def owned(deployment: Deployment, found: Object) -> Object:
    """A Secret as it is. One that is not this deployment's, as from a backup, becomes so."""
    about = found["metadata"]
    if deployment.uid in {owner.get("uid") for owner in about.get("ownerReferences") or []}:
        return found
    annotations = {key: value for key, value in (about.get("annotations") or {}).items() if key.startswith(names.GROUP)}
    values = {key: decoded(found, key) for key in found.get("data") or {}}
    return make_secret(deployment, about["name"], values, type_=found["type"], annotations=annotations)
