"""The queue of what to look at: nothing is missed, and what comes in bursts is merged."""

import asyncio
from itertools import pairwise

import pytest

from dragon_core.errors import OurError
from dragon_operator.work import WorkQueue
from tests.fakes.virtual_loop import run_in_virtual_time

REST = 1.0


@pytest.mark.parametrize("is_during", [True, False])
def test_a_burst_is_handled_once_more_after_a_rest(is_during: bool) -> None:
    handled: list[float] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()

        async def handle(key: str) -> None:
            handled.append(loop.time())
            await asyncio.sleep(0.5)
            if is_during and len(handled) == 1:
                for _ in range(5):
                    queue.add(key)

        queue: WorkQueue[str] = WorkQueue(handle, num_workers=2, rest_seconds=REST)
        async with queue.running():
            queue.add("a")
            await asyncio.sleep(0.6)
            if not is_during:
                for _ in range(5):
                    queue.add("a")
            await asyncio.sleep(60)

    run_in_virtual_time(work())
    assert [after - before for before, after in pairwise(handled)] == [pytest.approx(0.5 + REST)]


def test_one_key_does_not_wait_for_another() -> None:
    handled: list[str] = []

    async def work() -> None:
        async def handle(key: str) -> None:
            handled.append(key)
            await asyncio.sleep(10 if key == "slow" else 0)

        queue: WorkQueue[str] = WorkQueue(handle, num_workers=2, rest_seconds=REST)
        async with queue.running():
            queue.add("slow")
            queue.add("quick")
            await asyncio.sleep(1)

    run_in_virtual_time(work())
    assert handled == ["slow", "quick"]


def test_a_failure_is_tried_again_ever_later_and_an_event_does_not_wait_for_that() -> None:
    times: list[float] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()

        async def handle(_: str) -> None:
            times.append(loop.time() - started)
            if len(times) < 5:
                raise OurError("not yet")

        queue: WorkQueue[str] = WorkQueue(handle, num_workers=1, rest_seconds=REST)
        async with queue.running():
            queue.add("a")
            await asyncio.sleep(10)  # tried after 0, 1, 3 and 7 s, next after 15
            queue.add("a")
            await asyncio.sleep(60)

    run_in_virtual_time(work())
    assert times == pytest.approx([0, 1, 3, 7, 10])
