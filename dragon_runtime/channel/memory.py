"""A channel inside one process, for both ends in one program: ordered, with a delay and cuts when asked."""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from dragon_core.errors import OurError
from dragon_runtime.interfaces import LinkRestored


class MemoryChannel:
    """One end of a pair; see `Channel`. Frames arrive `delay_seconds` after they were sent, never in the same call."""

    def __init__(self, *, delay_seconds: float = 0.0) -> None:
        self._delay_seconds = delay_seconds
        self._frames: asyncio.Queue[bytes | LinkRestored] = asyncio.Queue()
        self._under_way: deque[Callable[[], None]] = deque()
        self._deliver: Callable[[bytes], None] | None = None
        self._is_closed = False
        self.is_cut = False
        self.sent_bytes = 0
        self.received_bytes = 0

    def connect(self, other: "MemoryChannel") -> None:
        """Send to `other` from now on."""
        self._deliver = other.take

    def send_open(self, frame: bytes) -> None:
        """As `send`: there is one replica."""
        self.send(frame)

    def bind(self, replica: str) -> None:
        """Nothing to choose from."""

    def send(self, frame: bytes) -> None:
        """Queue a frame for the other end; lost while the link is cut."""
        if self._deliver is None:
            raise OurError("a memory channel that was never connected")
        self.sent_bytes += len(frame)
        if not self.is_cut:
            self._under_way.append(partial(self._deliver, frame))
            asyncio.get_running_loop().call_later(self._delay_seconds, self._deliver_oldest)

    def _deliver_oldest(self) -> None:
        """The oldest frame is due: timers of the same time may fire in any order."""
        self._under_way.popleft()()

    def take(self, frame: bytes) -> None:
        """A frame arrives."""
        if not self._is_closed and not self.is_cut:
            self.received_bytes += len(frame)
            self._frames.put_nowait(frame)

    def restore(self) -> None:
        """End a cut: this end learns that frames may be missing."""
        self.is_cut = False
        self._frames.put_nowait(LinkRestored())

    async def receive(self) -> bytes | LinkRestored:
        """The next frame, or that a cut has ended."""
        if not self._is_closed:
            arrived = await self._frames.get()
            if not self._is_closed:
                return arrived
        raise OurError("the channel is closed")

    def close(self) -> None:
        """Take nothing more, and wake who waits."""
        self._is_closed = True
        self._frames.put_nowait(LinkRestored())


def memory_channel_pair(*, rtt_seconds: float = 0.0) -> tuple[MemoryChannel, MemoryChannel]:
    """Two connected ends; each way takes half the round trip."""
    opener, other = (MemoryChannel(delay_seconds=rtt_seconds / 2) for _ in range(2))
    opener.connect(other)
    other.connect(opener)
    return opener, other
