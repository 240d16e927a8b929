"""Credentials of a deployment, as Secrets: created once, kept, reissued before they expire. Nothing is logged.

Two authorities: the inner one vouches for Triton and those who call it, the broker's for the operator, the cloud peers,
the devices and, unless its certificate is given, the broker. A device's certificate opens nothing but the broker.
"""

import base64
import datetime as dt
import hashlib
import secrets as random
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from dragon_core.errors import SettingsError
from dragon_core.fleet import MAX_PEM_CHARACTERS
from dragon_operator import names
from dragon_operator.deployment import Deployment, Object
from dragon_operator.names import Component
from dragon_operator.objects.broker import server_hosts
from dragon_operator.objects.metadata import metadata
from dragon_operator.observed import Observed
from dragon_runtime.certificates import CertificateAuthority, IssuedCertificate, server_problem
from dragon_runtime.mosquitto_cluster import CLOUD_PEER, OPERATOR

AUTHORITY_LIFE = dt.timedelta(days=3650)
CERTIFICATE_LIFE = dt.timedelta(days=825)
RENEWED_AT = 2 / 3
"""Fraction of a certificate's lifetime after which it is reissued."""
PASSWORD_BYTES = 32
MAX_FORMER_PASSWORDS = 3
"""Kept, for nobody may have opened the store between two rotations."""

INNER_AUTHORITY = "inner-ca"
BROKER_AUTHORITY = "ca"
OPERATOR_IDENTITY = "operator-tls"
SERVER_AUTHORITY = "server-ca.crt"
"""In the broker's Secret: the authority by which clients trust a given certificate. `ca.crt` checks clients."""


class SecretMissingError(SettingsError):
    """A Secret that the spec names is missing."""


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
    deployment: Deployment, observed: Observed, now: dt.datetime, *, revoked: frozenset[str] = frozenset()
) -> Credentials:
    """Keep what is observed and still good, make the rest; certificates with the `revoked` numbers are refused.

    Raises:
        SettingsError: the Secret of an external broker, or with the certificate of one that has none yet, is missing or
            does not hold what it must; says what it needs.
    """
    made: dict[str, Object] = {}
    inner = _authority(deployment, observed, made, INNER_AUTHORITY, now)
    external = deployment.spec.broker.external
    if external is None:
        broker = _authority(deployment, observed, made, BROKER_AUTHORITY, now)
        broker_ca, problem = _broker_identity(deployment, observed, made, broker, now)
    else:
        broker = external_authority(observed, external.secret_ref.name)
        broker_ca, problem = broker.certificate, None
    _revocations(deployment, observed, made, broker, revoked)
    host = deployment.host(Component.TRITON)
    hosts = [deployment.child("triton"), host, f"{host}.cluster.local"]
    _identity(deployment, observed, made, inner, "triton-tls", "triton", now, hosts=hosts)
    _identity(deployment, observed, made, inner, "triton-client-tls", CLOUD_PEER, now)
    _identity(deployment, observed, made, broker, "cloud-peer-tls", CLOUD_PEER, now, ca=broker_ca)
    _identity(deployment, observed, made, broker, OPERATOR_IDENTITY, OPERATOR, now, ca=broker_ca)
    if deployment.spec.milvus.managed is not None:
        _milvus_password(deployment, observed, made)
    owned = {name: _owned(deployment, found) for name, found in made.items()}
    return Credentials(secrets=owned, broker_authority=broker, broker_ca=broker_ca.decode(), problem=problem)


def external_authority(observed: Observed, name: str) -> CertificateAuthority:
    """The authority of an external broker.

    Raises:
        SettingsError: the Secret is missing, or is none.
    """
    secret = observed.foreign_secrets.get(name)
    if secret is None:
        raise SecretMissingError(
            f"Secret {name} of spec.broker.external.secretRef is missing: "
            "create it with tls.crt and tls.key of the authority whose client certificates the broker accepts"
        )
    try:
        return CertificateAuthority.load(decoded(secret, "tls.crt"), decoded(secret, "tls.key"))
    except (KeyError, ValueError) as error:
        raise SettingsError(
            f"Secret {name} contains no valid authority in tls.crt and tls.key (PEM): {type(error).__name__}"
        ) from error


def given_certificate(observed: Observed, name: str, hosts: list[str]) -> dict[str, bytes]:
    """The broker's certificate and key from another issuer, and the authority to trust, for the broker's Secret.

    Raises:
        SettingsError: the Secret is missing, or clients would not trust a broker with it.
    """
    where = f"Secret {name} of spec.broker.managed.tls.secretRef"
    needed = f"tls.crt and tls.key for {', '.join(hosts)}, and ca.crt of their authority"
    secret = observed.foreign_secrets.get(name)
    if secret is None:
        raise SecretMissingError(f"{where} is missing: create it with {needed}")
    try:
        certificate, key, ca = (decoded(secret, part) for part in ("tls.crt", "tls.key", "ca.crt"))
    except KeyError as error:
        raise SettingsError(f"{where} has no key {error.args[0]}: it needs {needed}") from error
    problem = server_problem(certificate, key, ca, hosts=hosts)
    if problem is not None:
        raise SettingsError(f"clients would not trust the broker with {where}: {problem}; it needs {needed}")
    if len(ca) > MAX_PEM_CHARACTERS:
        raise SettingsError(
            f"ca.crt in {where} has more than {MAX_PEM_CHARACTERS} characters: leave only the broker's authority in it"
        )
    return {"tls.crt": certificate, "tls.key": key, SERVER_AUTHORITY: ca}


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


