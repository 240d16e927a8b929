"""All credentials of a deployment, as Secrets: made once, kept, made again before they end. Nothing is logged.

Two authorities: the inner one vouches for Triton and those who call it, the broker's for the operator, the cloud peers,
the devices and, unless its certificate is given, the broker. A device's certificate opens nothing but the broker.
"""

import datetime as dt
from dataclasses import dataclass

from dragon_core.errors import SettingsError
from dragon_operator.credentials.authorities import (
    BROKER_AUTHORITY,
    INNER_AUTHORITY,
    external_authority,
    own_authority,
    revocation_list,
)
from dragon_operator.credentials.certificates import OPERATOR_IDENTITY, broker_identity, identity
from dragon_operator.credentials.passwords import milvus_password
from dragon_operator.credentials.secret import KnownSecrets, owned
from dragon_operator.fleet.access import CLOUD_PEER, OPERATOR
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Deployment, Object
from dragon_operator.wanted.names import Component
from dragon_runtime.certificates import CertificateAuthority


@dataclass(frozen=True, slots=True)
class Credentials:
    """All Secrets of a deployment by name, as they should be, and the authority that devices are enrolled with."""

    secrets: dict[str, Object]
    broker_authority: CertificateAuthority
    broker_ca: str
    """PEM by which clients trust the broker."""
    problem: SettingsError | None = None
    """Why the broker's given certificate is not used; the broker keeps the former one."""


def plan_credentials(
    deployment: Deployment, known: KnownSecrets, now: dt.datetime, *, revoked: frozenset[str] = frozenset()
) -> Credentials:
    """Keep what is known and still good, make the rest; certificates with the `revoked` numbers are refused.

    Raises:
        SettingsError: the Secret of an external broker, or with the certificate of one that has none yet, is missing or
            does not hold what it must; says what it needs.
    """
    inner, inner_secret = own_authority(deployment, known, INNER_AUTHORITY, now)
    made = [inner_secret]
    external = deployment.spec.broker.external
    if external is None:
        broker, broker_secret = own_authority(deployment, known, BROKER_AUTHORITY, now)
        shown = broker_identity(deployment, known, broker, now)
        made += [broker_secret, shown.secret]
        broker_ca, problem = shown.ca, shown.problem
    else:
        broker = external_authority(known, external.secret_ref.name)
        broker_ca, problem = broker.certificate, None
    host = deployment.host(Component.TRITON)
    hosts = [deployment.child("triton"), host, f"{host}.cluster.local"]
    made += [
        revocation_list(deployment, known, broker, revoked),
        identity(deployment, known, inner, "triton-tls", "triton", now, hosts=hosts),
        identity(deployment, known, inner, "triton-client-tls", CLOUD_PEER, now),
        identity(deployment, known, broker, "cloud-peer-tls", CLOUD_PEER, now, ca=broker_ca),
        identity(deployment, known, broker, OPERATOR_IDENTITY, OPERATOR, now, ca=broker_ca),
    ]
    if deployment.spec.milvus.managed is not None:
        made.append(milvus_password(deployment, known))
    secrets = {names.reference(secret)[1]: owned(deployment, secret) for secret in made}
    return Credentials(secrets=secrets, broker_authority=broker, broker_ca=broker_ca.decode(), problem=problem)
