"""Credentials of a deployment, as Secrets: made once, kept, made again before they end. Nothing is logged.

Two authorities: the inner one vouches for Triton and those who call it, the broker's for the broker, the operator, the
cloud peers and the devices. A device's certificate opens nothing but the broker.
"""

import base64
import datetime as dt
import hashlib
import secrets as random
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from dragon_core.errors import SettingsError
from dragon_operator import names
from dragon_operator.deployment import Deployment, Object
from dragon_operator.names import Component
from dragon_operator.objects.broker import server_hosts
from dragon_operator.objects.metadata import metadata
from dragon_operator.observed import Observed
from dragon_runtime.certificates import CertificateAuthority, IssuedCertificate
from dragon_runtime.mosquitto_cluster import CLOUD_PEER, OPERATOR

AUTHORITY_LIFE = dt.timedelta(days=3650)
CERTIFICATE_LIFE = dt.timedelta(days=825)
RENEWED_AT = 2 / 3
"""Part of a certificate's life after which it is made anew."""
PASSWORD_BYTES = 32

INNER_AUTHORITY = "inner-ca"
BROKER_AUTHORITY = "ca"
OPERATOR_IDENTITY = "operator-tls"


@dataclass(frozen=True, slots=True)
class Credentials:
    """All Secrets of a deployment by name, as they should be, and the authority that devices are enrolled with."""

    secrets: dict[str, Object]
    broker_authority: CertificateAuthority


def plan_credentials(
    deployment: Deployment, observed: Observed, now: dt.datetime, *, revoked: frozenset[str] = frozenset()
) -> Credentials:
    """Keep what is observed and still good, make the rest; certificates with the `revoked` numbers are refused.

    Raises:
        SettingsError: the Secret of an external broker is missing or does not hold an authority; says what it needs.
    """
    made: dict[str, Object] = {}
    inner = _authority(deployment, observed, made, INNER_AUTHORITY, now)
    external = deployment.spec.broker.external
    if external is None:
        broker = _authority(deployment, observed, made, BROKER_AUTHORITY, now)
        _identity(deployment, observed, made, broker, "broker-tls", "broker", now, hosts=server_hosts(deployment))
    else:
        broker = external_authority(observed, external.secret_ref.name)
    _revocations(deployment, observed, made, broker, revoked)
    host = deployment.host(Component.TRITON)
    hosts = [deployment.child("triton"), host, f"{host}.cluster.local"]
    _identity(deployment, observed, made, inner, "triton-tls", "triton", now, hosts=hosts)
    _identity(deployment, observed, made, inner, "triton-client-tls", CLOUD_PEER, now)
    _identity(deployment, observed, made, broker, "cloud-peer-tls", CLOUD_PEER, now)
    _identity(deployment, observed, made, broker, OPERATOR_IDENTITY, OPERATOR, now)
    if deployment.spec.milvus.managed is not None:
        _milvus_password(deployment, observed, made)
    return Credentials(secrets=made, broker_authority=broker)


def external_authority(observed: Observed, name: str) -> CertificateAuthority:
    """The authority of an external broker.

    Raises:
        SettingsError: the Secret is missing, or is none.
    """
    secret = observed.foreign_secrets.get(name)
    if secret is None:
        raise SettingsError(
            f"Secret {name} of spec.broker.external.secretRef is missing: "
            "make it with tls.crt and tls.key of the authority that the broker accepts clients of"
        )
    try:
        return CertificateAuthority.load(decoded(secret, "tls.crt"), decoded(secret, "tls.key"))
    except (KeyError, ValueError) as error:
        raise SettingsError(
            f"Secret {name} holds no authority in tls.crt and tls.key (PEM): {type(error).__name__}"
        ) from error


def decoded(secret: Object, key: str) -> bytes:
    """One value of a Secret.

    Raises:
        KeyError: there is none.
        ValueError: it is no base64.
    """
    return base64.b64decode((secret.get("data") or {})[key], validate=True)


