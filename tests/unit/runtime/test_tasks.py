"""Tasks end, also those that lose a cancellation; and waiting ends in time."""

import asyncio

import pytest

from dragon_runtime.process.tasks import AGAIN_SECONDS, end_after_cleanup, end_tasks, wait_at_most


async def test_a_task_that_loses_a_cancellation_ends_all_the_same() -> None:
    num_lost = 0

    async def careless() -> None:
        nonlocal num_lost
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            num_lost += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(careless())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await end_tasks([task])
    assert task.cancelled()
    assert num_lost == 1


async def test_how_a_task_ended_does_not_matter() -> None:
    async def fails() -> None:
        raise ValueError("on its own")

    failed, done = asyncio.create_task(fails()), asyncio.create_task(asyncio.sleep(0))
    waiting = asyncio.create_task(asyncio.Event().wait())
    await asyncio.wait([done])
    await end_tasks([failed, done, waiting])
    await end_tasks([])
    assert waiting.cancelled()
    assert isinstance(failed.exception(), ValueError)


async def test_a_cleanup_that_takes_its_time_is_not_broken_off() -> None:
    done: list[str] = []

    async def careful() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(3 * AGAIN_SECONDS)
            done.append("cleaned up")

    task = asyncio.create_task(careful())
    await asyncio.sleep(0)
    await end_after_cleanup([task])
    await end_after_cleanup([])
    assert task.cancelled()
    assert done == ["cleaned up"]


async def test_what_comes_in_time_is_told_from_what_does_not() -> None:
    there, never = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, there.set)
    assert await wait_at_most(there.wait(), 10)
    assert await wait_at_most(there.wait(), 0)
    assert not await wait_at_most(never.wait(), 0.01)
    assert not await wait_at_most(never.wait(), -1)


async def test_what_fails_while_it_is_waited_for_fails() -> None:
    async def fails() -> None:
        raise ValueError("on its own")

    with pytest.raises(ValueError, match="on its own"):
        await wait_at_most(fails(), 10)
