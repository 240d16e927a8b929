"""The identity of an enrolled device: its key, its certificate, and its broker's address.

Every certificate has a folder of its own; `current` points to the one in use and is replaced in one step, so that a
connection made at any moment finds a key and a certificate that belong together.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from dragon_core.errors import OurError
from dragon_core.fleet.messages import CertificateRequest
from dragon_runtime.certificates import IssuedCertificate, KeyAndRequest, is_key_of, write_secret

FOLDER, CURRENT, PENDING = "identity", "current", "pending"
_NAME = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]


class Membership(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The device's name, its deployment and its broker's address."""

    namespace: _NAME
    deployment: _NAME
    device: _NAME
    broker_host: str
    broker_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceIdentity:
    """An identity on disk."""

    membership: Membership
    certificate: IssuedCertificate
    ca_file: Path
    certificate_file: Path
    key_file: Path


class _Pending(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    token_digest: str
    request: CertificateRequest


class IdentityStore:
    """The identity in a data folder."""

    def __init__(self, data_folder: Path) -> None:
        self.folder = data_folder / FOLDER

    def load(self) -> DeviceIdentity | None:
        """The identity, or None where the device has not enrolled.

        Raises:
            OurError: it is damaged; says what to do.
        """
        current = self.folder / CURRENT
        if not current.is_symlink():
            return None
        try:
            membership = msgspec.json.decode((current / "membership.json").read_bytes(), type=Membership)
            certificate = IssuedCertificate.load((current / "certificate.pem").read_bytes())
            has_key = is_key_of((current / "key.pem").read_bytes(), certificate.certificate)
        except (OSError, ValueError) as error:
            raise OurError(f"the identity in {self.folder} is damaged ({error}): {_ENROL_AGAIN}") from error
        if not has_key:
            raise OurError(f"the key in {self.folder} does not match the certificate: {_ENROL_AGAIN}")
        return DeviceIdentity(
            membership=membership,
            certificate=certificate,
            ca_file=current / "ca.pem",
            certificate_file=current / "certificate.pem",
            key_file=current / "key.pem",
        )

    def install(self, membership: Membership, *, key: bytes, certificate: bytes, ca: bytes) -> None:
        """Make this the identity, in one step.

        Raises:
            OurError: the certificate is none, or is not for the key. OSError: it cannot be written.
        """
        if not is_key_of(key, certificate):
            raise OurError("the certificate received is not for this device's key: try again")
        serial_number = IssuedCertificate.load(certificate).serial_number
        self._make_folder(self.folder)
        target = self.folder / serial_number
        if target.exists():
            shutil.rmtree(target)
        self._make_folder(target)
        write_secret(target / "key.pem", key)
        (target / "certificate.pem").write_bytes(certificate)
        (target / "ca.pem").write_bytes(ca)
        (target / "membership.json").write_bytes(msgspec.json.encode(membership))
        for path in (*target.iterdir(), target):
            _flush(path)
        link = self.folder / f"{CURRENT}.new"
        link.unlink(missing_ok=True)
        link.symlink_to(serial_number)
        link.replace(self.folder / CURRENT)
        _flush(self.folder)
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink() and path.name not in (serial_number, PENDING):
                shutil.rmtree(path, ignore_errors=True)

    def pending(self, device: str, *, token_digest: str, nonce: str) -> tuple[bytes, CertificateRequest]:
        """The key and request to enrol with: those of the last try with this token, or new ones, kept from now on."""
        folder = self.folder / PENDING
        try:
            known = msgspec.json.decode((folder / "request.json").read_bytes(), type=_Pending)
            if known.token_digest == token_digest:
                return (folder / "key.pem").read_bytes(), known.request
        except (OSError, msgspec.MsgspecError):
            pass  # there is none, or not a whole one
        made = KeyAndRequest.make(device)
        request = CertificateRequest(nonce=nonce, csr=made.csr.decode())
        for path in (self.folder, folder):
            self._make_folder(path)
        (folder / "request.json").unlink(missing_ok=True)
        write_secret(folder / "key.pem", made.key_pem)
        kept = folder / "request.json.new"
        kept.write_bytes(msgspec.json.encode(_Pending(token_digest=token_digest, request=request)))
        kept.replace(folder / "request.json")
        return made.key_pem, request

    def forget_pending(self) -> None:
        """Enrolment is done."""
        shutil.rmtree(self.folder / PENDING, ignore_errors=True)

    def forget(self) -> bool:
        """Remove the identity; false when there was none."""
        if not self.folder.exists():
            return False
        shutil.rmtree(self.folder)
        return True

    @staticmethod
    def _make_folder(path: Path) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)


_ENROL_AGAIN = "run `dragon-edge reset`, then enrol with a new join token"


def _flush(path: Path) -> None:
    """Flush to disk: written data survives a power cut from here on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
