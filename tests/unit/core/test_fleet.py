"""Messages of the fleet, and join tokens."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragon_core.errors import OurError, PeerError
from dragon_core.fleet.join_token import PREFIX, JoinToken
from dragon_core.fleet.messages import (
    MAX_MESSAGE_BYTES,
    CertificateRequest,
    CertificateResponse,
    Configuration,
    Desired,
    DeviceModel,
    LinkReport,
    Presence,
    PresenceEvent,
    Refusal,
    Reported,
    SamplingDefaults,
    configuration_version,
    decode,
    encode,
    request_digest,
    secret_digest,
)
from dragon_core.topics import FleetTopic, Topics, require_device_name

SESSION = "0123456789abcdef" * 2
CONFIGURATION = Configuration(
    window=8,
    placement="edge",
    model=DeviceModel(url="https://models.example/a.gguf", sha256="ab" * 32),
    sampling=SamplingDefaults(temperature=0.0),
)
MESSAGES: list[Any] = [
    Presence(session=SESSION, event=PresenceEvent.BIRTH),
    Desired(configuration_version="ab" * 8, heartbeat_seconds=15.0, configuration=CONFIGURATION),
    Reported(session=SESSION, observed="ab" * 8, applied="", daemon_version="1", model="m", vocabulary="v"),
    LinkReport(session=SESSION, sequence=3, rtt_seconds=0.1, placement="cloud", hit_rate=0.5),
    CertificateRequest(nonce=SESSION, csr="csr"),
    CertificateResponse(nonce=SESSION, time=1, refusal=Refusal.TOKEN_USED, reason="used"),
]
TOKEN = JoinToken(
    namespace="ns", deployment="dep", device="d1", broker_host="broker.example", ca="PEM", secret="s" * 32, expires=9
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_what_is_sent_is_understood(message: Any) -> None:
    assert decode(encode(message), type(message)) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_another_version_is_refused_as_such(message: Any) -> None:
    with pytest.raises(PeerError, match="version 2; this end understands 1"):
        decode(encode(msgspec.structs.replace(message, version=2)), type(message))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"version":1}',
        b'{"version":1,"session":"x","event":"birth"}',
        b'{"version":1,"session":"%s","event":"born"}' % SESSION.encode(),
        b'{"version":1,"session":"%s","event":"birth","more":1}' % SESSION.encode(),
        b"[" * 10_000,
        b" " * (MAX_MESSAGE_BYTES + 1),
    ],
)
def test_what_does_not_fit_is_refused(payload: bytes) -> None:
    with pytest.raises(PeerError):
        decode(payload, Presence)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_hostile_payloads_are_refused(payload: bytes) -> None:
    for message in MESSAGES:
        with pytest.raises(PeerError):
            decode(payload, type(message))


@pytest.mark.parametrize(
    "configuration",
    [
        {"window": 0},
        {"branches": 17},
        {"placement": "moon"},
        {"sampling": {"temperature": 3}},
        {"sampling": {"top_p": 0}},
        {"model": {"url": "ftp://x/y", "sha256": "ab" * 32}},
        {"model": {"url": "https://x/y", "sha256": "ab"}},
        {"log_level": "loud"},
        {"windows": 3},
    ],
)
def test_limits_of_a_configuration(configuration: dict[str, Any]) -> None:
    whole = {"version": 1, "configuration_version": "", "heartbeat_seconds": 15, "configuration": configuration}
    with pytest.raises(PeerError):
        decode(msgspec.json.encode(whole), Desired)


def test_a_version_names_the_content() -> None:
    version = configuration_version(CONFIGURATION, heartbeat_seconds=15)
    assert version == configuration_version(msgspec.structs.replace(CONFIGURATION), heartbeat_seconds=15.0)
    assert version != configuration_version(CONFIGURATION, heartbeat_seconds=16)
    assert version != configuration_version(msgspec.structs.replace(CONFIGURATION, window=9), heartbeat_seconds=15)
    Desired(configuration_version=version, heartbeat_seconds=15.0, configuration=CONFIGURATION)


def test_digests_tell_apart() -> None:
    assert secret_digest("a") != secret_digest("b")
    one, two = CertificateRequest(nonce=SESSION, csr="a"), CertificateRequest(nonce=SESSION, csr="b")
    assert request_digest(one) != request_digest(two)


def test_a_token_is_one_line_that_comes_back() -> None:
    text = TOKEN.encode()
    assert text.isascii()
    assert not any(character.isspace() for character in text)
    assert JoinToken.decode(text) == TOKEN
    assert JoinToken.decode(f" {text[:20]}\n  {text[20:]}\n") == TOKEN


def test_a_token_does_not_show_its_secret() -> None:
    assert TOKEN.secret not in repr(TOKEN)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no join token"),
        ("eyJhbGciOi", "no join token"),
        (TOKEN.encode()[:-3], "damaged"),
        (TOKEN.encode()[:40] + "A" + TOKEN.encode()[41:], "damaged"),
        (PREFIX, "damaged"),
        (PREFIX + "ä", "damaged"),
        (PREFIX + "A" * 40_000, "damaged"),
        (msgspec.structs.replace(TOKEN, version=2).encode(), "version 2"),
        (msgspec.structs.replace(TOKEN, secret="short").encode(), "does not hold"),
        (msgspec.structs.replace(TOKEN, device="operator").encode(), "taken"),
        (msgspec.structs.replace(TOKEN, namespace="a/b").encode(), "namespace"),
    ],
)
def test_what_is_wrong_with_a_token_is_said_without_its_content(text: str, reason: str) -> None:
    with pytest.raises(OurError, match=reason) as refused:
        JoinToken.decode(text)
    assert TOKEN.secret not in str(refused.value)


@given(st.text(max_size=200) | st.text(max_size=200).map(lambda text: PREFIX + text))
def test_hostile_tokens_are_refused(text: str) -> None:
    with pytest.raises(OurError):
        JoinToken.decode(text)


@pytest.mark.parametrize("name", ["operator", "cloud-peer", "join-d1", "join-", "", "A", "a/b", "#"])
def test_names_of_others_are_no_devices(name: str) -> None:
    with pytest.raises(OurError):
        require_device_name(name)


def test_topics_of_the_fleet_are_understood() -> None:
    topics = Topics("ns", "dep")
    for kind in FleetTopic:
        topic = topics.fleet("d1", kind)
        assert topic.startswith(topics.device("d1") + "/")
        assert topics.parse_fleet(topic) == ("d1", kind)
    assert topics.parse_enrolment(topics.enrolment_request("d1")) == "d1"
    assert topics.parse_enrolment(topics.enrolment_response("d1")) == "d1"


@pytest.mark.parametrize("end", ["", "d1", "d1/", "D/presence", "d1/presence/x", "d1/open", "/presence"])
def test_other_topics_are_refused(end: str) -> None:
    topics = Topics("ns", "dep")
    with pytest.raises(PeerError):
        topics.parse_fleet(f"{topics.root}/devices/{end}")
    with pytest.raises(PeerError):
        topics.parse_fleet(f"dragon/v1/ns/other/devices/{end}")
    with pytest.raises(PeerError):
        topics.parse_enrolment(f"{topics.root}/enrolment/{end}")
