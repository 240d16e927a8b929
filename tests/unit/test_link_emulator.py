"""The emulated link against a real TCP server."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from link_emulator.relay import Link, LinkEmulator


@pytest.fixture
async def echo_port() -> AsyncIterator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1000):
            writer.write(chunk)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_bytes_arrive_in_order_and_no_sooner_than_a_round_trip(echo_port: int) -> None:
    emulator = LinkEmulator(("127.0.0.1", echo_port), Link(rtt_seconds=0.1, jitter_seconds=0.01))
    async with emulator.serving("127.0.0.1", 0) as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        clock = asyncio.get_running_loop().time
        started = clock()
        for number in range(200):
            writer.write(b"%03d" % number)
            await asyncio.sleep(0)
        received = await reader.readexactly(600)
        assert clock() - started >= 0.1
        assert received == b"".join(b"%03d" % number for number in range(200))
        writer.close()


async def test_a_cut_holds_bytes_back_until_it_ends(echo_port: int) -> None:
    emulator = LinkEmulator(("127.0.0.1", echo_port), Link())
    async with emulator.serving("127.0.0.1", 0) as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        emulator.cut()
        writer.write(b"b")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 0.05)
        emulator.restore()
        assert await reader.readexactly(1) == b"b"
        writer.close()


async def test_a_reset_closes_connections(echo_port: int) -> None:
    emulator = LinkEmulator(("127.0.0.1", echo_port), Link())
    async with emulator.serving("127.0.0.1", 0) as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        emulator.reset()
        assert await reader.read() == b""
        writer.close()
