"""Certificates of servers and of those who call them: issued here, and the broker's also given by somebody else."""

import datetime as dt
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from dragon_core.errors import SettingsError
from dragon_core.fleet.messages import MAX_PEM_CHARACTERS
from dragon_operator.credentials.authorities import RENEWED_AT
from dragon_operator.credentials.secret import TLS, KnownSecrets, SecretMissingError, annotation, decoded, make_secret
from dragon_operator.objects.broker import server_hosts
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Deployment, Object
from dragon_operator.wanted.names import Component
from dragon_runtime.certificates import CertificateAuthority, IssuedCertificate, server_problem

CERTIFICATE_LIFE = dt.timedelta(days=825)
OPERATOR_IDENTITY = "operator-tls"
SERVER_AUTHORITY = "server-ca.crt"
"""In the broker's Secret: the authority by which clients trust a given certificate. `ca.crt` checks clients."""


@dataclass(frozen=True, slots=True)
class BrokerIdentity:
    """The broker's certificate in its Secret."""

    secret: Object
    ca: bytes
    """What clients believe it by."""
    problem: SettingsError | None = None
    """Why the given one is not used: what runs keeps the former one."""


def identity(
    deployment: Deployment,
    known: KnownSecrets,
    authority: CertificateAuthority,
    part: str,
    common_name: str,
    now: dt.datetime,
    *,
    hosts: list[str] | None = None,
    ca: bytes | None = None,
) -> Object:
    """The Secret with a certificate: a server's for `hosts`, a client's without.

    `ca`: what the other end is believed by, where it is not this `authority`.
    """
    name = deployment.child(part)
    ca = ca or authority.certificate
    rotation = deployment.annotations.get(names.ROTATION, "")
    annotations = {names.ROTATION: rotation, names.HOSTS: ",".join(hosts or [])}
    secret = known.own.get(name)
    if secret is not None and _is_good(secret, authority, ca, annotations, now):
        return secret
    if hosts is None:
        issued = authority.issue_client(common_name, valid=CERTIFICATE_LIFE)
    else:
        issued = authority.issue_server(common_name, hosts=hosts, valid=CERTIFICATE_LIFE)
    values = {"tls.crt": issued.certificate, "tls.key": issued.key or b"", "ca.crt": ca}
    return make_secret(deployment, name, values, type_=TLS, annotations=annotations)


def broker_identity(
    deployment: Deployment, known: KnownSecrets, authority: CertificateAuthority, now: dt.datetime
) -> BrokerIdentity:
    """The broker's certificate, given or issued here.

    Raises:
        SettingsError: the given one cannot be used, and there is no former one.
    """
    managed = deployment.spec.broker.managed
    if managed is None or managed.tls is None:
        hosts = server_hosts(deployment)
        issued = identity(deployment, known, authority, names.BROKER_IDENTITY, "broker", now, hosts=hosts)
        return BrokerIdentity(issued, authority.certificate)
    name = deployment.child(names.BROKER_IDENTITY)
    former, problem = known.own.get(name), None
    hosts = [deployment.host(Component.BROKER), *managed.hosts]
    try:
        values = given_certificate(known, managed.tls.secret_ref.name, hosts)
    except SettingsError as error:
        if former is None:
            raise
        values, problem = {key: decoded(former, key) for key in former.get("data") or {}}, error
    values["ca.crt"] = authority.certificate
    wanted = make_secret(deployment, name, values, type_=TLS)
    is_kept = former is not None and former.get("data") == wanted["data"]
    return BrokerIdentity(
        secret=former if former is not None and is_kept else wanted,
        ca=values.get(SERVER_AUTHORITY, authority.certificate),
        problem=problem,
    )


def given_certificate(known: KnownSecrets, name: str, hosts: list[str]) -> dict[str, bytes]:
    """The broker's certificate and key from another issuer, and the authority to trust, for the broker's Secret.

    Raises:
        SettingsError: the Secret is missing, or clients would not trust a broker with it.
    """
    where = f"Secret {name} of spec.broker.managed.tls.secretRef"
    needed = f"tls.crt and tls.key for {', '.join(hosts)}, and ca.crt of their authority"
    secret = known.foreign.get(name)
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


def _is_good(
    secret: Object, authority: CertificateAuthority, ca: bytes, annotations: dict[str, str], now: dt.datetime
) -> bool:
    if any(annotation(secret, key) != value for key, value in annotations.items()):
        return False
    try:
        certificate = x509.load_pem_x509_certificate(decoded(secret, "tls.crt"))
        has_key = bool(decoded(secret, "tls.key"))
        has_authority = decoded(secret, "ca.crt") == ca
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
    except (KeyError, ValueError, TypeError, InvalidSignature):
        return False
    return has_key and has_authority and not IssuedCertificate.load(decoded(secret, "tls.crt")).is_past(RENEWED_AT, now)
