"""The fleet over a real mosquitto with its dynamic security plugin: who gets in, who is put out, and what is said."""

import asyncio
import datetime as dt
import secrets
import shutil
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiomqtt
import msgspec
import pytest

from dragon_core.errors import OurError, RetryableError
from dragon_core.fleet.join_token import JoinToken
from dragon_core.fleet.messages import Configuration, SamplingDefaults, configuration_version, secret_digest
from dragon_core.topics import FleetTopic, Topics
from dragon_operator.fleet import (
    DesiredDevice,
    DeviceReport,
    Fleet,
    Issued,
    JoinSecret,
    PresenceReason,
    PresenceState,
)
from dragon_runtime.certificates import CertificateFolder, IssuedCertificate
from dragon_runtime.channel.connection import MqttConnection
from edge_daemon.fleet.joining import TokenRefusedError
from edge_daemon.identity import DeviceIdentity, IdentityStore
from edge_daemon.settings import EdgeSettings
from tests.servers.fleet_broker import FleetBroker, find_plugin
from tests.servers.fleet_device import FleetDevice, enrol

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(find_plugin() is None, reason="mosquitto's dynamic security plugin is not installed"),
]

TOPICS = Topics("ns", "dep")
DEADLINE = 20
HEARTBEAT = 0.2


class Office:
    """What stands for the Kubernetes side: signs, keeps what was issued, makes tokens."""

    def __init__(self, broker: FleetBroker) -> None:
        self.broker = broker
        self.issued: list[Issued] = []
        self.valid = dt.timedelta(days=90)
        self.refusal: OurError | None = None

    def _ca(self) -> str:
        return self.broker.server_authority.certificate.decode()

    async def sign(self, device: str, csr: bytes) -> IssuedCertificate:
        return self.broker.authority.sign(csr, common_name=device, valid=self.valid)

    async def on_issued(self, issued: Issued) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.issued.append(issued)

    @asynccontextmanager
    async def fleet(self) -> AsyncIterator[Fleet]:
        """An operator's fleet that is connected."""
        fleet = Fleet(
            self.broker.settings("operator"),
            TOPICS,
            sign=self.sign,
            on_issued=self.on_issued,
            ca=self._ca,
            heartbeat_seconds=HEARTBEAT,
            max_changes_per_second=100,
        )
        async with fleet:
            await until(lambda: fleet.is_connected, "the operator is connected")
            yield fleet

    def wanted(self, name: str = "d1", *, minutes: float = 10) -> tuple[DesiredDevice, str]:
        """A device with a new join token, and the token."""
        secret, expires = secrets.token_urlsafe(32), int(time.time() + 60 * minutes)
        token = JoinToken(
            namespace="ns",
            deployment="dep",
            device=name,
            broker_host="localhost",
            broker_port=self.broker.port,
            enrolment_port=self.broker.enrolment_port,
            ca=self._ca(),
            secret=secret,
            expires=expires,
        )
        join = JoinSecret(secret=secret, expires=expires)
        return DesiredDevice(name=name, join=join), token.encode()


async def until(is_true: Callable[[], object], what: str, *, seconds: float = DEADLINE) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not is_true():  # noqa: ASYNC110 - polled: many things are waited for
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"not within {seconds} s: {what}")


def report_of(fleet: Fleet, device: str = "d1") -> DeviceReport:
    report = fleet.report(device)
    assert report is not None
    return report


async def until_state(fleet: Fleet, state: PresenceState, device: str = "d1") -> DeviceReport:
    await until(lambda: report_of(fleet, device).presence is state, f"{device} is {state}")
    return report_of(fleet, device)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[FleetBroker]:
    async with FleetBroker(tmp_path / "broker", TOPICS) as broker:
        yield broker


@pytest.fixture
def office(broker: FleetBroker) -> Office:
    return Office(broker)


