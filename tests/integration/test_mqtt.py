"""Channels over a real mosquitto: order, loss of the broker, draining, and who may touch what."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiomqtt import MqttError, ProtocolVersion

from dragon_core.errors import OurError, RetryableError
from dragon_core.topics import Topics
from dragon_runtime.certificates import CertificateFolder, Identity, ServerTls
from dragon_runtime.channel.client import BrokerClient, packet_bytes
from dragon_runtime.channel.connection import MqttConnection
from dragon_runtime.channel.mqtt import CloudChannels, EdgeChannels, ReplicaChannel
from dragon_runtime.interfaces import Channel, LinkRestored
from dragon_runtime.settings.groups import BrokerSettings
from tests.servers.broker import Broker

pytestmark = pytest.mark.integration

TOPICS = Topics("default", "dragon")
DEADLINE = 20


class Replica:
    """A replica that keeps the channels of what was opened."""

    def __init__(self, connection: MqttConnection, name: str) -> None:
        self.opened: asyncio.Queue[tuple[str, bytes, ReplicaChannel]] = asyncio.Queue()
        self.channels = CloudChannels(
            connection, TOPICS, name, lambda device, _, frame, channel: self.opened.put_nowait((device, frame, channel))
        )


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with Broker(tmp_path) as broker:
        yield broker


async def connected(stack: AsyncExitStack, settings: BrokerSettings, name: str) -> MqttConnection:
    connection = await stack.enter_async_context(MqttConnection(settings, client_id=name))
    async with asyncio.timeout(DEADLINE):
        await connection.wait_until_connected()
    return connection


async def device_and_replica(stack: AsyncExitStack, broker: Broker) -> tuple[EdgeChannels, Replica]:
    edge = EdgeChannels(await connected(stack, broker.settings, "edge"), TOPICS, "d1")
    replica = Replica(await connected(stack, broker.settings, "cloud"), "r1")
    await edge.start()
    await replica.channels.start()
    return edge, replica


async def receive(channel: Channel) -> bytes | LinkRestored:
    async with asyncio.timeout(DEADLINE):
        return await channel.receive()


async def test_frames_keep_their_order_both_ways(broker: Broker) -> None:
    async with AsyncExitStack() as stack:
        edge, replica = await device_and_replica(stack, broker)
        ours = edge.create(secrets.token_hex(16))
        ours.send_open(b"open")
        async with asyncio.timeout(DEADLINE):
            device, frame, theirs = await replica.opened.get()
        assert (device, frame) == ("d1", b"open")
        ours.bind("r1")
        for burst in range(20):
            for number in range(100):
                ours.send(b"%d" % (100 * burst + number))
                theirs.send(b"%d" % (100 * burst + number))
            assert [await receive(theirs) for _ in range(100)] == [b"%d" % (100 * burst + n) for n in range(100)]
            assert [await receive(ours) for _ in range(100)] == [b"%d" % (100 * burst + n) for n in range(100)]
        assert (ours.num_lost, theirs.num_lost, replica.channels.num_unknown) == (0, 0, 0)
        assert ours.received_bytes == sum(len(b"%d" % n) for n in range(2000))


async def test_both_ends_come_back_after_the_broker_was_killed(broker: Broker) -> None:
    async with AsyncExitStack() as stack:
        edge, replica = await device_and_replica(stack, broker)
        ours = edge.create(secrets.token_hex(16))
        ours.send_open(b"open")
        async with asyncio.timeout(DEADLINE):
            _, _, theirs = await replica.opened.get()
        ours.bind("r1")
        broker.kill()
        await broker.start()
        assert await receive(ours) == LinkRestored()
        assert await receive(theirs) == LinkRestored()
        ours.send(b"again")
        theirs.send(b"yes")
        assert await receive(theirs) == b"again"
        assert await receive(ours) == b"yes"
        edge.create(secrets.token_hex(16)).send_open(b"another")
        async with asyncio.timeout(DEADLINE):
            assert (await replica.opened.get())[1] == b"another"


async def test_what_was_sent_last_goes_out_before_the_connection_ends(broker: Broker) -> None:
    received: asyncio.Queue[bytes] = asyncio.Queue()
    async with AsyncExitStack() as stack:
        reader = await connected(stack, broker.settings, "reader")
        await reader.subscribe("last/words", lambda _, payload: received.put_nowait(payload))
        async with AsyncExitStack() as leaving:
            writer = await connected(leaving, broker.settings, "writer")
            for number in range(100):
                assert writer.send("last/words", b"%d" % number)
        async with asyncio.timeout(DEADLINE):
            assert [await received.get() for _ in range(100)] == [b"%d" % number for number in range(100)]


async def test_a_draining_replica_leaves_new_sessions_to_others(broker: Broker) -> None:
    async with AsyncExitStack() as stack:
        edge, first = await device_and_replica(stack, broker)
        second = Replica(await connected(stack, broker.settings, "cloud2"), "r2")
        await second.channels.start()
        await first.channels.stop_accepting()
        for number in range(10):
            edge.create(secrets.token_hex(16)).send_open(b"%d" % number)
        async with asyncio.timeout(DEADLINE):
            frames = {(await second.opened.get())[1] for _ in range(10)}
        assert frames == {b"%d" % number for number in range(10)}
        assert first.opened.empty()


def settings_of(broker: Broker, authority: CertificateFolder, identity: Identity) -> BrokerSettings:
    return BrokerSettings(
        host="localhost",
        port=broker.port,
        ca_file=authority.certificate_file,
        certificate_file=identity.certificate_file,
        key_file=identity.key_file,
    )


async def test_a_device_touches_only_its_own_subtree(tmp_path: Path) -> None:
    authority = CertificateFolder(tmp_path / "ca", name="test")
    tls = ServerTls(authority.certificate_file, authority.issue("broker", is_server=True))
    async with Broker(tmp_path, topics=TOPICS, tls=tls, replicas=("r1",)) as broker, AsyncExitStack() as stack:
        seen: dict[str, list[bytes]] = {"d1": [], "d2": [], "r1": []}
        connections = {}
        for name in seen:
            settings = settings_of(broker, authority, authority.issue(name))
            connections[name] = await connected(stack, settings, name)
        done = asyncio.Event()
        await connections["d2"].subscribe(f"{TOPICS.root}/#", lambda _, payload: seen["d2"].append(payload))

        def at_replica(_: str, payload: bytes) -> None:
            seen["r1"].append(payload)
            if payload == b"last":
                done.set()

        await connections["r1"].subscribe(f"{TOPICS.root}/#", at_replica)
        await connections["d1"].publish(f"{TOPICS.device('d1')}/x", b"mine")
        connections["d2"].send(f"{TOPICS.device('d1')}/x", b"forged")
        await connections["d2"].publish(f"{TOPICS.device('d2')}/x", b"last")
        async with asyncio.timeout(DEADLINE):
            await done.wait()
        assert seen["r1"] == [b"mine", b"last"]
        assert seen["d2"] == [b"last"]


@pytest.mark.parametrize("has_certificate", [False, True])
async def test_a_stranger_is_not_let_in(tmp_path: Path, *, has_certificate: bool) -> None:
    authority = CertificateFolder(tmp_path / "ca", name="test")
    other = CertificateFolder(tmp_path / "other", name="other")
    tls = ServerTls(authority.certificate_file, authority.issue("broker", is_server=True))
    async with Broker(tmp_path, topics=TOPICS, tls=tls) as broker:
        stranger = other.issue("d1")
        settings = BrokerSettings(
            host="localhost",
            port=broker.port,
            ca_file=authority.certificate_file,
            certificate_file=stranger.certificate_file if has_certificate else None,
            key_file=stranger.key_file if has_certificate else None,
        )
        failed = asyncio.Event()
        connection = MqttConnection(settings, client_id="d1")
        connection.on_change(lambda is_connected: failed.set() if not is_connected else None)
        async with connection:
            async with asyncio.timeout(DEADLINE):
                await failed.wait()
            assert not connection.is_connected
            assert str(broker.port) in connection.problem


async def test_two_clients_of_one_identity_are_told_of_each_other(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    is_suspected = asyncio.Event()
    async with AsyncExitStack() as stack:
        first = await connected(stack, broker.settings, "the-device")
        first.on_change(lambda _: is_suspected.set() if first.rivalry else None)
        await connected(stack, broker.settings, "the-device")
        async with asyncio.timeout(2 * DEADLINE):
            await is_suspected.wait()
            await first.wait_until_connected()
        assert "another client uses this identity (the-device)" in first.rivalry
        assert first.status == first.rivalry
    told = [record.getMessage() for record in caplog.records if "uses this identity" in record.getMessage()]
    assert 1 <= len(told) <= 2, "once by each"


async def test_a_message_that_is_larger_than_the_broker_takes_is_lost_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    topic, limit = f"{TOPICS.root}/x", 2000
    received: asyncio.Queue[bytes] = asyncio.Queue()
    ends: list[bool] = []
    async with Broker(tmp_path, also=f"max_packet_size {limit}") as broker, AsyncExitStack() as stack:
        connection = await connected(stack, broker.settings, "d1")
        await connection.subscribe(topic, lambda _, payload: received.put_nowait(payload))
        connection.on_change(ends.append)
        for qos in (0, 1):
            at_limit = next(n for n in range(limit, 0, -1) if packet_bytes(topic, bytes(n), qos=qos) <= limit)
            fits, is_over = bytes(at_limit), bytes(at_limit + 1)
            said = re.escape(f"a message of {limit + 1} bytes to {topic} is not sent: the broker takes at most {limit}")
            if qos:
                with pytest.raises(OurError, match=said):
                    await connection.publish(topic, is_over)
                await connection.publish(topic, fits)
            else:
                assert not connection.send(topic, is_over)
                assert connection.send(topic, fits)
                assert re.search(said, caplog.text)
            async with asyncio.timeout(DEADLINE):
                assert await received.get() == fits
        assert ends == []


async def test_a_message_that_the_broker_hangs_up_over_is_not_waited_for(tmp_path: Path) -> None:
    async with Broker(tmp_path, also="max_packet_size 2000") as broker:
        client = BrokerClient("127.0.0.1", broker.port, protocol=ProtocolVersion.V5, timeout=10 * DEADLINE)
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(MqttError, match="the connection ended"):
                async with client:
                    await client.publish("a", bytes(5000), qos=1)


async def test_a_limit_that_the_broker_did_not_announce_is_not_waited_for(tmp_path: Path) -> None:
    async with Broker(tmp_path, also="message_size_limit 2000") as broker, AsyncExitStack() as stack:
        connection = await connected(stack, broker.settings, "d1")
        with pytest.raises(RetryableError, match="did not take a message of 5000 bytes: the connection ended"):
            await connection.publish("a", bytes(5000))
        async with asyncio.timeout(DEADLINE):
            await connection.wait_until_connected()
