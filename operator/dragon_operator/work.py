"""A queue of keys: one at a time per key, several keys at once, retried after a failure, merged while waiting."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from dragon_core.errors import DragonError, RetryableError
from dragon_runtime.process.tasks import end_tasks

logger = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 60.0

Key = TypeVar("Key", bound=Hashable)


class WorkQueue(Generic[Key]):
    """Calls `handle(key)` for every key that was added; a key added while it is handled is handled once more.

    A key rests for `rest_seconds` after it was handled: what is added meanwhile is handled once, at the end of it.
    """

    def __init__(self, handle: Callable[[Key], Awaitable[None]], *, num_workers: int, rest_seconds: float) -> None:
        self._handle = handle
        self._num_workers, self._rest_seconds = num_workers, rest_seconds
        self._waiting: dict[Key, None] = {}
        self._busy: set[Key] = set()
        self._resting_until: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._later: dict[Key, asyncio.TimerHandle] = {}
        self._changed = asyncio.Event()

    def add(self, key: Key) -> None:
        """Have `key` handled soon."""
        if (timer := self._later.pop(key, None)) is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        if (rested_at := self._resting_until.get(key, 0.0)) > loop.time():
            self._later[key] = loop.call_at(rested_at, self._add_rested, key)
        else:
            self._add_rested(key)

    def _add_rested(self, key: Key) -> None:
        self._later.pop(key, None)
        self._resting_until.pop(key, None)
        self._waiting[key] = None
        self._changed.set()

    def add_later(self, key: Key, seconds: float) -> None:
        """Have `key` handled in `seconds`, or sooner when it is added meanwhile."""
        if key not in self._later and key not in self._waiting:
            self._later[key] = asyncio.get_running_loop().call_later(seconds, self.add, key)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Work inside the scope."""
        workers = [asyncio.create_task(self._work(), name=f"worker {n}") for n in range(self._num_workers)]
        try:
            yield
        finally:
            for timer in self._later.values():
                timer.cancel()
            await end_tasks(workers)

    async def _next(self) -> Key:
        while True:
            for key in self._waiting:
                if key not in self._busy:
                    del self._waiting[key]
                    self._busy.add(key)
                    return key
            self._changed.clear()
            await self._changed.wait()

    async def _work(self) -> None:
        while True:
            key = await self._next()
            try:
                await self._handle(key)
                self._failures.pop(key, None)
            except DragonError as error:
                self._retry(key, str(error), error.retry_after_seconds if isinstance(error, RetryableError) else 0)
            except Exception as error:
                logger.exception("%s broke", key)
                self._retry(key, repr(error), 0)
            finally:
                self._resting_until[key] = asyncio.get_running_loop().time() + self._rest_seconds
                self._busy.discard(key)
                if key in self._waiting:  # added meanwhile, as by events of what was just applied
                    del self._waiting[key]
                    self.add(key)

    def _retry(self, key: Key, reason: str, delay: float) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = max(delay, min(MAX_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** (failures - 1)))
        logger.warning("%s: %s; again in %.0f s", key, reason, delay)
        self.add_later(key, delay)
