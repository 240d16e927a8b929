"""Certificates: an authority in memory, one that issues into a folder, and the keys and requests of devices.

An issued key is returned or written to its file and kept nowhere else; the key of a request never leaves its device.
"""

import contextlib
import datetime as dt
import ipaddress
import os
import ssl
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dragon_core.errors import PeerError

VALID = dt.timedelta(days=825)
CLOCK_SKEW = dt.timedelta(minutes=5)
"""How far a clock that checks our certificates may be behind ours."""
LOOPBACK_HOSTS = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key as PEM files."""

    certificate_file: Path
    key_file: Path


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Who a server is, and whose certificates it accepts."""

    ca_file: Path
    identity: Identity


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate and, where it was made with it, its key, as PEM. `serial_number` is in lower-case hex digits."""

    certificate: bytes
    key: bytes | None
    serial_number: str
    begins: dt.datetime
    expires: dt.datetime

    @classmethod
    def load(cls, certificate: bytes, key: bytes | None = None) -> Self:
        """Read PEM.

        Raises:
            ValueError: it is no certificate.
        """
        found = x509.load_pem_x509_certificate(certificate)
        return cls(certificate, key, f"{found.serial_number:x}", found.not_valid_before_utc, found.not_valid_after_utc)

    def is_past(self, part: float, now: dt.datetime) -> bool:
        """Whether `part` of its life is over, 1 for all of it."""
        return now >= self.begins + part * (self.expires - self.begins)


class CertificateAuthority:
    """Signs certificates; in memory."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate, self._key = certificate, key

    @classmethod
    def create(cls, name: str, *, valid: dt.timedelta = VALID) -> Self:
        """A new authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _named(name)
        certificate = (
            _builder(subject, subject, key.public_key(), key.public_key(), valid)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(is_authority=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, certificate: bytes, private_key: bytes) -> Self:
        """One that was made before, from PEM.

        Raises:
            ValueError: these are no authority's certificate and the key of it.
        """
        found = x509.load_pem_x509_certificate(certificate)
        try:
            key = serialization.load_pem_private_key(private_key, password=None)
            is_authority = found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound) as error:
            raise ValueError(f"this is no authority's certificate and key: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != found.public_key():
            raise ValueError("the key is not the one of the authority's certificate, or not of an elliptic curve")
        if not is_authority:
            raise ValueError("the certificate is not an authority's")
        return cls(found, key)

    @property
    def certificate(self) -> bytes:
        """As PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def private_key(self) -> bytes:
        """As PEM. It is a secret."""
        return _private_pem(self._key)

    def issue_server(self, common_name: str, *, hosts: Sequence[str], valid: dt.timedelta = VALID) -> IssuedCertificate:
        """A certificate with a new key for a server that is known by `hosts`: names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._certify(common_name, key.public_key(), hosts=hosts, valid=valid, key=key)

    def issue_client(self, common_name: str, *, valid: dt.timedelta = VALID) -> IssuedCertificate:
        """A certificate with a new key for a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._certify(common_name, key.public_key(), hosts=None, valid=valid, key=key)

    def sign(self, csr: bytes, *, common_name: str, valid: dt.timedelta) -> IssuedCertificate:
        """A client's certificate for the key of a request. Names and extensions it asks for are not looked at.

        Raises:
            PeerError: it is no request that its own key has signed, or the key is of another kind than ours.
        """
        try:
            request = x509.load_pem_x509_csr(csr)
            is_signed = request.is_signature_valid
            key = request.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
            raise PeerError(f"this is no certificate request: {type(error).__name__}", field="csr") from error
        if not is_signed:
            raise PeerError("the certificate request is not signed by its own key", field="csr")
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise PeerError("the key of the certificate request must be of the curve P-256", field="csr")
        return self._certify(common_name, key, hosts=None, valid=valid)

    def revocation_list(self, serial_numbers: Iterable[str], *, valid: dt.timedelta = dt.timedelta(days=30)) -> bytes:
        """The PEM list of certificates that are accepted no more; a server refuses everybody once it is overdue."""
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(now - CLOCK_SKEW)
            .next_update(now + valid)
        )
        for number in sorted({int(serial_number, 16) for serial_number in serial_numbers}):
            entry = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now - CLOCK_SKEW)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _certify(
        self,
        common_name: str,
        public_key: ec.EllipticCurvePublicKey,
        *,
        hosts: Sequence[str] | None,
        valid: dt.timedelta,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> IssuedCertificate:
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if hosts is None else ExtendedKeyUsageOID.SERVER_AUTH
        builder = (
            _builder(_named(common_name), self._certificate.subject, public_key, self._key.public_key(), valid)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(is_authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if hosts is not None:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        pem = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        return IssuedCertificate.load(pem, None if key is None else _private_pem(key))


class CertificateFolder:
    """An authority that issues into one folder. Made anew each time: what an old one issued is accepted no more."""

    def __init__(self, folder: Path, *, name: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder, self.authority = folder, CertificateAuthority.create(name)
        self.certificate_file = folder / "ca.pem"
        self.certificate_file.write_bytes(self.authority.certificate)

    def issue(self, common_name: str, *, is_server: bool = False) -> Identity:
        """A certificate for `common_name`; a server's is valid for this machine's loopback names."""
        if is_server:
            return self.keep(common_name, self.authority.issue_server(common_name, hosts=LOOPBACK_HOSTS))
        return self.keep(common_name, self.authority.issue_client(common_name))

    def keep(self, name: str, issued: IssuedCertificate) -> Identity:
        """Write a certificate and its key."""
        identity = Identity(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        identity.certificate_file.write_bytes(issued.certificate)
        write_secret(identity.key_file, issued.key or b"")
        return identity


@dataclass(frozen=True, slots=True)
class KeyAndRequest:
    """A new key and the request for a certificate of it, as PEM."""

    key_pem: bytes
    csr: bytes

    @classmethod
    def make(cls, common_name: str) -> Self:
        """A new pair."""
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(_named(common_name)).sign(key, hashes.SHA256())
        return cls(_private_pem(key), request.public_bytes(serialization.Encoding.PEM))


def is_key_of(key_pem: bytes, certificate: bytes) -> bool:
    """Whether a certificate was made for this key; false where one of them is damaged."""
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
        return key.public_key() == x509.load_pem_x509_certificate(certificate).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def server_problem(certificate: bytes, key: bytes, ca: bytes, *, hosts: Iterable[str]) -> str | None:
    """Why clients that trust `ca` would not believe a server with this chain and key at `hosts`; None: they would.

    It is tried, in memory: what OpenSSL says of a chain, its names and its end is what a client would say.
    """
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        _load_identity(server, certificate, key)
    except (ssl.SSLError, ValueError) as error:
        return f"the certificate and the key are no PEM, or do not belong together: {error}"
    try:
        client.load_verify_locations(cadata=ca.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        return f"the authority's certificate cannot be used: {error}"
    for host in hosts:
        try:
            _shake_hands(server, client, host)
        except ssl.SSLCertVerificationError as error:
            return f"{host}: {error.verify_message}"
        except (ssl.SSLError, ValueError) as error:
            return f"{host}: {error}"
    return None


def _load_identity(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        certificate_file, key_file = Path(folder, "tls.crt"), Path(folder, "tls.key")
        certificate_file.write_bytes(certificate)
        write_secret(key_file, key)
        # With a password nobody is asked for one.
        context.load_cert_chain(certificate_file, key_file, password="")


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname=host)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    while True:
        with contextlib.suppress(ssl.SSLWantReadError):
            asking.do_handshake()
            return
        with contextlib.suppress(ssl.SSLWantReadError):
            answering.do_handshake()


def write_secret(path: Path, content: bytes) -> None:
    """Readable by us alone from its first moment on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    valid: dt.timedelta,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + valid)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
