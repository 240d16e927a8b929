"""Credentials are made once, and again only for a reason."""

import base64
import datetime as dt
from typing import Any

import pytest
from cryptography import x509

from dragon_core.errors import SettingsError
from dragon_operator import names
from dragon_operator.credentials import CERTIFICATE_LIFE, decoded, plan_credentials
from dragon_operator.observed import Observed
from dragon_runtime.certificates import CertificateAuthority
from tests.unit.operator import sample

LEAVES = {"helpdesk-broker-tls", "helpdesk-triton-tls", "helpdesk-triton-client-tls", "helpdesk-cloud-peer-tls"}


def remade(observed: Observed, *, after: dt.timedelta = dt.timedelta(), **changes: Any) -> set[str]:
    """Names of the Secrets that are not kept."""
    made = sample.deployment(**changes)
    secrets = plan_credentials(made, observed, sample.NOW + after).secrets
    return {name for name, secret in secrets.items() if secret is not observed.get("Secret", name)}


def test_all_are_kept_the_second_time() -> None:
    assert remade(sample.applied(sample.deployment())) == set()


def test_certificates_end_and_are_made_in_time() -> None:
    observed = sample.applied(sample.deployment())
    assert remade(observed, after=CERTIFICATE_LIFE * 0.6) == set()
    assert remade(observed, after=CERTIFICATE_LIFE * 0.7) >= LEAVES
    assert "helpdesk-ca" not in remade(observed, after=CERTIFICATE_LIFE * 0.7)


def test_rotation_makes_certificates_anew_and_keeps_the_authority() -> None:
    observed = sample.applied(sample.deployment())
    found = remade(observed, annotations={names.ROTATION: "today"})
    assert found >= LEAVES
    assert not found & {"helpdesk-ca", "helpdesk-inner-ca", "helpdesk-milvus"}


def test_another_host_is_for_the_broker_alone() -> None:
    observed = sample.applied(sample.deployment())
    assert remade(observed, spec={"broker": {"managed": {"hosts": ["mqtt.example"]}}}) == {"helpdesk-broker-tls"}


def test_damage_is_repaired() -> None:
    observed = sample.applied(sample.deployment())
    broken = dict(observed.children["Secret", "helpdesk-triton-tls"])
    broken["data"] = {**broken["data"], "tls.crt": base64.b64encode(b"nonsense").decode()}
    observed.children["Secret", "helpdesk-triton-tls"] = broken
    assert remade(observed) == {"helpdesk-triton-tls"}


def test_without_its_authority_everything_below_is_made_anew() -> None:
    observed = sample.applied(sample.deployment())
    del observed.children["Secret", "helpdesk-ca"]
    found = remade(observed)
    assert found >= {"helpdesk-ca", "helpdesk-broker-tls", "helpdesk-cloud-peer-tls", "helpdesk-broker-crl"}
    assert "helpdesk-triton-tls" not in found


def test_a_device_authority_opens_no_triton() -> None:
    secrets = plan_credentials(sample.deployment(), Observed(), sample.NOW).secrets
    triton = x509.load_pem_x509_certificate(decoded(secrets["helpdesk-triton-tls"], "ca.crt"))
    broker = x509.load_pem_x509_certificate(decoded(secrets["helpdesk-broker-tls"], "ca.crt"))
    assert triton.public_key() != broker.public_key()


def test_revoked_certificates_stay_on_the_list() -> None:
    made = sample.deployment()
    observed = sample.applied(made)
    first = plan_credentials(made, observed, sample.NOW, revoked=frozenset({"ab"})).secrets
    observed.children["Secret", "helpdesk-broker-crl"] = first["helpdesk-broker-crl"]
    second = plan_credentials(made, observed, sample.NOW, revoked=frozenset({"cd"})).secrets
    listed = x509.load_pem_x509_crl(decoded(second["helpdesk-broker-crl"], "crl.pem"))
    assert {f"{entry.serial_number:x}" for entry in listed} == {"ab", "cd"}
    assert set(second) - {name for name, s in second.items() if s is observed.get("Secret", name)} == {
        "helpdesk-broker-crl"
    }


EXTERNAL = {"broker": {"external": {"host": "mqtt.example", "secretRef": {"name": "theirs"}}}}


def test_an_external_broker_has_its_own_authority() -> None:
    authority = CertificateAuthority.create("theirs")
    values = {"tls.crt": authority.certificate, "tls.key": authority.private_key}
    secret = {"data": {key: base64.b64encode(value).decode() for key, value in values.items()}}
    observed = Observed(foreign_secrets={"theirs": secret})
    found = plan_credentials(sample.deployment(EXTERNAL), observed, sample.NOW)
    assert found.broker_authority.certificate == authority.certificate
    assert not {"helpdesk-ca", "helpdesk-broker-tls"} & set(found.secrets)


@pytest.mark.parametrize("secret", [None, {"data": {}}, {"data": {"tls.crt": "!", "tls.key": "!"}}])
def test_an_external_broker_without_one_is_told(secret: dict[str, Any] | None) -> None:
    with pytest.raises(SettingsError, match="theirs"):
        plan_credentials(sample.deployment(EXTERNAL), Observed(foreign_secrets={"theirs": secret}), sample.NOW)


def test_passwords_differ() -> None:
    tokens = {
        decoded(plan_credentials(sample.deployment(), Observed(), sample.NOW).secrets["helpdesk-milvus"], "token")
        for _ in range(2)
    }
    assert len(tokens) == 2
    assert min(len(token) for token in tokens) > 40