def _owned(deployment: Deployment, found: Object) -> Object:
    """A Secret as it is. One that is not this deployment's, as from a backup, becomes so."""
    about = found["metadata"]
    if deployment.uid in {owner.get("uid") for owner in about.get("ownerReferences") or []}:
        return found
    annotations = {key: value for key, value in (about.get("annotations") or {}).items() if key.startswith(names.GROUP)}
    values = {key: decoded(found, key) for key in found.get("data") or {}}
    return secret(deployment, about["name"], values, type_=found["type"], annotations=annotations)


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


def _broker_identity(
    deployment: Deployment,
    observed: Observed,
    made: dict[str, Object],
    authority: CertificateAuthority,
    now: dt.datetime,
) -> tuple[bytes, SettingsError | None]:
    """The broker's certificate, given or issued here.

    Returns the authority that clients trust, and why a given certificate is not used: a running broker keeps its own.
    """
    managed = deployment.spec.broker.managed
    if managed is None or managed.tls is None:
        hosts = server_hosts(deployment)
        _identity(deployment, observed, made, authority, names.BROKER_IDENTITY, "broker", now, hosts=hosts)
        return authority.certificate, None
    name = deployment.child(names.BROKER_IDENTITY)
    known, problem = observed.get("Secret", name), None
    hosts = [deployment.host(Component.BROKER), *managed.hosts]
    try:
        values = given_certificate(observed, managed.tls.secret_ref.name, hosts)
    except SettingsError as error:
        if known is None:
            raise
        values, problem = {key: decoded(known, key) for key in known.get("data") or {}}, error
    values["ca.crt"] = authority.certificate
    wanted = secret(deployment, name, values, type_="kubernetes.io/tls")
    made[name] = known if known is not None and known.get("data") == wanted["data"] else wanted
    return values.get(SERVER_AUTHORITY, authority.certificate), problem


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
    ca: bytes | None = None,
) -> None:
    """`ca`: the authority by which the other end is trusted, if it is not this `authority`."""
    name = deployment.child(part)
    ca = ca or authority.certificate
    rotation = deployment.annotations.get(names.ROTATION, "")
    annotations = {names.ROTATION: rotation, names.HOSTS: ",".join(hosts or [])}
    known = observed.get("Secret", name)
    if known is not None and _is_good(known, authority, ca, annotations, now):
        made[name] = known
        return
    if hosts is None:
        issued = authority.issue_client(common_name, valid=CERTIFICATE_LIFE)
    else:
        issued = authority.issue_server(common_name, hosts=hosts, valid=CERTIFICATE_LIFE)
    values = {"tls.crt": issued.certificate, "tls.key": issued.key or b"", "ca.crt": ca}
    made[name] = secret(deployment, name, values, type_="kubernetes.io/tls", annotations=annotations)


def _is_good(
    known: Object, authority: CertificateAuthority, ca: bytes, annotations: dict[str, str], now: dt.datetime
) -> bool:
    found = known["metadata"].get("annotations") or {}
    if any(found.get(key, "") != value for key, value in annotations.items()):
        return False
    try:
        certificate = x509.load_pem_x509_certificate(decoded(known, "tls.crt"))
        has_key = bool(decoded(known, "tls.key"))
        has_authority = decoded(known, "ca.crt") == ca
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
    """Root's. The server takes the one that it has first seen: whoever opens the store changes it to this one."""
    name = deployment.child("milvus")
    rotation = deployment.annotations.get(names.ROTATION, "")
    known = observed.get("Secret", name)
    formers: list[bytes] = []
    if known is not None and {"password", "token"} <= set(known.get("data") or {}):
        if (known["metadata"].get("annotations") or {}).get(names.ROTATION, "") == rotation:
            made[name] = known
            return
        former_ones = decoded(known, names.FORMER_TOKENS) if names.FORMER_TOKENS in known["data"] else b""
        formers = [decoded(known, "token"), *former_ones.splitlines()]
    password = random.token_urlsafe(PASSWORD_BYTES)
    values = {"password": password.encode(), "token": f"root:{password}".encode()}
    if formers:
        values[names.FORMER_TOKENS] = b"\n".join(formers[:MAX_FORMER_PASSWORDS])
    made[name] = secret(deployment, name, values, annotations={names.ROTATION: rotation})
