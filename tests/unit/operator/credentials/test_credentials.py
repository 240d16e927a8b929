"""Credentials are made once, and again only for a reason."""

import base64
import copy
import datetime as dt
from typing import Any

import pytest
from cryptography import x509

from dragon_core.errors import SettingsError
from dragon_operator.credentials.certificates import CERTIFICATE_LIFE, SERVER_AUTHORITY
from dragon_operator.credentials.plan import Credentials, plan_credentials
from dragon_operator.credentials.secret import SecretMissingError, decoded
from dragon_operator.look.observed import Observed
from dragon_operator.wanted import names
from dragon_operator.wanted.names import Component
from dragon_runtime.certificates import CertificateAuthority
from tests.unit.operator import sample

LEAVES = {"helpdesk-broker-tls", "helpdesk-triton-tls", "helpdesk-triton-client-tls", "helpdesk-cloud-peer-tls"}


def remade(observed: Observed, *, after: dt.timedelta = dt.timedelta(), **changes: Any) -> set[str]:
    """Names of the Secrets that are not kept."""
    made = sample.deployment(**changes)
    secrets = plan_credentials(made, observed.secrets, sample.NOW + after).secrets
    return {name for name, secret in secrets.items() if secret is not observed.get("Secret", name)}


def test_all_are_kept_the_second_time() -> None:
    assert remade(sample.applied(sample.deployment())) == set()


def test_those_of_a_backup_are_kept_and_become_the_deployments_own() -> None:
    made = sample.deployment()
    before = sample.applied(made)
    restored = copy.deepcopy(before)
    secrets = [obj for (kind, _), obj in restored.children.items() if kind == "Secret"]
    for secret in secrets:
        del secret["metadata"]["ownerReferences"]
    found = plan_credentials(made, restored.secrets, sample.NOW).secrets
    for secret in secrets:
        name = secret["metadata"]["name"]
        assert found[name] == before.get("Secret", name)


def test_certificates_end_and_are_made_in_time() -> None:
    observed = sample.applied(sample.deployment())
    assert remade(observed, after=CERTIFICATE_LIFE * 0.6) == set()
    assert remade(observed, after=CERTIFICATE_LIFE * 0.7) >= LEAVES
    assert "helpdesk-ca" not in remade(observed, after=CERTIFICATE_LIFE * 0.7)


def test_rotation_makes_certificates_anew_and_keeps_the_authority() -> None:
    observed = sample.applied(sample.deployment())
    found = remade(observed, annotations={names.ROTATION: "today"})
    assert found >= LEAVES | {"helpdesk-milvus"}
    assert not found & {"helpdesk-ca", "helpdesk-inner-ca"}


def test_another_host_is_for_the_broker_alone() -> None:
    observed = sample.applied(sample.deployment())
    assert remade(observed, spec={"broker": {"managed": {"hosts": ["mqtt.example"]}}}) == {"helpdesk-broker-tls"}


def test_damage_is_repaired() -> None:
    observed = sample.applied(sample.deployment())
    broken = dict(observed.children["Secret", "helpdesk-triton-tls"])
    broken["data"] = {**broken["data"], "tls.crt": base64.b64encode(b"nonsense").decode()}
    assert remade(observed.after({("Secret", "helpdesk-triton-tls"): broken})) == {"helpdesk-triton-tls"}


def test_without_its_authority_everything_below_is_made_anew() -> None:
    observed = sample.applied(sample.deployment())
    found = remade(sample.without(observed, "Secret", "helpdesk-ca"))
    assert found >= {"helpdesk-ca", "helpdesk-broker-tls", "helpdesk-cloud-peer-tls", "helpdesk-broker-crl"}
    assert "helpdesk-triton-tls" not in found


def test_a_device_authority_opens_no_triton() -> None:
    secrets = plan_credentials(sample.deployment(), Observed().secrets, sample.NOW).secrets
    triton = x509.load_pem_x509_certificate(decoded(secrets["helpdesk-triton-tls"], "ca.crt"))
    broker = x509.load_pem_x509_certificate(decoded(secrets["helpdesk-broker-tls"], "ca.crt"))
    assert triton.public_key() != broker.public_key()


