"""When a client connects again: seldom while its connections do not last, at once after one that did."""

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from types import SimpleNamespace

import paho.mqtt.client
import pytest

from dragon_runtime.channel.connection import MqttConnection
from dragon_runtime.channel.retries import FIRST_SECONDS, LASTING_SECONDS, MAX_SECONDS, Retries
from dragon_runtime.settings import BrokerSettings

HOUR = 3600.0
CONNECT, CONNACK, SUBACK = 0x10, b"\x20\x03\x00\x00\x00", b"\x90\x04\x00\x01\x00\x00"
TAKEN_OVER = SUBACK + b"\xe0\x02\x8e\x00"


def num_connects(*, lasted_seconds: float) -> int:
    """Of an hour in which every connection ends after so many seconds."""
    retries, now = Retries(), 0.0
    for number in count():
        if now > HOUR:
            return number
        now += lasted_seconds + retries.next_delay(lasted_seconds)
    raise AssertionError


@pytest.mark.parametrize("lasted_seconds", [0.0, 0.001, 1.0, LASTING_SECONDS - 1])
def test_a_connection_that_does_not_last_is_made_seldom(lasted_seconds: float) -> None:
    assert num_connects(lasted_seconds=lasted_seconds) < HOUR / (lasted_seconds + MAX_SECONDS / 2) + 10


def test_after_a_connection_that_lasted_the_next_one_comes_at_once() -> None:
    retries = Retries()
    for _ in range(20):
        retries.next_delay(0.0)
    assert retries.next_delay(0.0) >= MAX_SECONDS / 2
    assert retries.next_delay(LASTING_SECONDS) <= FIRST_SECONDS
    assert retries.next_delay(1.0) <= 2 * FIRST_SECONDS


@pytest.mark.parametrize("num_clients", [2, 3, 10])
def test_clients_of_one_identity_do_not_chase_each_other(num_clients: int) -> None:
    retries = [Retries() for _ in range(num_clients)]
    due = [(0.0, client) for client in range(num_clients)]
    connects, holder, since = 0, None, 0.0
    while due[0][0] < HOUR:
        now, client = heapq.heappop(due)
        connects += 1
        if holder is not None:
            heapq.heappush(due, (now + retries[holder].next_delay(now - since), holder))
        holder, since = client, now
    # One of them is connected and the others wait, at least half of the longest delay each.
    assert connects < (num_clients - 1) * HOUR / (MAX_SECONDS / 2) + 10 * num_clients


@asynccontextmanager
async def broker_that_hangs_up(said: bytes) -> AsyncIterator[tuple[int, "asyncio.Queue[float]"]]:
    """One that says yes, and `said`, and ends the connection; yields its port and the times of the connects."""
    connects: asyncio.Queue[float] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind, rest = await reader.readexactly(2)
        await reader.readexactly(rest)
        assert kind == CONNECT
        connects.put_nowait(asyncio.get_running_loop().time())
        writer.write(CONNACK)
        await reader.readexactly(2)  # of the subscription: from then on the client listens
        writer.write(said)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], connects


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"", "perhaps another client uses this identity (d1)"),
        (TAKEN_OVER, "another client uses this identity (d1): stop one of the two"),
    ],
)
async def test_a_broker_that_hangs_up_after_it_said_yes_is_asked_less_and_less(
    caplog: pytest.LogCaptureFixture, said: bytes, told: str
) -> None:
    async with broker_that_hangs_up(said) as (port, connects):
        connection = MqttConnection(BrokerSettings(port=port), client_id="d1")
        await connection.subscribe("a", lambda _topic, _payload: None)
        ends: asyncio.Queue[bool] = asyncio.Queue()
        connection.on_change(lambda is_connected: None if is_connected else ends.put_nowait(is_connected))
        async with connection, asyncio.timeout(60):
            while connects.qsize() < 6:
                await ends.get()
            times = [connects.get_nowait() for _ in range(6)]
            assert told in connection.problem
            assert told in connection.rivalry
    least = (0.5 * FIRST_SECONDS * 2**number for number in range(5))
    assert all(after - before >= seconds for before, after, seconds in zip(times, times[1:], least, strict=False))
    assert [told in record.getMessage() for record in caplog.records].count(True) == 1


async def test_a_broker_is_not_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    socks = SimpleNamespace(HTTP=3, SOCKS4=1, SOCKS5=2, get_default_proxy=lambda: None, create_connection=asked.append)
    monkeypatch.setattr(paho.mqtt.client, "socks", socks)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("mqtt_proxy", "http://127.0.0.1:9")
    async with broker_that_hangs_up(SUBACK) as (port, connects):
        connection = MqttConnection(BrokerSettings(port=port), client_id="d1")
        await connection.subscribe("a", lambda _topic, _payload: None)
        ended = asyncio.Event()
        connection.on_change(lambda is_connected: None if is_connected else ended.set())
        async with connection, asyncio.timeout(20):
            await ended.wait()
        assert connects.qsize() >= 1
    assert asked == []
