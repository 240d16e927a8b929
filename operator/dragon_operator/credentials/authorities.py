"""Authorities: the deployment's own, an external broker's, and the list of certificates that a broker refuses."""

import datetime as dt
import hashlib

from dragon_core.errors import SettingsError
from dragon_operator.credentials.secret import TLS, KnownSecrets, SecretMissingError, annotation, decoded, make_secret
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Deployment, Object
from dragon_runtime.certificates import CertificateAuthority, IssuedCertificate

AUTHORITY_LIFE = dt.timedelta(days=3650)
RENEWED_AT = 2 / 3
"""Part of the life of a certificate, an authority's own too, after which it is made anew."""

INNER_AUTHORITY = "inner-ca"
BROKER_AUTHORITY = "ca"


def own_authority(
    deployment: Deployment, known: KnownSecrets, part: str, now: dt.datetime
) -> tuple[CertificateAuthority, Object]:
    """(an authority of the deployment, its Secret): the one there is while it is good, else a new one."""
    name = deployment.child(part)
    secret = known.own.get(name)
    if secret is not None:
        try:
            authority = CertificateAuthority.load(decoded(secret, "tls.crt"), decoded(secret, "tls.key"))
        except (KeyError, ValueError):
            authority = None
        if authority is not None and not IssuedCertificate.load(authority.certificate).is_past(RENEWED_AT, now):
            return authority, secret
    authority = CertificateAuthority.create(name, valid=AUTHORITY_LIFE)
    values = {"tls.crt": authority.certificate, "tls.key": authority.private_key}
    return authority, make_secret(deployment, name, values, type_=TLS)


def external_authority(known: KnownSecrets, name: str) -> CertificateAuthority:
    """The authority of an external broker.

    Raises:
        SettingsError: the Secret is missing, or is none.
    """
    secret = known.foreign.get(name)
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


def revocation_list(
    deployment: Deployment, known: KnownSecrets, authority: CertificateAuthority, revoked: frozenset[str]
) -> Object:
    """The list of certificates that the broker refuses; what is on it stays on it."""
    name = deployment.child("broker-crl")
    secret = known.own.get(name)
    listed = {number for number in annotation(secret, names.REVOKED).split(",") if number}
    numbers = sorted(listed | revoked)
    annotations = {names.REVOKED: ",".join(numbers), names.AUTHORITY: _fingerprint(authority)}
    is_current = all(annotation(secret, key) == value for key, value in annotations.items())
    if secret is not None and is_current and (secret.get("data") or {}).get("crl.pem"):
        return secret
    # A broker refuses everybody once its list has expired; it is made anew with the authority.
    values = {"crl.pem": authority.revocation_list(numbers, valid=AUTHORITY_LIFE)}
    return make_secret(deployment, name, values, annotations=annotations)


def _fingerprint(authority: CertificateAuthority) -> str:
    return hashlib.sha256(authority.certificate).hexdigest()[:16]