def test_revoked_certificates_stay_on_the_list() -> None:
    made = sample.deployment()
    observed = sample.applied(made)
    first = plan_credentials(made, observed.secrets, sample.NOW, revoked=frozenset({"ab"})).secrets
    observed = observed.after({("Secret", "helpdesk-broker-crl"): first["helpdesk-broker-crl"]})
    second = plan_credentials(made, observed.secrets, sample.NOW, revoked=frozenset({"cd"})).secrets
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
    found = plan_credentials(sample.deployment(EXTERNAL), observed.secrets, sample.NOW)
    assert found.broker_authority.certificate == authority.certificate
    assert not {"helpdesk-ca", "helpdesk-broker-tls"} & set(found.secrets)


@pytest.mark.parametrize("secret", [None, {"data": {}}, {"data": {"tls.crt": "!", "tls.key": "!"}}])
def test_an_external_broker_without_one_is_told(secret: dict[str, Any] | None) -> None:
    with pytest.raises(SettingsError, match="theirs"):
        plan_credentials(sample.deployment(EXTERNAL), Observed(foreign_secrets={"theirs": secret}).secrets, sample.NOW)


GIVEN = {"broker": {"managed": {"hosts": ["mqtt.example"], "tls": {"secretRef": {"name": "theirs"}}}}}
HOSTS = ["helpdesk-broker.support.svc", "mqtt.example"]
THEIRS, OTHERS = CertificateAuthority.create("theirs"), CertificateAuthority.create("others")
DAY = dt.timedelta(days=1)


def foreign(values: dict[str, bytes]) -> dict[str, Any]:
    return {"data": {key: base64.b64encode(value).decode() for key, value in values.items()}}


def given(**changes: Any) -> dict[str, bytes]:
    issued = THEIRS.issue_server("broker", **{"hosts": HOSTS, "valid": DAY, **changes})
    return {"tls.crt": issued.certificate, "tls.key": issued.key or b"", "ca.crt": THEIRS.certificate}


def with_given(values: dict[str, bytes] | None, before: Observed | None = None) -> tuple[Credentials, Observed]:
    """What is planned with such a Secret, and what the cluster holds then."""
    made, before = sample.deployment(GIVEN), before or Observed()
    secrets = {"theirs": None if values is None else foreign(values)}
    observed = Observed(children=before.children, pods=before.pods, foreign_secrets=secrets)
    return plan_credentials(made, observed.secrets, sample.NOW), sample.applied(made, observed)


def broker_pods(observed: Observed) -> dict[str, str]:
    template = sample.workload(observed, Component.BROKER)["spec"]["template"]["metadata"]
    return dict(template["annotations"])


def test_a_given_certificate_is_the_brokers_and_clients_believe_it() -> None:
    values = given()
    found, observed = with_given(values)
    broker, own = found.secrets["helpdesk-broker-tls"], decoded(found.secrets["helpdesk-ca"], "tls.crt")
    assert found.problem is None
    assert (decoded(broker, "tls.crt"), decoded(broker, "tls.key")) == (values["tls.crt"], values["tls.key"])
    assert decoded(broker, "ca.crt") == found.broker_authority.certificate == own
    assert found.broker_ca.encode() == THEIRS.certificate
    for name in ("helpdesk-cloud-peer-tls", "helpdesk-operator-tls"):
        assert decoded(found.secrets[name], "ca.crt") == THEIRS.certificate
        issued = x509.load_pem_x509_certificate(decoded(found.secrets[name], "tls.crt"))
        issued.verify_directly_issued_by(x509.load_pem_x509_certificate(own))
    again, _ = with_given(values, observed)
    assert all(secret is observed.get("Secret", name) for name, secret in again.secrets.items())


def test_a_renewed_given_certificate_makes_new_broker_pods_and_no_others() -> None:
    _, before = with_given(given())
    renewed = given()
    found, after = with_given(renewed, before)
    assert decoded(found.secrets["helpdesk-broker-tls"], "tls.crt") == renewed["tls.crt"]
    assert broker_pods(before) != broker_pods(after)
    changed = {name for name, secret in found.secrets.items() if secret is not before.get("Secret", name)}
    assert changed == {"helpdesk-broker-tls"}


