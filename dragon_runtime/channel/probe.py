"""Whether any replica answers, and how far away it is, while no session's traffic tells. Asked from the device."""

import asyncio
import logging
import secrets
import statistics
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Self

from dragon_core import codec
from dragon_core.errors import PeerError
from dragon_core.link import LinkEstimate
from dragon_core.messages import Envelope, Probe
from dragon_core.wire import Wire
from dragon_runtime.interfaces import Channel, LinkRestored
from dragon_runtime.process.tasks import end_tasks, wait_at_most

logger = logging.getLogger(__name__)

PROBE_SECONDS = 15.0
RETRY_SECONDS = 2.0
ANSWER_SECONDS = 4.0
NUM_RECENT = 20


class CloudProbe:
    """Sends a probe now and then; use it inside `async with`. `create` makes a channel for a session id."""

    def __init__(self, create: Callable[[str], Channel]) -> None:
        self._create = create
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self.rtt_seconds: float | None = None
        self.is_answered = False
        self._recent: deque[float | None] = deque(maxlen=NUM_RECENT)

    @property
    def jitter_seconds(self) -> float | None:
        """Mean difference between one round trip and the next, of the last ones; None before there are two."""
        known = [sample for sample in self._recent if sample is not None]
        return statistics.fmean(abs(after - before) for before, after in pairwise(known)) if len(known) > 1 else None

    @property
    def loss(self) -> float | None:
        """Part of the last probes without an answer; None before there was one."""
        return sum(sample is None for sample in self._recent) / len(self._recent) if self._recent else None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._probe_for_ever(), name="cloud probe")
        return self

    async def __aexit__(self, *error: object) -> None:
        await end_tasks([] if self._task is None else [self._task])

    def wake(self) -> None:
        """Ask at once: something changed."""
        self._wake.set()

    async def _probe_for_ever(self) -> None:
        while True:
            self.is_answered = await self._probe()
            self._recent.append(self.rtt_seconds if self.is_answered else None)
            self._wake.clear()
            await wait_at_most(self._wake.wait(), PROBE_SECONDS if self.is_answered else RETRY_SECONDS)

    async def _probe(self) -> bool:
        link, loop = LinkEstimate(), asyncio.get_running_loop()
        wire = Wire(link)
        channel = self._create(secrets.token_hex(16))
        try:
            channel.send_open(codec.encode(wire.seal(Probe(), now=loop.time())))
            async with asyncio.timeout(ANSWER_SECONDS):
                while isinstance(frame := await channel.receive(), LinkRestored):
                    pass
            wire.unseal(codec.decode(frame), loop.time())
        except TimeoutError:
            return False
        except PeerError as error:
            logger.warning("a probe got a bad answer: %s", error)
            return False
        finally:
            channel.close()
        self.rtt_seconds = link.rtt_seconds
        return True


def answer_probe(envelope: Envelope, channel: Channel, *, now: float) -> None:
    """Send a probe back to where it came from."""
    wire = Wire(LinkEstimate())
    wire.unseal(envelope, now)
    channel.send(codec.encode(wire.seal(Probe(), now=now)))
    channel.close()
