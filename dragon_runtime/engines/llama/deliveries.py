"""How what an engine's thread found gets to its sessions, in order, and what the way there means for that thread.

An engine is given one of two: for listeners on its event loop, or for listeners in another process.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from dragon_runtime.engines.llama.batches import Answer

logger = logging.getLogger(__name__)

ELSEWHERE_SECONDS = 0.008
"""How long a listener in another process takes to answer a step with its next commands."""


class Deliveries(Protocol):
    """Used from the engine's thread only, but `wake`."""

    @property
    def listener_seconds(self) -> float:
        """How long a listener takes to answer a step with its next commands, beside what it has to compute."""

    @property
    def leaves_time(self) -> bool:
        """Whether the next step is worth making while the last one is on its way."""

    def deliver(self, answers: Collection[Answer]) -> None:
        """Answer the tickets of these."""

    def call(self, act: Callable[..., None], *arguments: object) -> None:
        """Run on the event loop; when that is closed nobody is left to tell."""

    def wake(self, thread: threading.Condition) -> None:
        """Listeners had commands for the engine: wake its thread. Called by whoever submits them, the lock held."""

    def close(self) -> None:
        """Deliver what waits. Calls may follow, answers may not."""


class LoopDeliveries:
    """Over the event loop, where the listeners are. See `Deliveries`."""

    listener_seconds = 0.0
    leaves_time = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._is_waking = False

    def deliver(self, answers: Collection[Answer]) -> None:
        """Answer the tickets of these, one in each turn of the loop."""
        if answers:
            self.call(self._deliver_one, deque(answers))

    def call(self, act: Callable[..., None], *arguments: object) -> None:
        """Run on the event loop."""
        _post(self._loop, act, *arguments)

    def wake(self, thread: threading.Condition) -> None:
        """When all that is ready now was submitted: that is one batch. On the event loop."""
        if not self._is_waking:
            self._is_waking = True
            self._loop.call_soon(self._wake_now, thread)

    def close(self) -> None:
        """Nothing waits here."""

    def _wake_now(self, thread: threading.Condition) -> None:
        self._is_waking = False
        with thread:
            thread.notify()

    def _deliver_one(self, answers: deque[Answer]) -> None:
        """What else waits on the loop comes between."""
        answer = answers.popleft()
        if answers:
            self._loop.call_soon(self._deliver_one, answers)
        answer.session.deliver(answer.feed.ticket, answer.step)


class ThreadDeliveries:
    """From a thread of their own, to listeners in another process. See `Deliveries`.

    Sending an answer there waits for that process, and the next decode need not. Whatever is called on the loop comes
    after the answers before it, so that no answer follows the end of its session.
    """

    listener_seconds = ELSEWHERE_SECONDS
    leaves_time = True

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._sender: ThreadPoolExecutor | None = ThreadPoolExecutor(1, thread_name_prefix="llama-answers")

    def deliver(self, answers: Collection[Answer]) -> None:
        """Have the thread answer the tickets of these."""
        if answers and self._sender is not None:
            self._sender.submit(self._send, answers)

    def call(self, act: Callable[..., None], *arguments: object) -> None:
        """Run on the event loop, after the answers before it."""
        if self._sender is not None:
            self._sender.submit(_post, self._loop, act, *arguments)
        else:
            _post(self._loop, act, *arguments)

    def wake(self, thread: threading.Condition) -> None:
        """At once: commands come one by one, and on any thread."""
        thread.notify()

    def close(self) -> None:
        """Wait until the thread has sent everything."""
        if self._sender is not None:
            self._sender.shutdown()
            self._sender = None

    def _send(self, answers: Collection[Answer]) -> None:
        for answer in answers:
            try:
                answer.session.deliver(answer.feed.ticket, answer.step)
            except Exception as error:
                logger.exception("a step could not be handed over")
                _post(self._loop, answer.session.fail, error)


def _post(loop: asyncio.AbstractEventLoop, act: Callable[..., None], *arguments: object) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(act, *arguments)
