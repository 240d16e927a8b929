"""The channel inside one process: order, delay, loss and the end."""

import asyncio

import pytest

from dragon_core.errors import OurError
from dragon_runtime.channel.memory import MemoryChannel, memory_channel_pair
from dragon_runtime.interfaces import LinkRestored
from tests.fakes.virtual_loop import run_in_virtual_time


def test_frames_arrive_in_order_half_a_round_trip_later() -> None:
    async def main() -> None:
        opener, other = memory_channel_pair(rtt_seconds=0.3)
        opener.send_open(b"open")
        for at in range(50):
            opener.send(bytes([at]))
        other.send(b"back")
        assert [await other.receive() for _ in range(51)] == [b"open", *(bytes([at]) for at in range(50))]
        assert asyncio.get_running_loop().time() == pytest.approx(0.15)
        assert await opener.receive() == b"back"
        assert (opener.sent_bytes, other.received_bytes) == (54, 54)
        assert (other.sent_bytes, opener.received_bytes) == (4, 4)

    run_in_virtual_time(main())


def test_nothing_arrives_in_the_call_that_sends_it() -> None:
    async def main() -> None:
        opener, other = memory_channel_pair()
        opener.send(b"frame")
        assert other.received_bytes == 0
        assert await other.receive() == b"frame"

    run_in_virtual_time(main())


def test_a_cut_loses_what_is_sent_and_what_is_under_way_and_tells_of_its_end() -> None:
    async def main() -> None:
        opener, other = memory_channel_pair(rtt_seconds=0.2)
        opener.send(b"under way")
        opener.is_cut = other.is_cut = True
        opener.send(b"lost")
        await asyncio.sleep(1)
        for end in (opener, other):
            end.restore()
        opener.send(b"after")
        assert [await other.receive(), await other.receive()] == [LinkRestored(), b"after"]
        assert await opener.receive() == LinkRestored()
        assert opener.sent_bytes == len(b"under waylostafter")
        assert other.received_bytes == len(b"after")

    run_in_virtual_time(main())


def test_a_closed_end_takes_nothing_and_says_so() -> None:
    async def main() -> None:
        opener, other = memory_channel_pair()
        waiting = asyncio.create_task(other.receive())
        await asyncio.sleep(0)
        other.close()
        other.close()
        with pytest.raises(OurError, match="closed"):
            await waiting
        opener.send(b"frame")
        await asyncio.sleep(1)
        assert other.received_bytes == 0
        with pytest.raises(OurError, match="closed"):
            await other.receive()
        opener.close()

    run_in_virtual_time(main())


def test_an_end_without_another_cannot_send() -> None:
    with pytest.raises(OurError, match="never connected"):
        MemoryChannel().send(b"frame")