async def test_a_device_enrols_with_a_token_and_is_there(office: Office, tmp_path: Path) -> None:
    device, token = office.wanted()
    async with office.fleet() as fleet:
        await fleet.sync([device])
        identity = await enrol(token, tmp_path / "d1")
        assert [issued.serial_number for issued in office.issued] == [identity.certificate.serial_number]
        assert not report_of(fleet).is_joined
        async with FleetDevice(tmp_path / "d1") as edge:
            report = await until_state(fleet, PresenceState.READY)
            await until(lambda: report_of(fleet).is_joined, "the token is used up")
            await until(lambda: report_of(fleet).reported is not None, "the device reports")
            reported = report_of(fleet).reported
            assert reported is not None
            assert (reported.daemon_version, reported.model) == ("1.2.3", "toy")
            assert reported.certificate_serial == identity.certificate.serial_number
            assert report.last_seen is not None
            assert edge.settings.device == "d1"
        report = await until_state(fleet, PresenceState.UNREACHABLE)
        assert report.reason is PresenceReason.STOPPED


async def test_a_token_is_used_once(office: Office, tmp_path: Path) -> None:
    device, token = office.wanted()
    async with office.fleet() as fleet:
        await fleet.sync([device])
        await enrol(token, tmp_path / "d1")
        with pytest.raises(TokenRefusedError, match="already used"):
            await enrol(token, tmp_path / "thief")
        async with FleetDevice(tmp_path / "d1"):
            await until(lambda: report_of(fleet).is_joined, "the token is used up")
            await until_refused_at_the_door(token, tmp_path / "thief")
            await fleet.sync([device])  # still passed, as long as its Secret is there
            with pytest.raises(TokenRefusedError, match="refuses this token"):
                await enrol(token, tmp_path / "thief")
        assert len(office.issued) == 1


async def until_refused_at_the_door(token: str, folder: Path) -> None:
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                await enrol(token, folder)
            except TokenRefusedError as error:
                if "refuses this token" in str(error):
                    return
            await asyncio.sleep(0.05)


async def test_a_lost_answer_is_given_again_even_by_another_operator(office: Office, tmp_path: Path) -> None:
    device, token = office.wanted()
    async with office.fleet() as fleet:
        await fleet.sync([device])
        first = await enrol_without_keeping(token, tmp_path / "d1")
        again = await enrol_without_keeping(token, tmp_path / "d1")
    async with office.fleet() as fleet:
        await fleet.sync([device])
        third = await enrol(token, tmp_path / "d1")
    assert {first, again} == {third.certificate.serial_number}
    assert len(office.issued) == 1


async def enrol_without_keeping(token: str, folder: Path) -> str:
    """As if the power went before the certificate was written: the request is kept, the certificate is not."""
    store = IdentityStore(folder)
    pending = folder / "pending-copy"
    key, request = store.pending("d1", token_digest=_digest(token), nonce=secrets.token_hex(16))
    assert (key, request) == store.pending("d1", token_digest=_digest(token), nonce=secrets.token_hex(16))
    shutil.copytree(store.folder / "pending", pending, dirs_exist_ok=True)
    identity = await enrol(token, folder)
    serial_number = identity.certificate.serial_number
    store.forget()
    store.folder.mkdir()
    shutil.copytree(pending, store.folder / "pending")
    return serial_number


def _digest(token: str) -> str:
    return secret_digest(JoinToken.decode(token).secret)


async def test_a_token_opens_its_own_device_only(office: Office, tmp_path: Path) -> None:
    ours, our_token = office.wanted("d1")
    theirs, _ = office.wanted("d2")
    async with office.fleet() as fleet:
        await fleet.sync([ours, theirs])
        forged = replace_device(our_token, "d2")
        with pytest.raises(TokenRefusedError, match="refuses this token"):
            await enrol(forged, tmp_path / "d2")
        assert office.issued == []


def replace_device(token: str, device: str) -> str:
    return msgspec.structs.replace(JoinToken.decode(token), device=device).encode()


