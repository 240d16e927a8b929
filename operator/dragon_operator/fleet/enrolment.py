"""Answers to certificate requests: from devices that enrol with a token, and from devices that renew.

The broker has checked the token's secret: it is the password of the client that may ask. A token is used up by the
first key it is asked with; the same request gets the same answer again, since one may have been lost on its way.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable

from dragon_core.errors import DragonError, PeerError
from dragon_core.fleet.messages import CertificateRequest, CertificateResponse, Refusal, Reported, request_digest
from dragon_operator.fleet.values import DesiredDevice, Issued
from dragon_runtime.certificates import IssuedCertificate

logger = logging.getLogger(__name__)

SignRequest = Callable[[str, bytes], Awaitable[IssuedCertificate]]
"""(device, PEM of its request) -> certificate."""
OnIssued = Callable[[Issued], Awaitable[None]]

MIN_RENEWAL_SECONDS = 60.0
"""A device cannot fill the list of its certificates faster than that."""
ISSUE_SECONDS = 30.0


class Enrolment:
    """Decides on requests. `now` is in Unix seconds; one request of a device at a time."""

    def __init__(self, *, sign: SignRequest, on_issued: OnIssued, ca: Callable[[], str]) -> None:
        self._sign, self._on_issued, self._ca = sign, on_issued, ca
        self._joined: dict[str, CertificateResponse] = {}
        self._renewed: dict[str, CertificateResponse] = {}
        self._used: set[tuple[str, str]] = set()

    def restore(self, device: str, response: CertificateResponse) -> None:
        """An answer that the broker kept from before this operator started."""
        if response.refusal is None and response.certificate:
            self._joined.setdefault(device, response)

    def restore_used(self, used: frozenset[tuple[str, str]]) -> None:
        """(device, digest of a secret) of tokens that the broker remembers as used."""
        self._used |= used

    @property
    def used(self) -> frozenset[tuple[str, str]]:
        """(device, digest of a secret) of all tokens known to be used."""
        return frozenset(self._used)

    def is_used(self, device: DesiredDevice) -> bool:
        """Whether the certificate of its token is in use."""
        return device.join is not None and (device.name, device.join.digest) in self._used

    def take_reported(self, device: str, reported: Reported) -> bool:
        """Whether this is the first sign that a device uses the certificate of its token: it is used up."""
        answered = self._joined.get(device)
        if answered is None or not reported.certificate_serial:
            return False
        try:
            issued = IssuedCertificate.load(answered.certificate.encode())
        except ValueError:
            return False
        if issued.serial_number != reported.certificate_serial:
            return False
        del self._joined[device]
        self._used.add((device, answered.token_digest))
        return True

    def forget(self, device: str) -> None:
        """A device that is no longer wanted."""
        self._joined.pop(device, None)
        self._renewed.pop(device, None)
        self._used = {entry for entry in self._used if entry[0] != device}

    async def join(
        self, name: str, request: CertificateRequest, device: DesiredDevice | None, *, now: float
    ) -> CertificateResponse:
        """The answer to a request that came with the device's token."""
        refused = _unwanted(request, device, now)
        if refused is not None or device is None:
            return refused or _refuse(request, now, Refusal.NOT_WANTED, "there is no such device")
        known = self._joined.get(name)
        if known is not None and known.request_digest == request_digest(request):
            return known
        if device.join is None or self.is_used(device):
            return _refuse(request, now, Refusal.TOKEN_USED, "the token was already used; ask for a new one")
        if device.join.expires <= now:
            return _refuse(request, now, Refusal.TOKEN_EXPIRED, "the token has expired; ask for a new one")
        if known is not None and known.token_digest == device.join.digest:
            reason = "the token was already used, with another key; ask for a new one"
            return _refuse(request, now, Refusal.TOKEN_USED, reason)
        response = await self._issue(name, request, now=now, token_digest=device.join.digest)
        if response.refusal is None:
            self._joined[name] = response
        return response

    async def renew(
        self, name: str, request: CertificateRequest, device: DesiredDevice | None, *, now: float
    ) -> CertificateResponse:
        """The answer to a device that is connected with its current certificate."""
        refused = _unwanted(request, device, now)
        if refused is not None:
            return refused
        known = self._renewed.get(name)
        if known is not None and known.request_digest == request_digest(request):
            return known
        if known is not None and now - known.time < MIN_RENEWAL_SECONDS:
            return _refuse(request, now, Refusal.TRY_AGAIN, "the certificate was renewed a moment ago")
        response = await self._issue(name, request, now=now, token_digest="")
        if response.refusal is None:
            self._renewed[name] = response
        return response

    async def _issue(
        self, name: str, request: CertificateRequest, *, now: float, token_digest: str
    ) -> CertificateResponse:
        try:
            async with asyncio.timeout(ISSUE_SECONDS):
                issued = await self._sign(name, request.csr.encode())
                # Recorded before it is given away: what nobody knows of could not be revoked.
                await self._on_issued(
                    Issued(
                        device=name,
                        serial_number=issued.serial_number,
                        expires=issued.expires,
                        join_digest=token_digest,
                    )
                )
        except PeerError as error:
            return _refuse(request, now, Refusal.BAD_REQUEST, str(error))
        except (DragonError, TimeoutError) as error:
            logger.warning("no certificate for device %s: %s", name, str(error) or type(error).__name__)
            return _refuse(request, now, Refusal.TRY_AGAIN, "the operator cannot issue certificates now")
        expires = issued.expires.astimezone(dt.UTC).isoformat(timespec="seconds")
        logger.info("device %s has certificate %s until %s", name, issued.serial_number, expires)
        return CertificateResponse(
            nonce=request.nonce,
            time=int(now),
            certificate=issued.certificate.decode(),
            ca=self._ca(),
            request_digest=request_digest(request),
            token_digest=token_digest,
        )


def _unwanted(request: CertificateRequest, device: DesiredDevice | None, now: float) -> CertificateResponse | None:
    if device is None:
        return _refuse(request, now, Refusal.NOT_WANTED, "the device no longer exists; ask for a new one")
    if device.is_revoked:
        return _refuse(request, now, Refusal.REVOKED, "the device is revoked")
    return None


def _refuse(request: CertificateRequest, now: float, refusal: Refusal, reason: str) -> CertificateResponse:
    return CertificateResponse(nonce=request.nonce, time=int(now), refusal=refusal, reason=reason[:500])
