"""Who gets a certificate, and who gets a reason."""

import asyncio
import datetime as dt

import pytest

from dragon_core.errors import OurError
from dragon_core.fleet.messages import CertificateRequest, CertificateResponse, Refusal, Reported
from dragon_operator.fleet.enrolment import MIN_RENEWAL_SECONDS, Enrolment
from dragon_operator.fleet.values import DesiredDevice, Issued, JoinSecret
from dragon_runtime.certificates import CertificateAuthority, IssuedCertificate, KeyAndRequest, is_key_of

NOW = 1000.0
DEVICE = DesiredDevice(name="d1", join=JoinSecret(secret="s" * 32, expires=2000))


class Desk:
    """An `Enrolment` with an authority; `recorded` is what was issued, `problem` what recording fails with."""

    def __init__(self) -> None:
        self.authority = CertificateAuthority.create("test")
        self.recorded: list[Issued] = []
        self.problem: OurError | None = None
        self.enrolment = self.restarted()

    def restarted(self) -> Enrolment:
        self.enrolment = Enrolment(sign=self._sign, on_issued=self._record, ca=lambda: "CA")
        return self.enrolment

    async def _sign(self, device: str, csr: bytes) -> IssuedCertificate:
        return self.authority.sign(csr, common_name=device, valid=dt.timedelta(days=1))

    async def _record(self, issued: Issued) -> None:
        if self.problem is not None:
            raise self.problem
        self.recorded.append(issued)

    def join(
        self, request: CertificateRequest, device: DesiredDevice | None = DEVICE, *, now: float = NOW
    ) -> CertificateResponse:
        return asyncio.run(self.enrolment.join("d1", request, device, now=now))

    def renew(
        self, request: CertificateRequest, device: DesiredDevice | None = DEVICE, *, now: float = NOW
    ) -> CertificateResponse:
        return asyncio.run(self.enrolment.renew("d1", request, device, now=now))


def request(letter: str = "a") -> CertificateRequest:
    return CertificateRequest(nonce=letter * 32, csr=KeyAndRequest.make("whatever it says").csr.decode())


def reported(response: CertificateResponse) -> Reported:
    serial_number = IssuedCertificate.load(response.certificate.encode()).serial_number
    return Reported(
        session="0" * 32,
        observed="",
        applied="",
        daemon_version="1",
        model="m",
        vocabulary="v",
        certificate_serial=serial_number,
    )


def test_the_first_request_gets_a_certificate_and_again_the_same() -> None:
    desk, asked = Desk(), request()
    first = desk.join(asked)
    assert first.refusal is None
    assert (first.ca, first.nonce) == ("CA", "a" * 32)
    assert desk.join(asked) == first
    assert [issued.device for issued in desk.recorded] == ["d1"]
    assert DEVICE.join is not None
    assert desk.recorded[0].join_digest == DEVICE.join.digest


def test_another_key_is_refused_before_and_after_the_first_is_in_use() -> None:
    desk = Desk()
    first = desk.join(request())
    assert desk.join(request("b")).refusal is Refusal.TOKEN_USED
    assert desk.enrolment.take_reported("d1", reported(first))
    assert not desk.enrolment.take_reported("d1", reported(first))
    assert desk.enrolment.is_used(DEVICE)
    assert desk.join(request("b")).refusal is Refusal.TOKEN_USED
    assert len(desk.recorded) == 1


def test_a_new_token_opens_again() -> None:
    desk = Desk()
    first = desk.join(request())
    desk.enrolment.take_reported("d1", reported(first))
    newer = DesiredDevice(name="d1", join=JoinSecret(secret="t" * 32, expires=2000))
    assert desk.join(request("b"), newer).refusal is None
    assert len(desk.recorded) == 2


def test_an_operator_after_a_restart_answers_as_the_one_before() -> None:
    desk, asked = Desk(), request()
    first = desk.join(asked)
    desk.restarted().restore("d1", first)
    assert desk.join(asked) == first
    assert desk.join(request("b")).refusal is Refusal.TOKEN_USED
    assert DEVICE.join is not None
    desk.restarted().restore_used(frozenset({("d1", DEVICE.join.digest)}))
    assert desk.join(asked).refusal is Refusal.TOKEN_USED
    assert len(desk.recorded) == 1


@pytest.mark.parametrize(
    ("device", "refusal"),
    [
        (None, Refusal.NOT_WANTED),
        (DesiredDevice(name="d1", is_revoked=True, join=DEVICE.join), Refusal.REVOKED),
        (DesiredDevice(name="d1"), Refusal.TOKEN_USED),
        (DesiredDevice(name="d1", join=JoinSecret(secret="s" * 32, expires=1000)), Refusal.TOKEN_EXPIRED),
    ],
)
def test_who_is_refused(device: DesiredDevice | None, refusal: Refusal) -> None:
    desk = Desk()
    response = desk.join(request(), device)
    assert (response.refusal, response.certificate) == (refusal, "")
    assert response.reason
    assert desk.recorded == []


def test_what_is_no_request_is_refused() -> None:
    desk = Desk()
    for csr in ("", "no PEM", request().csr.replace("A", "B")):
        assert desk.join(CertificateRequest(nonce="a" * 32, csr=csr)).refusal is Refusal.BAD_REQUEST
    assert desk.recorded == []


def test_what_cannot_be_recorded_is_not_given_away() -> None:
    desk, asked = Desk(), request()
    desk.problem = OurError("the API server is away")
    response = desk.join(asked)
    assert (response.refusal, response.certificate) == (Refusal.TRY_AGAIN, "")
    assert "API server" not in response.reason
    desk.problem = None
    assert desk.join(asked).refusal is None


def test_renewals_are_answered_again_and_not_too_often() -> None:
    desk, asked = Desk(), request()
    first = desk.renew(asked)
    assert first.refusal is None
    assert desk.recorded[0].is_renewal
    assert desk.renew(asked, now=NOW + 1) == first
    assert desk.renew(request("b"), now=NOW + 1).refusal is Refusal.TRY_AGAIN
    assert desk.renew(request("b"), now=NOW + MIN_RENEWAL_SECONDS).refusal is None
    assert desk.renew(request("c"), DesiredDevice(name="d1", is_revoked=True)).refusal is Refusal.REVOKED
    assert desk.renew(request("c"), None).refusal is Refusal.NOT_WANTED


def test_a_certificate_is_for_the_key_of_its_request() -> None:
    desk, made = Desk(), KeyAndRequest.make("d1")
    response = desk.join(CertificateRequest(nonce="a" * 32, csr=made.csr.decode()))
    assert is_key_of(made.key_pem, response.certificate.encode())
    assert not is_key_of(KeyAndRequest.make("d1").key_pem, response.certificate.encode())