async def test_what_is_wrong_with_a_token_is_said(office: Office, tmp_path: Path) -> None:
    device, token = office.wanted()
    _, old = office.wanted(minutes=-1)
    async with office.fleet() as fleet:
        await fleet.sync([])
        with pytest.raises(OurError, match=r"expired at .* clock says"):
            await enrol(old, tmp_path / "d1")
        with pytest.raises(TokenRefusedError, match="refuses this token"):
            await enrol(token, tmp_path / "d1")
        with pytest.raises(OurError, match="damaged"):
            await enrol(token[:-7], tmp_path / "d1")
        await fleet.sync([device])
        office.refusal = OurError("the API server is away")
        with pytest.raises(RetryableError, match="the operator did not answer"):
            await enrol(token, tmp_path / "d1", answer_seconds=1)
        office.refusal = None
        await enrol(token, tmp_path / "d1")


async def test_a_broker_of_another_authority_is_not_believed(office: Office, tmp_path: Path) -> None:
    _, token = office.wanted()
    stranger = CertificateFolder(tmp_path / "stranger", name="stranger")
    foreign = msgspec.structs.replace(JoinToken.decode(token), ca=stranger.authority.certificate.decode())
    with pytest.raises(OurError, match="cannot be trusted"):
        await enrol(foreign.encode(), tmp_path / "d1")


async def test_a_broker_certified_by_another_authority_than_its_clients(tmp_path: Path) -> None:
    others = CertificateFolder(tmp_path / "others", name="others")
    async with FleetBroker(tmp_path / "broker", TOPICS, server_authority=others.authority) as broker:
        office = Office(broker)
        device, token = office.wanted()
        assert JoinToken.decode(token).ca == others.authority.certificate.decode()
        async with office.fleet() as fleet:
            await fleet.sync([device])
            await enrol(token, tmp_path / "d1")
            async with FleetDevice(tmp_path / "d1") as edge:
                assert _identity(edge).ca_file.read_bytes() == others.authority.certificate
                await until_state(fleet, PresenceState.READY)
            # Who certifies the broker lets nobody in.
            stranger = MqttConnection(broker.settings_of(others.issue("operator")), client_id="stranger")
            async with stranger:
                await until(lambda: stranger.problem, "it is refused")
                assert not stranger.is_connected


async def test_an_unreachable_broker_is_named(office: Office, broker: FleetBroker, tmp_path: Path) -> None:
    _, token = office.wanted()
    broker.stop()
    with pytest.raises(RetryableError, match=rf"localhost:{broker.enrolment_port} cannot be reached"):
        await enrol(token, tmp_path / "d1")


async def joined(office: Office, fleet: Fleet, folder: Path, *names: str) -> list[DesiredDevice]:
    """Devices that have enrolled, each below `folder`."""
    made = [office.wanted(name) for name in names]
    await fleet.sync([device for device, _ in made])
    for device, token in made:
        await enrol(token, folder / device.name)
    return [device for device, _ in made]


async def test_revoking_ends_the_connection_and_no_other_works(
    office: Office, broker: FleetBroker, tmp_path: Path
) -> None:
    async with office.fleet() as fleet:
        await joined(office, fleet, tmp_path, "d1", "d2")
        async with FleetDevice(tmp_path / "d1") as edge, FleetDevice(tmp_path / "d2") as other:
            await until_state(fleet, PresenceState.READY)
            started = time.monotonic()
            wanted = [DesiredDevice(name="d1", is_revoked=True), DesiredDevice(name="d2")]
            await fleet.sync(wanted)
            await until(lambda: False in edge.connections, "the live connection ends", seconds=5)
            assert time.monotonic() - started < 5
            report = await until_state(fleet, PresenceState.UNREACHABLE)
            # It may connect again until the list is read, but reaches nobody.
            await until(lambda: edge.connection.is_connected, "its certificate still opens a connection")
            await asyncio.sleep(5 * HEARTBEAT)
            assert report_of(fleet).last_seen == pytest.approx(report.last_seen, abs=dt.timedelta(seconds=0.5))
            broker.revoke(office.issued[0].serial_number)
            await fleet.sync(wanted)
            await until(lambda: not edge.connection.is_connected, "it is put out again")
            await asyncio.sleep(2)
            assert not edge.connection.is_connected
            assert report_of(fleet).presence is PresenceState.UNREACHABLE
            assert other.connection.is_connected
            assert False not in other.connections
        with pytest.raises(TokenRefusedError, match="refuses this token"):
            await enrol(office.wanted()[1], tmp_path / "again")


