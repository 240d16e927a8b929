"""Tasks end, also those that lose a cancellation."""

import asyncio

from dragon_runtime.process.tasks import end_tasks


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
