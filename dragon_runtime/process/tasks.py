"""Ending tasks of one's own, and waiting no longer than so many seconds.

A task that lives as long as its owner is started with `create_task` and ended here. `asyncio.TaskGroup` is for work
that is waited for: at the end of its scope it does not cancel what runs, and when one task fails it cancels its owner.
"""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any

AGAIN_SECONDS = 0.5


async def end_tasks(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel tasks and return when they have ended, however.

    One is cancelled again when it goes on: before Python 3.12 `asyncio.wait_for`, which the MQTT client uses, loses a
    cancellation that arrives together with what it waits for. A TaskGroup would wait for such a task for ever.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        ended, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
        for task in ended:
            if not task.cancelled():
                task.exception()  # seen: nobody else asks for it


async def end_after_cleanup(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel tasks once and return when they have ended, however long what they clean up takes.

    For tasks that free an engine's sequences on their way out, which waits for a decode: `end_tasks` would break that
    off, and the next session would find too few of them.
    """
    ending = tuple(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


async def wait_at_most(coming: Awaitable[object], seconds: float) -> bool:
    """Wait for something, no longer than so many seconds; whether it came. What did not is cancelled."""
    try:
        async with asyncio.timeout(seconds):
            await coming
    except TimeoutError:
        return False
    return True