async def test_a_device_reaches_its_own_subtree_only(office: Office, broker: FleetBroker, tmp_path: Path) -> None:
    async with office.fleet() as fleet, AsyncExitStack() as stack:
        await joined(office, fleet, tmp_path, "d1", "d2")
        one = await stack.enter_async_context(FleetDevice(tmp_path / "d1"))
        two = await stack.enter_async_context(FleetDevice(tmp_path / "d2"))
        peer = MqttConnection(broker.settings("cloud-peer"), client_id="peer")
        await stack.enter_async_context(peer)
        for connection in (one.connection, two.connection, peer):
            await until(lambda connection=connection: connection.is_connected, "connected")  # type: ignore[misc]
        heard_by_one: list[str] = []
        await one.connection.subscribe(TOPICS.all_down("d1"), lambda topic, _: heard_by_one.append(topic))
        heard_by_peer: list[str] = []
        for topic_filter in ("#", f"{TOPICS.device('d2')}/#", "$CONTROL/#", f"{TOPICS.root}/enrolment/#"):
            await one.connection.subscribe(topic_filter, lambda topic, _: heard_by_one.append(topic))
        session = "ab" * 16
        await peer.subscribe(TOPICS.all_opens, lambda topic, _: heard_by_peer.append(topic), qos=1)
        await peer.subscribe("#", lambda topic, _: heard_by_peer.append(topic))
        await two.connection.publish(TOPICS.open("d2", session), b"open")
        await one.connection.publish(TOPICS.open("d2", session), b"forged")
        await one.connection.publish(TOPICS.open("d1", session), b"open")
        await until(lambda: len(heard_by_peer) >= 2, "the peer hears both devices")
        await peer.publish(TOPICS.down("d1", session), b"answer")
        await peer.publish(TOPICS.down("d2", session), b"answer")
        # Nor may a cloud peer enrol or command devices.
        await peer.publish(TOPICS.fleet("d1", FleetTopic.CERTIFICATE_REQUEST), b"{}")
        await peer.publish(TOPICS.fleet("d1", FleetTopic.DESIRED), b"{}", is_retained=True)
        await until(lambda: TOPICS.down("d1", session) in heard_by_one, "the device hears its answer")
        await asyncio.sleep(0.3)
        assert sorted(heard_by_peer) == [TOPICS.open("d1", session), TOPICS.open("d2", session)]
        assert {topic for topic in heard_by_one if not topic.startswith(TOPICS.device("d1"))} == set()
        reported = report_of(fleet).reported
        assert reported is not None
        assert reported.error == ""


async def test_a_device_cannot_log_in_without_its_certificate(
    office: Office, broker: FleetBroker, tmp_path: Path
) -> None:
    async with office.fleet() as fleet:
        await joined(office, fleet, tmp_path, "d1")
        for user in ("d1", "operator", "cloud-peer"):
            for password in (None, "", "x"):
                with pytest.raises(aiomqtt.MqttError):
                    await log_in(broker, user, password)


async def log_in(broker: FleetBroker, user: str, password: str | None) -> None:
    context = ssl.create_default_context(cafile=str(broker.ca_file))
    async with aiomqtt.Client(
        "localhost",
        broker.enrolment_port,
        username=user,
        password=password,
        protocol=aiomqtt.ProtocolVersion.V5,
        tls_context=context,
        timeout=3,
    ):
        pass


async def test_presence_follows_heartbeats_and_wills(office: Office, tmp_path: Path) -> None:
    async with office.fleet() as fleet:
        await joined(office, fleet, tmp_path, "d1")
        reports: list[DeviceReport] = []

        async def read() -> None:
            async for report in fleet.reports():
                reports.append(report)  # noqa: PERF401 - it never ends

        reading = asyncio.create_task(read())
        edge = FleetDevice(tmp_path / "d1")
        await edge.__aenter__()
        await until_state(fleet, PresenceState.READY)
        await until(lambda: edge.twin.heartbeat_seconds == HEARTBEAT, "the device knows how often to be heard")
        await edge.vanish()
        report = await until_state(fleet, PresenceState.UNREACHABLE)
        assert report.reason is PresenceReason.CONNECTION_LOST
        async with FleetDevice(tmp_path / "d1"):
            await until_state(fleet, PresenceState.READY)
            await until(lambda: reports and reports[-1].presence is PresenceState.READY, "that is told")
        await until(lambda: reports[-1].presence is PresenceState.UNREACHABLE, "and that it went")
        reading.cancel()
        assert len(reports) < 15