def test_a_given_certificate_comes_and_goes() -> None:
    own = sample.applied(sample.deployment())
    found, observed = with_given(given(), own)
    assert found.broker_ca.encode() == THEIRS.certificate
    assert remade(observed, spec={"broker": {"managed": {}}}) == {
        "helpdesk-broker-tls", "helpdesk-cloud-peer-tls", "helpdesk-operator-tls",
    }  # fmt: skip
    back = plan_credentials(sample.deployment(), observed.secrets, sample.NOW)
    assert back.broker_ca.encode() == back.broker_authority.certificate
    assert SERVER_AUTHORITY not in back.secrets["helpdesk-broker-tls"]["data"]


BAD_CERTIFICATES: list[tuple[str, dict[str, bytes] | None, str]] = [
    ("no Secret", None, "Secret theirs of .* is missing"),
    ("no authority", {key: value for key, value in given().items() if key != "ca.crt"}, "has no key ca.crt"),
    ("no name in the cluster", given(hosts=["mqtt.example"]), "'helpdesk-broker.support.svc'.*it needs tls.crt"),
    ("no name outside", given(hosts=HOSTS[:1]), "mqtt.example: Hostname mismatch"),
    ("expired", given(valid=-dt.timedelta(minutes=1)), "expired"),
    ("another key", {**given(), "tls.key": given()["tls.key"]}, "do not belong together"),
    ("no certificate", {**given(), "tls.crt": b"nonsense"}, "are no PEM"),
    ("another authority", {**given(), "ca.crt": OTHERS.certificate}, "mqtt.example, and ca.crt of their authority"),
    ("no certificate of an authority", {**given(), "ca.crt": b"nonsense"}, "authority's certificate cannot be used"),
    ("too many authorities", {**given(), "ca.crt": THEIRS.certificate * 20}, "more than 8192 characters"),
]


@pytest.mark.parametrize(
    ("values", "words"), [case[1:] for case in BAD_CERTIFICATES], ids=[case[0] for case in BAD_CERTIFICATES]
)
def test_a_given_certificate_that_cannot_be_used_is_told_and_the_former_kept(
    values: dict[str, bytes] | None, words: str
) -> None:
    with pytest.raises(SettingsError, match=words) as error:
        with_given(values)
    assert isinstance(error.value, SecretMissingError) is (values is None)
    _, before = with_given(given())
    found, after = with_given(values, before)
    assert str(found.problem) == str(error.value)
    assert all(secret is before.get("Secret", name) for name, secret in found.secrets.items())
    assert broker_pods(before) == broker_pods(after)
    assert found.broker_ca.encode() == THEIRS.certificate


def test_until_a_given_certificate_comes_the_issued_one_is_kept() -> None:
    before = sample.applied(sample.deployment())
    found, after = with_given(None, before)
    assert isinstance(found.problem, SecretMissingError)
    assert all(secret is before.get("Secret", name) for name, secret in found.secrets.items())
    assert found.broker_ca.encode() == found.broker_authority.certificate
    assert broker_pods(before) == broker_pods(after)


def test_wildcards_and_addresses_count() -> None:
    spec = {"broker": {"managed": {"hosts": ["10.1.2.3"], "tls": {"secretRef": {"name": "theirs"}}}}}
    values = given(hosts=["*.support.svc", "10.1.2.3"])
    observed = Observed(foreign_secrets={"theirs": foreign(values)})
    assert plan_credentials(sample.deployment(spec), observed.secrets, sample.NOW).problem is None


def test_the_stores_former_passwords_are_kept_for_who_changes_them() -> None:
    observed, tokens = Observed(), []
    for rotation in ("", "one", "one", "two", "three", "four", "five"):
        made = sample.deployment(annotations={names.ROTATION: rotation} if rotation else {})
        secret = plan_credentials(made, observed.secrets, sample.NOW).secrets["helpdesk-milvus"]
        observed = Observed(children={("Secret", "helpdesk-milvus"): secret})
        tokens.append(decoded(secret, "token"))
        assert tokens[-1] == b"root:" + decoded(secret, "password")
    assert tokens[1] == tokens[2]
    assert len(set(tokens)) == len(tokens) - 1
    assert decoded(secret, names.FORMER_TOKENS).split() == tokens[-2:2:-1]


def test_passwords_differ() -> None:
    made = sample.deployment()
    secrets = [plan_credentials(made, Observed().secrets, sample.NOW).secrets["helpdesk-milvus"] for _ in range(2)]
    tokens = {decoded(secret, "token") for secret in secrets}
    assert len(tokens) == 2
    assert min(len(token) for token in tokens) > 40
