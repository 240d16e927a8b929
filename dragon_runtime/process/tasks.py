"""Ending tasks of one's own."""

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_SECONDS = 0.5


async def end_tasks(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel tasks and return when they have ended, however.

    One is cancelled again when it goes on: before Python 3.12 `asyncio.wait_for`, which the MQTT client uses, loses a
    cancellation that arrives together with what it waits for.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        ended, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
        for task in ended:
            if not task.cancelled():
                task.exception()  # seen: nobody else asks for it