async def test_silence_is_noticed(office: Office, tmp_path: Path) -> None:
    async with office.fleet() as fleet:
        await joined(office, fleet, tmp_path, "d1")
        async with FleetDevice(tmp_path / "d1") as edge:
            await until_state(fleet, PresenceState.READY)
            edge.member._tasks[0].cancel()
            report = await until_state(fleet, PresenceState.STALE)
            assert report.reason is PresenceReason.HEARTBEAT_LATE
            report = await until_state(fleet, PresenceState.UNREACHABLE)
            assert report.reason is PresenceReason.HEARTBEAT_LOST


async def test_what_is_wanted_arrives_also_after_a_time_offline(office: Office, tmp_path: Path) -> None:
    async with office.fleet() as fleet:
        await joined(office, fleet, tmp_path, "d1")
        async with FleetDevice(tmp_path / "d1") as edge:
            await until_state(fleet, PresenceState.READY)
            wanted = Configuration(window=7, placement="edge", sampling=SamplingDefaults(temperature=0.0, max_tokens=9))
            await sync_and_wait(fleet, wanted)
            now = edge.applied[-1]
            assert (now.window, now.placement.value, now.sampling.temperature) == (7, "edge", 0.0)
            assert now.api.default_max_tokens == 9
        later = Configuration(window=8, log_level="debug")
        await fleet.sync([DesiredDevice(name="d1", configuration=later)])
        async with FleetDevice(tmp_path / "d1") as edge:
            await until_applied(fleet, later)
            assert edge.applied[-1].window == 8
        # Kept on the device: in force at its next start, before anybody is asked.
        assert FleetDevice(tmp_path / "d1").twin.settings.window == 8


async def sync_and_wait(fleet: Fleet, configuration: Configuration) -> None:
    await fleet.sync([DesiredDevice(name="d1", configuration=configuration)])
    await until_applied(fleet, configuration)


async def until_applied(fleet: Fleet, configuration: Configuration) -> None:
    version = configuration_version(configuration, heartbeat_seconds=HEARTBEAT)

    def is_applied() -> bool:
        reported = report_of(fleet).reported
        return reported is not None and (reported.observed, reported.applied) == (version, version)

    await until(is_applied, "the configuration is applied")


async def test_what_cannot_be_is_refused_with_a_reason(office: Office, tmp_path: Path) -> None:
    async with office.fleet() as fleet:
        await joined(office, fleet, tmp_path, "d1")
        async with FleetDevice(tmp_path / "d1") as edge:
            await sync_and_wait(fleet, Configuration(window=5))
            await fleet.sync([DesiredDevice(name="d1", configuration=Configuration(branches=16))])
            await until(lambda: "num_sequences" in _error(fleet), "the reason is reported")
            reported = report_of(fleet).reported
            assert reported is not None
            assert reported.applied == ""
            assert edge.twin.settings.branches == EdgeSettings(device="d1").branches


def _error(fleet: Fleet) -> str:
    reported = report_of(fleet).reported
    return "" if reported is None else reported.error


async def test_a_certificate_is_renewed_with_a_new_key(office: Office, tmp_path: Path) -> None:
    async with office.fleet() as fleet:
        # It is made to begin five minutes ago: two thirds of its life are over at once.
        office.valid = dt.timedelta(seconds=60)
        await joined(office, fleet, tmp_path, "d1")
        office.valid = dt.timedelta(days=90)
        edge = FleetDevice(tmp_path / "d1")
        before = _identity(edge)
        key = before.key_file.read_bytes()
        async with edge:
            await until(edge.renewed.is_set, "the certificate is renewed")
            after = _identity(edge)
            assert after.certificate.serial_number != before.certificate.serial_number
            assert after.key_file.read_bytes() != key
            await until(
                lambda: (
                    (reported := report_of(fleet).reported) is not None
                    and reported.certificate_serial == after.certificate.serial_number
                ),
                "the new one is reported",
            )
        async with FleetDevice(tmp_path / "d1"):
            await until_state(fleet, PresenceState.READY)
        assert [issued.is_renewal for issued in office.issued] == [False, True]


