"""An authority in memory: what it issues, signs and revokes."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dragon_core.errors import PeerError
from dragon_runtime.certificates import CertificateAuthority, IssuedCertificate, KeyAndRequest, server_problem

DAY = dt.timedelta(days=1)


@pytest.fixture
def authority() -> CertificateAuthority:
    return CertificateAuthority.create("test")


def test_it_comes_back_from_what_is_kept(authority: CertificateAuthority) -> None:
    again = CertificateAuthority.load(authority.certificate, authority.private_key)
    issued = x509.load_pem_x509_certificate(again.issue_client("d1", valid=DAY).certificate)
    issued.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))


def test_what_does_not_belong_together_is_refused(authority: CertificateAuthority) -> None:
    other = CertificateAuthority.create("other")
    leaf = authority.issue_client("d1", valid=DAY)
    for certificate, key in (
        (authority.certificate, other.private_key),
        (authority.certificate, b"no key"),
        (b"no certificate", authority.private_key),
        (leaf.certificate, leaf.key or b""),
    ):
        with pytest.raises(ValueError, match=r".+"):
            CertificateAuthority.load(certificate, key)


def test_a_server_has_its_names_and_addresses(authority: CertificateAuthority) -> None:
    issued = authority.issue_server("broker", hosts=["broker.ns.svc", "10.0.0.1", "::1"], valid=DAY)
    certificate = x509.load_pem_x509_certificate(issued.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.ns.svc"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1", "::1"]


def test_a_request_gets_its_key_certified_and_nothing_else_it_asks_for(authority: CertificateAuthority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "operator")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("broker")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    issued = authority.sign(csr.public_bytes(serialization.Encoding.PEM), common_name="d1", valid=DAY)
    assert issued.key is None
    certificate = x509.load_pem_x509_certificate(issued.certificate)
    assert certificate.public_key() == key.public_key()
    assert [name.value for name in certificate.subject] == ["d1"]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_bad_requests_are_refused(authority: CertificateAuthority) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    of_rsa = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    good = x509.load_pem_x509_csr(KeyAndRequest.make("d1").csr).public_bytes(serialization.Encoding.DER)
    forged = x509.load_der_x509_csr(good[:-1] + bytes([good[-1] ^ 1])).public_bytes(serialization.Encoding.PEM)
    for csr in (b"", b"no request", of_rsa, forged):
        with pytest.raises(PeerError):
            authority.sign(csr, common_name="d1", valid=DAY)


def test_the_revocation_list_names_what_it_is_given(authority: CertificateAuthority) -> None:
    issued = authority.issue_client("d1", valid=DAY)
    found = x509.load_pem_x509_crl(authority.revocation_list([issued.serial_number, issued.serial_number]))
    assert [f"{entry.serial_number:x}" for entry in found] == [issued.serial_number]
    public_key = x509.load_pem_x509_certificate(authority.certificate).public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    assert found.is_signature_valid(public_key)
    assert list(x509.load_pem_x509_crl(authority.revocation_list([]))) == []


def test_the_parts_of_a_life(authority: CertificateAuthority) -> None:
    issued = authority.issue_client("d1", valid=DAY)
    assert IssuedCertificate.load(issued.certificate, issued.key) == issued
    middle = issued.begins + (issued.expires - issued.begins) / 2
    assert issued.is_past(0.5, middle)
    assert not issued.is_past(0.6, middle)
    assert issued.is_past(1.0, issued.expires)


def test_a_server_is_believed_at_its_names_while_it_is_valid(authority: CertificateAuthority) -> None:
    other = CertificateAuthority.create("other")
    made = authority.issue_server("server", hosts=["a.example", "*.b.example", "10.0.0.1"], valid=DAY)
    ended = authority.issue_server("server", hosts=["a.example"], valid=-dt.timedelta(minutes=1))
    client = authority.issue_client("a.example", valid=DAY)

    def problem(issued: IssuedCertificate, ca: bytes, *hosts: str, key: bytes | None = None) -> str:
        return server_problem(issued.certificate, key or issued.key or b"", ca, hosts=hosts) or ""

    assert not problem(made, authority.certificate, "a.example", "x.b.example", "10.0.0.1")
    assert not problem(made, other.certificate + authority.certificate, "a.example")
    assert "c.example: Hostname mismatch" in problem(made, authority.certificate, "a.example", "c.example")
    assert "10.0.0.2: IP address mismatch" in problem(made, authority.certificate, "10.0.0.2")
    assert "expired" in problem(ended, authority.certificate, "a.example")
    assert "a.example: " in problem(made, other.certificate, "a.example")
    assert "a.example: " in problem(client, authority.certificate, "a.example")
    for key in (ended.key, encrypted(made), b"nonsense"):
        assert "do not belong together" in problem(made, authority.certificate, "a.example", key=key)
    assert "authority's certificate" in problem(made, b"", "a.example")
    assert "authority's certificate" in problem(made, b"\xff", "a.example")


def encrypted(issued: IssuedCertificate) -> bytes:
    key = serialization.load_pem_private_key(issued.key or b"", password=None)
    locked = serialization.BestAvailableEncryption(b"word")
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
