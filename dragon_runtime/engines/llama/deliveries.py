"""How what an engine's thread found gets to its sessions, in order."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

from dragon_runtime.engines.llama.batches import Answer

logger = logging.getLogger(__name__)


class Deliveries:
    """Over the event loop, where the listeners are; used from the engine's thread only.

    `is_listener_elsewhere`: answers leave from a thread of their own instead. Sending one to another process waits for
    that process, and the next decode need not. Whatever is called on the loop comes after the answers before it, so
    that no answer follows the end of its session.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, is_listener_elsewhere: bool) -> None:
        self._loop = loop
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="llama-answers") if is_listener_elsewhere else None

    def deliver(self, answers: Collection[Answer]) -> None:
        """Answer the tickets of these."""
        if not answers:
            return
        if self._sender is not None:
            self._sender.submit(self._send, answers)
        else:
            self._post(self._deliver_one, deque(answers))

    def call(self, act: Callable[..., None], *arguments: object) -> None:
        """Run on the event loop; when that is closed nobody is left to tell."""
        if self._sender is not None:
            self._sender.submit(self._post, act, *arguments)
        else:
            self._post(act, *arguments)

    def close(self) -> None:
        """Deliver what waits. Calls may follow, answers may not."""
        if self._sender is not None:
            self._sender.shutdown()
            self._sender = None

    def _post(self, act: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(act, *arguments)

    def _send(self, answers: Collection[Answer]) -> None:
        for answer in answers:
            try:
                answer.session.deliver(answer.feed.ticket, answer.step)
            except Exception as error:
                logger.exception("a step could not be handed over")
                self._post(answer.session.fail, error)

    def _deliver_one(self, answers: deque[Answer]) -> None:
        """One in each turn of the loop: what else waits there comes between."""
        answer = answers.popleft()
        if answers:
            self._loop.call_soon(self._deliver_one, answers)
        answer.session.deliver(answer.feed.ticket, answer.step)