def _identity(edge: FleetDevice) -> DeviceIdentity:
    identity = edge.store.load()
    assert identity is not None
    return identity


async def test_an_operator_that_was_restarted_knows_the_fleet(office: Office, tmp_path: Path) -> None:
    async with office.fleet() as fleet:
        wanted = await joined(office, fleet, tmp_path, "d1", "d2")
        async with FleetDevice(tmp_path / "d2"):
            await until_state(fleet, PresenceState.READY, "d2")
    async with FleetDevice(tmp_path / "d1"), office.fleet() as fleet:
        result = await fleet.sync(wanted)
        assert result.problems == {}
        await until_state(fleet, PresenceState.READY, "d1")
        assert (await until_state(fleet, PresenceState.UNREACHABLE, "d2")).reason is PresenceReason.STOPPED
        await until(lambda: report_of(fleet).is_joined, "its token is known to be used")
        await fleet.sync(wanted)
        assert (await fleet.sync(wanted)).num_changes == 0
        summary = fleet.summary()
        assert (summary.ready, summary.unreachable, summary.total) == (1, 1, 2)


async def test_a_broker_that_lost_everything_is_told_again(office: Office, broker: FleetBroker, tmp_path: Path) -> None:
    async with office.fleet() as fleet:
        await joined(office, fleet, tmp_path, "d1")
        async with FleetDevice(tmp_path / "d1") as edge:
            await sync_and_wait(fleet, Configuration(window=5))
            await until_state(fleet, PresenceState.READY)
            broker.stop(hard=True)
            broker.forget_everything()
            await until(lambda: not fleet.is_connected, "the operator lost the broker")
            await asyncio.sleep(12 * HEARTBEAT)
            assert report_of(fleet).presence is PresenceState.READY  # silence of a lost broker says nothing
            await broker.start()
            await until(lambda: fleet.is_connected and edge.connection.is_connected, "both are back", seconds=40)
            seen = report_of(fleet).last_seen
            await until(lambda: report_of(fleet).last_seen != seen, "the device is heard again", seconds=40)
            # What it subscribed to before the broker knew it again was denied without a word.
            await sync_and_wait(fleet, Configuration(window=6))
            await until(lambda: edge.applied and edge.applied[-1].window == 6, "the device hears again", seconds=40)


async def test_a_device_that_is_wanted_no_more_is_forgotten(
    office: Office, broker: FleetBroker, tmp_path: Path
) -> None:
    async with office.fleet() as fleet:
        await joined(office, fleet, tmp_path, "d1")
        async with FleetDevice(tmp_path / "d1") as edge:
            await until_state(fleet, PresenceState.READY)
            await fleet.sync([])
            await until(lambda: False in edge.connections, "its connection ends", seconds=5)
            assert fleet.report("d1") is None
            kept: list[str] = []
            listening = MqttConnection(broker.settings("operator"), client_id="listener")
            async with listening:
                await listening.subscribe(f"{TOPICS.root}/#", lambda topic, _: kept.append(topic))
                await until(lambda: listening.is_connected, "connected")
                await asyncio.sleep(0.5)
            assert [topic for topic in kept if "/devices/" in topic] == []


async def test_clients_of_others_are_left_alone(office: Office, broker: FleetBroker) -> None:
    async with office.fleet() as fleet:
        await fleet._security.run([{"command": "createClient", "username": "metrics", "password": "long enough"}])
        device, _ = office.wanted("metrics")
        other, _ = office.wanted("d1")
        result = await fleet.sync([device, other, DesiredDevice(name="operator"), DesiredDevice(name="join-d1")])
        assert set(result.problems) == {"metrics", "operator", "join-d1"}
        state = await fleet._security.state()
        assert state.clients["metrics"].roles == frozenset()
        assert "d1" in state.clients
