"""The identity on disk: whole or not there, and what settings make of it."""

import datetime as dt
from pathlib import Path

import pytest

from dragon_core.errors import OurError, SettingsError
from dragon_runtime.certificates import CertificateAuthority, IssuedCertificate, KeyAndRequest
from dragon_runtime.settings import load_settings
from edge_daemon.identity import IdentityStore, Membership
from edge_daemon.settings import EdgeSettings

MEMBERSHIP = Membership(namespace="ns", deployment="dep", device="d1", broker_host="broker.example", broker_port=8883)


@pytest.fixture
def authority() -> CertificateAuthority:
    return CertificateAuthority.create("test")


def install(folder: Path, authority: CertificateAuthority) -> IssuedCertificate:
    made = KeyAndRequest.make("d1")
    issued = authority.sign(made.csr, common_name="d1", valid=dt.timedelta(days=1))
    store = IdentityStore(folder)
    store.install(MEMBERSHIP, key=made.key_pem, certificate=issued.certificate, ca=authority.certificate)
    return issued


def test_there_is_none_at_first(tmp_path: Path) -> None:
    assert IdentityStore(tmp_path).load() is None
    assert not IdentityStore(tmp_path).forget()


def test_nobody_else_can_read_the_key(tmp_path: Path, authority: CertificateAuthority) -> None:
    install(tmp_path, authority)
    identity = IdentityStore(tmp_path).load()
    assert identity is not None
    assert identity.key_file.stat().st_mode & 0o777 == 0o600
    for folder in (tmp_path / "identity", identity.key_file.resolve().parent):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_new_certificate_replaces_the_old_one_whole(tmp_path: Path, authority: CertificateAuthority) -> None:
    first = install(tmp_path, authority)
    second = install(tmp_path, authority)
    identity = IdentityStore(tmp_path).load()
    assert identity is not None
    assert identity.certificate.serial_number == second.serial_number != first.serial_number
    kept = {path.name for path in (tmp_path / "identity").iterdir()}
    assert kept == {"current", second.serial_number}


def test_a_certificate_for_another_key_is_not_installed(tmp_path: Path, authority: CertificateAuthority) -> None:
    other = authority.issue_client("d1")
    with pytest.raises(OurError, match="not for this device's key"):
        IdentityStore(tmp_path).install(
            MEMBERSHIP, key=KeyAndRequest.make("d1").key_pem, certificate=other.certificate, ca=authority.certificate
        )
    assert IdentityStore(tmp_path).load() is None


@pytest.mark.parametrize("name", ["key.pem", "certificate.pem", "membership.json"])
def test_damage_is_named_with_what_to_do(tmp_path: Path, authority: CertificateAuthority, name: str) -> None:
    install(tmp_path, authority)
    (tmp_path / "identity" / "current" / name).write_bytes(b"damaged")
    with pytest.raises(OurError, match="dragon-edge reset"):
        IdentityStore(tmp_path).load()
    with pytest.raises(SettingsError, match="dragon-edge reset"):
        load_settings(EdgeSettings, overrides={"data_folder": tmp_path})


def test_a_request_is_kept_for_the_same_token_alone(tmp_path: Path) -> None:
    store = IdentityStore(tmp_path)
    first = store.pending("d1", token_digest="a", nonce="1" * 32)
    assert store.pending("d1", token_digest="a", nonce="2" * 32) == first
    assert store.pending("d1", token_digest="b", nonce="2" * 32) != first
    (store.folder / "pending" / "request.json").write_bytes(b"half")
    assert store.pending("d1", token_digest="b", nonce="3" * 32)[1].nonce == "3" * 32


def test_settings_need_nothing_more(tmp_path: Path, authority: CertificateAuthority) -> None:
    install(tmp_path, authority)
    settings = load_settings(EdgeSettings, overrides={"data_folder": tmp_path})
    assert (settings.namespace, settings.deployment, settings.device) == ("ns", "dep", "d1")
    assert (settings.broker.host, settings.broker.port) == ("broker.example", 8883)
    assert settings.broker.key_file == tmp_path / "identity" / "current" / "key.pem"


def test_settings_that_are_given_win(tmp_path: Path, authority: CertificateAuthority) -> None:
    install(tmp_path, authority)
    settings = load_settings(EdgeSettings, overrides={"data_folder": tmp_path, "broker.host": "127.0.0.1"})
    assert (settings.device, settings.broker.host, settings.broker.port) == ("d1", "127.0.0.1", 8883)
    settings = load_settings(EdgeSettings, overrides={"data_folder": tmp_path, "device": "d2"})
    assert (settings.device, settings.namespace, settings.broker.ca_file) == ("d2", "default", None)