def secret(
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


def _authority(
    deployment: Deployment, observed: Observed, made: dict[str, Object], part: str, now: dt.datetime
) -> CertificateAuthority:
    name = deployment.child(part)
    known = observed.get("Secret", name)
    if known is not None:
        try:
            authority = CertificateAuthority.load(decoded(known, "tls.crt"), decoded(known, "tls.key"))
        except (KeyError, ValueError):
            authority = None
        if authority is not None and not IssuedCertificate.load(authority.certificate).is_past(RENEWED_AT, now):
            made[name] = known
            return authority
    authority = CertificateAuthority.create(name, valid=AUTHORITY_LIFE)
    values = {"tls.crt": authority.certificate, "tls.key": authority.private_key}
    made[name] = secret(deployment, name, values, type_="kubernetes.io/tls")
    return authority


def _identity(
    deployment: Deployment,
    observed: Observed,
    made: dict[str, Object],
    authority: CertificateAuthority,
    part: str,
    common_name: str,
    now: dt.datetime,
    *,
    hosts: list[str] | None = None,
) -> None:
    name = deployment.child(part)
    rotation = deployment.annotations.get(names.ROTATION, "")
    annotations = {names.ROTATION: rotation, names.HOSTS: ",".join(hosts or [])}
    known = observed.get("Secret", name)
    if known is not None and _is_good(known, authority, annotations, now):
        made[name] = known
        return
    if hosts is None:
        issued = authority.issue_client(common_name, valid=CERTIFICATE_LIFE)
    else:
        issued = authority.issue_server(common_name, hosts=hosts, valid=CERTIFICATE_LIFE)
    values = {"tls.crt": issued.certificate, "tls.key": issued.key or b"", "ca.crt": authority.certificate}
    made[name] = secret(deployment, name, values, type_="kubernetes.io/tls", annotations=annotations)


def _is_good(known: Object, authority: CertificateAuthority, annotations: dict[str, str], now: dt.datetime) -> bool:
    found = known["metadata"].get("annotations") or {}
    if any(found.get(key, "") != value for key, value in annotations.items()):
        return False
    try:
        certificate = x509.load_pem_x509_certificate(decoded(known, "tls.crt"))
        has_key = bool(decoded(known, "tls.key"))
        has_authority = decoded(known, "ca.crt") == authority.certificate
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
    except (KeyError, ValueError, TypeError, InvalidSignature):
        return False
    return has_key and has_authority and not IssuedCertificate.load(decoded(known, "tls.crt")).is_past(RENEWED_AT, now)


def _revocations(
    deployment: Deployment,
    observed: Observed,
    made: dict[str, Object],
    authority: CertificateAuthority,
    revoked: frozenset[str],
) -> None:
    """The list of certificates that the broker refuses; what is on it stays on it."""
    name = deployment.child("broker-crl")
    known = observed.get("Secret", name)
    listed = {number for number in _annotation(known, names.REVOKED).split(",") if number}
    annotations = {names.REVOKED: ",".join(sorted(listed | revoked)), names.AUTHORITY: _fingerprint(authority)}
    is_current = known is not None and all(_annotation(known, key) == value for key, value in annotations.items())
    if known is not None and is_current and (known.get("data") or {}).get("crl.pem"):
        made[name] = known
        return
    # A broker refuses everybody once its list has expired; it is made anew with the authority.
    numbers = sorted(listed | revoked)
    values = {"crl.pem": authority.revocation_list(numbers, valid=AUTHORITY_LIFE)}
    made[name] = secret(deployment, name, values, annotations=annotations)


def _annotation(obj: Object | None, key: str) -> str:
    return "" if obj is None else str((obj["metadata"].get("annotations") or {}).get(key, ""))


def _fingerprint(authority: CertificateAuthority) -> str:
    return hashlib.sha256(authority.certificate).hexdigest()[:16]


def _milvus_password(deployment: Deployment, observed: Observed, made: dict[str, Object]) -> None:
    name = deployment.child("milvus")
    known = observed.get("Secret", name)
    if known is not None and {"password", "token"} <= set(known.get("data") or {}):
        made[name] = known
        return
    password = random.token_urlsafe(PASSWORD_BYTES)
    values = {"password": password.encode(), "token": f"root:{password}".encode()}
    made[name] = secret(deployment, name, values)
